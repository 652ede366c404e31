//! How fast recorded writes are inferred: a native kernel creates, writes, renames and deletes
//! 20,000 files (`GAMMARAY_FILES`) on a recorded disk; then `gammaray replay` works through the
//! log and the trace (`GAMMARAY_ROUNDS`, default 5). `cargo bench --bench replay`; needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may fail"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

#[path = "common/mod.rs"]
mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use common::{Cost, median, number, run};
use support::disk::{Loop, Mount, copy, make};
use support::logwrites::{write_log, write_trace};
use support::recorder::{Access, Recorder};

fn main() {
    let files = number("GAMMARAY_FILES", 20_000);
    let dir = support::disk::scratch();
    let path = |name: &str| dir.path().join(name);
    let (before, after) = (path("before.raw"), path("after.raw"));
    make(&after, (files * 60_000).max(256 << 20), &format!("ext4 -N {}", files + files / 5));
    copy(&after, &before);
    let recorder = Recorder::start(&after, &path("recorder"));
    work(&recorder.disk, &path("guest"), files);
    let accesses = recorder.finish();
    write_log(&path("log"), &accesses);
    write_trace(&path("trace"), &accesses);
    let (writes, bytes) = totals(&accesses);
    drop(accesses);
    println!("{files} files, {writes} writes, {:.1} MB", bytes as f64 / 1e6);
    println!();
    println!("| recorded form | events | wall s | CPU s | writes/s | MB/s | events/s | peak memory |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let events = path("events.jsonl");
    for (form, log) in [("--log-writes", path("log")), ("--qemu-trace", path("trace"))] {
        let words = [OsStr::new("replay"), "--image".as_ref(), before.as_os_str(), form.as_ref(), log.as_os_str()];
        let costs: Vec<Cost> = (0..number("GAMMARAY_ROUNDS", 5))
            .map(|_| {
                run(
                    env!("CARGO_BIN_EXE_gammaray"),
                    words.iter().chain(&[OsStr::new("--events"), "-".as_ref()]),
                    &events,
                )
            })
            .collect();
        let kinds = kinds(&events);
        let told: u64 = kinds.values().sum();
        let wall = median(&costs, |c| c.wall);
        println!(
            "| `{form}` | {told} | {wall:.3} | {:.3} | {:.0} | {:.0} | {:.0} | {:.1} MB |",
            median(&costs, |c| c.cpu),
            writes as f64 / wall,
            bytes as f64 / 1e6 / wall,
            told as f64 / wall,
            median(&costs, |c| c.memory as f64) / 1e6
        );
        for kind in ["create", "rename", "delete"] {
            assert!(kinds.get(kind).is_some_and(|n| *n >= files / 4), "too few {kind}: {kinds:?}");
        }
    }
}

/// Create and write all, append to and rename a third, delete a third; sync now and then.
fn work(disk: &Path, mount: &Path, files: u64) {
    let device = Loop::attach(disk);
    let mount = Mount::new(&device.device, mount, "relatime,commit=1");
    let name = |n: u64| mount.dir.join(format!("d{:03}/file-{n:06}", n / 200));
    for n in 0..files {
        if n % 200 == 0 {
            fs::create_dir_all(name(n).parent().unwrap()).unwrap();
        }
        fs::write(name(n), vec![n as u8; (n * 7919 % 20_000) as usize]).unwrap();
        if n % 2000 == 1999 {
            mount.sync();
        }
    }
    for n in 0..files {
        match n % 3 {
            0 => fs::rename(name(n), name(n).with_extension("renamed")).unwrap(),
            1 => fs::remove_file(name(n)).unwrap(),
            _ => File::options().append(true).open(name(n)).unwrap().write_all(&[7; 3000]).unwrap(),
        }
        if n % 2000 == 1999 {
            mount.sync();
        }
    }
    mount.unmount();
}

fn totals(accesses: &[Access]) -> (u64, u64) {
    accesses.iter().fold((0, 0), |(n, bytes), a| match a {
        Access::Write { data, .. } => (n + 1, bytes + data.len() as u64),
        _ => (n, bytes),
    })
}

/// How many events of each type.
fn kinds(events: &Path) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for line in BufReader::new(File::open(events).unwrap()).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        *kinds.entry(event["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    kinds
}
