//! The role map: whose are the blocks of the volume.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use crate::ext4::map::{Mapping, Run};
use crate::ext4::xattr;
use crate::ranges::RangeSet;
use crate::units::BlockNo;

/// A piece of a file's content (or of a directory).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owned {
    /// First block on the volume.
    pub physical: u64,
    /// Number of blocks.
    pub len: u64,
    /// The file.
    pub ino: u32,
    /// First block within the file.
    pub logical: u64,
}

/// An attribute block and who uses it.
#[derive(Debug, Default)]
pub struct XattrBlock {
    /// Inodes that refer to it.
    pub users: BTreeSet<u32>,
    /// Its entries as last parsed.
    pub entries: Vec<xattr::Entry>,
}

/// Whose are the blocks, inode tables and journal left out (those follow from the geometry).
#[derive(Debug, Default)]
pub struct Owners {
    /// First block → length, inode, first block within the file.
    data: BTreeMap<u64, (u64, u32, u64)>,
    /// Extent nodes and indirect blocks → inode.
    pub nodes: BTreeMap<u64, u32>,
    /// Attribute blocks.
    pub xattrs: BTreeMap<u64, XattrBlock>,
    /// Inodes whose blocks another inode claimed as well. Without a journal that happens: the inode
    /// that gave a block up may reach the disk after the one that took it.
    disputed: BTreeSet<u32>,
}

impl Owners {
    /// The piece of content that holds `block`, cut to start there.
    pub fn data_at(&self, block: u64) -> Option<Owned> {
        let (&physical, &(len, ino, logical)) = self.data.range(..=block).next_back()?;
        let skip = block - physical;
        (skip < len).then(|| Owned { physical: block, len: len - skip, ino, logical: logical + skip })
    }

    /// All pieces of content that meet `blocks`, cut to it.
    pub fn data_in(&self, blocks: Range<u64>) -> impl Iterator<Item = Owned> + '_ {
        let before = self.data.range(..=blocks.start).next_back();
        let first = before.filter(|(s, (len, ..))| *s + len > blocks.start).map_or(blocks.start, |(s, _)| *s);
        let inside = if blocks.is_empty() { blocks.start..blocks.start } else { first..blocks.end };
        self.data.range(inside).filter_map(move |(&physical, &(len, ino, logical))| {
            let start = physical.max(blocks.start);
            let end = (physical + len).min(blocks.end);
            let logical = logical + (start - physical);
            (start < end).then(|| Owned { physical: start, len: end - start, ino, logical })
        })
    }

    /// Give the blocks of `run` to `ino`. What another file held of them, it loses: blocks claimed
    /// twice are damage, and the later claim is the newer one.
    pub fn give(&mut self, ino: u32, run: &Run) {
        let range = run.physical..run.physical + run.len;
        let clashes: Vec<Owned> = self.data_in(range.clone()).collect();
        for c in clashes {
            self.disputed.extend([c.ino, ino].into_iter().filter(|_| c.ino != ino));
            self.take_range(c.physical..c.physical + c.len, None);
        }
        self.data.insert(run.physical, (run.len, ino, run.logical));
    }

    /// Take the blocks of `run` from `ino`, as far as it still holds them.
    pub fn take(&mut self, ino: u32, run: &Run) {
        self.take_range(run.physical..run.physical + run.len, Some(ino));
    }

    fn take_range(&mut self, range: Range<u64>, of: Option<u32>) {
        let pieces: Vec<Owned> = self.data_in(range).filter(|o| of.is_none_or(|i| i == o.ino)).collect();
        for p in pieces {
            let Some((&start, &(len, ino, logical))) = self.data.range(..=p.physical).next_back() else { continue };
            self.data.remove(&start);
            if start < p.physical {
                self.data.insert(start, (p.physical - start, ino, logical));
            }
            let end = p.physical + p.len;
            if end < start + len {
                self.data.insert(end, (start + len - end, ino, logical + (end - start)));
            }
        }
    }

    /// Replace what `ino` holds by `old` with what it holds by `new`.
    pub fn remap(&mut self, ino: u32, old: &Mapping, new: &Mapping) {
        let gone = old.runs.iter().filter(|r| !holds(&new.runs, r));
        gone.for_each(|r| self.take(ino, r));
        for node in without(&old.nodes, &new.nodes) {
            if self.nodes.get(&node.0) == Some(&ino) {
                self.nodes.remove(&node.0);
            }
        }
    }

    /// The second half of [`Owners::remap`]: after all files of a transaction have let go.
    pub fn remap_new(&mut self, ino: u32, old: &Mapping, new: &Mapping) {
        let come = new.runs.iter().filter(|r| !holds(&old.runs, r));
        come.for_each(|r| self.give(ino, r));
        for node in without(&new.nodes, &old.nodes) {
            if let Some(other) = self.nodes.insert(node.0, ino).filter(|o| *o != ino) {
                self.disputed.extend([other, ino]);
            }
        }
    }

    /// The inodes whose blocks are disputed; the caller regains them one by one.
    pub fn take_disputed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.disputed)
    }

    /// Give to `ino`, mapped by `map`, those of its blocks that nobody holds any more. Returns the
    /// blocks of content that it regained and whether there were nodes among them. While others
    /// hold any, the dispute goes on.
    pub fn regain(&mut self, ino: u32, map: &Mapping) -> (Vec<Range<u64>>, bool) {
        let (mut content, mut nodes) = (Vec::new(), false);
        for run in &map.runs {
            let mut free = RangeSet::default();
            free.insert(run.physical..run.physical + run.len);
            for o in self.data_in(run.physical..run.physical + run.len).collect::<Vec<_>>() {
                free.remove(o.physical..o.physical + o.len);
                self.disputed.extend((o.ino != ino).then_some(ino));
            }
            for r in free.iter() {
                let logical = run.logical + (r.start - run.physical);
                self.data.insert(r.start, (r.end - r.start, ino, logical));
                content.push(r);
            }
        }
        for node in &map.nodes {
            let holder = *self.nodes.entry(node.0).or_insert_with(|| {
                nodes = true;
                ino
            });
            self.disputed.extend((holder != ino).then_some(ino));
        }
        (content, nodes)
    }
}

