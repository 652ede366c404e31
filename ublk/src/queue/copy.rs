//! The general engine: the kernel copies a write's bytes into a buffer of ours before we see it,
//! and a read's bytes out of it afterwards; io_uring moves them between buffer and image. What
//! may take long and has no place in the ring goes to the [`slow`](super::slow) lane.

use std::io;

use io_uring::{opcode, types};
use nix::errno::Errno;
use nix::libc;

use super::channel::{BACKING, Channel, Data, Held};
use super::slow::SlowLane;
use super::{Shared, outcome};
use crate::request::{Op, Request};
use crate::sys::Mapping;

/// A request under way.
struct Slot {
    held: Held,
    request: Request,
    /// Bytes moved so far.
    done: u32,
}

pub struct Engine {
    /// One request per tag at most.
    slots: Vec<Option<Slot>>,
    /// Operations in the ring that may touch `buffers`.
    in_flight: u32,
    /// `max_io` bytes per tag. `None` only while being dropped.
    buffers: Option<Mapping>,
    slow: SlowLane,
    shared: Shared,
}

impl Engine {
    pub fn new(channel: &mut Channel, shared: &Shared) -> io::Result<Self> {
        let len = usize::from(shared.depth) * shared.geometry.max_io as usize;
        let mut engine = Self {
            slots: (0..shared.depth).map(|_| None).collect(),
            in_flight: 0,
            buffers: Some(Mapping::anonymous(len)?),
            slow: SlowLane::new(shared)?,
            shared: shared.clone(),
        };
        engine.slow.watch(channel)?;
        channel.fetch_all(|tag| engine.buffer(tag))?;
        Ok(engine)
    }

    /// Begin a request.
    pub fn start(&mut self, channel: &mut Channel, held: Held, request: Request) -> io::Result<()> {
        match request.op {
            Op::Read | Op::Write { .. } | Op::Flush => self.submit(channel, Slot { held, request, done: 0 }),
            Op::Discard | Op::WriteZeroes { .. } => {
                self.slow.start(held.tag(), request);
                self.put(Slot { held, request, done: 0 });
                Ok(())
            }
        }
    }

    /// Complete a request that is not valid.
    pub fn refuse(&mut self, channel: &mut Channel, held: Held, errno: Errno) -> io::Result<()> {
        let data = self.buffer(held.tag());
        channel.commit(held, -(errno as i32), data)
    }

    /// An operation in the ring ended with `result`: bytes moved or a negative errno.
    pub fn progress(&mut self, channel: &mut Channel, tag: u16, result: i32) -> io::Result<()> {
        self.in_flight -= 1;
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
                let (code, data) = (outcome(&slot.request, &result), self.buffer(tag));
                channel.commit(slot.held, code, data)?;
            }
        }
        self.slow.watch(channel)
    }

    /// Put the rest of a read or write, or a flush, into the ring.
    fn submit(&mut self, channel: &mut Channel, slot: Slot) -> io::Result<()> {
        let Request { op, offset, len } = slot.request;
        let at = offset + u64::from(slot.done);
        // At most `max_io`, which is a u32.
        let left = u32::try_from(len).unwrap_or(slot.done).saturating_sub(slot.done);
        let bytes = self.bytes(slot.held.tag()).wrapping_add(slot.done as usize);
        let entry = match op {
            Op::Read => opcode::Read::new(BACKING, bytes, left).offset(at).build(),
            Op::Write { fua } => {
                let flags = if fua { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(BACKING, bytes, left).offset(at).rw_flags(flags).build()
            }
            _ => opcode::Fsync::new(BACKING).flags(types::FsyncFlags::DATASYNC).build(),
        };
        // SAFETY: `done + left <= max_io` bytes of the tag's own buffer, which nobody else uses
        // until this tag's `Event::Io`, and which `drop` leaks if that has not come.
        unsafe { channel.submit(&slot.held, entry) }?;
        self.in_flight += 1;
        self.put(slot);
        Ok(())
    }

    /// Tell the tap, then the guest.
    fn finish(&mut self, channel: &mut Channel, slot: Slot, result: io::Result<()>) -> io::Result<()> {
        let Slot { held, request, .. } = slot;
        match (&result, request.op) {
            (Ok(()), Op::Write { .. }) => {
                let len = usize::try_from(request.len).unwrap_or(0);
                // SAFETY: the request's `len <= max_io` bytes of the tag's buffer: no operation on
                // it is in flight, and the kernel leaves it alone until the commit below.
                let data = unsafe { std::slice::from_raw_parts(self.bytes(held.tag()), len) };
                self.shared.tap.write(request.offset, request.len, Some(data));
            }
            (Ok(()), Op::Flush) => self.shared.tap.flush(),
            (Ok(()), _) => {}
            (Err(e), op) => tracing::warn!(?op, offset = request.offset, len = request.len, "image: {e}"),
        }
        let data = self.buffer(held.tag());
        channel.commit(held, outcome(&request, &result), data)
    }

    fn bytes(&self, tag: u16) -> *mut u8 {
        let start = self.buffers.as_ref().map_or(std::ptr::null_mut(), Mapping::start);
        start.wrapping_add(usize::from(tag) * self.shared.geometry.max_io as usize)
    }

    fn buffer(&self, tag: u16) -> Data {
        Data::Buffer(self.bytes(tag))
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
        if self.in_flight > 0 {
            // The kernel may still write there: better lost than given to somebody else.
            std::mem::forget(self.buffers.take());
        }
    }
}
