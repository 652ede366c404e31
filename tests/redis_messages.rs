//! The messages of 2013 as a subscriber hears them while a guest works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use support::daemon::Attach;
use support::disk::{Loop, Mount, make, output, scratch};
use support::redis::{Message, Server, Subscriber};

/// `HOST:VM:` as the C program had it.
fn prefix() -> String {
    let name = output("uname", ["-n"]);
    format!("{}:testvm:", String::from_utf8_lossy(&name.stdout).trim())
}

/// What changed names, as text; in the order in which it was heard.
fn mutations(all: &[Message]) -> Vec<String> {
    let one = |m: &Message| {
        let what = ["create", "delete", "rename"].into_iter().find(|w| m.document.contains_key(w)).unwrap();
        let to = m.document.get_str("to").map(|t| format!(" -> {t}")).unwrap_or_default();
        format!("{} {what} {}{to}", m.channel().strip_prefix(&prefix()).unwrap(), m.text(what))
    };
    all.iter().filter(|m| m.text("type") == "mutation").map(one).collect()
}

/// The values that a field had, old and new.
fn field(all: &[Message], path: &str, name: &str) -> Vec<(i64, i64)> {
    let channel = prefix() + path;
    let is_it = |m: &&Message| m.channel() == channel && m.text("type") == "metadata" && m.text("field") == name;
    all.iter().filter(is_it).map(|m| (m.long("old"), m.long("new"))).collect()
}

/// Put the bytes of `data` messages where they belong.
fn write_data(files: &mut BTreeMap<String, Vec<u8>>, all: &[Message]) {
    for m in all.iter().filter(|m| m.text("type") == "data") {
        let file = files.entry(m.channel()).or_default();
        let (start, end) = (m.long("start") as usize, m.long("end") as usize);
        let bytes = m.document.get_binary_generic("write").unwrap();
        assert_eq!(bytes.len(), end - start, "{}", m.channel());
        file.resize(file.len().max(end), 0);
        file[start..end].copy_from_slice(bytes);
    }
}

struct Guest {
    mount: Mount,
    _device: Loop,
    _attach: Attach,
    heard: Subscriber,
}

impl Guest {
    fn start(scratch: &Path, redis: &Server) -> Self {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let image = scratch.join("disk.raw");
        make(&image, 64 << 20, "ext4 -b 4096");
        let heard = Subscriber::start(&redis.url());
        let spool = scratch.join("spool");
        let options = ["--redis", &redis.url(), "--spool", spool.to_str().unwrap()];
        let attach = Attach::start(&image, scratch, false, &options);
        let device = Loop::attach(&attach.disk);
        let mount = Mount::new(&device.device, &scratch.join("guest"), "noatime,commit=300");
        Self { mount, _device: device, _attach: attach, heard }
    }

    /// Do something, and hear what comes of it: up to the creation of a marker, in `/`.
    fn step(&self, act: impl FnOnce(&Path)) -> Vec<Message> {
        act(&self.mount.dir);
        self.mount.sync();
        fs::write(self.mount.dir.join("marker"), "").unwrap();
        self.mount.sync();
        let mut all = self.heard.until("the marker", |m| m.text("create") == "marker");
        fs::remove_file(self.mount.dir.join("marker")).unwrap();
        self.mount.sync();
        self.heard.until("the marker's end", |m| m.text("delete") == "marker");
        let marker = all.iter().position(|m| m.text("create") == "marker").unwrap();
        all.truncate(marker);
        all
    }
}

#[test]
fn a_subscriber_hears_every_operation() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let redis = Server::start(scratch.path(), &[]);
    let guest = Guest::start(scratch.path(), &redis);
    let mut files = BTreeMap::new();

    let all = guest.step(|d| {
        fs::create_dir(d.join("log")).unwrap();
        fs::write(d.join("log/a"), "first line\n").unwrap();
    });
    assert_eq!(mutations(&all), ["/ create log", "/log create a"]);
    assert_eq!(field(&all, "/log/a", "file.size"), [(0, 11)]);
    assert_eq!(field(&all, "/log/a", "file.mode"), [(0, 0o100_644)]);
    let is_dir = all.iter().find(|m| m.text("field") == "file.is_dir").unwrap();
    assert_eq!((is_dir.channel(), is_dir.document.get_bool("new").unwrap()), (prefix() + "/log", true));
    write_data(&mut files, &all);

    for n in 0..20 {
        let line = format!("line {n} {}\n", "x".repeat(n * 50));
        let all = guest.step(|d| {
            fs::OpenOptions::new().append(true).open(d.join("log/a")).unwrap().write_all(line.as_bytes()).unwrap()
        });
        write_data(&mut files, &all);
        let len = fs::metadata(guest.mount.dir.join("log/a")).unwrap().len() as i64;
        assert_eq!(field(&all, "/log/a", "file.size"), [(len - line.len() as i64, len)], "append {n}");
        assert_eq!(files[&(prefix() + "/log/a")], fs::read(guest.mount.dir.join("log/a")).unwrap(), "append {n}");
    }

    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let all = guest.step(|d| fs::write(d.join("log/big"), &big).unwrap());
    write_data(&mut files, &all);
    assert_eq!(files[&(prefix() + "/log/big")], big);

    let all = guest.step(|d| {
        fs::hard_link(d.join("log/a"), d.join("b")).unwrap();
        fs::rename(d.join("log/big"), d.join("log/large")).unwrap();
    });
    assert_eq!(mutations(&all), ["/ create b", "/log rename big -> large"]);
    assert_eq!(field(&all, "/b", "file.link_count").len() + field(&all, "/log/a", "file.link_count").len(), 1);

    let all = guest.step(|d| fs::rename(d.join("log/large"), d.join("large")).unwrap());
    assert_eq!(mutations(&all), ["/log rename large -> /large", "/ rename /log/large -> large"]);

    let all = guest.step(|d| {
        fs::remove_file(d.join("log/a")).unwrap();
        fs::File::options().write(true).open(d.join("large")).unwrap().set_len(1000).unwrap();
    });
    assert_eq!(mutations(&all), ["/log delete a"]);
    assert_eq!(field(&all, "/large", "file.size"), [(3_000_000, 1000)]);

    let transactions: Vec<i64> =
        guest.step(|d| fs::remove_dir(d.join("log")).unwrap()).iter().map(|m| m.long("transaction")).collect();
    assert!(!transactions.is_empty() && transactions.iter().all(|t| *t > 40), "{transactions:?}");

    // The kernel counts files in the superblock when it unmounts.
    let Guest { mount, heard, .. } = &guest;
    support::disk::run("umount", [&mount.dir]);
    let all = heard.until("the superblock", |m| m.text("field") == "superblock.num_files");
    let count = all.iter().find(|m| m.text("field") == "superblock.num_files").unwrap();
    let value = |key| count.document.get_i32(key).unwrap();
    // lost+found and the root, by the count of 2013, and then what is left: b, large.
    assert_eq!((count.channel(), value("old"), value("new")), (prefix(), 2, 4));
}
