//! Which bytes of a stream changed between two states of its file.

use std::ops::Range;

use crate::event::Body;
use crate::ntfs::data;
use crate::ntfs::record::{Attribute, NonResident, Value};
use crate::ntfs::run::Run;
use crate::ntfs::volume::Volume;
use crate::ranges::RangeSet;

/// Compares two states of one stream.
pub struct Stream<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// Before; `None` if it is new.
    pub old: Option<&'a Attribute>,
    /// Now.
    pub new: &'a Attribute,
    /// Its bytes that were written where they lie.
    pub in_place: RangeSet,
}

impl Stream<'_> {
    /// Writes and truncations that lead from the old state to the new one. Of a stream that is new,
    /// the size is known by its `create`. Packed bytes that make no sense yet, because their record
    /// came first, go to `later`.
    pub fn changes(self, later: &mut RangeSet) -> Vec<Body> {
        let (mut wrote, mut zeroed) = (RangeSet::default(), RangeSet::default());
        let size = self.new.size();
        let mut before = self.old.map_or(size, Attribute::size);
        match (self.old.map(|o| &o.value), &self.new.value) {
            (Some(Value::Resident(a)), Value::Resident(b)) => wrote.insert(differing(a, b)),
            (_, Value::Resident(b)) => wrote.insert(0..b.len() as u64),
            (old, Value::NonResident(new)) => self.in_clusters(old, new, &mut wrote, &mut zeroed),
        }
        wrote.remove(size..u64::MAX);
        self.put_off(&mut wrote, later);
        zeroed.remove(size.min(before)..u64::MAX);
        wrote.iter().for_each(|r| zeroed.remove(r));
        let mut all: Vec<_> = wrote.iter().map(|r| (r, false)).chain(zeroed.iter().map(|r| (r, true))).collect();
        all.sort_by_key(|(r, _)| r.start);
        let mut bodies = Vec::new();
        for (r, zero) in all {
            before = before.max(r.end);
            bodies.push(Body::Write { offset: r.start, length: r.end - r.start, zero, data: None });
        }
        if before != size {
            bodies.push(Body::Truncate { old: before, new: size });
        }
        bodies
    }

    fn in_clusters(&self, old: Option<&Value>, new: &NonResident, wrote: &mut RangeSet, zeroed: &mut RangeSet) {
        let cluster = self.volume.cluster_size();
        let bytes = |r: Range<u64>| r.start.saturating_mul(cluster)..r.end.saturating_mul(cluster);
        let nothing = NonResident::default();
        let before = match old {
            Some(Value::NonResident(n)) => &**n,
            _ => &nothing,
        };
        let unit = new.unit.max(1);
        let rounded = |r: Range<u64>| r.start / unit * unit..r.end.div_ceil(unit).saturating_mul(unit);
        differences(&before.runs, &new.runs, |vcns| {
            // Of a compressed unit, any cluster concerns all bytes.
            let whole = rounded(vcns);
            stored(new, whole.clone(), |r| wrote.insert(bytes(r)));
            if before.runs.last().is_some_and(|r| r.end() > whole.start) {
                zeroed.insert(bytes(whole));
            }
        });
        for r in self.in_place.iter() {
            let whole = if unit == 1 { r } else { bytes(rounded(r.start / cluster..r.end.div_ceil(cluster))) };
            wrote.insert(whole);
        }
        // What was written earlier counts once it is valid, and no longer when it is not.
        stored(new, before.valid / cluster..new.valid.div_ceil(cluster), |r| {
            let r = bytes(r);
            wrote.insert(r.start.max(before.valid)..r.end);
        });
        if let Some(Value::Resident(b)) = old {
            self.unless_moved(b, wrote, zeroed);
        }
        wrote.remove(new.valid..u64::MAX);
        zeroed.insert(new.valid..before.valid);
    }

    fn put_off(&self, wrote: &mut RangeSet, later: &mut RangeSet) {
        let Some(n) = self.new.non_resident().filter(|n| n.unit > 0 && !self.new.encrypted) else { return };
        let unit = n.unit.saturating_mul(self.volume.cluster_size());
        let mut buf = vec![0; data::to_usize(unit)];
        for r in wrote.clone().iter() {
            for at in (r.start / unit..r.end.div_ceil(unit)).map(|u| u.saturating_mul(unit)) {
                if data::read(self.volume, &self.new.value, at, &mut buf).is_err() {
                    wrote.remove(at..at.saturating_add(unit));
                    later.insert(at..at.saturating_add(unit));
                }
            }
        }
    }

    /// The content left the record for clusters: only what is different there was written.
    fn unless_moved(&self, before: &[u8], wrote: &mut RangeSet, zeroed: &mut RangeSet) {
        let mut now = vec![0; before.len()];
        let read = data::read(self.volume, &self.new.value, 0, &mut now).unwrap_or(0);
        now.truncate(read);
        let same = before.iter().zip(&now).take_while(|(a, b)| a == b).count() as u64;
        zeroed.insert(same..before.len() as u64);
        if same == before.len() as u64 {
            wrote.remove(0..same);
        }
    }
}

