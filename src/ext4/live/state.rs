//! What is known of a live file system: the state that the events so far have told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::delta::{Delta, Named, Touched};
use super::owners::Owners;
use crate::error::Result;
use crate::ext4::blocks::Blocks;
use crate::ext4::dir;
use crate::ext4::fs::{Geometry, ROOT};
use crate::ext4::inode::Inode;
use crate::ext4::map::Mapping;
use crate::ext4::xattr;
use crate::namespace::{Link, Name, Namespace};
use crate::tree::{Kind, Xattr};
use crate::units::{BlockNo, InodeNo};

/// The entries of one directory block: inode and name, `.` and `..` left out, by rising name.
pub type Entries = Box<[(u32, Name)]>;

/// The state.
#[derive(Debug)]
pub struct State {
    /// Superblock and groups.
    pub geometry: Geometry,
    /// Inodes in use.
    pub inodes: BTreeMap<u32, Arc<Inode>>,
    /// Maps of those inodes whose maps need blocks of their own; the others follow from the inode.
    pub maps: HashMap<u32, Arc<Mapping>>,
    /// Directory and block within it → entries.
    pub dirs: BTreeMap<(u32, u64), Entries>,
    /// Whose are the blocks.
    pub owners: Owners,
    /// The names.
    pub names: Namespace,
}

