//! Operations on names.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, linkat, makedev, mknodat, renameat_with};

use crate::support::text::{join, under};

use super::names::{Id, Kind, ROOT};
use super::{HELD, Outcome, Workload};

impl Workload {
    /// Many small files in one directory at once.
    pub(super) fn burst(&mut self) -> Outcome {
        let dir = self.names.pick_dir(&mut self.rng);
        for _ in 0..40 {
            let name = self.names.fresh(&mut self.rng, dir);
            let id = self.names.add(dir, name, Kind::File);
            self.note("create in a burst", id, "");
            File::create_new(self.at(id)).inspect_err(|_| self.names.remove(id))?;
        }
        Ok(())
    }

    fn move_to_fresh(&mut self, what: &str, id: Id, dir: Id) -> Outcome {
        let name = self.names.fresh(&mut self.rng, dir);
        let from = self.at(id);
        let to = under(&self.root, &join(&self.names.path(dir), &name));
        self.note(what, id, &format!("to {}", to.display()));
        fs::rename(from, to)?;
        self.names.rename(id, dir, name);
        Ok(())
    }

    pub(super) fn rename_file(&mut self) -> Outcome {
        let Some(id) = self.pick_non_dir() else { return Ok(()) };
        let parent = self.names.get(id).parent;
        let dir = if self.rng.chance(50) { parent } else { self.names.pick_dir(&mut self.rng) };
        self.move_to_fresh("rename", id, dir)
    }

