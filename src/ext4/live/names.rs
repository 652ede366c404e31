//! From names that went and came to operations: renames, creations, deletions, links.
//!
//! Names are removed and added block by block of directories; which of them belong together, the
//! inodes tell. A file whose inode was freed, or now stands for another file, goes on under a number
//! of its own, its ghost, until its names are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::delta::Delta;
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

/// Names that contradict the inodes so far, because the rest of the change has not reached the
/// disk: looked at again with each change.
#[derive(Debug, Default)]
pub struct Held {
    links: BTreeSet<Link>,
    /// Files that are gone from the inode tables but not from the names.
    ghosts: HashMap<InodeNo, Arc<Inode>>,
}

/// More held names than this are forgotten.
const MAX_HELD: usize = 65_536;

impl Held {
    /// How many names wait.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Look again later at what could not be done now.
    pub fn keep(&mut self, op: Op) {
        match op {
            Op::Add { to: link, .. } | Op::Remove { from: link, .. } => self.hold(link),
            Op::Move { from, to, .. } => {
                self.hold(from);
                self.hold(to);
            }
        }
    }

    fn hold(&mut self, link: Link) {
        if self.links.len() >= MAX_HELD {
            tracing::warn!("more than {MAX_HELD} names contradict the inodes: forgetting them");
            self.links.clear();
        }
        self.links.insert(link);
    }

    /// What a ghost was.
    pub fn ghost(&self, ino: InodeNo) -> Option<&Arc<Inode>> {
        self.ghosts.get(&ino)
    }

    /// Files whose numbers were freed or reused by `delta` become ghosts.
    fn raise_ghosts(&mut self, state: &mut State, delta: &Delta) -> BTreeMap<InodeNo, InodeNo> {
        let mut new = BTreeMap::new();
        for (ino, t) in delta.inodes.iter().filter(|(_, t)| t.new.is_none() || t.is_replaced()) {
            let Some(old) = &t.old else { continue };
            let (number, ghost) = (InodeNo((*ino).into()), ghost(*ino, old));
            state.names.renumber(number, ghost);
            self.ghosts.insert(ghost, old.clone());
            new.insert(number, ghost);
        }
        let moved = |l: Link| Link { dir: new.get(&l.dir).copied().unwrap_or(l.dir), ..l };
        self.links = std::mem::take(&mut self.links).into_iter().map(moved).collect();
        new
    }

    /// Forget the ghosts that have neither names nor children any more.
    pub fn lay_ghosts(&mut self, state: &State) {
        self.ghosts.retain(|g, _| !state.names.names(*g).is_empty() || !state.names.is_empty(*g));
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
    let ghosts = held.raise_ghosts(state, delta);
    let (removed, added) = changed_names(state, delta, held, &ghosts);
    let (removed, added) = (by_inode(removed), by_inode(added));
    let all: BTreeSet<InodeNo> = removed.keys().chain(added.keys()).copied().collect();
    let mut ops = Vec::new();
    for ino in all {
        let lost = removed.get(&ino).map_or(&[][..], Vec::as_slice);
        let gained = added.get(&ino).map_or(&[][..], Vec::as_slice);
        let inode = state.inode(ino).filter(|_| !delta.unready.contains(&on_disk(ino))).cloned();
        Pairing { state, held, ops: &mut ops, ino, inode }.run(lost, gained);
    }
    ops
}

fn changed_names(
    state: &State,
    delta: &mut Delta,
    held: &mut Held,
    ghosts: &BTreeMap<InodeNo, InodeNo>,
) -> (BTreeSet<Entry>, BTreeSet<Entry>) {
    let number = |n: u32| InodeNo(n.into());
    let before = |n: u32| ghosts.get(&number(n)).copied().unwrap_or(number(n));
    // What a name stood for, the names themselves know best.
    let shown = |link: &Link| state.names.lookup(link.dir, &link.name);
    let (mut removed, mut added) = (BTreeSet::new(), BTreeSet::new());
    for n in delta.removed.drain(..) {
        let link = Link { dir: before(n.dir), name: n.name };
        removed.extend(shown(&link).filter(|i| on_disk(*i) == n.ino).map(|ino| Entry { ino, link }));
    }
    for n in delta.added.drain(..) {
        added.insert(Entry { ino: number(n.ino), link: Link { dir: number(n.dir), name: n.name } });
    }
    // The same name in another block of the directory is no news.
    let both: Vec<Entry> = removed.intersection(&added).cloned().collect();
    for e in &both {
        removed.remove(e);
        added.remove(e);
    }
    let of_ghosts = ghosts.values().flat_map(|g| state.names.names(*g)).cloned();
    let again: BTreeSet<Link> = std::mem::take(&mut held.links).into_iter().chain(of_ghosts).collect();
    for link in again {
        let (is, should) = (shown(&link), state.on_disk(&link));
        if is != should {
            removed.extend(is.map(|ino| Entry { ino, link: link.clone() }));
            added.extend(should.map(|ino| Entry { ino, link }));
        }
    }
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
    /// `None` while it is not in use, or not whole.
    inode: Option<Arc<Inode>>,
}

impl Pairing<'_> {
    fn run(mut self, lost: &[Link], gained: &[Link]) {
        let had = self.state.names.names(self.ino).len();
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
            && self.inode.as_ref().is_some_and(|i| i.nlink > 0)
        {
            // The inode says that a name remains: it has not been seen yet.
            self.held.hold(stays.clone());
            go = others;
        }
        for (from, left) in go.iter().zip((0..go.len()).rev()) {
            let last = all_go && go.len() == lost.len() && left == 0;
            self.ops.push(Op::Remove { ino: self.ino, from: from.clone(), last });
        }
        self.add(gained, had.saturating_sub(lost.len()));
    }

    /// Further names than the inode counts wait until others go; names without an inode wait for it.
    fn add(&mut self, gained: &[Link], have: usize) {
        let most = match &self.inode {
            None => 0,
            Some(i) if i.kind == Kind::Dir => 1,
            Some(i) => usize::from(i.nlink),
        };
        for (to, n) in gained.iter().zip(have..) {
            if n < most {
                self.ops.push(Op::Add { ino: self.ino, to: to.clone() });
            } else {
                self.held.hold(to.clone());
            }
        }
    }
}

/// What stood behind `ino` before: for events that tell of its end.
pub fn earlier<'a>(state: &'a State, delta: &'a Delta, held: &'a Held, ino: InodeNo) -> Option<&'a Arc<Inode>> {
    let old = delta.inodes.get(&on_disk(ino)).and_then(|t| t.old.as_ref());
    held.ghost(ino).or(old).or_else(|| state.inode(ino))
}
