//! Moving a request's bytes between the kernel and memory of ours: by reading from, or writing to,
//! the character device at a place that names queue and tag (UBLK_F_USER_COPY, Linux 6.5). Unlike
//! the older way, in which each tag owns a buffer that the kernel fills, this needs memory only for
//! requests that are under way, and the same few buffers stay in the CPU's cache.

use std::io;
use std::os::fd::RawFd;

use libublk::io::UblkIOCtx;
use nix::errno::Errno;
use nix::libc;

use super::channel::Held;

/// The character device, as seen by one queue.
#[derive(Debug, Clone, Copy)]
pub struct UserCopy {
    /// Open as long as a queue runs.
    pub device: RawFd,
    pub queue: u16,
}

impl UserCopy {
    /// Copy what the guest writes with `held` to `to`, `len` bytes.
    ///
    /// # Errors
    /// `EFAULT` where `to` is mapped but can't be had (a file that is full or was cut off); `EIO` if
    /// the request has fewer bytes.
    ///
    /// # Safety
    /// `to..to + len` is mapped for writing, and no Rust reference to it exists.
    pub unsafe fn take(self, held: &Held, to: *mut u8, len: usize) -> io::Result<()> {
        // SAFETY: the caller vouches for the memory; the kernel checks every access.
        self.all(held, len, |done, place| unsafe {
            libc::pread64(self.device, to.wrapping_add(done).cast(), len - done, place)
        })
    }

    /// Copy `len` bytes at `from` to what the guest reads with `held`.
    ///
    /// # Errors
    /// As [`UserCopy::take`].
    ///
    /// # Safety
    /// `from..from + len` is mapped for reading.
    pub unsafe fn give(self, held: &Held, from: *const u8, len: usize) -> io::Result<()> {
        // SAFETY: as above.
        self.all(held, len, |done, place| unsafe {
            libc::pwrite64(self.device, from.wrapping_add(done).cast(), len - done, place)
        })
    }

    fn all(self, held: &Held, len: usize, mut copy: impl FnMut(usize, i64) -> isize) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            // A request has at most 2^25 bytes (UBLK_IO_BUF_BITS).
            let offset = u32::try_from(done).map_err(|_| Errno::EIO)?;
            let place = UblkIOCtx::ublk_user_copy_pos(self.queue, held.tag(), offset);
            match copy(done, i64::try_from(place).map_err(|_| Errno::EIO)?) {
                0 => return Err(Errno::EIO.into()),
                n => match usize::try_from(n) {
                    Ok(n) => done += n,
                    Err(_) if Errno::last() == Errno::EINTR => {}
                    Err(_) => return Err(io::Error::last_os_error()),
                },
            }
        }
        Ok(())
    }
}
