//! Two file systems at work on one disk.

use std::fs::File;

use super::daemon::{self, Attach};
use super::diff::must_equal;
use super::disk::{Loop, Mount, copy, format, kernel_listing_at, run, scratch};
use super::events::Events;
use super::model::Model;
use super::oracle;
use super::record::Listing;
use super::workload::Workload;

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

/// Each is a folder, in the view and in the paths of events.
pub fn at_work(mkfs: [&str; 2], seed: u64) {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    let image = path("disk.raw");
    File::create(&image).unwrap().set_len(200 << 20).unwrap();
    std::fs::write(path("table"), "label: gpt\nstart=2048, size=163840\nstart=180224, size=204800\n").unwrap();
    run("sh", ["-c", &format!("sfdisk -q {} < {}", image.display(), path("table").display())]);
    let part = |start: u64, size: u64| {
        ["--offset".into(), (start * 512).to_string(), "--sizelimit".into(), (size * 512).to_string()]
    };
    let parts = [("p1", part(2048, 163_840), mkfs[0]), ("p2", part(180_224, 204_800), mkfs[1])];
    for (_, at, mkfs) in &parts {
        format(&Loop::attach_with(&image, &words(at)).device, mkfs);
    }
    let first = daemon::listing(&image);
    let attach = Attach::start(&image, scratch.path(), true, &["--payload", "disk"]);
    let mut guests = Vec::new();
    for (no, (name, at, _)) in parts.iter().enumerate() {
        let device = Loop::attach_with(&attach.disk, &words(at));
        let mount = Mount::new(&device.device, &path(&format!("guest-{name}")), "relatime");
        let workload = Workload::new(&mount.dir, seed + no as u64);
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
