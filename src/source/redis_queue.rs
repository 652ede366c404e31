//! The queue of writes between `gray-ndb-queuer` and `gray-inferencer`: the Redis list `writequeue`.
//!
//! The queuer appends at the right and the inferencer takes from the left. An element is a record
//! of the trace, that is a header `{ sector_num: i64, nb_sectors: i32 }` and the bytes, and behind
//! it, which a reader of the bare record may ignore, `{ stream: u64, seq: u64, time: i64 }`: which
//! run of the queuer it comes from, its number therein from 1 on, and when it was read (nanoseconds
//! since 1970). All little-endian. Without sectors the sector number says what it is: negative, so
//! many writes are missing here; [`CLOSED`], the trace's writer has closed it; [`ENDED`], it will
//! never open it again.
//!
//! The list holds a bounded number of bytes: when it is full the queuer stops reading its trace
//! until the inferencer has taken some. Nothing is dropped.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, ErrorKind, RedisError, ServerErrorKind};

use super::trace::{HEADER, SECTOR};
use crate::sink::server::{Servers, Trouble};
use crate::units::Timestamp;

/// The list's name.
pub const KEY: &str = "writequeue";
/// Sector number of the element that says that the writer has closed the trace.
pub const CLOSED: i64 = 0;
/// The same, for good.
pub const ENDED: i64 = 1;
/// Bytes behind the record.
const TRAILER: usize = 24;
/// What an element costs in the server besides its bytes, about.
const OVERHEAD: usize = 64;
/// How often to look whether the inferencer has taken something.
const LOOK: Duration = Duration::from_millis(2);
/// How long to wait before a server that is away is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// Elements that are taken at once.
const TAKE: usize = 64;

/// What one element says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// These bytes were written at this byte of the disk.
    Write(u64, Vec<u8>),
    /// So many writes are missing.
    Lost(u64),
    /// The trace was closed by its writer.
    Closed,
    /// No more will come.
    Ended,
}

/// An element with its origin, which elements of other producers lack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// What it says.
    pub entry: Entry,
    /// The queuer's run and the number therein.
    pub origin: Option<(u64, u64)>,
    /// When it was read from the trace.
    pub time: Option<Timestamp>,
}

impl Element {
    /// As bytes. The write's bytes are a multiple of 512, and fewer than 2^31 sectors.
    pub fn encode(entry: &Entry, stream: u64, seq: u64, time: Timestamp) -> Vec<u8> {
        let (sector, data): (i64, &[u8]) = match entry {
            Entry::Write(at, data) => (i64::try_from(at / SECTOR).unwrap_or(i64::MAX), data),
            Entry::Lost(n) => (i64::try_from(*n).unwrap_or(i64::MAX).saturating_neg().min(-1), &[]),
            Entry::Closed => (CLOSED, &[]),
            Entry::Ended => (ENDED, &[]),
        };
        let sectors = i32::try_from(data.len() as u64 / SECTOR).unwrap_or(i32::MAX);
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let mut bytes = Vec::with_capacity(HEADER + data.len() + TRAILER);
        bytes.extend_from_slice(&sector.to_le_bytes());
        bytes.extend_from_slice(&sectors.to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&stream.to_le_bytes());
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&nanos.to_le_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// It is no record; why.
    pub fn decode(mut bytes: Vec<u8>) -> Result<Self, String> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or("it has no header")?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = *header;
        let sector = i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = i32::from_le_bytes([n0, n1, n2, n3]);
        let len = u64::try_from(sectors).map_err(|_| format!("{sectors} sectors"))?.saturating_mul(SECTOR);
        let len = usize::try_from(len).map_err(|e| e.to_string())?;
        let (_, trailer) =
            rest.split_at_checked(len).ok_or_else(|| format!("{} bytes for {sectors} sectors", rest.len()))?;
        let (origin, time) = match trailer.first_chunk::<TRAILER>() {
            Some(t) if trailer.len() == TRAILER => trailer_of(t),
            None if trailer.is_empty() => (None, None),
            _ => return Err(format!("{} bytes behind the record", trailer.len())),
        };
        let entry = match (sector, sectors) {
            (n, 0) if n < 0 => Entry::Lost(n.unsigned_abs()),
            (CLOSED, 0) => Entry::Closed,
            (ENDED, 0) => Entry::Ended,
            (n, _) => {
                let at =
                    u64::try_from(n).ok().and_then(|n| n.checked_mul(SECTOR)).ok_or_else(|| format!("sector {n}"))?;
                bytes.drain(..HEADER);
                bytes.truncate(len);
                Entry::Write(at, bytes)
            }
        };
        Ok(Self { entry, origin, time })
    }
}

