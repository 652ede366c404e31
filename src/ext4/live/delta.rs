//! From changed blocks to changed files: which inodes, maps and directory entries differ from what
//! was known. Updates the [`State`] except for the names, whose order matters and comes later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::load;
use super::state::{Entries, State};
use crate::error::{Error, Result};
use crate::ext4::blocks::{Blocks, Volume};
use crate::ext4::inode::Inode;
use crate::ext4::map::{Mapping, Run};
use crate::namespace::Name;
use crate::ranges::RangeSet;
use crate::tree::{Kind, Xattr};
use crate::units::{BlockNo, InodeNo, Timestamp};

/// Blocks with their new bytes.
pub type Changed = BTreeMap<BlockNo, Arc<[u8]>>;

/// An inode before and after.
#[derive(Debug, Default)]
pub struct Touched {
    /// Its number.
    pub ino: u32,
    /// Before; `None` if it was not in use.
    pub old: Option<Arc<Inode>>,
    /// After; `None` if it is not in use.
    pub new: Option<Arc<Inode>>,
    /// Its blocks before.
    pub old_map: Arc<Mapping>,
    /// Its blocks after.
    pub new_map: Arc<Mapping>,
    /// Its extended attributes before, where they may have changed.
    pub old_xattrs: Vec<Xattr>,
    /// Likewise after.
    pub new_xattrs: Vec<Xattr>,
}

impl Touched {
    /// The number now stands for another file than before.
    pub fn is_replaced(&self) -> bool {
        matches!((&self.old, &self.new), (Some(o), Some(n)) if !o.same_file(n))
    }
}

/// A name of a file in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Named {
    /// The directory.
    pub dir: u32,
    /// The name.
    pub name: Name,
    /// What it stands for.
    pub ino: u32,
}

/// What differs.
#[derive(Debug, Default)]
pub struct Delta {
    /// Inodes whose fields, blocks or attributes may differ.
    pub inodes: BTreeMap<u32, Touched>,
    /// Names that went.
    pub removed: Vec<Named>,
    /// Names that came.
    pub added: Vec<Named>,
    /// Symbolic links whose targets have not been written yet.
    pub unready: BTreeSet<u32>,
    /// Blocks of files that another file claimed, and gave back.
    pub regained: Vec<Range<u64>>,
    /// Maps were regained: compare once more.
    pub again: bool,
    /// What could not be understood.
    pub errors: Vec<Error>,
}

/// What is needed to find the differences.
pub struct Differ<'a> {
    /// What was known; updated.
    pub state: &'a mut State,
    /// The volume with the new blocks in place.
    pub volume: &'a Volume,
    /// The new blocks.
    pub changed: &'a Changed,
    /// Bytes of the volume that were written and whose owner was not known.
    pub written: [&'a RangeSet; 2],
    /// Inodes whose blocks could not be understood before; tried again.
    pub unresolved: &'a mut Unresolved,
    /// Those of them that are tried again now.
    tries: Unresolved,
    /// Blocks of directories that another file claimed, and gave back: read although nobody wrote
    /// to them as to a directory's.
    regained: HashMap<BlockNo, (u32, u64)>,
    /// When the blocks were written.
    now: Timestamp,
}

/// More unresolved inodes than this are forgotten (they are read again when they change).
const MAX_UNRESOLVED: usize = 4096;
/// After so many seconds the block that an inode waits for is taken as it is: a kernel writes
/// everything that is older than 30 seconds.
const MAX_WAIT: i64 = 40;

/// Inodes whose blocks were not there yet, and since when.
pub type Unresolved = BTreeMap<u32, Timestamp>;

impl<'a> Differ<'a> {
    /// Compare with `state`; `volume` shows the `changed` blocks already.
    pub fn new(
        state: &'a mut State,
        volume: &'a Volume,
        changed: &'a Changed,
        written: [&'a RangeSet; 2],
        unresolved: &'a mut Unresolved,
        now: Timestamp,
    ) -> Self {
        Self { state, volume, changed, written, unresolved, tries: Unresolved::new(), regained: HashMap::new(), now }
    }
}

impl Differ<'_> {
    /// Find all differences.
    pub fn run(mut self) -> Delta {
        let mut delta = Delta::default();
        let mut inodes = self.new_inodes(&mut delta.errors);
        for ino in self.inodes_of_changed_blocks() {
            inodes.entry(ino).or_insert_with(|| self.state.inodes.get(&ino).cloned());
        }
        for (ino, new) in inodes {
            let touched = self.touch(ino, new, &mut delta.errors);
            if self.lacks_target(&touched) {
                delta.unready.insert(ino);
                self.unresolve(ino);
            }
            delta.inodes.insert(ino, touched);
        }
        self.update(&mut delta);
        self.settle_disputes(&mut delta);
        let mut dir_blocks = self.dir_blocks(&delta);
        dir_blocks.extend(self.regained.iter().map(|(block, key)| (*key, Some(*block))));
        for (key, block) in dir_blocks {
            self.diff_dir_block(key, block, &mut delta);
        }
        delta
    }

