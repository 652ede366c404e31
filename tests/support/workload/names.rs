//! The names that the workload made, and new ones of all the sorts that guests think of.

use crate::support::rng::Rng;
use crate::support::text::join;

pub type Id = usize;
/// The root directory.
pub const ROOT: Id = 0;
/// Directories deeper than this are not made: paths must fit into PATH_MAX.
const DEEPEST: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Special,
}

/// One name in one directory.
pub struct Entry {
    pub parent: Id,
    pub name: Vec<u8>,
    pub kind: Kind,
}

/// All names.
pub struct Names {
    entries: Vec<Option<Entry>>,
    live: usize,
    made: u64,
    /// A directory that gets more names than its share, so that its index splits.
    big: Id,
    /// Only names that can be had in UTF-16.
    pub is_unicode: bool,
}

impl Names {
    pub fn new() -> Self {
        let root = Entry { parent: ROOT, name: Vec::new(), kind: Kind::Dir };
        Self { entries: vec![Some(root)], live: 0, made: 0, big: ROOT, is_unicode: false }
    }

    pub fn len(&self) -> usize {
        self.live
    }

    pub fn get(&self, id: Id) -> &Entry {
        self.entries[id].as_ref().expect("only ids of living names are kept")
    }

    pub fn path(&self, id: Id) -> Vec<u8> {
        if id == ROOT {
            return b"/".to_vec();
        }
        join(&self.path(self.get(id).parent), &self.get(id).name)
    }

    pub fn add(&mut self, parent: Id, name: Vec<u8>, kind: Kind) -> Id {
        self.entries.push(Some(Entry { parent, name, kind }));
        self.live += 1;
        let id = self.entries.len() - 1;
        if kind == Kind::Dir && (self.big == ROOT || self.entries[self.big].is_none()) {
            self.big = id;
        }
        id
    }

    pub fn remove(&mut self, id: Id) {
        self.entries[id] = None;
        self.live -= 1;
    }

    pub fn rename(&mut self, id: Id, parent: Id, name: Vec<u8>) {
        let entry = self.entries[id].as_mut().expect("only ids of living names are kept");
        (entry.parent, entry.name) = (parent, name);
    }

    pub fn swap(&mut self, a: Id, b: Id) {
        let (pa, na) = (self.get(a).parent, self.get(a).name.clone());
        let (pb, nb) = (self.get(b).parent, self.get(b).name.clone());
        self.rename(a, pb, nb);
        self.rename(b, pa, na);
    }

    fn living(&self) -> impl DoubleEndedIterator<Item = (Id, &Entry)> {
        self.entries.iter().enumerate().skip(1).filter_map(|(id, e)| Some((id, e.as_ref()?)))
    }

    pub fn pick(&self, rng: &mut Rng, want: impl Fn(&Entry) -> bool) -> Option<Id> {
        let ids: Vec<Id> = self.living().filter(|(_, e)| want(e)).map(|(id, _)| id).collect();
        (!ids.is_empty()).then(|| *rng.pick(&ids))
    }

    /// A directory for a new name: the big one, the root, or any that is not too deep.
    pub fn pick_dir(&self, rng: &mut Rng) -> Id {
        match rng.below(10) {
            0..3 if self.entries[self.big].is_some() && self.depth(self.big) < DEEPEST => self.big,
            3 => ROOT,
            _ => {
                let any = self.pick(rng, |e| e.kind == Kind::Dir).unwrap_or(ROOT);
                if self.depth(any) < DEEPEST { any } else { ROOT }
            }
        }
    }

    pub fn children(&self, dir: Id) -> Vec<Id> {
        self.living().filter(|(_, e)| e.parent == dir).map(|(id, _)| id).collect()
    }

    pub fn is_empty(&self, dir: Id) -> bool {
        !self.living().any(|(_, e)| e.parent == dir)
    }

    pub fn taken(&self, dir: Id, name: &[u8]) -> bool {
        self.living().any(|(_, e)| e.parent == dir && e.name == name)
    }

    /// Whether `id` is `dir` or lies below it.
    pub fn below(&self, id: Id, dir: Id) -> bool {
        id == dir || (id != ROOT && self.below(self.get(id).parent, dir))
    }

    pub fn depth(&self, id: Id) -> usize {
        if id == ROOT { 0 } else { 1 + self.depth(self.get(id).parent) }
    }

    /// Whether the tree of `id` would still be shallow enough under `parent`.
    pub fn fits(&self, id: Id, parent: Id) -> bool {
        let own = self.depth(id);
        let height = self.living().filter(|(i, _)| self.below(*i, id)).map(|(i, _)| self.depth(i) - own).max();
        self.depth(parent) + 1 + height.unwrap_or(0) <= DEEPEST + 1
    }

    /// A name that is free in `dir`: often one that was there before, sometimes a monster.
    pub fn fresh(&mut self, rng: &mut Rng, dir: Id) -> Vec<u8> {
        if rng.chance(20) {
            let common = vec![b'a' + rng.below(12) as u8];
            if !self.taken(dir, &common) {
                return common;
            }
        }
        self.made += 1;
        let tag = format!("{:x}", self.made).into_bytes();
        let filler: &[u8] = match rng.below(12) {
            0 => "ü€漢😀".as_bytes(),
            1 if !self.is_unicode => b"\xff\xfe\x80\xc3",
            2 => b"\x01\n\t \"\\'",
            3..6 => b"a-rather-long-name.of_some-log",
            _ => return [b"f", &tag[..]].concat(),
        };
        let len = if rng.chance(15) { 255 } else { rng.range(tag.len() as u64 + 1, 120) } as usize;
        let mut name: Vec<u8> = tag.iter().chain(filler.iter().cycle()).take(len).copied().collect();
        if self.is_unicode {
            let whole = name.utf8_chunks().next().map_or(0, |c| c.valid().len());
            name.truncate(whole);
        }
        name
    }
}
