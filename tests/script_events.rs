//! Scripts of file operations and the exact events of each step: none missing, none invented.
//!
//! Writes are told as the disk sees them: whole blocks, cut at the end of the file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags, fallocate,
    lremovexattr, lsetxattr, makedev, mknodat, renameat_with, utimensat,
};
use support::disk::scratch;
use support::script::Script;
use tempfile::TempDir;

const EXT4: &str = "ext4 -b 4096";
const OPTIONS: &str = "noatime,commit=300";

fn script() -> (TempDir, Script) {
    let scratch = scratch();
    let script = Script::start(scratch.path(), EXT4, OPTIONS);
    (scratch, script)
}

fn open(at: &Path) -> File {
    OpenOptions::new().write(true).open(at).unwrap()
}

fn write(at: &Path, len: usize) {
    fs::write(at, vec![b'x'; len]).unwrap();
}

#[test]
fn contents() {
    need!(root, fuse, loop);
    let (_scratch, mut s) = script();
    s.expect(
        "mkdir",
        |d| fs::create_dir(d.join("dir")).unwrap(),
        &["create /dir dir mode=755 size=4096", "metadata / nlink 3->4", "metadata / mtime", "metadata / ctime"],
    );
    s.expect(
        "a new file",
        |d| write(&d.join("dir/f"), 10_000),
        &[
            "create /dir/f file mode=644 size=10000",
            "metadata /dir mtime",
            "metadata /dir ctime",
            "write /dir/f 0+10000",
        ],
    );
    let touched = ["metadata /dir/f mtime", "metadata /dir/f ctime"];
    let mut change = |what: &str, act: &dyn Fn(&File), first: &[&str]| {
        s.expect(what, |d| act(&open(&d.join("dir/f"))), &[first, &touched].concat());
    };
    let write_at = |f: &File, at: u64, len: usize| f.write_all_at(&vec![b'y'; len], at).unwrap();
    change("append", &|f| write_at(f, 10_000, 5_000), &["write /dir/f 8192+6808"]);
    change("overwrite a block", &|f| write_at(f, 4096, 4096), &["write /dir/f 4096+4096"]);
    change("overwrite a few bytes", &|f| write_at(f, 5000, 10), &["write /dir/f 4096+4096"]);
    change("truncate to whole blocks", &|f| f.set_len(8192).unwrap(), &["truncate /dir/f 15000->8192"]);
    change("truncate up", &|f| f.set_len(20_480).unwrap(), &["truncate /dir/f 8192->20480"]);
    change("fill a hole", &|f| write_at(f, 12_288, 4096), &["write /dir/f 12288+4096"]);
    let sparse = ["write /dir/f 40960+4096"];
    change("write beyond the end", &|f| write_at(f, 40_960, 4096), &sparse);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    change("punch a hole", &|f| fallocate(f, punch, 12_288, 4096).unwrap(), &["write /dir/f 12288+4096 zero"]);
    let two = ["write /dir/f 0+4096", "write /dir/f 40960+4096"];
    change("two writes", &|f| (write_at(f, 40_960, 4096), write_at(f, 0, 4096)).1, &two);
    change("truncate to whole blocks again", &|f| f.set_len(8192).unwrap(), &["truncate /dir/f 45056->8192"]);
    let part = ["write /dir/f 4096+904", "truncate /dir/f 8192->5000"];
    change("truncate within a block", &|f| f.set_len(5000).unwrap(), &part);
    let empty = ["truncate /dir/f 5000->0"];
    change("truncate to nothing", &|f| f.set_len(0).unwrap(), &empty);
    let prealloc = |f: &File| fallocate(f, FallocateFlags::KEEP_SIZE, 0, 65_536).unwrap();
    change("preallocate beyond the end", &prealloc, &[]);
}

