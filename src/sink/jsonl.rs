//! Events as JSON Lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Sink;
use crate::event::Event;

/// One JSON object a line, to stdout or a file.
pub struct Jsonl {
    to: BufWriter<Box<dyn Write + Send>>,
}

impl Jsonl {
    /// To `path`, which is created or emptied; `-` is stdout.
    pub fn open(path: &Path) -> io::Result<Self> {
        let to: Box<dyn Write + Send> =
            if path.as_os_str() == "-" { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
        Ok(Self { to: BufWriter::with_capacity(1 << 16, to) })
    }
}

impl Sink for Jsonl {
    fn emit(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, event)?;
        self.to.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
