//! The filter under a real kernel, in the lab VM (`scripts/vm`): this host's kernel may have no ublk.
//! Where the VM can't be had either, these tests skip, out loud.

// clippy.toml's leave for tests covers test functions, not their helpers.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One VM at a time: each takes two CPUs and a few hundred MiB.
static ONE_VM: Mutex<()> = Mutex::new(());

/// What `scripts/vm` exits with where there can be no VM.
const NO_VM: i32 = 77;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The example that cargo builds along with the tests: `target/PROFILE/examples/filter`.
fn filter() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/filter")
}

fn run_in_vm(script: &str, options: &[&str]) {
    let _alone = ONE_VM.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(filter().exists(), "{} is not built", filter().display());
    let out = Command::new(repository().join("scripts/vm"))
        .args(["-t", "600"])
        .args(options)
        .args(["--", "env", &format!("FILTER={}", filter().display()), "sh"])
        .arg(repository().join("ublk/tests/lab").join(script))
        .output()
        .unwrap();
    let (said, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.code() == Some(NO_VM) {
        // Not eprintln: that would be captured, and the skip silent.
        let _ = std::io::stderr().write_all(format!("SKIPPED {script}: {}\n", why.trim()).as_bytes());
        return;
    }
    assert!(out.status.success(), "{script}: {}\n{said}{why}", out.status);
    print!("{said}");
}

#[test]
fn what_is_written_is_read_back_over_every_backing() {
    run_in_vm("integrity.sh", &["-d", "512", "-d", "24"]);
}

#[test]
fn a_file_system_lives_on_the_disk() {
    run_in_vm("filesystem.sh", &[]);
}

#[test]
fn failures_reach_the_guest_and_leave_no_device() {
    run_in_vm("failure.sh", &["-d", "64"]);
}

#[test]
fn the_newest_kernel_serves_it_too() {
    run_in_vm("filesystem.sh", &["-K", "newest"]);
}
