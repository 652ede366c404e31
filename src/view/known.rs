//! What the kernel may have cached: files it was told of and has not forgotten, and their names.

use std::collections::HashMap;

use super::node::Node;

/// So many names of one file are remembered; the kernel must not cache further ones.
const MAX_NAMES: usize = 32;

/// A name as the kernel caches it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// The directory.
    pub parent: Node,
    /// The name's bytes.
    pub name: Box<[u8]>,
}

#[derive(Default)]
struct File {
    /// How often the kernel was told of it and has not said that it forgot.
    lookups: u64,
    generation: u64,
    names: Vec<Name>,
}

/// All files that the kernel knows. As large as its inode cache, which it shrinks when it must.
#[derive(Default)]
pub struct Known {
    files: HashMap<Node, File>,
    sweeps: u64,
}

impl Known {
    /// Counts how often everything was swept. A lookup that began before the last sweep may have
    /// seen the state before it, so its name must not be cached: see [`Known::add`].
    pub fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// The kernel is about to be told of `node` by this name, found when `sweeps` was the count.
    /// Whether it may cache the name.
    pub fn add(&mut self, node: Node, generation: u64, name: Name, sweeps: u64) -> bool {
        let file = self.files.entry(node).or_default();
        file.lookups += 1;
        file.generation = generation;
        let remembered = file.names.contains(&name) || {
            let room = file.names.len() < MAX_NAMES;
            if room {
                file.names.push(name);
            }
            room
        };
        remembered && sweeps == self.sweeps
    }

    /// The kernel has forgotten `count` lookups of `node`.
    pub fn forget(&mut self, node: Node, count: u64) {
        if let Some(file) = self.files.get_mut(&node) {
            file.lookups = file.lookups.saturating_sub(count);
            if file.lookups == 0 {
                self.files.remove(&node);
            }
        }
    }

    /// The generation that the kernel was told last.
    pub fn generation(&self, node: Node) -> Option<u64> {
        self.files.get(&node).map(|f| f.generation)
    }

    /// Whether the kernel may have cached anything of `node`.
    pub fn contains(&self, node: Node) -> bool {
        self.files.contains_key(&node)
    }

    /// A directory that holds `node`.
    pub fn parent(&self, node: Node) -> Option<Node> {
        self.files.get(&node)?.names.last().map(|n| n.parent)
    }

    /// Everything that must be invalidated now, if nothing is certain any more.
    pub fn sweep(&mut self) -> (Vec<Name>, Vec<Node>) {
        self.sweeps += 1;
        let names = self.files.values().flat_map(|f| f.names.iter().cloned()).collect();
        (names, self.files.keys().copied().collect())
    }
}
