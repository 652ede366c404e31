//! The four tools of 2013, as the original README has them, with a real Redis and what a real guest
//! wrote under the patched QEMU (tests/fixtures/pipeline, made by scripts/record-guest).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(clippy::cast_possible_wrap, reason = "small numbers")]

#[path = "pipeline/old_index.rs"]
mod old_index;
#[path = "pipeline/server.rs"]
mod server;
mod support;
#[path = "pipeline/tools.rs"]
mod tools;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use server::{Message, Server};
use support::disk::{Loop, Mount, make, run, scratch};
use tools::{Tool, say, until};

/// Unpack a fixture.
fn fixture(name: &str, to: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pipeline").join(format!("{name}.zst"));
    run("zstd", ["-dqf".as_ref(), "--sparse".as_ref(), from.as_os_str(), "-o".as_ref(), to.as_os_str()]);
    to.to_path_buf()
}

fn mkfifo(path: &Path) {
    run("mkfifo", [path]);
}

/// The messages up to now: nothing more comes for a while.
fn all(listener: &Receiver<Message>) -> Vec<Message> {
    let mut got = Vec::new();
    while let Ok(m) = listener.recv_timeout(Duration::from_secs(2)) {
        got.push(m);
    }
    got
}

/// What the guest's script did to names, in its order.
fn mutations() -> Vec<String> {
    let mut all: Vec<String> =
        ["create / log", "create / var", "create /var spool", "create /var/spool big", "create /var/spool a"]
            .map(Into::into)
            .to_vec();
    all.extend(
        ["rename /var/spool a b", "create /var/spool victim", "delete /var/spool victim", "rename /var/spool b victim"]
            .map(Into::into),
    );
    all.extend((0..40).map(|i| format!("create /var many-{i}")));
    all.extend((0..40).step_by(2).map(|i| format!("delete /var many-{i}")));
    all.extend(["rename / var srv", "delete /srv/spool big"].map(Into::into));
    all
}

/// Every operation of the guest's script is there, with its bytes.
fn check(messages: &[Message], host_and_vm: &str) {
    assert!(messages.iter().all(|m| m.channel.starts_with(host_and_vm)), "{:?}", messages.first());
    let mut seen: Vec<String> = messages.iter().filter_map(Message::mutation).collect();
    let mut expected = mutations();
    // Those of one step come in the directory's order, which is not that of the script.
    for list in [&mut seen, &mut expected] {
        let is_many = |s: &String| s.contains("many-");
        let first = list.iter().position(is_many).unwrap();
        let last = list.iter().rposition(is_many).unwrap();
        list[first..=last].sort_by_key(|s| (s.starts_with("delete"), s.clone()));
    }
    assert_eq!(seen, expected);
    let mut text = String::new();
    let mut appends = messages.iter().filter_map(Message::data).filter(|(path, ..)| path.ends_with("/log"));
    for line in
        ["first line", "line 2 of the log", "line 3 of the log", "line 4 of the log", "line 5 of the log", "after all"]
    {
        text += line;
        text.push('\n');
        let (_, start, bytes) = appends.next().unwrap();
        assert_eq!((start, String::from_utf8(bytes).unwrap()), (0, text.clone()));
    }
    assert!(appends.next().is_none());
    let written = |name: &str| -> Vec<u8> {
        let pieces = messages.iter().filter_map(Message::data).filter(|(path, ..)| *path == name);
        pieces.fold(Vec::new(), |mut bytes, (_, start, piece)| {
            assert_eq!(usize::try_from(start).unwrap(), bytes.len(), "{name}");
            bytes.extend(piece);
            bytes
        })
    };
    assert!(written("/var/spool/big") == [b'x'; 100_000]);
    assert_eq!(written("/var/spool/a"), b"one\n");
    assert_eq!(written("/var/spool/victim"), b"two\n");
    for i in 0..40 {
        assert_eq!(written(&format!("/var/many-{i}")), format!("file {i}\n").into_bytes());
    }
    let mode_of = |m: &Message| {
        let is_mode = m.path() == "/log" && m.document.get_str("field").is_ok_and(|f| f == "file.mode");
        let value = |key| m.document.get_i64(key).ok().filter(|v| *v != 0).map(|v| v & 0o7777);
        value("old").zip(value("new")).filter(|_| is_mode)
    };
    let mode = messages.iter().find_map(mode_of);
    assert_eq!(mode, Some((0o644, 0o600)));
    let transactions: Vec<i64> = messages.iter().map(|m| m.document.get_i64("transaction").unwrap()).collect();
    assert!(transactions.is_sorted() && transactions[0] > 0, "{transactions:?}");
}

