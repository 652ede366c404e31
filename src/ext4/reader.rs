//! Looking into an image at rest.

use super::blocks::{Blocks, Volume};
use super::fs::{Geometry, ROOT};
use super::inode::Inode;
use super::map::Mapping;
use super::recover::Journal;
use super::superblock::Superblock;
use super::{group, superblock};
use crate::error::{Error, Result};
use crate::image::Disk;
use crate::tree::{Attr, DirEntry, Extent, Kind, StatFs, Tree, Xattr};
use crate::units::{BlockNo, InodeNo};

/// A file system on an image, with an unclean journal laid over it as a mount would.
pub struct Ext4 {
    geometry: Geometry,
    volume: Volume,
    journal: Option<Journal>,
    next: (u32, u32),
}

/// Whether `disk` starts with an ext file system.
pub fn probe(disk: &Disk) -> bool {
    superblock::probe(&**disk)
}

impl Ext4 {
    /// Open the volume `disk`.
    pub fn open(disk: Disk) -> Result<Self> {
        let mut sb = Superblock::read(&*disk)?;
        let volume = Volume::new(disk, sb.block_size, sb.blocks);
        let mut geometry = Geometry::new(sb.clone(), group::read_all(volume.disk(), &sb)?);
        let journal = geometry.open_journal(&volume)?;
        let mut next = (0, 0);
        if let Some(j) = &journal {
            next = j.recover(&volume)?;
            if volume.covered() > 0 {
                // The replay may bring a newer superblock and newer descriptors.
                sb = reread_superblock(&volume, &sb)?;
                let groups = group::read_all(&Covered(&volume), &sb)?;
                geometry = Geometry::new(sb, groups);
            }
        }
        Ok(Self { geometry, volume, journal, next })
    }

    /// For the live side: the parts, and the next transaction's id and journal block.
    pub fn into_parts(self) -> (Geometry, Volume, Option<Journal>, (u32, u32)) {
        (self.geometry, self.volume, self.journal, self.next)
    }

    /// Volume name.
    pub fn label(&self) -> String {
        crate::name::lossy(&self.geometry.sb.label).into_owned()
    }

    /// Identity.
    pub fn uuid(&self) -> [u8; 16] {
        self.geometry.sb.uuid
    }

    /// `ext2`, `ext3` or `ext4`.
    pub fn kind(&self) -> &'static str {
        self.geometry.sb.kind()
    }

    /// Whether a mount would replay the journal.
    pub fn journal_dirty(&self) -> bool {
        self.geometry.sb.needs_recovery() || self.journal.as_ref().is_some_and(|j| j.superblock.start != 0)
    }

    /// Superblock and groups.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The blocks, journal included.
    pub fn blocks(&self) -> &Volume {
        &self.volume
    }

    /// Volume byte at which inode `ino` lies.
    pub fn inode_offset(&self, ino: InodeNo) -> Result<u64> {
        let (block, within) = self.geometry.inode_place(ino)?;
        Ok(self.volume.at(block) + within as u64)
    }

    /// Where the content of `ino` lies; byte offsets in the file and on the volume.
    pub fn extents(&self, ino: InodeNo) -> Result<Vec<Extent>> {
        let inode = self.inode(ino)?;
        let size = u64::from(self.geometry.sb.block_size);
        let map = self.geometry.mapping(&self.volume, ino, &inode)?;
        Ok(map
            .runs
            .iter()
            .map(|r| Extent {
                logical_offset: r.logical.saturating_mul(size),
                disk_offset: r.physical.saturating_mul(size),
                length: r.len.saturating_mul(size),
                unwritten: r.unwritten,
            })
            .collect())
    }

    fn inode(&self, ino: InodeNo) -> Result<Inode> {
        self.geometry.inode(&self.volume, ino)?.ok_or(Error::NotFound)
    }
}

impl Geometry {
    /// Open the journal in inode `s_journal_inum`; `None` without one or with an external one.
    pub fn open_journal(&self, blocks: &dyn Blocks) -> Result<Option<Journal>> {
        let ino = InodeNo(self.sb.journal_inode.into());
        if ino.0 == 0 {
            return Ok(None);
        }
        let inode = self.inode(blocks, ino)?;
        let inode = inode.ok_or_else(|| Error::corrupt("journal inode", self.inode_at(ino), "in use", "free"))?;
        Journal::open(blocks, self.mapping(blocks, ino, &inode)?).map(Some)
    }
}

/// The volume's bytes with the journal laid over them, for what is read by byte offset.
pub(super) struct Covered<'a>(pub &'a Volume);

