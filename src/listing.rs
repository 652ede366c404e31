//! The canonical listing: every name of a tree with all that can be known about its file, one
//! record after another in the order of the paths' raw bytes, in memory that grows with the
//! tree's depth and its largest directories only.
//!
//! The order: all paths below directory `a` start with `a/`, and no other path in the same
//! directory does. So each directory's names are walked in order, and what lies below `a` comes
//! where a name `a/` would stand: after `a-b`, before `a0`.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};
use std::iter::Peekable;
use std::{io, vec};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::lookup::{self, Place};
use crate::name::{GuestPath, XattrMap, hex, lossy};
use crate::tree::{Attr, Kind, Tree, Xattr};
use crate::units::InodeNo;

/// Directories below one another that are walked at most.
const MAX_DEPTH: usize = 4096;
const HASH_CHUNK: usize = 1 << 20;

/// One line of the listing.
#[derive(Clone, Debug)]
pub struct Record {
    /// Path in the guest.
    pub path: GuestPath,
    /// Attributes, unless they could not be read.
    pub attr: Option<Attr>,
    /// The folder of several volumes: it has no attributes.
    pub is_top: bool,
    /// Target of a symlink.
    pub target: Option<Vec<u8>>,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Named streams: name, size, and hash if asked for.
    pub streams: Vec<StreamRecord>,
    /// Tag of a reparse point.
    pub reparse_tag: Option<u32>,
    /// Hash of a regular file's content, if asked for.
    pub sha256: Option<[u8; 32]>,
    /// What could not be read.
    pub error: Option<String>,
}

/// A named stream of a file.
#[derive(Clone, Debug)]
pub struct StreamRecord {
    /// Name.
    pub name: Vec<u8>,
    /// Size in bytes.
    pub size: u64,
    /// Hash of its content, if asked for.
    pub sha256: Option<[u8; 32]>,
}

/// What to read of every file.
#[derive(Clone, Copy, Default, Debug)]
pub struct Depth {
    /// Extended attributes.
    pub xattrs: bool,
    /// Content, for its hash.
    pub hash: bool,
}

/// Everything but content.
pub const ALL: Depth = Depth { xattrs: true, hash: false };

/// List `start`, which has the path `path`, and all below it, by calling `out` with each record.
///
/// Errors are only those of `out`; what cannot be read is told in the records.
pub fn walk(
    start: &Place,
    path: GuestPath,
    depth: Depth,
    mut out: impl FnMut(&Record) -> io::Result<()>,
) -> io::Result<()> {
    let above_volumes = matches!(start, Place::Top(_));
    let mut walker = Walker { depth, above_volumes, seen: HashSet::new() };
    let (first, below) = walker.visit(start, path, 0);
    out(&first)?;
    let mut stack: Vec<Dir> = below.into_iter().collect();
    while let Some(dir) = stack.last_mut() {
        match dir.next() {
            None => drop(stack.pop()),
            Some(Step::Below(below)) => stack.push(below),
            Some(Step::Name((name, place))) => {
                let (record, below) = walker.visit(&place, dir.path.join(&name), dir.level + 1);
                out(&record)?;
                dir.below.extend(below.map(|below| Reverse(Below::new(name, below))));
            }
        }
    }
    Ok(())
}

/// The record of one file, without walking into it.
pub fn record(place: &Place, path: GuestPath, depth: Depth) -> Record {
    let mut record = Record {
        path,
        attr: None,
        is_top: false,
        target: None,
        xattrs: Vec::new(),
        streams: Vec::new(),
        reparse_tag: None,
        sha256: None,
        error: None,
    };
    match place {
        Place::Top(_) => record.is_top = true,
        Place::File { tree, ino } => record.error = record.fill(&**tree, *ino, depth).err().map(|e| e.to_string()),
    }
    record
}

impl Record {
    /// Whether it is a directory, on a disk or above the volumes.
    pub fn is_dir(&self) -> bool {
        self.is_top || self.attr.as_ref().is_some_and(|a| a.kind == Kind::Dir)
    }

