//! From names that went and came to operations: renames, creations, deletions, links.
//!
//! Names are removed and added block by block of directories; which of them belong together, the
//! inodes tell. An inode number that now stands for another file is two files here: the earlier
//! one goes on under a number of its own, its ghost, until its names are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delta::{Delta, Named, Touched};
use super::state::State;
use crate::ext4::inode::Inode;
use crate::namespace::Link;
use crate::namespace::order::Op;
use crate::tree::Kind;
use crate::units::InodeNo;

/// A name and the file that it stands for, ghosts told apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    ino: InodeNo,
    link: Link,
}

/// Name changes that contradict the inodes so far: the rest of them has not reached the disk.
#[derive(Debug, Default)]
pub struct Held {
    removed: Vec<Entry>,
    added: Vec<Entry>,
}

/// More held changes than this are forgotten.
const MAX_HELD: usize = 65_536;

impl Held {
    /// How many changes wait.
    pub fn count(&self) -> usize {
        self.removed.len() + self.added.len()
    }

    /// Keep what could not be done now.
    pub fn keep(&mut self, op: Op) {
        match op {
            Op::Add { ino, to } => self.added.push(Entry { ino, link: to }),
            Op::Remove { ino, from, .. } => self.removed.push(Entry { ino, link: from }),
            Op::Move { ino, from, to } => {
                self.removed.push(Entry { ino, link: from });
                self.added.push(Entry { ino, link: to });
            }
        }
        if self.count() > MAX_HELD {
            tracing::warn!("more than {MAX_HELD} changes of names contradict the inodes: forgetting them");
            *self = Self::default();
        }
    }
}

/// The number of the earlier file, whose generation was `old`, of a reused inode number.
fn ghost(ino: u32, old: &Inode) -> InodeNo {
    InodeNo(u64::from(old.generation.max(1)) << 32 | u64::from(ino))
}

/// The inode number on disk of a file or ghost.
pub fn on_disk(ino: InodeNo) -> u32 {
    u32::try_from(ino.0 & u64::from(u32::MAX)).unwrap_or_default()
}

/// Whether this is the earlier file of a reused number.
pub fn is_ghost(ino: InodeNo) -> bool {
    ino.0 > u64::from(u32::MAX)
}

/// The operations that make of the names in `state` those that `delta` tells of.
pub fn operations(state: &mut State, delta: &mut Delta, held: &mut Held) -> Vec<Op> {
    let ghosts: BTreeMap<u32, InodeNo> = delta
        .inodes
        .iter()
        .filter_map(|(ino, t)| Some((*ino, ghost(*ino, t.old.as_ref().filter(|_| t.is_replaced())?))))
        .collect();
    ghosts.iter().for_each(|(ino, ghost)| state.names.renumber(InodeNo((*ino).into()), *ghost));
    let (removed, added) = changed_names(state, delta, held, &ghosts);
    let (removed, added) = (by_inode(removed), by_inode(added));
    let all: BTreeSet<InodeNo> = removed.keys().chain(added.keys()).copied().collect();
    let mut ops = Vec::new();
    for ino in all {
        let lost = removed.get(&ino).map_or(&[][..], Vec::as_slice);
        let gained = added.get(&ino).map_or(&[][..], Vec::as_slice);
        Pairing { state, held, ops: &mut ops, ino }.run(lost, gained);
    }
    ops
}

