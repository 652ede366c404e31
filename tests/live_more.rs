//! Live disks beyond one file system at work: followed logs, partitions, crashes, new formats.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use support::daemon::{self, Attach};
use support::diff::must_equal;
use support::disk::{Loop, Mount, copy, kernel_listing, make, scratch};
use support::events::Events;
use support::model::Model;
use support::oracle;
use support::script::lines;
use support::workload::Workload;

const SIZE: u64 = 128 << 20;

/// `tail -f` on the view shows a line of the guest within a second of its fsync.
#[test]
fn tail_follows_a_log_of_the_guest() {
    need!(root, fuse, loop, "tail");
    let scratch = scratch();
    let image = scratch.path().join("disk.raw");
    make(&image, SIZE, "ext4");
    let attach = Attach::start(&image, scratch.path(), true, &[]);
    let device = Loop::attach(&attach.disk);
    let mount = Mount::new(&device.device, &scratch.path().join("guest"), "relatime");
    let mut log = OpenOptions::new().append(true).create(true).open(mount.dir.join("log")).unwrap();
    log.write_all(b"line 0\n").unwrap();
    log.sync_all().unwrap();
    std::thread::sleep(Duration::from_secs(1));

    let seen = attach.view.as_ref().unwrap().join("log");
    let mut tail =
        Command::new("tail").args(["-n", "+1", "-s", "0.1", "-f"]).arg(&seen).stdout(Stdio::piped()).spawn().unwrap();
    let (sender, receiver) = channel();
    let output = BufReader::new(tail.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(5)).as_deref(), Ok("line 0"));
    let mut late = Vec::new();
    for no in 1..=20 {
        log.write_all(format!("line {no}\n").as_bytes()).unwrap();
        log.sync_all().unwrap();
        if receiver.recv_timeout(Duration::from_secs(1)) != Ok(format!("line {no}")) {
            late.push(no);
            break;
        }
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(late.is_empty(), "line {late:?} did not come within a second");
}

/// With a journal and without, on one disk.
#[test]
fn two_partitions() {
    need!(root, fuse, loop, "sfdisk");
    support::two::at_work(["ext4 -b 1024", "ext4 -b 4096 -O ^has_journal"], 60);
}

/// A guest that starts again after a crash writes old blocks home. That is no news: what the
/// journal holds was known from the start.
#[test]
fn recovery_after_a_crash_is_no_news() {
    need!(root, fuse, loop);
    for mkfs in ["ext4 -b 4096", "ext4 -b 1024 -J size=1"] {
        let scratch = scratch();
        let (image, crashed) = (scratch.path().join("disk.raw"), scratch.path().join("crashed.raw"));
        make(&image, SIZE, mkfs);
        let device = Loop::attach(&image);
        let mount = Mount::new(&device.device, &scratch.path().join("guest"), "relatime");
        let mut workload = Workload::new(&mount.dir, 61);
        workload.run(3000);
        workload.close_held();
        mount.sync();
        copy(&image, &crashed);
        mount.unmount();
        drop(device);

        let first = daemon::listing(&crashed);
        must_equal("ls", &kernel_listing(&crashed, scratch.path()), &first);
        let attach = Attach::start(&crashed, scratch.path(), true, &[]);
        let device = Loop::attach(&attach.disk);
        let mount = Mount::new(&device.device, &scratch.path().join("guest"), "relatime");
        mount.sync();
        let mut events = Events::new(&attach.events);
        std::thread::sleep(Duration::from_secs(1));
        let told = events.settled("").unwrap();
        let odd: Vec<String> = lines(&told).into_iter().filter(|l| !l.starts_with("volume")).collect();
        assert!(odd.is_empty(), "{mkfs}: {} events of a recovery: {:.2000}", odd.len(), odd.join("\n"));
        must_equal("the live view", &first, &oracle::walk(attach.view.as_ref().unwrap()));

        Workload::new(&new_dir(&mount.dir), 62).run(1000);
        mount.sync();
        let mut model = Model::new(&first).unwrap();
        model.apply_all(&told).unwrap();
        model.apply_all(&events.settled("\"path\":\"/later\"").unwrap()).unwrap_or_else(|e| panic!("{e}"));
        must_equal("the replayed events", &kernel_listing(&crashed, scratch.path()), &model.listing());
    }
}

fn new_dir(root: &Path) -> std::path::PathBuf {
    let dir = root.join("later");
    std::fs::create_dir(&dir).unwrap();
    dir
}

/// A disk that gets a file system while it is served, and then another one.
#[test]
fn formats_come_and_go() {
    need!(root, fuse, loop);
    support::formats::come_and_go(&["ext4 -b 4096", "ext4 -b 1024", "ext2 -b 1024", "ext4 -b 4096"], 70);
}
