//! `gammaray crawl` beside `fls -r -p` (The Sleuth Kit) and `e2fsck -fn`, interleaved, on the same
//! images in the page cache. `cargo bench --bench crawl`; `GAMMARAY_FILES=20000,1000000` and
//! `GAMMARAY_ROUNDS=5` are the defaults; with `GAMMARAY_FS=ntfs` ntfs-3g fills the images. Needs root, for the
//! images are filled through mounts.
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

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use common::{Cost, median, number, run};
use support::disk::{Loop, Mount, make};

/// Files in one directory.
const PER_DIR: u64 = 1000;

fn main() {
    let sizes = std::env::var("GAMMARAY_FILES").unwrap_or_else(|_| "20000,1000000".into());
    println!("| files | program | wall s | CPU s | peak memory | gammaray is faster by |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: |");
    for files in sizes.split(',').map(|n| n.trim().parse().expect("GAMMARAY_FILES: numbers with commas")) {
        bench(files, number("GAMMARAY_ROUNDS", 5));
    }
}

fn bench(files: u64, rounds: u64) {
    let dir = support::disk::scratch();
    let image = dir.path().join("disk.raw");
    fill(&image, &dir.path().join("mnt"), files);
    // The index and the listing go to memory where there is some: the disk's speed is not ours.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let out = memory.path().join("out");
    let index = memory.path().join("index.bson");
    let image = image.as_os_str();
    let gammaray = || run(env!("CARGO_BIN_EXE_gammaray"), [OsStr::new("crawl"), image, index.as_os_str()], &out);
    let fls = || run("fls", [OsStr::new("-r"), OsStr::new("-p"), image], &out);
    let e2fsck = || run("/usr/sbin/e2fsck", [OsStr::new("-fn"), image], &out);
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for _ in 0..=rounds {
        costs[0].push(gammaray());
        costs[1].push(fls());
        if !is_ntfs() {
            costs[2].push(e2fsck());
        }
    }
    // The first round has brought the image into the page cache.
    for c in costs.iter_mut().filter(|c| !c.is_empty()) {
        c.remove(0);
    }
    let ours = median(&costs[0], |c| c.wall);
    for (name, costs) in ["gammaray crawl", "fls -r -p", "e2fsck -fn"].iter().zip(&costs).filter(|(_, c)| !c.is_empty())
    {
        let wall = median(costs, |c| c.wall);
        let memory = median(costs, |c| c.memory as f64);
        println!(
            "| {files} | `{name}` | {wall:.3} | {:.3} | {:.1} MB, {:.0} bytes a file | {:.2} |",
            median(costs, |c| c.cpu),
            memory / 1e6,
            memory / files as f64,
            wall / ours
        );
    }
}

/// An image with `files` files, half of them empty, `PER_DIR` in a directory.
fn fill(image: &Path, mount: &Path, files: u64) {
    let mkfs = if is_ntfs() { "ntfs -c 4096".to_owned() } else { format!("ext4 -N {}", files + files / 5) };
    make(image, (files * 12_000).max(256 << 20), &mkfs);
    let device = Loop::attach(image);
    let mount = Mount::new(&device.device, mount, "noatime");
    make_files(&mount.dir, files);
    mount.unmount();
}

fn is_ntfs() -> bool {
    std::env::var("GAMMARAY_FS").is_ok_and(|fs| fs == "ntfs")
}

fn make_files(root: &Path, files: u64) {
    for dir in 0..files.div_ceil(PER_DIR) {
        let path = root.join(format!("dir{:03}/sub{dir:05}", dir / 30));
        std::fs::create_dir_all(&path).unwrap();
        for n in 0..PER_DIR.min(files - dir * PER_DIR) {
            let mut file = File::create(path.join(format!("file-number-{n:06}.txt"))).unwrap();
            if n % 2 == 0 {
                writeln!(file, "content {n}").unwrap();
            }
        }
    }
}
