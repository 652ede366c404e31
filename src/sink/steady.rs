//! A sink on this host that may fail, a file or a pipe, and must not end what it tells of.
//!
//! What cannot be written is dropped, and the disk goes on being served. When it can be written
//! again, a `gap` stands first.

use std::io;
use std::time::{Duration, Instant};

use super::Sink;
use crate::event::{Body, Event, Origin};
use crate::units::Timestamp;

/// A sink that failed is tried again this much later.
const PAUSE: Duration = Duration::from_millis(250);

/// Takes everything.
pub struct Steady<S> {
    inner: S,
    name: String,
    /// Since when it fails.
    failed: Option<Instant>,
    lost: u64,
    last: Option<Event>,
}

impl<S: Sink> Steady<S> {
    /// `name` is for messages.
    pub fn new(inner: S, name: impl Into<String>) -> Self {
        Self { inner, name: name.into(), failed: None, lost: 0, last: None }
    }

    /// Say once that it fails, or works again.
    fn note(&mut self, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => {
                if self.failed.take().is_some() {
                    tracing::warn!("{}: events can be written again", self.name);
                }
                true
            }
            Err(e) => {
                if self.failed.is_none() {
                    tracing::warn!("{}: cannot write events: {e}: the disk is served on, tried again", self.name);
                }
                self.failed = Some(Instant::now());
                false
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.failed.is_some_and(|t| t.elapsed() < PAUSE)
    }

    /// Tell of what was dropped; whether that is done.
    fn tell_gap(&mut self) -> bool {
        let Some(last) = self.last.as_ref().filter(|_| self.lost > 0) else { return true };
        let body = Body::Missed { reason: "they could not be written".into(), events: self.lost };
        let blank = Event::new(Timestamp::now(), Origin::Resync, body);
        let gap = Event { seq: last.seq, vm: last.vm.clone(), ..blank };
        // What the inner sink took before must go first.
        let told = self.inner.flush().and_then(|()| self.inner.emit(&gap)).and_then(|()| self.inner.flush());
        let told = self.note(told);
        if told {
            tracing::warn!("{}: {} events were dropped", self.name, self.lost);
            self.lost = 0;
        }
        told
    }

    fn lose(&mut self, event: &Event) {
        self.lost += 1;
        self.last = Some(Event { path: None, body: Body::Link, ..event.clone() });
    }
}

impl<S: Sink> Sink for Steady<S> {
    fn emit(&mut self, event: &Event) -> io::Result<()> {
        if self.is_paused() || !self.tell_gap() {
            self.lose(event);
            return Ok(());
        }
        let result = self.inner.emit(event);
        if result.is_err() {
            self.lose(event);
        }
        // That an event was taken into a buffer does not mean that it can be written.
        if result.is_err() || self.failed.is_none() {
            self.note(result);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.is_paused() {
            let flushed = self.inner.flush();
            if self.note(flushed) {
                self.tell_gap();
            }
        }
        Ok(())
    }

    fn aside(&mut self, aside: &Event) -> io::Result<()> {
        // Nothing was written if there is no error: most sinks have no use for it.
        if let Err(e) = self.inner.aside(aside) {
            self.note(Err(e));
        }
        Ok(())
    }

    fn wants_payload(&self) -> bool {
        self.inner.wants_payload()
    }

    fn close(&mut self) -> io::Result<()> {
        let closed = self.inner.flush();
        if self.note(closed) {
            self.tell_gap();
        }
        if self.failed.is_some() {
            tracing::warn!("{}: {} events were never written, and those of the last transaction", self.name, self.lost);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sink::jsonl::Jsonl;

    /// A disk that is full at times.
    #[derive(Clone, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        full: Arc<Mutex<bool>>,
    }

    impl io::Write for Disk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if *self.full.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_nothing_and_leaves_a_gap_that_says_how_long() {
        let disk = Disk::default();
        let mut sink = Steady::new(Jsonl::new(disk.clone()), "test");
        let mut seq = 0;
        let mut send = |sink: &mut Steady<_>, n| {
            for _ in 0..n {
                seq += 1;
                let e = Event::new(Timestamp::default(), Origin::Direct, Body::Link);
                sink.emit(&Event { seq, ..e }).unwrap();
            }
            sink.flush().unwrap();
        };
        send(&mut sink, 10);
        *disk.full.lock().unwrap() = true;
        send(&mut sink, 5000);
        *disk.full.lock().unwrap() = false;
        std::thread::sleep(PAUSE);
        send(&mut sink, 10);
        sink.close().unwrap();
        let bytes = disk.bytes.lock().unwrap();
        let mut next = 1;
        for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let v: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert_eq!(v["seq"], next + v["events"].as_u64().map_or(0, |n| n - 1), "{v}");
            next = v["seq"].as_u64().unwrap() + 1;
        }
        assert_eq!(next, 5021);
    }
}
