//! What the tests of both readers share.

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::recording::Recording;
use super::stream::Replay;
use crate::image::ReadAt;
use crate::interest::Interest;
use crate::overlay::Overlay;
use crate::write::{Write, WriteOp};

/// Size of the test disk.
pub const SIZE: u64 = 8 << 20;

/// A replay of `bytes` over a disk of zeros, from a file or from a pipe, with `wanted` of interest.
pub fn replay(bytes: &[u8], pipe: bool, wanted: impl IntoIterator<Item = Range<u64>>) -> (Replay, Arc<Overlay>) {
    let recording = if pipe {
        Recording::from_pipe(Box::new(Trickle(bytes.to_vec(), 0))).unwrap()
    } else {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Recording::open(file.path()).unwrap()
    };
    let base: Vec<u8> = vec![0; usize::try_from(SIZE).unwrap()];
    let disk = Arc::new(Overlay::new(Arc::new(base), recording.store().unwrap()));
    let interest = Arc::new(Interest::new(SIZE));
    for r in wanted {
        interest.set(r, true);
    }
    (Replay::new(recording, interest, disk.clone()), disk)
}

/// Gives a few bytes at a time, as a slow pipe would.
struct Trickle(Vec<u8>, usize);

impl std::io::Read for Trickle {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = (self.0.len() - self.1).min(buf.len()).min(1 + self.1 % 7777);
        buf[..len].copy_from_slice(&self.0[self.1..self.1 + len]);
        self.1 += len;
        Ok(len)
    }
}

/// All bytes of the disk.
pub fn content(disk: &Overlay) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

/// The wanted pieces of a write.
pub fn pieces(w: &Write) -> Vec<(u64, Vec<u8>)> {
    match &w.op {
        WriteOp::Data { pieces, .. } => pieces.iter().map(|(at, b)| (*at, b.to_vec())).collect(),
        _ => Vec::new(),
    }
}
