//! The slow lane: discards and write-zeroes, which may take long, on a thread of their own, so that
//! reads and writes go on meanwhile. Its thread starts with its first job.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::channel::Channel;
use super::{Shared, without_data};
use crate::request::Request;
use crate::sys;

type Job = (u16, Request);
type Outcome = (u16, io::Result<()>);

pub struct SlowLane {
    shared: Shared,
    done: Arc<Done>,
    /// What the kernel reads the eventfd into. Boxed: its address is the kernel's until it is woken.
    count: Option<Box<u64>>,
    watched: bool,
    worker: Option<(Sender<Job>, JoinHandle<()>)>,
}

struct Done {
    outcomes: Mutex<Vec<Outcome>>,
    event: EventFd,
}

impl SlowLane {
    pub fn new(shared: &Shared) -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let done = Arc::new(Done { outcomes: Mutex::default(), event });
        Ok(Self { shared: shared.clone(), done, count: Some(Box::new(0)), watched: false, worker: None })
    }

    /// Have the channel woken when a job is done.
    pub fn watch(&mut self, channel: &mut Channel) -> io::Result<()> {
        if let Some(count) = self.count.as_deref_mut() {
            // SAFETY: the box lives as long as `self`, and `drop` leaks it if the wake-up is pending.
            unsafe { channel.watch(self.done.event.as_raw_fd(), count) }?;
            self.watched = true;
        }
        Ok(())
    }

    /// Carry out `request`, and tell the tap; [`SlowLane::finished`] will have the result.
    pub fn start(&mut self, tag: u16, request: Request) {
        if self.worker.is_none() {
            self.worker = self.spawn().ok();
        }
        let sent = self.worker.as_ref().is_some_and(|(jobs, _)| jobs.send((tag, request)).is_ok());
        if !sent {
            // No thread to be had: then the queue waits.
            run(&self.shared, &self.done, (tag, request));
        }
    }

    /// What has been done since it was last asked.
    pub fn finished(&mut self) -> Vec<Outcome> {
        self.watched = false;
        std::mem::take(&mut self.done.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn spawn(&self) -> io::Result<(Sender<Job>, JoinHandle<()>)> {
        let (jobs, todo) = channel();
        let (shared, done) = (self.shared.clone(), self.done.clone());
        let thread = std::thread::Builder::new().name("ublk-slow".into());
        Ok((jobs, thread.spawn(move || work(&shared, &done, &todo))?))
    }
}

fn work(shared: &Shared, done: &Done, todo: &Receiver<Job>) {
    sys::become_io_flusher();
    for job in todo {
        run(shared, done, job);
    }
}

fn run(shared: &Shared, done: &Done, (tag, request): Job) {
    let result = without_data(&shared.backing, &*shared.tap, &request);
    done.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((tag, result));
    // It can only fail when its 64-bit count is full.
    let _ = done.event.write(1);
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.worker.take() {
            drop(jobs);
            let _ = thread.join();
        }
        if self.watched {
            std::mem::forget(self.count.take());
        }
    }
}
