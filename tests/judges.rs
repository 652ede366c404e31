//! The judges judged: the model, the oracle and the workload against themselves and the kernel,
//! without the program under test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use std::time::Instant;

use support::content::Content;
use support::disk::{Loop, Mount, fsck, kernel_listing, make, scratch};
use support::model::Model;
use support::record::{Listing, parse_listing};
use support::workload::Workload;
use support::{diff, oracle, rng::Rng};

const FIRST: &str = r#"{"path":"/","type":"dir","size":4096,"ino":2,"nlink":3,"mode":493,"uid":0,"gid":0}
{"path":"/d","type":"dir","size":4096,"ino":11,"nlink":2,"mode":493,"uid":0,"gid":0}
{"path":"/d/f","type":"file","size":5,"ino":12,"nlink":2,"mode":420,"uid":0,"gid":0}
{"path":"/g","type":"file","size":5,"ino":12,"nlink":2,"mode":420,"uid":0,"gid":0}
{"path":"/z","type":"file","size":0,"ino":13,"nlink":1,"mode":420,"uid":0,"gid":0}"#;

/// The tree that some events (without their envelope) lead to, from `FIRST`.
fn replay(bodies: &[&str]) -> Result<Listing, String> {
    let mut model = Model::new(&parse_listing(FIRST).unwrap()).unwrap();
    for (no, body) in bodies.iter().enumerate() {
        let seq = no + 1;
        let envelope = r#""time":"2026-11-22T23:05:48.123456789Z","vm":"v","origin":"journal""#;
        model.apply(&format!(r#"{{"seq":{seq},{envelope},{body}}}"#))?;
    }
    Ok(model.listing())
}

fn refused(bodies: &[&str], why: &str) {
    let error = replay(bodies).expect_err("this should be an illegal step");
    assert!(error.contains(why), "{error}");
}

const CREATE: &str = r#""type":"create","path":"/n","inode":14,"kind":"file","size":3,"nlink":1,"mode":420,"uid":0,
    "gid":0,"mtime":1,"atime":1,"ctime":1"#;

#[test]
fn the_model_follows_legal_steps() {
    let write = r#""type":"write","path":"/n","inode":14,"kind":"file","offset":0,"length":3,"data":"YWJj""#;
    let rename_dir = r#""type":"rename","from":"/d","path":"/e","inode":11,"kind":"dir""#;
    let swap = r#""type":"rename","from":"/n","path":"/z","exchange":true,"inode":14,"kind":"file""#;
    let gone = r#""type":"delete","path":"/n","inode":13,"kind":"file""#;
    let chmod = r#""type":"metadata","path":"/z","inode":14,"kind":"file","field":"mode","old":420,"new":384"#;
    let last = replay(&[CREATE, write, rename_dir, swap, gone, chmod]).unwrap();
    let paths: Vec<&[u8]> = last.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b"/"[..], b"/e", b"/e/f", b"/g", b"/z"]);
    let z = &last[&b"/z"[..]];
    assert_eq!((z.ino, z.mode, z.size), (Some(14), Some(0o600), Some(3)));
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(z.sha256.as_deref(), Some(abc));
}

#[test]
fn the_model_refuses_what_no_file_system_does() {
    refused(&[CREATE, CREATE], "exists already");
    refused(&[r#""type":"create","path":"/no/n","inode":14,"kind":"file","size":0"#], "no directory");
    refused(&[r#""type":"rename","from":"/x","path":"/y","inode":12"#], "no /x");
    refused(&[r#""type":"rename","from":"/z","path":"/g","inode":13"#], "exists already");
    refused(&[r#""type":"rename","from":"/d","path":"/d/e","inode":11"#], "below itself");
    refused(&[r#""type":"delete","path":"/d","inode":11"#], "still has 1 names");
    refused(&[r#""type":"delete","path":"/g","inode":12"#], "an unlink");
    refused(&[r#""type":"unlink","path":"/z","inode":13"#], "a delete");
    refused(&[r#""type":"delete","path":"/z","inode":12"#], "inode 12");
    refused(&[r#""type":"link","path":"/y","inode":99"#], "no file with inode");
    refused(&[r#""type":"write","path":"/no","inode":99,"offset":0,"length":1"#], "no /no");
    refused(&[r#""type":"write","path":"/d","inode":11,"offset":0,"length":1"#], "write to a dir");
    refused(&[r#""type":"truncate","path":"/z","inode":13,"old":1,"new":0"#], "old size");
    refused(&[r#""type":"metadata","path":"/z","inode":13,"field":"uid","old":1,"new":0"#], "old value");
    refused(&[r#""type":"metadata","path":"/z","inode":13,"field":"uid","old":0,"new":0"#], "the same");
    refused(&[r#""type":"metadata","path":"/z","inode":13,"field":"xattr:user.a","old":"00","new":null"#], "old value");
    refused(&[r#""seq":7,"type":"gap""#], "seq");
    refused(&[r#""type":"dance","path":"/z""#], "unknown type");
}

#[test]
fn contents_are_like_a_plain_vector() {
    let mut rng = Rng::new(1);
    let (mut model, mut content) = (Vec::<u8>::new(), Content::default());
    for _ in 0..400 {
        let (at, len) = (rng.below(20_000) as usize, 1 + rng.below(9_000) as usize);
        match rng.below(4) {
            0 | 1 => {
                let data = rng.bytes(len);
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&data);
                content.write(at as u64, &data);
            }
            2 => {
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].fill(0);
                content.zero(at as u64, len as u64);
            }
            _ => {
                model.resize(at, 0);
                content.truncate(at as u64);
            }
        }
        let mut whole = Content::default();
        whole.write(0, &model);
        assert_eq!((content.size(), content.sha256()), (whole.size(), whole.sha256()));
    }
}

/// The workload runs, leaves a clean file system, and is the same for the same seed.
fn workload_on(mkfs: &str, seed: u64) {
    let dir = scratch();
    let image = dir.path().join("disk.raw");
    make(&image, 128 << 20, mkfs);
    let device = Loop::attach(&image);
    let mount = Mount::new(&device.device, &dir.path().join("mnt"), "noatime");
    let mut workload = Workload::new(&mount.dir, seed);
    let start = Instant::now();
    workload.run(10_000);
    workload.close_held();
    mount.sync();
    let refused = workload.log.iter().filter(|l| l.starts_with("  refused")).count();
    let live = oracle::walk(&mount.dir);
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for line in &workload.log {
        *kinds.entry(line.split('/').next().unwrap()).or_default() += 1;
    }
    eprintln!("{kinds:?}");
    eprintln!("{mkfs}, seed {seed}: {} files, {refused} refused, {:?}", live.len(), start.elapsed());
    assert!(refused < 500, "too many operations do nothing");
    let copied = kernel_listing(&image, dir.path());
    mount.unmount();
    drop(device);
    diff::must_equal("a copy with its journal replayed", &live, &copied);
    diff::must_equal("after unmount", &live, &kernel_listing(&image, dir.path()));
    fsck(&image).unwrap();
}

#[test]
fn the_workload_runs_on_ext4() {
    need!(root, loop);
    workload_on("ext4 -b 4096", 1);
    workload_on("ext4 -b 1024", 2);
}

#[test]
fn the_workload_runs_without_a_journal() {
    need!(root, loop);
    workload_on("ext4 -b 2048 -O ^has_journal", 3);
    workload_on("ext2 -b 1024", 4);
}