fn changed_names(
    state: &State,
    delta: &mut Delta,
    held: &mut Held,
    ghosts: &BTreeMap<u32, InodeNo>,
) -> (BTreeSet<Entry>, BTreeSet<Entry>) {
    let before = |n: u32| ghosts.get(&n).copied().unwrap_or(InodeNo(n.into()));
    let after = |n: u32| InodeNo(n.into());
    let entry =
        |n: Named, of: &dyn Fn(u32) -> InodeNo| Entry { ino: of(n.ino), link: Link { dir: of(n.dir), name: n.name } };
    let earlier = |i: InodeNo| if is_ghost(i) { i } else { before(on_disk(i)) };
    let as_before = |e: Entry| Entry { ino: earlier(e.ino), link: Link { dir: earlier(e.link.dir), ..e.link } };
    let mut removed: BTreeSet<Entry> = held.removed.drain(..).map(as_before).collect();
    removed.extend(delta.removed.drain(..).map(|n| entry(n, &before)));
    let mut added: BTreeSet<Entry> = held.added.drain(..).collect();
    added.extend(delta.added.drain(..).map(|n| entry(n, &after)));
    // The same name in another block of the directory is no news.
    let both: Vec<Entry> = removed.intersection(&added).cloned().collect();
    for e in &both {
        removed.remove(e);
        added.remove(e);
    }
    // A name that stays while its inode becomes another file changes its file.
    for (ino, ghost) in ghosts {
        for link in state.names.names(*ghost) {
            let stays = Entry { ino: *ghost, link: link.clone() };
            if removed.insert(stays) && !is_ghost(link.dir) {
                added.insert(Entry { ino: after(*ino), link: link.clone() });
            }
        }
    }
    // Only names that were shown can go.
    removed.retain(|e| state.names.lookup(e.link.dir, &e.link.name) == Some(e.ino));
    added.retain(|e| state.names.lookup(e.link.dir, &e.link.name) != Some(e.ino));
    (removed, added)
}

fn by_inode(entries: BTreeSet<Entry>) -> BTreeMap<InodeNo, Vec<Link>> {
    let mut all: BTreeMap<InodeNo, Vec<Link>> = BTreeMap::new();
    for e in entries {
        all.entry(e.ino).or_default().push(e.link);
    }
    all
}

/// Pairs the names of one file.
struct Pairing<'a> {
    state: &'a State,
    held: &'a mut Held,
    ops: &'a mut Vec<Op>,
    ino: InodeNo,
}

impl Pairing<'_> {
    fn run(mut self, lost: &[Link], gained: &[Link]) {
        let had = self.state.names.names(self.ino).len();
        let inode = self.state.inode(self.ino).cloned();
        let pairs = lost.len().min(gained.len());
        let (moved_from, lost) = lost.split_at_checked(pairs).unwrap_or_default();
        let (moved_to, gained) = gained.split_at_checked(pairs).unwrap_or_default();
        for (from, to) in moved_from.iter().zip(moved_to) {
            self.ops.push(Op::Move { ino: self.ino, from: from.clone(), to: to.clone() });
        }
        let mut go = lost;
        let all_go = lost.len() == had;
        if let Some((stays, others)) = lost.split_first()
            && all_go
            && inode.as_ref().is_some_and(|i| i.nlink > 0)
        {
            // The inode says that a name remains: it has not been seen yet.
            self.held.removed.push(Entry { ino: self.ino, link: stays.clone() });
            go = others;
        }
        for (from, left) in go.iter().zip((0..go.len()).rev()) {
            let last = all_go && go.len() == lost.len() && left == 0;
            self.ops.push(Op::Remove { ino: self.ino, from: from.clone(), last });
        }
        self.add(gained, had.saturating_sub(lost.len()), inode.as_ref());
    }

    /// Further names than the inode counts wait until others go; names without an inode wait for it.
    fn add(&mut self, gained: &[Link], have: usize, inode: Option<&Arc<Inode>>) {
        let most = match inode {
            None => 0,
            Some(i) if i.kind == Kind::Dir => 1,
            Some(i) => usize::from(i.nlink),
        };
        for (to, n) in gained.iter().zip(have..) {
            if n < most {
                self.ops.push(Op::Add { ino: self.ino, to: to.clone() });
            } else {
                self.held.added.push(Entry { ino: self.ino, link: to.clone() });
            }
        }
    }
}

/// What stood behind `ino` before: for events that tell of its end.
pub fn earlier<'a>(state: &'a State, delta: &'a Delta, ino: InodeNo) -> Option<&'a Arc<Inode>> {
    let old = delta.inodes.get(&on_disk(ino)).and_then(|t: &Touched| t.old.as_ref());
    old.or_else(|| state.inode(ino))
}
