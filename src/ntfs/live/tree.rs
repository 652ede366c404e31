//! The live volume as a [`Tree`]: answers come from the state that the events have told.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::state::{State, key};
use crate::error::{Error, Result};
use crate::ntfs::node::{self, Node, record_of, split_stream};
use crate::ntfs::reader;
use crate::ntfs::record::FileRef;
use crate::ntfs::volume::{Volume, fixed};
use crate::tree::{Attr, DirEntry, Kind, StatFs, Stream, Tree, Xattr};
use crate::units::InodeNo;

/// A shared, read-only look at a live volume.
pub struct LiveTree {
    state: Arc<RwLock<State>>,
    volume: Arc<Volume>,
}

impl LiveTree {
    /// Look at `state`; content is read from `volume`.
    pub fn new(state: Arc<RwLock<State>>, volume: Arc<Volume>) -> Self {
        Self { state, volume }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, ino: InodeNo) -> Result<Arc<Node>> {
        self.state().nodes.get(&record_of(ino).0).cloned().ok_or(Error::NotFound)
    }
}

/// Read a file or stream of a volume.
pub fn read(volume: &Volume, file: &Node, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
    if record_of(ino).1 {
        return node::read(volume, file.stream(ino).ok_or(Error::NotFound)?, offset, buf);
    }
    file.read(volume, offset, buf)
}

impl Tree for LiveTree {
    fn root(&self) -> InodeNo {
        InodeNo(fixed::ROOT)
    }

    fn attr(&self, ino: InodeNo) -> Result<Attr> {
        let node = self.node(ino)?;
        let cluster = self.volume.cluster_size();
        if record_of(ino).1 { reader::stream_attr(&node, ino, cluster) } else { Ok(node.attr(cluster)) }
    }

    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>> {
        let state = self.state();
        let node = state.nodes.get(&dir.0).ok_or(Error::NotFound)?;
        if node.kind != Kind::Dir {
            return Err(Error::NotADirectory);
        }
        let entries = state.names.entries(key(node.file.id));
        let entry = |(name, i): (&crate::namespace::Name, InodeNo)| {
            let id = FileRef(i.0);
            let kind = state.node(id).map(|n| n.kind);
            DirEntry { ino: InodeNo(id.record()), name: name.to_vec(), kind }
        };
        Ok(entries.map(entry).collect())
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        let state = self.state();
        let Some(node) = state.nodes.get(&dir.0) else { return Ok(None) };
        let find = |name: &[u8]| state.names.lookup(key(node.file.id), name).map(|i| FileRef(i.0).record());
        if let Some(found) = find(name) {
            return Ok(Some(InodeNo(found)));
        }
        let Some((file, stream)) = split_stream(name) else { return Ok(None) };
        let holder = if file.is_empty() { Some(dir.0) } else { find(file) };
        let streams = holder.and_then(|h| state.nodes.get(&h)).map(|n| n.streams()).unwrap_or_default();
        Ok(streams.into_iter().find(|(n, _)| n == stream).map(|(_, i)| i))
    }

    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read(&self.volume, &*self.node(ino)?, ino, offset, buf)
    }

    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        self.node(ino)?.target.clone().ok_or(Error::NotASymlink)
    }

    fn xattrs(&self, _: InodeNo) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn streams(&self, ino: InodeNo) -> Result<Vec<Stream>> {
        Ok(if record_of(ino).1 { Vec::new() } else { reader::streams(&*self.node(ino)?) })
    }

    fn reparse_tag(&self, ino: InodeNo) -> Result<Option<u32>> {
        Ok(self.node(ino)?.tag)
    }

    fn stat_fs(&self) -> Result<StatFs> {
        reader::stat_fs(&self.volume)
    }
}
