//! A disk that gets a file system while it is served, and then others.

use std::fs::File;

use super::daemon::Attach;
use super::diff::must_equal;
use super::disk::{Loop, Mount, format, kernel_listing, scratch};
use super::events::Events;
use super::oracle;
use super::script::lines;
use super::workload::Workload;

const SIZE: u64 = 128 << 20;

/// Each is said, and then followed. `mkfs` as for [`format`].
pub fn come_and_go(mkfs: &[&str], seed: u64) {
    let scratch = scratch();
    let image = scratch.path().join("disk.raw");
    File::create(&image).unwrap().set_len(SIZE).unwrap();
    let attach = Attach::start(&image, scratch.path(), true, &[]);
    let device = Loop::attach(&attach.disk);
    let mut events = Events::new(&attach.events);
    for (no, mkfs) in mkfs.iter().enumerate() {
        format(&device.device, mkfs);
        let mount = Mount::new(&device.device, &scratch.path().join("guest"), "relatime");
        Workload::new(&mount.dir, seed + no as u64).run(300);
        std::fs::write(mount.dir.join(format!("marker-{no}")), "").unwrap();
        mount.sync();
        let told = lines(&events.settled(&format!("\"path\":\"/marker-{no}\"")).unwrap());
        let word = if no == 0 { "volume appeared" } else { "volume reformatted" };
        assert!(told.iter().any(|l| l == word), "{mkfs}: no {word}: {:.1000}", told.join("\n"));
        must_equal(mkfs, &kernel_listing(&image, scratch.path()), &oracle::walk(attach.view.as_ref().unwrap()));
        mount.unmount();
    }
}
