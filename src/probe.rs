//! Which file system, if any, starts at a given byte: by its magic numbers, without opening it.
//!
//! Signatures of earlier file systems may survive a reformat, so the order matters: those whose
//! tools overwrite the first sector come first, those that a later mkfs may leave behind come last.

use crate::error::{Error, Result};
use crate::image::ReadAt;

mod fat;
mod text;

use text::{dashed_serial, latin, uuid};

/// What was recognised.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// `ext4`, `ntfs`, `fat32`, ….
    pub fs: &'static str,
    /// Label, if there is one where it is cheap to find.
    pub label: Option<String>,
    /// UUID or serial number, in the form that `blkid` prints.
    pub uuid: Option<String>,
}

/// Bytes from the start of a file system that hold all magic numbers but those of btrfs.
const HEAD: usize = 36 << 10;
const BTRFS_AT: u64 = 0x1_0000;
/// `mkswap` puts its magic into the last ten bytes of the page, whose size depends on the machine.
const SWAP_PAGES: [usize; 4] = [4 << 10, 8 << 10, 16 << 10, 32 << 10];

type Prober = fn(&Bytes) -> Option<Found>;
const PROBERS: [Prober; 14] =
    [ntfs, exfat, bitlocker, refs, luks, xfs, squashfs, fat::probe, ext, f2fs, btrfs, iso9660, lvm, swap];

/// Recognise what starts at byte 0 of `disk`.
pub fn probe(disk: &dyn ReadAt) -> Result<Option<Found>> {
    probe_at(disk, 0)
}

/// Recognise what starts at byte `offset` of `disk`. Past the disk's end nothing is recognised.
pub fn probe_at(disk: &dyn ReadAt, offset: u64) -> Result<Option<Found>> {
    let head = head(disk, offset, HEAD)?;
    let btrfs = head_from(disk, offset, BTRFS_AT, 4096)?;
    let bytes = Bytes { head, btrfs };
    Ok(PROBERS.iter().find_map(|p| p(&bytes)))
}

fn head_from(disk: &dyn ReadAt, offset: u64, more: u64, len: usize) -> Result<Vec<u8>> {
    offset.checked_add(more).map_or(Ok(Vec::new()), |at| head(disk, at, len))
}

/// Up to `len` bytes from `at` on, fewer at the disk's end.
fn head(disk: &dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>> {
    let left = usize::try_from(disk.size().saturating_sub(at)).unwrap_or(usize::MAX);
    if left == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; len.min(left)];
    disk.read_at(at, &mut bytes).map_err(|source| Error::Io { what: "start of a file system", at, source })?;
    Ok(bytes)
}

/// The bytes in which the magic numbers lie. Getters give `None` past their end.
struct Bytes {
    head: Vec<u8>,
    btrfs: Vec<u8>,
}

impl Bytes {
    fn at(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.head.get(at..at.checked_add(len)?)
    }

