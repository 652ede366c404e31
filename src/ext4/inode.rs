//! Inodes.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::features::{Incompat, RoCompat};
use super::superblock::Superblock;
use crate::error::{Error, Result};
use crate::tree::{Attr, Kind};
use crate::units::{InodeNo, Timestamp};

/// `i_flags`: the file uses extents.
pub const EXTENTS_FL: u32 = 0x8_0000;
/// `i_flags`: data lies in the inode.
pub const INLINE_DATA_FL: u32 = 0x1000_0000;
const HUGE_FILE_FL: u32 = 0x4_0000;
const ENCRYPT_FL: u32 = 0x800;
/// Bytes of `i_block`: fast symlinks are shorter.
pub const BLOCK_BYTES: usize = 60;

/// `struct ext4_inode` (Linux `fs/ext4/ext4.h`), its first 128 bytes.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    i_mode: U16,
    i_uid: U16,
    i_size_lo: U32,
    i_atime: U32,
    i_ctime: U32,
    i_mtime: U32,
    i_dtime: U32,
    i_gid: U16,
    i_links_count: U16,
    i_blocks_lo: U32,
    i_flags: U32,
    i_version: U32,
    i_block: [u8; BLOCK_BYTES],
    i_generation: U32,
    i_file_acl_lo: U32,
    i_size_high: U32,
    i_obso_faddr: U32,
    i_blocks_high: U16,
    i_file_acl_high: U16,
    i_uid_high: U16,
    i_gid_high: U16,
    i_checksum_lo: U16,
    i_reserved: U16,
}

/// What follows the first 128 bytes, as far as `i_extra_isize` reaches.
#[derive(FromBytes, Immutable, KnownLayout, Default)]
#[repr(C)]
struct RawExtra {
    i_extra_isize: U16,
    i_checksum_hi: U16,
    i_ctime_extra: U32,
    i_mtime_extra: U32,
    i_atime_extra: U32,
    i_crtime: U32,
    i_crtime_extra: U32,
    i_version_hi: U32,
    i_projid: U32,
}

/// An inode in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Kind of file.
    pub kind: Kind,
    /// Permission bits (`07777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names by the inode's own count; 0 for an orphan.
    pub nlink: u16,
    /// Size in bytes.
    pub size: u64,
    /// Space in 512-byte units, attribute block included.
    pub sectors: u64,
    /// `i_flags`.
    pub flags: u32,
    /// Differs between successive files with the same number.
    pub generation: u32,
    /// Block of extended attributes, 0 without.
    pub xattr_block: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, with inodes of more than 128 bytes.
    pub crtime: Option<Timestamp>,
    /// `i_block`: extent root, block map, fast symlink or device number.
    pub block: [u8; BLOCK_BYTES],
    /// Attributes that lie in the inode: what follows `i_extra_isize`, if its magic is there.
    pub xattrs: Option<Box<[u8]>>,
}

impl Inode {
    /// Parse the inode whose `s_inode_size` bytes lie at volume byte `at`; `None` if it is not in use.
    ///
    /// In use means: it has a mode and either names or, with `i_dtime` used as the orphan list's
    /// link, none. A freed inode keeps its mode with `i_links_count` 0 and `i_dtime` a time.
    pub fn parse(sb: &Superblock, bytes: &[u8], at: u64) -> Result<Option<Self>> {
        let short = || Error::corrupt("inode", at, "at least 128 bytes", bytes.len());
        let (raw, rest) = Raw::read_from_prefix(bytes).map_err(|_| short())?;
        let mode = raw.i_mode.get();
        if mode == 0 || raw.i_links_count.get() == 0 {
            return Ok(None);
        }
        let Some(kind) = kind_of(mode) else {
            return Err(Error::corrupt("i_mode", at, "a file type", format!("{mode:#o}")));
        };
        let (extra, tail) = extra(rest);
        let flags = raw.i_flags.get();
        Ok(Some(Self {
            kind,
            mode: mode & 0o7777,
            uid: u32::from(raw.i_uid.get()) | u32::from(raw.i_uid_high.get()) << 16,
            gid: u32::from(raw.i_gid.get()) | u32::from(raw.i_gid_high.get()) << 16,
            nlink: raw.i_links_count.get(),
            size: size(sb, &raw, kind),
            sectors: sectors(sb, &raw),
            flags,
            generation: raw.i_generation.get(),
            xattr_block: u64::from(raw.i_file_acl_high.get()) << 32 | u64::from(raw.i_file_acl_lo.get()),
            mtime: time(raw.i_mtime, extra.i_mtime_extra),
            atime: time(raw.i_atime, extra.i_atime_extra),
            ctime: time(raw.i_ctime, extra.i_ctime_extra),
            crtime: (extra.i_extra_isize.get() >= 20).then(|| time(extra.i_crtime, extra.i_crtime_extra)),
            block: raw.i_block,
            xattrs: tail.map(Into::into),
        }))
    }

