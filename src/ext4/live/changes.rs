//! From changed names and inodes to events, in the order that the README documents.

use std::collections::{BTreeMap, BTreeSet};

use super::delta::{Delta, Touched};
use super::names::{self, Held};
use super::state::State;
use crate::event::{Body, Created, Event, Origin, Value};
use crate::ext4::blocks::Blocks;
use crate::ext4::inode::Inode;
use crate::name::GuestPath;
use crate::namespace::Namespace;
use crate::namespace::order::{Plan, Step, What};
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
        Event { txn: self.txn, ..Event::new(self.time, self.origin, body) }
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
        let ops = names::operations(self.state, &mut self.delta, self.held);
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
        left.into_iter().for_each(|op| self.held.keep(op));
        self.held.lay_ghosts(self.state);
        events
    }

    fn name_event(&self, step: Step) -> Event {
        let number = |i: InodeNo| InodeNo(names::on_disk(i).into());
        let ino = names::on_disk(step.ino);
        let gone = names::is_ghost(step.ino) || matches!(step.what, What::Delete | What::Unlink);
        let before = names::earlier(self.state, &self.delta, self.held, step.ino).filter(|_| gone);
        let kind = before.or_else(|| self.state.inodes.get(&ino)).map(|i| i.kind);
        let body = match step.what {
            What::Create => Body::Create(self.created(ino)),
            What::Link => Body::Link,
            What::Unlink => Body::Unlink,
            What::Delete => Body::Delete,
            What::Rename { from, from_dir, exchange } => Body::Rename { from, from_parent: number(from_dir), exchange },
        };
        Event {
            path: Some(step.path),
            inode: Some(number(step.ino)),
            kind,
            parent: Some(number(step.dir)),
            ..self.cause.event(body)
        }
    }

    fn created(&self, ino: u32) -> Created {
        let Some(inode) = self.state.inodes.get(&ino) else { return Created::default() };
        let number = InodeNo(ino.into());
        let target = (inode.kind == Kind::Symlink)
            .then(|| self.state.geometry.link_target(self.blocks, number, inode).ok())
            .flatten();
        Created { target, xattrs: self.state.xattrs(self.blocks, ino, inode), ..Created::of(&inode.attr(number)) }
    }

    /// Writes, truncations and attributes, by rising inode number.
    fn content_events(&mut self, created: &BTreeSet<InodeNo>, events: &mut Vec<Event>) {
        let mut all: BTreeSet<u32> = self.delta.inodes.keys().chain(self.in_place.keys()).copied().collect();
        all.extend(created.iter().map(|i| names::on_disk(*i)));
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
        let map = self.state.mapping(ino, inode);
        if fresh {
            // Its inode may have been known before its name was: all of its content is news.
            super::content::all(&map, bs, self.told, &mut wrote);
        } else if let Some(t) = touched {
            super::content::remapped(t, bs, self.told, &mut wrote, &mut zeroed);
        }
        wrote.remove(inode.size..u64::MAX);
        self.leave_to_truncate(ino, inode, before, &mut wrote);
        // The kernel marks new blocks as written in a later transaction than the one that allots
        // them; what was written is told once.
        super::content::on_unwritten(&map, bs, &wrote).into_iter().for_each(|r| self.told.insert(r));
        zeroed.remove(inode.size.min(before)..u64::MAX);
        wrote.iter().for_each(|r| zeroed.remove(r));
        let mut all: Vec<_> = wrote.iter().map(|r| (r, false)).chain(zeroed.iter().map(|r| (r, true))).collect();
        all.sort_by_key(|(r, _)| r.start);
        for (r, zero) in all {
            before = before.max(r.end);
            bodies.push(Body::Write { offset: r.start, length: r.end - r.start, zero, data: None });
        }
        let known = touched.filter(|_| !fresh).map_or(inode.size, |t| t.size_before(inode));
        if known != inode.size && before == inode.size {
            bodies.push(Body::Aside { field: "file.size", old: known, new: inode.size });
        }
        if before != inode.size {
            bodies.push(Body::Truncate { old: before, new: inode.size });
        }
    }
}

impl Changes<'_> {
    /// A file grew from `before` bytes. When a kernel extends a file without writing, it clears the
    /// rest of the last block on disk: zeros there are no write of the guest's, unless the file was
    /// written on from there.
    fn leave_to_truncate(&self, ino: u32, inode: &Inode, before: u64, wrote: &mut RangeSet) {
        let bs = u64::from(self.blocks.block_size());
        let end = before.next_multiple_of(bs).min(inode.size);
        let written_on = inode.size > end && wrote.contains(&(before..inode.size));
        if written_on || wrote.overlap(before..end).is_empty() {
            return;
        }
        let mut tail = vec![0; usize::try_from(end - before).unwrap_or(0)];
        let map = self.state.mapping(ino, inode);
        let read = crate::ext4::reader::read_mapped(self.blocks, &map, inode.size, before, &mut tail);
        if read.is_ok() && tail.iter().all(|b| *b == 0) {
            wrote.remove(before..end);
        }
    }
}

impl Touched {
    /// Size that a replay of earlier events has given to the file.
    fn size_before(&self, now: &Inode) -> u64 {
        self.old.as_ref().map_or(now.size, |o| o.size)
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
