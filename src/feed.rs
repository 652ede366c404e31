//! The queue between the tap, on the guest's path, and the engine behind it.
//!
//! Bounded: by bytes copied and by number of writes. When it is full, the guest goes on (unless
//! the feed is lossless): what was written is kept as ranges without bytes, and the engine reads
//! the disk again once it has caught up.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gammaray_ublk::Tap;

use crate::interest::Interest;
use crate::ranges::RangeSet;
use crate::units::Timestamp;
use crate::write::{Write, WriteOp};

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of payload.
    pub bytes: usize,
    /// Writes.
    pub writes: usize,
    /// When full: let the guest wait instead of losing intermediate states.
    pub lossless: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, writes: 1 << 18, lossless: false }
    }
}

/// Writes without a wanted byte wake the engine only in batches this large; it looks every
/// [`IDLE`] anyway.
const BATCH: usize = 1024;
/// How long the engine sleeps when nobody wakes it.
pub const IDLE: Duration = Duration::from_millis(20);

/// What was lost when the queue was full.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// The disk ranges that were written.
    pub ranges: RangeSet,
    /// How many writes.
    pub writes: u64,
}

#[derive(Default)]
struct Queue {
    writes: VecDeque<Write>,
    bytes: usize,
    seq: u64,
    epoch: u64,
    lost: Option<Lost>,
    closed: bool,
    /// The engine waits for the next write, of any kind.
    hungry: bool,
}

/// The queue. The tap side is its [`Tap`]; the engine takes batches.
pub struct Feed {
    interest: Arc<Interest>,
    limits: Limits,
    queue: Mutex<Queue>,
    arrived: Condvar,
    taken: Condvar,
    waits: AtomicU64,
}

/// What the engine takes.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they completed.
    pub writes: VecDeque<Write>,
    /// Losses after those writes.
    pub lost: Option<Lost>,
    /// No more will come.
    pub closed: bool,
}

impl Feed {
    /// A queue that copies what `interest` wants.
    pub fn new(interest: Arc<Interest>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            interest,
            limits,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            taken: Condvar::new(),
            waits: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take all that waits; sleeps up to [`IDLE`] if nothing does.
    pub fn take(&self) -> Batch {
        let mut q = self.lock();
        if q.writes.is_empty() && !q.closed && q.lost.is_none() {
            let until = Instant::now() + IDLE;
            q.hungry = true;
            while !q.closed && q.hungry {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                (q, _) = self.arrived.wait_timeout(q, left).unwrap_or_else(PoisonError::into_inner);
            }
            q.hungry = false;
        }
        q.bytes = 0;
        let batch = Batch { writes: std::mem::take(&mut q.writes), lost: q.lost.take(), closed: q.closed };
        drop(q);
        self.taken.notify_all();
        batch
    }

    /// No more writes will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.taken.notify_all();
    }

    /// How often the guest had to wait for the engine.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    fn push(&self, op: WriteOp, bytes: usize) {
        let urgent = bytes > 0 || matches!(op, WriteOp::Flush);
        let mut q = self.lock();
        while self.limits.lossless && self.is_full(&q, bytes) && !q.closed {
            self.waits.fetch_add(1, Ordering::Relaxed);
            q = self.taken.wait(q).unwrap_or_else(PoisonError::into_inner);
        }
        q.seq += 1;
        q.epoch += u64::from(matches!(op, WriteOp::Flush));
        if q.lost.is_some() || self.is_full(&q, bytes) {
            q.lose(&op);
            return;
        }
        let write = Write { seq: q.seq, epoch: q.epoch, time: Timestamp::now(), op };
        q.bytes += bytes;
        q.writes.push_back(write);
        if q.hungry && (urgent || q.writes.len() >= BATCH) {
            q.hungry = false;
            drop(q);
            self.arrived.notify_one();
        }
    }

    /// One write larger than the limit passes when nothing else waits.
    fn is_full(&self, q: &Queue, bytes: usize) -> bool {
        !q.writes.is_empty() && (q.bytes + bytes > self.limits.bytes || q.writes.len() >= self.limits.writes)
    }
}