fn trailer_of(t: &[u8; TRAILER]) -> (Option<(u64, u64)>, Option<Timestamp>) {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3, c4, c5, c6, c7] = *t;
    let stream = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let seq = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
    let nanos = i64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    let time = Timestamp {
        secs: nanos.div_euclid(1_000_000_000),
        nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
    };
    (Some((stream, seq)), Some(time))
}

/// One end of the queue.
struct End {
    servers: Servers,
    connection: Option<Connection>,
    /// The server's trouble has been told.
    told: bool,
}

impl End {
    fn new(servers: Servers) -> Result<Self, Trouble> {
        let connection = Some(servers.any()?);
        Ok(Self { servers, connection, told: false })
    }

    /// Run `f`, on a new connection if the last one broke. `None`: the server is away or cannot do
    /// it now; that was told, and waited for a little.
    ///
    /// # Errors
    /// The server refuses, and would again.
    fn run<T>(&mut self, f: impl FnOnce(&mut Connection) -> redis::RedisResult<T>) -> io::Result<Option<T>> {
        let mut connection = match self.connection.take().map_or_else(|| self.servers.any(), Ok) {
            Ok(connection) => connection,
            Err(trouble) => return Ok(self.wait(trouble)),
        };
        match f(&mut connection) {
            Ok(value) => {
                self.connection = Some(connection);
                if std::mem::take(&mut self.told) {
                    tracing::warn!("Redis {}: is back", self.servers.name());
                }
                Ok(Some(value))
            }
            Err(e) if is_for_good(&e) => Err(io::Error::other(e)),
            Err(e) => Ok(self.wait(e.into())),
        }
    }

    fn wait<T>(&mut self, trouble: Trouble) -> Option<T> {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("Redis {}: {trouble}: waiting until that is over", self.servers.name());
        }
        thread::sleep(AGAIN);
        None
    }
}

/// Whether waiting will not help.
fn is_for_good(e: &RedisError) -> bool {
    match e.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Server(ServerErrorKind::NoPerm) => true,
        _ => matches!(e.code(), Some("ERR" | "NOAUTH" | "NOPERM" | "WRONGTYPE")),
    }
}

/// The end that appends.
pub struct Producer {
    end: End,
    limit: usize,
    stream: u64,
    seq: u64,
    /// Encoded, not sent yet.
    batch: Vec<Vec<u8>>,
    batch_bytes: usize,
    /// Sizes of elements that are in the list as far as we know, oldest first.
    sizes: VecDeque<usize>,
    queued: usize,
    waits: u64,
}

impl Producer {
    /// A queue of up to `limit` bytes.
    ///
    /// # Errors
    /// The server cannot be used.
    pub fn new(servers: Servers, limit: usize) -> Result<Self, Trouble> {
        let stream = u64::try_from(Timestamp::now().as_nanos()).unwrap_or(0);
        Ok(Self {
            end: End::new(servers)?,
            limit,
            stream,
            seq: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            sizes: VecDeque::new(),
            queued: 0,
            waits: 0,
        })
    }

    /// How often it waited for room.
    pub fn waits(&self) -> u64 {
        self.waits
    }

    /// How many elements were appended or wait to be.
    pub fn elements(&self) -> u64 {
        self.seq
    }