/// The blocks of `all` that are not among `others`.
fn without(all: &[BlockNo], others: &[BlockNo]) -> Vec<BlockNo> {
    if all == others {
        return Vec::new();
    }
    let others: HashSet<&BlockNo> = others.iter().collect();
    all.iter().filter(|b| !others.contains(b)).copied().collect()
}

/// Whether `runs`, rising, hold exactly `run` (written or not does not matter here).
fn holds(runs: &[Run], run: &Run) -> bool {
    let i = runs.partition_point(|r| r.logical < run.logical);
    runs.get(i).is_some_and(|r| (r.logical, r.physical, r.len) == (run.logical, run.physical, run.len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(logical: u64, physical: u64, len: u64) -> Run {
        Run { logical, physical, len, unwritten: false }
    }

    #[test]
    fn a_block_claimed_by_two_returns_when_one_lets_go() {
        let mut o = Owners::default();
        let of = |runs: &[Run], node: u64| Mapping { runs: runs.to_vec(), nodes: vec![BlockNo(node)] };
        let (none, new, stale) = (Mapping::default(), of(&[run(0, 100, 4)], 50), of(&[run(7, 102, 2)], 50));
        o.remap_new(1, &none, &new);
        o.remap_new(2, &none, &stale);
        assert_eq!((o.data_at(102).map(|p| p.ino), o.nodes[&50]), (Some(2), 2));
        assert_eq!(o.take_disputed(), BTreeSet::from([1, 2]));
        assert_eq!(o.regain(1, &new), (vec![], false));
        assert_eq!(o.take_disputed(), BTreeSet::from([1]));
        o.remap(2, &stale, &none);
        let (content, nodes) = o.regain(1, &new);
        assert!(content.first() == Some(&(102..104)) && content.len() == 1 && nodes);
        assert_eq!((o.data_at(103).map(|p| p.logical), o.nodes[&50]), (Some(3), 1));
        assert!(o.take_disputed().is_empty());
    }

    #[test]
    fn pieces_are_cut_and_the_later_claim_wins() {
        let mut o = Owners::default();
        o.give(1, &run(0, 100, 10));
        o.give(2, &run(50, 104, 2));
        let all: Vec<_> = o.data_in(0..1000).map(|p| (p.physical, p.len, p.ino, p.logical)).collect();
        assert_eq!(all, [(100, 4, 1, 0), (104, 2, 2, 50), (106, 4, 1, 6)]);
        o.take(1, &run(0, 100, 10));
        assert_eq!(o.data_in(0..1000).count(), 1);
        assert_eq!(o.data_at(105).map(|p| (p.ino, p.logical)), Some((2, 51)));
        assert_eq!(o.data_at(106), None);
        assert_eq!(o.data_in(105..106).next().map(|p| p.logical), Some(51));
        assert_eq!(o.data_in(5..5).count(), 0);
    }
}
