//! The GUID partition table (UEFI specification 2.10, chapter 5.3).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::mbr::Sector;
use super::{Partition, PartitionType, Scheme, Table};
use crate::error::{Error, Result};
use crate::image::ReadAt;

const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Sector sizes by which a table may count.
const SECTOR_SIZES: [u32; 2] = [512, 4096];
/// Bytes of the entry array that are read at most; a usual one has 16 KiB.
const MAX_ARRAY: u64 = 4 << 20;
const MIN_ENTRY: u32 = 128;
const MAX_ENTRY: u32 = 4096;
const CRC_AT: usize = 16;
const CRC: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);

/// The header (UEFI 5.3.2).
#[derive(FromBytes, Immutable, KnownLayout, Clone)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: [u8; 16],
    partition_entry_lba: U64,
    num_partition_entries: U32,
    sizeof_partition_entry: U32,
    partition_entry_array_crc32: U32,
}

/// An entry of the array (UEFI 5.3.3), without its attributes and name.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    partition_type_guid: [u8; 16],
    unique_partition_guid: [u8; 16],
    starting_lba: U64,
    ending_lba: U64,
}

/// Read the table by its first header, or by its backup. `mbr` is the protective one, if there is one.
///
/// Errors: neither copy is whole (then what is wrong with the first), or the disk cannot be read.
pub fn read(disk: &dyn ReadAt, mbr: Option<&Sector>) -> Result<Table> {
    let mut damage: Option<Error> = None;
    for (sector_size, lba) in candidates(disk, mbr)? {
        match read_copy(disk, sector_size, lba) {
            Ok(mut table) => {
                table.problems.extend(damage);
                return Ok(table);
            }
            Err(e @ Error::Io { .. }) => return Err(e),
            Err(e) => damage = damage.or(Some(e)),
        }
    }
    Err(damage.unwrap_or_else(|| Error::corrupt("GPT header", 512, "EFI PART", "nothing of the kind")))
}

/// Where a header is worth looking for, best first: the first one, then backups at the disk's end,
/// where a damaged first header points, and at the end of the protective partition (an image may
/// have grown).
fn candidates(disk: &dyn ReadAt, mbr: Option<&Sector>) -> Result<Vec<(u32, u64)>> {
    let mut found = Vec::new();
    let mut backups = Vec::new();
    for size in SECTOR_SIZES {
        let sectors = disk.size() / u64::from(size);
        let pointed = signed_header(disk, size, 1)?.map(|h| h.alternate_lba.get());
        if pointed.is_some() {
            found.push((size, 1));
        }
        let ends = [sectors.checked_sub(1), pointed, mbr.and_then(Sector::protective_end)];
        for lba in ends.into_iter().flatten().filter(|lba| *lba > 1) {
            if !backups.contains(&(size, lba)) && signed_header(disk, size, lba)?.is_some() {
                backups.push((size, lba));
            }
        }
    }
    if found.is_empty() && !backups.is_empty() {
        // So that the damage of the first copy is told: it has lost its signature.
        found.extend(backups.first().map(|(size, _)| (*size, 1)));
    }
    found.extend(backups);
    Ok(found)
}

fn signed_header(disk: &dyn ReadAt, sector_size: u32, lba: u64) -> Result<Option<RawHeader>> {
    let Some(at) = lba.checked_mul(u64::from(sector_size)) else { return Ok(None) };
    let header: Option<RawHeader> = super::read_struct(disk, "GPT header", at)?;
    Ok(header.filter(|h| h.signature == SIGNATURE))
}

/// Read and check the copy of the table whose header is at sector `lba`.
fn read_copy(disk: &dyn ReadAt, sector_size: u32, lba: u64) -> Result<Table> {
    let header = checked_header(disk, sector_size, lba)?;
    let array = checked_array(disk, sector_size, &header)?;
    let mut table = Table { scheme: Scheme::Gpt, sector_size, partitions: Vec::new(), problems: Vec::new() };
    let entry_size = usize::try_from(header.sizeof_partition_entry.get()).unwrap_or(usize::MAX);
    for (number, bytes) in (1..).zip(array.chunks_exact(entry_size)) {
        let Ok((entry, _)) = RawEntry::read_from_prefix(bytes) else { break };
        if entry.partition_type_guid == [0; 16] {
            continue;
        }
        match partition(number, &entry, sector_size) {
            Some(p) => table.partitions.push(p),
            None => table.problems.push(bad_entry(&header, sector_size, number, &entry)),
        }
    }
    Ok(table)
}

