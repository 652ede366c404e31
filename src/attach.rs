//! The main job: serve a disk, follow what its guest writes, say what happens.
//!
//! ```text
//!  guest ─► ublk or FUSE file ─► Backing (the image)
//!                │ tap
//!                ▼
//!              Feed ─► engine thread ─► sinks, view
//! ```

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::engine::Engine;
use crate::exact::Exact;
use crate::feed::Feed;
use crate::units::Timestamp;

/// The engine on a thread of its own, fed by a tap.
pub struct Follower {
    feed: Arc<Feed>,
    thread: Option<JoinHandle<io::Result<u64>>>,
}

impl Follower {
    /// Start following. The result of [`Follower::stop`] tells how it went. With `exact` the engine's
    /// disk is that one's, and the feed has all bytes.
    pub fn start(engine: Engine, feed: Arc<Feed>, exact: Option<Exact>) -> io::Result<Self> {
        let queue = feed.clone();
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || follow(engine, &queue, exact))?;
        Ok(Self { feed, thread: Some(thread) })
    }

    /// Whether the engine has given up: its sink failed for good.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// No more writes will come: finish, and tell how many events there were.
    pub fn stop(mut self) -> io::Result<u64> {
        self.feed.close();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the engine failed")),
        }
    }
}

fn follow(mut engine: Engine, feed: &Feed, mut exact: Option<Exact>) -> io::Result<u64> {
    let interest = engine.interest();
    loop {
        let mut batch = feed.take();
        let is_last = batch.closed && batch.writes.is_empty();
        for w in batch.writes.drain(..) {
            match &mut exact {
                Some(exact) => engine.apply(&exact.apply(w, &interest))?,
                None => engine.apply(&w)?,
            }
        }
        if let Some(lost) = &batch.lost {
            if let Some(exact) = &exact {
                exact.lose(lost);
            }
            engine.resync(lost)?;
        }
        if is_last {
            engine.finish()?;
            engine.close()?;
            return Ok(engine.events());
        }
        engine.tick(Timestamp::now())?;
    }
}
