//! `--via file` under real users of disks: fio, loop devices with ext4, qemu-io. Whatever they do,
//! the tap hears all of it: a copy of the disk made from what it heard equals the image.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

#[path = "support/fuse_support.rs"]
mod fuse_support;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fuse_support::{Loop, Mounted, Need, have, is_mounted, output, run, sh, wait_for};
use gammaray::fuse::{MountError, Unmounted};
use gammaray::source::file::{Disk, ExportError, FileExport};
use gammaray_ublk::{Backing, OpenMode, Tap};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// Makes a second disk from what it hears.
struct Shadow {
    copy: File,
    heard: AtomicU64,
    flushes: AtomicU64,
}

impl Tap for Shadow {
    fn wants(&self, _offset: u64, _len: u64) -> bool {
        true
    }

    fn write(&self, offset: u64, len: u64, data: Option<&[u8]>) {
        let data = data.unwrap();
        assert_eq!(data.len() as u64, len);
        self.copy.write_all_at(data, offset).unwrap();
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn zero(&self, offset: u64, len: u64) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.copy, hole, offset.try_into().unwrap(), len.try_into().unwrap()).unwrap();
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn discard(&self, _offset: u64, _len: u64) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }
}

/// An image, its export and what the tap heard.
struct Fixture {
    export: Option<FileExport>,
    image: PathBuf,
    shadow: Arc<Shadow>,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(size: u64, mode: OpenMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        File::create(&image).unwrap().set_len(size).unwrap();
        Self::of(dir, image, mode)
    }

    fn of(dir: tempfile::TempDir, image: PathBuf, mode: OpenMode) -> Self {
        let copy = dir.path().join("shadow.img");
        std::fs::copy(&image, &copy).unwrap();
        let copy = OpenOptions::new().read(true).write(true).open(copy).unwrap();
        let shadow = Arc::new(Shadow { copy, heard: 0.into(), flushes: 0.into() });
        let at = dir.path().join("export");
        std::fs::create_dir(&at).unwrap();
        let backing = Arc::new(Backing::open(&image, mode).unwrap());
        let export = FileExport::single(backing, shadow.clone(), &at, "disk.img".as_ref()).unwrap();
        Self { export: Some(export), image, shadow, dir }
    }

    fn file(&self) -> PathBuf {
        self.export.as_ref().unwrap().path()
    }

    fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.file()).unwrap()
    }

    fn heard(&self) -> u64 {
        self.shadow.heard.load(Ordering::Relaxed)
    }

    /// Stop, and see that the image is what the tap heard.
    fn finish(mut self) {
        assert_eq!(self.export.take().unwrap().stop(), Unmounted::Gone);
        assert!(!is_mounted(&self.dir.path().join("export")));
        let copy = self.dir.path().join("shadow.img");
        run("cmp", &[self.image.to_str().unwrap(), copy.to_str().unwrap()]);
    }
}

const MIB: u64 = 1 << 20;

fn fio(fixture: &Fixture, name: &str, args: &[&str]) {
    let file = format!("--filename={}", fixture.file().display());
    let fixed = ["--name", name, &file, "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--size=48M"];
    run("fio", &[&fixed, args].concat());
}

#[test]
fn fio_verifies_what_it_wrote_at_any_depth() {
    if !have(&[Need::Fuse, Need::Program("fio")]) {
        return;
    }
    for mode in [OpenMode::Direct, OpenMode::Buffered] {
        let fixture = Fixture::new(64 * MIB, mode);
        for (engine, depth) in [("libaio", "8"), ("libaio", "32"), ("io_uring", "8"), ("io_uring", "32")] {
            let args = ["--direct=1", "--rw=randwrite", "--bs=4k-64k", "--ioengine", engine, "--iodepth", depth];
            fio(&fixture, engine, &args);
        }
        fio(&fixture, "large", &["--direct=1", "--rw=write", "--bs=4M", "--ioengine=psync"]);
        fio(&fixture, "plain", &["--direct=0", "--rw=randrw", "--bs=512-16k", "--ioengine=psync", "--fsync=64"]);
        assert!(fixture.shadow.flushes.load(Ordering::Relaxed) > 0);
        fixture.finish();
    }
}

