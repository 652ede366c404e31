//! The main property over ublk, on a Debian kernel in the lab VM (`scripts/vm`): this host's kernel
//! may have no ublk. The test starts the VM, which runs this very program again with the tests that
//! are ignored here. Where the VM can't be had the test is skipped, out loud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::daemon::{Attach, Via, terminate};
use support::disk::{all, make, output, run};
use support::live::{self, Setup};

const BINARY: &str = env!("CARGO_BIN_EXE_gammaray");

#[test]
fn over_ublk_in_the_lab_vm() {
    support::lab::run_inside(400);
}

fn devices() -> Vec<PathBuf> {
    let names = std::fs::read_dir("/dev").unwrap().map(|e| e.unwrap().path());
    names.filter(|p| p.to_string_lossy().starts_with("/dev/ublk") && !p.ends_with("ublk-control")).collect()
}

/// Devices go a moment after their server has asked for it.
fn no_device_is_left(after: &str) {
    let start = Instant::now();
    while !devices().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "after {after}: {:?} is left", devices());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The random workload; with it `e2fsck`, the guest's read-back, and the device's end.
#[test]
#[ignore = "for the lab VM"]
fn inside_the_vm_the_tree_is_the_kernels() {
    if !support::lab::is_here() {
        return;
    }
    live::run_via(Via::Ublk, &Setup { seed: 201, mkfs: "ext4 -b 4096", mount: "relatime" });
    no_device_is_left("the end");
}

/// It must fail with one line about `what`.
fn refused(what: &str, args: &[&OsStr]) {
    let out: Output = output("timeout", ["60", BINARY, "attach"].map(OsStr::new).iter().chain(args).copied());
    let said = all(&out);
    assert_eq!(out.status.code(), Some(1), "{what}: {said}");
    assert!(said.lines().last().is_some_and(|l| l.starts_with("gammaray: ")), "{what}: {said}");
}

/// Whatever fails, before or after the device is there, no device stays.
#[test]
#[ignore = "for the lab VM"]
fn inside_the_vm_no_device_outlives_an_error() {
    if !support::lab::is_here() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("disk.raw");
    make(&image, 32 << 20, "ext4");

    let over_ublk: Vec<&OsStr> = vec![image.as_ref(), "--via".as_ref(), "ublk".as_ref()];
    let with_view = [&over_ublk[..], &["--mount", "/nonexistent"].map(OsStr::new)].concat();
    refused("no such folder for the view", &with_view);
    no_device_is_left("a view that cannot be mounted");

    let attach = Attach::start_via(Via::Ublk, &image, scratch.path(), false, &[]);
    let before = devices();
    refused("an image in use", &over_ublk);
    assert_eq!(devices(), before, "the devices after an attempt on an image in use");
    attach.stop();
    no_device_is_left("SIGTERM");

    // The events cannot be written: the guest keeps its disk all the same.
    let blank = scratch.path().join("blank.raw");
    File::create(&blank).unwrap().set_len(32 << 20).unwrap();
    let mut child = Command::new(BINARY)
        .arg("attach")
        .arg(&blank)
        .args(["--via", "ublk", "--events", "/dev/full"])
        .stderr(File::create(scratch.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(scratch.path().join("log")).unwrap();
    let start = Instant::now();
    let device = loop {
        if let Some((_, device)) = log().trim_end().split_once(" is served at ") {
            break device.to_owned();
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no device: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    };
    run("mke2fs", ["-q", "-F", "-t", "ext4", device.as_str()]);
    while !log().contains("/dev/full: cannot write events") {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is said of events that get lost: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    run("e2fsck", ["-fn", device.as_str()]);
    assert!(child.try_wait().unwrap().is_none(), "it ended: {}", log());
    terminate(&child);
    assert!(child.wait().unwrap().success(), "{}", log());
    no_device_is_left("events that cannot be written");
}