    /// Blocks that two inodes claimed go back to the one that still does. What was written to them
    /// meanwhile was taken for the other's: content counts as written, names and maps are read again.
    fn settle_disputes(&mut self, delta: &mut Delta) {
        for ino in self.state.owners.take_disputed() {
            let Some(inode) = self.state.inodes.get(&ino).cloned() else { continue };
            let map = self.state.mapping(ino, &inode);
            let (content, nodes) = self.state.owners.regain(ino, &map);
            if nodes {
                delta.again = true;
                self.unresolve(ino);
            }
            if inode.kind != Kind::Dir || inode.is_inline() {
                delta.regained.extend(content);
                continue;
            }
            let end = self.blocks_of(&inode);
            let owned = content.into_iter().flat_map(|r| self.state.owners.data_in(r).collect::<Vec<_>>());
            for (n, o) in owned.flat_map(|o| (0..o.len).map(move |n| (n, o))).filter(|(n, o)| o.logical + n < end) {
                self.regained.insert(BlockNo(o.physical + n), (ino, o.logical + n));
            }
        }
    }

    /// Inodes that differ in the changed blocks of inode tables.
    fn new_inodes(&self, errors: &mut Vec<Error>) -> BTreeMap<u32, Option<Arc<Inode>>> {
        let mut all = BTreeMap::new();
        for (block, bytes) in self.changed {
            for (ino, within) in self.state.geometry.inodes_in(*block) {
                let size = usize::from(self.state.geometry.sb.inode_size);
                let raw = bytes.get(within..within + size).unwrap_or_default();
                match Inode::parse(&self.state.geometry.sb, raw, self.volume.at(*block) + within as u64) {
                    Ok(new) if new.as_ref() == self.state.inodes.get(&ino).map(|i| &**i) => {}
                    Ok(new) => {
                        all.insert(ino, new.map(Arc::new));
                    }
                    Err(e) => errors.push(e),
                }
            }
        }
        all
    }

    /// Inodes whose map or attributes lie in changed blocks, and those that were not understood.
    fn inodes_of_changed_blocks(&mut self) -> BTreeSet<u32> {
        self.tries = std::mem::take(self.unresolved);
        let mut all: BTreeSet<u32> = self.tries.keys().copied().collect();
        for block in self.changed.keys() {
            all.extend(self.state.owners.nodes.get(&block.0));
            if let Some(x) = self.state.owners.xattrs.get(&block.0) {
                all.extend(&x.users);
            }
        }
        all
    }

    fn touch(&mut self, ino: u32, new: Option<Arc<Inode>>, errors: &mut Vec<Error>) -> Touched {
        let old = self.state.inodes.get(&ino).cloned();
        let old_map = old.as_ref().map(|i| self.state.mapping(ino, i)).unwrap_or_default();
        let old_xattrs = old.as_ref().map(|i| self.state.xattrs(self.volume, ino, i)).unwrap_or_default();
        let mut new_map = Arc::default();
        if let Some(inode) = &new {
            let known = Known { differ: self, ino };
            let at = self.state.geometry.inode_at(InodeNo(ino.into()));
            match Mapping::read(&self.state.geometry.sb, &known, inode, at) {
                Ok(map) => new_map = Arc::new(map),
                Err(e) => {
                    new_map = old_map.clone();
                    self.unresolve(ino);
                    errors.push(e);
                }
            }
        }
        Touched { ino, old, new, old_map, new_map, old_xattrs, new_xattrs: Vec::new() }
    }

