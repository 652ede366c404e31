//! The superblock: 1024 bytes at byte 1024 of the volume.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::features::{Compat, Incompat, RoCompat};
use crate::error::{Error, Result};
use crate::image::ReadAt;

/// Where the superblock starts, in bytes from the volume's start.
pub const OFFSET: u64 = 1024;
const MAGIC: u16 = 0xEF53;
const GOOD_OLD_INODE_SIZE: u16 = 128;
const MAX_LOG_BLOCK_SIZE: u32 = 6;

/// `struct ext4_super_block` (Linux `fs/ext4/ext4.h`), as far as it is read here.
#[derive(FromBytes, Immutable, KnownLayout, Clone)]
#[repr(C)]
struct Raw {
    s_inodes_count: U32,
    s_blocks_count_lo: U32,
    s_r_blocks_count_lo: U32,
    s_free_blocks_count_lo: U32,
    s_free_inodes_count: U32,
    s_first_data_block: U32,
    s_log_block_size: U32,
    s_log_cluster_size: U32,
    s_blocks_per_group: U32,
    s_clusters_per_group: U32,
    s_inodes_per_group: U32,
    s_mtime: U32,
    s_wtime: U32,
    s_mnt_count: U16,
    s_max_mnt_count: U16,
    s_magic: U16,
    s_state: U16,
    s_errors: U16,
    s_minor_rev_level: U16,
    s_lastcheck: U32,
    s_checkinterval: U32,
    s_creator_os: U32,
    s_rev_level: U32,
    s_def_resuid: U16,
    s_def_resgid: U16,
    s_first_ino: U32,
    s_inode_size: U16,
    s_block_group_nr: U16,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_volume_name: [u8; 16],
    s_last_mounted: [u8; 64],
    s_algorithm_usage_bitmap: U32,
    s_prealloc_blocks: u8,
    s_prealloc_dir_blocks: u8,
    s_reserved_gdt_blocks: U16,
    s_journal_uuid: [u8; 16],
    s_journal_inum: U32,
    s_journal_dev: U32,
    s_last_orphan: U32,
    s_hash_seed: [U32; 4],
    s_def_hash_version: u8,
    s_jnl_backup_type: u8,
    s_desc_size: U16,
    s_default_mount_opts: U32,
    s_first_meta_bg: U32,
    s_mkfs_time: U32,
    s_jnl_blocks: [U32; 17],
    s_blocks_count_hi: U32,
    s_r_blocks_count_hi: U32,
    s_free_blocks_count_hi: U32,
    s_min_extra_isize: U16,
    s_want_extra_isize: U16,
    s_flags: U32,
    s_raid_stride: U16,
    s_mmp_interval: U16,
    s_mmp_block: U64,
    s_raid_stripe_width: U32,
    s_log_groups_per_flex: u8,
    s_checksum_type: u8,
    s_reserved_pad: U16,
    s_kbytes_written: U64,
    s_snapshot: [u8; 20],
    s_error_info: [u8; 100],
    s_mount_opts: [u8; 64],
    s_usr_quota_inum: U32,
    s_grp_quota_inum: U32,
    s_overhead_clusters: U32,
    s_backup_bgs: [U32; 2],
    s_encrypt_algos: [u8; 4],
    s_encrypt_pw_salt: [u8; 16],
    s_lpf_ino: U32,
    s_prj_quota_inum: U32,
    s_checksum_seed: U32,
    s_rest: [u8; 388],
}

/// What the superblock says, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Bytes per block: 1024 … 65536, a power of two.
    pub block_size: u32,
    /// Blocks of the file system; each one's bytes are addressable.
    pub blocks: u64,
    /// Free blocks, by the superblock's (lazily written) count.
    pub free_blocks: u64,
    /// Inodes of the file system.
    pub inodes: u32,
    /// Free inodes, likewise.
    pub free_inodes: u32,
    /// Block that holds the superblock: 1 with 1 KiB blocks, else 0.
    pub first_data_block: u32,
    /// Blocks per group, never 0.
    pub blocks_per_group: u32,
    /// Inodes per group, never 0.
    pub inodes_per_group: u32,
    /// Bytes per inode: a power of two, 128 … block size.
    pub inode_size: u16,
    /// Bytes per group descriptor: 32, or 64 … 1024 with 64-bit block numbers.
    pub desc_size: u16,
    /// First block group whose descriptors lie by the meta_bg rule.
    pub first_meta_bg: u32,
    /// First inode that is not reserved.
    pub first_inode: u32,
    /// Inode of the journal, 0 without one.
    pub journal_inode: u32,
    /// Identity of an external journal, all zeros without one.
    pub journal_uuid: [u8; 16],
    /// Compatible features.
    pub compat: Compat,
    /// Incompatible features.
    pub incompat: Incompat,
    /// Read-only compatible features.
    pub ro_compat: RoCompat,
    /// Identity.
    pub uuid: [u8; 16],
    /// Volume name, raw bytes.
    pub label: Vec<u8>,
    /// `s_checksum_seed` or what follows from the UUID.
    pub checksum_seed: u32,
    /// Groups that hold superblock backups with `sparse_super2`.
    pub backup_groups: [u32; 2],
    /// `s_mkfs_time`: with the UUID, tells a reformatted volume from the old one.
    pub mkfs_time: u32,
    /// Block of the multiple-mount protection, 0 without one.
    pub mmp_block: u64,
    /// `s_state`: 1 cleanly unmounted.
    pub state: u16,
}

