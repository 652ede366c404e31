//! Writers of the two recorded forms that `gammaray replay` reads.
//! Linux, drivers/md/dm-log-writes.c; and the patched QEMU's `bdrv_write` trace.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::recorder::Access;

const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// A log as the kernel's device-mapper target and QEMU's `blklogwrites` make it.
pub fn write_log(to: &Path, accesses: &[Access]) {
    let mut out = BufWriter::new(File::create(to).unwrap());
    let count = accesses.len() as u64;
    out.write_all(&sector(&[&MAGIC.to_le_bytes(), &1u64.to_le_bytes(), &count.to_le_bytes(), &512u32.to_le_bytes()]))
        .unwrap();
    for access in accesses {
        match access {
            Access::Flush => out.write_all(&entry(0, 0, FLUSH)).unwrap(),
            Access::Discard { offset, length } => out.write_all(&entry(*offset, *length, DISCARD)).unwrap(),
            Access::Write { offset, data } => {
                assert!(data.len().is_multiple_of(SECTOR), "disks are written by sectors");
                out.write_all(&entry(*offset, data.len() as u64, 0)).unwrap();
                out.write_all(data).unwrap();
            }
        }
    }
    out.flush().unwrap();
}

fn entry(offset: u64, length: u64, flags: u64) -> Vec<u8> {
    let sectors = |bytes: u64| (bytes / SECTOR as u64).to_le_bytes();
    sector(&[&sectors(offset), &sectors(length), &flags.to_le_bytes(), &0u64.to_le_bytes()])
}

fn sector(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = fields.concat();
    bytes.resize(SECTOR, 0);
    bytes
}

/// A trace as the patched QEMU writes it: it knows neither flushes nor discards, so zeros are
/// written instead of the latter.
pub fn write_trace(to: &Path, accesses: &[Access]) {
    let mut out = BufWriter::new(File::create(to).unwrap());
    let mut record = |offset: u64, data: &[u8]| {
        out.write_all(&(offset / SECTOR as u64).to_le_bytes()).unwrap();
        out.write_all(&((data.len() / SECTOR) as u32).to_le_bytes()).unwrap();
        out.write_all(data).unwrap();
    };
    for access in accesses {
        match access {
            Access::Write { offset, data } => record(*offset, data),
            Access::Flush => {}
            Access::Discard { offset, length } => record(*offset, &vec![0; *length as usize]),
        }
    }
    out.flush().unwrap();
}
