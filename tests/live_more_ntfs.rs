//! Live disks with NTFS beyond one file system at work: beside ext4, and new formats.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]

mod support;

use std::fs::File;

use support::daemon::{self, Attach};
use support::diff::must_equal;
use support::disk::{Loop, Mount, copy, format, kernel_listing, kernel_listing_at, run, scratch};
use support::events::Events;
use support::model::Model;
use support::oracle;
use support::record::Listing;
use support::script::lines;
use support::workload::Workload;

const SIZE: u64 = 128 << 20;

/// The part of a listing below a folder, as if it were the root.
fn below(listing: Listing, folder: &str) -> Listing {
    let inside = |(path, record): (Vec<u8>, _)| {
        let rest = path.strip_prefix(folder.as_bytes())?;
        (rest.is_empty() || rest[0] == b'/')
            .then(|| (if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() }, record))
    };
    listing.into_iter().filter_map(inside).collect()
}

fn words(options: &[String; 4]) -> [&str; 4] {
    options.each_ref().map(String::as_str)
}

/// ext4 and NTFS at work on one disk: each is a folder, in the view and in the paths of events.
#[test]
fn ext4_and_ntfs() {
    need!(root, fuse, loop, "sfdisk", "mkntfs", "ntfs-3g");
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    let image = path("disk.raw");
    File::create(&image).unwrap().set_len(200 << 20).unwrap();
    std::fs::write(path("table"), "label: gpt\nstart=2048, size=163840\nstart=180224, size=204800\n").unwrap();
    run("sh", ["-c", &format!("sfdisk -q {} < {}", image.display(), path("table").display())]);
    let part = |start: u64, size: u64| {
        ["--offset".into(), (start * 512).to_string(), "--sizelimit".into(), (size * 512).to_string()]
    };
    let parts = [("p1", part(2048, 163_840), "ext4 -b 4096"), ("p2", part(180_224, 204_800), "ntfs -c 4096")];
    for (_, at, mkfs) in &parts {
        format(&Loop::attach_with(&image, &words(at)).device, mkfs);
    }
    let first = daemon::listing(&image);
    let attach = Attach::start(&image, scratch.path(), true, &["--payload", "disk"]);
    let mut guests = Vec::new();
    for (no, (name, at, _)) in parts.iter().enumerate() {
        let device = Loop::attach_with(&attach.disk, &words(at));
        let mount = Mount::new(&device.device, &path(&format!("guest-{name}")), "relatime");
        let workload = Workload::new(&mount.dir, 80 + no as u64);
        guests.push((workload, mount, device));
    }
    for _ in 0..4 {
        guests.iter_mut().for_each(|(workload, ..)| workload.run(500));
    }
    guests.iter().for_each(|(_, mount, _)| mount.sync());
    let events = Events::new(&attach.events).at_rest("\"path\":\"/p2/").unwrap();
    let mut model = Model::new(&first).unwrap();
    model.apply_all(&events).unwrap_or_else(|e| panic!("{e}"));
    let view = oracle::walk(attach.view.as_ref().unwrap());
    for (name, at, _) in &parts {
        copy(&image, &path("copy.raw"));
        let expected = kernel_listing_at(&path("copy.raw"), scratch.path(), &words(at));
        must_equal(&format!("replayed events of {name}"), &expected, &below(model.listing(), &format!("/{name}")));
        must_equal(&format!("live view of {name}"), &expected, &below(view.clone(), &format!("/{name}")));
    }
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