#[test]
fn a_native_kernels_ext4_lives_on_it_through_a_loop_device() {
    if !have(&[Need::Fuse, Need::Loop, Need::Program("mkfs.ext4"), Need::Program("fstrim")]) {
        return;
    }
    for direct in [false, true] {
        let fixture = Fixture::new(256 * MIB, OpenMode::Buffered);
        let device = Loop::new(&fixture.file(), direct);
        assert_eq!(device.is_direct(), direct);
        run("mkfs.ext4", &["-q", &device.0]);
        let at = fixture.dir.path().join("guest");
        std::fs::create_dir(&at).unwrap();
        let mounted = Mounted::new(&["-t", "ext4", &device.0], &at);
        work(&at);
        let sums = sh(&format!("cd {} && find . -type f -exec sha256sum {{}} +| sort", at.display()));
        mounted.unmount();
        // Again, from the disk this time.
        let mounted = Mounted::new(&["-t", "ext4", "-o", "ro", &device.0], &at);
        let again = sh(&format!("cd {} && find . -type f -exec sha256sum {{}} + | sort", at.display()));
        assert_eq!(sums, again);
        mounted.unmount();
        run("e2fsck", &["-fn", &device.0]);
        device.detach();
        run("e2fsck", &["-fn", fixture.image.to_str().unwrap()]);
        fixture.finish();
    }
}

/// Files in parallel, deleted in part, discarded, written over.
fn work(at: &Path) {
    sh(&format!(
        "cd {}
         for d in 1 2 3 4; do
             (mkdir $d; for i in $(seq 200); do head -c $((i * 97)) /dev/urandom >$d/f$i; done; sync -f $d) &
         done; wait
         rm -r 2; fstrim -v .; head -c 30M /dev/urandom >big; sync
         for i in $(seq 0 7 200); do : >1/f$i; done; dd if=/dev/zero of=big bs=64k count=20 seek=9 conv=notrunc,fsync
         fallocate -p -o 1M -l 3M big; mv 3 5; fstrim -v .", // discards again
        at.display()
    ));
}

#[test]
fn qemus_block_layer_reads_writes_zeroes_and_discards() {
    if !have(&[Need::Fuse, Need::Program("qemu-io"), Need::Program("qemu-img")]) {
        return;
    }
    let fixture = Fixture::new(64 * MIB, OpenMode::Direct);
    let file = fixture.file();
    for cache in ["none", "writeback", "directsync"] {
        let commands =
            ["write -P 7 0 4M", "write -z 1M 64k", "discard 2M 64k", "flush", "write -P 9 63M 1M", "read -P 9 63M 1M"];
        let args: Vec<_> = commands.iter().flat_map(|c| ["-c", c]).collect();
        let head = ["-f", "raw", "-t", cache, "-d", "unmap"];
        let said = run("qemu-io", &[&head[..], &args, &[file.to_str().unwrap()]].concat());
        assert!(!said.contains("failed"), "{cache}: {said}");
    }
    let copy = fixture.dir.path().join("copy.img");
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", file.to_str().unwrap(), copy.to_str().unwrap()]);
    run("cmp", &[fixture.image.to_str().unwrap(), copy.to_str().unwrap()]);
    fixture.finish();
}

#[test]
fn each_write_is_heard_before_the_writer_goes_on() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new(MIB, OpenMode::Buffered);
    let file = fixture.open();
    for i in 1..=50u64 {
        file.write_all_at(&[i as u8; 100], i * 100).unwrap();
        assert_eq!(fixture.heard(), i);
    }
    file.sync_data().unwrap();
    assert_eq!(fixture.shadow.flushes.load(Ordering::Relaxed), 1);
    drop(file);
    fixture.finish();
}

#[test]
fn holes_are_zeros_and_can_be_sought() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new(MIB, OpenMode::Buffered);
    let file = fixture.open();
    file.write_all_at(&vec![5; MIB as usize], 0).unwrap();
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, 64 << 10, 64 << 10).unwrap();
    fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 256 << 10, 4096).unwrap();
    fallocate(&file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, 1_048_000, 1 << 30).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    let mut want = vec![5; MIB as usize];
    for (at, len) in [(64 << 10, 64 << 10), (256 << 10, 4096), (1_048_000, 576)] {
        want[at..at + len].fill(0);
    }
    let mut got = vec![1; MIB as usize];
    file.read_exact_at(&mut got, 0).unwrap();
    assert!(got == want);
    assert_eq!(lseek(&file, 0, Whence::SeekHole), lseek(File::open(&fixture.image).unwrap(), 0, Whence::SeekHole));
    let grow = fallocate(&file, FallocateFlags::empty(), 0, (1 << 20) + 1);
    assert_eq!(grow, Err(Errno::ENOSPC));
    drop(file);
    fixture.finish();
}

