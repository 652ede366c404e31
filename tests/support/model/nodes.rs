//! The model's files and names. Files are told apart by an id of the model, not by their inode
//! number: within one transaction a number may pass from a deleted file to a new one.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::streams::StreamNode;

use crate::support::content::Content;
use crate::support::record::{Listing, Record};
use crate::support::text::{join, show, split};

pub type Id = usize;

/// One file.
#[derive(Clone, Default)]
pub struct Node {
    /// What the listing tells; `size` and `sha256` are stale where `content` is known.
    pub record: Record,
    /// Names, if a directory.
    pub children: BTreeMap<Vec<u8>, Id>,
    /// How many names stand for it.
    pub names: usize,
    /// The bytes of a regular file, if known.
    pub content: Option<Content>,
    /// Size before the writes that came last, for `truncate`'s `old`.
    pub size_before_writes: Option<u64>,
    /// The file system that it is on, where an event told: inode numbers are its own.
    pub volume: Option<String>,
    /// Named streams.
    pub streams: BTreeMap<String, StreamNode>,
    /// Fields that no listing has (`flags` …).
    pub others: BTreeMap<String, Value>,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        self.record.kind == "dir"
    }
}

/// All files, by id.
pub struct Nodes {
    arena: HashMap<Id, Node>,
    next: Id,
    root: Id,
}

impl Nodes {
    pub fn from_listing(first: &Listing) -> Result<Self, String> {
        let mut nodes = Self { arena: HashMap::new(), next: 0, root: 0 };
        let mut linked: HashMap<u64, Id> = HashMap::new();
        for (path, record) in first {
            if path == b"/" {
                nodes.root = nodes.add(node_of(record));
                nodes.get_mut(nodes.root).names = 1;
                continue;
            }
            let known = record.ino.filter(|_| record.kind != "dir").and_then(|ino| linked.get(&ino).copied());
            let id = known.unwrap_or_else(|| nodes.add(node_of(record)));
            if let Some(ino) = record.ino {
                linked.insert(ino, id);
            }
            nodes.put_name(path, id)?;
        }
        Ok(nodes)
    }

    pub fn add(&mut self, node: Node) -> Id {
        self.next += 1;
        self.arena.insert(self.next, node);
        self.next
    }

    pub fn remove(&mut self, id: Id) {
        self.arena.remove(&id);
    }

    pub fn get(&self, id: Id) -> &Node {
        &self.arena[&id]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Node {
        self.arena.get_mut(&id).expect("ids are only handed out for nodes in the arena")
    }

    /// The file that a path names.
    pub fn find(&self, path: &[u8]) -> Option<Id> {
        let mut at = self.root;
        for name in path.strip_prefix(b"/")?.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            at = *self.get(at).children.get(name)?;
        }
        Some(at)
    }

    /// The file of a volume that has this inode number; the newest, should a number be in use twice.
    pub fn by_ino(&self, ino: u64, volume: Option<&str>) -> Option<Id> {
        let fits = |n: &Node| n.record.ino == Some(ino) && n.volume.as_deref().is_none_or(|v| Some(v) == volume);
        self.arena.iter().filter(|(_, n)| fits(n)).map(|(id, _)| *id).max()
    }

    /// Make `path` a name of the file; refused when taken or when its directory is missing.
    pub fn put_name(&mut self, path: &[u8], id: Id) -> Result<(), String> {
        let (dir, name) = split(path).ok_or("not a path of a file")?;
        let parent = self.find(dir).ok_or_else(|| format!("no directory {}", show(dir)))?;
        if !self.get(parent).is_dir() {
            return Err(format!("{} is no directory", show(dir)));
        }
        if self.get(parent).children.contains_key(name) {
            return Err(format!("{} exists already", show(path)));
        }
        if name == b"." || name == b".." || name.len() > 255 {
            return Err(format!("{} is no name", show(name)));
        }
        self.get_mut(parent).children.insert(name.to_vec(), id);
        self.get_mut(id).names += 1;
        Ok(())
    }

    /// Take a name away and say whose it was.
    pub fn take_name(&mut self, path: &[u8]) -> Result<Id, String> {
        let (dir, name) = split(path).ok_or("not a path of a file")?;
        let parent = self.find(dir).ok_or_else(|| format!("no directory {}", show(dir)))?;
        let id = self.get_mut(parent).children.remove(name).ok_or_else(|| format!("no {}", show(path)))?;
        self.get_mut(id).names -= 1;
        Ok(id)
    }

    pub fn listing(&self) -> Listing {
        let mut out = Listing::new();
        let mut pending = vec![(b"/".to_vec(), self.root)];
        while let Some((path, id)) = pending.pop() {
            let node = self.get(id);
            pending.extend(node.children.iter().map(|(name, child)| (join(&path, name), *child)));
            out.insert(path, record_of(node));
        }
        out
    }
}

fn node_of(record: &Record) -> Node {
    let empty = record.kind == "file" && record.size == Some(0);
    let stream = |(name, s): (&String, &super::super::record::Stream)| {
        (name.clone(), StreamNode { size: s.size, content: None })
    };
    let streams = record.streams.iter().flatten().map(stream).collect();
    Node { record: record.clone(), content: empty.then(Content::default), streams, ..Node::default() }
}

fn record_of(node: &Node) -> Record {
    let mut record = node.record.clone();
    record.streams = Some(node.streams.iter().map(|(name, s)| (name.clone(), s.record())).collect());
    if let Some(content) = &node.content {
        record.sha256 = Some(content.sha256());
    }
    record
}
