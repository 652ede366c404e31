//! Which bytes of a file changed because other blocks now hold them.

use std::ops::Range;

use super::delta::Touched;
use crate::ext4::map::{Mapping, Run};
use crate::ranges::RangeSet;

/// All bytes of a file that lie in written blocks go to `wrote`.
pub fn all(map: &Mapping, bs: u64, told: &mut RangeSet, wrote: &mut RangeSet) {
    for r in map.runs.iter().filter(|r| !r.unwritten) {
        told.remove(r.physical.saturating_mul(bs)..(r.physical + r.len).saturating_mul(bs));
        wrote.insert(r.logical.saturating_mul(bs)..r.end().saturating_mul(bs));
    }
}

/// Compare the maps of `t`, block size `bs`. Bytes that now lie in other blocks than before, or in
/// blocks that have just become written, go to `wrote`, unless that was `told` before (as bytes of
/// the volume); bytes that had blocks and now read as zeros go to `zeroed`. A file that is `fresh`
/// had no content.
pub fn remapped(t: &Touched, bs: u64, told: &mut RangeSet, wrote: &mut RangeSet, zeroed: &mut RangeSet) {
    let none = Mapping::default();
    let old = if t.is_replaced() { &none } else { &*t.old_map };
    each_difference(&old.runs, &t.new_map.runs, |from, to, had, has| match (had, has) {
        (_, Some(physical)) => {
            let (file, disk) = (from.saturating_mul(bs), physical.saturating_mul(bs));
            let len = (to - from).saturating_mul(bs);
            let mut news = RangeSet::default();
            news.insert(disk..disk.saturating_add(len));
            told.overlap(disk..disk.saturating_add(len)).into_iter().for_each(|r| news.remove(r));
            told.remove(disk..disk.saturating_add(len));
            news.iter().for_each(|r| wrote.insert(file + (r.start - disk)..file + (r.end - disk)));
        }
        (Some(_), None) => zeroed.insert(from.saturating_mul(bs)..to.saturating_mul(bs)),
        (None, None) => {}
    });
}

/// Where `ranges` (bytes of a file mapped by `map`, block size `bs`) lie on the volume, as far as
/// their blocks are allocated but not yet marked as written.
pub fn on_unwritten(map: &Mapping, bs: u64, ranges: &RangeSet) -> Vec<Range<u64>> {
    let mut all = Vec::new();
    for r in ranges.iter() {
        let first = map.runs.partition_point(|run| run.end().saturating_mul(bs) <= r.start);
        let runs = map.runs.iter().skip(first).take_while(|run| run.logical.saturating_mul(bs) < r.end);
        for run in runs.filter(|run| run.unwritten) {
            let file = run.logical.saturating_mul(bs);
            let start = r.start.max(file) - file;
            let end = r.end.min(run.end().saturating_mul(bs)) - file;
            let disk = run.physical.saturating_mul(bs);
            all.push(disk.saturating_add(start)..disk.saturating_add(end));
        }
    }
    all
}

/// Walk both maps in step and call `differs(from, to, old, new)` for each stretch of file blocks
/// that is backed by other written blocks than before (`None`: by none).
fn each_difference(old: &[Run], new: &[Run], mut differs: impl FnMut(u64, u64, Option<u64>, Option<u64>)) {
    let (mut old, mut new) = (Walk::new(old), Walk::new(new));
    let mut at = 0;
    loop {
        let (had, a) = old.at(at);
        let (has, b) = new.at(at);
        let next = a.min(b);
        if had != has {
            differs(at, next.min(END), had, has);
        }
        if next >= END {
            return;
        }
        at = next;
    }
}

/// Behind the last block that a file can have.
const END: u64 = 1 << 33;

struct Walk<'a> {
    rest: std::iter::Peekable<std::slice::Iter<'a, Run>>,
}

impl<'a> Walk<'a> {
    fn new(runs: &'a [Run]) -> Self {
        Self { rest: runs.iter().peekable() }
    }

    /// The written block behind file block `at`, and the file block at which that changes.
    fn at(&mut self, at: u64) -> (Option<u64>, u64) {
        while self.rest.next_if(|r| r.end() <= at).is_some() {}
        match self.rest.peek() {
            None => (None, END),
            Some(r) if r.logical > at => (None, r.logical),
            Some(r) => ((!r.unwritten).then(|| r.physical + (at - r.logical)), r.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(logical: u64, physical: u64, len: u64, unwritten: bool) -> Run {
        Run { logical, physical, len, unwritten }
    }

    fn diff(old: &[Run], new: &[Run]) -> Vec<(u64, u64, bool)> {
        let mut all = Vec::new();
        each_difference(old, new, |from, to, _, has| all.push((from, to, has.is_some())));
        all
    }

    #[test]
    fn only_what_moved_or_became_written_differs() {
        let old = [run(0, 100, 4, false), run(4, 104, 4, true)];
        assert_eq!(diff(&old, &old), []);
        assert_eq!(diff(&old, &[run(0, 100, 6, false), run(6, 106, 2, true)]), [(4, 6, true)]);
        assert_eq!(diff(&old, &[run(0, 100, 2, false), run(4, 104, 4, true)]), [(2, 4, false)]);
        assert_eq!(diff(&old, &[run(0, 200, 2, false), run(2, 102, 2, false)]), [(0, 2, true)]);
        assert_eq!(diff(&[], &[run(7, 9, 1, false)]), [(7, 8, true)]);
        assert_eq!(diff(&[run(7, 9, 1, false)], &[]), [(7, 8, false)]);
    }
}