#[test]
fn the_disk_keeps_its_size_and_the_directory_its_files() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new(MIB, OpenMode::Buffered);
    let (path, file) = (fixture.file(), fixture.open());
    let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap());
    assert_eq!(errno(file.set_len(0).unwrap_err()), Errno::EPERM);
    file.set_len(MIB).unwrap();
    assert_eq!(errno(file.write_at(&[1], MIB).unwrap_err()), Errno::ENOSPC);
    assert_eq!(errno(file.write_at(&[1; 10], MIB - 4).unwrap_err()), Errno::ENOSPC);
    assert_eq!(fixture.heard(), 0);
    assert_eq!(file.read_at(&mut [0; 10], MIB - 4).unwrap(), 4);
    assert_eq!(file.read_at(&mut [0; 10], MIB + 4).unwrap(), 0);
    assert_eq!(errno(std::fs::remove_file(&path).unwrap_err()), Errno::EPERM);
    assert_eq!(errno(File::create(path.with_file_name("new")).unwrap_err()), Errno::EPERM);
    assert_eq!(errno(std::fs::create_dir(path.with_file_name("new")).unwrap_err()), Errno::EPERM);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), MIB);
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 5678, 0o640));
    drop(file);
    fixture.finish();
}

#[test]
fn a_write_that_the_image_refuses_fails_and_is_not_heard() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let full = Mounted::new(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"], &small);
    let image = small.join("disk.img");
    File::create(&image).unwrap().set_len(MIB).unwrap();
    let mut fixture = Fixture::of(dir, image, OpenMode::Buffered);
    let file = fixture.open();
    file.write_all_at(&[1; 4096], 0).unwrap();
    let refused = file.write_at(&vec![2; MIB as usize - 4096], 4096).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::ENOSPC as i32));
    assert_eq!(fixture.heard(), 1);
    drop(file);
    fixture.export.take();
    drop(full);
}

#[test]
fn an_open_disk_is_detached_and_served_until_it_is_closed() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let mut fixture = Fixture::new(MIB, OpenMode::Buffered);
    let at = fixture.dir.path().join("export");
    let file = fixture.open();
    assert_eq!(fixture.export.take().unwrap().stop(), Unmounted::Lazily);
    assert!(!is_mounted(&at));
    file.write_all_at(&[3; 512], 0).unwrap();
    assert_eq!(fixture.heard(), 1);
    drop(file);
    // The image is free again once the last user is gone.
    wait_for("the image to be released", Duration::from_secs(5), || {
        Backing::open(&fixture.image, OpenMode::Buffered).is_ok()
    });
}

#[test]
fn what_cannot_be_mounted_is_refused_and_leaves_nothing_behind() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new(MIB, OpenMode::Buffered);
    let other = fixture.dir.path().join("other.img");
    std::fs::write(&other, [0; 4096]).unwrap();
    let backing = Arc::new(Backing::open(&other, OpenMode::Buffered).unwrap());
    let start = |dir: &Path, names: &[&str]| {
        let disk = |n: &&str| Disk { name: OsString::from(n), backing: backing.clone(), tap: fixture.shadow.clone() };
        FileExport::start(dir, names.iter().map(disk).collect()).map(|_| ()).unwrap_err()
    };
    let export = fixture.dir.path().join("export");
    let busy = start(&export, &["a"]);
    assert!(matches!(busy, ExportError::Mount(MountError::Busy { .. })), "{busy}");
    assert!(busy.to_string().contains("gammaray is already mounted there"), "{busy}");
    let missing = start(&export.with_file_name("none"), &["a"]);
    assert!(matches!(missing, ExportError::Mount(MountError::Missing(_))), "{missing}");
    let file = start(&other, &["a"]);
    assert!(matches!(file, ExportError::Mount(MountError::NotADirectory(_))), "{file}");
    let free = fixture.dir.path().join("free");
    std::fs::create_dir(&free).unwrap();
    for names in [&["a", "a"][..], &["a/b"], &[".."], &[""]] {
        assert!(matches!(start(&free, names), ExportError::Name { .. }), "{names:?}");
    }
    assert!(!is_mounted(&free));
    fixture.finish();
}

#[test]
fn several_disks_are_files_in_one_directory() {
    if !have(&[Need::Fuse]) {
        return;
    }
    let fixture = Fixture::new(MIB, OpenMode::Buffered);
    let at = fixture.dir.path().join("many");
    std::fs::create_dir(&at).unwrap();
    let disk = |n: u64| {
        let name = OsString::from(format!("d{n}"));
        let image = fixture.dir.path().join(&name);
        std::fs::write(&image, vec![n as u8; 512 * n as usize]).unwrap();
        let backing = Arc::new(Backing::open(&image, OpenMode::Buffered).unwrap());
        Disk { name, backing, tap: fixture.shadow.clone() }
    };
    let export = FileExport::start(&at, (1..=300).map(disk).collect()).unwrap();
    assert_eq!(export.paths().count(), 300);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 300);
    for n in [1, 2, 299] {
        assert_eq!(std::fs::read(at.join(format!("d{n}"))).unwrap(), vec![n as u8; 512 * n]);
    }
    drop(export);
    assert!(!is_mounted(&at));
    assert_eq!(output("ls", &[at.to_str().unwrap()]).stdout, b"");
}
