//! What is wrong with the input is said in one line on stderr, with exit code 1, and nothing is changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_gammaray");
const MIB: usize = 1 << 20;

struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// A small ext4 file system with a file of 200,000 bytes.
    fn ext4(&self) -> PathBuf {
        fs::create_dir_all(self.path("tree/sub")).unwrap();
        fs::write(self.path("tree/file"), vec![b'x'; 200_000]).unwrap();
        let image = self.path("ext4.raw");
        let mut made = Command::new("mke2fs");
        made.args(["-q", "-t", "ext4", "-b", "1024", "-d"]).arg(self.path("tree"));
        assert!(made_ok(made.arg(&image).arg("8M")));
        image
    }
}

fn made_ok(command: &mut Command) -> bool {
    command.output().unwrap().status.success()
}

fn run<S: AsRef<OsStr>>(args: &[S]) -> Output {
    Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap()
}

/// The one line on stderr of a command that fails as it should.
fn failure<S: AsRef<OsStr>>(args: &[S]) -> String {
    told(&run(args))
}

fn told(out: &Output) -> String {
    let err = String::from_utf8(out.stderr.clone()).unwrap();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with("gammaray: ") && err.matches(": ").count() >= 3, "{err}");
    err
}

fn args<'a>(words: &[&'a str], path: &'a Path) -> Vec<&'a OsStr> {
    words.iter().map(|w| if *w == "IMAGE" { path.as_os_str() } else { OsStr::new(*w) }).collect()
}

/// All commands that look into an image.
fn looks<'a>(image: &'a Path, index: &'a Path) -> Vec<Vec<&'a OsStr>> {
    let mut all: Vec<_> = [
        &["volumes", "IMAGE"][..],
        &["ls", "-R", "--json", "--hash", "IMAGE"],
        &["cat", "IMAGE", "/file"],
        &["stat", "IMAGE", "/file"],
        &["mount", "IMAGE", "/nonexistent/mount/point"],
        &["replay", "--image", "IMAGE", "--log-writes", "/dev/null"],
    ]
    .iter()
    .map(|words| args(words, image))
    .collect();
    all.push(vec![OsStr::new("crawl"), image.as_os_str(), index.as_os_str()]);
    all
}

fn check_all(image: &Path, scratch: &Scratch, part: &str) {
    let index = scratch.path("index.bson");
    for command in looks(image, &index) {
        let line = failure(&command);
        assert!(line.contains(part) && line.contains(image.to_str().unwrap()), "{command:?}: {line}");
    }
    assert!(!index.exists());
}

#[test]
fn images_that_are_none() {
    let s = Scratch::new();
    check_all(&s.path("missing.raw"), &s, "No such file");
    check_all(&s.file("empty.raw", b""), &s, "the image is empty");
    check_all(&s.file("tiny.raw", b"some text"), &s, "the image has only 9 bytes");
    check_all(s.0.path(), &s, "a directory");
    assert!(made_ok(Command::new("mkfifo").arg(s.path("fifo"))));
    check_all(&s.path("fifo"), &s, "a named pipe");
}

#[test]
fn an_unreadable_image() {
    let s = Scratch::new();
    let image = s.ext4();
    assert!(made_ok(Command::new("chmod").arg("000").arg(&image)));
    assert!(made_ok(Command::new("chmod").arg("711").arg(s.0.path())));
    let out = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", BINARY, "ls"]).arg(&image).output();
    let out = out.unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    if !err.starts_with("gammaray:") {
        eprintln!("SKIPPED: cannot run as another user: {err}");
        return;
    }
    assert!(told(&out).contains("Permission denied"), "{err}");
}

#[test]
fn a_foreign_image_is_told_but_not_read() {
    let s = Scratch::new();
    let noise: Vec<u8> = (0..2 * MIB).map(|i| u8::try_from(i * 7919 % 251).unwrap()).collect();
    let image = s.file("noise.raw", &noise);
    for command in &looks(&image, &s.path("index.bson"))[1..5] {
        assert!(failure(command).contains("no file system that can be read"));
    }
    let volumes = run(&args(&["volumes", "--json", "IMAGE"], &image));
    assert!(volumes.status.success());
    let row: serde_json::Value = serde_json::from_slice(&volumes.stdout).unwrap();
    assert_eq!((row["name"].as_str(), row["fs"].is_null()), (Some("disk"), true));
    assert!(row["state"].as_str().unwrap().starts_with("unsupported"));
}

#[test]
fn an_image_that_is_cut_short() {
    let s = Scratch::new();
    let image = s.ext4();
    File::options().write(true).open(&image).unwrap().set_len(3 * MIB as u64).unwrap();
    for command in &looks(&image, &s.path("index.bson"))[1..5] {
        assert!(failure(command).contains("cut short"));
    }
    let volumes = run(&args(&["volumes", "IMAGE"], &image));
    assert!(String::from_utf8_lossy(&volumes.stdout).contains("cut short"));
}

