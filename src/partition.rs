//! What lies where on a disk: a GPT, an MBR with its logical partitions, or no table at all.
//!
//! The rules for telling them apart:
//! - a protective entry (type 0xEE) in the MBR means GPT, whichever of its two headers is whole;
//! - a plausible MBR (good boot flags, partitions that do not start at sector 0 and do not overlap)
//!   is believed; over a file system that starts at byte 0 too only if all of it fits on the disk
//!   (partitioning tools leave the boot code of an earlier FAT in place);
//! - a file system that starts at byte 0 has no table, even if its boot sector ends in 55 AA;
//! - a GPT whose checksums hold is believed without a protective MBR if nothing else is there.

use std::fmt;

use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::probe;

pub mod gpt;
pub mod mbr;

/// The kind of table on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// No table: the disk is one piece.
    Whole,
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// What a table says a partition is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionType {
    /// The type byte of an MBR entry.
    Mbr(u8),
    /// The type GUID of a GPT entry, as it lies on disk (mixed-endian).
    Gpt([u8; 16]),
}

/// One partition. `offset` and `length` are what the table says: the image may end before them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// As Linux counts: MBR primaries 1–4 by slot, logical ones from 5; GPT by slot from 1.
    pub number: u32,
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub length: u64,
    /// What it is for.
    pub kind: PartitionType,
}

/// A disk's table.
#[derive(Debug)]
pub struct Table {
    /// Which kind.
    pub scheme: Scheme,
    /// Bytes per sector by which the table counts; 512 if there is none.
    pub sector_size: u32,
    /// In the order of their numbers. Extended containers are not listed.
    pub partitions: Vec<Partition>,
    /// Damage that was read around.
    pub problems: Vec<Error>,
}

impl Table {
    fn whole() -> Self {
        Self { scheme: Scheme::Whole, sector_size: 512, partitions: Vec::new(), problems: Vec::new() }
    }
}

/// Read the table of `disk`.
///
/// Errors: the disk cannot be read, or its protective MBR promises a GPT of which neither copy is
/// whole. Lesser damage is told in [`Table::problems`].
pub fn read(disk: &dyn ReadAt) -> Result<Table> {
    if disk.size() < mbr::SECTOR as u64 {
        return Ok(Table::whole());
    }
    let first = mbr::Sector::read(disk, 0)?;
    if first.as_ref().is_some_and(mbr::Sector::is_protective) {
        return gpt::read(disk, first.as_ref());
    }
    let whole = probe::probe(disk)?.is_some();
    if let Some(first) = first.as_ref().filter(|s| s.is_plausible() && (!whole || s.fits(disk.size()))) {
        return mbr::read(disk, first);
    }
    if whole {
        return Ok(Table::whole());
    }
    match (gpt::read(disk, None), first) {
        (Ok(table), _) => Ok(table),
        (Err(_), Some(first)) => mbr::read_doubtful(disk, &first),
        (Err(_), None) => Ok(Table::whole()),
    }
}

/// Read one structure of a table at disk byte `at`; `None` past the disk's end.
fn read_struct<T: FromBytes>(disk: &dyn ReadAt, what: &'static str, at: u64) -> Result<Option<T>> {
    let Some(bytes) = read_bytes(disk, what, at, size_of::<T>())? else { return Ok(None) };
    Ok(T::read_from_bytes(&bytes).ok())
}

/// Read `len` bytes at disk byte `at`; `None` past the disk's end. Callers bound `len`.
fn read_bytes(disk: &dyn ReadAt, what: &'static str, at: u64, len: usize) -> Result<Option<Vec<u8>>> {
    if at.checked_add(len as u64).is_none_or(|end| end > disk.size()) {
        return Ok(None);
    }
    let mut bytes = vec![0; len];
    disk.read_at(at, &mut bytes).map_err(|source| Error::Io { what, at, source })?;
    Ok(Some(bytes))
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "no partition table",
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        })
    }
}

#[cfg(test)]
mod tests;
