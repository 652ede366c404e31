//! The master boot record and the chain of extended boot records that hold logical partitions.

use std::collections::HashSet;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Partition, PartitionType, Scheme, Table};
use crate::error::{Error, Result};
use crate::image::ReadAt;
use crate::probe;

/// Bytes of a boot record, whatever the sector size.
pub const SECTOR: usize = 512;
const SIGNATURE: [u8; 2] = [0x55, 0xAA];
const PROTECTIVE: u8 = 0xEE;
/// Container types: DOS, Windows (LBA), Linux (Linux `block/partitions/msdos.c`).
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
/// More logical partitions than any tool makes.
const MAX_LOGICAL: usize = 1024;
/// Sector sizes by which a table may count.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// `struct msdos_partition` (Linux `include/linux/msdos_partition.h`).
#[derive(FromBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    boot_ind: u8,
    chs_start: [u8; 3],
    sys_ind: u8,
    chs_end: [u8; 3],
    start_sect: U32,
    nr_sects: U32,
}

/// The first sector of a disk or of an extended partition.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSector {
    code: [u8; 446],
    entries: [RawEntry; 4],
    signature: [u8; 2],
}

/// One slot that is in use.
#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_container(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.sectors)
    }

    /// The partition, with `start` counted from sector `base`.
    fn partition(&self, number: u32, base: u64, sector_size: u32) -> Option<Partition> {
        let size = u64::from(sector_size);
        let offset = base.checked_add(self.start)?.checked_mul(size)?;
        let length = self.sectors.checked_mul(size)?;
        offset.checked_add(length)?;
        Some(Partition { number, offset, length, kind: PartitionType::Mbr(self.kind) })
    }
}

/// A boot record that ends in 55 AA.
pub struct Sector {
    raw: RawSector,
    at: u64,
}

impl Sector {
    /// The boot record at disk byte `at`, or `None` if none is there.
    pub fn read(disk: &dyn ReadAt, at: u64) -> Result<Option<Self>> {
        let raw: Option<RawSector> = super::read_struct(disk, "boot record", at)?;
        Ok(raw.filter(|r| r.signature == SIGNATURE).map(|raw| Self { raw, at }))
    }

    /// Whether it says that a GPT follows.
    pub fn is_protective(&self) -> bool {
        self.entries().any(|e| e.kind == PROTECTIVE)
    }

    /// The last sector that the protective entry covers, if it says.
    pub fn protective_end(&self) -> Option<u64> {
        self.entries().find(|e| e.kind == PROTECTIVE)?.end().checked_sub(1)
    }

    /// Whether this can be meant as a table: boot code or text in its place hardly passes.
    pub fn is_plausible(&self) -> bool {
        let mut used: Vec<_> = self.entries().collect();
        used.sort_by_key(|e| e.start);
        !used.is_empty()
            && self.raw.entries.iter().all(|e| e.boot_ind & 0x7F == 0)
            && used.iter().all(|e| e.start > 0)
            && used.windows(2).all(|w| matches!(w, [a, b] if a.end() <= b.start))
    }

    /// Whether all partitions end on a disk of `size` bytes, even by the smallest sectors.
    pub fn fits(&self, size: u64) -> bool {
        self.entries().all(|e| e.end().saturating_mul(SECTOR as u64) <= size)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (1..).zip(&self.raw.entries).filter_map(|(slot, e)| {
            let (start, sectors) = (u64::from(e.start_sect.get()), u64::from(e.nr_sects.get()));
            (e.sys_ind != 0 && sectors != 0).then_some(Entry { slot, kind: e.sys_ind, start, sectors })
        })
    }
}

