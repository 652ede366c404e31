//! Discard and write-zeroes.

use std::io;

use nix::libc;

use super::{Backing, Kind, sys};
use crate::buffer::AlignedBuf;

/// Bytes written at once where zeros must really be written.
const CHUNK: usize = 256 << 10;

/// What discarded bytes read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// Zeros: the image is a file and has a hole there.
    Zeros,
    /// Whatever the image now holds.
    Anything,
}

impl Backing {
    /// The guest no longer needs `len` bytes at `offset`: give them back to the host if it can take
    /// them (a discard is a hint: an image that can't punch holes keeps them, without an error).
    ///
    /// # Errors
    /// `ENOSPC` past the end; else the host's error.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<Discarded> {
        self.check_range(offset, len)?;
        let (done, as_told) = match self.kind {
            Kind::Regular => (self.punch(offset, len), Discarded::Zeros),
            Kind::Block => (sys::block_discard(&self.file, offset, len), Discarded::Anything),
        };
        match done {
            Ok(()) => Ok(as_told),
            Err(e) if unsupported(&e) => Ok(Discarded::Anything),
            Err(e) => Err(e),
        }
    }

    /// Make `len` bytes at `offset` read as zeros. With `unmap` the space may be given back to the
    /// host; without, it stays allocated where the file system can tell. With `fua` it is durable
    /// on return.
    ///
    /// # Errors
    /// `ENOSPC` past the end, or if zeros had to be written and the host is full.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool, fua: bool) -> io::Result<()> {
        self.check_range(offset, len)?;
        let done = match self.kind {
            Kind::Block => sys::block_zero(&self.file, offset, len),
            Kind::Regular if unmap => self.punch(offset, len),
            Kind::Regular => {
                sys::fallocate(&self.file, libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, offset, len)
            }
        };
        match done {
            Err(e) if unsupported(&e) => self.write_real_zeros(offset, len)?,
            other => other?,
        }
        if fua { self.flush() } else { Ok(()) }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::fallocate(&self.file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len)
    }

    pub(super) fn write_real_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = AlignedBuf::new(CHUNK);
        let end = offset + len;
        let mut at = offset;
        while at < end {
            // Up to the next multiple of the chunk, so that all but the ends are whole blocks.
            let step = (CHUNK as u64 - at % CHUNK as u64).min(end - at);
            let part = usize::try_from(step).ok().and_then(|n| zeros.get(..n)).unwrap_or_default();
            self.write_at(at, part, false)?;
            at += step;
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size && len > 0 => Ok(()),
            Some(end) if end <= self.size => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }
}

fn unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY))
}
