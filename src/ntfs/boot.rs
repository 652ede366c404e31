//! The boot sector: geometry of the volume, in the first sector and once more behind its last one.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::error::{Error, Result};
use crate::image::ReadAt;

/// Start of `struct NTFS_BOOT` (Linux `fs/ntfs3/ntfs.h`; ntfs.com "NTFS partition boot sector").
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawBoot {
    jump: [u8; 3],
    system_id: [u8; 8],
    bytes_per_sector: U16,
    sectors_per_clusters: u8,
    unused1: [u8; 26],
    sectors_per_volume: U64,
    mft_clst: U64,
    mft2_clst: U64,
    record_size: i8,
    unused2: [u8; 3],
    index_size: i8,
    unused3: [u8; 3],
    serial_num: U64,
    check_sum: U32,
}

/// What the boot sector says. Sizes are powers of two, in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Bytes per sector: 256 to 4096.
    pub sector_size: u32,
    /// Bytes per cluster: up to 2 MiB.
    pub cluster_size: u32,
    /// Bytes per MFT record.
    pub record_size: u32,
    /// Bytes per index block (INDX).
    pub index_size: u32,
    /// Clusters of the volume.
    pub clusters: u64,
    /// First cluster of the MFT.
    pub mft: u64,
    /// First cluster of the copy of the MFT's first records.
    pub mft_mirror: u64,
    /// Serial number.
    pub serial: u64,
}

/// Bytes of a boot sector that matter.
pub const LENGTH: usize = 512;
const MAX_CLUSTER: u64 = 2 << 20;
const MAX_RECORD: u64 = 64 << 10;

impl Geometry {
    /// Read the boot sector of `disk`, or its backup at the volume's end if that is damaged.
    ///
    /// Errors: neither describes a volume; the error is about the first.
    pub fn read(disk: &dyn ReadAt) -> Result<Self> {
        let first = Self::read_at(disk, 0);
        if !matches!(first, Err(Error::Corrupt { .. })) {
            return first;
        }
        let size = disk.size();
        let backups = [512, 4096, 1024, 2048].into_iter().filter_map(|s| size.checked_sub(s));
        let whole = |at: u64| Self::read_at(disk, at).ok();
        backups.filter_map(whole).next().map_or(first, Ok)
    }

    fn read_at(disk: &dyn ReadAt, at: u64) -> Result<Self> {
        let mut bytes = [0; LENGTH];
        disk.read_at(at, &mut bytes).map_err(|source| Error::Io { what: "NTFS boot sector", at, source })?;
        Self::parse(&bytes, at)
    }

    /// Parse the boot sector `bytes`, which stand at volume byte `at`.
    pub fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let (raw, _) = RawBoot::ref_from_prefix(bytes)
            .map_err(|_| Error::corrupt("NTFS boot sector", at, "512 bytes", bytes.len()))?;
        if raw.system_id != *b"NTFS    " {
            let found = format!("{:02x?}", raw.system_id);
            return Err(Error::corrupt("NTFS boot sector", at + 3, "\"NTFS    \"", found));
        }
        let sector = u64::from(raw.bytes_per_sector.get());
        if !sector.is_power_of_two() || !(256..=4096).contains(&sector) {
            return Err(Error::corrupt("bytes per sector", at + 11, "256 to 4096", sector));
        }
        let cluster = cluster_size(sector, raw.sectors_per_clusters)
            .ok_or_else(|| Error::corrupt("sectors per cluster", at + 13, "up to 2 MiB", raw.sectors_per_clusters))?;
        let sized = |what, field: i8, offset| {
            structure_size(cluster, field)
                .ok_or_else(|| Error::corrupt(what, at + offset, "a power of two from 512 to 65536", field))
        };
        let record_size = sized("size of MFT records", raw.record_size, 64)?;
        let index_size = sized("size of index blocks", raw.index_size, 68)?;
        let clusters = raw.sectors_per_volume.get() / (cluster / sector);
        let (mft, mft_mirror) = (raw.mft_clst.get(), raw.mft2_clst.get());
        if clusters > u64::MAX / cluster / 2 {
            return Err(Error::corrupt("sectors per volume", at + 40, "less than 2^63 bytes", raw.sectors_per_volume));
        }
        if mft >= clusters {
            return Err(Error::corrupt("cluster of the MFT", at + 48, format!("less than {clusters}"), mft));
        }
        let serial = raw.serial_num.get();
        let small = |v: u64| u32::try_from(v).unwrap_or(u32::MAX);
        Ok(Self {
            sector_size: small(sector),
            cluster_size: small(cluster),
            record_size,
            index_size,
            clusters,
            mft,
            mft_mirror,
            serial,
        })
    }

    /// Bytes that the volume needs.
    pub fn bytes(&self) -> u64 {
        self.clusters.saturating_mul(self.cluster_size.into())
    }

    /// Clusters per VCN of an index: blocks smaller than a cluster are counted in sectors of 512.
    pub fn index_unit(&self) -> u64 {
        if self.index_size >= self.cluster_size { self.cluster_size.into() } else { 512 }
    }
}

/// Counts over 128 are negative powers of two: 0xF4 is 2^12 sectors.
fn cluster_size(sector: u64, field: u8) -> Option<u64> {
    let sectors = if field <= 0x80 { u64::from(field) } else { 1_u64.checked_shl(256 - u32::from(field))? };
    let size = sector.checked_mul(sectors)?;
    (size.is_power_of_two() && size <= MAX_CLUSTER).then_some(size)
}

/// Positive: clusters; negative: a power of two of bytes.
fn structure_size(cluster: u64, field: i8) -> Option<u32> {
    let size = match u32::from(field.unsigned_abs()) {
        clusters if field > 0 => cluster.checked_mul(clusters.into())?,
        log => 1_u64.checked_shl(log)?,
    };
    let fits = size.is_power_of_two() && (512..=MAX_RECORD).contains(&size);
    u32::try_from(size).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counts_or_powers() {
        assert_eq!(cluster_size(512, 8), Some(4096));
        assert_eq!(cluster_size(512, 0xF4), Some(2 << 20));
        assert_eq!(cluster_size(512, 0xF3), None);
        assert_eq!(cluster_size(512, 0), None);
        assert_eq!(structure_size(4096, 1), Some(4096));
        assert_eq!(structure_size(4096, -10), Some(1024));
        assert_eq!(structure_size(4096, -60), None);
        assert_eq!(structure_size(4096, 0), None);
    }
}
