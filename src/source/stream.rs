//! Recorded streams as the engine sees them: numbered writes, in parts of bounded length, up to the
//! end or to where a stream makes no sense any more.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::recording::Recording;
use crate::interest::Interest;
use crate::overlay::Overlay;
use crate::write::{Write, WriteOp};

/// A longer write is handed on in parts of this length, so that memory stays bounded.
pub const CHUNK: u64 = 1 << 20;

/// Why a recorded stream ends before its time. Everything before was delivered.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It ends within a record.
    #[error("it is cut: the record at byte {at} lacks {missing} of its {length} bytes")]
    Cut {
        /// Where the record starts in the stream, in bytes.
        at: u64,
        /// Bytes that are missing.
        missing: u64,
        /// Bytes that the record should have, header included.
        length: u64,
    },
    /// Text stands where a record should start.
    #[error("text instead of a record at byte {at}: {text:?}")]
    Text {
        /// Where, in bytes of the stream.
        at: u64,
        /// The text's beginning.
        text: String,
    },
    /// A header that makes no sense.
    #[error("no plausible record at byte {at}: {why}")]
    Implausible {
        /// Where, in bytes of the stream.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The recording says that it lacks writes.
    #[error("{writes} writes are missing at byte {at}: they were not recorded")]
    Lost {
        /// Where, in bytes of the stream.
        at: u64,
        /// How many.
        writes: u64,
    },
    /// A write past the disk's end.
    #[error("the record at byte {at} writes up to byte {end} of a disk that has {size}")]
    PastEnd {
        /// Where, in bytes of the stream.
        at: u64,
        /// Where the write ends on the disk, in bytes.
        end: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
    /// The host cannot read the stream, or cannot keep a copy of it.
    #[error("{what} at byte {at}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where, in bytes of the stream.
        at: u64,
        /// The host's error.
        source: io::Error,
    },
}

/// A reader of a recorded stream. After an error it has ended.
pub trait Stream: Iterator<Item = Result<Write, StreamError>> {
    /// What it reads from and changes.
    fn replay(&self) -> &Replay;
}

/// What streams share: who wants what, the disk, and the count of writes.
pub struct Replay {
    /// The stream.
    pub recording: Recording,
    /// Whose bytes are wanted.
    pub interest: Arc<Interest>,
    /// The disk that is changed.
    pub disk: Arc<Overlay>,
    seq: u64,
    /// Counts flushes.
    pub epoch: u64,
}

impl Replay {
    /// From the start of `recording`.
    pub fn new(recording: Recording, interest: Arc<Interest>, disk: Arc<Overlay>) -> Self {
        Self { recording, interest, disk, seq: 0, epoch: 0 }
    }

    /// Number and date an operation.
    pub fn stamp(&mut self, op: WriteOp) -> Write {
        self.seq += 1;
        Write { seq: self.seq, epoch: self.epoch, time: self.recording.time(), op }
    }

    /// The next part of a write that the record at stream byte `at`, of `length` bytes, makes to
    /// what is left of `range`; shortens `range`.
    pub fn part(&mut self, range: &mut Range<u64>, at: u64, length: u64) -> Result<Write, StreamError> {
        // Parts end on multiples of their length on the disk, so that no grain is split.
        let end = (range.start / CHUNK + 1).saturating_mul(CHUNK).min(range.end);
        let left = range.end - range.start;
        match self.recording.data(range.start..end, &self.interest, &self.disk)? {
            Ok(op) => {
                range.start = end;
                Ok(self.stamp(op))
            }
            Err(got) => Err(StreamError::Cut { at, missing: left - got, length }),
        }
    }
}
