//! Keeping the kernel's caches true: the thread that tells it what has changed.
//!
//! The kernel takes locks for that which it also holds while it waits for an answer of ours. So
//! this never runs on a thread that answers, and holds no lock of ours while it calls the kernel.
//!
//! What protects an answer that is under way while its file changes: of names, the directory's
//! lock; of pages, theirs; of attributes of a file that the kernel has, their version. Only the
//! attributes in the answer that makes a file known are without such a guard, so a file that
//! was told just now is invalidated once more when that answer must have arrived.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;

use super::files::Files;
use super::known::SETTLING;
use super::node::{Node, TOP};
use super::queue::{Next, Queue};
use super::stale::Stale;

/// How often to look whether the guest's volumes were replaced without an event.
const PERIOD: Duration = Duration::from_millis(500);
/// How much later than necessary: so that changes in quick succession share one.
const SLACK: Duration = Duration::from_millis(100);
/// So many files may wait to be invalidated again.
const MAX_AGAIN: usize = 65_536;

/// The kernel's caches. Errors other than "not mounted" do no harm: what is not cached can't be stale.
pub trait Cache: Send + 'static {
    /// Forget attributes, and the bytes from `offset` on (length 0: to the end; negative offset: none).
    fn inode(&self, node: Node, offset: i64, length: i64) -> io::Result<()>;
    /// Forget what a name stands for.
    fn name(&self, parent: Node, name: &[u8]) -> io::Result<()>;
    /// Forget a name and tell whoever watches it that it was deleted.
    fn deleted(&self, parent: Node, name: &[u8], child: Node) -> io::Result<()>;
}

/// Serve `queue` until it is closed or nothing is mounted any more.
pub fn run(files: &Arc<Files>, queue: &Queue, cache: &impl Cache) {
    let mut worker = Worker { files, cache, again: VecDeque::new() };
    loop {
        let done = match queue.next(PERIOD) {
            Next::These(list) => list.iter().try_for_each(|s| worker.forward(s)),
            Next::All => worker.forward(&Stale::All),
            Next::Idle => {
                files.refresh();
                Ok(())
            }
            Next::Closed => return,
        };
        if done.and_then(|()| worker.repeat()).is_err() {
            return;
        }
    }
}

/// The file system is no longer mounted.
struct Unmounted;

struct Worker<'a, C> {
    files: &'a Files,
    cache: &'a C,
    /// Files whose attributes are to be invalidated again, and when.
    again: VecDeque<(Instant, Node)>,
}

impl<C: Cache> Worker<'_, C> {
    fn forward(&mut self, stale: &Stale) -> Result<(), Unmounted> {
        match stale {
            Stale::Attr(node) if self.touch(*node) => check(self.cache.inode(*node, -1, 0)),
            Stale::Bytes { node, offset, length } if self.touch(*node) => {
                let (offset, length) = clamp(*offset, *length);
                check(self.cache.inode(*node, offset, length))
            }
            Stale::Name { parent, name } if self.knows(*parent) => check(self.cache.name(*parent, name)),
            Stale::Gone { parent, name, child } if self.knows(*parent) => {
                check(self.cache.deleted(*parent, name, *child))
            }
            Stale::All => self.sweep(),
            _ => Ok(()),
        }
    }

    fn knows(&self, node: Node) -> bool {
        node == TOP || self.files.known().contains(node)
    }

    /// Whether the kernel may have cached the attributes or pages of `node`.
    fn touch(&mut self, node: Node) -> bool {
        if node == TOP {
            return true;
        }
        let touched = self.files.known().touch(node);
        if touched == Some(true) {
            self.later(node);
        }
        touched.is_some()
    }

    fn later(&mut self, node: Node) {
        let now = Instant::now();
        // One that was put there just now does for this one too.
        if self.again.back().is_none_or(|(due, last)| *last != node || *due < now + SETTLING) {
            self.again.push_back((now + SETTLING + SLACK, node));
        }
    }

    fn sweep(&mut self) -> Result<(), Unmounted> {
        let all = self.files.known().sweep();
        tracing::debug!(names = all.names.len(), files = all.files.len(), "view: everything is invalidated");
        all.settling.into_iter().for_each(|node| self.later(node));
        all.names.iter().try_for_each(|n| check(self.cache.name(n.parent, &n.name)))?;
        std::iter::once(&TOP).chain(&all.files).try_for_each(|n| check(self.cache.inode(*n, 0, 0)))
    }

    /// Invalidate again what is due; when too much waits, at once.
    fn repeat(&mut self) -> Result<(), Unmounted> {
        while let Some((due, node)) = self.again.front().copied() {
            if due > Instant::now() && self.again.len() <= MAX_AGAIN {
                break;
            }
            self.again.pop_front();
            check(self.cache.inode(node, -1, 0))?;
        }
        Ok(())
    }
}

/// A range that the kernel takes: beyond what it can count, the whole rest.
fn clamp(offset: u64, length: u64) -> (i64, i64) {
    match (i64::try_from(offset), i64::try_from(length)) {
        (Ok(o), Ok(l)) if o.checked_add(l).is_some() => (o, l),
        (Ok(o), _) => (o, 0),
        (Err(_), _) => (-1, 0),
    }
}

fn check(told: io::Result<()>) -> Result<(), Unmounted> {
    match told {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::ECONNABORTED)) => {
            Err(Unmounted)
        }
        Err(e) => {
            tracing::debug!("view: the kernel kept something cached: {e}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