#[test]
fn attributes() {
    need!(root, fuse, loop);
    let (_scratch, mut s) = script();
    s.step(|d| write(&d.join("f"), 1));
    s.expect(
        "chmod",
        |d| fs::set_permissions(d.join("f"), Permissions::from_mode(0o4600)).unwrap(),
        &["metadata /f mode 644->4600", "metadata /f ctime"],
    );
    s.expect(
        "chown clears set-uid too",
        |d| lchown(d.join("f"), Some(1000), Some(70_000)).unwrap(),
        &["metadata /f mode 4600->600", "metadata /f uid 0->1000", "metadata /f gid 0->70000", "metadata /f ctime"],
    );
    let set = |d: &Path, value: &[u8]| lsetxattr(d.join("f"), "user.note", value, XattrFlags::empty()).unwrap();
    s.expect("set an xattr", |d| set(d, b"hi"), &["metadata /f ctime", "metadata /f xattr:user.note none->6869"]);
    s.expect("change it", |d| set(d, b"ho"), &["metadata /f ctime", "metadata /f xattr:user.note 6869->686f"]);
    let big = format!("metadata /f xattr:user.big none->{}", "7a".repeat(900));
    s.expect(
        "one that needs a block",
        |d| lsetxattr(d.join("f"), "user.big", &[b'z'; 900], XattrFlags::empty()).unwrap(),
        &["metadata /f ctime", &big],
    );
    s.expect(
        "remove one",
        |d| lremovexattr(d.join("f"), "user.note").unwrap(),
        &["metadata /f ctime", "metadata /f xattr:user.note 686f->none"],
    );
    let second = |tv_sec| Timespec { tv_sec, tv_nsec: 5 };
    let times = Timestamps { last_access: second(1), last_modification: second(2) };
    s.expect(
        "set the times",
        |d| utimensat(CWD, d.join("f"), &times, AtFlags::empty()).unwrap(),
        &["metadata /f mtime", "metadata /f atime", "metadata /f ctime"],
    );
}

const ROOT: [&str; 2] = ["metadata / mtime", "metadata / ctime"];

#[test]
fn names() {
    need!(root, fuse, loop);
    let (_scratch, mut s) = script();
    let at_root = |first: &[&'static str], last: &[&'static str]| [first, &ROOT, last].concat();
    s.step(|d| fs::create_dir(d.join("dir")).unwrap());
    s.step(|d| write(&d.join("dir/f"), 1));
    let found = s.step(|d| fs::hard_link(d.join("dir/f"), d.join("g")).unwrap());
    // Either name may stand for a file of two.
    let found: Vec<String> = found.iter().map(|l| l.replace("/dir/f", "/g")).collect();
    assert_eq!(found, at_root(&["link /g"], &["metadata /g nlink 1->2", "metadata /g ctime"]));
    s.expect(
        "unlink one of two names",
        |d| fs::remove_file(d.join("dir/f")).unwrap(),
        &["unlink /dir/f", "metadata /dir mtime", "metadata /dir ctime", "metadata /g nlink 2->1", "metadata /g ctime"],
    );
    let rename = |d: &Path, from: &str, to: &str| fs::rename(d.join(from), d.join(to)).unwrap();
    s.expect("rename", |d| rename(d, "g", "h"), &at_root(&["rename /g -> /h"], &["metadata /h ctime"]));
    s.step(|d| write(&d.join("victim"), 1));
    s.expect(
        "rename over a file",
        |d| rename(d, "h", "victim"),
        &at_root(&["delete /victim", "rename /h -> /victim"], &["metadata /victim ctime"]),
    );
    s.step(|d| fs::create_dir(d.join("dir/sub")).unwrap());
    s.step(|d| write(&d.join("dir/sub/deep"), 1));
    s.expect(
        "rename a directory",
        |d| rename(d, "dir", "moved"),
        &at_root(&["rename /dir -> /moved"], &["metadata /moved ctime"]),
    );
    s.expect(
        "move a directory up",
        |d| rename(d, "moved/sub", "sub"),
        &[
            "rename /moved/sub -> /sub",
            "metadata / nlink 4->5",
            "metadata / mtime",
            "metadata / ctime",
            "metadata /moved nlink 3->2",
            "metadata /moved mtime",
            "metadata /moved ctime",
            "metadata /sub ctime",
        ],
    );
    s.expect("delete", |d| fs::remove_file(d.join("victim")).unwrap(), &at_root(&[], &["delete /victim"]));
    s.expect(
        "remove a tree",
        |d| fs::remove_dir_all(d.join("sub")).unwrap(),
        &["metadata / nlink 5->4", "metadata / mtime", "metadata / ctime", "delete /sub/deep", "delete /sub"],
    );
    s.expect(
        "rmdir",
        |d| fs::remove_dir(d.join("moved")).unwrap(),
        &["metadata / nlink 4->3", "metadata / mtime", "metadata / ctime", "delete /moved"],
    );
}