    /// Whether this is a new symbolic link whose block still holds what its last owner left there:
    /// a kernel writes the target and a NUL.
    fn lacks_target(&self, t: &Touched) -> bool {
        let Some(inode) = t.new.as_ref().filter(|i| i.kind == Kind::Symlink) else { return false };
        let known = t.old.is_some() && !t.is_replaced() && !self.tries.contains_key(&t.ino);
        let Some(run) = t.new_map.runs.first().filter(|_| !known && !self.is_tired(t.ino)) else { return false };
        let block = BlockNo(run.physical);
        let Ok(bytes) = self.changed.get(&block).map_or_else(|| self.volume.read(block), |b| Ok(b.clone())) else {
            return true;
        };
        let (target, rest) =
            usize::try_from(inode.size).ok().and_then(|n| bytes.split_at_checked(n)).unwrap_or_default();
        target.contains(&0) || rest.first().is_some_and(|b| *b != 0)
    }

    /// Whether waiting for the blocks of `ino` has been in vain.
    fn is_tired(&self, ino: u32) -> bool {
        self.tries.get(&ino).is_some_and(|since| self.now.secs.saturating_sub(since.secs) >= MAX_WAIT)
    }

    fn unresolve(&mut self, ino: u32) {
        if self.unresolved.len() < MAX_UNRESOLVED {
            self.unresolved.insert(ino, self.tries.get(&ino).copied().unwrap_or(self.now));
        }
    }

    /// Bring inodes, maps, owners and attribute blocks of the state up to date. All files let go
    /// of their blocks before any takes new ones, since blocks move between files.
    fn update(&mut self, delta: &mut Delta) {
        for (ino, t) in &delta.inodes {
            self.state.owners.remap(*ino, &t.old_map, &t.new_map);
            match &t.new {
                Some(inode) => {
                    self.state.inodes.insert(*ino, inode.clone());
                    self.state.set_mapping(*ino, t.new_map.clone());
                }
                None => {
                    self.state.inodes.remove(ino);
                    self.state.maps.remove(ino);
                }
            }
        }
        for (ino, t) in &delta.inodes {
            self.state.owners.remap_new(*ino, &t.old_map, &t.new_map);
            self.update_xattr_block(*ino, t);
        }
        self.reparse_xattr_blocks(&mut delta.errors);
        for (ino, t) in &mut delta.inodes {
            t.new_xattrs = t.new.as_ref().map(|i| self.state.xattrs(self.volume, *ino, i)).unwrap_or_default();
        }
    }

    fn update_xattr_block(&mut self, ino: u32, t: &Touched) {
        let block = |i: &Option<Arc<Inode>>| i.as_ref().map_or(0, |i| i.xattr_block);
        let (old, new) = (block(&t.old), block(&t.new));
        if old != new {
            let xattrs = &mut self.state.owners.xattrs;
            if let Some(x) = xattrs.get_mut(&old) {
                x.users.remove(&ino);
                if x.users.is_empty() {
                    xattrs.remove(&old);
                }
            }
            load::load_xattr_block(self.state, self.volume, ino, new);
        }
    }

    fn reparse_xattr_blocks(&mut self, errors: &mut Vec<Error>) {
        for (block, bytes) in self.changed {
            if let Some(x) = self.state.owners.xattrs.get_mut(&block.0) {
                match crate::ext4::xattr::parse_block(bytes, self.volume.at(*block)) {
                    Ok(entries) => x.entries = entries,
                    Err(e) => errors.push(e),
                }
            }
        }
    }

    /// The directory blocks to compare: where they now lie, or `None` if they are gone.
    fn dir_blocks(&self, delta: &Delta) -> HashMap<(u32, u64), Option<BlockNo>> {
        let mut all = HashMap::new();
        for (ino, t) in &delta.inodes {
            self.dir_blocks_of(*ino, t, &mut all);
        }
        for block in self.changed.keys() {
            let Some(o) = self.state.owners.data_at(block.0) else { continue };
            let Some(inode) = self.state.inodes.get(&o.ino).filter(|i| i.kind == Kind::Dir) else { continue };
            if o.logical < self.blocks_of(inode) {
                all.insert((o.ino, o.logical), Some(*block));
            }
        }
        all
    }

    fn blocks_of(&self, inode: &Inode) -> u64 {
        inode.size.div_ceil(self.volume.block_size().into())
    }

