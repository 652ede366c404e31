//! Opening an image: every reason to refuse it, found before anything is served.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use nix::libc;

use super::{Backing, Kind, lock, sys};
use crate::buffer::{ALIGN, AlignedBuf};

/// The smallest disk that a guest can address, and the unit of a raw image: bytes.
const SECTOR: u32 = 512;

/// Whether to bypass the host's page cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OpenMode {
    /// `O_DIRECT` where the file system can do it in units of the image's logical block, else buffered.
    #[default]
    Direct,
    /// Through the page cache.
    Buffered,
}

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("{}: no such image: check the path", .0.display())]
    NotFound(PathBuf),
    /// A directory, a FIFO …
    #[error("{}: neither a regular file nor a block device", .0.display())]
    WrongKind(PathBuf),
    /// The file or its file system is read-only, or this user may not write it.
    #[error("{}: cannot be opened for writing ({source}): a served disk must be writable", path.display())]
    ReadOnly {
        /// The image.
        path: PathBuf,
        /// EACCES, EPERM or EROFS.
        source: io::Error,
    },
    /// Somebody else may write it.
    #[error("{}: in use by {by}: stop that first", path.display())]
    Busy {
        /// The image.
        path: PathBuf,
        /// As far as it is known.
        by: String,
    },
    /// Nothing, or not one sector, is in it.
    #[error("{}: {size} bytes are too few for a disk: at least 512 are needed", path.display())]
    TooSmall {
        /// The image.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// The host failed.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The host's error.
        source: io::Error,
    },
}

pub(super) fn open(path: &Path, mode: OpenMode) -> Result<Backing, OpenError> {
    let failed = |what| move |source| OpenError::Io { path: path.into(), what, source };
    let kind = kind_of(path)?;
    let file = open_exclusive(path, kind)?;
    lock::exclusive(&file, path, kind)?;
    let size = match kind {
        Kind::Regular => file.metadata().map_err(failed("cannot tell its size"))?.len(),
        Kind::Block => sys::block_size(&file).map_err(failed("cannot tell its size"))?,
    };
    let logical_block = match kind {
        Kind::Regular => SECTOR,
        Kind::Block => sys::block_logical_size(&file).map_err(failed("cannot tell its block size"))?,
    };
    if size < logical_block.max(SECTOR).into() {
        return Err(OpenError::TooSmall { path: path.into(), size });
    }
    let direct = match mode {
        OpenMode::Direct => go_direct(&file, size, logical_block),
        OpenMode::Buffered => None,
    };
    tracing::debug!(path = %path.display(), size, logical_block, ?direct, "image opened");
    Ok(Backing { file, path: path.into(), kind, size, logical_block, direct, partial: RwLock::new(()) })
}

/// Asked before opening, so that a FIFO does not block us and a directory gets a plain answer.
fn kind_of(path: &Path) -> Result<Kind, OpenError> {
    let kind = match std::fs::metadata(path) {
        Ok(m) => m.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(OpenError::NotFound(path.into())),
        Err(source) => return Err(OpenError::Io { path: path.into(), what: "cannot be examined", source }),
    };
    if kind.is_file() {
        Ok(Kind::Regular)
    } else if kind.is_block_device() {
        Ok(Kind::Block)
    } else {
        Err(OpenError::WrongKind(path.into()))
    }
}

/// O_EXCL without O_CREAT claims a block device: the kernel refuses it if it, or a partition of
/// it, is mounted or claimed (open(2)).
fn open_exclusive(path: &Path, kind: Kind) -> Result<File, OpenError> {
    let flags = if kind == Kind::Block { libc::O_EXCL } else { 0 };
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map_err(|source| {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => OpenError::ReadOnly { path, source },
            Some(libc::EBUSY) => OpenError::Busy { path, by: "a mount or another exclusive user".into() },
            Some(libc::ETXTBSY) => OpenError::Busy { path, by: "a running program or swap".into() },
            _ => OpenError::Io { path, what: "cannot be opened", source },
        }
    })
}

/// Switch `file` to O_DIRECT if that works in units of `logical_block`. The alignment in bytes, or
/// `None` after switching back.
fn go_direct(file: &File, size: u64, logical_block: u32) -> Option<u32> {
    if !size.is_multiple_of(logical_block.into()) || set_direct(file, true).is_err() {
        return None;
    }
    let align = match sys::direct_alignment(file) {
        Some((0, _) | (_, 0)) => None,
        Some((memory, offset)) => Some(memory.max(offset)),
        None => readable_in(file, size, logical_block).then_some(logical_block),
    };
    let fits = align.map(|a| a.max(logical_block)).filter(|a| *a <= logical_block);
    if fits.is_none() {
        // Clearing a flag that was just set cannot fail, and if it did, reads would tell.
        let _ = set_direct(file, false);
    }
    fits
}

fn set_direct(file: &File, on: bool) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, on);
    fcntl(file, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Whether the file can be read in units of `align` bytes.
fn readable_in(file: &File, size: u64, align: u32) -> bool {
    let mut buf = AlignedBuf::new(2 * ALIGN);
    // A buffer and an offset that are aligned to `align` and, for a sector, to nothing larger.
    let part = buf.get_mut(align as usize..2 * align as usize);
    let fits = u64::from(align) * 2 <= size;
    fits && part.is_some_and(|b| file.read_exact_at(b, align.into()).is_ok())
}