#[test]
fn names_that_change_hands() {
    need!(root, fuse, loop);
    let (_scratch, mut s) = script();
    let at_root = |first: &[&'static str], last: &[&'static str]| [first, &ROOT, last].concat();
    let rename = |d: &Path, from: &str, to: &str| fs::rename(d.join(from), d.join(to)).unwrap();
    s.step(|d| write(&d.join("a"), 1));
    s.step(|d| write(&d.join("b"), 1));
    // The file that was /a has the lower inode number and is /b now.
    let swapped = at_root(&["exchange /a <-> /b"], &["metadata /b ctime", "metadata /a ctime"]);
    let exchange = |d: &Path| renameat_with(CWD, d.join("a"), CWD, d.join("b"), RenameFlags::EXCHANGE).unwrap();
    s.expect("exchange", exchange, &swapped);
    s.expect(
        "exchange by three renames",
        |d| [("a", "t"), ("b", "a"), ("t", "b")].iter().for_each(|(from, to)| rename(d, from, to)),
        &at_root(&["exchange /a <-> /b"], &["metadata /a ctime", "metadata /b ctime"]),
    );
    s.expect(
        "renamed twice at once",
        |d| [("a", "t"), ("t", "c")].iter().for_each(|(from, to)| rename(d, from, to)),
        &at_root(&["rename /a -> /c"], &["metadata /c ctime"]),
    );
    s.expect(
        "one follows the other",
        |d| [("b", "d"), ("c", "b")].iter().for_each(|(from, to)| rename(d, from, to)),
        &at_root(&["rename /b -> /d", "rename /c -> /b"], &["metadata /b ctime", "metadata /d ctime"]),
    );
    s.expect(
        "created and gone at once",
        |d| {
            write(&d.join("short-lived"), 1);
            fs::remove_file(d.join("short-lived")).unwrap();
        },
        &ROOT,
    );
    s.expect(
        "deleted and made anew",
        |d| {
            fs::remove_file(d.join("b")).unwrap();
            write(&d.join("b"), 4096);
        },
        &at_root(&["delete /b", "create /b file mode=644 size=4096"], &["write /b 0+4096"]),
    );
    s.expect(
        "saved safely",
        |d| {
            write(&d.join("b.tmp"), 4096);
            open(&d.join("b.tmp")).sync_all().unwrap();
            // The kernel's clock for files ticks every few milliseconds: within a tick no time changes.
            std::thread::sleep(Duration::from_millis(30));
            rename(d, "b.tmp", "b");
        },
        &[
            at_root(&["create /b.tmp file mode=644 size=4096"], &["write /b.tmp 0+4096"]),
            at_root(&["delete /b", "rename /b.tmp -> /b"], &["metadata /b ctime"]),
        ]
        .concat(),
    );
    s.step(|d| fs::hard_link(d.join("b"), d.join("b2")).unwrap());
    s.expect(
        "rename over one of two names",
        |d| rename(d, "d", "b"),
        &at_root(
            &["unlink /b", "rename /d -> /b"],
            &["metadata /b ctime", "metadata /b2 nlink 2->1", "metadata /b2 ctime"],
        ),
    );
}

#[test]
fn other_kinds() {
    need!(root, fuse, loop);
    let (_scratch, mut s) = script();
    let made = |line: &'static str| [&[line][..], &ROOT].concat();
    s.expect(
        "a symlink in the inode",
        |d| symlink("to/there", d.join("fast")).unwrap(),
        &made("create /fast symlink mode=777 size=8 -> to/there"),
    );
    let long = "long/".repeat(20);
    let line = format!("create /slow symlink mode=777 size=100 -> {long}");
    let expected = [&[line.as_str()][..], &ROOT].concat();
    s.expect("a symlink with a block", |d| symlink(&long, d.join("slow")).unwrap(), &expected);
    let node = |d: &Path, name: &str, kind, dev| mknodat(CWD, d.join(name), kind, Mode::RUSR, dev).unwrap();
    s.expect("a pipe", |d| node(d, "pipe", FileType::Fifo, 0), &made("create /pipe fifo mode=400 size=0"));
    s.expect("a socket", |d| node(d, "sock", FileType::Socket, 0), &made("create /sock sock mode=400 size=0"));
    s.expect(
        "a character device",
        |d| node(d, "null", FileType::CharacterDevice, makedev(1, 3)),
        &made("create /null chr mode=400 size=0 rdev=1:3"),
    );
    s.expect(
        "a block device",
        |d| node(d, "disk", FileType::BlockDevice, makedev(259, 70_000)),
        &made("create /disk blk mode=400 size=0 rdev=259:70000"),
    );
    s.expect(
        "a name that is not UTF-8",
        |d| drop(File::create(d.join(std::str::from_utf8(b"tab\there").unwrap())).unwrap()),
        &made("create /tab\\there file mode=644 size=0"),
    );
}