/// The header at sector `lba`, its signature, place, size and checksum checked.
fn checked_header(disk: &dyn ReadAt, sector_size: u32, lba: u64) -> Result<RawHeader> {
    let at = lba.saturating_mul(u64::from(sector_size));
    let header = signed_header(disk, sector_size, lba)?
        .ok_or_else(|| Error::corrupt("GPT header", at, "EFI PART", "nothing of the kind"))?;
    if header.my_lba.get() != lba {
        return Err(Error::corrupt("place of the GPT header", at, lba, header.my_lba));
    }
    let len = header.header_size.get();
    if len < 92 || len > sector_size {
        return Err(Error::corrupt("size of the GPT header", at, format!("92 to {sector_size}"), len));
    }
    let bytes = super::read_bytes(disk, "GPT header", at, usize::try_from(len).unwrap_or(0))?;
    let mut bytes = bytes.ok_or_else(|| Error::corrupt("GPT header", at, "a whole header", "the disk's end"))?;
    if let Some(field) = bytes.get_mut(CRC_AT..CRC_AT + 4) {
        field.fill(0);
    }
    check_crc("checksum of the GPT header", at, header.header_crc32.get(), &bytes)?;
    Ok(header)
}

/// The entry array, its size and checksum checked.
fn checked_array(disk: &dyn ReadAt, sector_size: u32, header: &RawHeader) -> Result<Vec<u8>> {
    let at = array_at(header, sector_size);
    let size = header.sizeof_partition_entry.get();
    if !(MIN_ENTRY..=MAX_ENTRY).contains(&size) || !size.is_power_of_two() {
        return Err(Error::corrupt("size of a GPT entry", at, "128, 256, … 4096", size));
    }
    let len = u64::from(size) * u64::from(header.num_partition_entries.get());
    if len > MAX_ARRAY {
        return Err(Error::corrupt("size of the GPT entry array", at, format!("at most {MAX_ARRAY}"), len));
    }
    let bytes = super::read_bytes(disk, "GPT entry array", at, usize::try_from(len).unwrap_or(0))?;
    let bytes = bytes.ok_or_else(|| Error::corrupt("GPT entry array", at, "to end on the disk", "past its end"))?;
    check_crc("checksum of the GPT entry array", at, header.partition_entry_array_crc32.get(), &bytes)?;
    Ok(bytes)
}

fn check_crc(what: &'static str, at: u64, stored: u32, bytes: &[u8]) -> Result<()> {
    let computed = CRC.checksum(bytes);
    if computed == stored {
        return Ok(());
    }
    Err(Error::corrupt(what, at, format!("{computed:#010x}"), format!("{stored:#010x}")))
}

fn partition(number: u32, entry: &RawEntry, sector_size: u32) -> Option<Partition> {
    let size = u64::from(sector_size);
    let (first, last) = (entry.starting_lba.get(), entry.ending_lba.get());
    let sectors = last.checked_sub(first)?.checked_add(1)?;
    let offset = first.checked_mul(size).filter(|o| *o > 0)?;
    let length = sectors.checked_mul(size)?;
    offset.checked_add(length)?;
    Some(Partition { number, offset, length, kind: PartitionType::Gpt(entry.partition_type_guid) })
}

fn bad_entry(header: &RawHeader, sector_size: u32, number: u32, entry: &RawEntry) -> Error {
    let before = u64::from(number.saturating_sub(1)) * u64::from(header.sizeof_partition_entry.get());
    let at = array_at(header, sector_size).saturating_add(before);
    let found = format!("{} to {}", entry.starting_lba, entry.ending_lba);
    Error::corrupt("sectors of a GPT entry", at, "first ≥ 1, last ≥ first", found)
}

fn array_at(header: &RawHeader, sector_size: u32) -> u64 {
    header.partition_entry_lba.get().saturating_mul(u64::from(sector_size))
}
