//! One file of a spool.
//!
//! Header: 8 bytes of magic, the run, and the offset of the first record that was not delivered.
//! Then records: length of the bytes (u32), CRC-32C of seq and bytes (u32), seq (u64), bytes.
//! Numbers are little-endian. A record that is cut or damaged ends the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::record::{Lost, Record};

const MAGIC: &[u8; 8] = b"gammspl1";
const HEADER: u64 = 24;
const HEADER_LEN: usize = 24;
const START_AT: u64 = 16;
const RECORD: usize = 16;
/// Longer records are damage: the longest hold 1 MiB of a file, twice, once as base64.
const MAX_RECORD: usize = 16 << 20;
/// Records are written when so many bytes of them wait, or at the end of a transaction.
const BUFFER: usize = 64 << 10;
/// So many may wait in memory while the disk is full.
const MAX_WAITING: usize = 4 << 20;

/// The file.
pub struct Segment {
    path: PathBuf,
    file: File,
    number: u64,
    run: u64,
    /// Bytes in the file.
    written: u64,
    /// Bytes that come after them, once they can be written.
    waiting: Vec<u8>,
    /// Where the next record to be read starts.
    at: u64,
    /// Where the first record starts that was not delivered.
    start: u64,
    /// Records from `at` on.
    unread: u64,
    last_seq: u64,
    read_seq: Option<u64>,
    first_seq: Option<u64>,
}

impl Segment {
    /// A new file.
    pub fn create(path: &Path, number: u64, run: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let header = [&MAGIC[..], &run.to_le_bytes(), &HEADER.to_le_bytes()].concat();
        if let Err(e) = file.write_all_at(&header, 0) {
            let _ = std::fs::remove_file(path);
            return Err(e);
        }
        Ok(Self::at_start(path, file, number, run))
    }

    fn at_start(path: &Path, file: File, number: u64, run: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            file,
            number,
            run,
            written: HEADER,
            waiting: Vec::new(),
            at: HEADER,
            start: HEADER,
            unread: 0,
            last_seq: 0,
            read_seq: None,
            first_seq: None,
        }
    }

    /// A file of an earlier run: count what it holds, up to where it makes sense.
    pub fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0)?;
        let (magic, rest) = header.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        let (run, rest) = rest.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        let (start, _) = rest.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        if magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong magic"));
        }
        let mut this = Self::at_start(path, file, number, u64::from_le_bytes(*run));
        this.written = this.file.metadata()?.len();
        (this.start, this.at) = (u64::from_le_bytes(*start).max(HEADER), u64::from_le_bytes(*start).max(HEADER));
        this.count()?;
        Ok(this)
    }

    fn count(&mut self) -> io::Result<()> {
        let (begin, mut unread) = (self.at, 0);
        while let Some(r) = self.next()? {
            unread += 1;
            self.first_seq.get_or_insert(r.seq);
            self.last_seq = r.seq;
        }
        if self.at < self.written {
            tracing::warn!("{}: damaged at byte {}: the rest is left out", self.path.display(), self.at);
            self.written = self.at;
        }
        (self.at, self.unread, self.read_seq) = (begin, unread, None);
        Ok(())
    }

    /// Its number in the row.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The run that wrote it.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// How many records were not read yet.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Whether all was read.
    pub fn is_read(&self) -> bool {
        self.unread == 0
    }

    /// Whether all was delivered.
    pub fn is_done(&self) -> bool {
        self.is_read() && self.start >= self.bytes()
    }

    /// Add a record; on an error it was not taken.
    pub fn push(&mut self, r: &Record) -> io::Result<()> {
        if self.waiting.len() >= BUFFER
            && let Err(e) = self.flush()
            && self.waiting.len() >= MAX_WAITING
        {
            return Err(e);
        }
        let len = u32::try_from(r.bytes.len()).ok().filter(|l| *l as usize <= MAX_RECORD);
        let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an event of more than 16 MiB"))?;
        self.waiting.extend_from_slice(&len.to_le_bytes());
        self.waiting.extend_from_slice(&checksum(r.seq, &r.bytes).to_le_bytes());
        self.waiting.extend_from_slice(&r.seq.to_le_bytes());
        self.waiting.extend_from_slice(&r.bytes);
        self.unread += 1;
        self.first_seq.get_or_insert(r.seq);
        self.last_seq = r.seq;
        Ok(())
    }

    /// Write what waits.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.file.write_all_at(&self.waiting, self.written)?;
            self.written += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Make it durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The next records, about `bytes` and at most `count` of them.
    pub fn read(&mut self, bytes: usize, count: usize) -> io::Result<Vec<Record>> {
        let (mut all, mut size) = (Vec::new(), 0);
        while all.len() < count && size < bytes && self.unread > 0 {
            let Some(r) = self.next()? else { break };
            size += r.cost();
            self.unread -= 1;
            all.push(r);
        }
        Ok(all)
    }

    /// The record at `at`; `None` at the end, and where it makes no sense.
    fn next(&mut self) -> io::Result<Option<Record>> {
        let mut head = [0; RECORD];
        if !self.fill(self.at, &mut head)? {
            return Ok(None);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3, seq @ ..] = head;
        let (len, crc) = (u32::from_le_bytes([l0, l1, l2, l3]) as usize, u32::from_le_bytes([c0, c1, c2, c3]));
        let seq = u64::from_le_bytes(seq);
        if len > MAX_RECORD {
            return Ok(None);
        }
        let mut bytes = vec![0; len].into_boxed_slice();
        let body = self.at + RECORD as u64;
        if !self.fill(body, &mut bytes)? || checksum(seq, &bytes) != crc {
            return Ok(None);
        }
        self.at = body + len as u64;
        self.read_seq = Some(seq);
        Ok(Some(Record { run: self.run, seq, bytes }))
    }

    /// Fill `to` from `at` on, from the file or from what waits; false if there is less.
    fn fill(&self, at: u64, to: &mut [u8]) -> io::Result<bool> {
        if let Some(skip) = at.checked_sub(self.written) {
            let from = usize::try_from(skip).ok().and_then(|s| self.waiting.get(s..)?.get(..to.len()));
            return Ok(from.map(|f| to.copy_from_slice(f)).is_some());
        }
        if self.written - at < to.len() as u64 {
            return Ok(false);
        }
        self.file.read_exact_at(to, at).map(|()| true)
    }

    /// Nothing more can be read; what is lost.
    pub fn give_up(&mut self, why: impl std::fmt::Display) -> Option<Lost> {
        tracing::warn!("{}: {} events cannot be read back: {why}", self.path.display(), self.unread);
        let lost = self.lost();
        self.unread = 0;
        self.at = self.bytes();
        lost
    }

    /// All that was read has arrived: remember it on disk.
    pub fn delivered(&mut self) {
        if self.start != self.at {
            self.start = self.at;
            // When this fails, what was delivered is delivered again by another run: no loss.
            let _ = self.file.write_all_at(&self.start.to_le_bytes(), START_AT);
        }
    }

    /// What is lost when this goes now.
    pub fn lost(&self) -> Option<Lost> {
        let first = self.read_seq.map_or(self.first_seq, |s| Some(s + 1))?;
        (self.unread > 0).then_some(Lost { run: self.run, first: first.min(self.last_seq), last: self.last_seq })
    }

    /// Delete it.
    pub fn remove(self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::warn!("{}: {e}", self.path.display());
        }
    }
}

fn checksum(seq: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&seq.to_le_bytes()), bytes)
}
