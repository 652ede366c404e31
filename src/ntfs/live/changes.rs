//! From changed files to events, in the order that the README documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::collect::Touched;
use super::content::Stream;
use super::owners::StreamName;
use super::state::{State, key};
use crate::event::{Body, Created, Event, Origin, Value};
use crate::name::GuestPath;
use crate::namespace::order::{Op, Plan, Step, What};
use crate::namespace::{Link, Namespace};
use crate::ntfs::node::Node;
use crate::ntfs::reader;
use crate::ntfs::record::{Attribute, FileRef, kind};
use crate::ntfs::volume::{Volume, fixed};
use crate::ranges::RangeSet;
use crate::tree::{self, Kind};
use crate::units::{InodeNo, Timestamp};

/// Bytes of streams that were written where they lie, by record.
pub type InPlace = BTreeMap<u64, BTreeMap<StreamName, RangeSet>>;

/// Makes the events of one group of changes.
pub struct Changes<'a> {
    /// Up to date but for the names.
    pub state: &'a mut State,
    /// The volume as it stands.
    pub volume: &'a Volume,
    /// What differs, by record.
    pub touched: BTreeMap<u64, Touched>,
    /// What was written in place.
    pub in_place: InPlace,
    /// Bytes that were written and cannot be read yet.
    pub later: InPlace,
    /// Files whose names could not be put in order so far.
    pub unplaced: BTreeSet<u64>,
    /// When.
    pub time: Timestamp,
    /// How it came to be known.
    pub origin: Origin,
}

