//! The inferencer's loop: from the queue into the engine, with an eye on what is missing.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::Failure;
use crate::cli::signals::Signals;
use crate::config::sinks;
use crate::engine::Engine;
use crate::feed::{Lost, pieces};
use crate::image::ReadAt;
use crate::ranges::RangeSet;
use crate::source::known_disk::KnownDisk;
use crate::source::redis_queue::{Consumer, Element, Entry};
use crate::units::Timestamp;
use crate::write::{Write, WriteOp};

/// How long to wait for the next write before the engine makes sense of what came.
const PAUSE: Duration = Duration::from_millis(100);
/// So many writes go by between two looks for signals and pauses.
const BATCH: u32 = 256;

/// The engine, and what is known of the queue.
pub struct Follow {
    engine: Engine,
    disk: Arc<KnownDisk>,
    queue: Consumer,
    writes: u64,
    bytes: u64,
    /// The queuer's run, and the number of the last element.
    last: Option<(u64, u64)>,
    /// Elements that are known to be missing, or that made no sense.
    missing: u64,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    /// The trace's writer has gone.
    Ended,
}

impl Follow {
    /// Nothing taken yet.
    pub fn new(engine: Engine, disk: Arc<KnownDisk>, queue: Consumer) -> Self {
        Self { engine, disk, queue, writes: 0, bytes: 0, last: None, missing: 0 }
    }

    /// Until a signal comes or, with `drain`, the trace ends.
    pub fn run(mut self, signals: &Signals, drain: bool) -> Result<(), Failure> {
        let done = self.follow(signals, drain).and_then(|()| self.engine.finish()).and_then(|()| self.engine.close());
        let events = self.engine.events();
        tracing::info!(
            "{} writes, {} bytes, {events} events, {} elements missing",
            self.writes,
            self.bytes,
            self.missing
        );
        done.map_err(|e| sinks::failure("Redis".as_ref(), &e))
    }

    fn follow(&mut self, signals: &Signals, drain: bool) -> io::Result<()> {
        let mut since = 0;
        loop {
            let Some(bytes) = self.queue.next_within(PAUSE)? else {
                self.engine.tick(Timestamp::now())?;
                if signals.came_within(Duration::ZERO) {
                    return Ok(());
                }
                continue;
            };
            if self.element(bytes)? == Then::Ended && drain {
                return Ok(());
            }
            since += 1;
            // What was taken from the queue is not there for anybody else: it is used up first.
            if since >= BATCH && !self.queue.has_taken() {
                since = 0;
                self.engine.tick(Timestamp::now())?;
                if signals.came_within(Duration::ZERO) {
                    return Ok(());
                }
            }
        }
    }

    fn element(&mut self, bytes: Vec<u8>) -> io::Result<Then> {
        let element = match Element::decode(bytes) {
            Ok(element) => element,
            Err(why) => {
                self.lost(1, &format!("an element of the queue makes no sense ({why})"))?;
                return Ok(Then::GoOn);
            }
        };
        if let Some((stream, seq)) = element.origin
            && !self.is_next(stream, seq)?
        {
            return Ok(Then::GoOn);
        }
        match element.entry {
            Entry::Write(at, data) => self.write(at, &data, element.time)?,
            Entry::Lost(writes) => self.lost(writes, &format!("{writes} writes are missing in the trace"))?,
            Entry::Closed | Entry::Ended => {
                self.engine.finish()?;
                return Ok(Then::Ended);
            }
        }
        Ok(Then::GoOn)
    }

    /// Look at an element's number: `false` for one that came before. What lies between is missing.
    fn is_next(&mut self, stream: u64, seq: u64) -> io::Result<bool> {
        let last = self.last.filter(|(s, _)| *s == stream).map(|(_, n)| n);
        let restarted = last.is_none() && self.last.is_some();
        if last.is_some_and(|n| seq <= n) {
            return Ok(false);
        }
        self.last = Some((stream, seq));
        let between = seq.saturating_sub(last.unwrap_or(0)).saturating_sub(1);
        if restarted {
            self.lost(between, "gray-ndb-queuer was started again")?;
        } else if between > 0 {
            self.lost(between, &format!("{between} elements of the queue were taken by somebody else"))?;
        }
        Ok(true)
    }

    fn write(&mut self, at: u64, data: &[u8], time: Option<Timestamp>) -> io::Result<()> {
        let Some(range) = within(at, data.len(), self.disk.size()) else {
            return self.lost(1, &format!("a write at byte {at} is past the end of the disk"));
        };
        self.writes += 1;
        self.bytes += data.len() as u64;
        self.disk.put(range.start, data)?;
        let op = WriteOp::Data {
            offset: range.start,
            len: range.end - range.start,
            pieces: pieces(&self.engine.interest(), range.start, data),
        };
        self.engine.apply(&Write { seq: self.writes, epoch: 0, time: time.unwrap_or_else(Timestamp::now), op })
    }

    /// Writes are missing: what is on the image now is the only truth left.
    fn lost(&mut self, elements: u64, why: &str) -> io::Result<()> {
        self.missing += elements;
        if self.disk.only_image()? {
            tracing::warn!("{why}: reading the image");
        } else {
            tracing::warn!("{why}, and the image is not at hand: events may be missing");
        }
        self.engine.resync(&Lost { ranges: RangeSet::default(), writes: elements })
    }
}

fn within(at: u64, len: usize, size: u64) -> Option<Range<u64>> {
    let end = at.checked_add(len as u64)?;
    (end <= size && len > 0).then_some(at..end)
}
