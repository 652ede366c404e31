//! Sets of byte ranges, coalesced.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of bytes, held as disjoint ranges that do not touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeSet {
    /// Start → end.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Add a range.
    pub fn insert(&mut self, r: Range<u64>) {
        if r.is_empty() {
            return;
        }
        let (mut start, mut end) = (r.start, r.end);
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back()
            && e >= start
        {
            start = start.min(s);
            end = end.max(e);
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
    }

    /// Take a range out.
    pub fn remove(&mut self, r: Range<u64>) {
        if r.is_empty() || self.ranges.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.ranges.range(..r.end).next_back()
            && e > r.start
        {
            self.ranges.remove(&s);
            if s < r.start {
                self.ranges.insert(s, r.start);
            }
            if e > r.end {
                self.ranges.insert(r.end, e);
            }
        }
    }

    /// Whether all of `r` is in the set.
    pub fn contains(&self, r: &Range<u64>) -> bool {
        r.is_empty() || self.ranges.range(..=r.start).next_back().is_some_and(|(_, e)| *e >= r.end)
    }

    /// The parts of `r` that are in the set.
    pub fn overlap(&self, r: Range<u64>) -> Vec<Range<u64>> {
        let before = self.ranges.range(..r.start).next_back();
        let inside = self.ranges.range(r.start..r.end.max(r.start));
        let cut = |(s, e): (&u64, &u64)| (*s).max(r.start)..(*e).min(r.end);
        before.into_iter().chain(inside).map(cut).filter(|p| p.start < p.end).collect()
    }

    /// The ranges, rising.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(s, e)| *s..*e)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }
}

/// Ranges that come one by one, in any order, and are looked at much less often: they are only
/// written down, and sorted when somebody looks.
#[derive(Clone, Debug, Default)]
pub struct RangeLog {
    recent: Vec<(u64, u64)>,
    sorted: RangeSet,
}

/// Ranges that may wait to be sorted.
const MAX_RECENT: usize = 1 << 14;

impl RangeLog {
    /// Add a range.
    pub fn insert(&mut self, r: Range<u64>) {
        match self.recent.last_mut() {
            _ if r.is_empty() => {}
            // Long writes come in pieces.
            Some((_, end)) if *end == r.start => *end = r.end,
            _ => {
                self.recent.push((r.start, r.end));
                if self.recent.len() >= MAX_RECENT {
                    self.settle();
                }
            }
        }
    }

    /// Take a range out.
    pub fn remove(&mut self, r: Range<u64>) {
        if !self.is_empty() {
            self.settle().remove(r);
        }
    }

    /// The set, to look at.
    pub fn settle(&mut self) -> &mut RangeSet {
        if !self.recent.is_empty() {
            self.recent.sort_unstable();
            self.recent.dedup_by(|next, last| {
                let meets = next.0 <= last.1;
                if meets {
                    last.1 = last.1.max(next.1);
                }
                meets
            });
            if self.sorted.is_empty() {
                self.sorted.ranges = self.recent.drain(..).collect();
            } else {
                self.recent.drain(..).for_each(|(start, end)| self.sorted.insert(start..end));
            }
        }
        &mut self.sorted
    }

    /// The set; nothing stays.
    pub fn take(&mut self) -> RangeSet {
        std::mem::take(self.settle())
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.sorted.is_empty()
    }

    /// How many ranges there are, at most.
    pub fn len(&self) -> usize {
        self.recent.len() + self.sorted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_bytes(ops in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..20), 0..60)) {
            let mut set = RangeSet::default();
            let mut log = RangeLog::default();
            let mut model = [false; 100];
            for (add, start, len) in ops {
                if add { set.insert(start..start + len) } else { set.remove(start..start + len) }
                if add { log.insert(start..start + len) } else { log.remove(start..start + len) }
                prop_assert_eq!(log.is_empty(), set.is_empty());
                for b in start..start + len {
                    model[usize::try_from(b).unwrap()] = add;
                }
            }
            for (b, want) in (0..100).zip(model) {
                prop_assert_eq!(set.contains(&(b..b + 1)), want);
            }
            let found: u64 = set.overlap(10..50).iter().map(|r| r.end - r.start).sum();
            prop_assert_eq!(found, model[10..50].iter().filter(|m| **m).count() as u64);
            prop_assert_eq!(&log.take(), &set);
            prop_assert!(log.is_empty());
            let all: Vec<_> = set.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].end < w[1].start));
            prop_assert_eq!(set.bytes(), model.iter().filter(|m| **m).count() as u64);
        }
    }
}
