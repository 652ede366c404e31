//! The view's logic, without FUSE: what each question of the kernel is answered with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use nix::errno::Errno;

use super::dirs::OpenDirs;
use super::known::{Known, Name};
use super::listing;
use super::node::{Layout, Node, Place, Slot, TOP};
use super::queue::Queue;
use super::stale::Stale;
use crate::error::Error;
use crate::guest::Guest;
use crate::tree::{Attr, Kind, StatFs};
use crate::units::{InodeNo, Timestamp};

/// The answer to a question, or the errno for whoever asked.
pub type Answer<T> = Result<T, Errno>;

/// A file that the kernel is told of.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number in the view.
    pub node: Node,
    /// Sets it apart from files that had the number before.
    pub generation: u64,
    /// Its attributes; `ino` is the guest's number.
    pub attr: Attr,
    /// Whether the kernel may cache the name that led here, and the attributes.
    pub cache: bool,
}

/// What an xattr call gets: it asks with a buffer of `size` bytes, or with 0 for the length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sized {
    /// How many bytes there are.
    Length(u32),
    /// The bytes.
    Bytes(Vec<u8>),
}

/// A guest's files as the kernel sees them. All methods may be called from several threads.
pub struct Files {
    guest: Arc<Guest>,
    layout: RwLock<Arc<Layout>>,
    known: Mutex<Known>,
    pub(super) open: OpenDirs,
    queue: Queue,
    started: Timestamp,
}

impl Files {
    /// The files of `guest`.
    pub fn new(guest: Arc<Guest>) -> Self {
        let layout = Layout::new(guest.volumes());
        Self {
            guest,
            layout: RwLock::new(Arc::new(layout)),
            known: Mutex::default(),
            open: OpenDirs::default(),
            queue: Queue::default(),
            started: Timestamp::now(),
        }
    }

