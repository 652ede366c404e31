//! A served disk: `/dev/ublkbN`, there from [`Device::start`] until [`Device::stop`], a drop, or the
//! end of the process, whichever comes first.
//!
//! # When the server dies
//! The device does not outlive its server: after a `kill -9` the guest gets EIO at once and the node
//! vanishes. UBLK_F_USER_RECOVERY would keep the node and let the guest's I/O wait for a successor,
//! but until there is a command that takes such a device over, a disk that hangs forever is worse
//! than one that fails.
//!
//! # The host reads the guest's partition table
//! Linux does that for every new disk, and so `/dev/ublkbNp1` … appear. The table is the guest's, who
//! may be hostile: [`Options::scan_partitions`] switches it off.

mod control;
mod params;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::backing::Backing;
use crate::features::{Unavailable, probe};
use crate::tap::Tap;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Queues, each with a thread. `None`: as many as CPUs, at most 4. The kernel allows no more
    /// than there are CPUs.
    pub queues: Option<u16>,
    /// Requests in flight per queue, 1 to 4096.
    pub depth: u16,
    /// The longest single read or write in bytes: a multiple of 4096, at most 32 MiB. A queue uses as
    /// much memory as was ever in flight at once, so at most `depth` times that.
    pub max_io: u32,
    /// Let the host look for partitions, so that `/dev/ublkbNp1` … appear.
    pub scan_partitions: bool,
    /// Map an image that lies in memory (tmpfs) instead of copying through buffers.
    pub map_memory: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { queues: None, depth: 128, max_io: 1 << 20, scan_partitions: true, map_memory: true }
    }
}

/// Why a disk is not served, or no longer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no ublk here.
    #[error(transparent)]
    Unavailable(#[from] Arc<Unavailable>),
    /// The driver refused.
    #[error("ublk: cannot {step}: {why}")]
    Driver {
        /// What was tried.
        step: &'static str,
        /// The driver's or the library's error.
        why: String,
    },
    /// A queue could not be set up, or broke.
    #[error("ublk: queue {queue}: {why}")]
    Queue {
        /// Its number.
        queue: u16,
        /// The host's error.
        why: String,
    },
    /// Somebody else removed the device.
    #[error("ublk: the device was removed by another program")]
    Removed,
}

/// A disk that is being served. Dropping it removes it.
#[derive(Debug)]
pub struct Device {
    id: u32,
    path: PathBuf,
    ask: Sender<Message>,
    state: Arc<State>,
    control: Mutex<Option<JoinHandle<()>>>,
}

/// What the control thread hears.
enum Message {
    Stop,
    /// A queue's thread ended.
    Ended {
        queue: u16,
        result: Result<(), String>,
    },
}

/// The end, once it has come.
#[derive(Debug, Default)]
struct State {
    ended: Mutex<Option<Result<(), Error>>>,
    changed: Condvar,
}

impl Device {
    /// Serve `backing` as a new `/dev/ublkbN`, and tell `tap` of every change. Returns when the
    /// device exists.
    ///
    /// # Errors
    /// No ublk here, or the driver refused; then nothing is left behind.
    pub fn start(backing: Arc<Backing>, tap: Arc<dyn Tap>, options: Options) -> Result<Self, Error> {
        probe().map_err(Arc::new)?;
        let (ask, messages) = channel();
        let (started, answer) = channel();
        let state = Arc::new(State::default());
        let setup = control::Setup { backing, tap, options, ask: ask.clone() };
        let shared = state.clone();
        let control = std::thread::Builder::new()
            .name("ublk-control".into())
            .spawn(move || shared.end(control::run(setup, &messages, &started)))
            .map_err(|e| Error::Driver { step: "start a thread", why: e.to_string() })?;
        match answer.recv() {
            Ok(id) => {
                let path = PathBuf::from(format!("/dev/ublkb{id}"));
                Ok(Self { id, path, ask, state, control: Mutex::new(Some(control)) })
            }
            // It ended without having started.
            Err(_) => Err(match state.wait() {
                Err(e) => e,
                Ok(()) => Error::Removed,
            }),
        }
    }

    /// N of `/dev/ublkbN`.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remove the device: what is in flight is completed, everything later fails. Returns when it is
    /// gone; a second call does nothing.
    ///
    /// # Errors
    /// As [`Device::wait`].
    pub fn stop(&self) -> Result<(), Error> {
        // If nobody listens, it has ended already.
        let _ = self.ask.send(Message::Stop);
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = control {
            let _ = thread.join();
        }
        self.wait()
    }

    /// Whether the device is gone.
    pub fn has_ended(&self) -> bool {
        self.state.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Wait until the device is gone.
    ///
    /// # Errors
    /// It went without [`Device::stop`]: [`Error::Removed`], or a queue broke.
    pub fn wait(&self) -> Result<(), Error> {
        self.state.wait()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            tracing::warn!(device = %self.path.display(), "{e}");
        }
    }
}

impl State {
    fn end(&self, result: Result<(), Error>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.changed.notify_all();
    }

    fn wait(&self) -> Result<(), Error> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = &*ended {
                return result.clone();
            }
            ended = self.changed.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
