//! Open directories: listing them, with and without attributes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::files::{Answer, Files, Found, errno, gone};
use super::known::Name;
use super::listing::{self, Line, Listing};
use super::node::{Layout, Node, Place, Slot, TOP};
use crate::tree::{Attr, Kind};
use crate::units::{InodeNo, Timestamp};

/// The directories that are open, by handle.
#[derive(Default)]
pub(super) struct OpenDirs {
    listings: Mutex<HashMap<u64, Arc<Listing>>>,
    next: AtomicU64,
}

impl OpenDirs {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Listing>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// Open a directory for listing: a handle for [`Files::listing`].
    pub fn open_dir(&self, node: Node) -> Answer<u64> {
        let listing = Arc::new(self.list(node)?);
        let handle = self.open.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(handle, listing);
        Ok(handle)
    }

    /// The names in an open directory as they were when it was opened, or rewound: that is what
    /// asking from offset 0 on again means.
    pub fn listing(&self, node: Node, handle: u64, offset: u64) -> Answer<Arc<Listing>> {
        let listing = self.open.lock().get(&handle).cloned().ok_or(Errno::EBADF)?;
        if offset > 0 || listing.is_unread() {
            return Ok(listing);
        }
        let again = Arc::new(self.list(node)?);
        self.open.lock().insert(handle, Arc::clone(&again));
        again.is_unread();
        Ok(again)
    }

    /// Close a directory.
    pub fn close_dir(&self, handle: u64) {
        self.open.lock().remove(&handle);
    }

    fn list(&self, node: Node) -> Answer<Listing> {
        let layout = self.layout();
        let parent = self.parent_number(&layout, node);
        match self.place(&layout, node)? {
            Place::Volumes => Ok(listing::of_volumes(layout.slots())),
            Place::File(slot, dir) => {
                self.attr_of(slot, dir, node)?;
                let entries = slot.tree.read_dir(dir).map_err(|e| gone(errno(&e, slot, dir)))?;
                Ok(listing::of_dir(slot, dir, parent.unwrap_or(dir), entries))
            }
        }
    }

    /// What `..` of `node` is numbered.
    fn parent_number(&self, layout: &Layout, node: Node) -> Option<InodeNo> {
        let parent = self.known().parent(node)?;
        match layout.place(parent)? {
            Place::Volumes => None,
            Place::File(_, ino) => Some(ino),
        }
    }

    /// The kind of a listed file, where the directory does not record it.
    pub fn kind(&self, dir: Node, line: &Line) -> Kind {
        let layout = self.layout();
        let attr = slot_of(&layout, dir, line).and_then(|s| s.tree.attr(line.ino).ok());
        attr.map_or(Kind::File, |a| a.kind)
    }

    /// Tell the kernel of a listed file as a lookup would. One that cannot be looked up is listed
    /// all the same, and not cached: whoever asks for it gets the error.
    pub fn describe(&self, dir: Node, line: &Line) -> Found {
        if line.is_dot() {
            return unread(Node(line.ino.0), line);
        }
        let sweeps = self.known().sweeps();
        let layout = self.layout();
        let name = Name { parent: dir, name: line.name.as_slice().into() };
        let Some(slot) = slot_of(&layout, dir, line) else { return unread(TOP, line) };
        self.tell(&layout, slot, line.ino, name.clone(), sweeps).unwrap_or_else(|_| {
            let found = unread(layout.node(slot, line.ino).unwrap_or(TOP), line);
            let mut known = self.known();
            let ticket = known.expect(found.node, sweeps);
            known.told(ticket, found.generation, name);
            found
        })
    }

    /// The kernel was not told of it after all.
    pub fn untell(&self, line: &Line, found: &Found) {
        if !line.is_dot() {
            self.forget(found.node, 1);
        }
    }
}

fn slot_of<'a>(layout: &'a Layout, dir: Node, line: &Line) -> Option<&'a Slot> {
    match (layout.place(dir)?, line.volume) {
        (Place::Volumes, Some(index)) => layout.slots().get(index),
        (Place::File(slot, _), None) => Some(slot),
        _ => None,
    }
}

/// A listed file of which nothing but its name is known.
fn unread(node: Node, line: &Line) -> Found {
    let attr = Attr {
        ino: line.ino,
        kind: line.kind.unwrap_or(Kind::File),
        size: 0,
        sectors: 0,
        nlink: 1,
        mode: Some(0),
        uid: None,
        gid: None,
        mtime: Timestamp::default(),
        atime: Timestamp::default(),
        ctime: Timestamp::default(),
        crtime: None,
        rdev: None,
        generation: 0,
        flags: 0,
    };
    Found { node, generation: 0, attr, cache: false }
}
