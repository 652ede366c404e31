//! `gammaray ls -R --json --hash` against the kernel's mount, for images of every sort that the
//! reader should understand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, lsetxattr};
use support::daemon;
use support::diff::{must_equal, report};
use support::disk::{Loop, Mount, copy, format, kernel_listing, make, scratch};
use support::workload::Workload;
use tempfile::TempDir;

const SIZE: u64 = 128 << 20;

/// A scratch folder with one image in it.
struct Fixture {
    scratch: TempDir,
    image: PathBuf,
}

impl Fixture {
    fn new(mkfs: &str) -> Self {
        let scratch = scratch();
        let image = scratch.path().join("disk.raw");
        make(&image, SIZE, mkfs);
        Self { scratch, image }
    }

    /// Mount it, let `fill` do its work, unmount.
    fn fill(&self, options: &str, fill: impl FnOnce(&Path)) {
        let device = Loop::attach(&self.image);
        let mount = Mount::new(&device.device, &self.scratch.path().join("guest"), options);
        fill(&mount.dir);
        mount.unmount();
    }

    /// The same, but keep a copy from before the unmount: its journal is unclean.
    fn capture(&mut self, options: &str, fill: impl FnOnce(&Path)) {
        let captured = self.scratch.path().join("captured.raw");
        let device = Loop::attach(&self.image);
        let mount = Mount::new(&device.device, &self.scratch.path().join("guest"), options);
        fill(&mount.dir);
        mount.sync();
        copy(&self.image, &captured);
        mount.unmount();
        self.image = captured;
    }

    fn check(&self) {
        let changed = || std::fs::metadata(&self.image).unwrap().modified().unwrap();
        let before = changed();
        let found = daemon::listing(&self.image);
        assert_eq!(changed(), before, "looking at an image changed it");
        must_equal("ls", &kernel_listing(&self.image, self.scratch.path()), &found);
    }
}

/// One test a line: what a workload leaves on a file system, unmounted or with its journal unclean.
macro_rules! after_a_workload {
    ($($name:ident $how:ident $seed:literal $mkfs:literal $mount:literal;)+) => {$(
        #[test]
        fn $name() {
            need!(root, loop);
            #[allow(unused_mut, reason = "only a captured image is another one")]
            let mut fixture = Fixture::new($mkfs);
            fixture.$how($mount, |dir| Workload::new(dir, $seed).run(3000));
            fixture.check();
        }
    )+};
}

after_a_workload! {
    blocks_of_4k fill 21 "ext4 -b 4096" "relatime";
    blocks_of_2k fill 22 "ext4 -b 2048" "relatime";
    blocks_of_1k fill 23 "ext4 -b 1024" "relatime";
    inodes_of_128_bytes fill 24 "ext4 -b 4096 -I 128" "relatime";
    inodes_of_512_bytes fill 25 "ext4 -b 4096 -I 512" "relatime";
    ext2_1k fill 26 "ext2 -b 1024" "relatime";
    ext2_4k_small_inodes fill 27 "ext2 -b 4096 -I 128" "relatime";
    ext3_2k fill 28 "ext3 -b 2048" "relatime";
    no_checksums_no_64bit fill 29 "ext4 -O ^metadata_csum,^64bit" "relatime";
    checksums_of_groups_only fill 30 "ext4 -O ^metadata_csum,uninit_bg" "relatime";
    dirty_4k capture 31 "ext4 -b 4096" "relatime";
    dirty_1k capture 32 "ext4 -b 1024" "commit=1";
    dirty_ext3 capture 33 "ext3 -b 1024" "relatime";
    dirty_small_journal_that_wraps capture 34 "ext4 -b 1024 -J size=1" "commit=1";
    dirty_no_checksums_no_64bit capture 35 "ext4 -b 4096 -O ^metadata_csum,^64bit" "relatime";
    dirty_data_in_the_journal capture 36 "ext4 -b 4096" "data=journal";
    dirty_orphan_file capture 37 "ext4 -b 2048 -O orphan_file,metadata_csum_seed" "relatime";
    dirty_old_journal_checksums capture 38 "ext4 -b 1024 -O ^metadata_csum" "journal_checksum";
    dirty_async_commits capture 39 "ext4 -b 4096 -O ^metadata_csum" "journal_async_commit,data=writeback";
}