impl Queue {
    fn lose(&mut self, op: &WriteOp) {
        let lost = self.lost.get_or_insert_default();
        lost.writes += 1;
        match op {
            WriteOp::Data { offset, len, .. } => lost.ranges.insert(*offset..offset.saturating_add(*len)),
            WriteOp::Zero(r) => lost.ranges.insert(r.clone()),
            WriteOp::Discard(_) | WriteOp::Flush => {}
        }
    }
}

/// Copy the wanted parts of `data`, which was written to disk byte `offset`.
pub fn pieces(interest: &Interest, offset: u64, data: &[u8]) -> Vec<(u64, Box<[u8]>)> {
    let part = |r: &Range<u64>| {
        let from = usize::try_from(r.start - offset).ok()?;
        data.get(from..usize::try_from(r.end - offset).ok()?)
    };
    let wanted = interest.wanted(offset..offset.saturating_add(data.len() as u64));
    wanted.filter_map(|r| Some((r.start, part(&r)?.into()))).collect()
}

impl Tap for Feed {
    fn wants(&self, offset: u64, len: u64) -> bool {
        self.interest.any(offset..offset.saturating_add(len))
    }

    fn write(&self, offset: u64, len: u64, data: Option<&[u8]>) {
        let pieces = data.map_or_else(Vec::new, |d| pieces(&self.interest, offset, d));
        let bytes = pieces.iter().map(|(_, b)| b.len()).sum();
        self.push(WriteOp::Data { offset, len, pieces }, bytes);
    }

    fn zero(&self, offset: u64, len: u64) {
        self.push(WriteOp::Zero(offset..offset.saturating_add(len)), 1);
    }

    fn discard(&self, offset: u64, len: u64) {
        self.push(WriteOp::Discard(offset..offset.saturating_add(len)), 1);
    }

    fn flush(&self) {
        self.push(WriteOp::Flush, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::GRAIN;

    fn feed(limits: Limits) -> Arc<Feed> {
        let interest = Arc::new(Interest::new(1 << 20));
        interest.set(0..GRAIN, true);
        Feed::new(interest, limits)
    }

    #[test]
    fn only_wanted_bytes_are_copied() {
        let f = feed(Limits::default());
        f.write(0, 2 * GRAIN, Some(&[7; 8192]));
        f.write(GRAIN, 512, Some(&[1; 512]));
        f.flush();
        let batch = f.take();
        let WriteOp::Data { pieces, .. } = &batch.writes[0].op else { panic!() };
        assert_eq!(pieces.iter().map(|(at, b)| (*at, b.len())).collect::<Vec<_>>(), [(0, 4096)]);
        assert!(matches!(&batch.writes[1].op, WriteOp::Data { pieces, .. } if pieces.is_empty()));
        assert_eq!((batch.writes[2].seq, batch.writes[2].epoch), (3, 1));
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_lost() {
        let f = feed(Limits { bytes: 1000, writes: 10, lossless: false });
        f.write(0, 900, Some(&[1; 900]));
        f.write(0, 200, Some(&[1; 200]));
        f.write(8192, 10, Some(&[1; 10]));
        let batch = f.take();
        let lost = batch.lost.unwrap();
        assert_eq!((batch.writes.len(), lost.writes), (1, 2));
        assert_eq!(lost.ranges.iter().collect::<Vec<_>>(), [0..200, 8192..8202]);
        f.write(0, 200, Some(&[1; 200]));
        assert_eq!(f.take().writes.len(), 1);
    }

    #[test]
    fn a_lossless_feed_makes_the_guest_wait() {
        let f = feed(Limits { bytes: 100, writes: 10, lossless: true });
        let guest = f.clone();
        let writer = std::thread::spawn(move || (0..50).for_each(|_| guest.write(0, 60, Some(&[1; 60]))));
        let mut seen = 0;
        while seen < 50 {
            let batch = f.take();
            assert!(batch.lost.is_none());
            seen += batch.writes.len();
        }
        writer.join().unwrap();
        assert!(f.waits() > 0);
    }
}
