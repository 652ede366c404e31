//! A recorded stream of writes: a file that can be sought, or a pipe that cannot. What comes from
//! a pipe is copied to a nameless temporary file, so that in both cases the bytes at position N of
//! the stream can be read later at byte N of [`Recording::store`].

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::interest::Interest;
use crate::overlay::Overlay;
use crate::units::Timestamp;
use crate::write::{Write, WriteOp};

/// A longer write is handed on in parts of this length, so that memory stays bounded.
pub const CHUNK: u64 = 1 << 20;
const MAX_READ: usize = 256 << 10;
/// After a jump probably only a header is wanted.
const MIN_READ: usize = 4 << 10;
const PIPE_SIZE: i32 = 1 << 20;

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

/// The stream, its position, and the disk that it changes.
pub struct Recording {
    from: From,
    store: File,
    /// Bytes that were read ahead: `buf[used..]` stands at `at`.
    buf: Vec<u8>,
    used: usize,
    at: u64,
    /// How much to read ahead.
    ahead: usize,
    time: Option<Timestamp>,
}

enum From {
    /// Its length.
    File(u64),
    Pipe(Pipe),
}

enum Pipe {
    File(File),
    Other(Box<dyn Read + Send>),
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(f) => f.read(buf),
            Self::Other(r) => r.read(buf),
        }
    }
}

impl Recording {
    /// Open the file or FIFO at `path`; `-` is stdin.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = if path == Path::new("-") { stdin()? } else { File::open(path)? };
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if meta.is_file() {
            let time = meta.modified().ok().and_then(timestamp);
            return Ok(Self { time, ..Self::new(From::File(meta.len()), file) });
        }
        // A larger pipe means fewer switches between its ends; any size works.
        let _ = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        Ok(Self::new(From::Pipe(Pipe::File(file)), tempfile::tempfile()?))
    }

    /// Read from something that cannot be sought.
    pub fn from_pipe(from: Box<dyn Read + Send>) -> io::Result<Self> {
        Ok(Self::new(From::Pipe(Pipe::Other(from)), tempfile::tempfile()?))
    }

    fn new(from: From, store: File) -> Self {
        Self { from, store, buf: Vec::new(), used: 0, at: 0, ahead: MIN_READ, time: None }
    }

    /// Where the bytes of the stream can be read later.
    pub fn store(&self) -> io::Result<File> {
        self.store.try_clone()
    }

    /// Position in the stream, in bytes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// When the next write happened, as far as we can know: a file's writes no later than its last
    /// change, a pipe's now. The same file gives the same times.
    pub fn time(&self) -> Timestamp {
        self.time.unwrap_or_else(Timestamp::now)
    }

    /// Whether the next byte, or the end, comes without waiting, or within `time`. A writer to a
    /// pipe may pause for long.
    pub fn is_ready(&self, time: Duration) -> bool {
        let From::Pipe(Pipe::File(pipe)) = &self.from else { return true };
        if self.used < self.buf.len() {
            return true;
        }
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        // What cannot be polled is found out by reading.
        nix::poll::poll(&mut fds, time).map_or(true, |n| n > 0)
    }

    /// The next `N` bytes; `Ok(Err(n))` if only `n` are left.
    pub fn header<const N: usize>(&mut self) -> Result<Result<[u8; N], usize>, StreamError> {
        let mut header = [0; N];
        let got = self.read(&mut header)?;
        Ok(if got == N { Ok(header) } else { Err(got) })
    }

    /// Go on by `len` bytes. Returns how many there were: fewer only at the end.
    pub fn skip(&mut self, len: u64) -> Result<u64, StreamError> {
        let buffered = self.take(usize::try_from(len).unwrap_or(usize::MAX));
        let mut done = buffered as u64;
        if let From::File(size) = self.from {
            let jump = (len - done).min(size.saturating_sub(self.at));
            if jump > 0 {
                self.at += jump;
                self.ahead = MIN_READ;
            }
            return Ok(done + jump);
        }
        while done < len && self.fill()? {
            done += self.take(usize::try_from(len - done).unwrap_or(usize::MAX)) as u64;
        }
        Ok(done)
    }

    /// Take the next `range.end - range.start` bytes as what was written there on the disk.
    /// Keeps the wanted ones for the engine and tells `disk` where the others are.
    ///
    /// `Ok(Err(n))` if the stream ends after `n` of them: then the disk has not changed.
    pub fn data(
        &mut self,
        range: Range<u64>,
        wanted: &Interest,
        disk: &Overlay,
    ) -> Result<Result<WriteOp, u64>, StreamError> {
        let start = self.at;
        let mut pieces = Vec::new();
        for part in wanted.wanted(range.clone()) {
            self.skip((start + (part.start - range.start)).saturating_sub(self.at))?;
            let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
            let got = self.read(&mut bytes)?;
            if got < bytes.len() {
                return Ok(Err(self.at - start));
            }
            pieces.push((part.start, bytes.into_boxed_slice()));
        }
        let len = range.end - range.start;
        let rest = len - (self.at - start);
        if self.skip(rest)? < rest {
            return Ok(Err(self.at - start));
        }
        disk.put(range.clone(), start);
        Ok(Ok(WriteOp::Data { offset: range.start, len, pieces }))
    }

    fn read(&mut self, to: &mut [u8]) -> Result<usize, StreamError> {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..)
            && !rest.is_empty()
        {
            let from = self.buf.get(self.used..).unwrap_or_default();
            if from.is_empty() {
                if !self.fill()? {
                    break;
                }
                continue;
            }
            let len = from.len().min(rest.len());
            if let (Some(a), Some(b)) = (rest.get_mut(..len), from.get(..len)) {
                a.copy_from_slice(b);
            }
            done += self.take(len);
        }
        Ok(done)
    }

    /// Drop up to `len` bytes from the buffer; returns how many.
    fn take(&mut self, len: usize) -> usize {
        let len = len.min(self.buf.len() - self.used);
        self.used += len;
        self.at += len as u64;
        len
    }

    /// Fill the empty buffer; `false` at the end of the stream.
    fn fill(&mut self) -> Result<bool, StreamError> {
        self.used = 0;
        self.buf.resize(self.ahead, 0);
        self.ahead = (self.ahead * 2).min(MAX_READ);
        let at = self.at;
        let (buf, store) = (&mut self.buf, &self.store);
        let read = loop {
            let read = match &mut self.from {
                From::File(_) => store.read_at(buf, at),
                From::Pipe(pipe) => pipe.read(buf),
            };
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let len = match read {
            Ok(len) => len,
            Err(source) => {
                self.buf.clear();
                return Err(StreamError::Io { what: "cannot read it", at, source });
            }
        };
        self.buf.truncate(len);
        if matches!(self.from, From::Pipe(_)) {
            let copied = self.store.write_all_at(&self.buf, at);
            copied.map_err(|source| StreamError::Io { what: "cannot keep a temporary copy", at, source })?;
        }
        Ok(len > 0)
    }
}

fn timestamp(t: std::time::SystemTime) -> Option<Timestamp> {
    let since = t.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp { secs: i64::try_from(since.as_secs()).ok()?, nanos: since.subsec_nanos() })
}

fn stdin() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
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
