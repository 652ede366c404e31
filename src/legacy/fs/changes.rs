//! Whether an image was written to, without reading it: the time of a file's last change, or the
//! kernel's count of what was written to a block device.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Looks at an image.
#[derive(Debug)]
pub struct Changes {
    file: File,
    /// The kernel's statistics, of a block device.
    counts: Option<PathBuf>,
    last: Option<Mark>,
}

/// What differs after a write. A clock tick has many writes: a mark is trusted once it is past.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Mark {
    Time((i64, i64)),
    Count(String),
}

impl Changes {
    /// Of `image`, from now on.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn of(image: &Path) -> io::Result<Self> {
        let file = File::open(image)?;
        let meta = file.metadata()?;
        let counts = meta.file_type().is_block_device().then(|| counts(&meta));
        let mut this = Self { file, counts, last: None };
        this.last = this.mark();
        Ok(this)
    }

    /// Whether it has changed since the last time; `true` if nobody can tell.
    pub fn came(&mut self) -> bool {
        let now = self.mark();
        let came = now.is_none() || now != self.last;
        self.last = now;
        came
    }

    fn mark(&self) -> Option<Mark> {
        match &self.counts {
            // Reads, their sectors and times come first; then what was written, and discarded.
            Some(path) => {
                let text = std::fs::read_to_string(path).ok()?;
                let fields: Vec<&str> = text.split_whitespace().collect();
                Some(Mark::Count(format!("{:?} {:?}", fields.get(4..7), fields.get(11..14))))
            }
            None => self.file.metadata().ok().map(|m| Mark::Time((m.mtime(), m.mtime_nsec()))),
        }
    }
}

fn counts(meta: &Metadata) -> PathBuf {
    let device = meta.rdev();
    PathBuf::from(format!("/sys/dev/block/{}:{}/stat", nix::sys::stat::major(device), nix::sys::stat::minor(device)))
}
