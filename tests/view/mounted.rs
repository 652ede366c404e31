//! Through a real mount.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gammaray::event::Body;
use gammaray::fuse::{MountError, Unmounted};
use gammaray::guest::Guest;
use gammaray::name::GuestPath;
use gammaray::sink::Sink;
use gammaray::tree::Kind;
use gammaray::units::InodeNo;
use gammaray::view::{View, ViewSink};

use super::fuse_support::{Mounted, Need, have, is_mounted, output, run, sh, wait_for};
use super::mem_tree::MemTree;
use super::{event, guest, volume, wrote};

struct Fixture {
    tree: Arc<MemTree>,
    guest: Arc<Guest>,
    view: Option<View>,
    sink: ViewSink,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let tree = Arc::new(MemTree::new(2));
        let guest = guest(&[("disk", &tree)]);
        let dir = tempfile::tempdir().unwrap();
        let view = View::mount(guest.clone(), dir.path()).unwrap();
        let sink = view.sink();
        Self { tree, guest, view: Some(view), sink, dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    fn finish(mut self) {
        assert_eq!(self.view.take().unwrap().stop(), Unmounted::Gone);
        assert!(!is_mounted(self.dir.path()));
    }
}

const SOON: Duration = Duration::from_millis(900);

#[test]
fn everything_that_a_guest_has_is_shown() {
    if !have(&[Need::Fuse, Need::Program("getfattr")]) {
        return;
    }
    let fixture = Fixture::new();
    let tree = &fixture.tree;
    tree.add(2, "dir", 11, Kind::Dir);
    tree.add_file(11, "file", 12, "content\n");
    tree.link(2, "hard link", 12);
    tree.change(12, |f| {
        f.attr.nlink = 2;
        f.attr.sectors = 8;
        f.attr.mode = Some(0o4751);
        f.xattrs = vec![
            (b"security.thing".into(), b"s".into()),
            (b"trusted.thing".into(), b"t".into()),
            (b"user.thing".into(), vec![0, 255]),
        ];
    });
    tree.add(2, "link", 13, Kind::Symlink);
    tree.write(13, 0, b"dir/file");
    for (name, ino, kind) in [("fifo", 14, Kind::Fifo), ("sock", 15, Kind::Sock), ("chr", 16, Kind::Chr)] {
        tree.add(2, name, ino, kind);
    }
    tree.add(2, "blk", 17, Kind::Blk);
    tree.change(16, |f| f.attr.rdev = Some((5, 1)));
    tree.change(17, |f| f.attr.rdev = Some((259, 70_000)));
    tree.add(2, "broken", 18, Kind::File);
    tree.change(18, |f| f.broken = true);

    let root = std::fs::metadata(fixture.dir.path()).unwrap();
    assert_eq!((root.ino(), root.mode()), (2, 0o40755));
    let ls = std::fs::read_dir(fixture.dir.path()).unwrap().map(|e| e.unwrap());
    let mut ls: Vec<_> = ls.map(|e| (e.file_name().into_string().unwrap(), e.ino())).collect();
    ls.sort();
    let want = [
        ("blk", 17),
        ("broken", 18),
        ("chr", 16),
        ("dir", 11),
        ("fifo", 14),
        ("hard link", 12),
        ("link", 13),
        ("sock", 15),
    ];
    assert_eq!(ls, want.map(|(n, i)| (n.to_owned(), i)));
    for path in ["dir/file", "hard link", "link"] {
        assert_eq!(fixture.text(path), "content\n");
        let m = std::fs::metadata(fixture.at(path)).unwrap();
        assert_eq!((m.ino(), m.nlink(), m.mode(), m.uid(), m.gid()), (12, 2, 0o104751, 10, 20));
        assert_eq!((m.size(), m.blocks()), (8, 8));
        assert_eq!(
            (m.mtime(), m.mtime_nsec(), m.atime(), m.atime_nsec()),
            (1_700_000_000, 123_456_789, -5, 250_000_000)
        );
    }
    assert_eq!(std::fs::read_link(fixture.at("link")).unwrap(), Path::new("dir/file"));
    let meta = |p: &str| std::fs::symlink_metadata(fixture.at(p)).unwrap();
    assert!(meta("fifo").file_type().is_fifo() && meta("sock").file_type().is_socket());
    let device = |p| (nix::sys::stat::major(meta(p).rdev()), nix::sys::stat::minor(meta(p).rdev()));
    assert!(meta("chr").file_type().is_char_device() && meta("blk").file_type().is_block_device());
    assert_eq!((device("chr"), device("blk")), ((5, 1), (259, 70_000)));
    let file = fixture.at("hard link");
    let dump = run("getfattr", &["-d", "-m", "-", "-e", "hex", "--absolute-names", file.to_str().unwrap()]);
    let dump: Vec<_> = dump.lines().skip(1).filter(|l| !l.is_empty()).collect();
    assert_eq!(dump, ["security.thing=0x73", "trusted.thing=0x74", "user.thing=0x00ff"]);
    let broken = std::fs::metadata(fixture.at("broken")).unwrap_err();
    assert_eq!(broken.raw_os_error(), Some(nix::libc::EIO));
    let fs = nix::sys::statvfs::statvfs(fixture.dir.path()).unwrap();
    assert_eq!((fs.fragment_size(), fs.blocks(), fs.blocks_free(), fs.files()), (1024, 8000, 4000, 100));
    let found = run("find", &[fixture.dir.path().to_str().unwrap(), "-inum", "12", "-type", "f"]);
    assert_eq!(found.lines().count(), 2);
    fixture.finish();
}

#[test]
fn it_is_mounted_read_only_and_harmless() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new();
    fixture.tree.add_file(2, "f", 11, "x");
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|l| l.contains(fixture.dir.path().to_str().unwrap())).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!((fields[0], fields[2]), ("gammaray", "fuse.gammaray"));
    for option in ["ro", "nosuid", "nodev", "noexec", "default_permissions", "allow_other"] {
        assert!(fields[3].split(',').any(|o| o == option), "{option}: {line}");
    }
    for refused in [
        std::fs::write(fixture.at("new"), "x"),
        std::fs::write(fixture.at("f"), "x"),
        std::fs::remove_file(fixture.at("f")),
        std::fs::rename(fixture.at("f"), fixture.at("g")),
    ] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(nix::libc::EROFS));
    }
    fixture.finish();
}

