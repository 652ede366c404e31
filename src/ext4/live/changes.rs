//! From changed names and inodes to events, in the order that the README documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delta::{Delta, Named, Touched};
use super::state::State;
use crate::event::{Body, Created, Event, Origin, Value};
use crate::ext4::blocks::Blocks;
use crate::ext4::inode::Inode;
use crate::name::GuestPath;
use crate::namespace::order::{Op, Plan, Step, What};
use crate::namespace::{Link, Namespace};
use crate::ranges::RangeSet;
use crate::tree::{Kind, Xattr};
use crate::units::{InodeNo, Timestamp};

/// Where a group of changes comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cause {
    /// Commit time, or when the last write completed.
    pub time: Timestamp,
    /// Journal transaction.
    pub txn: Option<u64>,
    /// How it came to be known.
    pub origin: Origin,
}

impl Cause {
    /// An event that came this way; `seq`, `vm` and `volume` are the engine's.
    pub fn event(&self, body: Body) -> Event {
        Event {
            seq: 0,
            time: self.time,
            vm: "".into(),
            volume: None,
            path: None,
            inode: None,
            kind: None,
            txn: self.txn,
            origin: self.origin,
            body,
            parent: None,
        }
    }
}

/// Name changes that contradict the inodes so far: the rest of them has not reached the disk.
#[derive(Debug, Default)]
pub struct Held {
    removed: Vec<Named>,
    added: Vec<Named>,
}

impl Held {
    /// How many changes wait.
    pub fn count(&self) -> usize {
        self.removed.len() + self.added.len()
    }
}

/// Makes the events of one group of changes.
pub struct Changes<'a> {
    /// Up to date but for the names.
    pub state: &'a mut State,
    /// The volume as it stands after the changes.
    pub blocks: &'a dyn Blocks,
    /// What differs.
    pub delta: Delta,
    /// Bytes of files that were written in place, by inode.
    pub in_place: BTreeMap<u32, RangeSet>,
    /// Bytes of the volume whose writing was told while their blocks were not marked as written.
    pub told: &'a mut RangeSet,
    /// What waits from before, and what will.
    pub held: &'a mut Held,
    /// Where it comes from.
    pub cause: Cause,
}