fn host() -> String {
    run("hostname", [""; 0]).trim().to_owned()
}

/// Steps of the original README: crawl, start the three, let the guest run.
#[test]
fn the_pipeline_of_2013_tells_all_that_the_guest_did() {
    need!("redis-server", "zstd", "mkfifo");
    let dir = scratch();
    let server = Server::start(dir.path());
    fixture("before.raw", &dir.path().join("disk.raw"));
    let trace = std::fs::read(fixture("disk.trace", &dir.path().join("disk.trace"))).unwrap();
    mkfifo(&dir.path().join("disk.fifo"));
    let start = |name, args: &[&str]| Tool::start(dir.path(), Some(&server), name, args);
    let (status, log) = start("gray-crawler", &["disk.raw", "disk.bson"]).wait();
    assert!(status.success() && log.is_empty(), "{log}");
    let listener = server.listen();
    let queuer = start("gray-ndb-queuer", &["disk.bson", "disk.fifo", "4"]);
    let inferencer = start("gray-inferencer", &["disk.bson", "4", "guest"]);
    // A guest that is ended in the middle and goes on; QEMU says something meanwhile.
    let (first, second) = trace.split_at(record_boundary(&trace, trace.len() / 2));
    let fifo = |bytes: &[u8]| {
        std::fs::OpenOptions::new().write(true).open(dir.path().join("disk.fifo")).unwrap().write_all(bytes).unwrap()
    };
    fifo(first);
    fifo(&[b"qemu-system-x86_64: terminating on signal 2\n", second].concat());
    check(&all(&listener), &format!("{}:guest:", host()));
    let (status, log) = queuer.stop();
    assert!(status.success() && log.contains("terminating on signal 2"), "{log}");
    let (status, log) = inferencer.stop();
    assert!(status.success() && log.is_empty(), "{log}");
}

/// The end of a record at or behind `at`.
fn record_boundary(trace: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        let sectors = i32::from_le_bytes(trace[end + 8..end + 12].try_into().unwrap());
        end += 12 + usize::try_from(sectors).unwrap() * 512;
    }
    end
}

/// The index is enough: the image may be elsewhere by now, or have moved on.
#[test]
fn inference_needs_the_index_and_the_queue_only() {
    need!("redis-server", "zstd");
    for image in [None, Some("after.raw")] {
        let dir = scratch();
        let server = Server::start(dir.path());
        let disk = fixture("before.raw", &dir.path().join("disk.raw"));
        fixture("disk.trace", &dir.path().join("disk.trace"));
        let start = |name, args: &[&str]| Tool::start(dir.path(), Some(&server), name, args);
        assert!(start("gray-crawler", &["disk.raw", "disk.bson"]).wait().0.success());
        std::fs::remove_file(&disk).unwrap();
        if let Some(name) = image {
            // As when the guest has run to its end before anybody looked into the queue.
            fixture(name, &disk);
        }
        let (status, log) = start("gray-ndb-queuer", &["disk.trace", "4"]).wait();
        assert!(status.success() && log.is_empty(), "{log}");
        let listener = server.listen();
        let (status, log) = start("gray-inferencer", &["disk.bson", "4", "guest", "--drain"]).wait();
        assert!(status.success() && log.contains("cannot use the image") == image.is_none(), "{log}");
        check(&all(&listener), &format!("{}:guest:", host()));
    }
}

/// An index that is newer than the trace: what the trace tells has happened already.
#[test]
fn writes_from_before_the_crawl_make_no_nonsense() {
    need!("redis-server", "zstd");
    let dir = scratch();
    let server = Server::start(dir.path());
    fixture("after.raw", &dir.path().join("disk.raw"));
    fixture("disk.trace", &dir.path().join("disk.trace"));
    let start = |name, args: &[&str]| Tool::start(dir.path(), Some(&server), name, args);
    assert!(start("gray-crawler", &["disk.raw", "disk.bson"]).wait().0.success());
    assert!(start("gray-ndb-queuer", &["disk.trace", "4"]).wait().0.success());
    let listener = server.listen();
    assert!(start("gray-inferencer", &["disk.bson", "4", "guest", "--drain"]).wait().0.success());
    let mutations: Vec<_> = all(&listener).iter().filter_map(Message::mutation).collect();
    assert_eq!(mutations, Vec::<String>::new());
}

