//! The log of the kernel's dm-log-writes target and of QEMU's blklogwrites driver
//! (Linux `drivers/md/dm-log-writes.c`): a superblock in the first sector, then entries of one
//! sector each followed by the data that was written. All little-endian.

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::stream::{Replay, Stream, StreamError};
use crate::image::ReadAt;
use crate::write::{Write, WriteOp};

const MAGIC: u64 = 0x6a_7366_7773_6872;
const VERSION: u64 = 1;
const HEADER: usize = 32;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// Flush, FUA, discard, mark, metadata.
const KNOWN: u64 = 0x1F;

/// `struct log_write_super`
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSuper {
    magic: U64,
    version: U64,
    nr_entries: U64,
    sectorsize: U32,
    padding: U32,
}

/// `struct log_write_entry`
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    sector: U64,
    nr_sectors: U64,
    flags: U64,
    data_len: U64,
}

/// Iterator over the changes in a log. A flush that an entry carries comes before its data.
pub struct LogWrites {
    replay: Replay,
    sector: u64,
    entries_left: u64,
    /// What is left of the current entry on the disk, where it starts in the log, its length.
    current: (Range<u64>, u64, u64),
    done: bool,
}

impl LogWrites {
    /// Read the superblock of the log `replay.recording`.
    ///
    /// Errors: it is not such a log, or cannot be read.
    pub fn new(mut replay: Replay) -> Result<Self, StreamError> {
        let bad = |why: String| StreamError::Implausible { at: 0, why };
        let header = replay.recording.header::<HEADER>()?;
        let header = header.map_err(|n| bad(format!("{n} bytes are no log of dm-log-writes")))?;
        let raw = RawSuper::read_from_bytes(&header).map_err(|e| bad(e.to_string()))?;
        if raw.magic != MAGIC {
            return Err(bad(format!("magic {:#x}, not that of a dm-log-writes log", raw.magic)));
        }
        if raw.version != VERSION {
            return Err(bad(format!("version {} of dm-log-writes", raw.version)));
        }
        let sector = u64::from(raw.sectorsize.get());
        if !sector.is_power_of_two() || !(512..=65536).contains(&sector) {
            return Err(bad(format!("sectors of {sector} bytes")));
        }
        replay.recording.skip(sector - HEADER as u64)?;
        Ok(Self { replay, sector, entries_left: raw.nr_entries.get(), current: (0..0, 0, 0), done: false })
    }

    fn advance(&mut self) -> Result<Option<Write>, StreamError> {
        while self.current.0.is_empty() {
            if self.entries_left == 0 {
                return Ok(None);
            }
            self.entries_left -= 1;
            if let Some(op) = self.entry()? {
                return Ok(Some(self.replay.stamp(op)));
            }
        }
        let (range, at, length) = &mut self.current;
        self.replay.part(range, *at, *length).map(Some)
    }

    /// Read an entry's sector. Data becomes `current`; what has no data is returned.
    fn entry(&mut self) -> Result<Option<WriteOp>, StreamError> {
        let at = self.replay.recording.at();
        let cut = |got: u64| StreamError::Cut { at, missing: self.sector - got, length: self.sector };
        let header = self.replay.recording.header::<HEADER>()?.map_err(|got| cut(got as u64))?;
        let rest = self.sector - HEADER as u64;
        let skipped = self.replay.recording.skip(rest)?;
        if skipped < rest {
            return Err(cut(HEADER as u64 + skipped));
        }
        let raw =
            RawEntry::read_from_bytes(&header).map_err(|e| StreamError::Implausible { at, why: e.to_string() })?;
        let flags = raw.flags.get();
        let range = self.range(&raw, at)?;
        if flags & DISCARD != 0 && !range.is_empty() {
            self.replay.disk.zero(range.clone());
            return Ok(Some(WriteOp::Discard(range)));
        }
        self.current = (range.clone(), at, self.sector.saturating_add(range.end - range.start));
        if flags & FLUSH != 0 {
            self.replay.epoch += 1;
            return Ok(Some(WriteOp::Flush));
        }
        Ok(None)
    }

    /// The disk range of an entry. A mark's text stands in the entry's own sector and changes nothing.
    fn range(&self, raw: &RawEntry, at: u64) -> Result<Range<u64>, StreamError> {
        let flags = raw.flags.get();
        if flags & !KNOWN != 0 || raw.data_len > self.sector {
            let why = format!("flags {flags:#x}, {} bytes of text", raw.data_len);
            return Err(StreamError::Implausible { at, why });
        }
        if flags & MARK != 0 || raw.nr_sectors == 0 {
            return Ok(0..0);
        }
        let bytes = |sectors: u64| sectors.checked_mul(self.sector);
        let range =
            bytes(raw.sector.get()).and_then(|start| Some(start..start.checked_add(bytes(raw.nr_sectors.get())?)?));
        let size = self.replay.disk.size();
        match range {
            Some(range) if range.end <= size => Ok(range),
            range => Err(StreamError::PastEnd { at, end: range.map_or(u64::MAX, |r| r.end), size }),
        }
    }
}

impl Stream for LogWrites {
    fn replay(&self) -> &Replay {
        &self.replay
    }
}

impl Iterator for LogWrites {
    type Item = Result<Write, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests;