/// All of a step in one transaction: parents before children, contents after names.
#[test]
fn a_tree_at_once() {
    need!(root, fuse, loop);
    let (_scratch, mut s) = script();
    let found = s.step(|d| {
        fs::create_dir_all(d.join("x/y/z")).unwrap();
        write(&d.join("x/y/z/f"), 5000);
        write(&d.join("x/g"), 0);
        fs::hard_link(d.join("x/g"), d.join("x/y/h")).unwrap();
    });
    let mut sorted = found.clone();
    sorted.sort();
    let mut expected = [
        "create /x dir mode=755 size=4096",
        "create /x/y dir mode=755 size=4096",
        "create /x/y/z dir mode=755 size=4096",
        "create /x/y/z/f file mode=644 size=5000",
        "create /x/g file mode=644 size=0",
        "link /x/y/h",
        "metadata / nlink 3->4",
        "metadata / mtime",
        "metadata / ctime",
        "write /x/y/z/f 0+5000",
    ];
    expected.sort_unstable();
    // One of the two names of a file is its `create`, whichever.
    let other = sorted.iter().any(|l| l == "create /x/y/h file mode=644 size=0");
    let named = expected.map(|l| match l {
        "create /x/g file mode=644 size=0" if other => "create /x/y/h file mode=644 size=0".to_owned(),
        "link /x/y/h" if other => "link /x/g".to_owned(),
        l => l.to_owned(),
    });
    let mut named = named.to_vec();
    named.sort();
    assert_eq!(sorted, named);
    let at = |start: &str| found.iter().position(|l| l.starts_with(start)).unwrap();
    let order =
        ["create /x ", "create /x/y ", "create /x/y/z ", "create /x/y/z/f ", "metadata / nlink", "write "].map(at);
    assert!(order.is_sorted(), "{found:?}");
}

/// A home write tells less than a transaction: names only, each change in its own step.
#[test]
fn names_without_a_journal() {
    need!(root, fuse, loop);
    for mkfs in ["ext2 -b 1024", "ext4 -b 4096 -O ^has_journal"] {
        let scratch = scratch();
        let mut s = Script::start(scratch.path(), mkfs, "noatime");
        let size = if mkfs.contains("1024") { 1024 } else { 4096 };
        let mkdir = format!("create /dir dir mode=755 size={size}");
        s.expect_names("mkdir", |d| fs::create_dir(d.join("dir")).unwrap(), &[&mkdir]);
        s.expect_names("create", |d| write(&d.join("dir/f"), 10), &["create /dir/f file mode=644 size=10"]);
        s.expect_names("link", |d| fs::hard_link(d.join("dir/f"), d.join("dir/g")).unwrap(), &["link /dir/g"]);
        s.expect_names("unlink", |d| fs::remove_file(d.join("dir/f")).unwrap(), &["unlink /dir/f"]);
        s.expect_names(
            "rename",
            |d| fs::rename(d.join("dir/g"), d.join("dir/h")).unwrap(),
            &["rename /dir/g -> /dir/h"],
        );
        s.expect_names("rename up", |d| fs::rename(d.join("dir/h"), d.join("h")).unwrap(), &["rename /dir/h -> /h"]);
        s.expect_names("delete", |d| fs::remove_file(d.join("h")).unwrap(), &["delete /h"]);
        s.expect_names("rmdir", |d| fs::remove_dir(d.join("dir")).unwrap(), &["delete /dir"]);
    }
}

#[test]
fn unmounting_is_told() {
    need!(root, fuse, loop);
    let (_scratch, s) = script();
    let told = s.unmount();
    assert!(told.iter().any(|l| l == "volume unmounted"), "{told:?}");
}