    pub(super) fn rename_dir(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::Dir) else { return Ok(()) };
        let dir = self.names.pick_dir(&mut self.rng);
        if self.names.below(dir, id) || !self.names.fits(id, dir) {
            return Ok(());
        }
        self.move_to_fresh("rename directory", id, dir)
    }

    pub(super) fn rename_over(&mut self) -> Outcome {
        let (Some(id), Some(victim)) = (self.pick_any(), self.pick_any()) else { return Ok(()) };
        if !self.may_replace(id, victim)? {
            return Ok(());
        }
        self.note("rename", id, &format!("over {}", self.at(victim).display()));
        fs::rename(self.at(id), self.at(victim))?;
        let (parent, name) = (self.names.get(victim).parent, self.names.get(victim).name.clone());
        self.names.remove(victim);
        self.names.rename(id, parent, name);
        Ok(())
    }

    /// A rename between two names of one file does nothing at all.
    fn may_replace(&self, id: Id, victim: Id) -> std::io::Result<bool> {
        let (a, b) = (self.names.get(id).kind == Kind::Dir, self.names.get(victim).kind == Kind::Dir);
        if a != b || id == victim || !self.is_replaceable(victim) {
            return Ok(false);
        }
        if a && (!self.names.is_empty(victim) || self.names.below(victim, id)) {
            return Ok(false);
        }
        let same = fs::symlink_metadata(self.at(id))?.ino() == fs::symlink_metadata(self.at(victim))?.ino();
        Ok(!same && self.names.fits(id, self.names.get(victim).parent))
    }

    /// ntfs-3g first gives what it replaces a longer name, and leaves a mess if that is too long.
    pub(super) fn is_replaceable(&self, victim: Id) -> bool {
        !self.is_ntfs || self.names.get(victim).name.len() < 200
    }

    pub(super) fn exchange(&mut self) -> Outcome {
        let (Some(a), Some(b)) = (self.pick_any(), self.pick_any()) else { return Ok(()) };
        let fits = self.names.fits(a, self.names.get(b).parent) && self.names.fits(b, self.names.get(a).parent);
        if self.names.below(a, b) || self.names.below(b, a) || !fits {
            return Ok(());
        }
        self.note("exchange", a, &format!("and {}", self.at(b).display()));
        match renameat_with(CWD, self.at(a), CWD, self.at(b), RenameFlags::EXCHANGE) {
            // ext2 has no exchange.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            other => other?,
        }
        self.names.swap(a, b);
        Ok(())
    }

    pub(super) fn link(&mut self) -> Outcome {
        let Some(id) = self.pick_non_dir() else { return Ok(()) };
        let dir = self.names.pick_dir(&mut self.rng);
        let name = self.names.fresh(&mut self.rng, dir);
        let kind = self.names.get(id).kind;
        let new = self.names.add(dir, name, kind);
        self.note("link", id, &format!("as {}", self.at(new).display()));
        fs::hard_link(self.at(id), self.at(new)).inspect_err(|_| self.names.remove(new))
    }

    pub(super) fn link_descriptor(&self, file: &File, id: Id) -> Outcome {
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, from, CWD, self.at(id), AtFlags::SYMLINK_FOLLOW)?)
    }

    pub(super) fn unlink(&mut self) -> Outcome {
        let Some(id) = self.pick_non_dir() else { return Ok(()) };
        self.note("unlink", id, "");
        fs::remove_file(self.at(id))?;
        self.names.remove(id);
        Ok(())
    }

    /// Unlink a file and go on writing to it for a while.
    pub(super) fn unlink_held(&mut self) -> Outcome {
        if self.is_ntfs {
            // FUSE would only rename it, to a name of its own.
            return self.unlink();
        }
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        self.note("unlink but hold open", id, "");
        let mut file = OpenOptions::new().append(true).open(self.at(id))?;
        fs::remove_file(self.at(id))?;
        self.names.remove(id);
        let len = self.rng.skewed(8 << 10) as usize;
        file.write_all(&self.rng.bytes(len))?;
        self.held.push(file);
        if self.held.len() > HELD {
            self.held.remove(0);
        }
        Ok(())
    }

    pub(super) fn mkdir(&mut self) -> Outcome {
        let dir = self.names.pick_dir(&mut self.rng);
        let name = self.names.fresh(&mut self.rng, dir);
        let id = self.names.add(dir, name, Kind::Dir);
        self.note("mkdir", id, "");
        fs::create_dir(self.at(id)).inspect_err(|_| self.names.remove(id))
    }

    pub(super) fn rmdir(&mut self) -> Outcome {
        let Some(id) = self.pick_empty_dir() else { return Ok(()) };
        self.note("rmdir", id, "");
        fs::remove_dir(self.at(id))?;
        self.names.remove(id);
        Ok(())
    }

    fn pick_empty_dir(&mut self) -> Option<Id> {
        (0..10).filter_map(|_| self.pick(Kind::Dir)).collect::<Vec<_>>().into_iter().find(|id| self.names.is_empty(*id))
    }

    pub(super) fn remove_tree(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::Dir) else { return Ok(()) };
        self.note("remove tree", id, "");
        self.remove_below(id)
    }

    fn remove_below(&mut self, id: Id) -> Outcome {
        for child in self.names.children(id) {
            self.remove_below(child)?;
        }
        let at = self.at(id);
        if self.names.get(id).kind == Kind::Dir { fs::remove_dir(at) } else { fs::remove_file(at) }?;
        self.names.remove(id);
        Ok(())
    }

    /// Short targets live in the inode, those of 60 bytes and more in a block.
    pub(super) fn symlink(&mut self) -> Outcome {
        let dir = self.names.pick_dir(&mut self.rng);
        let name = self.names.fresh(&mut self.rng, dir);
        let len = *self.rng.pick(&[1, 20, 59, 60, 61, 300, 1000]);
        let target: String = "../some/where/€/".chars().cycle().take(len).collect();
        let target = &target[..target.floor_char_boundary(len)];
        let id = self.names.add(dir, name, Kind::Symlink);
        self.note("symlink", id, &format!("target of {} bytes", target.len()));
        std::os::unix::fs::symlink(target, self.at(id)).inspect_err(|_| self.names.remove(id))
    }

    pub(super) fn mknod(&mut self) -> Outcome {
        if self.is_ntfs3 {
            // It keeps these in a way that ntfs-3g, which is to judge, does not know.
            return self.mkdir();
        }
        let dir = self.names.pick_dir(&mut self.rng);
        let name = self.names.fresh(&mut self.rng, dir);
        let id = self.names.add(dir, name, Kind::Special);
        let kind =
            *self.rng.pick(&[FileType::Fifo, FileType::Socket, FileType::CharacterDevice, FileType::BlockDevice]);
        let dev = if self.rng.chance(50) { makedev(8, 17) } else { makedev(3000, 700_000) };
        self.note("mknod", id, &format!("{kind:?}"));
        let dev = if matches!(kind, FileType::Fifo | FileType::Socket) { 0 } else { dev };
        Ok(mknodat(CWD, self.at(id), kind, Mode::from_raw_mode(0o640), dev).inspect_err(|_| self.names.remove(id))?)
    }

    /// A directory or the root.
    pub(super) fn pick_dir_to_sync(&mut self) -> Id {
        self.pick(Kind::Dir).unwrap_or(ROOT)
    }
}
