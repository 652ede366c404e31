//! The main property on NTFS, as the kernel's own driver writes it, on a Debian kernel in the lab VM
//! (`scripts/vm`): this host's kernel may have no ntfs3. The test starts the VM, which runs this
//! very program again with the tests that are ignored here. Where the VM can't be had the test is
//! skipped, out loud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::path::Path;
use std::process::Command;

use support::daemon::Via;
use support::disk::all;
use support::live::{self, Setup};
use support::need;

/// What `scripts/vm` exits with where there can be no VM.
const NO_VM: i32 = 77;
/// Set in the VM.
const IN_LAB: &str = "GAMMARAY_IN_LAB";

#[test]
fn ntfs3_in_the_lab_vm() {
    need!("mkntfs", "ntfs-3g");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(root.join("scripts/vm"))
        .args(["-t", "500", "-d", "1024", "--", "env"])
        .args([&format!("{IN_LAB}=1"), "CI=true", "GAMMARAY_OPERATIONS=1500", "GAMMARAY_ROUNDS=2", "RUST_BACKTRACE=0"])
        .arg(root.join("tests/lab-guest"))
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--test-threads=1", "inside_the_vm"])
        .output()
        .unwrap();
    if out.status.code() == Some(NO_VM) {
        return need::skip(String::from_utf8_lossy(&out.stderr).trim());
    }
    assert!(out.status.success(), "in the lab VM: {}\n{}", out.status, all(&out));
    print!("{}", all(&out));
}

#[test]
#[ignore = "for the lab VM"]
fn inside_the_vm_the_tree_is_that_of_ntfs3() {
    if std::env::var_os(IN_LAB).is_none() {
        eprintln!("SKIP: ntfs3_in_the_lab_vm runs this in the lab VM");
        return;
    }
    live::run_via(Via::Ublk, &Setup { seed: 301, mkfs: "ntfs -c 4096", mount: "ntfs3,noatime" });
}
