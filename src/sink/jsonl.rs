//! Events as JSON Lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::Sink;
use crate::event::Event;

/// Lines are written when this much waits, or at the end of a transaction.
const BUFFER: usize = 64 << 10;

/// One JSON object a line, to stdout or a file. A line that could not be written is kept and tried
/// again at the next flush; while that fails nothing more is taken, so nothing is lost silently.
pub struct Jsonl<W = File> {
    to: W,
    with_data: bool,
    waiting: Vec<u8>,
    /// So many bytes of them, of the first line, have been written.
    begun: usize,
}

/// Create or empty the file at `path`; `-` is stdout.
fn target(path: &Path) -> io::Result<File> {
    if path.as_os_str() == "-" { Ok(io::stdout().as_fd().try_clone_to_owned()?.into()) } else { File::create(path) }
}

/// A buffered writer to `path`, which is created or emptied; `-` is stdout.
pub fn create(path: &Path) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(BUFFER, target(path)?))
}

impl Jsonl {
    /// To `path`, which is created or emptied; `-` is stdout.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(target(path)?))
    }
}

impl<W: Write + Send> Jsonl<W> {
    /// To `to`.
    pub fn new(to: W) -> Self {
        Self { to, with_data: true, waiting: Vec::with_capacity(BUFFER), begun: 0 }
    }

    /// The same; `write` events have their bytes only if `with_data`.
    pub fn with_data(self, with_data: bool) -> Self {
        Self { with_data, ..self }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let mut done = self.begun;
        let result = loop {
            let rest = self.waiting.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.to.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => done += len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        let whole = self.waiting.get(..done).and_then(|w| w.iter().rposition(|b| *b == b'\n')).map_or(0, |at| at + 1);
        self.waiting.drain(..whole);
        // Whoever reads from a pipe next has not seen the beginning of the line.
        let has_reader = !matches!(&result, Err(e) if e.kind() == io::ErrorKind::BrokenPipe);
        self.begun = if has_reader { done - whole } else { 0 };
        result
    }
}

impl<W: Write + Send> Sink for Jsonl<W> {
    fn emit(&mut self, event: &Event) -> io::Result<()> {
        if self.waiting.len() >= BUFFER {
            self.write_waiting()?;
        }
        let taken = self.waiting.len();
        let line = if self.with_data {
            serde_json::to_writer(&mut self.waiting, event)
        } else {
            serde_json::to_writer(&mut self.waiting, &event.without_data())
        };
        if let Err(e) = line {
            self.waiting.truncate(taken);
            return Err(e.into());
        }
        self.waiting.push(b'\n');
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_waiting()?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::{Body, Origin};
    use crate::units::Timestamp;

    /// Takes `room` bytes, in bites of up to 100, and is full then.
    #[derive(Clone, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: Arc<Mutex<usize>>,
    }

    impl Write for Disk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let len = buf.len().min(*room).min(100);
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= len;
            self.bytes.lock().unwrap().extend_from_slice(&buf[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn event(seq: u64) -> Event {
        let body = Body::Gap { reason: "test".into(), bytes: 1 };
        Event { seq, vm: "vm".into(), ..Event::new(Timestamp::default(), Origin::Direct, body) }
    }

    #[test]
    fn a_full_disk_is_told_and_loses_nothing() {
        let disk = Disk::default();
        *disk.room.lock().unwrap() = 1050;
        let mut sink = Jsonl::new(disk.clone());
        let taken = (1..=10_000).take_while(|seq| sink.emit(&event(*seq)).is_ok()).count();
        assert!(taken < 10_000 && sink.flush().is_err());
        *disk.room.lock().unwrap() = usize::MAX;
        for seq in taken + 1..=taken + 5 {
            sink.emit(&event(seq as u64)).unwrap();
        }
        sink.flush().unwrap();
        let bytes = disk.bytes.lock().unwrap();
        let seqs: Vec<_> = bytes
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice::<serde_json::Value>(l).unwrap()["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs, (1..=taken as u64 + 5).collect::<Vec<_>>());
    }
}
