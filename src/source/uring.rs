//! Reading a stream with io_uring, on a thread of its own, ahead of whoever makes sense of it.
//!
//! A FIFO whose writer has closed it is kept open and read on when the next writer comes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Bytes that are read at once, and the size that a pipe is given: as large as an ordinary user's
/// pipe may be.
const PIECE: usize = 1 << 20;
/// Pieces that may wait to be looked at. With them a reader that pauses holds up no writer at once.
const WAITING: usize = 4;
/// How often to look whether somebody has opened a FIFO again.
const LOOK: Duration = Duration::from_millis(20);

/// What comes from the stream.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes, at least one.
    Bytes(Vec<u8>),
    /// The last writer of a FIFO has closed it. More may come from another.
    Closed,
}

/// The reading end. Dropping it ends the reading after the next piece.
pub struct Uring {
    pieces: Receiver<io::Result<Piece>>,
    used: SyncSender<Vec<u8>>,
}

/// Where bytes are sent to, and empty buffers come from.
struct Ends {
    to: SyncSender<io::Result<Piece>>,
    used: Receiver<Vec<u8>>,
}

impl Uring {
    /// Read the file, FIFO or other stream at `path`; `-` is stdin. A FIFO need not have a writer yet.
    ///
    /// # Errors
    /// It is not there, or is a directory, or no thread can be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::start(super::recording::stdin()?, false);
        }
        let meta = std::fs::metadata(path)?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.file_type().is_fifo() {
            return Self::start(File::open(path)?, false);
        }
        let path = path.to_path_buf();
        // To open it waits for its writer.
        Self::spawn(move || File::open(path), true)
    }

    /// Read `file`; `again` says that more may come after its end.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(file: File, again: bool) -> io::Result<Self> {
        Self::spawn(move || Ok(file), again)
    }

    fn spawn(open: impl FnOnce() -> io::Result<File> + Send + 'static, again: bool) -> io::Result<Self> {
        let (to, pieces) = sync_channel(WAITING);
        let (give_back, used) = sync_channel(WAITING + 2);
        let ends = Ends { to, used };
        thread::Builder::new().name("trace-reader".into()).spawn(move || {
            let read = open().and_then(|file| read_all(file, again, &ends));
            if let Err(e) = read {
                // If nobody listens any more, nobody wants to know.
                let _ = ends.to.send(Err(e));
            }
        })?;
        Ok(Self { pieces, used: give_back })
    }

    /// The next piece, if one comes within `time`; `None` if none did.
    ///
    /// # Errors
    /// Those of reading; `UnexpectedEof` once the stream has ended and all of it was handed out.
    pub fn next_within(&self, time: Duration) -> io::Result<Option<Piece>> {
        match self.pieces.recv_timeout(time) {
            Ok(piece) => piece.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next piece if it is there already.
    ///
    /// # Errors
    /// As [`Uring::next_within`].
    pub fn next_now(&self) -> io::Result<Option<Piece>> {
        match self.pieces.try_recv() {
            Ok(piece) => piece.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Hand back a piece's memory, to be filled again.
    pub fn done(&self, bytes: Vec<u8>) {
        // If nobody wants it, it is freed.
        let _ = self.used.try_send(bytes);
    }
}

fn read_all(file: File, again: bool, ends: &Ends) -> io::Result<()> {
    // A larger pipe means fewer switches between its ends; any size works.
    let _ = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETPIPE_SZ(i32::try_from(PIECE).unwrap_or(i32::MAX)));
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => runtime.block_on(with_uring(file, again, ends)),
        Err(e) => {
            tracing::info!("no io_uring here ({e}): the trace is read without");
            without(file, again, ends)
        }
    }
}

/// The loop, by io_uring. Returns at the end, or when nobody listens any more.
async fn with_uring(file: File, again: bool, ends: &Ends) -> io::Result<()> {
    let watched = file.try_clone()?;
    let file = tokio_uring::fs::File::from_std(file);
    let mut at = 0;
    loop {
        let (read, mut buf) = file.read_at(ends.buffer(), at).await;
        let len = match read {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        buf.truncate(len);
        // A pipe has no positions, and does not look at this one.
        at += len as u64;
        if !ends.pass_on(buf, again, &watched)? {
            return Ok(());
        }
    }
}

/// The same loop, by plain reads.
fn without(mut file: File, again: bool, ends: &Ends) -> io::Result<()> {
    let watched = file.try_clone()?;
    loop {
        let mut buf = ends.buffer();
        let len = match file.read(&mut buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        buf.truncate(len);
        if !ends.pass_on(buf, again, &watched)? {
            return Ok(());
        }
    }
}

impl Ends {
    fn buffer(&self) -> Vec<u8> {
        let mut buf = self.used.try_recv().unwrap_or_default();
        buf.resize(PIECE, 0);
        buf
    }

    /// Hand on what was read; nothing means that the end was reached. `false`: stop reading.
    fn pass_on(&self, buf: Vec<u8>, again: bool, file: &File) -> io::Result<bool> {
        if !buf.is_empty() {
            return Ok(self.to.send(Ok(Piece::Bytes(buf))).is_ok());
        }
        Ok(again && self.to.send(Ok(Piece::Closed)).is_ok() && wait_for_writer(file)?)
    }
}

/// Wait until a FIFO without a writer has bytes again. It stays open meanwhile, so nothing that
/// a short-lived writer leaves in it is lost.
fn wait_for_writer(file: &File) -> io::Result<bool> {
    loop {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO)?;
        let [fd] = fds;
        if fd.revents().is_some_and(|r| r.contains(PollFlags::POLLIN)) {
            return Ok(true);
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests;