    /// `i_block[n]`.
    pub fn block_word(&self, n: usize) -> u32 {
        self.block.as_chunks::<4>().0.get(n).map_or(0, |w| u32::from_le_bytes(*w))
    }

    /// Whether the blocks are mapped by extents.
    pub fn uses_extents(&self) -> bool {
        self.flags & EXTENTS_FL != 0
    }

    /// Whether content lies in the inode itself.
    pub fn is_inline(&self) -> bool {
        self.flags & INLINE_DATA_FL != 0
    }

    /// Whether names or content are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPT_FL != 0
    }

    /// Whether a symlink's target lies in `i_block`.
    pub fn is_fast_symlink(&self, sb: &Superblock) -> bool {
        let attribute = if self.xattr_block == 0 { 0 } else { u64::from(sb.block_size / 512) };
        self.kind == Kind::Symlink && !self.is_inline() && self.size < BLOCK_BYTES as u64 && self.sectors <= attribute
    }

    /// Whether `i_block` maps blocks at all.
    pub fn maps_blocks(&self, sb: &Superblock) -> bool {
        matches!(self.kind, Kind::File | Kind::Dir | Kind::Symlink) && !self.is_inline() && !self.is_fast_symlink(sb)
    }

    /// Major and minor number of a device (`new_decode_dev`, `old_decode_dev` in Linux `kdev_t.h`).
    pub fn rdev(&self) -> Option<(u32, u32)> {
        if !matches!(self.kind, Kind::Chr | Kind::Blk) {
            return None;
        }
        let (old, new) = (self.block_word(0), self.block_word(1));
        Some(if old != 0 {
            (old >> 8 & 0xff, old & 0xff)
        } else {
            (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xfff00)
        })
    }

    /// For whoever asks from outside.
    pub fn attr(&self, ino: InodeNo) -> Attr {
        Attr {
            ino,
            kind: self.kind,
            size: self.size,
            sectors: self.sectors,
            nlink: self.nlink.into(),
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            crtime: self.crtime,
            rdev: self.rdev(),
            generation: self.generation.into(),
            flags: self.flags.into(),
        }
    }

    /// Whether `other` is still the same file: an inode number is reused with another generation,
    /// another creation time or another kind.
    pub fn same_file(&self, other: &Self) -> bool {
        self.generation == other.generation && self.kind == other.kind && self.crtime == other.crtime
    }
}

/// The fields that `i_extra_isize` covers (others zero), and the attribute area behind them.
fn extra(rest: &[u8]) -> (RawExtra, Option<&[u8]>) {
    let size = rest.as_chunks::<2>().0.first().map_or(0, |s| usize::from(u16::from_le_bytes(*s)));
    let Some((fields, tail)) = rest.split_at_checked(size) else { return Default::default() };
    let mut whole = [0; size_of::<RawExtra>()];
    for (to, from) in whole.iter_mut().zip(fields) {
        *to = *from;
    }
    let tail = (size >= 4 && tail.starts_with(&super::xattr::MAGIC.to_le_bytes())).then_some(tail);
    (RawExtra::read_from_bytes(&whole).unwrap_or_default(), tail)
}

/// Kind by `i_mode`'s upper four bits.
fn kind_of(mode: u16) -> Option<Kind> {
    Some(match mode >> 12 {
        0o01 => Kind::Fifo,
        0o02 => Kind::Chr,
        0o04 => Kind::Dir,
        0o06 => Kind::Blk,
        0o10 => Kind::File,
        0o12 => Kind::Symlink,
        0o14 => Kind::Sock,
        _ => return None,
    })
}

/// `ext4_isize`: the upper half counts for files, and for directories with largedir.
fn size(sb: &Superblock, raw: &Raw, kind: Kind) -> u64 {
    let wide = kind == Kind::File || kind == Kind::Dir && sb.incompat.contains(Incompat::LARGEDIR);
    let high = if wide { u64::from(raw.i_size_high.get()) } else { 0 };
    high << 32 | u64::from(raw.i_size_lo.get())
}

/// `ext4_inode_blocks`: 512-byte units, or file-system blocks with the huge-file flag.
fn sectors(sb: &Superblock, raw: &Raw) -> u64 {
    let lo = u64::from(raw.i_blocks_lo.get());
    if !sb.ro_compat.contains(RoCompat::HUGE_FILE) {
        return lo;
    }
    let all = u64::from(raw.i_blocks_high.get()) << 32 | lo;
    if raw.i_flags.get() & HUGE_FILE_FL != 0 { all.saturating_mul(u64::from(sb.block_size / 512)) } else { all }
}

/// Signed seconds, widened by 2 bits of `extra` (until 2446); the other 30 bits are nanoseconds.
fn time(secs: U32, extra: U32) -> Timestamp {
    let extra = extra.get();
    let base = i64::from(secs.get().cast_signed());
    Timestamp { secs: base + (i64::from(extra & 3) << 32), nanos: (extra >> 2).min(999_999_999) }
}
