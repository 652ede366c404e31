//! Those who read what Redis was sent: `gammaray follow` and the examples in Python.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::daemon::{Attach, gammaray};
use support::disk::{Loop, Mount, make, scratch};
use support::need::skip;
use support::redis::{Server, all_entries, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_gammaray");

/// A guest that has done some work, and its events in Redis.
struct Guest {
    redis: Server,
    mount: Mount,
    _device: Loop,
    _attach: Attach,
}

impl Guest {
    fn start(scratch: &Path) -> Self {
        let redis = Server::start(scratch, &[]);
        let image = scratch.join("disk.raw");
        make(&image, 64 << 20, "ext4 -b 4096");
        let spool = scratch.join("spool");
        let attach =
            Attach::start(&image, scratch, false, &["--redis", &redis.url(), "--spool", spool.to_str().unwrap()]);
        let device = Loop::attach(&attach.disk);
        let mount = Mount::new(&device.device, &scratch.join("guest"), "noatime,commit=300");
        let this = Self { redis, mount, _device: device, _attach: attach };
        this.work("one");
        this
    }

    fn work(&self, name: &str) {
        let dir = self.mount.dir.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a\x1b[31m"), "some text\n").unwrap();
        fs::write(dir.join("b.log"), "some text\n").unwrap();
        fs::rename(dir.join("b.log"), dir.join("c.log")).unwrap();
        self.mount.sync();
        let mark = format!("\"path\":\"/{name}/c.log\"");
        wait("events", || self.stream().iter().any(|e| e.contains(&mark)));
    }

    fn stream(&self) -> Vec<String> {
        all_entries(&mut self.redis.connect()).into_iter().map(|e| e.json).collect()
    }

    fn follow(&self, args: &[&str]) -> String {
        gammaray(["follow", "--redis", &self.redis.url()].iter().chain(args))
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn follow_prints_what_is_asked_for() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let guest = Guest::start(scratch.path());
    let all = guest.stream();
    let count = all.len().to_string();
    let everything = guest.follow(&["--since", "0", "--count", &count, "testvm:*"]);
    assert_eq!(everything.lines().collect::<Vec<_>>(), all);
    assert_eq!(guest.follow(&["--since", "3", "--count", "2", "testvm"]).lines().collect::<Vec<_>>(), all[2..4]);
    let logs = lines(&guest.follow(&["--since", "0", "--count", "2", "test*:/one/*.log"]));
    assert!(logs.iter().all(|e| e["path"] == "/one/c.log" || e["type"] == "volume"), "{logs:?}");
    let pretty = guest.follow(&["--since", "0", "--count", &count, "--pretty", "*:testvm:*"]);
    assert!(pretty.contains(r"/one/a\u{1b}[31m  file, mode 644, 10 bytes") && !pretty.contains('\x1b'), "{pretty}");
    let bad = Command::new(BINARY).args(["follow", "--redis", "redis://127.0.0.1:1", "x"]).output().unwrap();
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(bad.status.code() == Some(1) && said.lines().count() == 1 && said.contains("connection refused"), "{said}");
}

#[test]
fn follow_goes_on_with_what_happens_next() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let guest = Guest::start(scratch.path());
    let known = guest.stream().len();
    let spawn = |more: &[&str]| {
        let mut c = Command::new(BINARY);
        c.args(["follow", "--json", "--redis", &guest.redis.url()]).args(more).stdout(Stdio::piped());
        c.spawn().unwrap()
    };
    let mut stream = spawn(&["testvm:*"]);
    let mut messages = spawn(&["--pubsub", "testvm:/two*"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    guest.work("two");
    let first = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(first(&mut stream)["seq"], known + 1);
    let m = first(&mut messages);
    assert!(m["channel"].as_str().unwrap().contains(":testvm:/two"), "{m}");
}

/// Debian's Python with its packages, not another one that may come first in the path.
fn has_python() -> bool {
    let found = Command::new("/usr/bin/python3").args(["-c", "import redis, bson"]).output();
    let found = found.is_ok_and(|o| o.status.success());
    if !found {
        skip("/usr/bin/python3 lacks redis or bson");
    }
    found
}

fn script(name: &str) -> Command {
    let mut c = Command::new("/usr/bin/python3");
    c.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    c
}

fn output(c: &mut Command) -> String {
    let out = c.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_examples_in_python_work() {
    need!(root, fuse, loop, "redis-server");
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let guest = Guest::start(scratch.path());
    let all = guest.stream();
    let count = all.len().to_string();
    let url = guest.redis.url();
    let base = ["testvm", "--redis", &url, "--from", "0", "--count", &count];
    let read = output(script("follow.py").args(base));
    assert_eq!(read.lines().collect::<Vec<_>>(), all);
    let decoded = output(script("follow.py").args(base).arg("--bson"));
    assert_eq!(lines(&decoded), lines(&read));

    // Two members of a group share what there is: each event goes to one.
    let half = (all.len() / 2).to_string();
    let member = |name| {
        let rest = if name == "one" { half.clone() } else { (all.len() - all.len() / 2).to_string() };
        let words = ["testvm", "--redis", &url, "--from", "0", "--group", "g", "--name", name, "--count", &rest];
        output(script("follow.py").args(words))
    };
    let mut both: Vec<String> = member("one").lines().map(str::to_owned).collect();
    // What the first one was handed and did not look at is still its own.
    let mut pending = guest.redis.connect();
    let claimed: redis::Value = redis::cmd("XAUTOCLAIM")
        .arg("gammaray:{testvm}:events")
        .arg("g")
        .arg("two")
        .arg(0)
        .arg(0)
        .arg("COUNT")
        .arg(1000)
        .query(&mut pending)
        .unwrap();
    drop(claimed);
    both.extend(member("two").lines().map(str::to_owned));
    assert_eq!(both, all);

    let pattern = "*:testvm:/three/*";
    let mut reader =
        script("bson_reader.py").args([pattern, "--redis", &url, "--data", "--count", "20"]).spawn().unwrap();
    let mut words = BufReader::new(reader.stderr.take().unwrap());
    words.read_line(&mut String::new()).unwrap();
    guest.work("three");
    for _ in 0..8 {
        let path = guest.mount.dir.join("three/c.log");
        fs::write(path, "other text\n").unwrap();
        guest.mount.sync();
    }
    let mut data = String::new();
    reader.stdout.take().unwrap().read_to_string(&mut data).unwrap();
    assert!(reader.wait().unwrap().success());
    assert!(data.contains("some text\n") && data.contains("other text\n"), "{data:?}");

    let index = scratch.path().join("index.bson");
    gammaray([Path::new("crawl"), &scratch.path().join("disk.raw"), &index]);
    let read = output(script("bson_reader.py").arg("--file").arg(&index));
    assert!(read.contains("type='file'") && read.contains("path='/lost+found'"), "{read}");
}
