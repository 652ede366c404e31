//! What the kernel may have cached: files it was told of and has not forgotten, and their names.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::node::Node;

/// So many names of one file are remembered; the kernel must not cache further ones.
const MAX_NAMES: usize = 32;
/// How long an answer may take to become the kernel's: what is invalidated earlier must be
/// invalidated again. See [`Known::touch`].
pub const SETTLING: Duration = Duration::from_secs(1);

/// A name as the kernel caches it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// The directory.
    pub parent: Node,
    /// The name's bytes.
    pub name: Box<[u8]>,
}

struct File {
    /// How often the kernel was told of it and has not said that it forgot.
    lookups: u64,
    /// `None` until the first answer is complete.
    generation: Option<u64>,
    names: Vec<Name>,
    /// When it was last told.
    told: Instant,
    /// How often something about it became stale.
    touches: u64,
}

/// An answer that tells the kernel of a file and is being prepared.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    node: Node,
    sweeps: u64,
    touches: u64,
}

/// All files that the kernel knows. As large as its inode cache, which it shrinks when it must.
#[derive(Default)]
pub struct Known {
    files: HashMap<Node, File>,
    sweeps: u64,
}

impl Known {
    /// Counts how often everything was swept. A lookup that began before the last sweep may have
    /// seen the state before it, so its answer must not be cached: see [`Known::expect`].
    pub fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// The kernel is about to be told of `node`, whose attributes are read next. Its name was found
    /// when `sweeps` was the count of sweeps.
    pub fn expect(&mut self, node: Node, sweeps: u64) -> Ticket {
        let new = File { lookups: 0, generation: None, names: Vec::new(), told: Instant::now(), touches: 0 };
        let file = self.files.entry(node).or_insert(new);
        file.lookups += 1;
        Ticket { node, sweeps, touches: file.touches }
    }

    /// The answer is complete. Whether the kernel may cache it: the name and the attributes.
    pub fn told(&mut self, ticket: Ticket, generation: u64, name: Name) -> bool {
        let Some(file) = self.files.get_mut(&ticket.node) else { return false };
        file.generation = Some(generation);
        file.told = Instant::now();
        let remembered = file.names.contains(&name) || {
            let room = file.names.len() < MAX_NAMES;
            if room {
                file.names.push(name);
            }
            room
        };
        remembered && (ticket.sweeps, ticket.touches) == (self.sweeps, file.touches)
    }

    /// Something about `node` became stale. `None` if the kernel knows nothing of it; else whether
    /// an answer that is older may still be on its way, for a file that the kernel does not have yet:
    /// then it would not find what to invalidate.
    pub fn touch(&mut self, node: Node) -> Option<bool> {
        let file = self.files.get_mut(&node)?;
        file.touches += 1;
        Some(file.told.elapsed() < SETTLING)
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
        self.files.get(&node)?.generation
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
    pub fn sweep(&mut self) -> Everything {
        self.sweeps += 1;
        let settling = self.files.iter().filter(|(_, f)| f.told.elapsed() < SETTLING);
        Everything {
            names: self.files.values().flat_map(|f| f.names.iter().cloned()).collect(),
            settling: settling.map(|(node, _)| *node).collect(),
            files: self.files.keys().copied().collect(),
        }
    }
}

/// All that the kernel may have cached.
pub struct Everything {
    /// Names.
    pub names: Vec<Name>,
    /// Files: attributes and bytes.
    pub files: Vec<Node>,
    /// Those of them that may still be on their way to the kernel.
    pub settling: Vec<Node>,
}