    fn dir_blocks_of(&self, ino: u32, t: &Touched, all: &mut HashMap<(u32, u64), Option<BlockNo>>) {
        let known = self.state.dirs.range((ino, 0)..=(ino, u64::MAX)).map(|(k, _)| (*k, None));
        let is_dir = |i: &Option<Arc<Inode>>| i.as_ref().is_some_and(|i| i.kind == Kind::Dir && !i.is_inline());
        let Some(inode) = t.new.as_ref().filter(|_| is_dir(&t.new)) else {
            all.extend(known);
            return;
        };
        let size = |i: &Option<Arc<Inode>>| i.as_ref().map(|i| i.size);
        if !t.is_replaced() && is_dir(&t.old) && t.old_map == t.new_map && size(&t.old) == size(&t.new) {
            return;
        }
        all.extend(known);
        let end = self.blocks_of(inode);
        for run in t.new_map.runs.iter().filter_map(|r| r.cut(0, end)).filter(|r| !r.unwritten) {
            for (logical, physical) in (run.logical..run.end()).zip(run.physical..) {
                let same = !t.is_replaced() && is_dir(&t.old) && at(&t.old_map, logical) == Some(physical);
                if same && self.state.dirs.contains_key(&(ino, logical)) {
                    all.remove(&(ino, logical));
                } else {
                    all.insert((ino, logical), Some(BlockNo(physical)));
                }
            }
        }
    }

    fn diff_dir_block(&mut self, key: (u32, u64), block: Option<BlockNo>, delta: &mut Delta) {
        let new = match block {
            None => Entries::default(),
            Some(b) => self.entries(b, &mut delta.errors),
        };
        let old = match block {
            None => self.state.dirs.remove(&key),
            Some(_) => self.state.dirs.insert(key, new.clone()),
        };
        let old = old.unwrap_or_default();
        let named = |(ino, name): &(u32, Name)| Named { dir: key.0, name: name.clone(), ino: *ino };
        // The names in a directory that took over another's number are all new.
        let other = delta.inodes.get(&key.0).is_some_and(Touched::is_replaced);
        delta.removed.extend(old.iter().filter(|e| other || !contains(&new, e)).map(named));
        delta.added.extend(new.iter().filter(|e| other || !contains(&old, e)).map(named));
    }

    /// Entries of the directory block `b`: empty as long as it has not been written as one.
    fn entries(&self, b: BlockNo, errors: &mut Vec<Error>) -> Entries {
        let bytes = match self.changed.get(&b) {
            Some(bytes) => Ok(bytes.clone()),
            None if self.is_written(b) || self.regained.contains_key(&b) => self.volume.read(b),
            None => return Entries::default(),
        };
        match bytes {
            Ok(bytes) => {
                let (entries, parsed) = self.state.parse_dir_block(&bytes, self.volume.at(b));
                errors.extend(parsed.err());
                entries
            }
            Err(e) => {
                errors.push(e);
                Entries::default()
            }
        }
    }

    /// Whether the bytes of `b` are the owner's: a newly allocated block may still hold what its
    /// last owner left there.
    fn is_written(&self, b: BlockNo) -> bool {
        let at = self.volume.at(b);
        let bytes = at..at + u64::from(self.volume.block_size());
        self.volume.covering(b).is_some() || self.written.iter().any(|w| w.contains(&bytes))
    }
}

fn at(map: &Mapping, logical: u64) -> Option<u64> {
    let run: &Run = map.at_or_after(logical)?;
    (run.logical <= logical).then(|| run.physical + (logical - run.logical))
}

fn contains(entries: &Entries, e: &(u32, Name)) -> bool {
    let from = entries.partition_point(|x| x.1 < e.1);
    entries.iter().skip(from).take_while(|x| x.1 == e.1).any(|x| x.0 == e.0)
}

/// The volume as one inode may read its map from it: blocks that are known to be its nodes, or
/// have been written since they were free.
struct Known<'a, 'b> {
    differ: &'a Differ<'b>,
    ino: u32,
}

impl Blocks for Known<'_, '_> {
    fn block_size(&self) -> u32 {
        self.differ.volume.block_size()
    }

    fn count(&self) -> u64 {
        self.differ.volume.count()
    }

    fn read_into(&self, block: BlockNo, buf: &mut [u8]) -> Result<()> {
        if let Some(bytes) = self.differ.changed.get(&block) {
            if bytes.len() == buf.len() {
                buf.copy_from_slice(bytes);
            }
            return Ok(());
        }
        let own = self.differ.state.owners.nodes.get(&block.0) == Some(&self.ino);
        if own || self.differ.is_written(block) || self.differ.is_tired(self.ino) {
            return self.differ.volume.read_into(block, buf);
        }
        let at = self.differ.volume.at(block);
        Err(Error::corrupt("block map", at, "a node that was written", "a block that was not"))
    }

    fn read_bytes(&self, block: BlockNo, within: u64, buf: &mut [u8]) -> Result<()> {
        self.differ.volume.read_bytes(block, within, buf)
    }
}