impl Changes<'_> {
    /// All events, in order. Afterwards `unplaced` are those files whose names are still not as
    /// their records say.
    pub fn run(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut created = BTreeSet::new();
        let replaced = self.clear_replaced(&mut events);
        let mut plan = Plan::new(self.operations(&replaced));
        let mut names = self.take_names();
        plan.run_first(&mut names, &mut |step| {
            if step.what == What::Create {
                created.insert(FileRef(step.ino.0).record());
            }
            events.push(self.name_event(step));
        });
        self.state.names = names;
        self.content_events(&created, &mut events);
        let mut names = self.take_names();
        let left = plan.run_last(&mut names, &mut |step| events.push(self.name_event(step)));
        self.state.names = names;
        self.unplaced = left.iter().map(record_of).chain(replaced).collect();
        let names = &self.state.names;
        self.state.ghosts.retain(|id, _| !names.names(key(*id)).is_empty());
        events
    }

    fn take_names(&mut self) -> Namespace {
        let root = InodeNo(0);
        std::mem::replace(&mut self.state.names, Namespace::new(root))
    }

    /// A file that became another kind of file loses its names first, and is created anew. Returns
    /// those that could not be removed.
    fn clear_replaced(&mut self, events: &mut Vec<Event>) -> BTreeSet<u64> {
        let same_id = |t: &&Touched| t.old.as_ref().map(|n| n.file.id) == t.new.as_ref().map(|n| n.file.id);
        let changed: Vec<FileRef> = self
            .touched
            .values()
            .filter(|t| t.is_replaced())
            .filter(same_id)
            .filter_map(|t| t.old.as_ref().map(|n| n.file.id))
            .collect();
        if changed.is_empty() {
            return BTreeSet::new();
        }
        let mut ops = Vec::new();
        changed.iter().for_each(|id| self.remove_all(*id, &mut ops));
        let mut names = self.take_names();
        let left = Plan::new(ops).run_last(&mut names, &mut |step| events.push(self.name_event(step)));
        self.state.names = names;
        left.iter().map(record_of).collect()
    }

    fn remove_all(&self, id: FileRef, ops: &mut Vec<Op>) {
        let links = self.state.names.names(key(id));
        for (from, left) in links.iter().zip((0..links.len()).rev()) {
            ops.push(Op::Remove { ino: key(id), from: from.clone(), last: left == 0 });
        }
    }

    /// What makes of the names those that the records say.
    fn operations(&self, stuck: &BTreeSet<u64>) -> Vec<Op> {
        let mut ops = Vec::new();
        for id in self.state.ghosts.keys() {
            self.remove_all(*id, &mut ops);
        }
        let all: BTreeSet<u64> = self.touched.keys().chain(&self.unplaced).copied().collect();
        for n in all.difference(stuck) {
            let Some(node) = self.state.nodes.get(n) else { continue };
            if *n != fixed::ROOT {
                self.pair(node, &mut ops);
            }
        }
        ops
    }

    /// Names that went and names that came are one move each.
    fn pair(&self, node: &Node, ops: &mut Vec<Op>) {
        let ino = key(node.file.id);
        let should = self.state.links(node);
        let is = self.state.names.names(ino);
        let lost: Vec<&Link> = is.iter().filter(|l| !should.contains(l)).collect();
        let gained: Vec<&Link> = should.iter().filter(|l| !is.contains(l)).collect();
        let pairs = lost.len().min(gained.len());
        for (from, to) in lost.iter().zip(&gained) {
            ops.push(Op::Move { ino, from: (*from).clone(), to: (*to).clone() });
        }
        let all_go = lost.len() == is.len() && gained.is_empty();
        let going = lost.get(pairs..).unwrap_or_default();
        for (from, left) in going.iter().zip((0..going.len()).rev()) {
            ops.push(Op::Remove { ino, from: (*from).clone(), last: all_go && left == 0 });
        }
        ops.extend(gained.iter().skip(pairs).map(|to| Op::Add { ino, to: (*to).clone() }));
    }

    fn event(&self, body: Body) -> Event {
        Event::new(self.time, self.origin, body)
    }

    /// A file as it was when its names went, or is.
    fn node_of(&self, ino: InodeNo, gone: bool) -> Option<Arc<Node>> {
        let id = FileRef(ino.0);
        let touched = self.touched.get(&id.record());
        let old = touched.and_then(|t| t.old.as_ref()).filter(|n| gone && n.file.id == id);
        old.or_else(|| self.state.node(id)).cloned()
    }

    fn name_event(&self, step: Step) -> Event {
        let record = |i: InodeNo| InodeNo(FileRef(i.0).record());
        let gone = matches!(step.what, What::Delete | What::Unlink);
        let node = self.node_of(step.ino, gone);
        let body = match step.what {
            What::Create => Body::Create(node.as_deref().map_or_else(Created::default, |n| created(n, self.volume))),
            What::Link => Body::Link,
            What::Unlink => Body::Unlink,
            What::Delete => Body::Delete,
            What::Rename { from, from_dir, exchange } => Body::Rename { from, from_parent: record(from_dir), exchange },
        };
        Event {
            path: Some(step.path),
            inode: Some(record(step.ino)),
            kind: node.map(|n| n.kind),
            parent: Some(record(step.dir)),
            ..self.event(body)
        }
    }

    /// Writes, truncations and attributes, by rising record.
    fn content_events(&mut self, created: &BTreeSet<u64>, events: &mut Vec<Event>) {
        let in_place = std::mem::take(&mut self.in_place);
        let all: BTreeSet<u64> = self.touched.keys().chain(in_place.keys()).chain(created).copied().collect();
        for n in all {
            let Some(node) = self.state.nodes.get(&n).cloned() else { continue };
            let Some(path) = self.state.names.path_of(key(node.file.id)) else { continue };
            let old = match self.touched.get(&n) {
                _ if created.contains(&n) => None,
                Some(t) => t.old.clone().filter(|o| o.file.id == node.file.id),
                None => Some(node.clone()),
            };
            let wrote = in_place.get(&n);
            let mut later = BTreeMap::new();
            File { changes: self, node: &node, old: old.as_deref(), path, wrote }.events(events, &mut later);
            if !later.is_empty() {
                self.later.insert(n, later);
            }
        }
    }
}

fn record_of(op: &Op) -> u64 {
    let (Op::Add { ino, .. } | Op::Remove { ino, .. } | Op::Move { ino, .. }) = op;
    FileRef(ino.0).record()
}

fn created(node: &Node, volume: &Volume) -> Created {
    Created { target: node.target.clone(), ..Created::of(&node.attr(volume.cluster_size())) }
}

/// The events of one file that are not about its names.
struct File<'a, 'b> {
    changes: &'a Changes<'b>,
    node: &'a Node,
    /// `None`: it was created just now.
    old: Option<&'a Node>,
    path: GuestPath,
    wrote: Option<&'a BTreeMap<StreamName, RangeSet>>,
}

impl File<'_, '_> {
    fn events(&self, events: &mut Vec<Event>, later: &mut Later) {
        if self.node.kind == Kind::File {
            let bodies = self.content(later);
            events.extend(bodies.into_iter().map(|b| self.event(b)));
        }
        self.streams(events, later);
        let Some(old) = self.old else { return };
        let mut bodies = Vec::new();
        metadata(old, self.node, &mut bodies);
        events.extend(bodies.into_iter().map(|b| self.event(b)));
    }

