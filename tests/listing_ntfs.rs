//! `gammaray ls -R --json --hash` against ntfs-3g, for volumes of every sort that the reader should
//! understand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bson::RawDocument;
use rustix::fs::{XattrFlags, lsetxattr};
use sha2::{Digest, Sha256};
use support::daemon;
use support::diff::must_equal;
use support::disk::{Loop, Mount, make, scratch};
use support::record::{Listing, Stream};
use support::rng::Rng;
use support::text::hex;
use support::workload::Workload;
use support::{ntfs, wim};
use tempfile::TempDir;

/// A scratch folder with one image in it.
struct Fixture {
    scratch: TempDir,
    image: PathBuf,
    loop_options: &'static [&'static str],
}

impl Fixture {
    fn new(size_mib: u64, mkntfs: &str) -> Self {
        let scratch = scratch();
        let image = scratch.path().join("disk.raw");
        make(&image, size_mib << 20, mkntfs);
        let loop_options = if mkntfs.contains("-s 4096") { &["-b", "4096"][..] } else { &[] };
        Self { scratch, image, loop_options }
    }

    /// Mount it, let `fill` do its work, unmount.
    fn fill(&self, options: &str, fill: impl FnOnce(&Path)) {
        let device = Loop::attach_with(&self.image, self.loop_options);
        let mount = Mount::new(&device.device, &self.scratch.path().join("guest"), options);
        fill(&mount.dir);
        mount.unmount();
    }

    /// Compare all; what was found, for more questions.
    fn check(&self) -> Listing {
        let found = daemon::listing(&self.image);
        must_equal("ls", &ntfs::listing(&self.image, self.scratch.path(), self.loop_options), &found);
        found
    }
}

/// One test a line: what a workload leaves on a volume. Name, seed, MiB, options of mkntfs, mount.
macro_rules! after_a_workload {
    ($($name:ident $seed:literal $size:literal $mkfs:literal $mount:literal;)+) => {$(
        #[test]
        fn $name() {
            need!(root, fuse, loop, "mkntfs", "ntfs-3g");
            let fixture = Fixture::new($size, $mkfs);
            fixture.fill($mount, |dir| Workload::new(dir, $seed).run(3000));
            assert!(fixture.check().len() > 10);
        }
    )+};
}

after_a_workload! {
    clusters_of_512 51 128 "ntfs -c 512" "noatime";
    clusters_of_1k 52 128 "ntfs -c 1024" "noatime";
    clusters_of_2k 53 128 "ntfs -c 2048" "noatime";
    clusters_of_4k 54 128 "ntfs -c 4096" "noatime";
    clusters_of_64k 55 256 "ntfs -c 65536" "noatime";
    clusters_of_256k 56 1024 "ntfs -c 262144" "noatime";
    clusters_of_2m 57 4096 "ntfs -c 2097152" "noatime";
    sectors_of_4k 58 128 "ntfs -s 4096 -c 4096" "noatime";
    compressed_512 59 128 "ntfs -c 512 -C" "noatime,compression";
    compressed_4k 60 128 "ntfs -c 4096 -C" "noatime,compression";
}

/// One of each thing that a volume can hold, on small and on large clusters.
#[test]
fn one_of_each() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    for mkfs in ["ntfs -c 512", "ntfs -c 4096", "ntfs -s 4096 -c 65536"] {
        let fixture = Fixture::new(256, mkfs);
        fixture.fill("noatime", |dir| {
            around_the_size_of_a_record(&dir.join("sizes"));
            many_names(&dir.join("many"));
            fragmented(&dir.join("pieces"));
            linked(&dir.join("links"));
            streams(dir);
            reparse_points(dir);
            fs::write(dir.join("x".repeat(255)), "long").unwrap();
            File::create(dir.join("sparse")).unwrap().set_len(400 << 20).unwrap();
            OpenOptions::new().write(true).open(dir.join("sparse")).unwrap().write_all_at(b"middle", 100 << 20).unwrap();
        });
        let found = fixture.check();
        assert_eq!(indexed(&fixture), found.keys().cloned().collect(), "{mkfs}: the index has other paths");
        assert!(found.len() > 10_000, "{mkfs}: {} files", found.len());
        let pieces = [OsStr::new("stat"), fixture.image.as_ref(), "/pieces/holes".as_ref()];
        let in_one_record = mkfs.contains("65536");
        assert!(in_one_record || daemon::gammaray(pieces).contains("further records"), "{mkfs}: no attribute list");
        assert_eq!(found[&b"/junction"[..]].target.as_deref(), Some(&br"\??\C:\somewhere"[..]));
        assert_eq!(found[&b"/stranger"[..]].reparse_tag, Some(0x9000_001A));
        assert_eq!(found[&b"/many"[..]].streams.as_ref().unwrap()["of-a-directory"].size, 5);
    }
}

