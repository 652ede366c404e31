//! Whose bytes are wanted: one bit per 4 KiB of the disk, read by the tap on the guest's hot path
//! and written by the engine.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the disk per bit.
pub const GRAIN: u64 = 4096;

/// The map. Bits are only hints: a stale bit costs a copy or a later re-read, never an event.
#[derive(Debug)]
pub struct Interest {
    words: Box<[AtomicU64]>,
}

impl Interest {
    /// A map for a disk of `size` bytes, nothing wanted.
    pub fn new(size: u64) -> Self {
        let words = usize::try_from(size.div_ceil(GRAIN).div_ceil(64)).unwrap_or(0);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether any byte of `range` (disk bytes) is wanted.
    pub fn any(&self, range: Range<u64>) -> bool {
        grains(range).any(|g| self.bit(g))
    }

    /// The wanted parts of `range`, in order, widened to grains but not past `range`.
    pub fn wanted(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = grains(range.clone());
        std::iter::from_fn(move || {
            let first = at.by_ref().find(|g| self.bit(*g))?;
            let past = at.by_ref().find(|g| !self.bit(*g)).unwrap_or(at.end);
            Some((first * GRAIN).max(range.start)..(past * GRAIN).min(range.end))
        })
    }

    /// Want, or no longer want, every grain that `range` touches.
    pub fn set(&self, range: Range<u64>, wanted: bool) {
        for g in grains(range) {
            if let Some(w) = self.word(g) {
                let bit = 1 << (g % 64);
                if wanted {
                    w.fetch_or(bit, Ordering::Relaxed)
                } else {
                    w.fetch_and(!bit, Ordering::Relaxed)
                };
            }
        }
    }

    fn bit(&self, grain: u64) -> bool {
        self.word(grain).is_some_and(|w| w.load(Ordering::Relaxed) >> (grain % 64) & 1 == 1)
    }

    fn word(&self, grain: u64) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(grain / 64).ok()?)
    }
}

fn grains(r: Range<u64>) -> Range<u64> {
    if r.is_empty() { 0..0 } else { r.start / GRAIN..r.end.div_ceil(GRAIN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_parts_are_cut_to_the_write() {
        let m = Interest::new(64 * GRAIN);
        m.set(GRAIN..2 * GRAIN + 1, true);
        let parts: Vec<_> = m.wanted(100..5 * GRAIN).collect();
        assert_eq!(parts, vec![GRAIN..3 * GRAIN]);
        assert_eq!(m.wanted(GRAIN + 7..GRAIN + 9).collect::<Vec<_>>(), vec![GRAIN + 7..GRAIN + 9]);
        assert!(!m.any(3 * GRAIN..64 * GRAIN) && !m.any(0..GRAIN));
        m.set(0..64 * GRAIN, false);
        assert!(!m.any(0..64 * GRAIN));
    }

    #[test]
    fn past_the_end_nothing_is_wanted() {
        let m = Interest::new(GRAIN);
        m.set(0..1 << 40, true);
        assert!(m.any(0..1) && !m.any(1 << 30..(1 << 30) + 1));
    }
}