impl State {
    /// Nothing but the geometry.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            inodes: BTreeMap::new(),
            maps: HashMap::new(),
            dirs: BTreeMap::new(),
            owners: Owners::default(),
            names: Namespace::new(ROOT),
        }
    }

    /// The map of `inode` as known, without reading the disk.
    pub fn mapping(&self, ino: u32, inode: &Inode) -> Arc<Mapping> {
        if let Some(map) = self.maps.get(&ino) {
            return map.clone();
        }
        let geometry = &self.geometry;
        geometry.mapping(&NoBlocks(geometry), InodeNo(ino.into()), inode).unwrap_or_default().into()
    }

    /// Remember the map of `ino` if it does not follow from the inode.
    pub fn set_mapping(&mut self, ino: u32, map: Arc<Mapping>) {
        if map.nodes.is_empty() {
            self.maps.remove(&ino);
        } else {
            self.maps.insert(ino, map);
        }
    }

    /// What a name stands for by the directory's blocks, whatever the names say.
    pub fn on_disk(&self, link: &Link) -> Option<InodeNo> {
        let dir = u32::try_from(link.dir.0).ok()?;
        self.dirs.range((dir, 0)..=(dir, u64::MAX)).find_map(|(_, entries)| {
            let i = entries.binary_search_by(|e| e.1.cmp(&link.name)).ok()?;
            entries.get(i).map(|e| InodeNo(e.0.into()))
        })
    }

    /// Parse a directory block. What stands before a contradiction counts.
    pub fn parse_dir_block(&self, bytes: &[u8], at: u64) -> (Entries, Result<()>) {
        let mut all = Vec::new();
        let parsed = dir::parse(bytes, at, self.geometry.has_kinds(), |e| {
            if !e.is_dot() {
                all.push((e.ino, Name::from(e.name)));
            }
        });
        all.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        (all.into(), parsed)
    }

    /// Extended attributes of `inode` as known, without reading the disk (large values apart).
    pub fn xattrs(&self, blocks: &dyn Blocks, ino: u32, inode: &Inode) -> Vec<Xattr> {
        let at = self.geometry.inode_at(InodeNo(ino.into()));
        let mut entries = inode.xattrs.as_ref().map_or_else(Vec::new, |area| {
            xattr::parse_inode(area, at).unwrap_or_else(|e| {
                tracing::warn!("attributes of inode {ino}: {e}");
                Vec::new()
            })
        });
        if let Some(b) = self.owners.xattrs.get(&inode.xattr_block) {
            entries.extend_from_slice(&b.entries);
        }
        let mut all: Vec<Xattr> = entries
            .iter()
            .filter_map(|e| {
                let value = self.geometry.xattr_value(blocks, e).ok()?;
                xattr::shown(e, value)
            })
            .collect();
        all.sort();
        all
    }

    /// The inode as its number type.
    pub fn inode(&self, ino: InodeNo) -> Option<&Arc<Inode>> {
        self.inodes.get(&u32::try_from(ino.0).ok()?)
    }

    /// Blocks within `blocks` that hold something known: inodes in use, directory entries, maps,
    /// attributes. The work grows with what is known there, not with the range.
    pub fn metadata_in(&self, blocks: Range<u64>) -> Vec<BlockNo> {
        let mut all = BTreeSet::new();
        if blocks.is_empty() {
            return Vec::new();
        }
        let table = self.geometry.table_blocks();
        let per_group = self.geometry.sb.inodes_per_group;
        for (group, n) in self.geometry.groups.iter().zip(0u32..) {
            let start = group.inode_table.0;
            if start < blocks.end && blocks.start < start + table {
                let first = n.saturating_mul(per_group);
                let inodes = self.inodes.range(first.saturating_add(1)..=first.saturating_add(per_group));
                let places = inodes.filter_map(|(i, _)| self.geometry.inode_place(InodeNo((*i).into())).ok());
                all.extend(places.map(|(b, _)| b).filter(|b| blocks.contains(&b.0)));
            }
        }
        all.extend(self.owners.nodes.range(blocks.clone()).map(|(b, _)| BlockNo(*b)));
        all.extend(self.owners.xattrs.range(blocks.clone()).map(|(b, _)| BlockNo(*b)));
        let is_dir = |ino: u32| self.inodes.get(&ino).is_some_and(|i| i.kind == Kind::Dir);
        for o in self.owners.data_in(blocks).filter(|o| is_dir(o.ino)) {
            all.extend((o.physical..o.physical + o.len).map(BlockNo));
        }
        all.into_iter().collect()
    }

    /// Whether `bytes` of the inode-table block at volume byte `at` say what is known already.
    pub fn agrees(&self, block: BlockNo, at: u64, bytes: &[u8]) -> bool {
        let size = usize::from(self.geometry.sb.inode_size);
        let mut inodes = self.geometry.inodes_in(block).peekable();
        inodes.peek().is_some()
            && inodes.all(|(ino, within)| {
                let raw = bytes.get(within..within + size).unwrap_or_default();
                let parsed = Inode::parse(&self.geometry.sb, raw, at + within as u64);
                matches!(parsed, Ok(i) if i.as_ref() == self.inodes.get(&ino).map(|i| &**i))
            })
    }

    /// Become `new` but for the names; what differs.
    pub fn replace(&mut self, new: Self, blocks: &dyn Blocks) -> Delta {
        let mut delta = Delta::default();
        let all: BTreeSet<u32> = self.inodes.keys().chain(new.inodes.keys()).copied().collect();
        for ino in all {
            let (old_inode, new_inode) = (self.inodes.get(&ino), new.inodes.get(&ino));
            let old_map = old_inode.map(|i| self.mapping(ino, i)).unwrap_or_default();
            let new_map = new_inode.map(|i| new.mapping(ino, i)).unwrap_or_default();
            let old_xattrs = old_inode.map(|i| self.xattrs(blocks, ino, i)).unwrap_or_default();
            let new_xattrs = new_inode.map(|i| new.xattrs(blocks, ino, i)).unwrap_or_default();
            if old_inode != new_inode || old_map != new_map || old_xattrs != new_xattrs {
                let (old, new) = (old_inode.cloned(), new_inode.cloned());
                delta.inodes.insert(ino, Touched { ino, old, new, old_map, new_map, old_xattrs, new_xattrs });
            }
        }
        let named = |s: &Self| -> BTreeSet<Named> {
            let all = s.dirs.iter().flat_map(|(k, e)| e.iter().map(move |(ino, name)| (k.0, *ino, name.clone())));
            all.map(|(dir, ino, name)| Named { dir, name, ino }).collect()
        };
        let (old_names, new_names) = (named(self), named(&new));
        delta.removed = old_names.difference(&new_names).cloned().collect();
        delta.added = new_names.difference(&old_names).cloned().collect();
        let names = std::mem::replace(&mut self.names, Namespace::new(ROOT));
        *self = Self { names, ..new };
        delta
    }

    /// Give names to everything that the directory blocks reach from the root.
    pub fn link_all(&mut self) {
        let mut queue = vec![2u32];
        let mut seen = std::collections::HashSet::from([2u32]);
        while let Some(dir) = queue.pop() {
            let blocks = self.dirs.range((dir, 0)..=(dir, u64::MAX));
            for (ino, name) in blocks.flat_map(|(_, entries)| entries.iter()) {
                let Some(inode) = self.inodes.get(ino) else { continue };
                let is_dir = inode.kind == Kind::Dir;
                if is_dir && !seen.insert(*ino) {
                    tracing::warn!("directory inode {ino} has two names");
                    continue;
                }
                self.names.insert(Link { dir: InodeNo(dir.into()), name: name.clone() }, InodeNo((*ino).into()));
                if is_dir {
                    queue.push(*ino);
                }
            }
        }
    }
}

/// For maps that lie in the inode alone: reading a block is an error.
struct NoBlocks<'a>(&'a Geometry);

impl Blocks for NoBlocks<'_> {
    fn block_size(&self) -> u32 {
        self.0.sb.block_size
    }

    fn count(&self) -> u64 {
        self.0.sb.blocks
    }

    fn read_into(&self, _: BlockNo, _: &mut [u8]) -> Result<()> {
        Err(crate::error::Error::NotFound)
    }

    fn read_bytes(&self, _: BlockNo, _: u64, _: &mut [u8]) -> Result<()> {
        Err(crate::error::Error::NotFound)
    }
}