/// Writes are missing: that is told, and what they did is found on the image.
#[test]
fn what_a_lost_write_did_is_found_on_the_image() {
    need!("redis-server", "zstd");
    let dir = scratch();
    let server = Server::start(dir.path());
    let disk = fixture("before.raw", &dir.path().join("disk.raw"));
    let trace = std::fs::read(fixture("disk.trace", &dir.path().join("disk.trace"))).unwrap();
    let start = |name, args: &[&str]| Tool::start(dir.path(), Some(&server), name, args);
    assert!(start("gray-crawler", &["disk.raw", "disk.bson"]).wait().0.success());
    fixture("after.raw", &disk);
    let lost = [&(-5_i64).to_le_bytes()[..], &[0; 4]].concat();
    let some = record_boundary(&trace, trace.len() / 3);
    std::fs::write(dir.path().join("disk.trace"), [&trace[..some], &lost].concat()).unwrap();
    let (status, log) = start("gray-ndb-queuer", &["disk.bson", "disk.trace", "4"]).wait();
    assert!(status.success() && log.contains("5 writes are missing"), "{log}");
    let listener = server.listen();
    assert!(start("gray-inferencer", &["disk.bson", "4", "guest", "--drain"]).wait().0.success());
    let messages = all(&listener);
    assert_eq!(messages.iter().filter(|m| m.kind() == "gap").count(), 1);
    let mutations: Vec<_> = messages.iter().filter_map(Message::mutation).collect();
    let last = |name: &str| mutations.iter().rfind(|m| m.split(' ').any(|w| w == name)).map(String::as_str);
    assert_eq!(last("log"), Some("create / log"), "{mutations:?}");
    assert!(last("srv").is_some() && last("many-1").is_some_and(|m| m.starts_with("create")), "{mutations:?}");
}

/// Unpatched QEMU: the log that its own driver wrote in the same boot tells the same.
#[test]
fn blklogwrites_tells_the_same() {
    need!("zstd");
    let dir = scratch();
    let before = fixture("before.raw", &dir.path().join("before.raw"));
    let events = |option: &str, name: &str| {
        let recording = fixture(name, &dir.path().join(name));
        let tree = dir.path().join("tree");
        let args = ["replay", "--vm", "v", "--payload", "disk", "--image"].map(Path::new);
        let args = args.into_iter().chain([&*before, Path::new(option), &recording, Path::new("--final-tree"), &tree]);
        let events = support::daemon::gammaray(args);
        let without = |line: &str| {
            let mut e: serde_json::Value = serde_json::from_str(line).unwrap();
            e.as_object_mut().unwrap().retain(|k, _| !matches!(k.as_str(), "seq" | "time"));
            e
        };
        (events.lines().map(without).collect::<Vec<_>>(), std::fs::read_to_string(tree).unwrap())
    };
    let (trace, log) = (events("--qemu-trace", "disk.trace"), events("--log-writes", "writes.log"));
    assert!(trace.0.len() > 100);
    assert_eq!(trace, log);
}

/// The queue is bounded, and nothing is dropped: the queuer waits.
#[test]
fn a_full_queue_holds_up_the_queuer_and_loses_nothing() {
    need!("redis-server", "zstd");
    let dir = scratch();
    let server = Server::start(dir.path());
    let disk = dir.path().join("disk.raw");
    make(&disk, 64 << 20, "ext4");
    let writes = 4000_u64;
    // Beyond the file system's metadata; the last sectors of the disk.
    let record = |i: u64| {
        [
            &(131_072 - 8 * (i % 100 + 1)).to_le_bytes()[..],
            &8_i32.to_le_bytes(),
            &[u8::try_from(i % 251).unwrap(); 4096],
        ]
        .concat()
    };
    std::fs::write(dir.path().join("disk.trace"), (0..writes).flat_map(record).collect::<Vec<u8>>()).unwrap();
    let start = |name, args: &[&str]| Tool::start(dir.path(), Some(&server), name, args);
    assert!(start("gray-crawler", &["disk.raw", "disk.bson"]).wait().0.success());
    let queuer = start("gray-ndb-queuer", &["-v", "--queue-limit", "2M", "disk.bson", "disk.trace", "4"]);
    let mut connection = server.client(4).get_connection().unwrap();
    let mut length = || redis::cmd("LLEN").arg("writequeue").query::<u64>(&mut connection).unwrap();
    until("the queue is full", || length() > 300);
    std::thread::sleep(Duration::from_millis(500));
    let full = length();
    assert!(full * 4096 <= 2 << 20, "{full} elements");
    let (status, log) = start("gray-inferencer", &["-v", "disk.bson", "4", "guest", "--drain"]).wait();
    assert!(
        status.success() && log.contains(&format!("{writes} writes")) && log.contains("0 elements missing"),
        "{log}"
    );
    let (status, log) = queuer.wait();
    assert!(
        status.success() && log.contains(&format!("{} elements", writes + 1)) && !log.contains(" 0 waits"),
        "{log}"
    );
    assert_eq!(length(), 0);
}

