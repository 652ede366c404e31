//! A recorded stream of writes: a file that can be sought, or a pipe that cannot. The bytes of a
//! file are read again where they are when they are needed. Those of a pipe are kept in a nameless
//! sparse file, each at its place on the disk: it never grows beyond the disk's size, however long
//! the stream runs.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::stream::StreamError;
use crate::interest::Interest;
use crate::overlay::Overlay;
use crate::units::Timestamp;
use crate::write::WriteOp;

const MAX_READ: usize = 256 << 10;
/// After a jump probably only a header is wanted.
const MIN_READ: usize = 4 << 10;
const PIPE_SIZE: i32 = 1 << 20;

/// The stream and its position.
pub struct Recording {
    from: From,
    store: File,
    /// Bytes that were read ahead: `buf[used..]` stands at `at`.
    buf: Vec<u8>,
    used: usize,
    at: u64,
    /// One part of a write that comes from a pipe.
    part: Vec<u8>,
    /// How much to read ahead.
    ahead: usize,
    time: Option<Timestamp>,
}

/// Wanted bytes of a write: disk offset and bytes, rising.
type Pieces = Vec<(u64, Box<[u8]>)>;

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
        Self { from, store, buf: Vec::new(), used: 0, at: 0, part: Vec::new(), ahead: MIN_READ, time: None }
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

    /// The next `len` bytes without going on, fewer only at the end.
    pub fn peek(&mut self, len: usize) -> Result<&[u8], StreamError> {
        while self.buf.len() - self.used < len {
            self.buf.drain(..self.used);
            self.used = 0;
            let held = self.buf.len();
            let mut buf = std::mem::take(&mut self.buf);
            buf.resize(held + self.ahead.max(len - held), 0);
            let read = self.read_at(buf.get_mut(held..).unwrap_or_default(), self.at + held as u64);
            buf.truncate(held + *read.as_ref().unwrap_or(&0));
            self.buf = buf;
            self.ahead = (self.ahead * 2).min(MAX_READ);
            if read? == 0 {
                break;
            }
        }
        let end = self.buf.len().min(self.used + len);
        Ok(self.buf.get(self.used..end).unwrap_or_default())
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

    /// Take the next `range.end - range.start` bytes (at most [`CHUNK`](super::stream::CHUNK)) as what was written there
    /// on the disk. Keeps the wanted ones for the engine and tells `disk` where all of them are.
    ///
    /// `Ok(Err(n))` if the stream ends after `n` of them: then the disk has not changed.
    pub fn data(
        &mut self,
        range: Range<u64>,
        wanted: &Interest,
        disk: &Overlay,
    ) -> Result<Result<WriteOp, u64>, StreamError> {
        let pieces = match self.from {
            From::File(_) => self.data_of_file(&range, wanted, disk)?,
            From::Pipe(_) => self.data_of_pipe(&range, wanted, disk)?,
        };
        Ok(pieces.map(|pieces| WriteOp::Data { offset: range.start, len: range.end - range.start, pieces }))
    }

    fn data_of_file(
        &mut self,
        range: &Range<u64>,
        wanted: &Interest,
        disk: &Overlay,
    ) -> Result<Result<Pieces, u64>, StreamError> {
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
        let rest = range.end - range.start - (self.at - start);
        if self.skip(rest)? < rest {
            return Ok(Err(self.at - start));
        }
        disk.put(range.clone(), start);
        Ok(Ok(pieces))
    }

    fn data_of_pipe(
        &mut self,
        range: &Range<u64>,
        wanted: &Interest,
        disk: &Overlay,
    ) -> Result<Result<Pieces, u64>, StreamError> {
        let at = self.at;
        let mut part = std::mem::take(&mut self.part);
        part.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
        let got = self.read(&mut part)?;
        if got < part.len() {
            return Ok(Err(got as u64));
        }
        let kept = self.store.write_all_at(&part, range.start);
        kept.map_err(|source| StreamError::Io { what: "cannot keep a temporary copy", at, source })?;
        disk.put(range.clone(), range.start);
        let within = |at: u64| usize::try_from(at - range.start).unwrap_or(usize::MAX);
        let piece = |r: Range<u64>| (r.start, part.get(within(r.start)..within(r.end)).unwrap_or_default().into());
        let pieces = wanted.wanted(range.clone()).map(piece).collect();
        self.part = part;
        Ok(Ok(pieces))
    }

    /// Fill `to`; returns how many bytes there were: fewer only at the end.
    fn read(&mut self, to: &mut [u8]) -> Result<usize, StreamError> {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..)
            && !rest.is_empty()
        {
            let from = self.buf.get(self.used..).unwrap_or_default();
            let len = from.len().min(rest.len());
            if let (Some(a), Some(b)) = (rest.get_mut(..len), from.get(..len)) {
                a.copy_from_slice(b);
            }
            done += match len {
                0 if rest.len() >= MAX_READ => match self.read_once(rest)? {
                    0 => break,
                    len => {
                        self.at += len as u64;
                        len
                    }
                },
                0 if self.fill()? => 0,
                0 => break,
                len => self.take(len),
            };
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
        let mut buf = std::mem::take(&mut self.buf);
        self.used = 0;
        buf.resize(self.ahead, 0);
        self.ahead = (self.ahead * 2).min(MAX_READ);
        let len = self.read_once(&mut buf)?;
        buf.truncate(len);
        self.buf = buf;
        Ok(len > 0)
    }

    /// One read at the current position, past the buffer. 0 at the end of the stream.
    fn read_once(&mut self, to: &mut [u8]) -> Result<usize, StreamError> {
        self.read_at(to, self.at)
    }

    /// One read; `at` is where the stream stands, past all that is buffered.
    fn read_at(&mut self, to: &mut [u8], at: u64) -> Result<usize, StreamError> {
        loop {
            let read = match &mut self.from {
                From::File(_) => self.store.read_at(to, at),
                From::Pipe(pipe) => pipe.read(to),
            };
            match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|source| StreamError::Io { what: "cannot read it", at, source }),
            }
        }
    }
}

fn timestamp(t: std::time::SystemTime) -> Option<Timestamp> {
    let since = t.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp { secs: i64::try_from(since.as_secs()).ok()?, nanos: since.subsec_nanos() })
}

/// Standard input, as a file.
pub(super) fn stdin() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}
