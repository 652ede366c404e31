//! The trace of a running QEMU: read ahead with io_uring, taken apart into records, and gone on
//! with when its writer comes back.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::stream::{CHUNK, StreamError};
use super::trace::{self, Behind, HEADER, Start};
use super::uring::{Piece, Uring};

/// What the trace holds next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// These bytes were written at this byte of the disk. Long writes come in parts.
    Write {
        /// Byte of the disk.
        offset: u64,
        /// Bytes, a multiple of 512 and at most [`CHUNK`].
        data: Vec<u8>,
    },
    /// So many writes are missing here: the writer said so.
    Lost(u64),
    /// A message stood here and was skipped.
    Text {
        /// Byte of the stream.
        at: u64,
        /// Its beginning.
        text: String,
    },
    /// The writer has closed the stream, and another may come.
    Closed,
    /// The same, in the middle of a record, which is lost.
    Torn {
        /// Byte of the stream where the record started.
        at: u64,
        /// Bytes that it lacks.
        missing: u64,
    },
    /// Nothing came in time.
    Nothing,
    /// The stream has ended.
    End,
}

/// Takes a trace apart.
pub struct LiveTrace {
    from: Uring,
    /// Bytes of the disk, or the most that it may have.
    size: u64,
    buf: Vec<u8>,
    /// `buf[used..]` stands at stream byte `at`.
    used: usize,
    at: u64,
    /// What is left to come of the current record: range on the disk, where it started.
    current: Range<u64>,
    started: u64,
    ended: bool,
}

impl LiveTrace {
    /// Read the trace at `path` (`-`: stdin) of a disk with `size` bytes.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, size: Option<u64>) -> io::Result<Self> {
        Ok(Self::new(Uring::open(path)?, size))
    }

    /// Read from `from`.
    pub fn new(from: Uring, size: Option<u64>) -> Self {
        let size = size.unwrap_or(trace::LARGEST_DISK);
        Self { from, size, buf: Vec::new(), used: 0, at: 0, current: 0..0, started: 0, ended: false }
    }

    /// Position in the stream, in bytes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What comes next; waits up to `time`.
    ///
    /// # Errors
    /// The stream makes no sense any more, or cannot be read. There is no going on.
    pub fn next_within(&mut self, time: Duration) -> Result<Found, StreamError> {
        let until = Instant::now() + time;
        loop {
            if let Some(found) = self.parse()? {
                return Ok(found);
            }
            if self.ended {
                return self.end();
            }
            let left = until.saturating_duration_since(Instant::now());
            let at = self.at + self.waiting().len() as u64;
            let next = if left.is_zero() { self.from.next_now() } else { self.from.next_within(left) };
            match next {
                Ok(Some(Piece::Bytes(bytes))) => self.take(bytes),
                Ok(Some(Piece::Closed)) => return Ok(self.closed()),
                Ok(None) => return Ok(Found::Nothing),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => self.ended = true,
                Err(source) => return Err(StreamError::Io { what: "cannot read it", at, source }),
            }
        }
    }

    fn waiting(&self) -> &[u8] {
        self.buf.get(self.used..).unwrap_or_default()
    }

    fn take(&mut self, bytes: Vec<u8>) {
        if self.waiting().is_empty() {
            let old = std::mem::replace(&mut self.buf, bytes);
            self.from.done(old);
        } else {
            self.buf.drain(..self.used);
            self.buf.extend_from_slice(&bytes);
            self.from.done(bytes);
        }
        self.used = 0;
    }

    fn skip(&mut self, len: usize) {
        self.used += len;
        self.at += len as u64;
    }

    /// What the bytes that are there say, if they say anything yet.
    fn parse(&mut self) -> Result<Option<Found>, StreamError> {
        if !self.current.is_empty() {
            return Ok(self.part());
        }
        let Some(header) = self.waiting().first_chunk::<HEADER>().copied() else { return Ok(None) };
        match trace::start(&header, self.at, self.size) {
            Ok(Start::Write(range)) => {
                (self.current, self.started) = (range, self.at);
                self.skip(HEADER);
                self.parse_on()
            }
            Ok(Start::Lost(writes)) => {
                self.skip(HEADER);
                Ok(Some(Found::Lost(writes)))
            }
            Err(StreamError::Text { .. }) => self.text(),
            Err(e) => Err(e),
        }
    }

    /// Behind a header. One without sectors says nothing; a run of those is no trace.
    fn parse_on(&mut self) -> Result<Option<Found>, StreamError> {
        const EMPTY: usize = 64 * HEADER;
        if self.current.is_empty() && self.waiting().len() >= EMPTY {
            let rest = self.waiting().get(..EMPTY).unwrap_or_default();
            if rest.iter().all(|b| *b == 0) {
                return Err(StreamError::Implausible { at: self.at, why: "a run of empty records".into() });
            }
        }
        self.parse()
    }

    /// The next part of the current record, once it is whole.
    fn part(&mut self) -> Option<Found> {
        let end = (self.current.start / CHUNK + 1).saturating_mul(CHUNK).min(self.current.end);
        let len = usize::try_from(end - self.current.start).ok()?;
        let data = self.waiting().get(..len)?.to_vec();
        let offset = std::mem::replace(&mut self.current.start, end);
        self.skip(len);
        Some(Found::Write { offset, data })
    }

    fn text(&mut self) -> Result<Option<Found>, StreamError> {
        let (at, text) = (self.at, trace::told(self.waiting()));
        match trace::behind_text(self.waiting(), self.size) {
            Behind::At(len) => {
                self.skip(len);
                Ok(Some(Found::Text { at, text }))
            }
            Behind::More => Ok(None),
            Behind::Unclear => Err(StreamError::Text { at, text }),
        }
    }

    /// The writer has gone. The next one starts with a record.
    fn closed(&mut self) -> Found {
        let left = self.left();
        let text = trace::told(self.waiting());
        let whole_text = self.current.is_empty() && self.waiting().ends_with(b"\n") && !text.is_empty();
        let (at, started) = (self.at, if self.current.is_empty() { self.at } else { self.started });
        self.skip(self.waiting().len());
        self.current = 0..0;
        match left {
            0 => Found::Closed,
            _ if whole_text => Found::Text { at, text },
            missing => Found::Torn { at: started, missing },
        }
    }

    /// Bytes that are missing to the end of what has started.
    fn left(&self) -> u64 {
        let waiting = self.waiting().len() as u64;
        match (self.current.is_empty(), waiting) {
            (true, 0) => 0,
            (true, _) => (HEADER as u64).saturating_sub(waiting).max(1),
            (false, _) => (self.current.end - self.current.start).saturating_sub(waiting),
        }
    }

    fn end(&mut self) -> Result<Found, StreamError> {
        match self.closed() {
            Found::Torn { at, missing } => {
                let length = (self.at - at).saturating_add(missing);
                Err(StreamError::Cut { at, missing, length })
            }
            Found::Closed => Ok(Found::End),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests;
