//! `gammaray replay` on recorded write streams: the inferred tree at the end, and after a crash
//! anywhere in between, is what the kernel finds on the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};

use support::daemon::{gammaray, listing};
use support::diff::{all_of, report};
use support::disk::{Loop, Mount, copy, fsck, kernel_listing, kernel_listing_at, make, scratch};
use support::live::number;
use support::logwrites::{write_log, write_trace};
use support::model::Model;
use support::record::{Listing, parse_listing};
use support::recorder::{Access, Recorder};
use support::rng::Rng;
use support::workload::Workload;
use tempfile::TempDir;

/// A disk before, a disk after, and what was written in between.
struct Recording {
    scratch: TempDir,
    before: PathBuf,
    after: PathBuf,
    accesses: Vec<Access>,
}

impl Recording {
    /// Let a workload run; the disk before has some files already.
    fn make(mkfs: &str, options: &str, seed: u64) -> Self {
        let scratch = scratch();
        let path = |name: &str| scratch.path().join(name);
        let (before, after) = (path("before.raw"), path("after.raw"));
        make(&after, 128 << 20, mkfs);
        let mut workload = Workload::new(&path("guest"), seed);
        let operations = number("GAMMARAY_OPERATIONS", 2500);
        work(&after, &path("guest"), options, &mut workload, operations / 5);
        copy(&after, &before);
        let recorder = Recorder::start(&after, &path("recorder"));
        work(&recorder.disk, &path("guest"), options, &mut workload, operations);
        let accesses = recorder.finish();
        fsck(&after).unwrap();
        Self { scratch, before, after, accesses }
    }

    /// Replay what a log holds: the final tree is what the kernel finds, and the events lead to it.
    fn replay(&self, form: &str, log: &Path, expected: &Listing, in_flight: bool) -> Result<(), String> {
        let (events, tree) = (self.scratch.path().join("events.jsonl"), self.scratch.path().join("tree.jsonl"));
        let changed = || std::fs::metadata(&self.before).unwrap().modified().unwrap();
        let first_change = changed();
        let words = ["replay".as_ref(), "--image".as_ref(), self.before.as_os_str(), form.as_ref(), log.as_os_str()];
        let outputs = ["--events".as_ref(), events.as_os_str(), "--final-tree".as_ref(), tree.as_os_str()];
        let payload = ["--payload".as_ref(), "disk".as_ref()];
        gammaray(words.iter().chain(&outputs).chain(&payload));
        assert_eq!(changed(), first_change, "replay changed the image");
        let last = parse_listing(&std::fs::read_to_string(&tree).unwrap())?;
        let mut model = Model::new(&listing(&self.before))?;
        let replayed = model.apply_all(&std::fs::read_to_string(&events).unwrap());
        // Bytes that were written in place are on the disk before the commit that tells of them.
        let told = |mut l: Listing| {
            l.values_mut().filter(|_| in_flight).for_each(|r| r.sha256 = None);
            l
        };
        all_of([
            report("the final tree", expected, &last),
            replayed.and_then(|()| report("the replayed events", expected, &told(model.listing()))),
        ])
        .map_err(|e| format!("{e}\nsee {}", self.keep(log).display()))
    }

    /// Save what shows the failure again.
    fn keep(&self, log: &Path) -> PathBuf {
        let thread = std::thread::current();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(thread.name().unwrap_or("replay"));
        std::fs::create_dir_all(&kept).unwrap();
        copy(&self.before, &kept.join("before.raw"));
        copy(log, &kept.join("log"));
        copy(&self.scratch.path().join("events.jsonl"), &kept.join("events.jsonl"));
        kept
    }

    /// Stop after `count` accesses, as a crash would; the kernel recovers the disk.
    fn check_crash(&self, count: usize) -> Result<(), String> {
        let path = |name: &str| self.scratch.path().join(name);
        write_log(&path("log"), &self.accesses[..count]);
        copy(&self.before, &path("crashed.raw"));
        let disk = File::options().write(true).open(path("crashed.raw")).unwrap();
        self.accesses[..count].iter().for_each(|a| a.apply(&disk));
        drop(disk);
        let expected = kernel_listing_at(&path("crashed.raw"), self.scratch.path(), &[]);
        let all = self.accesses.len();
        self.replay("--log-writes", &path("log"), &expected, true)
            .map_err(|e| format!("after {count} of {all} accesses: {e}"))
    }
}