#[test]
fn places_that_do_not_exist() {
    let s = Scratch::new();
    let image = s.ext4();
    let before = fs::read(&image).unwrap();
    let say = |words: &[&str]| failure(&args(words, &image));
    assert!(say(&["ls", "--offset", "99999999999", "IMAGE"]).contains("past the end"));
    assert!(say(&["ls", "--offset", "18446744073709551615", "IMAGE"]).contains("past the end"));
    assert!(say(&["ls", "--offset", "512", "IMAGE"]).contains("cannot read a file system"));
    assert!(say(&["cat", "IMAGE", "/none"]).contains("no such file"));
    assert!(say(&["cat", "IMAGE", "/sub"]).contains("is a directory"));
    assert!(say(&["ls", "IMAGE", "/file/x"]).contains("not a directory"));
    assert!(say(&["stat", "IMAGE", "/a\nb\x1b[2J"]).contains(r"/a\nb\u{1b}[2J"));
    assert!(say(&["crawl", "IMAGE", "/nonexistent/index"]).contains("No such file"));
    assert!(failure(&[OsStr::new("crawl"), image.as_os_str(), image.as_os_str()]).contains("overwrite"));
    assert_eq!(fs::read(&image).unwrap(), before, "the image was changed");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in [&["ls"][..], &["frobnicate"], &[], &["replay", "--image", "x"], &["ls", "--offset", "-1", "x"]] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

fn record(sector: i64, data: &[u8]) -> Vec<u8> {
    let count = i32::try_from(data.len() / 512).unwrap();
    [sector.to_le_bytes().as_slice(), count.to_le_bytes().as_slice(), data].concat()
}

fn replay(image: &Path, kind: &str, stream: &Path) -> Output {
    run(&[OsStr::new("replay"), OsStr::new("--image"), image.as_os_str(), OsStr::new(kind), stream.as_os_str()])
}

#[test]
fn broken_recordings() {
    let s = Scratch::new();
    let image = s.ext4();
    let before = fs::read(&image).unwrap();
    let whole = record(10, &[0; 1024]);
    let cases = [
        ("cut", whole[..700].to_vec(), "the record at byte 0 lacks 336 of its 1036 bytes"),
        (
            "text",
            [&whole[..], b"qemu: warning: something\nmore text here"].concat(),
            "text instead of a record at byte 1036",
        ),
        ("past", record(8 * 2048 - 1, &[0; 1024]), "of a disk that has 8388608"),
        ("noise", vec![0xEE; 4096], "no plausible record at byte 0"),
    ];
    for (name, bytes, part) in cases {
        let line = told(&replay(&image, "--qemu-trace", &s.file(name, &bytes)));
        assert!(line.contains(part), "{name}: {line}");
    }
    let words = |w: &[u64]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    let sector = |mut v: Vec<u8>| {
        v.resize(512, 0);
        v
    };
    let header = |entries| sector(words(&[0x6a_7366_7773_6872, 1, entries, 512]));
    let past = [header(1), sector(words(&[8 * 2048, 1, 0, 0])), vec![0; 512]].concat();
    assert!(told(&replay(&image, "--log-writes", &s.file("past.log", &past))).contains("of a disk that has 8388608"));
    let cut = [header(2), sector(words(&[0, 0, 1, 0]))].concat();
    assert!(told(&replay(&image, "--log-writes", &s.file("cut.log", &cut))).contains("at byte 1024 lacks 512"));
    assert!(told(&replay(&image, "--log-writes", &s.file("no.log", b"text"))).contains("dm-log-writes"));
    assert!(told(&replay(&image, "--log-writes", &s.path("missing.log"))).contains("No such file"));
    assert!(told(&replay(&image, "--log-writes", s.0.path())).contains("directory"));
    assert_eq!(fs::read(&image).unwrap(), before, "the image was changed");
}

#[test]
fn a_trace_cut_in_a_fifo_or_on_stdin() {
    let s = Scratch::new();
    let image = s.ext4();
    let fifo = s.path("fifo");
    assert!(made_ok(Command::new("mkfifo").arg(&fifo)));
    for stream in [fifo.as_path(), Path::new("-")] {
        let mut child = Command::new(BINARY)
            .args(["replay", "--image"])
            .arg(&image)
            .arg("--qemu-trace")
            .arg(stream)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let trace = [record(10, &[0; 1024]), record(30, &[0; 4096])].concat();
        let cut = &trace[..2000];
        if stream == Path::new("-") {
            child.stdin.take().unwrap().write_all(cut).unwrap();
        } else {
            File::options().write(true).open(&fifo).unwrap().write_all(cut).unwrap();
        }
        let line = told(&child.wait_with_output().unwrap());
        assert!(line.contains("the record at byte 1036 lacks 3144 of its 4108 bytes"), "{line}");
    }
}

#[test]
fn readers_that_go_and_disks_that_fill() {
    let s = Scratch::new();
    let image = s.ext4();
    let text =
        |command: &str| Command::new("sh").args(["-c", command]).env("G", BINARY).env("I", &image).output().unwrap();
    let out = text("for i in 1 2 3 4 5; do \"$G\" cat \"$I\" /file | head -c 10 > /dev/null; done");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let full = text("\"$G\" cat \"$I\" /file > /dev/full");
    assert!(told(&full).contains("No space left"));
    let full = text("\"$G\" ls -R --json \"$I\" > /dev/full");
    assert!(told(&full).contains("No space left"));
}
