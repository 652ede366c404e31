//! Writing a large file from a second thread, so that the disk works while documents are made.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes that change hands at once.
const PIECE: usize = 1 << 20;
/// Pieces that may wait.
const WAITING: usize = 8;
/// Bytes after which the disk is asked to write what it has, so that little is left for the end.
const SYNC: usize = 32 << 20;

/// Gathers pieces for the other thread.
pub struct Behind {
    piece: Vec<u8>,
    to: SyncSender<Vec<u8>>,
    /// Written pieces come back: fresh memory would cost a page fault for every 4 KiB.
    back: Receiver<Vec<u8>>,
}

impl Write for Behind {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.piece.len() + buf.len() > PIECE {
            self.flush()?;
        }
        self.piece.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let empty = self.back.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
        let piece = std::mem::replace(&mut self.piece, empty);
        self.to.send(piece).map_err(|_| io::Error::other("the writing thread has ended"))
    }
}

/// Run `make` with a writer to `file`. All is on the disk when this returns.
///
/// Errors: those of writing first, then those of `make`.
pub fn write<T>(file: &File, make: impl FnOnce(&mut Behind) -> io::Result<T>) -> io::Result<T> {
    let (to, from) = sync_channel(WAITING);
    let (give, back) = sync_channel(WAITING);
    thread::scope(|scope| {
        let writer =
            thread::Builder::new().name("index".into()).spawn_scoped(scope, move || drain(&from, &give, file))?;
        let mut behind = Behind { piece: Vec::with_capacity(PIECE), to, back };
        let made = make(&mut behind).and_then(|made| behind.flush().map(|()| made));
        drop(behind);
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread failed")));
        written.and(made)
    })
}

fn drain(from: &Receiver<Vec<u8>>, back: &SyncSender<Vec<u8>>, mut file: &File) -> io::Result<()> {
    let mut since = 0;
    for mut piece in from {
        file.write_all(&piece)?;
        since += piece.len();
        piece.clear();
        // Nobody needs it back: then it is freed.
        let _ = back.try_send(piece);
        if since >= SYNC {
            file.sync_data()?;
            since = 0;
        }
    }
    file.sync_all()
}
