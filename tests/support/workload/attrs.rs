//! Operations on attributes, and those that force things to disk.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lremovexattr, lsetxattr, utimensat};
use rustix::io::Errno;

use super::names::{Id, Kind};
use super::{Outcome, Workload};

impl Workload {
    pub(super) fn chmod(&mut self) -> Outcome {
        let Some(id) = self.names.pick(&mut self.rng, |e| e.kind != Kind::Symlink) else { return Ok(()) };
        let mode = *self.rng.pick(&[0o600, 0o644, 0o777, 0o1777, 0o2750, 0o4711, 0o000]);
        self.note("chmod", id, &format!("{mode:o}"));
        fs::set_permissions(self.at(id), fs::Permissions::from_mode(mode))
    }

    pub(super) fn chown(&mut self) -> Outcome {
        let Some(id) = self.pick_any() else { return Ok(()) };
        // Numbers over 65,535 have their upper half elsewhere in the inode.
        let who = [0, 1000, 65_534, 70_000, 3_000_000_000];
        let (uid, gid) = (*self.rng.pick(&who), *self.rng.pick(&who));
        self.note("chown", id, &format!("{uid}:{gid}"));
        std::os::unix::fs::lchown(self.at(id), Some(uid), Some(gid))
    }

    pub(super) fn xattr(&mut self) -> Outcome {
        let Some(id) = self.pick_any() else { return Ok(()) };
        // Other kinds of files may not have `user` attributes.
        let user = matches!(self.names.get(id).kind, Kind::File | Kind::Dir);
        let space = if user && self.rng.chance(80) { "user" } else { "trusted" };
        let name = format!("{space}.{}", self.rng.pick(&["a", "mime_type", "note", "checksum.sha256"]));
        if self.rng.chance(30) { self.remove_xattr(id, &name) } else { self.set_xattr(id, &name) }
    }

    fn remove_xattr(&mut self, id: Id, name: &str) -> Outcome {
        self.note("remove xattr", id, name);
        match lremovexattr(self.at(id), name) {
            Err(Errno::NODATA) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Small values fit into the inode. Big ones take a block, which files with the same
    /// attributes share: so some values come again and again.
    fn set_xattr(&mut self, id: Id, name: &str) -> Outcome {
        let value = match self.rng.below(10) {
            0 => Vec::new(),
            1..6 => {
                let len = self.rng.range(1, 60) as usize;
                self.rng.bytes(len)
            }
            6..8 => vec![b'x'; 300],
            _ => {
                let len = self.rng.range(200, 800) as usize;
                self.rng.bytes(len)
            }
        };
        self.note("set xattr", id, &format!("{name} {} bytes", value.len()));
        Ok(lsetxattr(self.at(id), name, &value, XattrFlags::empty())?)
    }

    pub(super) fn times_or_sync(&mut self) -> Outcome {
        match self.rng.below(30) {
            0 => self.sync_all(),
            1..6 => self.sync_dir(),
            6..16 => self.set_times(),
            _ => self.sync_file(),
        }
    }

    fn set_times(&mut self) -> Outcome {
        let Some(id) = self.pick_any() else { return Ok(()) };
        // Before 1970, after 2038, and the ordinary.
        let time = |w: &mut Self| Timespec {
            tv_sec: *w.rng.pick(&[-1_000_000, 0, 1, 1_700_000_000, 2_147_483_647, 4_294_967_296, 9_000_000_000]),
            tv_nsec: w.rng.below(1_000_000_000) as i64,
        };
        let times = Timestamps { last_access: time(self), last_modification: time(self) };
        self.note("set times", id, &format!("{times:?}"));
        Ok(utimensat(CWD, self.at(id), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn sync_all(&mut self) -> Outcome {
        self.log.push("sync".into());
        Ok(rustix::fs::syncfs(File::open(&self.root)?)?)
    }

    fn sync_dir(&mut self) -> Outcome {
        let id = self.pick_dir_to_sync();
        self.note("fsync directory", id, "");
        File::open(self.at(id))?.sync_all()
    }

    fn sync_file(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        self.note("fsync", id, "");
        let file = File::options().write(true).open(self.at(id))?;
        if self.rng.chance(50) { file.sync_data() } else { file.sync_all() }
    }
}
