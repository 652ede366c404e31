//! What the engine knows of a file system: it takes writes and gives events.

use std::ops::Range;
use std::sync::Arc;

use crate::event::Event;
use crate::interest::Interest;
use crate::tree::Tree;
use crate::units::{InodeNo, Timestamp};

/// A write to a volume. Offsets are bytes from the volume's start.
#[derive(Clone, Copy, Debug)]
pub struct VolumeWrite<'a> {
    /// What was written.
    pub range: &'a Range<u64>,
    /// The wanted bytes: pieces in rising order.
    pub pieces: &'a [(u64, &'a [u8])],
    /// When it completed.
    pub time: Timestamp,
}

/// The engine's interest map, seen from one volume.
#[derive(Clone)]
pub struct VolumeInterest {
    map: Arc<Interest>,
    start: u64,
}

impl VolumeInterest {
    /// The part of `map` from disk byte `start` on.
    pub fn new(map: Arc<Interest>, start: u64) -> Self {
        Self { map, start }
    }

    /// Want, or no longer want, the bytes of writes to `range` (volume bytes).
    pub fn set(&self, range: Range<u64>, wanted: bool) {
        let shift = |b: u64| b.saturating_add(self.start);
        self.map.set(shift(range.start)..shift(range.end), wanted);
    }

    /// Whether any byte of `range` (volume bytes) is wanted.
    pub fn any(&self, range: &Range<u64>) -> bool {
        let shift = |b: u64| b.saturating_add(self.start);
        self.map.any(shift(range.start)..shift(range.end))
    }
}

/// Whether a live volume still makes sense of its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Good,
    /// The file system was overwritten or replaced: probe the volume again when writes pause.
    Stale,
}

/// A file system that is followed while it changes. Events carry paths below the volume's root.
pub trait Volume: Send {
    /// Name of the file system (`ext4`).
    fn fs(&self) -> &'static str;
    /// Its files, for views. Follows the guest.
    fn tree(&self) -> Arc<dyn Tree>;
    /// Bytes were written.
    fn write(&mut self, write: VolumeWrite<'_>, out: &mut Vec<Event>);
    /// A range now reads as zeros.
    fn zero(&mut self, range: Range<u64>, time: Timestamp, out: &mut Vec<Event>);
    /// A range was discarded.
    fn discard(&mut self, range: Range<u64>, time: Timestamp, out: &mut Vec<Event>);
    /// All writes so far are durable: a good moment to make sense of home writes.
    fn flush(&mut self, time: Timestamp, out: &mut Vec<Event>);
    /// Nothing came for a while, or some time passed.
    fn tick(&mut self, now: Timestamp, out: &mut Vec<Event>);
    /// Read bytes that a `write` event tells of, as they stand on disk: also where the file system
    /// does not count their blocks as written yet. Returns how many were read.
    fn read_written(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> crate::error::Result<usize>;
    /// Say all that is known but not yet said: no more writes will come.
    fn finish(&mut self, now: Timestamp, out: &mut Vec<Event>);
    /// Writes were lost: read everything again and say what differs.
    fn resync(&mut self, now: Timestamp, out: &mut Vec<Event>) -> crate::error::Result<()>;
    /// The file system is new to whoever listens: say all that is in it.
    fn introduce(&mut self, now: Timestamp, out: &mut Vec<Event>);
    /// Whether it still makes sense.
    fn health(&self) -> Health;
}
