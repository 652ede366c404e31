//! What every reader of a guest's file system offers: `ls`, `cat`, the FUSE view, the crawl and
//! the listing stand on this trait alone.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::units::{InodeNo, Timestamp};

/// The kind of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Sock,
    /// Character device.
    Chr,
    /// Block device.
    Blk,
    /// An NTFS reparse point that is no link.
    Reparse,
}

/// What `stat` tells of a file. Fields that a file system lacks are `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attr {
    /// Number of the inode or MFT record.
    pub ino: InodeNo,
    /// Kind.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Space on disk in 512-byte units.
    pub sectors: u64,
    /// Number of names.
    pub nlink: u32,
    /// Permission bits (`07777`).
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub crtime: Option<Timestamp>,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Tells apart successive files with the same number (ext: `i_generation`; NTFS: sequence).
    pub generation: u64,
    /// The file system's own flags (ext: `i_flags`; NTFS: attributes).
    pub flags: u64,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The file that it names.
    pub ino: InodeNo,
    /// Raw bytes of the name, never empty, without `/` or NUL.
    pub name: Vec<u8>,
    /// Kind, where the directory itself records it.
    pub kind: Option<Kind>,
}

/// Where a piece of a file's content lies. All in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Offset in the file.
    pub logical_offset: u64,
    /// Offset on the volume.
    pub disk_offset: u64,
    /// Length.
    pub length: u64,
    /// Allocated but never written: reads as zeros.
    pub unwritten: bool,
}

/// An extended attribute: full name (`user.x`) and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// A named stream of bytes that a file has besides its content (NTFS).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Its name, raw bytes.
    pub name: Vec<u8>,
    /// The number under which [`Tree::attr`] and [`Tree::read`] know it.
    pub ino: InodeNo,
}

/// Totals for `statfs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatFs {
    /// Bytes per block.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Inodes of the file system.
    pub inodes: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
}

/// A readable file system. All methods may be called from several threads.
pub trait Tree: Send + Sync {
    /// The root directory.
    fn root(&self) -> InodeNo;
    /// Attributes of a file in use, else `NotFound`.
    fn attr(&self, ino: InodeNo) -> Result<Attr>;
    /// The names in a directory, without `.` and `..`, in the order in which they lie on disk.
    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>>;
    /// The same, as far as the directory can be read, and what hides the rest.
    fn read_dir_partly(&self, dir: InodeNo) -> (Vec<DirEntry>, Option<Error>) {
        match self.read_dir(dir) {
            Ok(names) => (names, None),
            Err(e) => (Vec::new(), Some(e)),
        }
    }
    /// What `name` in `dir` stands for.
    fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        Ok(self.read_dir(dir)?.into_iter().find(|e| e.name == name).map(|e| e.ino))
    }
    /// Read a regular file's bytes from `offset` on; holes and unwritten extents read as zeros.
    /// Returns how many bytes were read: fewer than asked for only at the end of the file.
    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// Target of a symbolic link, raw bytes.
    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>>;
    /// Extended attributes in the order of their names.
    fn xattrs(&self, ino: InodeNo) -> Result<Vec<Xattr>>;
    /// Named streams in the order of their names.
    fn streams(&self, _: InodeNo) -> Result<Vec<Stream>> {
        Ok(Vec::new())
    }
    /// Tag of a reparse point (NTFS).
    fn reparse_tag(&self, _: InodeNo) -> Result<Option<u32>> {
        Ok(None)
    }
    /// What only this file system knows of a file, in words: names and values.
    fn facts(&self, _: InodeNo) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }
    /// Totals.
    fn stat_fs(&self) -> Result<StatFs>;
}
