//! Disks for tests: image files, file systems, loop devices and mounts that clean up behind
//! themselves, also when a test panics.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::oracle;
use super::record::Listing;

/// Run a program; panics with its output unless it exits with 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let out = output(program, args);
    assert!(out.status.success(), "{program}: {}\n{}", out.status, all(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Run a program, whatever comes of it.
pub fn output<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program).args(args).env("PATH", path).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// What a program said on both channels.
pub fn all(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|s| String::from_utf8_lossy(s)).concat()
}

/// A folder for a test's files; with `GAMMARAY_KEEP` set it stays, to look for a cause.
pub fn scratch() -> tempfile::TempDir {
    let mut dir = tempfile::tempdir().unwrap();
    if std::env::var_os("GAMMARAY_KEEP").is_some() {
        dir.disable_cleanup(true);
        eprintln!("kept: {}", dir.path().display());
    }
    dir
}

/// Make a sparse image of `size` bytes and a file system on it. `mkfs` is words: `ext4 -b 1024 …`, `ntfs -c 4096 …`.
pub fn make(image: &Path, size: u64, mkfs: &str) {
    File::create(image).and_then(|f| f.set_len(size)).unwrap();
    format(image, mkfs);
}

/// Make a file system on what is there already.
pub fn format(device: &Path, mkfs: &str) {
    if let Some(words) = mkfs.strip_prefix("ntfs") {
        return super::ntfs::format(device, words);
    }
    let mut args = vec!["-q", "-F", "-t"];
    args.extend(mkfs.split_whitespace());
    run("mke2fs", args.iter().map(OsStr::new).chain([device.as_os_str()]));
}

/// Copy an image, holes and all.
pub fn copy(from: &Path, to: &Path) {
    run("cp", [OsStr::new("--sparse=always"), OsStr::new("--reflink=auto"), from.as_os_str(), to.as_os_str()]);
}

/// The guest reads back, past its page cache, what the image holds; panics if not.
pub fn same_bytes(disk: &Path, image: &Path) {
    let script = "dd if=\"$1\" bs=1M iflag=direct status=none | cmp - \"$2\"";
    run("sh", [OsStr::new("-c"), script.as_ref(), "sh".as_ref(), disk.as_os_str(), image.as_os_str()]);
}

/// A loop device; gone when dropped.
pub struct Loop {
    pub device: PathBuf,
}

impl Loop {
    pub fn attach(image: &Path) -> Self {
        Self::attach_with(image, &[])
    }

    /// With more options of `losetup` (`--offset` …).
    pub fn attach_with(image: &Path, options: &[&str]) -> Self {
        let args = ["--find", "--show"].iter().chain(options).map(OsStr::new).chain([image.as_os_str()]);
        let args: Vec<&OsStr> = args.collect();
        // Two who look for a free device at once may pick the same one: the loser tries again.
        for _ in 0..20 {
            let out = output("losetup", &args);
            if out.status.success() {
                return Self { device: String::from_utf8_lossy(&out.stdout).trim().into() };
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no loop device for {}: {}", image.display(), all(&output("losetup", &args)));
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let out = output("losetup", [OsStr::new("-d"), self.device.as_os_str()]);
        if !out.status.success() {
            eprintln!("losetup -d {}: {}", self.device.display(), all(&out));
        }
    }
}

/// A mounted file system; unmounted when dropped.
pub struct Mount {
    pub dir: PathBuf,
    mounted: bool,
}

impl Mount {
    /// `dir` is made if missing. `options` as after `-o`; `ntfs3` among them names that driver
    /// instead of the usual one.
    pub fn new(device: &Path, dir: &Path, options: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let (driver, options) = match options.strip_prefix("ntfs3,") {
            Some(rest) => (&["-t", "ntfs3"][..], rest),
            None => (&[][..], options),
        };
        let driver = driver.iter().map(OsStr::new);
        run("mount", driver.chain([OsStr::new("-o"), options.as_ref(), device.as_os_str(), dir.as_os_str()]));
        Self { dir: dir.to_path_buf(), mounted: true }
    }

    /// Write out all that the file system holds back.
    pub fn sync(&self) {
        let dir = File::open(&self.dir).unwrap();
        rustix::fs::syncfs(&dir).unwrap_or_else(|e| panic!("syncfs {}: {e}", self.dir.display()));
    }

    /// Unmount; panics when that fails.
    pub fn unmount(mut self) {
        // Not `self.mounted = refused.is_some()` and then a look at `refused`: that may become a SETNO
        // to memory and a JNO, and QEMU 10.0 (TCG) loses the flags between them if the page faults.
        match self.try_unmount() {
            None => self.mounted = false,
            Some(why) => panic!("umount {}: {why}", self.dir.display()),
        }
    }

    /// A program that another test starts just now has our open files for a moment, until it
    /// closes them: busy is not busy for good.
    fn try_unmount(&self) -> Option<String> {
        let mut why = None;
        for _ in 0..50 {
            let out = output("umount", [&self.dir]);
            if out.status.success() {
                return None;
            }
            why = Some(all(&out));
            std::thread::sleep(Duration::from_millis(100));
        }
        why
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted && self.try_unmount().is_some() {
            output("umount", [OsStr::new("-l"), self.dir.as_os_str()]);
        }
    }
}

/// What the kernel finds in an image, after replaying its journal if it is not clean. The image
/// itself stays as it is: the kernel gets a copy.
pub fn kernel_listing(image: &Path, scratch: &Path) -> Listing {
    let copied = scratch.join("oracle.raw");
    copy(image, &copied);
    let listing = kernel_listing_at(&copied, scratch, &[]);
    std::fs::remove_file(&copied).unwrap();
    listing
}

/// The same for a part of the image (`--offset`, `--sizelimit`), which the kernel may change.
pub fn kernel_listing_at(image: &Path, scratch: &Path, loop_options: &[&str]) -> Listing {
    let offset = loop_options.windows(2).find(|w| w[0] == "--offset").map_or(0, |w| w[1].parse().unwrap());
    if super::ntfs::is_ntfs(image, offset) {
        return super::ntfs::listing(image, scratch, loop_options);
    }
    let device = Loop::attach_with(image, loop_options);
    // `ro` alone still replays the journal, and `noatime` keeps reading from changing anything.
    let mount = Mount::new(&device.device, &scratch.join("oracle"), "ro,noatime");
    let listing = oracle::walk(&mount.dir);
    mount.unmount();
    listing
}

/// What e2fsck has against an image, if anything.
pub fn fsck(image: &Path) -> Result<(), String> {
    if super::ntfs::is_ntfs(image, 0) {
        // There is no fsck for NTFS; the listing must do.
        return Ok(());
    }
    let out = output("e2fsck", [OsStr::new("-fn"), image.as_os_str()]);
    if out.status.success() { Ok(()) } else { Err(format!("e2fsck -fn: {}\n{}", out.status, all(&out))) }
}