/// The partitions of a disk whose first sector is `first`.
pub fn read(disk: &dyn ReadAt, first: &Sector) -> Result<Table> {
    let sector_size = sector_size(disk, first)?;
    let mut table = Table { scheme: Scheme::Mbr, sector_size, partitions: Vec::new(), problems: Vec::new() };
    for e in first.entries().filter(|e| !e.is_container()) {
        match e.partition(e.slot, 0, sector_size) {
            Some(p) => table.partitions.push(p),
            None => table.problems.push(overflow(first.at)),
        }
    }
    for e in first.entries().filter(Entry::is_container) {
        read_logical(disk, &e, &mut table)?;
    }
    Ok(table)
}

/// As [`read`], for a boot sector that is not plausible as a table: its entries count only if a
/// file system stands where one of them points. Otherwise it is boot code, and there is no table.
pub fn read_doubtful(disk: &dyn ReadAt, first: &Sector) -> Result<Table> {
    let mut table = read(disk, first)?;
    table.partitions.retain(|p| p.offset > 0 && p.offset < disk.size());
    let found = count_file_systems(disk, &table.partitions)?;
    Ok(if found > 0 { table } else { Table::whole() })
}

/// Follow the chain of extended boot records in `container` and add its logical partitions.
fn read_logical(disk: &dyn ReadAt, container: &Entry, table: &mut Table) -> Result<()> {
    let size = u64::from(table.sector_size);
    let mut seen = HashSet::new();
    let mut next = Some(container.start);
    while let Some(record) = next.take() {
        let Some(at) = record.checked_mul(size) else {
            table.problems.push(overflow(0));
            break;
        };
        if !seen.insert(record) || seen.len() > MAX_LOGICAL {
            table.problems.push(Error::corrupt("extended boot record", at, "a chain that ends", "a loop"));
            break;
        }
        let Some(sector) = Sector::read(disk, at)? else {
            table.problems.push(Error::corrupt("extended boot record", at, "55 AA in its last bytes", "none"));
            break;
        };
        add_logical(&sector, record, container, table);
        next = sector.entries().find(Entry::is_container).and_then(|e| container.start.checked_add(e.start));
    }
    Ok(())
}

/// Add the logical partitions of one extended boot record. The first two slots are free; in the
/// others Linux accepts only what lies within the container, because some tools leave garbage there.
fn add_logical(sector: &Sector, record: u64, container: &Entry, table: &mut Table) {
    for e in sector.entries().filter(|e| !e.is_container()) {
        let end = record.saturating_add(e.end());
        if e.slot > 2 && end > container.end() {
            continue;
        }
        let last = table.partitions.last().map_or(0, |p| p.number);
        match e.partition(last.max(4).saturating_add(1), record, table.sector_size) {
            Some(p) if e.start > 0 => table.partitions.push(p),
            Some(_) => {
                table.problems.push(Error::corrupt("logical partition", sector.at, "a start behind its record", 0))
            }
            None => table.problems.push(overflow(sector.at)),
        }
    }
}

/// By which sectors the table counts. It does not say; so look where an extended boot record or
/// more file systems are found, and take 512 if nothing speaks against it.
fn sector_size(disk: &dyn ReadAt, first: &Sector) -> Result<u32> {
    let [small, large] = SECTOR_SIZES;
    if let Some(e) = first.entries().find(Entry::is_container) {
        let is_at = |size| Ok::<_, Error>(Sector::read(disk, e.start.saturating_mul(u64::from(size)))?.is_some());
        return Ok(if !is_at(small)? && is_at(large)? { large } else { small });
    }
    let count = |size| {
        let parts: Vec<_> = first.entries().filter_map(|e| e.partition(e.slot, 0, size)).collect();
        count_file_systems(disk, &parts)
    };
    Ok(if count(large)? > count(small)? { large } else { small })
}

fn count_file_systems(disk: &dyn ReadAt, partitions: &[Partition]) -> Result<usize> {
    partitions.iter().try_fold(0, |n, p| Ok(n + usize::from(probe::probe_at(disk, p.offset)?.is_some())))
}

fn overflow(at: u64) -> Error {
    Error::corrupt("partition entry", at, "a range within 64 bits of bytes", "a larger one")
}
