//! The bounded queue between the engine and the thread that delivers: in memory, then on disk.
//!
//! In the order of age: what is being delivered, what waits in memory, what waits in the spool. As
//! long as the spool holds anything, whatever is new goes there. When there is no room the oldest
//! are dropped, and a [`Lost`] stands in their place.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::{Lost, Record};
use super::spool::Spool;

/// How much may wait in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Records.
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 20, records: 1 << 16 }
    }
}

/// At most this much is delivered at once.
const BATCH: Limits = Limits { bytes: 1 << 20, records: 1000 };

/// Something to deliver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// An event.
    Record(Record),
    /// Word of events that were dropped.
    Lost(Lost),
}

impl Item {
    fn cost(&self) -> usize {
        match self {
            Self::Record(r) => r.cost(),
            Self::Lost(_) => size_of::<Self>(),
        }
    }
}

/// What the delivering thread gets.
#[derive(Debug)]
pub enum Taken {
    /// Deliver these, and say [`Queue::delivered`].
    Batch(Vec<Item>),
    /// Nothing came for a while.
    Idle,
    /// Nothing is left and nothing more will come.
    End,
}

#[derive(Default)]
struct State {
    memory: VecDeque<Item>,
    bytes: usize,
    spool: Option<Spool>,
    /// Neither the spool nor memory could take these, the newest of all.
    unspooled: Option<Lost>,
    /// What is being delivered came from the spool.
    from_spool: bool,
    spool_complaint: bool,
    /// When it was said that no more will come.
    closed: Option<Instant>,
    /// Nobody delivers any more; why.
    given_up: Option<String>,
}

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    limits: Limits,
    /// When full: the engine waits.
    waits: bool,
    filled: Condvar,
    emptied: Condvar,
}

impl Queue {
    /// A queue that makes the engine wait when it is full.
    pub fn waiting(limits: Limits) -> Self {
        Self::new(limits, true, None)
    }

    /// A queue that never makes anybody wait.
    pub fn spooling(limits: Limits, spool: Option<Spool>) -> Self {
        Self::new(limits, false, spool)
    }

