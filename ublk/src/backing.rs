//! The image behind a served disk: a raw file or a block device, opened by one writer only.
//!
//! The ublk queues drive the file descriptor through io_uring; everybody else uses the
//! synchronous methods here, which take buffers of any alignment.

mod lock;
mod open;
mod sys;
mod zero;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use crate::buffer::AlignedBuf;

pub use open::{OpenError, OpenMode};
pub use zero::Discarded;

/// Bytes moved at once when a buffer must be bounced.
const BOUNCE: usize = 256 << 10;

/// What kind of thing holds the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Block,
}

/// An image opened for reading and writing. Dropping it releases its locks.
#[derive(Debug)]
pub struct Backing {
    file: File,
    path: PathBuf,
    kind: Kind,
    /// Bytes.
    size: u64,
    /// Bytes; requests of the guest are multiples of it.
    logical_block: u32,
    /// What `O_DIRECT` asks of offsets, lengths and memory, in bytes; `None`: buffered.
    direct: Option<u32>,
    /// Writes of whole blocks share it; a read-modify-write of a block's part excludes them.
    partial: RwLock<()>,
}

impl Backing {
    /// Open `path` as the only writer.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and, in its text, what to do about it.
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        open::open(path, mode)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The smallest unit of the guest's requests, in bytes: 512 for a file, what a block device says.
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// Whether the host's page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether the bytes lie in the host's memory (tmpfs, ramfs), where nothing waits for a device.
    pub fn is_in_memory(&self) -> bool {
        use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
        /// linux/magic.h
        const RAMFS_MAGIC: i64 = 0x8584_58f6;
        let kind = fstatfs(&self.file).map(|s| s.filesystem_type());
        self.kind == Kind::Regular && kind.is_ok_and(|t| t == TMPFS_MAGIC || t.0 == RAMFS_MAGIC)
    }

    /// Fill `buf` from byte `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end; else the host's error.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if !self.contains(offset, buf.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.direct {
            Some(align) if !aligned(offset, buf, align) => self.read_bounced(offset, buf, align),
            _ => self.file.read_exact_at(buf, offset),
        }
    }

    /// Write all of `data` to byte `offset`; with `fua` it is durable on return.
    ///
    /// # Errors
    /// `ENOSPC` past the end (an image never grows); else the host's error.
    pub fn write_at(&self, offset: u64, data: &[u8], fua: bool) -> io::Result<()> {
        if !self.contains(offset, data.len()) {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        let Some(align) = self.direct else { return self.write_all(offset, data, fua) };
        if whole_blocks(offset, data.len(), align) {
            let _shared = self.partial.read().unwrap_or_else(PoisonError::into_inner);
            if aligned(offset, data, align) {
                self.write_all(offset, data, fua)
            } else {
                self.write_bounced(offset, data, align, fua)
            }
        } else {
            let _alone = self.partial.write().unwrap_or_else(PoisonError::into_inner);
            self.write_bounced(offset, data, align, fua)
        }
    }

    /// Make everything that completed before this call durable.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn contains(&self, offset: u64, len: usize) -> bool {
        offset.checked_add(len as u64).is_some_and(|end| end <= self.size)
    }

    fn write_all(&self, mut offset: u64, mut data: &[u8], fua: bool) -> io::Result<()> {
        if !fua {
            return self.file.write_all_at(data, offset);
        }
        while !data.is_empty() {
            match sys::write_durable(&self.file, offset, data) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    data = data.get(n..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read_bounced(&self, offset: u64, buf: &mut [u8], align: u32) -> io::Result<()> {
        let mut bounce = AlignedBuf::new(bounce_len(offset, buf.len(), align));
        for (at, part) in parts_mut(offset, buf) {
            let (start, len) = widen(at, part.len(), align);
            let blocks = bounce.get_mut(..len).ok_or(io::ErrorKind::InvalidInput)?;
            self.file.read_exact_at(blocks, start)?;
            part.copy_from_slice(inner(blocks, start, at, part.len())?);
        }
        Ok(())
    }

    /// Write through an aligned buffer; blocks that are not covered whole are read first.
    fn write_bounced(&self, offset: u64, data: &[u8], align: u32, fua: bool) -> io::Result<()> {
        let mut bounce = AlignedBuf::new(bounce_len(offset, data.len(), align));
        for (at, part) in parts(offset, data) {
            let (start, len) = widen(at, part.len(), align);
            let blocks = bounce.get_mut(..len).ok_or(io::ErrorKind::InvalidInput)?;
            if !whole_blocks(at, part.len(), align) {
                self.file.read_exact_at(blocks, start)?;
            }
            inner(blocks, start, at, part.len())?.copy_from_slice(part);
            self.write_all(start, blocks, fua)?;
        }
        Ok(())
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        lock::release(&self.file);
    }
}

impl AsRawFd for Backing {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn whole_blocks(offset: u64, len: usize, align: u32) -> bool {
    offset.is_multiple_of(align.into()) && (len as u64).is_multiple_of(align.into())
}

fn aligned(offset: u64, buf: &[u8], align: u32) -> bool {
    whole_blocks(offset, buf.len(), align) && (buf.as_ptr().addr() as u64).is_multiple_of(align.into())
}

/// The first byte and the length of the blocks that `offset..offset + len` touches.
fn widen(offset: u64, len: usize, align: u32) -> (u64, usize) {
    let align = u64::from(align);
    let start = offset - offset % align;
    let end = (offset + len as u64).next_multiple_of(align);
    (start, usize::try_from(end - start).unwrap_or(usize::MAX))
}

fn bounce_len(offset: u64, len: usize, align: u32) -> usize {
    widen(offset, len.min(BOUNCE), align).1 + align as usize
}

/// The `len` bytes at disk byte `at` within `blocks`, which begin at disk byte `start`.
fn inner(blocks: &mut [u8], start: u64, at: u64, len: usize) -> io::Result<&mut [u8]> {
    let skip = usize::try_from(at - start).map_err(|_| io::ErrorKind::InvalidInput)?;
    blocks.get_mut(skip..skip + len).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// `data` in parts of at most [`BOUNCE`] bytes that end at multiples of it, each with its disk byte.
fn parts(mut offset: u64, mut data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (head, tail) = data.split_at_checked(part_len(offset, data.len())?)?;
        let at = offset;
        offset += head.len() as u64;
        data = tail;
        Some((at, head))
    })
}

/// As [`parts`], for reading into.
fn parts_mut(mut offset: u64, mut data: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
    std::iter::from_fn(move || {
        let len = part_len(offset, data.len())?;
        let (head, tail) = std::mem::take(&mut data).split_at_mut_checked(len)?;
        let at = offset;
        offset += head.len() as u64;
        data = tail;
        Some((at, head))
    })
}

fn part_len(offset: u64, left: usize) -> Option<usize> {
    let to_boundary = BOUNCE as u64 - offset % BOUNCE as u64;
    (left > 0).then(|| usize::try_from(to_boundary).unwrap_or(BOUNCE).min(left))
}

#[cfg(test)]
#[path = "backing/tests.rs"]
mod tests;