/// The span in which `b` differs from `a`, with all that is longer.
fn differing(a: &[u8], b: &[u8]) -> Range<u64> {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let end = if b.len() > a.len() {
        b.len()
    } else {
        let differs = |n: &usize| a.get(*n) != b.get(*n);
        (start..b.len()).rev().find(differs).map_or(start, |last| last + 1)
    };
    start as u64..end as u64
}

/// Call `f` with those clusters of `range` (of the stream) that hold something: of a compressed
/// unit, all or none.
fn stored(n: &NonResident, range: Range<u64>, mut f: impl FnMut(Range<u64>)) {
    let unit = n.unit.max(1);
    let first = n.runs.partition_point(|r| r.end() <= range.start);
    for r in n.runs.iter().skip(first).take_while(|r| r.vcn < range.end).filter(|r| r.lcn.is_some()) {
        let (start, end) = (r.vcn.max(range.start), r.end().min(range.end));
        f(start / unit * unit..end.div_ceil(unit).saturating_mul(unit));
    }
}

/// Call `f` for each stretch of a stream that lies elsewhere than before.
fn differences(old: &[Run], new: &[Run], mut f: impl FnMut(Range<u64>)) {
    let place = |runs: &[Run], i: &mut usize, at: u64| -> (Option<u64>, u64) {
        while runs.get(*i).is_some_and(|r| r.end() <= at) {
            *i += 1;
        }
        match runs.get(*i) {
            None => (None, u64::MAX),
            Some(r) if r.vcn > at => (None, r.vcn),
            Some(r) => (r.lcn.map(|l| l + (at - r.vcn)), r.end()),
        }
    };
    let (mut i, mut j, mut at) = (0, 0, 0);
    loop {
        let (a, a_end) = place(old, &mut i, at);
        let (b, b_end) = place(new, &mut j, at);
        let end = a_end.min(b_end);
        if end == u64::MAX {
            return;
        }
        if a != b {
            f(at..end);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_differences_are_one_span() {
        assert_eq!(differing(b"abcdef", b"abXdef"), 2..3);
        assert_eq!(differing(b"abc", b"abcde"), 3..5);
        assert_eq!(differing(b"abcde", b"abc"), 3..3);
        assert_eq!(differing(b"", b""), 0..0);
        assert_eq!(differing(b"abcde", b"xbcd"), 0..1);
    }

    #[test]
    fn moved_and_sparse_stretches_differ() {
        let run = |vcn, lcn, len| Run { vcn, lcn, len };
        let all = |a: &[Run], b: &[Run]| {
            let mut found = Vec::new();
            differences(a, b, |r| found.push(r));
            found
        };
        let old = [run(0, Some(10), 4), run(4, None, 4)];
        assert_eq!(all(&old, &old), []);
        assert_eq!(all(&old, &[run(0, Some(10), 2), run(2, None, 4), run(6, Some(50), 1)]), [2..4, 6..7]);
        assert_eq!(all(&[], &[run(0, None, 9)]), []);
        assert_eq!(all(&old, &[]).first(), Some(&(0..4)));
    }
}
