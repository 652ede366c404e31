//! Feature bits of the superblock (Linux `fs/ext4/ext4.h`, `EXT4_FEATURE_*`).

use bitflags::bitflags;

bitflags! {
    /// `s_feature_compat`: a driver may ignore what it does not know.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Compat: u32 {
        /// A journal exists.
        const HAS_JOURNAL = 0x4;
        /// Extended attributes.
        const EXT_ATTR = 0x8;
        /// Space for the group descriptors to grow.
        const RESIZE_INODE = 0x10;
        /// Hashed directories.
        const DIR_INDEX = 0x20;
        /// Superblock backups only in the two groups of `s_backup_bgs`.
        const SPARSE_SUPER2 = 0x200;
        /// The journal has a fast-commit area.
        const FAST_COMMIT = 0x400;
        /// Orphans are listed in a file.
        const ORPHAN_FILE = 0x1000;
    }

    /// `s_feature_incompat`: a driver must refuse what it does not know.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Incompat: u32 {
        /// Directory entries record the file's kind.
        const FILETYPE = 0x2;
        /// The journal must be replayed.
        const RECOVER = 0x4;
        /// This is an external journal, not a file system.
        const JOURNAL_DEV = 0x8;
        /// Group descriptors lie in their own meta group.
        const META_BG = 0x10;
        /// Files may use extents.
        const EXTENTS = 0x40;
        /// Block numbers have 64 bits.
        const BIT64 = 0x80;
        /// Multiple-mount protection.
        const MMP = 0x100;
        /// Bitmaps and inode tables lie anywhere.
        const FLEX_BG = 0x200;
        /// Large attribute values in inodes of their own.
        const EA_INODE = 0x400;
        /// Data in directory entries (never implemented).
        const DIRDATA = 0x1000;
        /// `s_checksum_seed` replaces the UUID as checksum seed.
        const CSUM_SEED = 0x2000;
        /// Directories over 2 GiB or with three-level hash trees.
        const LARGEDIR = 0x4000;
        /// Small files and directories live in their inode.
        const INLINE_DATA = 0x8000;
        /// Encrypted files.
        const ENCRYPT = 0x10000;
        /// Case-insensitive directories.
        const CASEFOLD = 0x20000;
    }

    /// `s_feature_ro_compat`: a driver may read, but not write, what it does not know.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RoCompat: u32 {
        /// Superblock backups in groups 0, 1 and powers of 3, 5, 7 only.
        const SPARSE_SUPER = 0x1;
        /// Files over 2 GiB.
        const LARGE_FILE = 0x2;
        /// `i_blocks` may count file-system blocks.
        const HUGE_FILE = 0x8;
        /// Group descriptors have checksums; uninitialised groups exist.
        const GDT_CSUM = 0x10;
        /// Inodes beyond 128 bytes.
        const EXTRA_ISIZE = 0x40;
        /// Allocation in clusters of blocks.
        const BIGALLOC = 0x200;
        /// All metadata has checksums.
        const METADATA_CSUM = 0x400;
        /// Files with Merkle trees.
        const VERITY = 0x8000;
        /// The orphan file is in use.
        const ORPHAN_PRESENT = 0x10000;
    }
}