/// `tail` through gray-fs sees what a guest appends, while the image changes under it.
#[test]
fn gray_fs_follows_a_guest_that_writes_to_the_image() {
    need!("root", "fuse", "loop");
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    make(&path("disk.raw"), 64 << 20, "ext4");
    std::fs::create_dir(path("mnt")).unwrap();
    let fs = Tool::start(dir.path(), None, "gray-fs", ["mnt", "-d", "-s", "disk.raw"]);
    until("the view is there", || path("mnt/lost+found").exists());
    let device = Loop::attach(&path("disk.raw"));
    let guest = Mount::new(&device.device, &path("guest"), "defaults");
    let mut log = std::fs::File::create(guest.dir.join("log")).unwrap();
    let mut append = |line: &str| {
        log.write_all(line.as_bytes()).unwrap();
        log.sync_all().unwrap();
    };
    append("line 0\n");
    until("the log is there", || path("mnt/log").exists());
    let mut tail = std::process::Command::new("tail")
        .args(["-n", "+1", "-f", "mnt/log"])
        .current_dir(dir.path())
        .stdout(std::fs::File::create(path("tail")).unwrap())
        .spawn()
        .unwrap();
    let mut expected = "line 0\n".to_owned();
    for i in 1..20 {
        let line = format!("line {i}\n");
        append(&line);
        expected += &line;
        // Some come one by one, some at once.
        if i % 3 == 0 {
            until("tail sees the line", || std::fs::read_to_string(path("tail")).unwrap() == expected);
        }
    }
    drop(log);
    until("tail sees all lines", || std::fs::read_to_string(path("tail")).unwrap() == expected);
    std::fs::create_dir(guest.dir.join("sub")).unwrap();
    std::fs::rename(guest.dir.join("log"), guest.dir.join("sub/log")).unwrap();
    guest.sync();
    until("the rename is seen", || path("mnt/sub/log").exists() && !path("mnt/log").exists());
    tail.kill().unwrap();
    tail.wait().unwrap();
    std::fs::remove_file(guest.dir.join("sub/log")).unwrap();
    guest.unmount();
    until("the file is gone", || path("mnt/sub").exists() && !path("mnt/sub/log").exists());
    let (status, log) = fs.stop();
    assert!(status.success(), "{log}");
}

/// Without -f and -d, in any order of arguments: it comes back when the files are there.
#[test]
fn gray_fs_goes_into_the_background() {
    need!("root", "fuse");
    let dir = scratch();
    make(&dir.path().join("disk.raw"), 8 << 20, "ext2");
    std::fs::create_dir(dir.path().join("mnt")).unwrap();
    assert_eq!(say(dir.path(), "gray-fs", &["-s", "mnt", "-o", "allow_other", "disk.raw"]), (Some(0), String::new()));
    assert!(dir.path().join("mnt/lost+found").exists());
    run("umount", [dir.path().join("mnt")]);
}

