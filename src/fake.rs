//! A file system made of literals, for tests of what stands on [`crate::tree::Tree`].

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::tree::{Attr, DirEntry, Kind, StatFs, Tree, Xattr};
use crate::units::{InodeNo, Timestamp};

/// What an inode is.
pub enum Node {
    /// Names and inodes, in the order on disk.
    Dir(Vec<(&'static [u8], u64)>),
    /// Content.
    File(&'static [u8]),
    /// Target.
    Link(&'static [u8]),
    /// Content that cannot be read.
    Broken,
}

/// Inodes by number; the root is 2.
pub struct Fake(pub BTreeMap<u64, Node>);

impl Fake {
    /// A tree of these inodes.
    pub fn new(nodes: impl IntoIterator<Item = (u64, Node)>) -> Self {
        Self(nodes.into_iter().collect())
    }

    fn node(&self, ino: InodeNo) -> Result<&Node> {
        self.0.get(&ino.0).ok_or(Error::NotFound)
    }
}

impl Tree for Fake {
    fn root(&self) -> InodeNo {
        InodeNo(2)
    }

    fn attr(&self, ino: InodeNo) -> Result<Attr> {
        let (kind, size) = match self.node(ino)? {
            Node::Dir(_) => (Kind::Dir, 4096),
            Node::File(b) => (Kind::File, b.len() as u64),
            Node::Link(t) => (Kind::Symlink, t.len() as u64),
            Node::Broken => (Kind::File, 10),
        };
        let t = Timestamp { secs: 1, nanos: 5 };
        Ok(Attr {
            ino,
            kind,
            size,
            sectors: 8,
            nlink: 1,
            mode: Some(0o644),
            uid: Some(0),
            gid: Some(0),
            mtime: t,
            atime: t,
            ctime: t,
            crtime: None,
            rdev: None,
            generation: 0,
            flags: 0,
        })
    }

    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>> {
        match self.node(dir)? {
            Node::Dir(names) => {
                Ok(names.iter().map(|(n, i)| DirEntry { ino: InodeNo(*i), name: n.to_vec(), kind: None }).collect())
            }
            _ => Err(Error::NotADirectory),
        }
    }

    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let Node::File(bytes) = self.node(ino)? else {
            return Err(Error::corrupt("block", 7, "a block", "none"));
        };
        let rest = usize::try_from(offset).ok().and_then(|o| bytes.get(o..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        match self.node(ino)? {
            Node::Link(t) => Ok(t.to_vec()),
            _ => Err(Error::NotASymlink),
        }
    }

    fn xattrs(&self, _: InodeNo) -> Result<Vec<Xattr>> {
        Ok(Vec::new())
    }

    fn stat_fs(&self) -> Result<StatFs> {
        Ok(StatFs::default())
    }
}
