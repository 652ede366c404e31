//! The live guest as a read-only file system on the host.
//!
//! ```text
//!  ls, cat, tail ─► kernel ─► fuse.rs ─► files.rs ─► node.rs: which volume, which inode ─► Tree
//!                     ▲                     │
//!                     │ forget this         ▼ what the kernel was told (known.rs)
//!  Event ─► stale.rs ─► queue.rs ─► invalidate.rs
//! ```
//!
//! [`Files`] answers the kernel's questions from the guest's [`Tree`](crate::tree::Tree)s and knows
//! nothing of FUSE; `fuse.rs` only translates. The kernel may cache names and attributes for long,
//! so each event of the guest tells it what to forget ([`ViewSink`]). A tree must show the state
//! after an event by the time the event is emitted.
//!
//! A lone volume is the top of the view, several are folders in it. Inode numbers are the guest's,
//! so files of *different* volumes may have the same one.

mod dirs;
mod files;
mod fuse;
mod invalidate;
mod known;
mod listing;
mod node;
mod queue;
mod stale;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::MsFlags;

use crate::event::Event;
use crate::fuse::{FuseMount, MountError, MountPlan, Unmounted, finishes};
use crate::guest::Guest;
use crate::sink::Sink;

pub use files::{Answer, Files, Found, Sized};
pub use invalidate::{Cache, run as invalidate};
pub use known::{Everything, Known, Name, SETTLING, Ticket};
pub use listing::{Line, Listing};
pub use node::{Layout, Node, TOP};
pub use queue::{Next, Queue};
pub use stale::{Stale, stale};

/// Why there is no view.
pub type ViewError = MountError;

/// Threads that answer the kernel: a slow read of the disk must not hold up an `ls`.
const THREADS: usize = 4;

/// A mounted view. Dropping it unmounts, lazily if it is in use.
pub struct View {
    files: Arc<Files>,
    mount: FuseMount,
    invalidator: Option<JoinHandle<()>>,
}

impl View {
    /// Show `guest` at `dir`.
    ///
    /// # Errors
    /// [`MountError`] says what to do. Nothing is left mounted.
    pub fn mount(guest: Arc<Guest>, dir: &Path) -> Result<Self, ViewError> {
        Self::mount_with(guest, dir, THREADS)
    }

    /// The same, served by so many threads.
    ///
    /// # Errors
    /// As [`View::mount`].
    pub fn mount_with(guest: Arc<Guest>, dir: &Path, threads: usize) -> Result<Self, ViewError> {
        let files = Arc::new(Files::new(guest));
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let plan = MountPlan { subtype: "gammaray", flags, threads };
        let mount = FuseMount::start(fuse::Adapter(Arc::clone(&files)), dir, plan)?;
        let mut view = Self { files, mount, invalidator: None };
        view.invalidator = view.start_invalidator().map_err(|source| MountError::Io { dir: dir.into(), source })?;
        Ok(view)
    }

    fn start_invalidator(&self) -> io::Result<Option<JoinHandle<()>>> {
        let Some(notifier) = self.mount.notifier() else { return Ok(None) };
        let files = Arc::clone(&self.files);
        let body = move || invalidate(&files, files.queue(), &notifier);
        std::thread::Builder::new().name("view-invalidate".into()).spawn(body).map(Some)
    }

    /// Where it is mounted: an absolute path.
    pub fn dir(&self) -> &Path {
        self.mount.dir()
    }

    /// A sink that keeps the view true to the events it gets.
    pub fn sink(&self) -> ViewSink {
        ViewSink(Arc::clone(&self.files))
    }

    /// Whether somebody has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.mount.has_ended()
    }

    /// Unmount, and tell how that went.
    pub fn stop(mut self) -> Unmounted {
        self.end()
    }

    fn end(&mut self) -> Unmounted {
        let how = self.mount.stop();
        self.files.queue().close();
        if let Some(thread) = self.invalidator.take() {
            finishes(&thread, Duration::from_secs(1));
        }
        how
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes events and has the kernel forget what they make stale. It never blocks and never fails.
#[derive(Clone)]
pub struct ViewSink(Arc<Files>);

impl ViewSink {
    /// A sink for these files.
    pub fn new(files: Arc<Files>) -> Self {
        Self(files)
    }
}

impl Sink for ViewSink {
    fn emit(&mut self, event: &Event) -> io::Result<()> {
        self.0.queue().push(stale(event, &self.0.layout()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
