//! Scripts of file operations by ntfs-3g and the exact events of each step: none missing, none
//! invented.
//!
//! Writes to clusters are told as the disk sees them, whole sectors cut at the end of the file;
//! those of small files, which lie in the MFT, to the byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, lremovexattr, lsetxattr};
use support::disk::scratch;
use support::script::Script;
use tempfile::TempDir;

fn script() -> (TempDir, Script) {
    let scratch = scratch();
    let script = Script::start(scratch.path(), "ntfs -c 4096", "noatime");
    (scratch, script)
}

fn open(at: &Path) -> File {
    OpenOptions::new().write(true).open(at).unwrap()
}

fn write(at: &Path, len: usize) {
    fs::write(at, vec![b'x'; len]).unwrap();
}

/// What every change of a file or directory brings along.
fn touched(path: &str) -> [String; 2] {
    [format!("metadata {path} mtime"), format!("metadata {path} ctime")]
}

/// A step: what it is, what is done, the events but for the last ones, and the paths whose times
/// these are about.
type Step = (&'static str, fn(&Path), &'static [&'static str], &'static str);

fn run(s: &mut Script, steps: &[Step]) {
    for (what, act, first, times) in steps {
        let times = if times.is_empty() { Vec::new() } else { touched(times).to_vec() };
        let all: Vec<&str> = first.iter().copied().chain(times.iter().map(String::as_str)).collect();
        s.expect(what, act, &all);
    }
}

const DIR: [&str; 2] = ["metadata /dir mtime", "metadata /dir ctime"];
const ROOT: [&str; 2] = ["metadata / mtime", "metadata / ctime"];

#[test]
fn contents() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let (_scratch, mut s) = script();
    s.expect(
        "mkdir",
        |d| fs::create_dir(d.join("dir")).unwrap(),
        &[&["create /dir dir mode=0 size=0"], &ROOT[..]].concat(),
    );
    let new = [&["create /dir/f file mode=0 size=100"], &DIR[..], &["write /dir/f 0+100"]].concat();
    s.expect("a small file", |d| write(&d.join("dir/f"), 100), &new);
    let f = |d: &Path| open(&d.join("dir/f"));
    let mut change = |what: &str, act: &dyn Fn(&File), first: &[&str]| {
        let times = touched("/dir/f");
        s.expect(what, |d| act(&f(d)), &[first, &[&*times[0], &*times[1]]].concat());
    };
    let at = |f: &File, at: u64, len: usize| f.write_all_at(&vec![b'y'; len], at).unwrap();
    change("append", &|f| at(f, 100, 5), &["write /dir/f 100+5"]);
    change("overwrite", &|f| at(f, 50, 2), &["write /dir/f 50+2"]);
    change("truncate", &|f| f.set_len(60).unwrap(), &["truncate /dir/f 105->60"]);
    change("too much for the record", &|f| at(f, 60, 5000), &["write /dir/f 60+5000"]);
    change("in place", &|f| at(f, 4500, 10), &["write /dir/f 4096+964"]);
    let flags = "metadata /dir/f flags";
    let hole = ["write /dir/f 4096+4096", "write /dir/f 98304+1706", flags];
    change("beyond the end", &|f| at(f, 100_000, 10), &hole);
    change("truncate up", &|f| f.set_len(200_000).unwrap(), &["truncate /dir/f 100010->200000"]);
    change("truncate down", &|f| f.set_len(4096).unwrap(), &["truncate /dir/f 200000->4096", flags]);
    change("truncate to nothing", &|f| f.set_len(0).unwrap(), &["truncate /dir/f 4096->0"]);
}

#[test]
fn streams() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let (_scratch, mut s) = script();
    let set = |d: &Path, value: &[u8]| lsetxattr(d.join("f"), "user.s", value, XattrFlags::empty()).unwrap();
    s.step(|d| write(&d.join("f"), 10_000));
    let ctime = "metadata /f ctime";
    s.expect("new", |d| set(d, b"hi"), &["create /f:s file mode=0 size=2", "write /f:s 0+2", ctime]);
    s.expect("changed", |d| set(d, b"hoho"), &["write /f:s 1+3", ctime]);
    s.expect("large", |d| set(d, &[b'q'; 5000]), &["write /f:s 0+5000", ctime]);
    s.expect("gone", |d| lremovexattr(d.join("f"), "user.s").unwrap(), &["delete /f:s", ctime]);
    s.step(|d| set(d, b"stays"));
    s.expect(
        "the file moves",
        |d| fs::rename(d.join("f"), d.join("g")).unwrap(),
        &[&["rename /f -> /g"], &ROOT[..], &["metadata /g ctime"]].concat(),
    );
    s.expect("the file goes", |d| fs::remove_file(d.join("g")).unwrap(), &[&ROOT[..], &["delete /g"]].concat());
}

#[test]
fn names() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let (_scratch, mut s) = script();
    s.step(|d| {
        fs::create_dir(d.join("dir")).unwrap();
        write(&d.join("dir/f"), 10);
        write(&d.join("big"), 10_000);
    });
    run(
        &mut s,
        &[
            (
                "link",
                |d| fs::hard_link(d.join("big"), d.join("dir/other")).unwrap(),
                &["link /dir/other", DIR[0], DIR[1], "metadata /big nlink 1->2", "metadata /big ctime"],
                "",
            ),
            (
                "a move between directories is one event",
                |d| fs::rename(d.join("big"), d.join("dir/moved")).unwrap(),
                &["rename /big -> /dir/moved", ROOT[0], ROOT[1], DIR[0], DIR[1], "metadata /dir/other ctime"],
                "",
            ),
            (
                "a directory moves with all that is in it",
                |d| fs::rename(d.join("dir"), d.join("folder")).unwrap(),
                &["rename /dir -> /folder", ROOT[0], ROOT[1], "metadata /folder ctime"],
                "",
            ),
            (
                "unlink one of two names",
                |d| fs::remove_file(d.join("folder/other")).unwrap(),
                &[
                    "unlink /folder/other",
                    "metadata /folder mtime",
                    "metadata /folder ctime",
                    "metadata /folder/moved nlink 2->1",
                    "metadata /folder/moved ctime",
                ],
                "",
            ),
            (
                "rename over a file",
                |d| fs::rename(d.join("folder/f"), d.join("folder/moved")).unwrap(),
                &[
                    "delete /folder/moved",
                    "rename /folder/f -> /folder/moved",
                    "metadata /folder mtime",
                    "metadata /folder ctime",
                    "metadata /folder/moved ctime",
                ],
                "",
            ),
            ("symlink", |d| symlink("a/b", d.join("sym")).unwrap(), &["create /sym symlink mode=0 size=3 -> a/b"], "/"),
            (
                "remove a tree",
                |d| fs::remove_dir_all(d.join("folder")).unwrap(),
                &[ROOT[0], ROOT[1], "delete /folder/moved", "delete /folder"],
                "",
            ),
        ],
    );
}
