//! Whose are the bytes that were written?

use std::collections::BTreeMap;

use super::delta::Delta;
use super::state::State;
use super::{Live, MAX_TAILS, MAX_WRITTEN};
use crate::event::Origin;
use crate::ranges::{RangeLog, RangeSet};
use crate::tree::Kind;

impl Live {
    /// Whose are the bytes written since the last time? Those that nobody owns are kept.
    pub(super) fn attribute(&mut self, state: &State, delta: &Delta) -> BTreeMap<u32, RangeSet> {
        let bs = self.block_size();
        let mut files: BTreeMap<u32, RangeLog> = BTreeMap::new();
        for r in self.fresh.take().iter() {
            let mut at = r.start;
            for o in state.owners.data_in(r.start / bs..r.end.div_ceil(bs)) {
                let start = (o.physical * bs).max(r.start);
                let end = ((o.physical + o.len) * bs).min(r.end);
                self.unowned.insert(at..start);
                self.unowned.remove(start..end);
                at = end;
                let shift = |b: u64| (b - o.physical * bs).saturating_add(o.logical.saturating_mul(bs));
                files.entry(o.ino).or_default().insert(shift(start)..shift(end));
            }
            self.unowned.insert(at..r.end);
        }
        let mut files = files.into_iter().map(|(ino, mut log)| (ino, log.take())).collect();
        self.fresh_since = None;
        self.match_tails(state, delta, &mut files);
        if self.unowned.len() > MAX_WRITTEN {
            tracing::warn!("more than {MAX_WRITTEN} ranges of unowned writes: forgetting them");
            self.unowned = RangeSet::default();
        }
        files
    }

    /// What was written to the last block behind a file's end counts once the file has grown: the
    /// data may reach the disk transactions before the size does.
    fn match_tails(&mut self, state: &State, delta: &Delta, files: &mut BTreeMap<u32, RangeSet>) {
        let bs = self.block_size();
        for (ino, t) in &delta.inodes {
            let tail = self.tails.remove(ino).unwrap_or_default();
            // Another file with the same number has no part in it; what lies in unwritten blocks is
            // told when they become written.
            let same = t.new.is_some() && !t.is_replaced();
            for r in tail.iter().filter(|r| same && t.new_map.is_written(r.start / bs)) {
                files.entry(*ino).or_default().insert(r);
            }
        }
        if self.tails.len() > MAX_TAILS {
            self.tails.clear();
        }
        // A block that is new to a file was written to its end, whatever the file's size.
        let remapped = delta.inodes.iter().filter(|(_, t)| t.old_map != t.new_map);
        for (ino, inode) in remapped.filter_map(|(i, t)| Some((i, t.new.as_ref()?))) {
            let written = state.mapping(*ino, inode).is_written(inode.size / bs);
            if inode.kind == Kind::File && inode.size % bs != 0 && written {
                self.tails.entry(*ino).or_default().insert(inode.size..inode.size.next_multiple_of(bs));
            }
        }
        for (ino, ranges) in files.iter() {
            let Some(inode) = state.inodes.get(ino).filter(|i| i.kind == Kind::File) else { continue };
            let behind = ranges.overlap(inode.size..inode.size.next_multiple_of(bs));
            if !behind.is_empty() {
                let tail = self.tails.entry(*ino).or_default();
                behind.into_iter().for_each(|r| tail.insert(r));
            }
        }
    }

    /// Blocks that a file gives up: what was written there was its own. Without a journal the next
    /// owner may have written already, before the news that it is the owner. Blocks that a file
    /// takes are no longer unowned.
    pub(super) fn forget_freed(&mut self, state: &State, delta: &Delta, origin: Origin) {
        let bs = self.block_size();
        let bytes = |start: u64, len: u64| start.saturating_mul(bs)..(start + len).saturating_mul(bs);
        for (ino, t) in delta.inodes.iter().filter(|(_, t)| t.old_map != t.new_map) {
            for r in &t.old_map.runs {
                let mut freed = RangeSet::default();
                freed.insert(bytes(r.physical, r.len));
                let kept = state.owners.data_in(r.physical..r.physical + r.len).filter(|o| o.ino == *ino);
                kept.for_each(|o| freed.remove(bytes(o.physical, o.len)));
                for f in freed.iter() {
                    self.told.remove(f.clone());
                    if origin == Origin::Journal {
                        self.unowned.remove(f);
                    }
                }
            }
            t.new_map.runs.iter().for_each(|r| self.unowned.remove(bytes(r.physical, r.len)));
        }
    }
}
