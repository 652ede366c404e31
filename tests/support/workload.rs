//! A random workload of plain system calls on a mounted directory. The same seed makes the same
//! calls, so a failure can be had again.

mod attrs;
mod names;
mod namespace;
mod writes;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::rng::Rng;
use super::text::{show, under};
pub use names::Kind;
use names::{Id, Names};

/// More blocks than these (in bytes) should not be in use.
const BUDGET: u64 = 60 << 20;
/// About so many names live at a time.
const LIVE: usize = 500;
/// Files that are held open after their last name went.
const HELD: usize = 4;

/// `FUSE_SUPER_MAGIC`: ntfs-3g is the only such file system that a workload runs on.
const FUSE: rustix::fs::FsWord = 0x6573_5546;
/// The magic number of the kernel's driver.
const NTFS3: rustix::fs::FsWord = 0x7366_746e;

type Outcome = io::Result<()>;
type Op = fn(&mut Workload) -> Outcome;

/// How often each operation comes, of 1,000.
const MIX: [(u64, Op); 28] = [
    (130, Workload::create),
    (130, Workload::append),
    (110, Workload::overwrite),
    (20, Workload::rewrite),
    (20, Workload::safe_save),
    (10, Workload::direct_write),
    (40, Workload::truncate_down),
    (25, Workload::truncate_up),
    (15, Workload::sparse_write),
    (15, Workload::preallocate),
    (15, Workload::punch_hole),
    (70, Workload::rename_file),
    (25, Workload::rename_over),
    (10, Workload::exchange),
    (20, Workload::rename_dir),
    (40, Workload::link),
    (90, Workload::unlink),
    (8, Workload::unlink_held),
    (3, Workload::tmpfile),
    (30, Workload::mkdir),
    (15, Workload::rmdir),
    (2, Workload::remove_tree),
    (30, Workload::symlink),
    (12, Workload::mknod),
    (35, Workload::chmod),
    (30, Workload::chown),
    (50, Workload::xattr),
    (30, Workload::times_or_sync),
];

/// The generator and what it knows of the files it made.
pub struct Workload {
    root: PathBuf,
    rng: Rng,
    names: Names,
    held: Vec<File>,
    crowded: bool,
    /// Not all that ext knows works there.
    is_ntfs: bool,
    is_ntfs3: bool,
    /// What was done, a line each.
    pub log: Vec<String>,
}

impl Workload {
    /// Start in a mounted directory that holds nothing but what `mke2fs` puts there.
    pub fn new(root: &Path, seed: u64) -> Self {
        Self {
            root: root.to_path_buf(),
            rng: Rng::new(seed),
            names: Names::new(),
            held: Vec::new(),
            crowded: false,
            is_ntfs: false,
            is_ntfs3: false,
            log: Vec::new(),
        }
    }

    /// Do about `count` more operations (a burst may add some).
    pub fn run(&mut self, count: usize) {
        let magic = rustix::fs::statfs(&self.root).unwrap().f_type;
        (self.is_ntfs, self.is_ntfs3) = ([FUSE, NTFS3].contains(&magic), magic == NTFS3);
        self.names.is_unicode = self.is_ntfs;
        let end = self.log.len() + count;
        while self.log.len() < end {
            if self.log.len().is_multiple_of(64) {
                self.crowded = self.used() > BUDGET;
            }
            let before = self.log.len();
            let result = if self.rng.below(400) == 0 { self.burst() } else { self.pick_op()(self) };
            self.judge(before, result);
        }
    }

    /// Let go of files without a name.
    pub fn close_held(&mut self) {
        self.held.clear();
    }

    /// Write down everything that was done.
    pub fn save_log(&self, to: &Path) {
        let lines: Vec<String> = self.log.iter().enumerate().map(|(no, line)| format!("{no}: {line}\n")).collect();
        std::fs::write(to, lines.concat()).unwrap();
    }

    fn pick_op(&mut self) -> Op {
        // The more there are, the sooner one goes.
        let excess = self.names.len().saturating_sub(LIVE) * 100 / LIVE;
        if self.crowded || self.rng.chance(excess as u64) {
            return *self.rng.pick(&[Self::unlink as Op, Self::unlink, Self::unlink, Self::remove_tree]);
        }
        let total: u64 = MIX.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.below(total);
        for (weight, op) in MIX {
            if at < weight {
                return op;
            }
            at -= weight;
        }
        Self::create
    }

    /// What a full or an older file system may refuse is no failure; all else is one of the test.
    fn judge(&mut self, before: usize, result: Outcome) {
        let refused = [Errno::NOSPC, Errno::OPNOTSUPP, Errno::FBIG, Errno::MLINK].map(|e| Some(e.raw_os_error()));
        // What ntfs-3g does not know: exchange.
        let unknown = [Errno::INVAL, Errno::NOSYS].map(|e| Some(e.raw_os_error()));
        match result {
            Ok(()) => {}
            Err(e) if self.is_ntfs && unknown.contains(&e.raw_os_error()) => self.log.push(format!("  refused: {e}")),
            Err(e) if refused.contains(&e.raw_os_error()) => self.log.push(format!("  refused: {e}")),
            Err(e) => panic!("operation {before} failed: {e}: {:?}", self.log.get(before..)),
        }
    }

    fn used(&self) -> u64 {
        let s = rustix::fs::statvfs(&self.root).unwrap();
        (s.f_blocks - s.f_bfree) * s.f_frsize
    }

    fn note(&mut self, what: &str, id: Id, more: &str) {
        let path = show(&self.names.path(id));
        self.log.push(format!("{what} {path} {more}"));
    }

    fn at(&self, id: Id) -> PathBuf {
        under(&self.root, &self.names.path(id))
    }

    fn pick(&mut self, kind: Kind) -> Option<Id> {
        self.names.pick(&mut self.rng, |e| e.kind == kind)
    }

    fn pick_any(&mut self) -> Option<Id> {
        self.names.pick(&mut self.rng, |_| true)
    }

    fn pick_non_dir(&mut self) -> Option<Id> {
        self.names.pick(&mut self.rng, |e| e.kind != Kind::Dir)
    }
}
