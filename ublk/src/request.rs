//! What the guest asks for: read from the kernel's descriptor, checked once, valid ever after.

use libublk::sys;
use nix::errno::Errno;

/// Bytes of the kernel's unit of offsets and lengths.
pub const SECTOR: u32 = 512;

/// The disk's shape, which requests must fit.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Length of the disk in bytes, a multiple of `block`.
    pub size: u64,
    /// Logical block in bytes: offsets and lengths are multiples of it.
    pub block: u32,
    /// The longest read or write in bytes: what a buffer holds.
    pub max_io: u32,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Read,
    Write { fua: bool },
    Flush,
    Discard,
    WriteZeroes { unmap: bool, fua: bool },
}

/// A request whose range lies on the disk, in whole blocks, and not empty (but for a flush).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub op: Op,
    /// Bytes.
    pub offset: u64,
    /// Bytes; at most `Geometry::max_io` for reads and writes.
    pub len: u64,
}

impl Request {
    /// Check what the guest sent (struct ublksrv_io_desc, linux/ublk_cmd.h).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for an operation that was never offered, `EINVAL` for a bad range.
    pub fn parse(desc: &sys::ublksrv_io_desc, disk: &Geometry) -> Result<Self, Errno> {
        let flag = |f: u32| desc.op_flags & f != 0;
        let fua = flag(sys::UBLK_IO_F_FUA);
        let op = match desc.op_flags & 0xff {
            sys::UBLK_IO_OP_READ => Op::Read,
            sys::UBLK_IO_OP_WRITE => Op::Write { fua },
            sys::UBLK_IO_OP_FLUSH => return Ok(Self { op: Op::Flush, offset: 0, len: 0 }),
            sys::UBLK_IO_OP_DISCARD => Op::Discard,
            sys::UBLK_IO_OP_WRITE_ZEROES => Op::WriteZeroes { unmap: !flag(sys::UBLK_IO_F_NOUNMAP), fua },
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let offset = desc.start_sector.checked_mul(SECTOR.into()).ok_or(Errno::EINVAL)?;
        let len = u64::from(desc.nr_sectors) * u64::from(SECTOR);
        let end = offset.checked_add(len).ok_or(Errno::EINVAL)?;
        let whole = (offset | len).is_multiple_of(disk.block.into());
        let fits = !matches!(op, Op::Read | Op::Write { .. }) || len <= disk.max_io.into();
        if len == 0 || end > disk.size || !whole || !fits {
            return Err(Errno::EINVAL);
        }
        Ok(Self { op, offset, len })
    }
}

impl Request {
    /// `len` of a read or write, which is at most a u32.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: Geometry = Geometry { size: 1 << 20, block: 4096, max_io: 65_536 };

    fn desc(op_flags: u32, start_sector: u64, nr_sectors: u32) -> sys::ublksrv_io_desc {
        sys::ublksrv_io_desc { op_flags, start_sector, nr_sectors, addr: 0 }
    }

    #[test]
    fn each_operation_with_its_flags() {
        let parse = |flags| Request::parse(&desc(flags, 8, 16), &DISK).map(|r| (r.op, r.offset, r.len));
        let at = |op| Ok((op, 4096, 8192));
        assert_eq!(parse(1 << 8), at(Op::Read));
        assert_eq!(parse(1), at(Op::Write { fua: false }));
        assert_eq!(parse(1 | sys::UBLK_IO_F_FUA | sys::UBLK_IO_F_META), at(Op::Write { fua: true }));
        assert_eq!(parse(2), Ok((Op::Flush, 0, 0)));
        assert_eq!(parse(3), at(Op::Discard));
        assert_eq!(parse(5), at(Op::WriteZeroes { unmap: true, fua: false }));
        assert_eq!(parse(5 | sys::UBLK_IO_F_NOUNMAP), at(Op::WriteZeroes { unmap: false, fua: false }));
        for unknown in [4, 6, 10, 13, 18, 255] {
            assert_eq!(parse(unknown), Err(Errno::EOPNOTSUPP));
        }
    }

    #[test]
    fn bad_ranges_are_refused() {
        let refused = |op, start, count| Request::parse(&desc(op, start, count), &DISK) == Err(Errno::EINVAL);
        assert!(refused(0, 0, 0), "empty");
        assert!(refused(1, 1, 8), "unaligned start");
        assert!(refused(1, 8, 1), "unaligned length");
        assert!(refused(1, 2048, 8), "at the end");
        assert!(refused(3, 2040, 16), "over the end");
        assert!(refused(0, u64::MAX, 8) && refused(0, u64::MAX / 512, 8), "wraps");
        assert!(refused(0, 0, 136), "longer than a buffer");
        assert!(!refused(3, 0, 2048), "a discard needs no buffer");
        assert!(!refused(1, 2040, 8), "the last block");
    }

    proptest! {
        #[test]
        fn whatever_passes_lies_on_the_disk(op in 0u32..7, flags: u32, start: u64, near in 0u64..2100, count: u32, few in 0u32..200) {
            for (start, count) in [(start, count), (near, few), (near, count)] {
                let Ok(r) = Request::parse(&desc(op | flags << 8, start, count), &DISK) else { continue };
                prop_assert!(r.offset + r.len <= DISK.size);
                prop_assert!((r.offset | r.len) % 4096 == 0);
                prop_assert!(r.len > 0 || r.op == Op::Flush);
                if matches!(r.op, Op::Read | Op::Write { .. }) {
                    prop_assert!(r.len <= u64::from(DISK.max_io));
                }
            }
        }
    }
}