/// The paths in an index of the image.
fn indexed(fixture: &Fixture) -> BTreeSet<Vec<u8>> {
    let index = fixture.scratch.path().join("index.bson");
    daemon::gammaray([OsStr::new("crawl"), fixture.image.as_ref(), index.as_ref()]);
    let bytes = fs::read(index).unwrap();
    let mut rest = &bytes[..];
    let mut paths = BTreeSet::new();
    while !rest.is_empty() {
        let (doc, after) = rest.split_at(u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize);
        let doc = RawDocument::from_bytes(doc).unwrap();
        if doc.get_str("type").is_ok_and(|t| t == "file") {
            assert!(doc.get_str("error").is_err());
            paths.insert(doc.get_str("path").unwrap().into());
        }
        rest = after;
    }
    paths
}

fn around_the_size_of_a_record(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let sizes = (0..16).chain(560..800).chain([1023, 1024, 1025, 3500, 3700, 3900, 4095, 4096, 4097]);
    for size in sizes {
        fs::write(dir.join(size.to_string()), vec![b'a' + (size % 26) as u8; size]).unwrap();
    }
}

fn many_names(dir: &Path) {
    fs::create_dir(dir).unwrap();
    (0..12_000).for_each(|n| drop(File::create(dir.join(format!("name-{n}"))).unwrap()));
    (0..12_000).step_by(7).for_each(|n| fs::remove_file(dir.join(format!("name-{n}"))).unwrap());
}

/// So many pieces that their list does not fit into one record.
fn fragmented(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mut rng = Rng::new(7);
    let mut files: Vec<File> = (0..2).map(|n| File::create(dir.join(n.to_string())).unwrap()).collect();
    for _ in 0..600 {
        for f in &mut files {
            f.write_all(&rng.bytes(1500)).unwrap();
        }
    }
    let holes = File::create(dir.join("holes")).unwrap();
    (0..600).for_each(|n| holes.write_all_at(&rng.bytes(700), n * 300_000).unwrap());
}

fn linked(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let first = dir.join("first");
    fs::write(&first, "one file").unwrap();
    for n in 0..60 {
        fs::hard_link(&first, dir.join(format!("another-name-of-the-same-file-{n}"))).unwrap();
    }
}

fn set(at: &Path, name: &str, value: &[u8]) {
    lsetxattr(at, name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{name} of {}: {e}", at.display()));
}

fn streams(dir: &Path) {
    let file = dir.join("with streams");
    fs::write(&file, "content").unwrap();
    set(&file, "user.small", b"resident");
    set(&file, "user.empty", b"");
    set(&file, "user.grün", &[7; 60_000]);
    set(&dir.join("many"), "user.of-a-directory", b"12345");
    set(&file, "system.ntfs_dos_name", b"WITHST~1");
}

fn reparse_points(dir: &Path) {
    let utf16 = |s: &str| s.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (substitute, print) = (utf16(r"\??\C:\somewhere"), utf16(r"C:\somewhere"));
    let lengths = [0, substitute.len(), substitute.len() + 2, print.len()];
    let mut data: Vec<u8> = lengths.iter().flat_map(|n| (*n as u16).to_le_bytes()).collect();
    data.extend([substitute, vec![0, 0], print, vec![0, 0]].concat());
    fs::create_dir(dir.join("junction")).unwrap();
    set(&dir.join("junction"), "system.ntfs_reparse_data", &reparse(0xA000_0003, &data));
    File::create(dir.join("stranger")).unwrap();
    set(&dir.join("stranger"), "system.ntfs_reparse_data", &reparse(0x9000_001A, b"cloud"));
}

fn reparse(tag: u32, data: &[u8]) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &(data.len() as u16).to_le_bytes(), &[0, 0], data].concat()
}

