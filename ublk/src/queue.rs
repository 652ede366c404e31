//! Serving one queue: requests come from a [`Channel`], an engine carries them out on the backing
//! image, the tap hears of what changed, and the result goes back.

mod channel;
mod copy;
mod mapped;
mod pool;
mod slow;
mod user_copy;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;

use crate::backing::{Backing, Discarded};
use crate::request::{Geometry, Op, Request};
use crate::tap::Tap;
use channel::{Channel, Event};

pub use mapped::Image;

/// How the bytes of reads and writes travel.
#[derive(Clone)]
pub enum Transfer {
    /// Through buffers of ours, which io_uring writes to the image or fills from it.
    Copy,
    /// Straight between the guest's pages and the image, which is mapped.
    Mapped(Arc<Image>),
}

/// What every queue of a device shares.
#[derive(Clone)]
pub struct Shared {
    pub backing: Arc<Backing>,
    pub tap: Arc<dyn Tap>,
    pub geometry: Geometry,
    pub transfer: Transfer,
    /// The character device, open as long as a queue runs.
    pub device: RawFd,
    pub depth: u16,
}

/// A queue that is ready to serve.
pub struct Queue {
    channel: Channel,
    engine: Engine,
    shared: Shared,
}

/// The ways to carry out requests. Each gets every request, and every event of what it submitted.
enum Engine {
    Copy(copy::Engine),
    Mapped(mapped::Engine),
}

impl Queue {
    /// Set up queue `number` on this thread.
    pub fn new(number: u16, shared: Shared) -> io::Result<Self> {
        let mut channel = Channel::new(shared.device, shared.backing.as_raw_fd(), number, shared.depth)?;
        let engine = match &shared.transfer {
            Transfer::Copy => Engine::Copy(copy::Engine::new(&mut channel, &shared, number)?),
            Transfer::Mapped(image) => Engine::Mapped(mapped::Engine::new(&shared, image.clone(), number)),
        };
        channel.fetch_all()?;
        Ok(Self { channel, engine, shared })
    }

    /// Serve until the device is stopped.
    ///
    /// # Errors
    /// The ring broke. Requests are never an error here: the guest gets theirs.
    pub fn run(mut self) -> io::Result<()> {
        while self.channel.wait()? {
            while let Some(event) = self.channel.next()? {
                self.handle(event)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> io::Result<()> {
        let channel = &mut self.channel;
        match (event, &mut self.engine) {
            (Event::Request(held), engine) => {
                match (Request::parse(&channel.descriptor(&held), &self.shared.geometry), engine) {
                    (Err(errno), _) => channel.commit(held, -(errno as i32)),
                    (Ok(request), Engine::Copy(e)) => e.start(channel, held, request),
                    (Ok(request), Engine::Mapped(e)) => e.serve(channel, held, request),
                }
            }
            (Event::Io(tag, result), Engine::Copy(e)) => e.progress(channel, tag, result),
            (Event::Woken, Engine::Copy(e)) => e.woken(channel),
            // The mapped engine submits nothing.
            (Event::Io(..) | Event::Woken, Engine::Mapped(_)) => Ok(()),
        }
    }
}

/// Say what went wrong, for the host's side of the story: the guest learns only an errno.
fn warn(request: &Request, result: &io::Result<()>) {
    if let Err(e) = result {
        tracing::warn!(op = ?request.op, offset = request.offset, len = request.len, "image: {e}");
    }
}

/// The result that the kernel wants: bytes done, or a negative errno. A kernel that gets an errno
/// which it does not know makes it EIO.
fn outcome(request: &Request, result: &io::Result<()>) -> i32 {
    match (result, request.op) {
        (Ok(()), Op::Read | Op::Write { .. }) => i32::try_from(request.len).unwrap_or(i32::MAX),
        (Ok(()), _) => 0,
        (Err(e), _) => -e.raw_os_error().unwrap_or(Errno::EIO as i32),
    }
}

/// Carry out what moves no bytes.
fn without_data(backing: &Backing, tap: &dyn Tap, request: &Request) -> io::Result<()> {
    let Request { op, offset, len } = *request;
    match op {
        Op::Flush => {
            backing.flush()?;
            tap.flush();
        }
        Op::Discard => match backing.discard(offset, len)? {
            Discarded::Zeros => tap.zero(offset, len),
            Discarded::Anything => tap.discard(offset, len),
        },
        Op::WriteZeroes { unmap, fua } => {
            backing.write_zeroes(offset, len, unmap, fua)?;
            tap.zero(offset, len);
        }
        Op::Read | Op::Write { .. } => {}
    }
    Ok(())
}
