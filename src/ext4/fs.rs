//! An ext2, ext3 or ext4 file system: its geometry and access to its inodes. Everything reads
//! through a [`Blocks`], so that the live side can lay newer blocks over the image.

use std::sync::Arc;

use super::blocks::Blocks;
use super::dir;
use super::features::Incompat;
use super::group::Group;
use super::inode::Inode;
use super::map::Mapping;
use super::superblock::Superblock;
use super::xattr;
use crate::error::{Error, Result};
use crate::tree::{Kind, Xattr};
use crate::units::{BlockNo, InodeNo};

/// The root directory (`EXT4_ROOT_INO`).
pub const ROOT: InodeNo = InodeNo(2);
/// A larger attribute value is taken for damage (`EXT4_XATTR_SIZE_MAX`).
const MAX_XATTR: u64 = 1 << 24;

/// Superblock and group descriptors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// The superblock.
    pub sb: Superblock,
    /// All group descriptors.
    pub groups: Arc<[Group]>,
    /// First block of each inode table and its group, by rising block.
    tables: Arc<[(u64, u32)]>,
}

impl Geometry {
    /// Of a superblock and its group descriptors.
    pub fn new(sb: Superblock, groups: Vec<Group>) -> Self {
        let mut tables: Vec<_> = groups.iter().zip(0..).map(|(g, n)| (g.inode_table.0, n)).collect();
        tables.sort_unstable();
        Self { sb, groups: groups.into(), tables: tables.into() }
    }

    /// The inodes that lie in `block`, each with its byte offset in the block; none if it belongs
    /// to no inode table.
    pub fn inodes_in(&self, block: BlockNo) -> impl Iterator<Item = (u32, usize)> + use<> {
        let i = self.tables.partition_point(|(start, _)| *start <= block.0);
        let table = i.checked_sub(1).and_then(|i| self.tables.get(i)).copied();
        let size = u64::from(self.sb.inode_size);
        let per_block = u64::from(self.sb.block_size) / size;
        let first = table.filter(|(start, _)| block.0 - start < self.table_blocks()).map(|(start, group)| {
            u64::from(group) * u64::from(self.sb.inodes_per_group) + (block.0 - start) * per_block + 1
        });
        let (last, first) = (u64::from(self.sb.inodes), first.unwrap_or(u64::MAX));
        let all = (0..per_block).map_while(move |n| Some((first.checked_add(n).filter(|i| *i <= last)?, n * size)));
        all.filter_map(|(ino, at)| Some((u32::try_from(ino).ok()?, usize::try_from(at).ok()?)))
    }

    /// Block, and byte within it, of inode `ino`.
    pub fn inode_place(&self, ino: InodeNo) -> Result<(BlockNo, usize)> {
        let out = || Error::corrupt("inode number", 0, format!("1..={}", self.sb.inodes), ino);
        let index = ino.0.checked_sub(1).filter(|i| *i < u64::from(self.sb.inodes)).ok_or_else(out)?;
        let per_group = u64::from(self.sb.inodes_per_group);
        let group = usize::try_from(index / per_group).ok().and_then(|g| self.groups.get(g)).ok_or_else(out)?;
        let byte = index % per_group * u64::from(self.sb.inode_size);
        let size = u64::from(self.sb.block_size);
        let within = usize::try_from(byte % size).map_err(|_| out())?;
        Ok((BlockNo(group.inode_table.0 + byte / size), within))
    }

    /// Volume byte at which inode `ino` lies, or 0 if there is no such inode.
    pub fn inode_at(&self, ino: InodeNo) -> u64 {
        self.inode_place(ino).map_or(0, |(b, w)| b.0 * u64::from(self.sb.block_size) + w as u64)
    }

    /// Blocks of one group's inode table.
    pub fn table_blocks(&self) -> u64 {
        (u64::from(self.sb.inodes_per_group) * u64::from(self.sb.inode_size)).div_ceil(self.sb.block_size.into())
    }

    /// Read and parse inode `ino`; `None` if it is not in use.
    pub fn inode(&self, blocks: &dyn Blocks, ino: InodeNo) -> Result<Option<Inode>> {
        let (block, within) = self.inode_place(ino)?;
        let bytes = blocks.read(block)?;
        let end = within + usize::from(self.sb.inode_size);
        Inode::parse(&self.sb, bytes.get(within..end).unwrap_or_default(), blocks.at(block) + within as u64)
    }

    /// The whole block map of `inode`.
    pub fn mapping(&self, blocks: &dyn Blocks, ino: InodeNo, inode: &Inode) -> Result<Mapping> {
        Mapping::read(&self.sb, blocks, inode, self.inode_at(ino))
    }

    /// Whether directory entries record kinds.
    pub fn has_kinds(&self) -> bool {
        self.sb.incompat.contains(Incompat::FILETYPE)
    }

