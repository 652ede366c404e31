//! One exported disk, without FUSE: first the image, then the tap, then the answer.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::unistd::{Whence, lseek};

use super::Disk;

/// Bytes of the unit in which `stat` counts space.
const SECTOR: u64 = 512;

/// Who may open the file. Libvirt hands disks over to its VMs with chown(2).
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A disk that is being served.
pub struct Served {
    disk: Disk,
    /// The image once more, for questions that `Backing` does not answer.
    image: File,
    access: Mutex<Access>,
    changed: Mutex<SystemTime>,
    open: AtomicUsize,
}

impl Served {
    /// Serve `disk`, with the owner and the permissions of its image.
    pub(super) fn new(disk: Disk) -> io::Result<Self> {
        let image = File::open(format!("/proc/self/fd/{}", disk.backing.as_raw_fd()))?;
        let meta = image.metadata()?;
        let mode = u16::try_from(meta.mode() & 0o666).unwrap_or(0o600);
        Ok(Self {
            disk,
            image,
            access: Mutex::new(Access { mode, uid: meta.uid(), gid: meta.gid() }),
            changed: Mutex::new(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
            open: AtomicUsize::new(0),
        })
    }

    /// The file's name.
    pub fn name(&self) -> &OsStr {
        &self.disk.name
    }

    /// Length in bytes. It never changes.
    pub fn size(&self) -> u64 {
        self.disk.backing.size()
    }

    /// Space that the image takes, in 512-byte units.
    pub fn sectors(&self) -> u64 {
        let regular = self.image.metadata().ok().filter(|m| m.is_file());
        regular.map_or(self.size() / SECTOR, |m| m.blocks())
    }

    /// When the disk was last written.
    pub fn changed(&self) -> SystemTime {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may open it.
    pub fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody opened the file.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody closed it.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether somebody has it open.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Up to `size` bytes from `offset` on, fewer only at the end.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&self, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let len = self.size().saturating_sub(offset).min(size.into());
        let mut buf = vec![0; usize::try_from(len).map_err(|_| Errno::EINVAL)?];
        if !buf.is_empty() {
            self.disk.backing.read_at(offset, &mut buf).map_err(|e| errno(&e))?;
        }
        Ok(buf)
    }

    /// Write all of `data` at `offset`. With `durable` it is safe on return.
    ///
    /// # Errors
    /// `ENOSPC` if it reaches past the end; else the host's. The tap hears of no failed write.
    pub fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Errno> {
        self.disk.backing.write_at(offset, data, durable).map_err(|e| errno(&e))?;
        self.disk.tap.write(offset, data.len() as u64, Some(data));
        self.touch();
        Ok(())
    }

    /// Make all that was written durable.
    ///
    /// # Errors
    /// The host's.
    pub fn flush(&self) -> Result<(), Errno> {
        self.disk.backing.flush().map_err(|e| errno(&e))?;
        self.disk.tap.flush();
        Ok(())
    }

    /// As fallocate(2) with `mode`. Both ways of zeroing leave zeros; allocating does nothing, for
    /// all of the disk is there.
    ///
    /// # Errors
    /// `ENOSPC` if the disk would have to grow, `EOPNOTSUPP` for other modes; else the host's.
    pub fn allocate(&self, offset: u64, len: u64, mode: i32) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let keep_size = mode.contains(FallocateFlags::FALLOC_FL_KEEP_SIZE);
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if end > self.size() && !keep_size {
            return Err(Errno::ENOSPC);
        }
        let len = end.min(self.size()).saturating_sub(offset);
        let what = mode - FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if what.is_empty() || len == 0 {
            Ok(())
        } else if what == FallocateFlags::FALLOC_FL_PUNCH_HOLE {
            // A loop device sends both its discards and its write-zeroes as this.
            self.zero(offset, len, true)
        } else if what == FallocateFlags::FALLOC_FL_ZERO_RANGE {
            self.zero(offset, len, false)
        } else {
            Err(Errno::EOPNOTSUPP)
        }
    }

    fn zero(&self, offset: u64, len: u64, unmap: bool) -> Result<(), Errno> {
        self.disk.backing.write_zeroes(offset, len, unmap, false).map_err(|e| errno(&e))?;
        self.disk.tap.zero(offset, len);
        self.touch();
        Ok(())
    }

    /// Where the image's next data or hole begins, as lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// `ENXIO` if there is none; `EINVAL` for another `whence`.
    pub fn seek(&self, offset: i64, whence: i32) -> Result<i64, Errno> {
        let whence = match whence {
            nix::libc::SEEK_DATA => Whence::SeekData,
            nix::libc::SEEK_HOLE => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        lseek(&self.image, offset, whence)
    }

    fn touch(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
    }
}

fn errno(e: &io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
