//! Live disks with NTFS beyond one file system at work: beside ext4, and new formats.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs::File;

use support::daemon::Attach;
use support::diff::must_equal;
use support::disk::{Loop, Mount, format, kernel_listing, scratch};
use support::events::Events;
use support::oracle;
use support::script::lines;
use support::workload::Workload;

const SIZE: u64 = 128 << 20;

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
    let scratch = scratch();
    let image = scratch.path().join("disk.raw");
    File::create(&image).unwrap().set_len(SIZE).unwrap();
    let attach = Attach::start(&image, scratch.path(), true, &[]);
    let device = Loop::attach(&attach.disk);
    let mut events = Events::new(&attach.events);
    for (no, mkfs) in ["ntfs -c 4096", "ntfs -c 1024", "ext4 -b 4096", "ntfs -c 4096"].iter().enumerate() {
        format(&device.device, mkfs);
        let mount = Mount::new(&device.device, &scratch.path().join("guest"), "relatime");
        Workload::new(&mount.dir, 90 + no as u64).run(300);
        std::fs::write(mount.dir.join(format!("marker-{no}")), "").unwrap();
        mount.sync();
        let told = lines(&events.settled(&format!("\"path\":\"/marker-{no}\"")).unwrap());
        let word = if no == 0 { "volume appeared" } else { "volume reformatted" };
        assert!(told.iter().any(|l| l == word), "{mkfs}: no {word}: {:.1000}", told.join("\n"));
        must_equal(mkfs, &kernel_listing(&image, scratch.path()), &oracle::walk(attach.view.as_ref().unwrap()));
        mount.unmount();
    }
}
