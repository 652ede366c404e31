//! The engine for images in memory (tmpfs, ramfs): such an image never waits for a device, and its
//! pages can be mapped, so the kernel copies a request's bytes once, straight between the guest's
//! pages and the image, while the queue's thread waits (UBLK_F_USER_COPY: reading from, or writing
//! to, the character device at a place that names queue and tag).
//!
//! The mapping is never touched from here: the kernel reports a hole that can't be filled, or an
//! image that became shorter, as an error, where an access would be a SIGBUS.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use libublk::io::UblkIOCtx;
use nix::errno::Errno;
use nix::libc;

use super::channel::{Channel, Data, Held};
use super::{Shared, outcome, without_data};
use crate::buffer::AlignedBuf;
use crate::request::{Op, Request};
use crate::sys::Mapping;

/// An image's bytes, mapped.
#[derive(Debug)]
pub struct Image(Mapping);

// SAFETY: only the kernel accesses the bytes, and it copes with others who do the same.
unsafe impl Sync for Image {}

impl Image {
    /// All `size` bytes of the open file `fd`.
    pub fn new(fd: RawFd, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        Mapping::shared(fd, 0, size, true).map(Self)
    }

    /// Where byte `offset` is, and how many bytes follow, at most `len`.
    fn at(&self, offset: u64, len: u64) -> Option<(*mut u8, usize)> {
        let offset = usize::try_from(offset).ok().filter(|o| *o <= self.0.len())?;
        let len = usize::try_from(len).ok()?.min(self.0.len() - offset);
        Some((self.0.start().wrapping_add(offset), len))
    }
}

pub struct Engine {
    image: Arc<Image>,
    /// For writes whose bytes somebody wants, and where the mapping fails.
    scratch: AlignedBuf,
    queue: u16,
    shared: Shared,
}

impl Engine {
    pub fn new(channel: &mut Channel, shared: &Shared, image: Arc<Image>, queue: u16) -> io::Result<Self> {
        channel.fetch_all(|_| Data::UserCopy)?;
        let scratch = AlignedBuf::new(shared.geometry.max_io as usize);
        Ok(Self { image, scratch, queue, shared: shared.clone() })
    }

    /// Complete a request that is not valid.
    pub fn refuse(&mut self, channel: &mut Channel, held: Held, errno: Errno) -> io::Result<()> {
        channel.commit(held, -(errno as i32), Data::UserCopy)
    }

    /// Carry out a request, from beginning to end.
    pub fn serve(&mut self, channel: &mut Channel, held: Held, request: Request) -> io::Result<()> {
        let place = UblkIOCtx::ublk_user_copy_pos(self.queue, held.tag(), 0);
        let result = match request.op {
            Op::Read => self.read(place, &request),
            Op::Write { fua } => self.write(place, &request, fua),
            _ => without_data(&self.shared.backing, &*self.shared.tap, &request),
        };
        if let Err(e) = &result {
            tracing::warn!(op = ?request.op, offset = request.offset, len = request.len, "image: {e}");
        }
        channel.commit(held, outcome(&request, &result), Data::UserCopy)
    }

    fn read(&mut self, place: u64, request: &Request) -> io::Result<()> {
        let device = self.device();
        if self.copy_mapped(request, |bytes, len, at| user_copy(libc::SYS_pwrite64, &device, bytes, len, place + at)) {
            return Ok(());
        }
        let data = buffer(&mut self.scratch, request)?;
        self.shared.backing.read_at(request.offset, data)?;
        device.write_all_at(data, place)
    }

    fn write(&mut self, place: u64, request: &Request, fua: bool) -> io::Result<()> {
        let device = self.device();
        let Request { offset, len, .. } = *request;
        // What somebody wants is taken down first, so that the tap sees what the image gets.
        if self.shared.tap.wants(offset, len) {
            let data = buffer(&mut self.scratch, request)?;
            device.read_exact_at(data, place)?;
            self.shared.backing.write_at(offset, data, fua)?;
            self.shared.tap.write(offset, len, Some(data));
            return Ok(());
        }
        if self.copy_mapped(request, |bytes, len, at| user_copy(libc::SYS_pread64, &device, bytes, len, place + at)) {
            if fua {
                self.shared.backing.flush()?;
            }
        } else {
            let data = buffer(&mut self.scratch, request)?;
            device.read_exact_at(data, place)?;
            self.shared.backing.write_at(offset, data, fua)?;
        }
        self.shared.tap.write(offset, len, None);
        Ok(())
    }

    /// Move the request's bytes with `copy` (address, length, bytes done before; it says how many it
    /// moved). `false` if they did not all move, and then the ordinary way will tell why.
    fn copy_mapped(&self, request: &Request, copy: impl Fn(*mut u8, usize, u64) -> Option<u64>) -> bool {
        let mut done = 0;
        while done < request.len {
            let part = self.image.at(request.offset + done, request.len - done);
            match part.and_then(|(bytes, len)| copy(bytes, len, done)) {
                Some(n) if n > 0 => done += n,
                _ => return false,
            }
        }
        true
    }

    /// The character device as a file that is not ours to close.
    fn device(&self) -> ManuallyDrop<File> {
        // SAFETY: the descriptor is open as long as a queue runs, and `ManuallyDrop` leaves it so.
        ManuallyDrop::new(unsafe { File::from_raw_fd(self.shared.device) })
    }
}

fn buffer<'a>(scratch: &'a mut AlignedBuf, request: &Request) -> io::Result<&'a mut [u8]> {
    let len = usize::try_from(request.len).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(scratch.get_mut(..len).ok_or(io::ErrorKind::InvalidInput)?)
}

/// pread64 or pwrite64 between `device` at `place` and mapped memory. `None`: it failed.
fn user_copy(call: libc::c_long, device: &File, bytes: *mut u8, len: usize, place: u64) -> Option<u64> {
    use std::os::fd::AsRawFd;
    // SAFETY: `bytes..bytes + len` lies in the image's mapping (`Image::at`), which no Rust
    // reference ever points to; the kernel checks every access.
    let n = unsafe { libc::syscall(call, device.as_raw_fd(), bytes, len, place) };
    u64::try_from(n).ok()
}