fn work(disk: &Path, dir: &Path, options: &str, workload: &mut Workload, operations: usize) {
    let device = Loop::attach(disk);
    let mount = Mount::new(&device.device, dir, options);
    workload.run(operations);
    workload.close_held();
    mount.unmount();
}

fn to_the_end(mkfs: &str, options: &str, seed: u64, form: &str) {
    let recording = Recording::make(mkfs, options, seed);
    let log = recording.scratch.path().join("log");
    if form == "--log-writes" {
        write_log(&log, &recording.accesses)
    } else {
        write_trace(&log, &recording.accesses)
    }
    let expected = kernel_listing(&recording.after, recording.scratch.path());
    recording.replay(form, &log, &expected, false).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_log_of_ext4() {
    need!(root, fuse, loop);
    to_the_end("ext4 -b 4096", "relatime", 41, "--log-writes");
}

#[test]
fn a_log_of_ext4_with_discards() {
    need!(root, fuse, loop);
    to_the_end("ext4 -b 1024", "discard,commit=1", 42, "--log-writes");
}

#[test]
fn a_log_of_ext2() {
    need!(root, fuse, loop);
    to_the_end("ext2 -b 1024", "relatime", 43, "--log-writes");
}

#[test]
fn a_trace_of_ext4() {
    need!(root, fuse, loop);
    to_the_end("ext4 -b 2048", "relatime", 44, "--qemu-trace");
}

#[test]
fn a_trace_of_ext4_without_a_journal() {
    need!(root, fuse, loop);
    to_the_end("ext4 -b 4096 -O ^has_journal", "relatime", 45, "--qemu-trace");
}

#[test]
fn a_log_of_ntfs() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    to_the_end("ntfs -c 4096", "noatime", 46, "--log-writes");
}

#[test]
fn a_trace_of_ntfs() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    to_the_end("ntfs -c 1024", "noatime", 47, "--qemu-trace");
}

/// With a journal the tree is that of the last commit, wherever the stream ends.
fn crashes(mkfs: &str, options: &str, seed: u64) {
    let recording = Recording::make(mkfs, options, seed);
    let mut rng = Rng::new(seed);
    let points = if std::env::var_os("GAMMARAY_LONG").is_some() { 200 } else { 12 };
    let count = |rng: &mut Rng| rng.below(recording.accesses.len() as u64) as usize;
    let errors: Vec<String> = (0..points).filter_map(|_| recording.check_crash(count(&mut rng)).err()).collect();
    assert!(errors.is_empty(), "{} of {points} fail:\n{}", errors.len(), errors.join("\n"));
}

#[test]
fn crashes_of_ext4() {
    need!(root, fuse, loop);
    crashes("ext4 -b 4096", "relatime,commit=1", 51);
}

#[test]
fn crashes_of_ext4_1k_with_a_small_journal() {
    need!(root, fuse, loop);
    crashes("ext4 -b 1024 -J size=1", "relatime", 52);
}

#[test]
fn crashes_of_ext3() {
    need!(root, fuse, loop);
    crashes("ext3 -b 4096", "relatime", 53);
}

/// The recorder judged: its accesses lead from the disk before to the disk after.
#[test]
fn the_recorder_misses_nothing() {
    need!(root, fuse, loop, "cmp");
    let recording = Recording::make("ext4 -b 4096", "discard", 54);
    let disk = File::options().write(true).open(&recording.before).unwrap();
    recording.accesses.iter().for_each(|a| a.apply(&disk));
    support::disk::run("cmp", [&recording.before, &recording.after]);
    let flushes = recording.accesses.iter().filter(|a| matches!(a, Access::Flush)).count();
    let discards = recording.accesses.iter().filter(|a| matches!(a, Access::Discard { .. })).count();
    eprintln!("{} accesses, {flushes} flushes, {discards} discards", recording.accesses.len());
    assert!(flushes > 10 && discards > 10);
}
