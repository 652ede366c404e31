//! The disk's parameters, as the block layer learns them (struct ublk_params, linux/ublk_cmd.h).

use libublk::sys;

use crate::request::{Geometry, SECTOR};

/// Bytes: what guests should align to; a page, and the block of the file systems they use.
const PHYSICAL_BLOCK: u32 = 4096;

/// A disk with a volatile cache that honours flush and FUA, and takes discards and write-zeroes.
pub fn params(disk: &Geometry) -> sys::ublk_params {
    let physical = disk.block.max(PHYSICAL_BLOCK);
    // As many whole physical blocks as a 32-bit count of bytes allows: what loop devices use.
    let max_sectors = (u32::MAX - u32::MAX % physical) / SECTOR;
    sys::ublk_params {
        types: sys::UBLK_PARAM_TYPE_BASIC | sys::UBLK_PARAM_TYPE_DISCARD,
        basic: sys::ublk_param_basic {
            // Without both, no flush and no FUA ever reaches the server.
            attrs: sys::UBLK_ATTR_VOLATILE_CACHE | sys::UBLK_ATTR_FUA,
            logical_bs_shift: shift(disk.block),
            physical_bs_shift: shift(physical),
            io_min_shift: shift(physical),
            io_opt_shift: shift(physical),
            max_sectors: disk.max_io / SECTOR,
            dev_sectors: disk.size / u64::from(SECTOR),
            ..Default::default()
        },
        discard: sys::ublk_param_discard {
            discard_granularity: physical,
            max_discard_sectors: max_sectors,
            max_write_zeroes_sectors: max_sectors,
            // The driver takes one range a request.
            max_discard_segments: 1,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// log2 of a power of two.
fn shift(bytes: u32) -> u8 {
    // Below 32.
    u8::try_from(bytes.trailing_zeros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describe_the_disk_in_sectors() {
        let p = params(&Geometry { size: 1 << 30, block: 512, max_io: 1 << 20 });
        assert_eq!((p.basic.logical_bs_shift, p.basic.physical_bs_shift), (9, 12));
        assert_eq!((p.basic.max_sectors, p.basic.dev_sectors), (2048, 2 << 20));
        assert_eq!(p.discard.max_discard_sectors % 8, 0);
        assert_eq!(p.discard.max_discard_segments, 1);
    }
}