#[test]
fn a_large_file_and_a_large_directory_are_read_whole() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new();
    let bytes: Vec<u8> = (0..9_000_001u32).map(|i| (i * 31 + i / 4093) as u8).collect();
    fixture.tree.add_file(2, "large", 11, &bytes);
    fixture.tree.add(2, "many", 12, Kind::Dir);
    for i in 0..20_000u64 {
        fixture.tree.add(12, format!("{i:0>200}"), 100 + i, Kind::File);
    }
    assert!(std::fs::read(fixture.at("large")).unwrap() == bytes);
    let before = fixture.tree.dirs_read.load(Ordering::Relaxed);
    assert_eq!(sh(&format!("ls -f {} | sort -u | wc -l", fixture.at("many").display())).trim(), "20002");
    assert_eq!(fixture.tree.dirs_read.load(Ordering::Relaxed), before + 1, "one snapshot");
    assert_eq!(sh(&format!("find {} -type f -size 0 | wc -l", fixture.at("many").display())).trim(), "20000");
    fixture.finish();
}

/// `tail -f`, ended on drop.
struct Tail(Child);

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tail_follows_a_log_and_other_readers_see_each_change() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.tree.add_file(2, "log", 11, "line 0\n");
    let (path, out) = (fixture.at("log"), tempfile::NamedTempFile::new().unwrap());
    let mut tail = Command::new("tail");
    tail.args(["-n", "+1", "-s", "0.1", "-f"]).arg(&path);
    let tail = Tail(tail.stdout(out.reopen().unwrap()).stderr(Stdio::null()).spawn().unwrap());
    let mut text = String::from("line 0\n");
    let mut reader = std::fs::File::open(&path).unwrap();
    for i in 1..=8 {
        let line = format!("line {i}\n");
        fixture.tree.write(11, text.len(), line.as_bytes());
        fixture.sink.emit(&wrote("/log", 11, text.len() as u64, line.len() as u64)).unwrap();
        text += &line;
        wait_for("tail", SOON, || std::fs::read_to_string(out.path()).unwrap() == text);
        let mut seen = String::new();
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, text);
    }
    // In place, without a new size or time: only the event tells.
    fixture.tree.write(11, 0, b"LINE");
    fixture.sink.emit(&wrote("/log", 11, 0, 4)).unwrap();
    wait_for("the page to change", SOON, || {
        let mut seen = [0; 4];
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_exact(&mut seen).unwrap();
        &seen == b"LINE"
    });
    drop(reader);
    drop(tail);
    fixture.finish();
}

