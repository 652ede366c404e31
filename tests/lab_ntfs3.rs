//! The main property on NTFS, as the kernel's own driver writes it, on a Debian kernel in the lab VM
//! (`scripts/vm`): this host's kernel may have no ntfs3. The test starts the VM, which runs this
//! very program again with the tests that are ignored here. Where the VM can't be had the test is
//! skipped, out loud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use support::daemon::Via;
use support::live::{self, Setup};

#[test]
fn ntfs3_in_the_lab_vm() {
    need!("mkntfs", "ntfs-3g");
    support::lab::run_inside(500);
}

#[test]
#[ignore = "for the lab VM"]
fn inside_the_vm_the_tree_is_that_of_ntfs3() {
    if !support::lab::is_here() {
        return;
    }
    live::run_via(Via::Ublk, &Setup { seed: 301, mkfs: "ntfs -c 4096", mount: "ntfs3,noatime" });
}
