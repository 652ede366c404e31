//! FAT12, FAT16 and FAT32 have no magic number: a boot sector is taken for one of them when the
//! whole BIOS parameter block makes sense (Microsoft "FAT: General Overview of On-Disk Format" 1.03).

use super::text::{dashed_serial, latin};
use super::{Bytes, Found};

/// Clusters from which on a volume is FAT16, and FAT32 (same paper, "FAT type determination").
const FAT16_CLUSTERS: u64 = 4085;
const FAT32_CLUSTERS: u64 = 65_525;
const NO_NAME: &str = "NO NAME";

/// A BIOS parameter block that makes sense.
struct Parameters {
    sector: u64,
    sectors_per_cluster: u64,
    reserved: u64,
    fats: u64,
    root_entries: u64,
    sectors: u64,
    sectors_per_fat: u64,
    is_32: bool,
}

pub(super) fn probe(b: &Bytes) -> Option<Found> {
    b.is(510, &[0x55, 0xAA])?;
    if !matches!((b.u8(0)?, b.u8(2)?), (0xEB, 0x90) | (0xE9, _)) {
        return None;
    }
    let p = parameters(b)?;
    let clusters = clusters(&p)?;
    let fs = match clusters {
        _ if p.is_32 => "fat32",
        FAT16_CLUSTERS.. => "fat16",
        _ => "fat12",
    };
    // The extended boot signature says whether serial number and label follow.
    let at = if p.is_32 { 66 } else { 38 };
    let signature = b.u8(at)?;
    let serial = matches!(signature, 0x28 | 0x29).then(|| b.u32(at + 1)).flatten();
    let label = if signature == 0x29 { latin(b.at(at + 5, 11)?) } else { None };
    Some(Found { fs, label: label.filter(|l| l != NO_NAME), uuid: serial.and_then(dashed_serial) })
}

fn parameters(b: &Bytes) -> Option<Parameters> {
    let short_fat = u64::from(b.u16(22)?);
    let short_sectors = u64::from(b.u16(19)?);
    let is_32 = short_fat == 0;
    let p = Parameters {
        sector: u64::from(b.u16(11)?),
        sectors_per_cluster: u64::from(b.u8(13)?),
        reserved: u64::from(b.u16(14)?),
        fats: u64::from(b.u8(16)?),
        root_entries: u64::from(b.u16(17)?),
        sectors: if short_sectors == 0 { u64::from(b.u32(32)?) } else { short_sectors },
        sectors_per_fat: if is_32 { u64::from(b.u32(36)?) } else { short_fat },
        is_32,
    };
    let media = b.u8(21)?;
    let sane = p.sector.is_power_of_two()
        && (512..=4096).contains(&p.sector)
        && p.sectors_per_cluster.is_power_of_two()
        && p.reserved > 0
        && (1..=4).contains(&p.fats)
        && p.sectors_per_fat > 0
        && p.sectors > 0
        && (media == 0xF0 || media >= 0xF8)
        && (p.root_entries == 0) == is_32;
    sane.then_some(p)
}

fn clusters(p: &Parameters) -> Option<u64> {
    let root = (p.root_entries * 32).div_ceil(p.sector);
    let meta = p.reserved + p.fats.checked_mul(p.sectors_per_fat)? + root;
    let clusters = p.sectors.checked_sub(meta)?.checked_div(p.sectors_per_cluster)?;
    (clusters > 0 && (p.is_32 || clusters < FAT32_CLUSTERS)).then_some(clusters)
}
