//! SIGINT, SIGTERM and SIGHUP end long-running commands cleanly.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::Failure;

/// Exit code after a second signal, as shells write it.
const INTERRUPTED: i32 = 130;

/// Waits for somebody to ask for the end.
pub struct Signals(Receiver<Signal>);

impl Signals {
    /// Catch the signals from now on. To be called before any other thread starts, because
    /// threads inherit what is blocked. A second signal ends the process at once.
    pub fn catch() -> Result<Self, Failure> {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let failed = |e: std::io::Error| Failure::new("cannot wait for signals", e, "check the limits of this process");
        set.thread_block().map_err(|e| failed(e.into()))?;
        let (tell, told) = channel();
        let wait = move || {
            while let Ok(signal) = set.wait() {
                if tell.send(signal).is_err() {
                    break;
                }
                if set.wait().is_ok() {
                    std::process::exit(INTERRUPTED);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
        Ok(Self(told))
    }

    /// Whether a signal came within `time`.
    pub fn came_within(&self, time: Duration) -> bool {
        match self.0.recv_timeout(time) {
            Ok(signal) => {
                tracing::info!("{signal}: stopping");
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        }
    }
}
