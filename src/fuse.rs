//! Mounting a FUSE file system and taking it away again: for the view and for the disk as a file.
//!
//! We call mount(2) ourselves and hand `fuser` only the open `/dev/fuse`: that gives exact errors,
//! a subtype in `/proc/mounts`, and a say in what happens when a mount is still in use at the end.

mod mountinfo;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, Filesystem, Notifier, Session, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{getgid, getuid};

const DEV_FUSE: &str = "/dev/fuse";
/// What the mount table shows as the source.
const SOURCE: &str = "gammaray";
/// How long an unmounted session's threads may take to notice.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to try before a mount counts as busy.
const GRACE: Duration = Duration::from_millis(300);

/// Why nothing was mounted. Each is one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such directory.
    #[error("{}: no such directory: create the mount point first", .0.display())]
    Missing(PathBuf),
    /// It is no directory.
    #[error("{}: not a directory: name a directory as the mount point", .0.display())]
    NotADirectory(PathBuf),
    /// Something is mounted there.
    #[error("{dir}: {what} is already mounted there: unmount it (umount {dir}) or choose another directory", dir = dir.display())]
    Busy {
        /// The mount point.
        dir: PathBuf,
        /// The source, as the mount table tells it.
        what: String,
    },
    /// The host has no FUSE.
    #[error("{DEV_FUSE}: {0}: load the module (modprobe fuse) or hand the device to this container")]
    NoFuse(io::Error),
    /// Not privileged.
    #[error("{}: mounting is not permitted: run as root (CAP_SYS_ADMIN is needed)", .0.display())]
    NotPermitted(PathBuf),
    /// Anything else.
    #[error("{}: cannot mount: {source}", dir.display())]
    Io {
        /// The mount point.
        dir: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}

impl MountError {
    fn new(dir: &Path, source: io::Error) -> Self {
        let dir = dir.to_path_buf();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => Self::Missing(dir),
            Some(Errno::ENOTDIR) => Self::NotADirectory(dir),
            Some(Errno::EPERM | Errno::EACCES) => Self::NotPermitted(dir),
            Some(Errno::EBUSY) => Self::Busy { dir, what: "something".into() },
            // The server of a FUSE mount died without unmounting.
            Some(Errno::ENOTCONN) => Self::Busy { dir, what: "a dead FUSE file system".into() },
            _ => Self::Io { dir, source },
        }
    }
}

/// How to mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MountPlan {
    /// The type is shown as `fuse.SUBTYPE`.
    pub subtype: &'static str,
    /// Read-only and the like.
    pub flags: MsFlags,
    /// Threads that serve requests, at least 1.
    pub threads: usize,
}

/// How a mount ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmounted {
    /// It is gone, and so are its threads.
    Gone,
    /// Files in it are still open. It has left the tree, is served on, and goes when the last of
    /// them is closed or this process ends.
    Lazily,
}

/// A mounted file system with its threads. Dropping it unmounts.
pub(crate) struct FuseMount {
    dir: PathBuf,
    /// `None` only where `/proc` is not mounted.
    device: Option<mountinfo::Device>,
    session: Option<BackgroundSession>,
    mounted: bool,
}

impl FuseMount {
    /// Mount `fs` on `dir` and serve it from threads of its own. On error nothing is left mounted.
    pub(crate) fn start<F: Filesystem>(fs: F, dir: &Path, plan: MountPlan) -> Result<Self, MountError> {
        let dir = free_mount_point(dir)?;
        let fuse = OpenOptions::new().read(true).write(true).open(DEV_FUSE).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => MountError::NotPermitted(dir.clone()),
            _ => MountError::NoFuse(e),
        })?;
        mount(&fuse, &dir, plan).map_err(|e| MountError::new(&dir, e.into()))?;
        let device = mountinfo::top_at(&dir).map(|m| m.device);
        // From here on an early return unmounts by dropping it.
        let mut this = Self { dir, device, session: None, mounted: true };
        let session = serve(fs, fuse, plan.threads);
        this.session = Some(session.map_err(|source| MountError::Io { dir: this.dir.clone(), source })?);
        Ok(this)
    }

    /// Where it is mounted: an absolute path without symbolic links.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What tells the kernel that something it caches has changed.
    pub(crate) fn notifier(&self) -> Option<Notifier> {
        self.session.as_ref().map(BackgroundSession::notifier)
    }

    /// Whether it is no longer served, because somebody unmounted it.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|s| s.guard.is_finished())
    }

    /// Unmount, lazily if it is in use.
    pub(crate) fn stop(&mut self) -> Unmounted {
        if std::mem::take(&mut self.mounted) && self.is_ours() {
            self.detach();
        }
        match self.session.take() {
            Some(session) if !finishes(&session.guard, PATIENCE) => Unmounted::Lazily,
            _ => Unmounted::Gone,
        }
    }

    /// Somebody may have unmounted ours and mounted something else in its place.
    fn is_ours(&self) -> bool {
        !self.has_ended() && self.device.is_none_or(|d| mountinfo::top_at(&self.dir).is_some_and(|m| m.device == d))
            || self.session.is_none()
    }

    fn detach(&self) {
        let start = Instant::now();
        let mut done = umount2(&self.dir, MntFlags::UMOUNT_NOFOLLOW);
        // A last user may be just about to leave.
        while done == Err(Errno::EBUSY) && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(10));
            done = umount2(&self.dir, MntFlags::UMOUNT_NOFOLLOW);
        }
        if done == Err(Errno::EBUSY) {
            tracing::warn!(dir = %self.dir.display(), "still in use: detached, to go when the last file in it is closed");
            done = umount2(&self.dir, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        }
        if let Err(e) = done {
            tracing::warn!(dir = %self.dir.display(), "cannot unmount: {}", e.desc());
        }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Wait for a thread. `false` if it still runs after `patience`.
pub(crate) fn finishes<T>(thread: &JoinHandle<T>, patience: Duration) -> bool {
    let start = Instant::now();
    while !thread.is_finished() {
        if start.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

fn free_mount_point(dir: &Path) -> Result<PathBuf, MountError> {
    let path = dir.canonicalize().map_err(|e| MountError::new(dir, e))?;
    if let Some(there) = mountinfo::top_at(&path) {
        return Err(MountError::Busy { dir: path, what: there.source });
    }
    if path.is_dir() { Ok(path) } else { Err(MountError::NotADirectory(path)) }
}

fn mount(fuse: &File, dir: &Path, plan: MountPlan) -> nix::Result<()> {
    // rootmode is S_IFDIR: what the mount point looks like until the first getattr.
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},allow_other,default_permissions",
        fuse.as_raw_fd(),
        getuid(),
        getgid()
    );
    let kind = format!("fuse.{}", plan.subtype);
    nix::mount::mount(Some(SOURCE), dir, Some(kind.as_str()), plan.flags, Some(data.as_str()))
}

fn serve<F: Filesystem>(fs: F, fuse: File, threads: usize) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    config.clone_fd = true;
    Session::from_fd(fs, fuse.into(), SessionACL::All, config)?.spawn()
}