    /// Read all that `depth` asks for; what fails does not hide the rest.
    fn fill(&mut self, tree: &dyn Tree, ino: InodeNo, depth: Depth) -> Result<(), Error> {
        let attr = tree.attr(ino)?;
        let (kind, size) = (attr.kind, attr.size);
        self.attr = Some(attr);
        let xattrs = if depth.xattrs { self.fill_more(tree, ino, depth) } else { Ok(()) };
        match kind {
            Kind::Symlink => self.target = Some(tree.read_link(ino)?),
            Kind::File if depth.hash => self.sha256 = Some(hash(tree, ino, size)?),
            _ => {}
        }
        xattrs
    }

    /// What most files have none of.
    fn fill_more(&mut self, tree: &dyn Tree, ino: InodeNo, depth: Depth) -> Result<(), Error> {
        self.xattrs = tree.xattrs(ino)?;
        self.reparse_tag = tree.reparse_tag(ino)?;
        for s in tree.streams(ino)? {
            let size = tree.attr(s.ino)?.size;
            let sha256 = if depth.hash { Some(hash(tree, s.ino, size)?) } else { None };
            self.streams.push(StreamRecord { name: s.name, size, sha256 });
        }
        Ok(())
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("path", &self.path.lossy())?;
        opt(&mut m, "path_hex", self.path.hex_if_not_utf8())?;
        opt(&mut m, "type", self.is_top.then_some(Kind::Dir))?;
        if let Some(a) = &self.attr {
            serialize_attr(&mut m, a)?;
        }
        if let Some(target) = &self.target {
            m.serialize_entry("target", &lossy(target))?;
            opt(&mut m, "target_hex", std::str::from_utf8(target).is_err().then(|| hex(target)))?;
        }
        if !self.xattrs.is_empty() {
            m.serialize_entry("xattrs", &XattrMap(&self.xattrs))?;
        }
        opt(&mut m, "reparse_tag", self.reparse_tag)?;
        if !self.streams.is_empty() {
            m.serialize_entry("streams", &StreamMap(&self.streams))?;
        }
        opt(&mut m, "sha256", self.sha256.map(|h| hex(&h)))?;
        opt(&mut m, "error", self.error.as_ref())?;
        m.end()
    }
}

/// Streams as an object of objects.
struct StreamMap<'a>(&'a [StreamRecord]);

impl Serialize for StreamMap<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(Some(self.0.len()))?;
        for stream in self.0 {
            m.serialize_entry(&lossy(&stream.name), stream)?;
        }
        m.end()
    }
}

impl Serialize for StreamRecord {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        m.serialize_entry("size", &self.size)?;
        opt(&mut m, "sha256", self.sha256.map(|h| hex(&h)))?;
        m.end()
    }
}

fn serialize_attr<M: SerializeMap>(m: &mut M, a: &Attr) -> Result<(), M::Error> {
    m.serialize_entry("type", &a.kind)?;
    m.serialize_entry("size", &a.size)?;
    m.serialize_entry("ino", &a.ino)?;
    m.serialize_entry("nlink", &a.nlink)?;
    opt(m, "mode", a.mode)?;
    opt(m, "uid", a.uid)?;
    opt(m, "gid", a.gid)?;
    m.serialize_entry("mtime", &a.mtime)?;
    m.serialize_entry("atime", &a.atime)?;
    m.serialize_entry("ctime", &a.ctime)?;
    opt(m, "crtime", a.crtime)?;
    opt(m, "rdev", a.rdev)
}

fn opt<M: SerializeMap, T: Serialize>(m: &mut M, key: &str, value: Option<T>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |v| m.serialize_entry(key, &v))
}