    /// Call `found` with each name of directory `ino` (also `.` and `..`). Damage in one block
    /// hides the rest of that block only; the first such error comes back when all is done.
    pub fn each_entry(
        &self,
        blocks: &dyn Blocks,
        ino: InodeNo,
        inode: &Inode,
        mut found: impl FnMut(dir::Entry<'_>),
    ) -> Result<()> {
        if inode.kind != Kind::Dir {
            return Err(Error::NotADirectory);
        }
        if inode.is_inline() {
            return self.each_inline_entry(blocks, ino, inode, found);
        }
        let mut first_error = None;
        let map = self.mapping(blocks, ino, inode)?;
        let mut buf = vec![0; self.sb.block_size as usize];
        let size = u64::from(self.sb.block_size);
        let end = inode.size.div_ceil(size);
        for run in map.runs.iter().filter_map(|r| r.cut(0, end)).filter(|r| !r.unwritten) {
            for block in run.physical..run.physical + run.len {
                let parsed = blocks
                    .read_into(BlockNo(block), &mut buf)
                    .and_then(|()| dir::parse(&buf, blocks.at(BlockNo(block)), self.has_kinds(), &mut found));
                first_error = first_error.or(parsed.err());
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Inline directories: `i_block` starts with the parent's number, then entries; more entries
    /// follow in the attribute `system.data` (Linux `fs/ext4/inline.c`).
    fn each_inline_entry(
        &self,
        blocks: &dyn Blocks,
        ino: InodeNo,
        inode: &Inode,
        mut found: impl FnMut(dir::Entry<'_>),
    ) -> Result<()> {
        let at = self.inode_at(ino);
        dir::parse(inode.block.get(4..).unwrap_or_default(), at, self.has_kinds(), &mut found)?;
        let more = self.inline_tail(blocks, ino, inode)?;
        dir::parse(&more, at, self.has_kinds(), found)
    }

    /// Value of `system.data`: what does not fit into `i_block`.
    fn inline_tail(&self, blocks: &dyn Blocks, ino: InodeNo, inode: &Inode) -> Result<Vec<u8>> {
        let entries = self.xattr_entries(blocks, ino, inode)?;
        let data = entries.into_iter().find(|e| e.name == b"system.data");
        data.map_or(Ok(Vec::new()), |e| self.xattr_value(blocks, &e))
    }

    /// Content of a file whose data lies in its inode, `inode.size` bytes of it.
    pub fn inline_data(&self, blocks: &dyn Blocks, ino: InodeNo, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.block.to_vec();
        data.extend(self.inline_tail(blocks, ino, inode)?);
        data.resize(usize::try_from(inode.size.min(MAX_XATTR)).unwrap_or(0), 0);
        Ok(data)
    }

    fn xattr_entries(&self, blocks: &dyn Blocks, ino: InodeNo, inode: &Inode) -> Result<Vec<xattr::Entry>> {
        let mut all = match &inode.xattrs {
            Some(area) => xattr::parse_inode(area, self.inode_at(ino))?,
            None => Vec::new(),
        };
        if inode.xattr_block != 0 {
            let block = BlockNo(inode.xattr_block);
            all.extend(xattr::parse_block(&blocks.read(block)?, blocks.at(block))?);
        }
        Ok(all)
    }

    /// The value of an attribute, wherever it lies.
    pub fn xattr_value(&self, blocks: &dyn Blocks, entry: &xattr::Entry) -> Result<Vec<u8>> {
        match &entry.value {
            xattr::Value::Here(bytes) => Ok(bytes.clone()),
            xattr::Value::Inode(ino, size) => {
                let ino = InodeNo((*ino).into());
                let inode = self.inode(blocks, ino)?.ok_or(Error::NotFound)?;
                if *size > MAX_XATTR {
                    return Err(Error::corrupt("attribute size", self.inode_at(ino), format!("<= {MAX_XATTR}"), size));
                }
                let mut value = vec![0; usize::try_from(*size).unwrap_or(0)];
                let map = self.mapping(blocks, ino, &inode)?;
                super::reader::read_mapped(blocks, &map, inode.size, 0, &mut value)?;
                Ok(value)
            }
        }
    }

    /// Extended attributes as `getxattr` shows them, by rising name.
    pub fn xattrs(&self, blocks: &dyn Blocks, ino: InodeNo, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut all = Vec::new();
        for entry in self.xattr_entries(blocks, ino, inode)? {
            let value = self.xattr_value(blocks, &entry)?;
            all.extend(xattr::shown(&entry, value));
        }
        all.sort();
        Ok(all)
    }

    /// Target of the symlink `inode`, raw bytes.
    pub fn link_target(&self, blocks: &dyn Blocks, ino: InodeNo, inode: &Inode) -> Result<Vec<u8>> {
        if inode.kind != Kind::Symlink {
            return Err(Error::NotASymlink);
        }
        if inode.is_inline() {
            return self.inline_data(blocks, ino, inode);
        }
        let len = usize::try_from(inode.size).ok().filter(|l| *l <= self.sb.block_size as usize);
        let too_long = || Error::corrupt("symlink size", self.inode_at(ino), "at most a block", inode.size);
        let mut target = vec![0; len.ok_or_else(too_long)?];
        if inode.is_fast_symlink(&self.sb) {
            let len = target.len().min(inode.block.len());
            target.copy_from_slice(inode.block.get(..len).unwrap_or_default());
        } else {
            let map = self.mapping(blocks, ino, inode)?;
            super::reader::read_mapped(blocks, &map, inode.size, 0, &mut target)?;
        }
        Ok(target)
    }
}