    fn event(&self, body: Body) -> Event {
        let id = key(self.node.file.id);
        let parent = self.changes.state.names.names(id).first().map(|l| InodeNo(FileRef(l.dir.0).record()));
        Event {
            path: Some(self.path.clone()),
            inode: Some(InodeNo(self.node.file.id.record())),
            kind: Some(self.node.kind),
            parent,
            ..self.changes.event(body)
        }
    }

    fn content(&self, later: &mut Later) -> Vec<Body> {
        let data = |n: &'_ Node| n.file.attribute(kind::DATA).cloned();
        let Some(new) = data(self.node) else { return Vec::new() };
        let old = self.old.map(data);
        match (self.node.wof, self.old) {
            // Where Windows packs a file, its bytes stay what they were.
            (Some(_), Some(_)) => return Vec::new(),
            (Some(_), None) if new.size() > 0 => {
                return vec![Body::Write { offset: 0, length: new.size(), zero: false, data: None }];
            }
            (None, Some(Node { wof: Some(_), .. })) if new.size() > 0 => {
                return vec![Body::Write { offset: 0, length: new.size(), zero: false, data: None }];
            }
            _ => {}
        }
        let in_place = self.wrote.and_then(|w| w.get(&[][..])).cloned().unwrap_or_default();
        let empty = Attribute { value: crate::ntfs::record::Value::Resident([][..].into()), ..new.clone() };
        // A file that had no content at all had none of any size.
        let old = old.map(|o| o.unwrap_or(empty));
        compare(Stream { volume: self.changes.volume, old: old.as_ref(), new: &new, in_place }, later)
    }

    /// Named streams come, change and go.
    fn streams(&self, events: &mut Vec<Event>, later: &mut Later) {
        let before = self.old.map(reader::streams).unwrap_or_default();
        let now = reader::streams(self.node);
        for s in &now {
            let Some(new) = self.node.stream(s.ino) else { continue };
            let old = self.old.and_then(|o| o.stream(s.ino)).filter(|_| before.contains(s));
            if old.is_none() {
                let size = new.size();
                events.push(
                    self.stream_event(s, Body::Create(Created { size, ..created(self.node, self.changes.volume) })),
                );
            }
            let in_place = self.wrote.and_then(|w| w.get(&*new.name)).cloned().unwrap_or_default();
            let bodies = compare(Stream { volume: self.changes.volume, old, new, in_place }, later);
            events.extend(bodies.into_iter().map(|b| self.stream_event(s, b)));
        }
        let gone = before.iter().filter(|s| !now.contains(s));
        events.extend(gone.map(|s| self.stream_event(s, Body::Delete)));
    }

    fn stream_event(&self, s: &tree::Stream, body: Body) -> Event {
        let path = GuestPath([&self.path.0[..], b":", &s.name[..]].concat());
        Event { path: Some(path), kind: Some(Kind::File), stream: Some(s.clone()), ..self.event(body) }
    }
}

/// What of a file's streams cannot be read yet.
type Later = BTreeMap<StreamName, RangeSet>;

fn compare(stream: Stream<'_>, later: &mut Later) -> Vec<Body> {
    let name: StreamName = stream.new.name.as_ref().into();
    let mut unread = RangeSet::default();
    let bodies = stream.changes(&mut unread);
    if !unread.is_empty() {
        later.insert(name, unread);
    }
    bodies
}

fn metadata(old: &Node, new: &Node, bodies: &mut Vec<Body>) {
    let mut say = |field: &str, old: Value, new: Value| {
        if old != new {
            bodies.push(Body::Metadata { field: field.to_owned(), old: Some(old), new: Some(new) });
        }
    };
    let (a, b) = (&old.standard, &new.standard);
    let int = |v: u32| Value::Int(v.into());
    if new.kind == Kind::Dir {
        say("size", Value::Int(old.size()), Value::Int(new.size()));
    } else {
        say("nlink", int(old.nlink()), int(new.nlink()));
    }
    say("flags", int(a.attributes), int(b.attributes));
    say("security", int(a.security_id), int(b.security_id));
    say("reparse_tag", int(old.tag.unwrap_or(0)), int(new.tag.unwrap_or(0)));
    let times = [
        ("mtime", a.mtime, b.mtime),
        ("atime", a.atime, b.atime),
        ("ctime", a.ctime, b.ctime),
        ("crtime", a.crtime, b.crtime),
    ];
    for (field, old, new) in times {
        say(field, Value::Time(old), Value::Time(new));
    }
    // What has neither content nor a listing of it still has a size.
    if new.kind == Kind::Reparse {
        say("size", Value::Int(old.size()), Value::Int(new.size()));
    }
}
