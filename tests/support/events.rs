//! The stream of events as it grows in a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// As long as nothing comes, all has come.
const QUIET: Duration = Duration::from_millis(300);

/// A reader that has got as far as `offset`.
pub struct Events {
    path: PathBuf,
    offset: u64,
}

impl Events {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), offset: 0 }
    }

    /// Wait until an event holds `marker` and then nothing came for a while; all whole lines that
    /// are new since the last call.
    pub fn settled(&mut self, marker: &str) -> Result<String, String> {
        let start = Instant::now();
        let mut text = String::new();
        let mut quiet_since = Instant::now();
        while !text.contains(marker) || quiet_since.elapsed() < QUIET {
            if start.elapsed() > PATIENCE {
                return Err(format!("no event with {marker} within {PATIENCE:?}; {} lines came", text.lines().count()));
            }
            let more = self.read_new()?;
            if more.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            } else {
                quiet_since = Instant::now();
                text += &more;
            }
        }
        Ok(text)
    }

    /// All whole lines that are new since the last call.
    pub fn read_new(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut bytes)
        });
        read.map_err(|e| format!("{}: {e}", self.path.display()))?;
        bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1));
        self.offset += bytes.len() as u64;
        String::from_utf8(bytes).map_err(|e| format!("events are not UTF-8: {e}"))
    }
}
