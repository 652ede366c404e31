//! The disk as a file: a FUSE mount with one file per disk, which any VMM opens as a raw image and
//! `losetup` makes a block device of.
//!
//! Each write reaches the image, and then the [`Tap`], while whoever issued it still waits: the
//! files are never cached by the host's kernel. They have a fixed size and can't be mapped.

mod disk;
mod fuse;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gammaray_ublk::{Backing, Tap};
use nix::mount::MsFlags;

use crate::fuse::{FuseMount, MountError, MountPlan, Unmounted};

pub use disk::Served;

/// The least and the most threads that carry out requests. Each carries out one at a time, so
/// there are more than CPUs: most of the time they wait for the image.
const THREADS: (usize, usize) = (4, 16);

/// Why a disk is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The directory cannot be mounted on.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A file of that name is there already, or it can't be a file's name.
    #[error("{}: cannot export a disk under the name {name:?}: give each image another file name", dir.display())]
    Name {
        /// The mount point.
        dir: PathBuf,
        /// The name.
        name: OsString,
    },
    /// The image cannot be looked at.
    #[error("{}: {source}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// The host's error.
        source: std::io::Error,
    },
}

/// A disk to be exported.
pub struct Disk {
    /// Name of the file.
    pub name: OsString,
    /// Holds the bytes.
    pub backing: Arc<Backing>,
    /// Hears of each change after it was made and before the one who asked for it is told.
    pub tap: Arc<dyn Tap>,
}

/// Disks as files in a directory. Dropping it unmounts, lazily if one is still open.
pub struct FileExport {
    disks: Arc<[Served]>,
    mount: FuseMount,
}

impl FileExport {
    /// Show `disks` as files in `dir`.
    ///
    /// # Errors
    /// [`ExportError`] says what to do. Nothing is left mounted.
    pub fn start(dir: &Path, disks: Vec<Disk>) -> Result<Self, ExportError> {
        check_names(dir, &disks)?;
        let disks = disks.into_iter().map(served).collect::<Result<Arc<[_]>, _>>()?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let plan = MountPlan { subtype: "gammaray-disk", flags, threads: threads() };
        let mount = FuseMount::start(fuse::Adapter(Arc::clone(&disks)), dir, plan)?;
        Ok(Self { disks, mount })
    }

    /// Show one disk as `dir`/`name`.
    ///
    /// # Errors
    /// As [`FileExport::start`].
    pub fn single(backing: Arc<Backing>, tap: Arc<dyn Tap>, dir: &Path, name: &OsStr) -> Result<Self, ExportError> {
        Self::start(dir, vec![Disk { name: name.into(), backing, tap }])
    }

    /// The files, in the order of the disks.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.disks.iter().map(|d| self.mount.dir().join(d.name()))
    }

    /// The first disk's file.
    pub fn path(&self) -> PathBuf {
        self.paths().next().unwrap_or_else(|| self.mount.dir().into())
    }

    /// Whether somebody has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.mount.has_ended()
    }

    /// Unmount, and tell how that went.
    pub fn stop(mut self) -> Unmounted {
        self.end()
    }

    fn end(&mut self) -> Unmounted {
        let open: Vec<_> = self.disks.iter().filter(|d| d.is_open()).map(|d| d.name().to_string_lossy()).collect();
        if !open.is_empty() {
            tracing::warn!(
                dir = %self.mount.dir().display(),
                "still open: {}: stop the VM or the loop device (losetup -d) that uses it, its disk fails when this process ends",
                open.join(", ")
            );
        }
        self.mount.stop()
    }
}

impl Drop for FileExport {
    fn drop(&mut self) {
        self.end();
    }
}

fn served(disk: Disk) -> Result<Served, ExportError> {
    let path = disk.backing.path().to_path_buf();
    Served::new(disk).map_err(|source| ExportError::Image { path, source })
}

fn check_names(dir: &Path, disks: &[Disk]) -> Result<(), ExportError> {
    for (i, disk) in disks.iter().enumerate() {
        let again = disks.iter().take(i).any(|d| d.name == disk.name);
        // A file's name is the whole of the path that it makes.
        if again || Path::new(&disk.name).file_name() != Some(&disk.name) {
            return Err(ExportError::Name { dir: dir.into(), name: disk.name.clone() });
        }
    }
    Ok(())
}

fn threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus * 2).clamp(THREADS.0, THREADS.1)
}
