//! Records that wait on disk: a row of files, written at the end and read at the start. Each knows
//! how far it has been delivered, so that another run of the program can go on.

mod segment;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use self::segment::Segment;
use super::record::{Lost, Record};

/// Number of a spool's first file: there is room for files before it.
const FIRST: u64 = 1 << 32;
/// The spool is divided into so many files: that much is dropped at once when it is full.
const PARTS: u64 = 16;
const MIN_PART: u64 = 64 << 10;
const MAX_PART: u64 = 64 << 20;

/// Where records wait, and how many bytes of them may.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The folder; made if missing.
    pub dir: PathBuf,
    /// Bytes on disk.
    pub limit: u64,
}

/// The spool of one sink.
pub struct Spool {
    dir: PathBuf,
    name: String,
    limit: u64,
    segments: VecDeque<Segment>,
    /// Held for as long as this is in use.
    _lock: Flock<File>,
}

impl Spool {
    /// Open or make the spool `name` in a folder. What an earlier run left there comes first.
    pub fn open(options: &SpoolOptions, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        let name = file_name(name);
        let lock = File::create(options.dir.join(format!("{name}.lock")))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another gammaray with this VM's name uses it"))?;
        let mut segments = Vec::new();
        for (number, path) in numbered(&options.dir, &name)? {
            match Segment::open(&path, number) {
                Ok(s) if s.is_done() => s.remove(),
                Ok(s) => segments.push(s),
                Err(e) => tracing::warn!("{}: not a spool file, left alone: {e}", path.display()),
            }
        }
        segments.sort_by_key(Segment::number);
        Ok(Self { dir: options.dir.clone(), name, limit: options.limit, segments: segments.into(), _lock: lock })
    }

    /// The last run that left records here.
    pub fn last_run(&self) -> Option<u64> {
        self.segments.iter().map(Segment::run).max()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(Segment::is_read)
    }

    /// How many records wait.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(Segment::unread).sum()
    }

    /// Add a record at the end. When there is no room the oldest go: they are handed out as lost.
    /// An error: the record was not taken.
    pub fn push(&mut self, record: &Record) -> io::Result<Vec<Lost>> {
        let part = (self.limit / PARTS).clamp(MIN_PART, MAX_PART);
        if self.segments.back().is_none_or(|s| s.run() != record.run || s.bytes() >= part) {
            let number = self.segments.back().map_or(FIRST, |s| s.number() + 1);
            if let Some(s) = self.segments.back_mut() {
                s.flush()?;
            }
            let new = Segment::create(&self.path(number), number, record.run)?;
            self.segments.push_back(new);
        }
        let mut lost = Vec::new();
        while self.bytes() >= self.limit && self.segments.len() > 1 {
            lost.extend(self.drop_first());
        }
        let Some(last) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        match last.push(record) {
            Ok(()) => {}
            Err(_) if self.segments.len() > 1 => {
                // The disk is full: give back some of it.
                lost.extend(self.drop_first());
                let again = self.segments.back_mut().map(|s| s.push(record));
                if !matches!(again, Some(Ok(()))) {
                    lost.push(Lost::of(record));
                }
            }
            Err(e) => return Err(e),
        }
        Ok(lost)
    }

    /// Put records before all others: they were taken and not delivered.
    pub fn put_first(&mut self, records: &[Record]) -> io::Result<()> {
        for run in records.chunk_by(|a, b| a.run == b.run).rev() {
            let number = self.segments.front().map_or(FIRST, |s| s.number() - 1);
            let Some(first) = run.first() else { continue };
            let mut new = Segment::create(&self.path(number), number, first.run)?;
            run.iter().try_for_each(|r| new.push(r))?;
            new.flush()?;
            self.segments.push_front(new);
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}.{number:016x}.spool", self.name))
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    fn drop_first(&mut self) -> Option<Lost> {
        let first = self.segments.pop_front()?;
        let lost = first.lost();
        first.remove();
        lost
    }

    /// The next records, up to about `bytes` and `count` of them, of one file. They stay on disk until
    /// [`Spool::delivered`]. Of a damaged file the rest is lost.
    pub fn read(&mut self, bytes: usize, count: usize) -> (Vec<Record>, Option<Lost>) {
        let Some(first) = self.segments.iter_mut().find(|s| !s.is_read()) else { return (Vec::new(), None) };
        match first.read(bytes, count) {
            Ok(records) if !records.is_empty() => (records, None),
            Ok(_) => (Vec::new(), first.give_up("damaged")),
            Err(e) => (Vec::new(), first.give_up(e)),
        }
    }

    /// All that was read has arrived.
    pub fn delivered(&mut self) {
        while let Some(first) = self.segments.front_mut() {
            first.delivered();
            if !first.is_done() {
                break;
            }
            if let Some(done) = self.segments.pop_front() {
                done.remove();
            }
        }
    }

    /// Hand what waits in memory to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.segments.back_mut().map_or(Ok(()), Segment::flush)
    }

    /// Make all of it durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.segments.iter().try_for_each(Segment::sync)
    }
}

/// A VM's name as part of a file name.
fn file_name(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

/// The files of the spool `name` and their numbers.
fn numbered(dir: &Path, name: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|f| f.to_str()?.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".spool"))
            .and_then(|n| u64::from_str_radix(n, 16).ok());
        all.extend(number.map(|n| (n, path)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
