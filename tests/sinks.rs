//! JSON Lines that cannot be written do not end what they tell of; bytes are those that were written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use rustix::fs::{Timespec, Timestamps, futimens};
use serde_json::Value;
use support::daemon::Attach;
use support::disk::{Loop, Mount, copy, make, scratch};
use support::events::Events;
use support::logwrites::write_log;
use support::recorder::Recorder;

const BINARY: &str = env!("CARGO_BIN_EXE_gammaray");

/// A guest whose events go elsewhere than to a plain file.
struct Guest {
    mount: Mount,
    _device: Loop,
    attach: Attach,
}

impl Guest {
    fn start(scratch: &Path, more: &[&str]) -> Self {
        let image = scratch.join("disk.raw");
        make(&image, 64 << 20, "ext4 -b 4096");
        let attach = Attach::start(&image, scratch, false, more);
        let device = Loop::attach(&attach.disk);
        let mount = Mount::new(&device.device, &scratch.join("guest"), "noatime,commit=300");
        Self { mount, _device: device, attach }
    }

    fn work(&self, name: &str, files: usize) {
        let dir = self.mount.dir.join(name);
        fs::create_dir(&dir).unwrap();
        (0..files).for_each(|n| fs::write(dir.join(n.to_string()), "x").unwrap());
        self.mount.sync();
        std::thread::sleep(std::time::Duration::from_millis(600));
    }

    /// Unmount and stop; what was said.
    fn stop(self) -> String {
        let Self { mount, _device, attach } = self;
        mount.unmount();
        drop(_device);
        let log = attach.log_file();
        attach.stop();
        fs::read_to_string(log).unwrap()
    }
}

/// Also: an aside, which JSON Lines have no use for, was taken for success.
#[test]
fn a_full_disk_does_not_end_attach() {
    need!(root, fuse, loop);
    let scratch = scratch();
    std::os::unix::fs::symlink("/dev/full", scratch.path().join("events.jsonl")).unwrap();
    let guest = Guest::start(scratch.path(), &[]);
    guest.work("one", 1000);
    guest.work("two", 1000);
    let log = guest.stop();
    let said = log.lines().filter(|l| l.contains("events.jsonl")).count();
    assert!(log.contains("No space left") && said <= 3, "{log}");
}

#[test]
fn a_reader_that_comes_back_finds_whole_lines_and_a_gap() {
    need!(root, fuse, loop, "mkfifo");
    let scratch = scratch();
    let fifo = scratch.path().join("events.jsonl");
    support::disk::run("mkfifo", [&fifo]);
    let read_to = |name: &str| {
        let to = File::create(scratch.path().join(name)).unwrap();
        Command::new("cat").arg(&fifo).stdin(Stdio::null()).stdout(to).spawn().unwrap()
    };
    let end = |mut reader: Child| {
        reader.kill().unwrap();
        reader.wait().unwrap();
    };
    let first = read_to("first");
    let guest = Guest::start(scratch.path(), &[]);
    guest.work("one", 1000);
    end(first);
    guest.work("two", 3000);
    let mut second = read_to("second");
    guest.work("three", 1000);
    let log = guest.stop();
    second.wait().unwrap();
    let events = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(scratch.path().join(name)).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{name}: {e}: {l:.200}"))).collect()
    };
    let (one, two) = (events("first"), events("second"));
    let mut next = one.last().unwrap()["seq"].as_u64().unwrap() + 1;
    // A transaction that came while nobody read may have been kept as a whole.
    for e in &two {
        let seq = e["seq"].as_u64().unwrap();
        assert_eq!(seq, next + e["events"].as_u64().map_or(0, |n| n - 1), "{e}");
        next = seq + 1;
    }
    let gap = two.iter().find(|e| e["type"] == "gap").unwrap_or_else(|| panic!("no gap: {log}"));
    assert!(gap["events"].as_u64().unwrap() > 1000, "{gap}");
    assert!(two.iter().any(|e| e["path"] == "/three/999"));
}

#[test]
fn a_replay_ends_with_its_reader_and_fails_on_a_full_disk() {
    need!(root, fuse, loop);
    let scratch = scratch();
    let (before, disk, log) =
        (scratch.path().join("before.raw"), scratch.path().join("disk.raw"), scratch.path().join("log"));
    make(&disk, 64 << 20, "ext4 -b 4096");
    copy(&disk, &before);
    let recorder = Recorder::start(&disk, &scratch.path().join("recorder"));
    let device = Loop::attach(&recorder.disk);
    let mount = Mount::new(&device.device, &scratch.path().join("guest"), "noatime");
    (0..3000).for_each(|n| fs::write(mount.dir.join(n.to_string()), "x").unwrap());
    mount.unmount();
    drop(device);
    write_log(&log, &recorder.finish());
    let replay = || {
        let mut c = Command::new(BINARY);
        c.args(["replay", "--image"]).arg(&before).arg("--log-writes").arg(&log).stderr(Stdio::piped());
        c
    };
    let full = replay().args(["--events", "/dev/full"]).output().unwrap();
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(full.status.code() == Some(1) && said.lines().count() == 1 && said.contains("/dev/full"), "{said}");
    let mut closed = replay().stdout(Stdio::piped()).spawn().unwrap();
    drop(closed.stdout.take());
    let out = closed.wait_with_output().unwrap();
    assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).as_ref()), (Some(0), ""));
    // A sink that never arrives is an error too; which, is said.
    let away =
        replay().args(["--events", "/dev/null", "--redis", "redis://nobody:secret@127.0.0.1:port"]).output().unwrap();
    let said = String::from_utf8_lossy(&away.stderr).into_owned();
    assert!(away.status.code() == Some(1) && said.lines().count() == 1 && !said.contains("secret"), "{said}");
}

/// A file of one block is overwritten in place again and again, much faster than events are made:
/// each transaction's event has the bytes of that transaction, not later ones.
#[test]
fn exact_bytes_are_those_that_were_written() {
    need!(root, fuse, loop, "mkfifo");
    const ROUNDS: u64 = 400;
    let scratch = scratch();
    // Nobody reads the events for a while: the engine waits, the guest does not.
    let fifo = scratch.path().join("events.jsonl");
    support::disk::run("mkfifo", [&fifo]);
    let read = scratch.path().join("read");
    let mut reader = Command::new("cat").arg(&fifo).stdout(File::create(&read).unwrap()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&reader);
    let guest = Guest::start(scratch.path(), &["--payload", "exact", "--lossless"]);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let mut events = Events::new(&read);
    let file = File::create(guest.mount.dir.join("counter")).unwrap();
    for n in 0..ROUNDS {
        file.write_all_at(&n.to_le_bytes().repeat(512), 0).unwrap();
        // Another time each time, so that each is a transaction.
        let time = Timespec { tv_sec: n.cast_signed() + 1, tv_nsec: 0 };
        futimens(&file, &Timestamps { last_access: time, last_modification: time }).unwrap();
        file.sync_all().unwrap();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let text = events.at_rest("counter").unwrap();
    let all: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let writes = all.iter().filter(|e| e["type"] == "write" && e["path"] == "/counter");
    let values: Vec<u64> = writes
        .map(|e| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(e["data"].as_str().unwrap()).unwrap();
            assert_eq!(bytes.len(), 4096);
            let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(bytes.chunks(8).all(|c| c == n.to_le_bytes()), "bytes of several writes");
            n
        })
        .collect();
    drop(file);
    assert_eq!(values, (0..ROUNDS).collect::<Vec<_>>());
    guest.stop();
    reader.wait().unwrap();
}