#[test]
fn an_index_of_the_c_program_loads() {
    let dir = scratch();
    let path = dir.path().join("old.bson");
    std::fs::write(&path, old_index::bytes()).unwrap();
    let mut files = Vec::new();
    let index = gammaray::index::read::load_with(&path, |f| files.push(f)).unwrap();
    assert_eq!((index.version, index.gpt, index.files, index.disk_size), (1, false, 4, None));
    assert_eq!((index.partitions[0].first, index.partitions[0].last), (2048, 18432));
    let fs = &index.file_systems[0];
    assert_eq!((fs.offset, fs.block_size, fs.groups, fs.kind.as_str()), (2048 * 512, 1024, (1, 1), "ext4"));
    let names: Vec<_> = files[0].names.iter().map(|(i, n)| (*i, String::from_utf8_lossy(n).into_owned())).collect();
    assert_eq!(names, [(2, ".".into()), (2, "..".into()), (11, "lost+found".into()), (12, "log".into())]);
    let log = &files[2];
    assert_eq!((log.path.as_slice(), log.inode, log.size, log.is_dir), (&b"/log"[..], 12, 3000, false));
    // The third is a sector past 2^31 that did not fit into the field's sign.
    assert_eq!(log.blocks, [3000 * 512, 3002 * 512, u64::from(u32::MAX - 1) * 512]);
    assert_eq!(files[3].link.as_deref(), Some(&b"log"[..]));
    assert_eq!(index.filter, [0xFF; 288]);
    for cut in [1, 3, 10, 500] {
        let bytes = old_index::bytes();
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        assert!(gammaray::index::read::load(&path).is_err());
    }
}

/// An old index does not hold the disk's bytes; with the image beside it inference starts.
#[test]
fn inference_starts_from_an_old_index_and_its_image() {
    need!("redis-server", "zstd", "sfdisk");
    let dir = scratch();
    let server = Server::start(dir.path());
    let path = |name: &str| dir.path().join(name);
    fixture("before.raw", &path("fs.raw"));
    let script = "truncate -s 66M disk.raw; echo 'start=2048,size=131072,type=83' | sfdisk -q disk.raw; dd if=fs.raw of=disk.raw bs=1M seek=1 conv=notrunc status=none";
    run("sh", ["-ec".to_owned(), format!("cd {}; {script}", dir.path().display())]);
    std::fs::write(path("old.bson"), old_index::bytes()).unwrap();
    let trace = std::fs::read(fixture("disk.trace", &path("disk.trace"))).unwrap();
    // The guest's disk was the file system alone.
    let mut moved = Vec::new();
    let mut at = 0;
    while at < trace.len() {
        let end = record_boundary(&trace, at + 1);
        let sector = i64::from_le_bytes(trace[at..at + 8].try_into().unwrap()) + 2048;
        moved.extend_from_slice(&sector.to_le_bytes());
        moved.extend_from_slice(&trace[at + 8..end]);
        at = end;
    }
    std::fs::write(path("disk.trace"), moved).unwrap();
    let start = |name, args: &[&str]| Tool::start(dir.path(), Some(&server), name, args);
    let (status, log) = start("gray-inferencer", &["old.bson", "4", "guest", "--drain"]).wait();
    assert!(status.code() == Some(1) && log.contains("--image"), "{log}");
    assert!(start("gray-ndb-queuer", &["old.bson", "disk.trace", "4"]).wait().0.success());
    let listener = server.listen();
    let (status, log) = start("gray-inferencer", &["old.bson", "4", "guest", "--drain", "--image", "disk.raw"]).wait();
    assert!(status.success(), "{log}");
    check(&all(&listener), &format!("{}:guest:", host()));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let dir = scratch();
    std::fs::write(dir.path().join("junk"), [7; 4096]).unwrap();
    let line = |name: &str, args: &[&str], wanted: &str| {
        let (code, text) = say(dir.path(), name, args);
        assert!(
            code == Some(1) && text.lines().count() == 1 && text.contains(wanted),
            "{name} {args:?}: {code:?} {text}"
        );
    };
    line("gray-crawler", &["none.raw", "x.bson"], "No such file");
    line("gray-crawler", &["junk", "x.bson"], "no file system");
    line("gray-inferencer", &["none.bson", "4", "vm"], "No such file");
    line("gray-inferencer", &["junk", "4", "vm"], "document 1 at byte 0");
    line("gray-inferencer", &["junk", "four", "vm"], "four");
    line("gray-ndb-queuer", &["junk", "4"], "cannot use Redis");
    line("gray-ndb-queuer", &["junk", "junk", "4"], "document 1 at byte 0");
    line("gray-fs", &["-f", "/nonexistent", "junk"], "no file system");
    line("gray-fs", &["/nonexistent", "junk"], "no file system");
    for (name, args) in [
        ("gray-crawler", &["a"][..]),
        ("gray-ndb-queuer", &["a"]),
        ("gray-inferencer", &["a", "4"]),
        ("gray-fs", &["a"]),
    ] {
        assert_eq!(say(dir.path(), name, args).0, Some(2), "{name}");
    }
}