    /// The guest's volumes as they are now.
    pub fn layout(&self) -> Arc<Layout> {
        self.refresh();
        Arc::clone(&self.layout.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Look whether the guest's volumes have been replaced. If so, all that the kernel has cached
    /// is in doubt.
    pub fn refresh(&self) {
        let volumes = self.guest.volumes();
        if self.layout.read().unwrap_or_else(PoisonError::into_inner).is_of(&volumes) {
            return;
        }
        let mut layout = self.layout.write().unwrap_or_else(PoisonError::into_inner);
        if !layout.is_of(&volumes) {
            *layout = Arc::new(layout.next(volumes));
            self.queue.push([Stale::All]);
        }
    }

    /// What the kernel is still to be told.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What the kernel knows.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file called `name` in `parent`. The kernel knows it from now on.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn lookup(&self, parent: Node, name: &[u8]) -> Answer<Found> {
        let sweeps = self.known().sweeps();
        let layout = self.layout();
        let (slot, ino) = match self.place(&layout, parent)? {
            Place::Volumes => {
                let slot = layout.slots().iter().find(|s| s.name.as_bytes() == name).ok_or(Errno::ENOENT)?;
                (slot, slot.tree.root())
            }
            Place::File(slot, dir) => {
                let found = slot.tree.lookup(dir, name).map_err(|e| errno(&e, slot, dir))?;
                (slot, found.ok_or(Errno::ENOENT)?)
            }
        };
        self.tell(&layout, slot, ino, Name { parent, name: name.into() }, sweeps)
    }

    /// Describe a file to the kernel and remember that it knows it.
    pub(super) fn tell(&self, layout: &Layout, slot: &Slot, ino: InodeNo, name: Name, sweeps: u64) -> Answer<Found> {
        let node = layout.node(slot, ino).filter(|n| *n != TOP).ok_or(Errno::EIO)?;
        // First the note, then the look: a change that comes between the two is then seen to.
        let ticket = self.known().expect(node, sweeps);
        let attr = slot.tree.attr(ino).map_err(|e| {
            self.forget(node, 1);
            errno(&e, slot, ino)
        })?;
        let generation = slot.generation(attr.generation);
        let cache = self.known().told(ticket, generation, name);
        Ok(Found { node, generation, attr, cache })
    }

    /// The kernel has forgotten `count` answers that told it of `node`.
    pub fn forget(&self, node: Node, count: u64) {
        self.known().forget(node, count);
    }

    /// Attributes of a node.
    ///
    /// # Errors
    /// `ESTALE` if the file is gone or its number belongs to another file now.
    pub fn attr(&self, node: Node) -> Answer<Attr> {
        let layout = self.layout();
        match self.place(&layout, node)? {
            Place::Volumes => Ok(listing::top_attr(layout.slots().len(), self.started)),
            Place::File(slot, ino) => self.attr_of(slot, ino, node),
        }
    }

    pub(super) fn attr_of(&self, slot: &Slot, ino: InodeNo, node: Node) -> Answer<Attr> {
        let attr = slot.tree.attr(ino).map_err(|e| gone(errno(&e, slot, ino)))?;
        let told = self.known().generation(node);
        match told {
            Some(generation) if generation != slot.generation(attr.generation) => Err(Errno::ESTALE),
            _ => Ok(attr),
        }
    }

    /// Check that a file's content can be read.
    pub fn open(&self, node: Node) -> Answer<()> {
        match self.attr(node)?.kind {
            Kind::Dir => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    /// Up to `size` bytes of a file from byte `offset` on; fewer only at its end.
    pub fn read(&self, node: Node, offset: u64, size: u32) -> Answer<Vec<u8>> {
        self.with_file(node, |slot, ino| {
            let attr = self.attr_of(slot, ino, node)?;
            let rest = attr.size.saturating_sub(offset).min(size.into());
            let mut buf = vec![0; usize::try_from(rest).map_err(|_| Errno::EINVAL)?];
            let n = slot.tree.read(ino, offset, &mut buf).map_err(|e| gone(errno(&e, slot, ino)))?;
            buf.truncate(n);
            Ok(buf)
        })
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, node: Node) -> Answer<Vec<u8>> {
        self.with_file(node, |slot, ino| slot.tree.read_link(ino).map_err(|e| gone(errno(&e, slot, ino))))
    }

    /// The value of the extended attribute `name`.
    ///
    /// # Errors
    /// `ENODATA` if there is none, `ERANGE` if it is longer than `size` (unless that is 0).
    pub fn xattr(&self, node: Node, name: &[u8], size: u32) -> Answer<Sized> {
        let value = self.xattrs(node)?.into_iter().find(|(n, _)| n == name).map(|(_, v)| v);
        sized(value.ok_or(Errno::ENODATA)?, size)
    }

    /// The names of all extended attributes, each ended by a NUL.
    ///
    /// # Errors
    /// `ERANGE` if they are longer than `size` (unless that is 0).
    pub fn xattr_names(&self, node: Node, size: u32) -> Answer<Sized> {
        let names = self.xattrs(node)?.into_iter().filter(|(n, _)| !n.is_empty() && !n.contains(&0));
        sized(names.flat_map(|(n, _)| n.into_iter().chain([0])).collect(), size)
    }

    fn xattrs(&self, node: Node) -> Answer<Vec<crate::tree::Xattr>> {
        let layout = self.layout();
        match self.place(&layout, node)? {
            Place::Volumes => Ok(Vec::new()),
            Place::File(slot, ino) => slot.tree.xattrs(ino).map_err(|e| gone(errno(&e, slot, ino))),
        }
    }

    /// Totals of the volume that holds `node`; of all of them for their folder.
    pub fn stat_fs(&self, node: Node) -> Answer<StatFs> {
        let layout = self.layout();
        match self.place(&layout, node)? {
            Place::Volumes => Ok(listing::total(layout.slots())),
            Place::File(slot, ino) => slot.tree.stat_fs().map_err(|e| errno(&e, slot, ino)),
        }
    }

    pub(super) fn place<'a>(&self, layout: &'a Layout, node: Node) -> Answer<Place<'a>> {
        layout.place(node).ok_or(Errno::ESTALE)
    }

    fn with_file<T>(&self, node: Node, f: impl FnOnce(&Slot, InodeNo) -> Answer<T>) -> Answer<T> {
        let layout = self.layout();
        match self.place(&layout, node)? {
            Place::Volumes => Err(Errno::EISDIR),
            Place::File(slot, ino) => f(slot, ino),
        }
    }
}

fn sized(bytes: Vec<u8>, size: u32) -> Answer<Sized> {
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
    match size {
        0 => Ok(Sized::Length(length)),
        _ if length > size => Err(Errno::ERANGE),
        _ => Ok(Sized::Bytes(bytes)),
    }
}

/// A node that the kernel holds and the guest no longer has: with `ESTALE` the kernel asks for the
/// name again before it gives up.
pub(super) fn gone(e: Errno) -> Errno {
    if e == Errno::ENOENT { Errno::ESTALE } else { e }
}

/// The errno of a failure in the guest's file system; the unusual ones are logged.
pub(super) fn errno(e: &Error, slot: &Slot, ino: InodeNo) -> Errno {
    match e {
        Error::NotFound => Errno::ENOENT,
        Error::NotADirectory => Errno::ENOTDIR,
        Error::IsADirectory => Errno::EISDIR,
        Error::NotASymlink => Errno::EINVAL,
        Error::Unsupported { .. } => {
            tracing::warn!(volume = &*slot.name, inode = ino.0, "view: {e}");
            Errno::EOPNOTSUPP
        }
        Error::Corrupt { .. } | Error::Io { .. } => {
            tracing::warn!(volume = &*slot.name, inode = ino.0, "view: {e}");
            Errno::EIO
        }
    }
}