/// Whether a superblock's magic stands where it should.
pub fn probe(disk: &dyn ReadAt) -> bool {
    let mut magic = [0; 2];
    disk.read_at(OFFSET + 0x38, &mut magic).is_ok() && u16::from_le_bytes(magic) == MAGIC
}

impl Superblock {
    /// Read and check the superblock of the volume `disk`.
    pub fn read(disk: &dyn ReadAt) -> Result<Self> {
        let mut bytes = [0; 1024];
        disk.read_at(OFFSET, &mut bytes).map_err(|source| Error::Io { what: "ext4 superblock", at: OFFSET, source })?;
        Self::parse(&bytes)
    }

    /// Check 1024 bytes of superblock.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (raw, _) = Raw::read_from_prefix(bytes)
            .map_err(|_| Error::corrupt("ext4 superblock", OFFSET, "1024 bytes", bytes.len()))?;
        check_magic(&raw)?;
        let log = raw.s_log_block_size.get();
        if log > MAX_LOG_BLOCK_SIZE {
            return Err(field("s_log_block_size", 0x18, "0..=6", log));
        }
        let compat = Compat::from_bits_retain(raw.s_feature_compat.get());
        let incompat = Incompat::from_bits_retain(raw.s_feature_incompat.get());
        let ro_compat = RoCompat::from_bits_retain(raw.s_feature_ro_compat.get());
        check_features(incompat)?;
        let sb = Self {
            block_size: 1024 << log,
            blocks: wide(raw.s_blocks_count_lo, raw.s_blocks_count_hi, incompat),
            free_blocks: wide(raw.s_free_blocks_count_lo, raw.s_free_blocks_count_hi, incompat),
            inodes: raw.s_inodes_count.get(),
            free_inodes: raw.s_free_inodes_count.get(),
            first_data_block: raw.s_first_data_block.get(),
            blocks_per_group: raw.s_blocks_per_group.get(),
            inodes_per_group: raw.s_inodes_per_group.get(),
            inode_size: if raw.s_rev_level.get() == 0 { GOOD_OLD_INODE_SIZE } else { raw.s_inode_size.get() },
            desc_size: if incompat.contains(Incompat::BIT64) { raw.s_desc_size.get() } else { 32 },
            first_meta_bg: raw.s_first_meta_bg.get(),
            first_inode: if raw.s_rev_level.get() == 0 { 11 } else { raw.s_first_ino.get() },
            journal_inode: if compat.contains(Compat::HAS_JOURNAL) { raw.s_journal_inum.get() } else { 0 },
            journal_uuid: raw.s_journal_uuid,
            compat,
            incompat,
            ro_compat,
            uuid: raw.s_uuid,
            label: raw.s_volume_name.iter().copied().take_while(|b| *b != 0).collect(),
            checksum_seed: if incompat.contains(Incompat::CSUM_SEED) {
                raw.s_checksum_seed.get()
            } else {
                super::checksum::crc32c(!0, &raw.s_uuid)
            },
            backup_groups: raw.s_backup_bgs.map(U32::get),
            mkfs_time: raw.s_mkfs_time.get(),
            mmp_block: if incompat.contains(Incompat::MMP) { raw.s_mmp_block.get() } else { 0 },
            state: raw.s_state.get(),
        };
        sb.check()?;
        Ok(sb)
    }

    fn check(&self) -> Result<()> {
        if self.blocks.checked_mul(u64::from(self.block_size)).is_none_or(|b| b > i64::MAX as u64) {
            return Err(field("s_blocks_count", 0x4, "a size below 2^63 bytes", self.blocks));
        }
        if u64::from(self.first_data_block) != u64::from(self.block_size == 1024) && self.first_data_block > 1 {
            return Err(field("s_first_data_block", 0x14, "0 or 1", self.first_data_block));
        }
        if self.blocks <= u64::from(self.first_data_block) {
            return Err(field("s_blocks_count", 0x4, "at least two blocks", self.blocks));
        }
        if self.blocks_per_group == 0 || self.blocks_per_group > self.block_size * 8 * 16 {
            return Err(field("s_blocks_per_group", 0x20, "1..=8 × block size × 16", self.blocks_per_group));
        }
        if self.inodes_per_group == 0 || self.inodes_per_group > self.block_size * 8 {
            return Err(field("s_inodes_per_group", 0x28, "1..=8 × block size", self.inodes_per_group));
        }
        let size = u32::from(self.inode_size);
        if size < 128 || size > self.block_size || !size.is_power_of_two() {
            return Err(field("s_inode_size", 0x58, "a power of two from 128 to the block size", size));
        }
        if self.incompat.contains(Incompat::BIT64) && !(64..=1024).contains(&self.desc_size) {
            return Err(field("s_desc_size", 0xFE, "64..=1024 with 64bit", self.desc_size));
        }
        if !self.desc_size.is_power_of_two() {
            return Err(field("s_desc_size", 0xFE, "a power of two", self.desc_size));
        }
        let most = self.groups().saturating_mul(u64::from(self.inodes_per_group));
        if self.inodes == 0 || u64::from(self.inodes) > most {
            return Err(field("s_inodes_count", 0x0, format!("1..={most}"), self.inodes));
        }
        Ok(())
    }

    /// Number of block groups.
    pub fn groups(&self) -> u64 {
        (self.blocks - u64::from(self.first_data_block)).div_ceil(u64::from(self.blocks_per_group))
    }

    /// `ext2`, `ext3` or `ext4`, as `blkid` names it: by the features in use.
    pub fn kind(&self) -> &'static str {
        let ext4_incompat = !(Incompat::FILETYPE | Incompat::RECOVER | Incompat::JOURNAL_DEV | Incompat::META_BG);
        let ext4_ro = RoCompat::from_bits_retain(!0x7);
        if self.incompat.intersects(ext4_incompat) || self.ro_compat.intersects(ext4_ro) {
            "ext4"
        } else if self.compat.contains(Compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// Whether the journal holds transactions that a mount would replay.
    pub fn needs_recovery(&self) -> bool {
        self.incompat.contains(Incompat::RECOVER)
    }

    /// Whether group `group` starts with a copy of superblock and descriptors
    /// (`ext4_bg_has_super` in Linux `fs/ext4/balloc.c`).
    pub fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat.contains(Compat::SPARSE_SUPER2) {
            return self.backup_groups.iter().any(|b| u64::from(*b) == group);
        }
        if group == 1 || !self.ro_compat.contains(RoCompat::SPARSE_SUPER) {
            return true;
        }
        [3, 5, 7].into_iter().any(|base| is_power_of(group, base))
    }
}