    fn new(limits: Limits, waits: bool, spool: Option<Spool>) -> Self {
        let state = State { spool, ..State::default() };
        Self { state: Mutex::new(state), limits, waits, filled: Condvar::new(), emptied: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Add a record. An error: it will never be delivered; why.
    pub fn push(&self, record: Record) -> Result<(), String> {
        let mut state = self.lock();
        while self.waits && state.given_up.is_none() && self.is_full(&state, &record) {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(why) = &state.given_up {
            return Err(why.clone());
        }
        let was_empty = state.memory.is_empty();
        state.add(record, |s, r| self.is_full(s, r));
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    fn is_full(&self, state: &State, next: &Record) -> bool {
        !state.memory.is_empty()
            && (state.memory.len() >= self.limits.records || state.bytes + next.cost() > self.limits.bytes)
    }

    /// The engine is at a point of rest: let the spool be written.
    pub fn flush(&self) {
        let mut state = self.lock();
        if let Some(Err(e)) = state.spool.as_mut().filter(|s| !s.is_empty()).map(Spool::flush) {
            state.complain(&e);
        }
    }

    /// The oldest that wait; sleeps up to `patience` if nothing does.
    pub fn take(&self, patience: Duration) -> Taken {
        let mut state = self.lock();
        let until = Instant::now() + patience;
        loop {
            let batch = state.batch();
            if !batch.is_empty() {
                return Taken::Batch(batch);
            }
            if state.closed.is_some() {
                return Taken::End;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Idle;
            }
            (state, _) = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The batch that was taken has arrived.
    pub fn delivered(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.from_spool)
            && let Some(s) = &mut state.spool
        {
            s.delivered();
        }
        drop(state);
        self.emptied.notify_all();
    }

    /// Sleep, unless it is closed meanwhile. Whether it is closed.
    pub fn sleep(&self, time: Duration) -> bool {
        let state = self.lock();
        let (state, _) =
            self.filled.wait_timeout_while(state, time, |s| s.closed.is_none()).unwrap_or_else(PoisonError::into_inner);
        state.closed.is_some()
    }

    /// How long ago it was said that no more will come.
    pub fn since_close(&self) -> Option<Duration> {
        self.lock().closed.map(|c| c.elapsed())
    }

    /// Whether there is a spool, for what cannot be delivered.
    pub fn can_keep(&self) -> bool {
        self.lock().spool.is_some()
    }

    /// No more will come.
    pub fn close(&self) {
        self.lock().closed.get_or_insert_with(Instant::now);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// How many records wait, besides those that are being delivered.
    pub fn len(&self) -> u64 {
        let state = self.lock();
        state.memory.len() as u64 + state.spool.as_ref().map_or(0, Spool::len)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nobody will deliver any more: keep in the spool what waits, after `undelivered`, for another
    /// run. Returns how many events could not be kept.
    pub fn give_up(&self, why: &str, undelivered: Vec<Item>, encode: impl Fn(&Lost) -> Record) -> u64 {
        let mut state = self.lock();
        state.given_up = Some(why.to_owned());
        // What came from the spool is still there.
        let first = if std::mem::take(&mut state.from_spool) { Vec::new() } else { undelivered };
        let waiting = std::mem::take(&mut state.memory);
        let rest: Vec<_> = first
            .into_iter()
            .chain(waiting)
            .map(|item| match item {
                Item::Record(r) => r,
                Item::Lost(l) => encode(&l),
            })
            .collect();
        let lost = match &mut state.spool {
            Some(spool) => match spool.put_first(&rest).and_then(|()| spool.sync()) {
                Ok(()) => 0,
                Err(e) => {
                    tracing::warn!("cannot keep events in the spool: {e}");
                    rest.len() as u64
                }
            },
            None => rest.len() as u64,
        };
        let unspooled = state.unspooled.take().map_or(0, |l| l.events());
        drop(state);
        self.emptied.notify_all();
        lost + unspooled
    }
}

impl State {
    fn add(&mut self, record: Record, is_full: impl Fn(&Self, &Record) -> bool) {
        let spooling = self.unspooled.is_some() || self.spool.as_ref().is_some_and(|s| !s.is_empty());
        if !spooling && !is_full(self, &record) {
            self.remember(Item::Record(record));
        } else if self.spool.is_some() {
            self.put_in_spool(record);
        } else {
            while is_full(self, &record) && self.drop_oldest() {}
            self.remember(Item::Record(record));
        }
    }

    fn remember(&mut self, item: Item) {
        self.bytes += item.cost();
        self.memory.push_back(item);
    }

    fn put_in_spool(&mut self, record: Record) {
        if let Some(missing) = self.unspooled.take() {
            // Nothing may come before word of what is missing; the spool made no room for either yet.
            let next = missing.joined(Lost::of(&record));
            if self.spool.as_ref().is_some_and(|s| !s.is_empty()) {
                self.unspooled = next.or(Some(missing));
                return;
            }
            self.remember(Item::Lost(missing));
        }
        let Some(spool) = &mut self.spool else { return };
        match spool.push(&record) {
            Ok(lost) => lost.into_iter().for_each(|l| self.lose(l)),
            Err(e) => {
                self.complain(&e);
                self.unspooled = Some(Lost::of(&record));
            }
        }
    }

    /// The oldest of the spool are gone: they would have come after all that is in memory.
    fn lose(&mut self, lost: Lost) {
        if let Some(Item::Lost(before)) = self.memory.back_mut()
            && let Some(both) = before.joined(lost)
        {
            *before = both;
        } else {
            self.remember(Item::Lost(lost));
        }
    }

    /// Drop the oldest record in memory. False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(mut first) = self.pop() else { return false };
        if let Item::Lost(before) = first {
            match self.pop() {
                Some(Item::Record(r)) => first = Item::Lost(before.joined(Lost::of(&r)).unwrap_or(Lost::of(&r))),
                _ => return false,
            }
        } else if let Item::Record(r) = &first {
            first = Item::Lost(Lost::of(r));
        }
        self.bytes += first.cost();
        self.memory.push_front(first);
        self.memory.len() > 1
    }

    fn pop(&mut self) -> Option<Item> {
        let first = self.memory.pop_front()?;
        self.bytes -= first.cost();
        Some(first)
    }

    fn batch(&mut self) -> Vec<Item> {
        let mut batch = Vec::new();
        let mut size = 0;
        while batch.len() < BATCH.records && size < BATCH.bytes {
            let Some(item) = self.pop() else { break };
            size += item.cost();
            batch.push(item);
        }
        if !batch.is_empty() {
            return batch;
        }
        if let Some(spool) = &mut self.spool {
            let (records, lost) = spool.read(BATCH.bytes, BATCH.records);
            self.from_spool = !records.is_empty();
            batch.extend(records.into_iter().map(Item::Record));
            batch.extend(lost.map(Item::Lost));
        }
        if batch.is_empty() {
            batch.extend(self.unspooled.take().map(Item::Lost));
        }
        batch
    }

    /// Say once that the spool does not work.
    fn complain(&mut self, why: &std::io::Error) {
        if !std::mem::replace(&mut self.spool_complaint, true) {
            tracing::warn!("cannot write to the spool: {why}: events that do not fit into memory are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::pack;
    use super::super::spool::SpoolOptions;
    use super::*;

    fn record(seq: u64) -> Record {
        Record { run: 1, seq, bytes: pack([&[0; 1000][..]]) }
    }

    fn seqs(queue: &Queue) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        while let Taken::Batch(batch) = queue.take(Duration::ZERO) {
            all.extend(batch.iter().map(|i| match i {
                Item::Record(r) => (r.seq, r.seq),
                Item::Lost(l) => (l.first, l.last),
            }));
            queue.delivered();
        }
        all
    }

    /// Each number once, in order.
    fn is_whole(all: &[(u64, u64)], last: u64) -> bool {
        all.first().is_some_and(|f| f.0 == 1)
            && all.last().is_some_and(|l| l.1 == last)
            && all.windows(2).all(|w| w[1].0 == w[0].1 + 1)
    }

    #[test]
    fn without_a_spool_the_oldest_are_dropped_and_named() {
        let queue = Queue::spooling(Limits { bytes: 50_000, records: 1000 }, None);
        (1..=100).for_each(|n| queue.push(record(n)).unwrap());
        let all = seqs(&queue);
        assert!(is_whole(&all, 100), "{all:?}");
        assert!(all[0].1 > 40 && all.len() > 40, "{all:?}");
    }

    #[test]
    fn what_overflows_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let spool = |limit| Spool::open(&SpoolOptions { dir: dir.path().into(), limit }, "vm").unwrap();
        let queue = Queue::spooling(Limits { bytes: 50_000, records: 1000 }, Some(spool(1 << 30)));
        (1..=500).for_each(|n| queue.push(record(n)).unwrap());
        let Taken::Batch(first) = queue.take(Duration::ZERO) else { panic!() };
        (501..=600).for_each(|n| queue.push(record(n)).unwrap());
        queue.delivered();
        let rest = seqs(&queue);
        assert_eq!(rest.len() + first.len(), 600);
        assert_eq!(rest.last(), Some(&(600, 600)));
        assert!(rest.windows(2).all(|w| w[1].0 == w[0].1 + 1));
        // A small one drops from its middle, but says so.
        drop(queue);
        let queue = Queue::spooling(Limits { bytes: 50_000, records: 1000 }, Some(spool(1 << 20)));
        (1..=5000).for_each(|n| queue.push(record(n)).unwrap());
        let all = seqs(&queue);
        assert!(is_whole(&all, 5000) && all.len() < 1200, "{all:?}");
    }

    #[test]
    fn what_is_left_at_the_end_is_kept_for_another_run() {
        let dir = tempfile::tempdir().unwrap();
        let spool = || Spool::open(&SpoolOptions { dir: dir.path().into(), limit: 1 << 30 }, "vm").unwrap();
        let queue = Queue::spooling(Limits { bytes: 50_000, records: 1000 }, Some(spool()));
        (1..=500).for_each(|n| queue.push(record(n)).unwrap());
        let Taken::Batch(mut batch) = queue.take(Duration::ZERO) else { panic!() };
        batch.drain(..10);
        assert_eq!(queue.give_up("over", batch, |_| panic!()), 0);
        assert!(queue.push(record(501)).is_err());
        drop(queue);
        let queue = Queue::spooling(Limits::default(), Some(spool()));
        let all = seqs(&queue);
        assert_eq!((all[0].0, all.len()), (11, 490));
    }

    #[test]
    fn a_waiting_queue_loses_nothing() {
        let queue = std::sync::Arc::new(Queue::waiting(Limits { bytes: 10_000, records: 5 }));
        let other = queue.clone();
        let writer = std::thread::spawn(move || (1..=300).for_each(|n| other.push(record(n)).unwrap()));
        let mut all = Vec::new();
        while all.len() < 300 {
            all.extend(seqs(&queue));
        }
        writer.join().unwrap();
        assert!(is_whole(&all, 300));
    }
}
