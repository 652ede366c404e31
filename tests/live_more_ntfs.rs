//! Live disks with NTFS beyond one file system at work: beside ext4, and new formats.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

/// ext4 and NTFS on one disk.
#[test]
fn ext4_and_ntfs() {
    need!(root, fuse, loop, "sfdisk", "mkntfs", "ntfs-3g");
    support::two::at_work(["ext4 -b 4096", "ntfs -c 4096"], 80);
}

/// A disk that gets a file system while it is served, and then another one.
#[test]
fn formats_come_and_go() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    support::formats::come_and_go(&["ntfs -c 4096", "ntfs -c 1024", "ext4 -b 4096", "ntfs -c 4096"], 90);
}
