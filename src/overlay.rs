//! A disk that is never written: a base image, and over it the newer bytes of a recorded stream.
//! The bytes stay where the stream holds them; only an interval map is kept in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock};

use crate::image::{Disk, ReadAt};

/// Base image and newer bytes. Reads and writes may come from several threads.
pub struct Overlay {
    base: Disk,
    store: File,
    newer: RwLock<Map>,
}

/// Disk ranges that differ from the base: start → end and where their bytes are. Disjoint.
type Map = BTreeMap<u64, Piece>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    end: u64,
    bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bytes {
    /// In the store, from this byte on.
    Stored(u64),
    Zero,
}

impl Bytes {
    fn advanced(self, by: u64) -> Self {
        match self {
            Self::Stored(at) => Self::Stored(at.saturating_add(by)),
            Self::Zero => Self::Zero,
        }
    }
}

impl Overlay {
    /// Nothing newer yet. `store` is where [`Overlay::put`] will point to.
    pub fn new(base: Disk, store: File) -> Self {
        Self { base, store, newer: RwLock::default() }
    }

    /// The bytes of `range` of the disk are now those of the store from `at` on.
    pub fn put(&self, range: Range<u64>, at: u64) {
        self.insert(range, Bytes::Stored(at));
    }

    /// `range` of the disk now reads as zeros.
    pub fn zero(&self, range: Range<u64>) {
        self.insert(range, Bytes::Zero);
    }

    /// `range` of the disk reads as the base again.
    pub fn forget(&self, range: Range<u64>) {
        if !range.is_empty() {
            cut(&mut self.newer.write().unwrap_or_else(PoisonError::into_inner), &range);
        }
    }

    /// How many separate ranges are remembered.
    pub fn ranges(&self) -> usize {
        self.newer.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn insert(&self, range: Range<u64>, bytes: Bytes) {
        if range.is_empty() {
            return;
        }
        let mut map = self.newer.write().unwrap_or_else(PoisonError::into_inner);
        cut(&mut map, &range);
        let joined = map
            .range_mut(..range.start)
            .next_back()
            .filter(|(start, p)| p.end == range.start && p.bytes.advanced(p.end - **start) == bytes);
        match joined {
            Some((_, piece)) => piece.end = range.end,
            None => drop(map.insert(range.start, Piece { end: range.end, bytes })),
        }
    }

    /// The newer piece that covers `at` or comes next, as the disk range from `at` on and its bytes.
    fn next(&self, at: u64) -> Option<(Range<u64>, Bytes)> {
        let map = self.newer.read().unwrap_or_else(PoisonError::into_inner);
        let covering = map.range(..=at).next_back().filter(|(_, p)| p.end > at);
        let (start, piece) = covering.or_else(|| map.range(at..).next())?;
        let from = at.max(*start);
        Some((from..piece.end, piece.bytes.advanced(from - start)))
    }
}

/// Make room: pieces that lie in `range` go, pieces that reach into it shrink or split.
fn cut(map: &mut Map, range: &Range<u64>) {
    if let Some((&start, &piece)) = map.range(..range.start).next_back()
        && piece.end > range.start
    {
        map.insert(start, Piece { end: range.start, ..piece });
        put_rest(map, start, piece, range.end);
    }
    while let Some((&start, &piece)) = map.range(range.clone()).next() {
        map.remove(&start);
        put_rest(map, start, piece, range.end);
    }
}

/// Put back what of `piece`, which started at `start`, lies from `from` on.
fn put_rest(map: &mut Map, start: u64, piece: Piece, from: u64) {
    if piece.end > from {
        map.insert(from, Piece { end: piece.end, bytes: piece.bytes.advanced(from - start) });
    }
}

impl ReadAt for Overlay {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let end = at.checked_add(rest.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
            let newer = self.next(at).filter(|(range, _)| range.start < end);
            let until = newer
                .as_ref()
                .map_or(end, |(range, _)| if range.start > at { range.start } else { range.end.min(end) });
            let len = usize::try_from(until - at).map_err(io::Error::other)?;
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            match newer {
                Some((range, bytes)) if range.start == at => match bytes {
                    Bytes::Stored(position) => self.store.read_exact_at(now, position)?,
                    Bytes::Zero => now.fill(0),
                },
                _ => self.base.read_at(at, now)?,
            }
            (at, rest) = (until, later);
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.base.size()
    }
}

#[cfg(test)]
mod tests;
