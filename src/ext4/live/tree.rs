//! The live file system as a [`Tree`]: answers come from the state that the events have told.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::state::State;
use crate::error::{Error, Result};
use crate::ext4::blocks::Volume;
use crate::ext4::fs::ROOT;
use crate::ext4::inode::Inode;
use crate::ext4::map::Mapping;
use crate::ext4::reader::read_mapped;
use crate::tree::{Attr, DirEntry, Kind, StatFs, Tree, Xattr};
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
}

/// The inode `ino` of `state` and its number as ext counts.
fn find(state: &State, ino: InodeNo) -> Result<(u32, Arc<Inode>)> {
    let n = u32::try_from(ino.0).map_err(|_| Error::NotFound)?;
    Ok((n, state.inodes.get(&n).cloned().ok_or(Error::NotFound)?))
}

impl Tree for LiveTree {
    fn root(&self) -> InodeNo {
        ROOT
    }

    fn attr(&self, ino: InodeNo) -> Result<Attr> {
        Ok(find(&self.state(), ino)?.1.attr(ino))
    }

    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>> {
        let state = self.state();
        if find(&state, dir)?.1.kind != Kind::Dir {
            return Err(Error::NotADirectory);
        }
        let kind = |i| state.inode(i).map(|i| i.kind);
        Ok(state.names.entries(dir).map(|(n, i)| DirEntry { ino: i, name: n.to_vec(), kind: kind(i) }).collect())
    }

    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        Ok(self.state().names.lookup(dir, name))
    }

    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (inode, map): (Arc<Inode>, Arc<Mapping>) = {
            let state = self.state();
            let (n, inode) = find(&state, ino)?;
            let map = state.mapping(n, &inode);
            (inode, map)
        };
        match inode.kind {
            Kind::Dir => Err(Error::IsADirectory),
            _ => read_mapped(&*self.volume, &map, inode.size, offset, buf),
        }
    }

    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        let state = self.state();
        let (_, inode) = find(&state, ino)?;
        state.geometry.link_target(&*self.volume, ino, &inode)
    }

    fn xattrs(&self, ino: InodeNo) -> Result<Vec<Xattr>> {
        let state = self.state();
        let (n, inode) = find(&state, ino)?;
        Ok(state.xattrs(&*self.volume, n, &inode))
    }

    fn stat_fs(&self) -> Result<StatFs> {
        Ok(self.state().geometry.stat_fs())
    }
}