impl Changes<'_> {
    /// All events, in order.
    pub fn run(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let ops = self.ops();
        let mut plan = Plan::new(ops);
        let mut created = BTreeSet::new();
        let mut names = std::mem::replace(&mut self.state.names, Namespace::new(super::ROOT));
        plan.run_first(&mut names, &mut |step| {
            if step.what == What::Create {
                created.insert(step.ino);
            }
            events.push(self.name_event(step));
        });
        self.state.names = names;
        self.content_events(&created, &mut events);
        let mut names = std::mem::replace(&mut self.state.names, Namespace::new(super::ROOT));
        let left = plan.run_last(&mut names, &mut |step| events.push(self.name_event(step)));
        self.state.names = names;
        left.into_iter().for_each(|op| self.hold(op));
        events
    }

    /// Pair the names that went with those that came: renames, creations, deletions, links.
    fn ops(&mut self) -> Vec<Op> {
        let (removed, added) = self.names_by_inode();
        let all: BTreeSet<u32> = removed.keys().chain(added.keys()).copied().collect();
        let mut ops = Vec::new();
        for ino in all {
            let lost = removed.get(&ino).map_or(&[][..], Vec::as_slice);
            let gained = added.get(&ino).map_or(&[][..], Vec::as_slice);
            self.ops_of(ino, lost, gained, &mut ops);
        }
        ops
    }

    fn names_by_inode(&mut self) -> (BTreeMap<u32, Vec<Link>>, BTreeMap<u32, Vec<Link>>) {
        let mut removed: BTreeSet<Named> = self.held.removed.drain(..).chain(self.delta.removed.drain(..)).collect();
        let mut added: BTreeSet<Named> = self.held.added.drain(..).chain(self.delta.added.drain(..)).collect();
        // The same name in another block of the directory is no news.
        let both: Vec<Named> = removed.intersection(&added).cloned().collect();
        for n in &both {
            removed.remove(n);
            added.remove(n);
        }
        // A name that stays while its inode becomes another file changes its file.
        for (ino, _) in self.delta.inodes.iter().filter(|(_, t)| t.is_replaced()) {
            for link in self.state.names.names(InodeNo((*ino).into())) {
                let named = Named { dir: u32::try_from(link.dir.0).unwrap_or(0), name: link.name.clone(), ino: *ino };
                if removed.insert(named.clone()) {
                    added.insert(named);
                }
            }
        }
        // Only names that were shown can go.
        removed.retain(|n| self.state.names.lookup(InodeNo(n.dir.into()), &n.name) == Some(InodeNo(n.ino.into())));
        (by_inode(removed), by_inode(added))
    }

    fn ops_of(&mut self, ino: u32, lost: &[Link], gained: &[Link], ops: &mut Vec<Op>) {
        let number = InodeNo(ino.into());
        let had = self.state.names.names(number).len();
        let inode = self.state.inodes.get(&ino).cloned();
        if self.delta.inodes.get(&ino).is_some_and(Touched::is_replaced) {
            remove_all(number, lost, true, ops);
            self.add_all(number, gained, true, inode.as_ref(), 0, ops);
            return;
        }
        let pairs = lost.len().min(gained.len());
        let (moved_from, lost) = lost.split_at_checked(pairs).unwrap_or_default();
        let (moved_to, gained) = gained.split_at_checked(pairs).unwrap_or_default();
        for (from, to) in moved_from.iter().zip(moved_to) {
            ops.push(Op::Move { ino: number, from: from.clone(), to: to.clone() });
        }
        if lost.len() == had && had > 0 && inode.as_ref().is_some_and(|i| i.nlink > 0) {
            // The inode says that a name remains: it has not been seen yet.
            let (stays, go) = lost.split_first().map_or((None, lost), |(f, r)| (Some(f), r));
            self.held.removed.extend(stays.map(|l| named(l, ino)));
            remove_all(number, go, false, ops);
            return;
        }
        remove_all(number, lost, lost.len() == had, ops);
        self.add_all(number, gained, had == 0, inode.as_ref(), had - lost.len(), ops);
    }

    /// Further names than the inode counts wait until others go; names without an inode wait for it.
    fn add_all(
        &mut self,
        ino: InodeNo,
        gained: &[Link],
        fresh: bool,
        inode: Option<&Arc<Inode>>,
        have: usize,
        ops: &mut Vec<Op>,
    ) {
        let most = match inode {
            None => 0,
            Some(i) if i.kind == Kind::Dir => 1,
            Some(i) => usize::from(i.nlink),
        };
        for (to, n) in gained.iter().zip(have..) {
            if n < most {
                ops.push(Op::Add { ino, to: to.clone(), create: fresh && n == 0 });
            } else {
                self.held.added.push(named(to, u32::try_from(ino.0).unwrap_or(0)));
            }
        }
    }

    fn hold(&mut self, op: Op) {
        let number = |i: InodeNo| u32::try_from(i.0).unwrap_or(0);
        match op {
            Op::Add { ino, to, .. } => self.held.added.push(named(&to, number(ino))),
            Op::Remove { ino, from, .. } => self.held.removed.push(named(&from, number(ino))),
            Op::Move { ino, from, to } => {
                self.held.removed.push(named(&from, number(ino)));
                self.held.added.push(named(&to, number(ino)));
            }
        }
    }

    fn name_event(&self, step: Step) -> Event {
        let ino = u32::try_from(step.ino.0).unwrap_or(0);
        let touched = self.delta.inodes.get(&ino);
        let current = self.state.inodes.get(&ino);
        let gone = matches!(step.what, What::Delete | What::Unlink);
        let inode = if gone { touched.and_then(|t| t.old.as_ref()).or(current) } else { current };
        let kind = inode.map(|i| i.kind);
        let body = match step.what {
            What::Create => Body::Create(self.created(ino)),
            What::Link => Body::Link,
            What::Unlink => Body::Unlink,
            What::Delete => Body::Delete,
            What::Rename { from, from_dir, exchange } => Body::Rename { from, from_parent: from_dir, exchange },
        };
        Event { path: Some(step.path), inode: Some(step.ino), kind, parent: Some(step.dir), ..self.cause.event(body) }
    }

    fn created(&self, ino: u32) -> Created {
        let Some(inode) = self.state.inodes.get(&ino) else { return Created::default() };
        let number = InodeNo(ino.into());
        let target = (inode.kind == Kind::Symlink)
            .then(|| self.state.geometry.link_target(self.blocks, number, inode).ok())
            .flatten();
        Created {
            mode: Some(inode.mode),
            size: inode.size,
            nlink: inode.nlink.into(),
            uid: Some(inode.uid),
            gid: Some(inode.gid),
            mtime: inode.mtime,
            atime: inode.atime,
            ctime: inode.ctime,
            crtime: inode.crtime,
            rdev: inode.rdev(),
            target,
            xattrs: self.state.xattrs(self.blocks, ino, inode),
        }
    }

    /// Writes, truncations and attributes, by rising inode number.
    fn content_events(&mut self, created: &BTreeSet<InodeNo>, events: &mut Vec<Event>) {
        let all: BTreeSet<u32> = self.delta.inodes.keys().chain(self.in_place.keys()).copied().collect();
        for ino in all {
            let number = InodeNo(ino.into());
            let Some(inode) = self.state.inodes.get(&ino).cloned() else { continue };
            let Some(path) = self.state.names.path_of(number) else { continue };
            let mut bodies = Vec::new();
            let fresh = created.contains(&number);
            if inode.kind == Kind::File {
                self.content(ino, &inode, fresh, &mut bodies);
            }
            let touched = self.delta.inodes.get(&ino);
            if let Some(Touched { old: Some(old), old_xattrs, new_xattrs, .. }) = touched
                && !fresh
            {
                metadata(old, &inode, &mut bodies);
                xattr_changes(old_xattrs, new_xattrs, &mut bodies);
            }
            events.extend(bodies.into_iter().map(|b| self.file_event(number, &inode, &path, b)));
        }
    }

    fn file_event(&self, ino: InodeNo, inode: &Inode, path: &GuestPath, body: Body) -> Event {
        let parent = self.state.names.names(ino).first().map(|l| l.dir);
        Event { path: Some(path.clone()), inode: Some(ino), kind: Some(inode.kind), parent, ..self.cause.event(body) }
    }

    fn content(&mut self, ino: u32, inode: &Inode, fresh: bool, bodies: &mut Vec<Body>) {
        let touched = self.delta.inodes.get(&ino);
        let bs = self.blocks.block_size().into();
        let mut wrote = self.in_place.get(&ino).cloned().unwrap_or_default();
        let mut zeroed = RangeSet::default();
        let mut before = if fresh { inode.size } else { touched.map_or(inode.size, |t| t.size_before(inode)) };
        if let Some(t) = touched {
            super::content::remapped(t, fresh, bs, self.told, &mut wrote, &mut zeroed);
        }
        wrote.remove(inode.size..u64::MAX);
        // The kernel marks new blocks as written in a later transaction than the one that allots
        // them; what was written is told once.
        let map = self.state.mapping(ino, inode);
        super::content::on_unwritten(&map, bs, &wrote).into_iter().for_each(|r| self.told.insert(r));
        zeroed.remove(inode.size.min(before)..u64::MAX);
        wrote.iter().for_each(|r| zeroed.remove(r));
        let mut all: Vec<_> = wrote.iter().map(|r| (r, false)).chain(zeroed.iter().map(|r| (r, true))).collect();
        all.sort_by_key(|(r, _)| r.start);
        for (r, zero) in all {
            before = before.max(r.end);
            bodies.push(Body::Write { offset: r.start, length: r.end - r.start, zero, data: None });
        }
        if before != inode.size {
            bodies.push(Body::Truncate { old: before, new: inode.size });
        }
    }
}