    fn is(&self, at: usize, magic: &[u8]) -> Option<()> {
        (self.at(at, magic.len())? == magic).then_some(())
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.at(at, N)?.try_into().ok()
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.array(at).map(u8::from_le_bytes)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

fn found(fs: &'static str, label: Option<String>, uuid: Option<String>) -> Option<Found> {
    Some(Found { fs, label, uuid })
}

/// ntfs.com "NTFS partition boot sector": OEM name, serial number at 0x48.
fn ntfs(b: &Bytes) -> Option<Found> {
    b.is(3, b"NTFS    ")?;
    found("ntfs", None, Some(format!("{:016X}", b.u64(0x48)?)))
}

/// exFAT specification 3.1.
fn exfat(b: &Bytes) -> Option<Found> {
    b.is(3, b"EXFAT   ")?;
    found("exfat", None, dashed_serial(b.u32(100)?))
}

fn bitlocker(b: &Bytes) -> Option<Found> {
    b.is(3, b"-FVE-FS-")?;
    found("bitlocker", None, None)
}

fn refs(b: &Bytes) -> Option<Found> {
    b.is(3, b"ReFS\0\0\0\0")?;
    found("refs", None, None)
}

/// LUKS 1 and 2 on-disk formats: magic, version (big-endian), label at 24 (2 only), UUID text at 168.
fn luks(b: &Bytes) -> Option<Found> {
    b.is(0, b"LUKS\xBA\xBE")?;
    let label = if b.is(6, &[0, 2]).is_some() { latin(b.at(24, 48)?) } else { None };
    found("luks", label, latin(b.at(168, 40)?))
}

/// `struct xfs_dsb` (Linux `fs/xfs/libxfs/xfs_format.h`).
fn xfs(b: &Bytes) -> Option<Found> {
    b.is(0, b"XFSB")?;
    found("xfs", latin(b.at(108, 12)?), uuid(b.at(32, 16)?))
}

fn squashfs(b: &Bytes) -> Option<Found> {
    b.is(0, b"hsqs")?;
    found("squashfs", None, None)
}

/// `struct ext4_super_block`. Which of the three it is follows from the features, as in libblkid:
/// ext4 if any feature is set that the ext3 driver did not know, else ext3 if it has a journal.
fn ext(b: &Bytes) -> Option<Found> {
    const SB: usize = 1024;
    const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
    const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;
    const HAS_JOURNAL: u32 = 0x4;
    const JOURNAL_DEV: u32 = 0x8;
    b.is(SB + 56, &[0x53, 0xEF])?;
    let (compat, incompat, ro_compat) = (b.u32(SB + 92)?, b.u32(SB + 96)?, b.u32(SB + 100)?);
    if b.u32(SB + 24)? > 6 || b.u32(SB + 40)? == 0 && incompat & JOURNAL_DEV == 0 {
        return None;
    }
    let fs = match () {
        () if incompat & JOURNAL_DEV != 0 => "jbd",
        () if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 => "ext4",
        () if compat & HAS_JOURNAL != 0 => "ext3",
        () => "ext2",
    };
    found(fs, latin(b.at(SB + 120, 16)?), uuid(b.at(SB + 104, 16)?))
}

/// `struct f2fs_super_block` (Linux `include/linux/f2fs_fs.h`).
fn f2fs(b: &Bytes) -> Option<Found> {
    b.is(1024, &0xF2F5_2010_u32.to_le_bytes())?;
    found("f2fs", None, uuid(b.at(1024 + 108, 16)?))
}

/// `struct btrfs_super_block` at 64 KiB (Linux `include/uapi/linux/btrfs_tree.h`).
fn btrfs(b: &Bytes) -> Option<Found> {
    let b = Bytes { head: b.btrfs.clone(), btrfs: Vec::new() };
    b.is(0x40, b"_BHRfS_M")?;
    found("btrfs", latin(b.at(0x12B, 256)?), uuid(b.at(0x20, 16)?))
}

/// ECMA-119: a volume descriptor in sector 16 of 2048 bytes.
fn iso9660(b: &Bytes) -> Option<Found> {
    b.is(0x8001, b"CD001")?;
    found("iso9660", latin(b.at(0x8028, 32)?), None)
}

/// LVM2's `struct label_header` in one of the first four sectors; the UUID starts its contents.
fn lvm(b: &Bytes) -> Option<Found> {
    let sector = (0..4).map(|s| s * 512).find(|s| b.is(*s, b"LABELONE").is_some())?;
    b.is(sector + 24, b"LVM2 001")?;
    let at = sector.checked_add(usize::try_from(b.u32(sector + 20)?).ok()?)?;
    found("lvm2", None, b.at(at, 32).and_then(text::lvm_uuid))
}

/// `union swap_header` (Linux `include/linux/swap.h`).
fn swap(b: &Bytes) -> Option<Found> {
    SWAP_PAGES.iter().find_map(|page| b.is(page - 10, b"SWAPSPACE2"))?;
    found("swap", latin(b.at(1024 + 28, 16)?), uuid(b.at(1024 + 12, 16)?))
}

#[cfg(test)]
mod tests;