/// A block of journalled data that looks like one of the journal's own is escaped there.
#[test]
fn dirty_journal_with_escaped_blocks() {
    need!(root, loop);
    let mut fixture = Fixture::new("ext4 -b 4096");
    fixture.capture("data=journal", |dir| {
        let mut block = vec![0x5a; 4096];
        block[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        std::fs::write(dir.join("looks-like-a-journal"), block.repeat(20)).unwrap();
    });
    fixture.check();
}

#[test]
fn directory_of_20000_entries() {
    need!(root, loop);
    for mkfs in ["ext4 -b 4096 -N 25000", "ext4 -b 1024 -N 25000", "ext3 -b 1024 -N 25000 -O ^dir_index"] {
        let fixture = Fixture::new(mkfs);
        fixture.fill("noatime", |dir| {
            std::fs::create_dir(dir.join("many")).unwrap();
            for no in 0..20_000 {
                File::create(dir.join(format!("many/entry-number-{no}"))).unwrap();
            }
            for no in (0..20_000).step_by(3) {
                std::fs::remove_file(dir.join(format!("many/entry-number-{no}"))).unwrap();
            }
            for no in 20_000..27_000 {
                std::os::unix::fs::symlink("x", dir.join(format!("many/{no}"))).unwrap();
            }
        });
        fixture.check();
    }
}

#[test]
fn names_of_255_bytes_and_of_no_encoding() {
    need!(root, loop);
    let fixture = Fixture::new("ext4 -b 1024");
    fixture.fill("noatime", |dir| {
        for (no, letter) in ["ü", "漢", "😀", "é\u{301}"].iter().enumerate() {
            let long = letter.repeat(128);
            let name = format!("{no}{}", &long[..long.floor_char_boundary(254)]);
            std::fs::create_dir(dir.join(&name)).unwrap();
            std::fs::write(dir.join(&name).join(&name), name).unwrap();
        }
        let odd =
            [&[0xff; 255][..], b"latin-1 \xe4\xf6\xfc", b"\x80", b"\xed\xa0\x80", b"\n\x1b[31m\"\\", b" ", b"..."];
        for (no, bytes) in odd.iter().enumerate() {
            std::fs::write(dir.join(OsStr::from_bytes(bytes)), bytes).unwrap();
            std::os::unix::fs::symlink(OsStr::from_bytes(bytes), dir.join(format!("link-{no}"))).unwrap();
        }
    });
    fixture.check();
}

#[test]
fn sparse_file_over_4_gib() {
    need!(root, loop);
    for mkfs in ["ext4 -b 4096", "ext2 -b 4096", "ext3 -b 1024"] {
        let fixture = Fixture::new(mkfs);
        fixture.fill("noatime", |dir| {
            let file = File::create(dir.join("sparse")).unwrap();
            for offset in [0, 70 << 10, 300 << 20, (2 << 30) + 5, (4 << 30) - 3] {
                file.write_all_at(b"not a hole", offset).unwrap();
            }
            file.set_len((4 << 30) + 123_456).unwrap();
        });
        fixture.check();
    }
}

/// What was preallocated reads as zeros, whatever lay on the disk before.
#[test]
fn unwritten_extents_over_stale_bytes() {
    need!(root, loop);
    for block in [1024, 4096] {
        let fixture = Fixture::new("ext4");
        let mut disk = File::create(&fixture.image).unwrap();
        let stale = vec![0xaa; 1 << 20];
        (0..SIZE >> 20).for_each(|_| disk.write_all(&stale).unwrap());
        format(&fixture.image, &format!("ext4 -b {block} -E nodiscard,lazy_itable_init=0"));
        fixture.fill("noatime", |dir| {
            let file = |name: &str| File::create(dir.join(name)).unwrap();
            fallocate(file("whole"), FallocateFlags::empty(), 0, 1 << 20).unwrap();
            let keep = file("beyond the end");
            keep.write_all_at(b"short", 0).unwrap();
            fallocate(&keep, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
            let partly = file("partly written");
            fallocate(&partly, FallocateFlags::empty(), 0, 1 << 20).unwrap();
            partly.write_all_at(b"in the middle", 300_000).unwrap();
            let zeroed = file("zeroed");
            zeroed.write_all_at(&stale, 0).unwrap();
            zeroed.sync_all().unwrap();
            fallocate(&zeroed, FallocateFlags::ZERO_RANGE, 5000, 500_000).unwrap();
            let grown = file("grown");
            grown.write_all_at(&stale[..1500], 0).unwrap();
            grown.sync_all().unwrap();
            grown.set_len(1).unwrap();
            grown.set_len(100_000).unwrap();
        });
        fixture.check();
    }
}

/// More extents than fit into an inode, or into one block; and a deep map of single blocks.
#[test]
fn fragmented_files() {
    need!(root, loop);
    for mkfs in ["ext4 -b 1024", "ext2 -b 1024", "ext4 -b 4096"] {
        let fixture = Fixture::new(mkfs);
        fixture.fill("noatime", |dir| {
            let file = File::create(dir.join("comb")).unwrap();
            for no in 0..6_000u64 {
                file.write_all_at(&no.to_le_bytes().repeat(60), no * 8192).unwrap();
            }
        });
        fixture.check();
    }
}

#[test]
fn extended_attributes_in_the_inode_and_in_a_block() {
    need!(root, loop);
    for mkfs in ["ext4 -b 4096", "ext4 -b 1024 -I 128", "ext2 -b 2048"] {
        let fixture = Fixture::new(mkfs);
        fixture.fill("acl,user_xattr", |dir| {
            let set = |at: &Path, name: &str, value: &[u8]| lsetxattr(at, name, value, XattrFlags::empty()).unwrap();
            for len in [0, 1, 3, 4, 30, 90, 200, 700] {
                let at = dir.join(format!("value-of-{len}"));
                File::create(&at).unwrap();
                set(&at, "user.value", &vec![b'v'; len]);
                set(&at, "trusted.t", b"t");
                set(&at, "security.selinux", b"system_u:object_r:etc_t:s0\0");
            }
            std::os::unix::fs::symlink("x", dir.join("link")).unwrap();
            set(&dir.join("link"), "trusted.of_a_link", b"\0\xff");
            set(dir, "user.of_the_root", b"root");
            // Version 2; user::rw-, user 1000:r--, group::r--, mask::r--, other::---.
            let entry = |tag: u16, perm: u16, id: u32| {
                [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
            };
            let none = u32::MAX;
            let acl = [entry(1, 6, none), entry(2, 4, 1000), entry(4, 4, none), entry(16, 4, none), entry(32, 0, none)];
            let acl = [&2u32.to_le_bytes()[..], &acl.concat()].concat();
            set(&dir.join("value-of-3"), "system.posix_acl_access", &acl);
            set(dir, "system.posix_acl_default", &acl);
        });
        fixture.check();
    }
}

#[test]
fn symlinks_around_the_length_that_fits_an_inode() {
    need!(root, loop);
    for mkfs in ["ext4 -b 1024", "ext2 -b 4096 -I 128"] {
        let fixture = Fixture::new(mkfs);
        fixture.fill("noatime", |dir| {
            for len in [1, 58, 59, 60, 61, 255, 1000, 1023] {
                std::os::unix::fs::symlink("t".repeat(len), dir.join(format!("to-{len}"))).unwrap();
            }
        });
        fixture.check();
    }
}

/// Two file systems on one disk are two folders.
#[test]
fn gpt_with_two_partitions() {
    need!(root, loop, "sfdisk");
    let scratch = scratch();
    let image = scratch.path().join("disk.raw");
    File::create(&image).unwrap().set_len(200 << 20).unwrap();
    let script = "label: gpt\nstart=2048, size=163840\nstart=180224, size=204800\n";
    let table = scratch.path().join("table");
    std::fs::write(&table, script).unwrap();
    support::disk::run("sh", ["-c", &format!("sfdisk -q {} < {}", image.display(), table.display())]);
    let found = |volume: &str| {
        let prefix = [b"/", volume.as_bytes()].concat();
        let inside = |(path, record): (Vec<u8>, _)| {
            let rest = path.strip_prefix(&prefix[..])?;
            (rest.is_empty() || rest[0] == b'/')
                .then(|| (if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() }, record))
        };
        daemon::listing(&image).into_iter().filter_map(inside).collect()
    };
    let mut expected = Vec::new();
    for (no, start, size, mkfs) in [(1, 2048u64, 163_840u64, "ext4 -b 1024"), (2, 180_224, 204_800, "ext2 -b 4096")] {
        let part = ["--offset".into(), (start * 512).to_string(), "--sizelimit".into(), (size * 512).to_string()];
        let part: Vec<&str> = part.iter().map(String::as_str).collect();
        let device = Loop::attach_with(&image, &part);
        format(&device.device, mkfs);
        let mount = Mount::new(&device.device, &scratch.path().join("guest"), "noatime");
        Workload::new(&mount.dir, no).run(1000);
        mount.unmount();
        drop(device);
        expected.push((no, support::disk::kernel_listing_at(&image, scratch.path(), &part)));
    }
    for (no, expected) in &expected {
        must_equal(&format!("p{no}"), expected, &found(&format!("p{no}")));
    }
}

/// The judge must not agree with everything.
#[test]
fn a_changed_byte_is_noticed() {
    need!(root, loop);
    let fixture = Fixture::new("ext4");
    fixture.fill("noatime", |dir| std::fs::write(dir.join("f"), "one").unwrap());
    let expected = kernel_listing(&fixture.image, fixture.scratch.path());
    fixture.fill("noatime", |dir| {
        OpenOptions::new().write(true).open(dir.join("f")).unwrap().write_all(b"two").unwrap();
    });
    let actual = daemon::listing(&fixture.image);
    assert!(report("ls", &expected, &actual).unwrap_err().contains("/f: sha256"));
}