/// SHA-256 of the content of a regular file of `size` bytes.
fn hash(tree: &dyn Tree, ino: InodeNo, size: u64) -> Result<[u8; 32], Error> {
    let mut hash = Sha256::new();
    let chunk = usize::try_from(size).unwrap_or(HASH_CHUNK).clamp(1, HASH_CHUNK);
    let mut buf = vec![0; chunk];
    let mut offset = 0;
    while offset < size {
        let len = tree.read(ino, offset, &mut buf)?;
        if len == 0 {
            return Err(Error::corrupt("file content", offset, format!("{size} bytes"), "its end"));
        }
        hash.update(buf.get(..len).unwrap_or_default());
        offset += len as u64;
    }
    Ok(hash.finalize().into())
}

/// The names in a directory by rising bytes, as far as it can be read, and what hides the rest.
pub fn names(place: &Place) -> (Vec<Name>, Option<Error>) {
    let (mut names, problem): (Vec<Name>, _) = match place {
        Place::Top(volumes) => {
            (volumes.iter().map(|m| (m.name.as_bytes().to_vec(), lookup::volume(m))).collect(), None)
        }
        Place::File { tree, ino } => {
            let place = |ino| Place::File { tree: tree.clone(), ino };
            let (entries, problem) = tree.read_dir_partly(*ino);
            (entries.into_iter().map(|e| (e.name, place(e.ino))).collect(), problem)
        }
    };
    names.sort_by(|a, b| a.0.cmp(&b.0));
    (names, problem)
}

struct Walker {
    depth: Depth,
    /// Whether the walk started above several volumes.
    above_volumes: bool,
    /// Directories of the current volume that were walked.
    seen: HashSet<InodeNo>,
}

impl Walker {
    /// The record of `place`, and if it is a directory what to walk below it.
    fn visit(&mut self, place: &Place, path: GuestPath, level: usize) -> (Record, Option<Dir>) {
        let mut record = record(place, path, self.depth);
        if !record.is_dir() {
            return (record, None);
        }
        let entered = match place {
            Place::Top(_) => Ok(()),
            Place::File { ino, .. } => self.enter(*ino, level),
        };
        if let Err(why) = entered {
            record.error = Some(why);
            return (record, None);
        }
        let (names, problem) = names(place);
        record.error = record.error.or(problem.map(|e| e.to_string()));
        let dir = Dir::new(record.path.clone(), level, names);
        (record, Some(dir))
    }

    fn enter(&mut self, dir: InodeNo, level: usize) -> Result<(), String> {
        if self.above_volumes && level == 1 {
            // Volumes are walked one after another.
            self.seen.clear();
        }
        if level >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} directories below one another"));
        }
        let new = self.seen.insert(dir);
        new.then_some(()).ok_or_else(|| format!("directory inode {dir} has another name and was listed there"))
    }
}

/// A name in a directory and what it stands for.
pub type Name = (Vec<u8>, Place);

/// A directory that is being walked.
struct Dir {
    path: GuestPath,
    level: usize,
    names: Peekable<vec::IntoIter<Name>>,
    /// Directories whose name was listed and whose content was not.
    below: BinaryHeap<Reverse<Below>>,
}

/// What comes next in a directory.
enum Step {
    Name(Name),
    Below(Dir),
}

impl Dir {
    fn new(path: GuestPath, level: usize, names: Vec<Name>) -> Self {
        Self { path, level, names: names.into_iter().peekable(), below: BinaryHeap::new() }
    }

    fn next(&mut self) -> Option<Step> {
        let below_first = match (self.names.peek(), self.below.peek()) {
            (Some((name, _)), Some(Reverse(below))) => below.key < *name,
            (name, _) => name.is_none(),
        };
        if below_first { self.below.pop().map(|b| Step::Below(b.0.dir)) } else { self.names.next().map(Step::Name) }
    }
}

/// A directory's content, in the order in which it is due: by the directory's name and a slash.
struct Below {
    key: Vec<u8>,
    dir: Dir,
}

impl Below {
    fn new(mut name: Vec<u8>, dir: Dir) -> Self {
        name.push(b'/');
        Self { key: name, dir }
    }
}

impl PartialEq for Below {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Below {}

impl PartialOrd for Below {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Below {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

#[cfg(test)]
mod tests;
