//! Block group descriptors.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::features::{Incompat, RoCompat};
use super::superblock::Superblock;
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::units::BlockNo;

const INODE_UNINIT: u16 = 0x1;
/// More groups than this (128 TiB with 4 KiB blocks) are taken for damage rather than for a disk.
const MAX_GROUPS: u64 = 1 << 20;

/// First 32 bytes of `struct ext4_group_desc` (Linux `fs/ext4/ext4.h`).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    bg_block_bitmap_lo: U32,
    bg_inode_bitmap_lo: U32,
    bg_inode_table_lo: U32,
    bg_free_blocks_count_lo: U16,
    bg_free_inodes_count_lo: U16,
    bg_used_dirs_count_lo: U16,
    bg_flags: U16,
    bg_exclude_bitmap_lo: U32,
    bg_block_bitmap_csum_lo: U16,
    bg_inode_bitmap_csum_lo: U16,
    bg_itable_unused_lo: U16,
    bg_checksum: U16,
}

/// Bytes 32..56 of a 64-byte descriptor.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHigh {
    bg_block_bitmap_hi: U32,
    bg_inode_bitmap_hi: U32,
    bg_inode_table_hi: U32,
    bg_free_blocks_count_hi: U16,
    bg_free_inodes_count_hi: U16,
    bg_used_dirs_count_hi: U16,
    bg_itable_unused_hi: U16,
}

/// Where a group's parts lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Block of the block bitmap.
    pub block_bitmap: BlockNo,
    /// Block of the inode bitmap.
    pub inode_bitmap: BlockNo,
    /// First block of the inode table.
    pub inode_table: BlockNo,
    /// How many inodes from the table's start on may be in use; the rest never was.
    pub used_inodes: u32,
    /// Byte offset of the descriptor on the volume.
    pub at: u64,
}

/// Read all descriptors. A descriptor that points outside the volume is `Corrupt`.
pub fn read_all(disk: &dyn ReadAt, sb: &Superblock) -> Result<Vec<Group>> {
    let groups = sb.groups();
    if groups > MAX_GROUPS {
        return Err(Error::Unsupported { what: format!("{groups} block groups"), at: super::superblock::OFFSET });
    }
    let per_block = u64::from(sb.block_size) / u64::from(sb.desc_size);
    let mut block = vec![0; usize::try_from(sb.block_size).unwrap_or(0)];
    let mut all = Vec::new();
    for index in 0..groups.div_ceil(per_block) {
        let at = descriptor_block(sb, index, per_block).0.saturating_mul(u64::from(sb.block_size));
        disk.read_at(at, &mut block).map_err(|source| Error::Io { what: "group descriptors", at, source })?;
        let here = per_block.min(groups - index * per_block);
        for (bytes, n) in block.chunks_exact(usize::from(sb.desc_size)).zip(0..here) {
            all.push(parse(sb, bytes, at + n * u64::from(sb.desc_size))?);
        }
    }
    Ok(all)
}

/// The block that holds descriptor block `index` (`descriptor_loc` in Linux `fs/ext4/super.c`).
pub fn descriptor_block(sb: &Superblock, index: u64, per_block: u64) -> BlockNo {
    let first = u64::from(sb.first_data_block);
    if !sb.incompat.contains(Incompat::META_BG) || index < u64::from(sb.first_meta_bg) {
        return BlockNo(first + 1 + index);
    }
    let group = index * per_block;
    let start = first + group * u64::from(sb.blocks_per_group);
    BlockNo(start + u64::from(sb.has_super(group)))
}

/// Parse one descriptor that lies at volume byte `at`.
pub fn parse(sb: &Superblock, bytes: &[u8], at: u64) -> Result<Group> {
    let short = || Error::corrupt("group descriptor", at, "at least 32 bytes", bytes.len());
    let (lo, rest) = Raw::read_from_prefix(bytes).map_err(|_| short())?;
    let hi = if sb.desc_size >= 64 { RawHigh::read_from_prefix(rest).ok().map(|(h, _)| h) } else { None };
    let join = |lo: U32, hi: Option<U32>| u64::from(hi.map_or(0, U32::get)) << 32 | u64::from(lo.get());
    let table_blocks = u64::from(sb.inodes_per_group) * u64::from(sb.inode_size) / u64::from(sb.block_size);
    let place = |what, block: u64, len: u64| match block.checked_add(len) {
        Some(end) if block >= u64::from(sb.first_data_block) && end <= sb.blocks => Ok(BlockNo(block)),
        _ => Err(Error::corrupt(what, at, format!("a block below {}", sb.blocks), block)),
    };
    let checked = sb.ro_compat.intersects(RoCompat::GDT_CSUM | RoCompat::METADATA_CSUM);
    let unused = u32::from(lo.bg_itable_unused_lo.get())
        | u32::from(hi.as_ref().map_or(0, |h| h.bg_itable_unused_hi.get())) << 16;
    let used_inodes = match (checked, lo.bg_flags.get() & INODE_UNINIT != 0) {
        (true, true) => 0,
        (true, false) => sb.inodes_per_group.saturating_sub(unused),
        (false, _) => sb.inodes_per_group,
    };
    Ok(Group {
        block_bitmap: place("block bitmap", join(lo.bg_block_bitmap_lo, hi.as_ref().map(|h| h.bg_block_bitmap_hi)), 1)?,
        inode_bitmap: place("inode bitmap", join(lo.bg_inode_bitmap_lo, hi.as_ref().map(|h| h.bg_inode_bitmap_hi)), 1)?,
        inode_table: place(
            "inode table",
            join(lo.bg_inode_table_lo, hi.as_ref().map(|h| h.bg_inode_table_hi)),
            table_blocks,
        )?,
        used_inodes,
        at,
    })
}
