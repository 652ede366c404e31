//! Inode ↔ names ↔ parents, hard links included: the live tree of one file system.

pub mod order;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::name::GuestPath;
use crate::units::InodeNo;

/// A name in a directory, raw bytes. Shared between the directory and the file's list of names.
pub type Name = Arc<[u8]>;

/// Deeper paths are taken for a loop. `PATH_MAX` allows 2,048; relative work can go deeper.
const MAX_DEPTH: usize = 65_536;

/// Where a file's name lies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    /// The directory.
    pub dir: InodeNo,
    /// The name in it.
    pub name: Name,
}

/// All names of a file system. Only directories that can be reached from the root have names in it.
#[derive(Debug)]
pub struct Namespace {
    root: InodeNo,
    children: HashMap<InodeNo, BTreeMap<Name, InodeNo>>,
    links: HashMap<InodeNo, Vec<Link>>,
}

impl Namespace {
    /// Only the root.
    pub fn new(root: InodeNo) -> Self {
        Self { root, children: HashMap::new(), links: HashMap::new() }
    }

    /// Give `ino` the name `link`; `false` (and nothing done) if the name is taken.
    pub fn insert(&mut self, link: Link, ino: InodeNo) -> bool {
        let names = self.children.entry(link.dir).or_default();
        if names.contains_key(&link.name) {
            return false;
        }
        names.insert(link.name.clone(), ino);
        self.links.entry(ino).or_default().push(link);
        true
    }

    /// Take a name away; what it stood for.
    pub fn remove(&mut self, link: &Link) -> Option<InodeNo> {
        let names = self.children.get_mut(&link.dir)?;
        let ino = names.remove(&link.name)?;
        if names.is_empty() {
            self.children.remove(&link.dir);
        }
        if let Some(all) = self.links.get_mut(&ino) {
            all.retain(|l| l != link);
            if all.is_empty() {
                self.links.remove(&ino);
            }
        }
        Some(ino)
    }

    /// Let the file `old` go on as `new`, with its names and the names in it.
    pub fn renumber(&mut self, old: InodeNo, new: InodeNo) {
        if let Some(links) = self.links.remove(&old) {
            for l in &links {
                if let Some(ino) = self.children.get_mut(&l.dir).and_then(|c| c.get_mut(&l.name)) {
                    *ino = new;
                }
            }
            self.links.insert(new, links);
        }
        if let Some(children) = self.children.remove(&old) {
            for ino in children.values() {
                let links = self.links.get_mut(ino).into_iter().flatten();
                links.filter(|l| l.dir == old).for_each(|l| l.dir = new);
            }
            self.children.insert(new, children);
        }
    }

    /// What a name stands for.
    pub fn lookup(&self, dir: InodeNo, name: &[u8]) -> Option<InodeNo> {
        self.children.get(&dir)?.get(name).copied()
    }

    /// All names of `ino`, the oldest first.
    pub fn names(&self, ino: InodeNo) -> &[Link] {
        self.links.get(&ino).map_or(&[], Vec::as_slice)
    }

    /// The names in `dir`, by rising bytes.
    pub fn entries(&self, dir: InodeNo) -> impl Iterator<Item = (&Name, InodeNo)> {
        self.children.get(&dir).into_iter().flatten().map(|(n, i)| (n, *i))
    }

    /// Whether `dir` has no names.
    pub fn is_empty(&self, dir: InodeNo) -> bool {
        !self.children.contains_key(&dir)
    }

    /// The directories from `dir` up to the root, both included; `None` if it does not lead there.
    fn ancestors(&self, dir: InodeNo) -> Option<Vec<InodeNo>> {
        let mut all = vec![dir];
        let mut at = dir;
        while at != self.root {
            at = self.names(at).first()?.dir;
            all.push(at);
            if all.len() > MAX_DEPTH {
                return None;
            }
        }
        Some(all)
    }

    /// Whether `dir` can be reached from the root.
    pub fn is_attached(&self, dir: InodeNo) -> bool {
        self.ancestors(dir).is_some()
    }

    /// Whether `dir` is `top` or lies below it.
    pub fn is_within(&self, dir: InodeNo, top: InodeNo) -> bool {
        self.ancestors(dir).is_some_and(|a| a.contains(&top))
    }

    /// The path of a name; `None` if its directory cannot be reached.
    pub fn path(&self, link: &Link) -> Option<GuestPath> {
        let mut names = vec![link.name.clone()];
        let mut at = link.dir;
        while at != self.root {
            let up = self.names(at).first()?;
            names.push(up.name.clone());
            at = up.dir;
            if names.len() > MAX_DEPTH {
                return None;
            }
        }
        let mut path = Vec::with_capacity(names.iter().map(|n| n.len() + 1).sum());
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Some(GuestPath(path))
    }

    /// A path of `ino`: by its oldest name, `/` for the root; `None` without a name.
    pub fn path_of(&self, ino: InodeNo) -> Option<GuestPath> {
        if ino == self.root {
            return Some(GuestPath(b"/".to_vec()));
        }
        self.path(self.names(ino).first()?)
    }
}