fn is_power_of(mut n: u64, base: u64) -> bool {
    while n > 1 && n.is_multiple_of(base) {
        n /= base;
    }
    n == 1
}

fn check_magic(raw: &Raw) -> Result<()> {
    let magic = raw.s_magic.get();
    if magic == MAGIC { Ok(()) } else { Err(field("ext4 magic", 0x38, "0xEF53", format!("{magic:#06x}"))) }
}

fn check_features(incompat: Incompat) -> Result<()> {
    let unknown = incompat.bits() & !Incompat::all().bits();
    if unknown != 0 {
        return Err(Error::Unsupported { what: format!("ext4 incompat feature bits {unknown:#x}"), at: OFFSET + 0x60 });
    }
    for (bit, what) in [(Incompat::JOURNAL_DEV, "an external journal device"), (Incompat::DIRDATA, "dirdata")] {
        if incompat.contains(bit) {
            return Err(Error::Unsupported { what: what.to_owned(), at: OFFSET + 0x60 });
        }
    }
    Ok(())
}

fn wide(lo: U32, hi: U32, incompat: Incompat) -> u64 {
    let hi = if incompat.contains(Incompat::BIT64) { u64::from(hi.get()) } else { 0 };
    hi << 32 | u64::from(lo.get())
}

fn field(what: &'static str, at: u64, expected: impl ToString, found: impl ToString) -> Error {
    Error::corrupt(what, OFFSET + at, expected, found)
}
