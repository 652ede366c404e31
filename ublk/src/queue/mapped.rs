//! The engine for images in memory (tmpfs, ramfs): such an image never waits for a device, and its
//! pages can be mapped, so the kernel copies a request's bytes once, straight between the guest's
//! pages and the image, while the queue's thread waits.
//!
//! The mapping is never touched from here: the kernel reports a hole that can't be filled, or an
//! image that became shorter, as an error, where an access would be a SIGBUS.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::channel::{Channel, Held};
use super::user_copy::UserCopy;
use super::{Shared, outcome, warn, without_data};
use crate::buffer::AlignedBuf;
use crate::request::{Op, Request};
use crate::sys::Mapping;

/// Bytes of the image per bit of [`Image::warm`].
const CHUNK: usize = 64 << 10;

/// An image's bytes, mapped.
#[derive(Debug)]
pub struct Image {
    bytes: Mapping,
    /// Which chunks have had their pages mapped at once. A hint: they may have gone since.
    warm: Box<[AtomicU64]>,
}

// SAFETY: only the kernel accesses the bytes, and it copes with others who do the same.
unsafe impl Sync for Image {}

impl Image {
    /// All `size` bytes of the open file `fd`.
    pub fn new(fd: RawFd, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let warm = (0..size.div_ceil(CHUNK * 64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { bytes: Mapping::shared(fd, 0, size, true)?, warm })
    }

    /// Where the request's bytes are. `None` if they are not all mapped.
    fn at(&self, request: &Request) -> Option<*mut u8> {
        let end = usize::try_from(request.offset + request.len).ok()?;
        let start = usize::try_from(request.offset).ok()?;
        if end > self.bytes.len() {
            return None;
        }
        // Mapping the neighbours' pages as well pays where most of them are asked for anyway.
        if end - start >= CHUNK && !self.warm_up(start, end) {
            self.bytes.populate(start, end - start);
        }
        Some(self.bytes.start().wrapping_add(start))
    }

    /// Whether all chunks that lie in `start..end` were warm; from now on they are.
    fn warm_up(&self, start: usize, end: usize) -> bool {
        (start.div_ceil(CHUNK)..end / CHUNK).fold(true, |all, chunk| {
            let bit = 1 << (chunk % 64);
            let was = self.warm.get(chunk / 64).is_none_or(|w| w.fetch_or(bit, Ordering::Relaxed) & bit != 0);
            all && was
        })
    }
}

pub struct Engine {
    image: Arc<Image>,
    /// For writes whose bytes somebody wants, and where the mapping fails.
    scratch: AlignedBuf,
    device: UserCopy,
    shared: Shared,
}

impl Engine {
    pub fn new(shared: &Shared, image: Arc<Image>, queue: u16) -> Self {
        let scratch = AlignedBuf::new(shared.geometry.max_io as usize);
        Self { image, scratch, device: UserCopy { device: shared.device, queue }, shared: shared.clone() }
    }

    /// Carry out a request, from beginning to end.
    pub fn serve(&mut self, channel: &mut Channel, held: Held, request: Request) -> io::Result<()> {
        let result = match request.op {
            Op::Read => self.read(&held, &request),
            Op::Write { fua } => self.write(&held, &request, fua),
            _ => without_data(&self.shared.backing, &*self.shared.tap, &request),
        };
        warn(&request, &result);
        channel.commit(held, outcome(&request, &result))
    }

    fn read(&mut self, held: &Held, request: &Request) -> io::Result<()> {
        if let Some(bytes) = self.image.at(request) {
            // SAFETY: within the mapping, to which no Rust reference ever points.
            let given = unsafe { self.device.give(held, bytes, request.bytes()) };
            if given.is_ok() {
                return Ok(());
            }
        }
        // The ordinary way, which tells what is wrong if something is.
        let data = buffer(&mut self.scratch, request)?;
        self.shared.backing.read_at(request.offset, data)?;
        // SAFETY: all of `data`.
        unsafe { self.device.give(held, data.as_ptr(), data.len()) }
    }

    fn write(&mut self, held: &Held, request: &Request, fua: bool) -> io::Result<()> {
        let Request { offset, len, .. } = *request;
        // What somebody wants is taken down first, so that the tap sees what the image gets.
        if self.shared.tap.wants(offset, len) {
            let data = buffer(&mut self.scratch, request)?;
            take_and_write(self.device, &self.shared, held, request, data, fua)?;
            self.shared.tap.write(offset, len, Some(data));
            return Ok(());
        }
        if self.take_mapped(held, request) {
            if fua {
                self.shared.backing.flush()?;
            }
        } else {
            let data = buffer(&mut self.scratch, request)?;
            take_and_write(self.device, &self.shared, held, request, data, fua)?;
        }
        self.shared.tap.write(offset, len, None);
        Ok(())
    }

    /// `false`: it failed, perhaps halfway, and the ordinary way will tell why.
    fn take_mapped(&self, held: &Held, request: &Request) -> bool {
        let Some(bytes) = self.image.at(request) else { return false };
        // SAFETY: within the mapping, to which no Rust reference ever points.
        unsafe { self.device.take(held, bytes, request.bytes()) }.is_ok()
    }
}

/// The first bytes of `scratch`, as many as the request has.
fn buffer<'a>(scratch: &'a mut AlignedBuf, request: &Request) -> io::Result<&'a mut [u8]> {
    scratch.get_mut(..request.bytes()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn take_and_write(
    device: UserCopy,
    shared: &Shared,
    held: &Held,
    request: &Request,
    data: &mut [u8],
    fua: bool,
) -> io::Result<()> {
    // SAFETY: all of `data`, through the only reference to it.
    unsafe { device.take(held, data.as_mut_ptr(), data.len()) }?;
    shared.backing.write_at(request.offset, data, fua)
}
