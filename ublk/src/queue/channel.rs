//! One ublk queue as the kernel sees it: an io_uring whose commands fetch requests and commit
//! their results (Documentation/block/ublk.rst). Knows nothing of what is done in between.

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, squeue, types};
use libublk::sys;
use nix::libc;

use crate::sys::{Mapping, PAGE};

/// What the ring's fixed files are.
pub const DEVICE: types::Fixed = types::Fixed(0);
pub const BACKING: types::Fixed = types::Fixed(1);

/// A request that the kernel handed over. It is given back by [`Channel::commit`], which takes it:
/// it can be completed only once, and forgetting it is a warning.
#[must_use]
#[derive(Debug)]
pub struct Held(u16);

impl Held {
    /// Its slot in the queue, below the depth.
    pub fn tag(&self) -> u16 {
        self.0
    }
}

/// An event.
#[derive(Debug)]
pub enum Event {
    /// The guest wants something.
    Request(Held),
    /// An operation that [`Channel::submit`] got is over: its tag and its result, a negative errno
    /// for a failure.
    Io(u16, i32),
    /// The wake-up that [`Channel::watch`] asked for.
    Woken,
}

/// High bits of io_uring's user data: whose completion it is. The tag stands below.
const COMMAND: u64 = 0;
const IO: u64 = 1 << 32;
const WAKE: u64 = 2 << 32;

/// The queue's ring and its descriptors.
pub struct Channel {
    ring: IoUring,
    /// `depth` descriptors, written by the kernel before it hands a request over.
    descriptors: Mapping,
    queue: u16,
    depth: u16,
    /// Commands that the kernel has not answered.
    commands: u32,
    /// The kernel called commands off: the device goes away.
    stopping: bool,
}

impl Channel {
    /// Queue number `queue` of the device whose character device is `device`. To be called on the
    /// thread that will serve it.
    pub fn new(device: RawFd, backing: RawFd, queue: u16, depth: u16) -> io::Result<Self> {
        // A command and an I/O of every tag may be in flight, and a wake-up.
        let entries = u32::from(depth) * 2 + 2;
        let ring = ring(entries)?;
        ring.submitter().register_files(&[device, backing])?;
        Ok(Self { ring, descriptors: descriptors(device, queue, depth)?, queue, depth, commands: 0, stopping: false })
    }

    /// Ask for the first request of each tag.
    pub fn fetch_all(&mut self) -> io::Result<()> {
        for tag in 0..self.depth {
            self.command(sys::UBLK_U_IO_FETCH_REQ, tag, -1)?;
        }
        self.ring.submit().map(drop)
    }

    /// What the guest wants in `held`.
    pub fn descriptor(&self, held: &Held) -> sys::ublksrv_io_desc {
        let table = self.descriptors.start().cast::<sys::ublksrv_io_desc>();
        // SAFETY: the mapping holds `depth` descriptors and a `Held`'s tag is below the depth. The
        // kernel wrote it before it completed the command, and leaves it alone until the commit.
        unsafe { table.add(held.0.into()).read_volatile() }
    }

    /// Give a request back with its result (bytes done, or a negative errno) and ask for the tag's
    /// next one.
    pub fn commit(&mut self, held: Held, result: i32) -> io::Result<()> {
        if self.stopping {
            // The kernel ended or requeued the request when it called the command off.
            return Ok(());
        }
        self.command(sys::UBLK_U_IO_COMMIT_AND_FETCH_REQ, held.0, result)
    }

    /// Start an operation for `held`; its end comes as [`Event::Io`].
    ///
    /// # Safety
    /// Memory that `entry` points to must stay valid, and unused by others, until that event.
    pub unsafe fn submit(&mut self, held: &Held, entry: squeue::Entry) -> io::Result<()> {
        self.push(&entry.user_data(IO | u64::from(held.0)))
    }

    /// Be woken, once, when 8 bytes can be read from the eventfd `fd` to `into`.
    ///
    /// # Safety
    /// `into` must stay valid until [`Event::Woken`].
    pub unsafe fn watch(&mut self, fd: RawFd, into: *mut u64) -> io::Result<()> {
        self.push(&opcode::Read::new(types::Fd(fd), into.cast(), 8).build().user_data(WAKE))
    }

    /// Submit what was collected and wait for events, which [`Channel::next`] then tells. `false`:
    /// the device is gone and the kernel has answered everything.
    pub fn wait(&mut self) -> io::Result<bool> {
        if self.stopping && self.commands == 0 {
            return Ok(false);
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// The next of the events that have come.
    ///
    /// # Errors
    /// The kernel refused a command: nothing of that tag will come again.
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        while let Some(done) = self.ring.completion().next() {
            let (data, result) = (done.user_data(), done.result());
            // The low half is a tag that we put there.
            let tag = (data & 0xffff) as u16;
            match data & !0xffff {
                COMMAND => {
                    self.commands -= 1;
                    match result {
                        0 => return Ok(Some(Event::Request(Held(tag)))),
                        sys::UBLK_IO_RES_ABORT => self.stopping = true,
                        errno => return Err(io::Error::from_raw_os_error(-errno)),
                    }
                }
                IO => return Ok(Some(Event::Io(tag, result))),
                _ => return Ok(Some(Event::Woken)),
            }
        }
        Ok(None)
    }

    fn command(&mut self, op: u32, tag: u16, result: i32) -> io::Result<()> {
        // struct ublksrv_io_cmd { q_id: u16, tag: u16, result: i32, addr: u64 }, the last being 0
        // for a server that copies by itself.
        let mut cmd = [0; 16];
        cmd[..2].copy_from_slice(&self.queue.to_ne_bytes());
        cmd[2..4].copy_from_slice(&tag.to_ne_bytes());
        cmd[4..8].copy_from_slice(&result.to_ne_bytes());
        self.push(&opcode::UringCmd16::new(DEVICE, op).cmd(cmd).build().user_data(COMMAND | u64::from(tag)))?;
        self.commands += 1;
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: commands point nowhere; other entries come from unsafe methods whose callers vouch
        // for them.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}

/// A ring for this thread alone whose completions are handled when it waits, not by interrupting
/// it (Linux 6.1), or the nearest thing that the kernel has.
fn ring(entries: u32) -> io::Result<IoUring> {
    let newest = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
    newest.or_else(|_| IoUring::builder().setup_coop_taskrun().build(entries)).or_else(|_| IoUring::new(entries))
}

/// The descriptors of queue `queue`, which the kernel lays out as if each queue had the deepest
/// depth (ublk_ch_mmap).
fn descriptors(device: RawFd, queue: u16, depth: u16) -> io::Result<Mapping> {
    let page = |n: usize| n.next_multiple_of(PAGE);
    let each = size_of::<sys::ublksrv_io_desc>();
    let stride = page(sys::UBLK_MAX_QUEUE_DEPTH as usize * each);
    let offset = sys::UBLKSRV_CMD_BUF_OFFSET as usize + usize::from(queue) * stride;
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    Mapping::shared(device, offset, page(usize::from(depth) * each), false)
}
