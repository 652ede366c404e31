//! One writer per image: flock(2) against other gammarays, QEMU's own byte locks against QEMU, and
//! a look at the loop devices, through which a regular file is mounted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::{Kind, OpenError};

/// QEMU's image locks (block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE): whoever
/// uses a permission holds a shared lock on byte 100 + its bit number, whoever does not tolerate
/// it in others on byte 200 + its bit number.
const PERM_BASE: i64 = 100;
const UNSHARED_BASE: i64 = 200;
/// Bit numbers of BLK_PERM_WRITE and BLK_PERM_RESIZE (include/block/block-common.h).
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Lock `file` until it is closed.
pub(super) fn exclusive(file: &File, path: &Path, kind: Kind) -> Result<(), OpenError> {
    let busy = |by: String| Err(OpenError::Busy { path: path.into(), by });
    match lock_patiently(file) {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return busy("another gammaray (or a program that holds its flock)".into());
        }
        // File systems without locks exist; then O_EXCL and the checks below must do.
        Err(fs::TryLockError::Error(e)) => tracing::warn!(path = %path.display(), "no lock: {e}"),
    }
    if kind == Kind::Regular
        && let Some(device) = writing_loop(file).unwrap_or_default()
    {
        return busy(format!("the loop device {device}"));
    }
    match qemu_locks(file) {
        Ok(true) => Ok(()),
        Ok(false) => busy("a running QEMU".into()),
        Err(e) => {
            tracing::warn!(path = %path.display(), "no QEMU lock: {e}");
            Ok(())
        }
    }
}

/// A killed server's io_uring keeps its image open for a moment after the process is gone.
fn lock_patiently(file: &File) -> Result<(), fs::TryLockError> {
    for _ in 0..20 {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
    file.try_lock()
}

/// Give up all locks at once, though others (an io_uring that is being torn down) may keep the
/// open file for a moment longer.
pub(super) fn release(file: &File) {
    let _ = file.unlock();
    let all = libc::flock { l_len: 0, ..byte_lock(libc::F_UNLCK, 0) };
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&all));
}

/// The name of a writable loop device on this very file.
fn writing_loop(file: &File) -> io::Result<Option<String>> {
    let ours = file.metadata()?;
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Loop devices without a file have no `loop` folder.
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        let read_only = fs::read_to_string(entry.path().join("ro")).is_ok_and(|ro| ro.trim() == "1");
        let same =
            fs::metadata(backing.trim_end_matches('\n')).is_ok_and(|m| m.dev() == ours.dev() && m.ino() == ours.ino());
        if same && !read_only {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Declare that we write and that nobody else may. `false` if a QEMU does, or forbids it.
fn qemu_locks(file: &File) -> nix::Result<bool> {
    for byte in [PERM_BASE + WRITE, UNSHARED_BASE + WRITE, UNSHARED_BASE + RESIZE] {
        set_shared(file, byte)?;
    }
    for byte in [PERM_BASE + WRITE, PERM_BASE + RESIZE, UNSHARED_BASE + WRITE] {
        if held_by_others(file, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn set_shared(file: &File, byte: i64) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_RDLCK, byte))).map(drop)
}

fn held_by_others(file: &File, byte: i64) -> nix::Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

pub(super) fn byte_lock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}
