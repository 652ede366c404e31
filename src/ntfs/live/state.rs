//! What is known of a live volume: the state that the events so far have told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::owners::Owners;
use crate::namespace::{Link, Name, Namespace};
use crate::ntfs::node::Node;
use crate::ntfs::record::FileRef;
use crate::ntfs::volume::{Volume, fixed};
use crate::units::InodeNo;

/// The state. In `names`, files go by record and sequence, so that the successor in a record is
/// another file.
#[derive(Debug)]
pub struct State {
    /// Files by record.
    pub nodes: BTreeMap<u64, Arc<Node>>,
    /// The names.
    pub names: Namespace,
    /// Whose are the clusters of the files that are shown.
    pub owners: Owners,
    /// Extension records and their base.
    pub bases: HashMap<u64, u64>,
    /// Files that are gone but for their names.
    pub ghosts: HashMap<FileRef, Arc<Node>>,
}

/// The name by which `names` know a file.
pub fn key(id: FileRef) -> InodeNo {
    InodeNo(id.0)
}

/// Deeper directories are not looked at to find out whether they belong to the system.
const MAX_DEPTH: usize = 4096;

impl State {
    /// Only the root.
    pub fn new(root: FileRef) -> Self {
        Self {
            nodes: BTreeMap::new(),
            names: Namespace::new(key(root)),
            owners: Owners::default(),
            bases: HashMap::new(),
            ghosts: HashMap::new(),
        }
    }

    /// Read all records and give their names to all that the root reaches. Damage hides what it
    /// concerns and is logged.
    pub fn crawl(volume: &Volume, root: FileRef) -> Self {
        let mut state = Self::new(root);
        for n in 0..volume.records() {
            match Node::load(volume, n) {
                Ok(Some(node)) => state.put(n, Some(node.into())),
                Ok(None) => {}
                Err(e) => tracing::warn!("record {n}: {e}"),
            }
        }
        state.link_all(root);
        state
    }

    /// Put a file into record `n`, or none.
    pub fn put(&mut self, n: u64, node: Option<Arc<Node>>) {
        if let Some(old) = self.nodes.remove(&n) {
            self.owners.take(&old);
            old.file.extensions.iter().for_each(|e| {
                self.bases.remove(e);
            });
        }
        if let Some(node) = node {
            if is_shown(n) {
                self.owners.give(&node);
            }
            self.bases.extend(node.file.extensions.iter().map(|e| (*e, n)));
            self.nodes.insert(n, node);
        }
    }

    /// The file with this identity: as it is, or as it was while its names remain.
    pub fn node(&self, id: FileRef) -> Option<&Arc<Node>> {
        self.nodes.get(&id.record()).filter(|n| n.file.id == id).or_else(|| self.ghosts.get(&id))
    }

    /// The names that a file should have, by its own record.
    pub fn links(&self, node: &Node) -> Vec<Link> {
        if !is_shown(node.file.id.record()) {
            return Vec::new();
        }
        let all = node.file.links().into_iter().map(|n| (self.directory(n.parent), n.name));
        let shown = all.filter(|(dir, _)| !self.is_hidden(*dir));
        let links = shown.map(|(dir, name)| Link { dir: key(dir), name: Name::from(name) });
        // A directory has one name.
        links.take(if node.file.header.is_dir { 1 } else { usize::MAX }).collect()
    }

    /// The directory that a name refers to; where it leaves the sequence out, the one there is.
    pub fn directory(&self, id: FileRef) -> FileRef {
        match id.sequence() {
            0 => self.nodes.get(&id.record()).map_or(id, |n| n.file.id),
            _ => id,
        }
    }

    /// Whether it is the system's `$Extend`, or lies below.
    fn is_hidden(&self, dir: FileRef) -> bool {
        let mut at = dir.record();
        for _ in 0..MAX_DEPTH {
            if at == fixed::ROOT {
                return false;
            }
            if !is_shown(at) {
                return true;
            }
            let up = self.nodes.get(&at).and_then(|n| n.file.names().next());
            match up {
                Some(name) => at = name.parent.record(),
                None => return false,
            }
        }
        false
    }

    fn link_all(&mut self, root: FileRef) {
        let mut children: HashMap<InodeNo, Vec<(Name, FileRef)>> = HashMap::new();
        for node in self.nodes.values() {
            for link in self.links(node) {
                children.entry(link.dir).or_default().push((link.name, node.file.id));
            }
        }
        let mut todo = vec![key(root)];
        while let Some(dir) = todo.pop() {
            for (name, id) in children.remove(&dir).unwrap_or_default() {
                if self.names.insert(Link { dir, name }, key(id)) {
                    todo.push(key(id));
                } else {
                    tracing::warn!("record {}: its name is taken", id.record());
                }
            }
        }
    }
}

/// Whether drivers show the file in this record.
pub fn is_shown(record: u64) -> bool {
    record == fixed::ROOT || record >= fixed::FIRST_SHOWN
}
