//! From records that were written to files that changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::state::State;
use crate::ntfs::node::Node;
use crate::ntfs::record::FileRef;
use crate::ntfs::volume::Volume;

/// A file that changed. With another sequence, it is another file in the same record.
#[derive(Clone, Debug)]
pub struct Touched {
    /// The record.
    pub record: u64,
    /// What the events so far told.
    pub old: Option<Arc<Node>>,
    /// What it is now.
    pub new: Option<Arc<Node>>,
}

impl Touched {
    /// Whether what was there is gone: deleted, or another file or another kind of file now.
    pub fn is_replaced(&self) -> bool {
        let is = |n: &Node| (n.file.id, n.kind, n.target.clone(), n.rdev);
        self.old.as_deref().map(is) != self.new.as_deref().map(is)
    }
}

/// Reads what the written records hold now, and those records that must be looked at with them.
pub struct Collector<'a> {
    /// The volume as it stands.
    pub volume: &'a Volume,
    /// What was known before.
    pub state: &'a State,
    /// Records that are torn or do not fit together yet: to be looked at again.
    pub waiting: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    todo: Vec<u64>,
}

impl<'a> Collector<'a> {
    /// Start with nothing.
    pub fn new(volume: &'a Volume, state: &'a State) -> Self {
        Self { volume, state, waiting: BTreeSet::new(), seen: BTreeSet::new(), todo: Vec::new() }
    }

    /// The files that changed, given the records that were written.
    pub fn run(&mut self, dirty: &BTreeSet<u64>) -> Vec<Touched> {
        for n in dirty {
            self.bases_of(*n);
        }
        let mut all = Vec::new();
        while let Some(n) = self.todo.pop() {
            if !self.seen.insert(n) {
                continue;
            }
            match Node::load(self.volume, n) {
                Ok(new) => all.extend(self.compare(n, new)),
                Err(e) => {
                    tracing::debug!("record {n}: {e}");
                    self.waiting.insert(n);
                }
            }
        }
        all.sort_by_key(|t| t.record);
        all
    }

    /// The files that record `n` belonged to, and belongs to now.
    fn bases_of(&mut self, n: u64) {
        self.todo.extend(self.state.bases.get(&n));
        match self.volume.record(n) {
            Ok(Some(r)) if r.header.in_use => {
                self.todo.push(r.header.base.map_or(n, FileRef::record));
                if r.header.base.is_some() && self.state.nodes.contains_key(&n) {
                    self.todo.push(n);
                }
            }
            Ok(_) => self.todo.push(n),
            Err(_) => {
                self.waiting.insert(n);
            }
        }
    }

    fn compare(&mut self, n: u64, new: Option<Node>) -> Option<Touched> {
        let old = self.state.nodes.get(&n);
        if let Some(node) = &new {
            self.look_around(node);
        }
        if old.map(|o| &**o) == new.as_ref() {
            return None;
        }
        Some(Touched { record: n, old: old.cloned(), new: new.map(Arc::new) })
    }

    /// What stands in the way of a file's names is looked at as well: the image may be ahead of the
    /// writes that were told so far.
    fn look_around(&mut self, node: &Node) {
        for link in self.state.links(node) {
            let dir = FileRef(link.dir.0);
            if self.state.node(dir).is_none_or(|d| d.file.id != dir) || !self.state.nodes.contains_key(&dir.record()) {
                self.todo.push(dir.record());
            }
            let holder = self.state.names.lookup(link.dir, &link.name);
            self.todo.extend(holder.map(|h| FileRef(h.0).record()).filter(|h| *h != node.file.id.record()));
        }
    }
}