    /// Append an element, at the latest with the next [`Producer::flush`].
    ///
    /// # Errors
    /// The server refuses for good.
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.seq += 1;
        let bytes = Element::encode(entry, self.stream, self.seq, Timestamp::now());
        self.batch_bytes += bytes.len() + OVERHEAD;
        self.batch.push(bytes);
        // A quarter of the queue at once keeps both ends busy.
        if self.batch_bytes >= (self.limit / 4).min(4 << 20) {
            self.flush()?;
        }
        Ok(())
    }

    /// Append what was gathered; waits for room.
    ///
    /// # Errors
    /// The server refuses for good.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.wait_for_room()?;
        let batch = std::mem::take(&mut self.batch);
        let mut command = redis::cmd("RPUSH");
        command.arg(KEY).arg(&batch);
        let length = loop {
            // A command whose answer got lost may have been carried out: its elements come twice, and
            // whoever takes them sees that by their numbers.
            if let Some(length) = self.end.run(|c| command.query::<usize>(c))? {
                break length;
            }
        };
        self.sizes.extend(batch.iter().map(|b| b.len() + OVERHEAD));
        self.queued += std::mem::take(&mut self.batch_bytes);
        self.remains(length);
        Ok(())
    }

    /// The list has `length` elements: those that were before them have been taken.
    fn remains(&mut self, length: usize) {
        while self.sizes.len() > length {
            self.queued = self.queued.saturating_sub(self.sizes.pop_front().unwrap_or(0));
        }
    }

    fn wait_for_room(&mut self) -> io::Result<()> {
        let mut waited = false;
        while self.queued > 0 && self.queued + self.batch_bytes > self.limit {
            if waited {
                thread::sleep(LOOK);
            }
            if let Some(length) = self.end.run(|c| redis::cmd("LLEN").arg(KEY).query::<usize>(c))? {
                self.remains(length);
            }
            self.waits += u64::from(!std::mem::replace(&mut waited, true));
        }
        Ok(())
    }
}

/// The end that takes.
pub struct Consumer {
    end: End,
    taken: VecDeque<Vec<u8>>,
}

impl Consumer {
    /// Of this server.
    ///
    /// # Errors
    /// The server cannot be used.
    pub fn new(servers: Servers) -> Result<Self, Trouble> {
        Ok(Self { end: End::new(servers)?, taken: VecDeque::new() })
    }

    /// Whether the next element is here already.
    pub fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    /// The next element; `None` if none comes within `time`.
    ///
    /// # Errors
    /// The server refuses for good.
    pub fn next_within(&mut self, time: Duration) -> io::Result<Option<Vec<u8>>> {
        let until = Instant::now() + time;
        loop {
            if let Some(bytes) = self.taken.pop_front() {
                return Ok(Some(bytes));
            }
            let take = |c: &mut Connection| redis::cmd("LPOP").arg(KEY).arg(TAKE).query::<Option<Vec<Vec<u8>>>>(c);
            if let Some(Some(taken)) = self.end.run(take)? {
                self.taken = taken.into();
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let wait = |c: &mut Connection| {
                redis::cmd("BLPOP").arg(KEY).arg(left.as_secs_f64()).query::<Option<(String, Vec<u8>)>>(c)
            };
            if let Some(Some((_, bytes))) = self.end.run(wait)? {
                return Ok(Some(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn elements_come_back(kind in 0..4, sector in 0..1_u64 << 40, n in 1_usize..5, seq: u64, secs in 0_i64..1 << 33) {
            let entry = match kind {
                0 => Entry::Write(sector * 512, vec![7; n * 512]),
                1 => Entry::Lost(sector + 1),
                2 => Entry::Closed,
                _ => Entry::Ended,
            };
            let time = Timestamp { secs, nanos: 5 };
            let bytes = Element::encode(&entry, 3, seq, time);
            let bare = bytes[..bytes.len() - TRAILER].to_vec();
            prop_assert_eq!(Element::decode(bytes).unwrap(), Element { entry: entry.clone(), origin: Some((3, seq)), time: Some(time) });
            prop_assert_eq!(Element::decode(bare).unwrap(), Element { entry, origin: None, time: None });
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Element::decode(bytes);
        }
    }
}