/// Files that Windows compressed behind its file system's back, packed by wimlib.
#[test]
fn files_compressed_by_windows() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g", "wimcapture");
    let algorithms: [(u32, &[&str]); 4] = [
        (0, &["--compress=XPRESS", "--chunk-size=4096"]),
        (1, &["--compress=LZX", "--chunk-size=32768"]),
        (2, &["--compress=XPRESS", "--chunk-size=8192"]),
        (3, &["--compress=XPRESS", "--chunk-size=16384"]),
    ];
    let fixture = Fixture::new(128, "ntfs");
    let mut expected = Vec::new();
    fixture.fill("noatime,streams_interface=windows", |dir| {
        for (number, how) in algorithms {
            for (kind, plain) in plains() {
                let name = format!("{kind}-{number}");
                let packed = wim::pack(&plain, how, fixture.scratch.path());
                File::create(dir.join(&name)).unwrap().set_len(plain.len() as u64).unwrap();
                fs::write(dir.join(format!("{name}:WofCompressedData")), packed).unwrap();
                let words = [1, 2, 1, number];
                let data: Vec<u8> = words.iter().flat_map(|w: &u32| w.to_le_bytes()).collect();
                set(&dir.join(&name), "system.ntfs_reparse_data", &reparse(0x8000_0017, &data));
                expected.push((format!("/{name}"), plain));
            }
        }
    });
    let found = daemon::listing(&fixture.image);
    for (path, plain) in expected {
        let r = &found[path.as_bytes()];
        assert_eq!((r.kind.as_str(), r.error.as_deref(), r.size), ("file", None, Some(plain.len() as u64)), "{path}");
        assert_eq!(r.sha256.as_deref(), Some(hex(&Sha256::digest(&plain)).as_str()), "{path}");
        assert_eq!(r.streams.as_ref().map(|s| s.len()), Some(0), "{path}: the packed stream is not the guest's");
    }
}

/// Programs, text, noise, and calls at the end of every chunk.
fn plains() -> Vec<(&'static str, Vec<u8>)> {
    let mut rng = Rng::new(3);
    let program = fs::read(env!("CARGO_BIN_EXE_gammaray")).unwrap()[..1_000_000].to_vec();
    let text = "All happy families are alike; ".repeat(5000).into_bytes();
    let mut calls = program[..200_000].to_vec();
    for end in (4096..calls.len()).step_by(4096) {
        for back in [4, 5, 6, 9, 10, 11, 16] {
            calls[end - back..end - back + 2].copy_from_slice(&[0xE8, rng.below(256) as u8]);
        }
    }
    let mixed = [program[..70_000].to_vec(), rng.bytes(70_000), text[..70_001].to_vec()].concat();
    vec![("program", program), ("text", text), ("calls", calls), ("mixed", mixed), ("tiny", vec![b'a'; 300])]
}

/// A boot sector that is gone is read from its copy behind the volume's end.
#[test]
fn the_backup_of_the_boot_sector() {
    need!("mkntfs");
    let fixture = Fixture::new(16, "ntfs -c 4096");
    let before = daemon::listing(&fixture.image);
    OpenOptions::new().write(true).open(&fixture.image).unwrap().write_all_at(&[0; 512], 0).unwrap();
    must_equal("without its boot sector", &before, &daemon::listing(&fixture.image));
}

/// Streams can be read by their names, and system files be named though they are not listed.
#[test]
fn streams_and_system_files_have_paths() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let fixture = Fixture::new(16, "ntfs -L Label");
    fixture.fill("noatime", |dir| streams_only(&dir.join("f")));
    let cat = |path: &str| daemon::gammaray([OsStr::new("cat"), fixture.image.as_ref(), path.as_ref()]);
    assert_eq!(cat("/f:note"), "a stream");
    assert_eq!(cat("/f:note:$DATA"), "a stream");
    assert_eq!(daemon::listing(&fixture.image).len(), 2, "the root and a file");
    let stat = |path: &str| daemon::gammaray([OsStr::new("stat"), fixture.image.as_ref(), path.as_ref()]);
    assert!(stat("/$MFT").contains("attributes: hidden system"));
    assert!(stat("/$Extend/$Quota").contains("sddl: O:"));
    assert!(stat("/f").contains("Stream: note (8 bytes)") && stat("/f").contains("owner: S-1-"));
    let volumes = daemon::gammaray([OsStr::new("volumes"), fixture.image.as_ref()]);
    assert!(volumes.contains("Label") && volumes.contains("clean"), "{volumes}");
    let found = &daemon::listing(&fixture.image)[&b"/f"[..]];
    let sha256 = Some(hex(&Sha256::digest("a stream")));
    assert_eq!(found.streams.as_ref().unwrap()["note"], Stream { size: 8, sha256 });
}

fn streams_only(file: &Path) {
    fs::write(file, "content").unwrap();
    set(file, "user.note", b"a stream");
}
