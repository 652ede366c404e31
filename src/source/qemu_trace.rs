//! The trace of the patched QEMU: packed records without framing, magic or checksum. A header
//! `{ sector_num: i64, nb_sectors: i32 }`, little-endian, then the bytes that were written.
//!
//! QEMU's own messages may stand between records. Nothing proves where the next record starts, so
//! the reader says where it lost the thread and stops.

use std::ops::Range;

use super::stream::{Replay, Stream, StreamError};
use crate::image::ReadAt;
use crate::write::Write;

const HEADER: usize = 12;
const SECTOR: u64 = 512;
/// A guest may write nothing; a run of zeros is no trace.
const MAX_EMPTY: u32 = 64;

/// Iterator over the writes of a trace. It knows of no flushes: the epoch stays 0.
pub struct QemuTrace {
    replay: Replay,
    /// What is left of the current record on the disk, where it starts in the stream, its length.
    current: (Range<u64>, u64, u64),
    empty: u32,
    done: bool,
}

impl QemuTrace {
    /// Read `replay.recording` from its start.
    pub fn new(replay: Replay) -> Self {
        Self { replay, current: (0..0, 0, 0), empty: 0, done: false }
    }

    fn advance(&mut self) -> Result<Option<Write>, StreamError> {
        while self.current.0.is_empty() {
            let at = self.replay.recording.at();
            match self.replay.recording.header::<HEADER>()? {
                Ok(header) => self.current = self.record(&header, at)?,
                Err(0) => return Ok(None),
                Err(got) => {
                    let length = HEADER as u64;
                    return Err(StreamError::Cut { at, missing: length - got as u64, length });
                }
            }
        }
        let (range, at, length) = &mut self.current;
        self.replay.part(range, *at, *length).map(Some)
    }

    /// The disk range of a record, where it starts in the stream, and its length there.
    fn record(&mut self, header: &[u8; HEADER], at: u64) -> Result<(Range<u64>, u64, u64), StreamError> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = *header;
        let sector = i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = i32::from_le_bytes([n0, n1, n2, n3]);
        let size = self.replay.disk.size();
        let range = range(sector, sectors).filter(|r| r.end <= size);
        let Some(range) = range else { return Err(self.lost(header, at, sector, sectors)) };
        self.empty = if range.is_empty() { self.empty + 1 } else { 0 };
        if self.empty > MAX_EMPTY {
            return Err(StreamError::Implausible { at, why: "a run of empty records".into() });
        }
        let length = HEADER as u64 + (range.end - range.start);
        Ok((range, at, length))
    }

    fn lost(&mut self, header: &[u8; HEADER], at: u64, sector: i64, sectors: i32) -> StreamError {
        if header.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
            let more = self.replay.recording.header::<48>().ok().and_then(Result::ok).unwrap_or([0; 48]);
            let text = header.iter().chain(&more).take_while(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t'));
            return StreamError::Text { at, text: text.map(|b| char::from(*b)).collect() };
        }
        match range(sector, sectors) {
            Some(r) if r.start < self.replay.disk.size() => {
                StreamError::PastEnd { at, end: r.end, size: self.replay.disk.size() }
            }
            _ => StreamError::Implausible { at, why: format!("sector {sector}, {sectors} sectors") },
        }
    }
}

fn range(sector: i64, sectors: i32) -> Option<Range<u64>> {
    let start = u64::try_from(sector).ok()?.checked_mul(SECTOR)?;
    let len = u64::try_from(sectors).ok()?.checked_mul(SECTOR)?;
    Some(start..start.checked_add(len)?)
}

impl Stream for QemuTrace {
    fn replay(&self) -> &Replay {
        &self.replay
    }
}

impl Iterator for QemuTrace {
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