#[test]
fn names_come_move_and_go_with_the_events() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.tree.add(2, "dir", 11, Kind::Dir);
    fixture.tree.add_file(11, "a", 12, "a");
    assert_eq!(fixture.text("dir/a"), "a");
    assert!(!fixture.at("dir/b").exists());

    fixture.tree.add_file(11, "b", 13, "b");
    fixture.sink.emit(&event("/dir/b", 13, 11, Body::Create(Default::default()))).unwrap();
    wait_for("b", SOON, || fixture.at("dir/b").exists());

    fixture.tree.unlink(11, "b");
    fixture.tree.unlink(11, "a");
    fixture.tree.remove(12);
    fixture.tree.link(11, "a", 13);
    fixture.sink.emit(&event("/dir/a", 12, 11, Body::Delete)).unwrap();
    let rename = Body::Rename { from: GuestPath(b"/dir/b".to_vec()), from_parent: InodeNo(11), exchange: false };
    fixture.sink.emit(&event("/dir/a", 13, 11, rename)).unwrap();
    wait_for("the rename", SOON, || std::fs::read_to_string(fixture.at("dir/a")).is_ok_and(|t| t == "b"));
    wait_for("the old name to go", SOON, || !fixture.at("dir/b").exists());

    fixture.tree.change(13, |f| f.attr.mode = Some(0o600));
    fixture.sink.emit(&event("/dir/a", 13, 11, Body::Metadata { field: "mode".into(), old: None, new: None })).unwrap();
    wait_for("the mode", SOON, || std::fs::metadata(fixture.at("dir/a")).unwrap().mode() == 0o100600);

    // Two files of the same number, one after the other.
    let old = std::fs::File::open(fixture.at("dir/a")).unwrap();
    fixture.tree.unlink(11, "a");
    fixture.tree.add_file(11, "c", 13, "c");
    fixture.tree.change(13, |f| f.attr.generation = 99);
    fixture.sink.emit(&event("/dir/a", 13, 11, Body::Delete)).unwrap();
    fixture.sink.emit(&event("/dir/c", 13, 11, Body::Create(Default::default()))).unwrap();
    wait_for("c", SOON, || std::fs::read_to_string(fixture.at("dir/c")).is_ok_and(|t| t == "c"));
    assert!((&old).read(&mut [0; 4]).is_err(), "the old file is not the new one");
    drop(old);
    fixture.finish();
}

#[test]
fn volumes_are_replaced_at_run_time() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new();
    fixture.tree.add_file(2, "x", 20, "old");
    assert_eq!(fixture.text("x"), "old");
    let new = Arc::new(MemTree::new(2));
    new.add_file(2, "x", 20, "new");
    fixture.guest.set(vec![volume("disk", &new)]);
    wait_for("the new volume", Duration::from_secs(2), || fixture.text("x") == "new");
    fixture.guest.set(vec![volume("disk", &new), volume("p2", &fixture.tree)]);
    wait_for("two volumes", Duration::from_secs(2), || fixture.at("p2/x").exists());
    assert_eq!((fixture.text("disk/x"), fixture.text("p2/x")), ("new".into(), "old".into()));
    let ino = |p| std::fs::metadata(fixture.at(p)).unwrap().ino();
    wait_for("the new top", SOON, || ino("") == 1);
    assert_eq!((ino("disk/x"), ino("p2/x"), ino("disk"), ino("p2")), (20, 20, 2, 2));
    fixture.guest.set(Vec::new());
    wait_for("nothing", Duration::from_secs(2), || std::fs::read_dir(fixture.dir.path()).unwrap().count() == 0);
    fixture.finish();
}

#[test]
fn a_busy_view_is_detached() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.tree.add_file(2, "f", 11, "content");
    let mut open = std::fs::File::open(fixture.at("f")).unwrap();
    assert_eq!(fixture.view.take().unwrap().stop(), Unmounted::Lazily);
    assert!(!is_mounted(fixture.dir.path()));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
}

#[test]
fn somebody_else_may_unmount_it() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let mut fixture = Fixture::new();
    run("umount", &[fixture.dir.path().to_str().unwrap()]);
    let view = fixture.view.take().unwrap();
    wait_for("the end", Duration::from_secs(2), || view.has_ended());
    // What is mounted there now is not ours to unmount.
    let other = Mounted::new(&["-t", "tmpfs", "tmpfs"], fixture.dir.path());
    assert_eq!(view.stop(), Unmounted::Gone);
    assert!(is_mounted(fixture.dir.path()));
    other.unmount();
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new();
    let mount = |dir: &Path| View::mount(fixture.guest.clone(), dir).map(|_| ()).unwrap_err();
    assert!(matches!(mount(fixture.dir.path()), MountError::Busy { .. }));
    assert!(matches!(mount(&fixture.at("none")), MountError::Missing(_)));
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(mount(file.path()), MountError::NotADirectory(_)));
    let mounts = output("mount", &[]).stdout;
    let count = String::from_utf8_lossy(&mounts).matches(fixture.dir.path().to_str().unwrap()).count();
    assert_eq!(count, 1);
    fixture.finish();
}
