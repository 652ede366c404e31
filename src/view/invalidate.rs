//! Keeping the kernel's caches true: the thread that tells it what has changed.
//!
//! The kernel takes locks for that which it also holds while it waits for an answer of ours. So
//! this never runs on a thread that answers, and holds no lock of ours while it calls the kernel.
//!
//! What protects whom against an answer that is under way while its file changes: names, the
//! directory's lock; pages, theirs; attributes of a file that the kernel knows, their version. Only
//! the attributes that come with a *first* lookup have no such guard: see `fuse.rs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;

use super::files::Files;
use super::node::{Node, TOP};
use super::queue::{Next, Queue};
use super::stale::Stale;

/// How often to look whether the guest's volumes were replaced without an event.
const PERIOD: Duration = Duration::from_millis(500);

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
    loop {
        let done = match queue.next(PERIOD) {
            Next::These(list) => list.iter().try_for_each(|s| forward(files, cache, s)),
            Next::All => sweep(files, cache),
            Next::Idle => {
                files.refresh();
                Ok(())
            }
            Next::Closed => return,
        };
        if done.is_err() {
            return;
        }
    }
}

/// The file system is no longer mounted.
struct Unmounted;

fn forward(files: &Files, cache: &impl Cache, stale: &Stale) -> Result<(), Unmounted> {
    let knows = |node: &Node| *node == TOP || files.known().contains(*node);
    match stale {
        Stale::Attr(node) if knows(node) => check(cache.inode(*node, -1, 0)),
        Stale::Bytes { node, offset, length } if knows(node) => {
            let (offset, length) = clamp(*offset, *length);
            check(cache.inode(*node, offset, length))
        }
        Stale::Name { parent, name } if knows(parent) => check(cache.name(*parent, name)),
        Stale::Gone { parent, name, child } if knows(parent) => check(cache.deleted(*parent, name, *child)),
        Stale::All => sweep(files, cache),
        _ => Ok(()),
    }
}

fn sweep(files: &Files, cache: &impl Cache) -> Result<(), Unmounted> {
    let (names, nodes) = files.known().sweep();
    tracing::debug!(names = names.len(), files = nodes.len(), "view: everything is invalidated");
    names.iter().try_for_each(|n| check(cache.name(n.parent, &n.name)))?;
    std::iter::once(&TOP).chain(&nodes).try_for_each(|n| check(cache.inode(*n, 0, 0)))
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
