//! The disk as it stood after the write that the engine is at, whatever the guest wrote since: for
//! `write` events with exactly the bytes that were written.
//!
//! The tap copies all bytes. They are put into a nameless sparse file, each at its place on the
//! disk, before the engine hears of their write; the engine reads the image through them. The file
//! never grows beyond the disk's size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::feed::{Lost, pieces};
use crate::image::Disk;
use crate::interest::Interest;
use crate::overlay::Overlay;
use crate::write::{Write, WriteOp};

/// What was written, over the image.
pub struct Exact {
    overlay: Arc<Overlay>,
    store: File,
    is_full: bool,
}

impl Exact {
    /// Over `image`, with nothing written yet. Errors: the temporary file.
    pub fn over(image: Disk) -> io::Result<Self> {
        let store = tempfile::tempfile()?;
        Ok(Self { overlay: Arc::new(Overlay::new(image, store.try_clone()?)), store, is_full: false })
    }

    /// The disk for the engine.
    pub fn disk(&self) -> Disk {
        self.overlay.clone()
    }

    /// An interest map for the tap: all bytes of the disk.
    pub fn all_bytes(&self) -> Arc<Interest> {
        let size = self.disk().size();
        let all = Interest::new(size);
        all.set(0..size, true);
        Arc::new(all)
    }

    /// The disk changes as `w` says. What the engine is to get: of the bytes only the `wanted` ones.
    pub fn apply(&mut self, w: Write, wanted: &Interest) -> Write {
        let op = match w.op {
            WriteOp::Data { offset, len, pieces: all } => {
                all.iter().for_each(|(at, bytes)| self.put(*at, bytes));
                let pieces = all.iter().flat_map(|(at, bytes)| pieces(wanted, *at, bytes)).collect();
                WriteOp::Data { offset, len, pieces }
            }
            WriteOp::Zero(range) => {
                self.overlay.zero(range.clone());
                WriteOp::Zero(range)
            }
            WriteOp::Discard(range) => {
                self.overlay.forget(range.clone());
                WriteOp::Discard(range)
            }
            WriteOp::Flush => WriteOp::Flush,
        };
        Write { op, ..w }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let range = at..at.saturating_add(bytes.len() as u64);
        match self.store.write_all_at(bytes, at) {
            Ok(()) => self.overlay.put(range, at),
            Err(e) => {
                // Better the bytes of now than none.
                self.overlay.forget(range);
                if !std::mem::replace(&mut self.is_full, true) {
                    tracing::warn!("cannot keep a copy of what is written (TMPDIR): {e}: events may have later bytes");
                }
            }
        }
    }

    /// These writes never came by: the image has them.
    pub fn lose(&self, lost: &Lost) {
        lost.ranges.iter().for_each(|r| self.overlay.forget(r));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Timestamp;

    #[test]
    fn later_writes_do_not_show() {
        let mut image = vec![0; 64 << 10];
        image[4096..4100].copy_from_slice(b"late");
        let mut exact = Exact::over(Arc::new(image)).unwrap();
        let wanted = Interest::new(64 << 10);
        wanted.set(8192..12288, true);
        let data = |offset: u64, bytes: &[u8]| {
            let op = WriteOp::Data { offset, len: bytes.len() as u64, pieces: vec![(offset, bytes.into())] };
            Write { seq: 1, epoch: 0, time: Timestamp::default(), op }
        };
        let read = |exact: &Exact| {
            let mut four = [0; 4];
            exact.disk().read_at(4096, &mut four).unwrap();
            four
        };
        let given = exact.apply(data(4096, &[7; 8192]), &wanted);
        let WriteOp::Data { pieces, len, .. } = given.op else { panic!() };
        assert_eq!((len, pieces.len(), pieces[0].0, pieces[0].1.len()), (8192, 1, 8192, 4096));
        assert_eq!(read(&exact), [7; 4]);
        let mut lost = Lost { writes: 1, ..Lost::default() };
        lost.ranges.insert(4096..8192);
        exact.lose(&lost);
        assert_eq!(&read(&exact), b"late");
    }
}
