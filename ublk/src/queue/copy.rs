//! The general engine: bytes pass through a buffer of ours, which io_uring writes to the image or
//! fills from it. What may take long and has no place in the ring goes to the
//! [`slow`](super::slow) lane.

use std::io;
use std::mem::ManuallyDrop;

use io_uring::{opcode, types};
use nix::errno::Errno;
use nix::libc;

use super::channel::{BACKING, Channel, Held};
use super::pool::{Buffer, Pool};
use super::slow::SlowLane;
use super::user_copy::UserCopy;
use super::{Shared, outcome, warn};
use crate::request::{Op, Request};

/// A request under way.
struct Slot {
    held: Held,
    request: Request,
    /// Of a read or write, `request.len` bytes.
    buffer: Option<Buffer>,
    /// Bytes moved so far.
    done: u32,
}

pub struct Engine {
    /// One request per tag at most.
    slots: Vec<Option<Slot>>,
    /// Dropped by hand: the kernel may still use it.
    pool: ManuallyDrop<Pool>,
    slow: SlowLane,
    device: UserCopy,
    shared: Shared,
}

impl Engine {
    pub fn new(channel: &mut Channel, shared: &Shared, queue: u16) -> io::Result<Self> {
        let mut slow = SlowLane::new(shared)?;
        slow.watch(channel)?;
        Ok(Self {
            slots: (0..shared.depth).map(|_| None).collect(),
            pool: ManuallyDrop::new(Pool::new(shared.depth, shared.geometry.max_io as usize)?),
            slow,
            device: UserCopy { device: shared.device, queue },
            shared: shared.clone(),
        })
    }

    /// Begin a request.
    pub fn start(&mut self, channel: &mut Channel, held: Held, request: Request) -> io::Result<()> {
        let mut slot = Slot { held, request, buffer: None, done: 0 };
        match request.op {
            Op::Read | Op::Write { .. } => match self.fill(&mut slot) {
                Ok(()) => self.submit(channel, slot),
                Err(e) => self.finish(channel, slot, Err(e)),
            },
            Op::Flush => self.submit(channel, slot),
            Op::Discard | Op::WriteZeroes { .. } => {
                self.slow.start(slot.held.tag(), request);
                self.put(slot);
                Ok(())
            }
        }
    }

    /// An operation in the ring ended with `result`: bytes moved or a negative errno.
    pub fn progress(&mut self, channel: &mut Channel, tag: u16, result: i32) -> io::Result<()> {
        let Some(mut slot) = self.take(tag) else { return Ok(()) };
        let moves_bytes = slot.request.op != Op::Flush;
        match u32::try_from(result) {
            // Neither the guest nor the image is to blame.
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => self.submit(channel, slot),
            Err(_) => self.finish(channel, slot, Err(io::Error::from_raw_os_error(-result))),
            // The image became shorter than it was.
            Ok(0) if moves_bytes => self.finish(channel, slot, Err(Errno::EIO.into())),
            Ok(n) => {
                slot.done += n;
                if moves_bytes && u64::from(slot.done) < slot.request.len {
                    self.submit(channel, slot)
                } else {
                    self.finish(channel, slot, Ok(()))
                }
            }
        }
    }

    /// The slow lane has finished something.
    pub fn woken(&mut self, channel: &mut Channel) -> io::Result<()> {
        for (tag, result) in self.slow.finished() {
            if let Some(slot) = self.take(tag) {
                // It told the tap itself.
                channel.commit(slot.held, outcome(&slot.request, &result))?;
            }
        }
        self.slow.watch(channel)
    }

    /// Give a read or write its buffer, with the bytes that the guest writes.
    fn fill(&mut self, slot: &mut Slot) -> io::Result<()> {
        let buffer = self.pool.take().ok_or(Errno::ENOMEM)?;
        let start = buffer.start();
        slot.buffer = Some(buffer);
        if let Op::Write { .. } = slot.request.op {
            // SAFETY: `len <= max_io` bytes of a buffer that nobody else uses.
            unsafe { self.device.take(&slot.held, start, slot.request.bytes()) }?;
        }
        Ok(())
    }

    /// Put the rest of a read or write, or a flush, into the ring.
    fn submit(&mut self, channel: &mut Channel, slot: Slot) -> io::Result<()> {
        let Request { op, offset, len } = slot.request;
        let at = offset + u64::from(slot.done);
        // At most `max_io`, which is a u32.
        let left = u32::try_from(len).unwrap_or(slot.done).saturating_sub(slot.done);
        let bytes = slot.buffer.as_ref().map_or(std::ptr::null_mut(), Buffer::start).wrapping_add(slot.done as usize);
        let entry = match op {
            Op::Read => opcode::Read::new(BACKING, bytes, left).offset(at).build(),
            Op::Write { fua } => {
                let flags = if fua { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(BACKING, bytes, left).offset(at).rw_flags(flags).build()
            }
            _ => opcode::Fsync::new(BACKING).flags(types::FsyncFlags::DATASYNC).build(),
        };
        // SAFETY: `done + left <= max_io` bytes of the request's own buffer, which goes back to the
        // pool after this tag's `Event::Io`; the pool is leaked if that has not come.
        unsafe { channel.submit(&slot.held, entry) }?;
        self.put(slot);
        Ok(())
    }

    /// Hand over what was read, or tell the tap what was written; then tell the guest.
    fn finish(&mut self, channel: &mut Channel, slot: Slot, result: io::Result<()>) -> io::Result<()> {
        let Slot { held, request, buffer, .. } = slot;
        let result = result.and_then(|()| self.deliver(&held, &request, buffer.as_ref()));
        warn(&request, &result);
        if let Some(buffer) = buffer {
            self.pool.give_back(buffer);
        }
        channel.commit(held, outcome(&request, &result))
    }

    fn deliver(&self, held: &Held, request: &Request, buffer: Option<&Buffer>) -> io::Result<()> {
        match (request.op, buffer) {
            (Op::Read, Some(buffer)) => {
                // SAFETY: the buffer holds `len` bytes, and nothing is in flight.
                unsafe { self.device.give(held, buffer.start(), request.bytes()) }
            }
            (Op::Write { .. }, Some(buffer)) => {
                // SAFETY: as above; they were all filled by `fill`, and nobody changes them now.
                let data = unsafe { std::slice::from_raw_parts(buffer.start(), request.bytes()) };
                self.shared.tap.write(request.offset, request.len, Some(data));
                Ok(())
            }
            (Op::Flush, _) => {
                self.shared.tap.flush();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, slot: Slot) {
        let tag = usize::from(slot.held.tag());
        if let Some(place) = self.slots.get_mut(tag) {
            *place = Some(slot);
        }
    }

    fn take(&mut self, tag: u16) -> Option<Slot> {
        self.slots.get_mut(usize::from(tag)).and_then(Option::take)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // With a buffer out, the kernel may still write to it: better lost than somebody else's.
        if self.pool.is_at_rest() {
            // SAFETY: dropped here only, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.pool) };
        }
    }
}
