//! Operations on the contents of files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::names::{Id, Kind};
use super::{Outcome, Workload};

impl Workload {
    pub(super) fn create(&mut self) -> Outcome {
        let dir = self.names.pick_dir(&mut self.rng);
        let name = self.names.fresh(&mut self.rng, dir);
        let len = match self.rng.below(100) {
            0..30 => 0,
            30..97 => self.rng.skewed(64 << 10),
            _ => self.rng.range(300 << 10, 900 << 10),
        };
        let mode = *self.rng.pick(&[0o644, 0o600, 0o755, 0o4755]);
        let id = self.names.add(dir, name, Kind::File);
        self.note("create", id, &format!("{len} bytes"));
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.at(id));
        let mut file = made.inspect_err(|_| self.names.remove(id))?;
        file.write_all(&self.rng.bytes(len as usize))
    }

    pub(super) fn append(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let len = self.rng.skewed(40 << 10);
        self.note("append", id, &format!("{len} bytes"));
        OpenOptions::new().append(true).open(self.at(id))?.write_all(&self.rng.bytes(len as usize))
    }

    pub(super) fn overwrite(&mut self) -> Outcome {
        self.write_somewhere("overwrite", |w, size| w.rng.below(size + 1))
    }

    pub(super) fn sparse_write(&mut self) -> Outcome {
        self.write_somewhere("sparse write", |w, size| size + w.rng.skewed(6 << 20))
    }

    fn write_somewhere(&mut self, what: &str, offset: impl Fn(&mut Self, u64) -> u64) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(self.at(id))?;
        let size = file.metadata()?.len();
        let (offset, len) = (offset(self, size), self.rng.skewed(32 << 10));
        self.note(what, id, &format!("{len} bytes at {offset} of {size}"));
        file.write_all_at(&self.rng.bytes(len as usize), offset)
    }

    /// As `> file` does in a shell.
    pub(super) fn rewrite(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let len = self.rng.skewed(20 << 10);
        self.note("rewrite", id, &format!("{len} bytes"));
        OpenOptions::new().write(true).truncate(true).open(self.at(id))?.write_all(&self.rng.bytes(len as usize))
    }

    /// As editors do: a new file, fsync, rename over the old one.
    pub(super) fn safe_save(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File).filter(|id| self.is_replaceable(*id)) else { return Ok(()) };
        let parent = self.names.get(id).parent;
        let name = self.names.fresh(&mut self.rng, parent);
        let temporary = self.names.add(parent, name, Kind::File);
        let from = self.at(temporary);
        self.note("safe save", id, &format!("by way of {}", from.display()));
        let written = self.fill_and_sync(temporary).and_then(|()| std::fs::rename(&from, self.at(id)));
        if written.is_ok() || !from.exists() {
            self.names.remove(temporary);
        }
        written
    }

    fn fill_and_sync(&mut self, id: Id) -> Outcome {
        let mut file = File::create_new(self.at(id))?;
        let len = self.rng.skewed(16 << 10);
        file.write_all(&self.rng.bytes(len as usize))?;
        file.sync_all()
    }

    /// Past the page cache, in whole blocks.
    pub(super) fn direct_write(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let file = match OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(self.at(id)) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            other => other?,
        };
        let offset = self.rng.below(file.metadata()?.len() / 4096 + 2) * 4096;
        let len = self.rng.range(1, 6) as usize * 4096;
        self.note("direct write", id, &format!("{len} bytes at {offset}"));
        let bytes = self.rng.bytes(len + 4096);
        let start = bytes.as_ptr().align_offset(4096);
        match file.write_all_at(&bytes[start..start + len], offset) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    pub(super) fn truncate_down(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(self.at(id))?;
        let size = file.metadata()?.len();
        let to = if self.rng.chance(30) { 0 } else { self.rng.below(size + 1) };
        self.note("truncate", id, &format!("from {size} to {to}"));
        file.set_len(to)
    }

    pub(super) fn truncate_up(&mut self) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(self.at(id))?;
        let size = file.metadata()?.len();
        let to = size + self.rng.skewed(200 << 10);
        self.note("truncate", id, &format!("from {size} up to {to}"));
        file.set_len(to)
    }

    pub(super) fn preallocate(&mut self) -> Outcome {
        let flags = *self.rng.pick(&[FallocateFlags::KEEP_SIZE, FallocateFlags::empty()]);
        self.allocate("preallocate", flags)
    }

    pub(super) fn punch_hole(&mut self) -> Outcome {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let flags = *self.rng.pick(&[hole, hole, FallocateFlags::ZERO_RANGE]);
        self.allocate("punch or zero", flags)
    }

    fn allocate(&mut self, what: &str, flags: FallocateFlags) -> Outcome {
        let Some(id) = self.pick(Kind::File) else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(self.at(id))?;
        let offset = self.rng.below(file.metadata()?.len() + 5000);
        let len = 1 + self.rng.skewed(128 << 10);
        self.note(what, id, &format!("{len} bytes at {offset}, {flags:?}"));
        Ok(fallocate(&file, flags, offset, len)?)
    }

    pub(super) fn tmpfile(&mut self) -> Outcome {
        let dir = self.names.pick_dir(&mut self.rng);
        let name = self.names.fresh(&mut self.rng, dir);
        let made = OpenOptions::new().write(true).custom_flags(OFlags::TMPFILE.bits() as i32).open(self.at(dir));
        let mut file = match made {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => return Ok(()),
            other => other?,
        };
        let len = self.rng.skewed(16 << 10);
        file.write_all(&self.rng.bytes(len as usize))?;
        let id = self.names.add(dir, name, Kind::File);
        self.note("tmpfile and link", id, &format!("{len} bytes"));
        self.link_descriptor(&file, id).inspect_err(|_| self.names.remove(id))
    }
}