impl crate::image::ReadAt for Covered<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let size = u64::from(self.0.block_size());
        self.0.read_bytes(BlockNo(offset / size), offset % size, buf).map_err(|e| std::io::Error::other(e.to_string()))
    }

    fn size(&self) -> u64 {
        self.0.count().saturating_mul(self.0.block_size().into())
    }
}

fn reread_superblock(volume: &Volume, old: &Superblock) -> Result<Superblock> {
    let new = Superblock::read(&Covered(volume))?;
    let fixed = |s: &Superblock| (s.block_size, s.inode_size, s.inodes_per_group, s.blocks_per_group, s.uuid);
    if fixed(&new) != fixed(old) {
        return Err(Error::corrupt("superblock in the journal", superblock::OFFSET, "the same geometry", "another"));
    }
    Ok(new)
}

/// Read file bytes from `offset` on through `map`; holes and unwritten runs are zeros. Returns how
/// many bytes were read: less than `buf` holds only at `size`, the file's end.
pub fn read_mapped(blocks: &dyn Blocks, map: &Mapping, size: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let len = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
    let buf = buf.get_mut(..len).unwrap_or_default();
    buf.fill(0);
    let bs = u64::from(blocks.block_size());
    let end = offset.saturating_add(len as u64);
    let first = map.runs.partition_point(|r| r.end().saturating_mul(bs) <= offset);
    let runs = map.runs.get(first..).unwrap_or_default();
    for run in runs.iter().take_while(|r| r.logical.saturating_mul(bs) < end).filter(|r| !r.unwritten) {
        let from = (run.logical * bs).max(offset);
        let to = run.end().saturating_mul(bs).min(end);
        let (Ok(a), Ok(b)) = (usize::try_from(from - offset), usize::try_from(to - offset)) else { continue };
        let within = from - run.logical * bs;
        let part = buf.get_mut(a..b).unwrap_or_default();
        blocks.read_bytes(BlockNo(run.physical + within / bs), within % bs, part)?;
    }
    Ok(len)
}

impl Tree for Ext4 {
    fn root(&self) -> InodeNo {
        ROOT
    }

    fn attr(&self, ino: InodeNo) -> Result<Attr> {
        Ok(self.inode(ino)?.attr(ino))
    }

    fn read_dir(&self, dir: InodeNo) -> Result<Vec<DirEntry>> {
        match self.read_dir_partly(dir) {
            (names, None) => Ok(names),
            (names, Some(e)) if names.is_empty() => Err(e),
            (names, Some(e)) => {
                tracing::warn!("directory inode {dir}: {e}");
                Ok(names)
            }
        }
    }

    fn read_dir_partly(&self, dir: InodeNo) -> (Vec<DirEntry>, Option<Error>) {
        let mut all = Vec::new();
        let walked = self.inode(dir).and_then(|inode| {
            self.geometry.each_entry(&self.volume, dir, &inode, |e| {
                if !e.is_dot() {
                    all.push(DirEntry { ino: InodeNo(e.ino.into()), name: e.name.to_vec(), kind: e.kind });
                }
            })
        });
        (all, walked.err())
    }

    fn read(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(ino)?;
        match inode.kind {
            Kind::Dir => return Err(Error::IsADirectory),
            Kind::File if inode.is_inline() => {
                let data = self.geometry.inline_data(&self.volume, ino, &inode)?;
                let rest = usize::try_from(offset).ok().and_then(|o| data.get(o..)).unwrap_or_default();
                let len = rest.len().min(buf.len());
                for (to, from) in buf.iter_mut().zip(rest) {
                    *to = *from;
                }
                return Ok(len);
            }
            _ => {}
        }
        let map = self.geometry.mapping(&self.volume, ino, &inode)?;
        read_mapped(&self.volume, &map, inode.size, offset, buf)
    }

    fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        self.geometry.link_target(&self.volume, ino, &self.inode(ino)?)
    }

    fn xattrs(&self, ino: InodeNo) -> Result<Vec<Xattr>> {
        self.geometry.xattrs(&self.volume, ino, &self.inode(ino)?)
    }

    fn stat_fs(&self) -> Result<StatFs> {
        Ok(self.geometry.stat_fs())
    }
}

impl Geometry {
    /// Totals by the superblock.
    pub fn stat_fs(&self) -> StatFs {
        StatFs {
            block_size: self.sb.block_size,
            blocks: self.sb.blocks,
            free_blocks: self.sb.free_blocks,
            inodes: self.sb.inodes.into(),
            free_inodes: self.sb.free_inodes.into(),
        }
    }
}
