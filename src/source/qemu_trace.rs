//! The trace of the patched QEMU as a recorded stream: see [`trace`] for its records.

use std::ops::Range;

use super::stream::{Replay, Stream, StreamError};
use super::trace::{self, Behind, HEADER, Start};
use crate::image::ReadAt;
use crate::write::Write;

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
            let (got, header) = {
                let seen = self.replay.recording.peek(HEADER)?;
                (seen.len() as u64, seen.first_chunk::<HEADER>().copied())
            };
            match header {
                Some(header) => self.current = self.record(&header, at)?,
                None if got == 0 => return Ok(None),
                None => return Err(StreamError::Cut { at, missing: HEADER as u64 - got, length: HEADER as u64 }),
            }
        }
        let (range, at, length) = &mut self.current;
        self.replay.part(range, *at, *length).map(Some)
    }

    /// The disk range of a record, where it starts in the stream, and its length there.
    fn record(&mut self, header: &[u8; HEADER], at: u64) -> Result<(Range<u64>, u64, u64), StreamError> {
        let range = match trace::start(header, at, self.replay.disk.size()) {
            Ok(Start::Write(range)) => range,
            Ok(Start::Lost(writes)) => return Err(StreamError::Lost { at, writes }),
            Err(StreamError::Text { .. }) => {
                self.skip_text(at)?;
                return Ok((0..0, 0, 0));
            }
            Err(e) => return Err(e),
        };
        self.replay.recording.skip(HEADER as u64)?;
        self.empty = if range.is_empty() { self.empty + 1 } else { 0 };
        if self.empty > MAX_EMPTY {
            return Err(StreamError::Implausible { at, why: "a run of empty records".into() });
        }
        let length = HEADER as u64 + (range.end - range.start);
        Ok((range, at, length))
    }

    /// Go on behind the message at stream byte `at`, if it is clear where.
    fn skip_text(&mut self, at: u64) -> Result<(), StreamError> {
        let size = self.replay.disk.size();
        let mut want = 256;
        loop {
            let seen = self.replay.recording.peek(want)?;
            let (text, ended) = (trace::told(seen), seen.len() < want);
            match trace::behind_text(seen, size) {
                Behind::At(len) => {
                    tracing::warn!("text in the trace at byte {at}, skipped: {text:?}");
                    self.replay.recording.skip(len as u64)?;
                    return Ok(());
                }
                Behind::More if !ended => want = want.saturating_mul(2),
                _ => return Err(StreamError::Text { at, text }),
            }
        }
    }
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