impl Touched {
    /// Size that a replay of earlier events has given to the file.
    fn size_before(&self, now: &Inode) -> u64 {
        self.old.as_ref().map_or(now.size, |o| o.size)
    }
}

fn by_inode(names: BTreeSet<Named>) -> BTreeMap<u32, Vec<Link>> {
    let mut all: BTreeMap<u32, Vec<Link>> = BTreeMap::new();
    for n in names {
        all.entry(n.ino).or_default().push(Link { dir: InodeNo(n.dir.into()), name: n.name });
    }
    all
}

fn named(link: &Link, ino: u32) -> Named {
    Named { dir: u32::try_from(link.dir.0).unwrap_or(0), name: link.name.clone(), ino }
}

fn remove_all(ino: InodeNo, lost: &[Link], all_go: bool, ops: &mut Vec<Op>) {
    for (from, left) in lost.iter().zip((0..lost.len()).rev()) {
        ops.push(Op::Remove { ino, from: from.clone(), delete: all_go && left == 0 });
    }
}

fn metadata(old: &Inode, new: &Inode, bodies: &mut Vec<Body>) {
    let mut say = |field: &str, old: Option<Value>, new: Option<Value>| {
        if old != new {
            bodies.push(Body::Metadata { field: field.to_owned(), old, new });
        }
    };
    let int = |v: u64| Some(Value::Int(v));
    let time = |t: Timestamp| Some(Value::Time(t));
    say("mode", int(old.mode.into()), int(new.mode.into()));
    say("uid", int(old.uid.into()), int(new.uid.into()));
    say("gid", int(old.gid.into()), int(new.gid.into()));
    say("nlink", int(old.nlink.into()), int(new.nlink.into()));
    say("flags", int(old.flags.into()), int(new.flags.into()));
    if new.kind != Kind::File {
        say("size", int(old.size), int(new.size));
    }
    say("mtime", time(old.mtime), time(new.mtime));
    say("atime", time(old.atime), time(new.atime));
    say("ctime", time(old.ctime), time(new.ctime));
}

fn xattr_changes(old: &[Xattr], new: &[Xattr], bodies: &mut Vec<Body>) {
    let old: BTreeMap<_, _> = old.iter().map(|(n, v)| (n, v)).collect();
    let new: BTreeMap<_, _> = new.iter().map(|(n, v)| (n, v)).collect();
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(*name), new.get(*name));
        if was != is {
            let field = format!("xattr:{}", crate::name::lossy(name));
            let value = |v: Option<&&Vec<u8>>| v.map(|v| Value::Bytes(v.to_vec()));
            bodies.push(Body::Metadata { field, old: value(was), new: value(is) });
        }
    }
}
