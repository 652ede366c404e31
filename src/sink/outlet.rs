//! A sink that may be slow or away: events are turned into records on the engine's thread, and
//! delivered by a thread of its own. The engine never waits for it, unless it was told to.

pub mod queue;
pub mod record;
pub mod spool;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use self::queue::{Limits, Queue};
use self::record::{Lost, Record};
use self::spool::{Spool, SpoolOptions};
use self::worker::Worker;
use super::Sink;
use super::server::Trouble;
use crate::event::Event;
use crate::units::Timestamp;

/// Turns events into what is sent.
pub trait Encode: Send {
    /// The fields of an event's record; `None` if nothing is to be sent.
    fn event(&mut self, event: &Event) -> Option<Box<[u8]>>;
    /// The same for an aside.
    fn aside(&mut self, _aside: &Event) -> Option<Box<[u8]>> {
        None
    }
    /// Whether `write` events must carry their bytes.
    fn wants_payload(&self) -> bool {
        false
    }
}

/// Sends records.
pub trait Deliver: Send {
    /// Send these in this order. How many, from the first on, are known to have arrived: at least one.
    fn deliver(&mut self, records: &[Record]) -> Result<usize, Trouble>;
    /// Word of events that were dropped. Its `seq` is that of the last of them.
    fn gap(&self, lost: &Lost) -> Record;
    /// Nothing is to be sent just now.
    fn idle(&mut self) {}
    /// Nothing more will be sent.
    fn end(&mut self) {}
}

/// What happens when too much waits.
#[derive(Clone, Debug)]
pub enum WhenFull {
    /// The engine waits, and so does what feeds it. When nothing arrives for this long it is an error.
    Wait(Duration),
    /// Events go to a spool on disk, if there is one. When that is full too, the oldest are dropped.
    Spool(Option<SpoolOptions>),
}

/// How to keep what waits.
#[derive(Clone, Debug)]
pub struct OutletOptions {
    /// In memory.
    pub memory: Limits,
    /// And then.
    pub when_full: WhenFull,
}

impl OutletOptions {
    /// Wait, with a minute's patience.
    pub fn waiting() -> Self {
        Self { memory: Limits::default(), when_full: WhenFull::Wait(Duration::from_secs(60)) }
    }

    /// Never wait.
    pub fn spooling(spool: Option<SpoolOptions>) -> Self {
        Self { memory: Limits::default(), when_full: WhenFull::Spool(spool) }
    }
}

/// When the program ends, what waits may take this long to be delivered, if there is a spool for the rest.
const LAST: Duration = Duration::from_secs(5);

/// Events were taken that never arrived.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Undelivered(pub String);

/// The sink.
pub struct Outlet {
    run: u64,
    last_seq: u64,
    encode: Box<dyn Encode>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Result<(), Undelivered>>>,
}

impl Outlet {
    /// Start the thread. `name` is for messages, `spool` names the files.
    ///
    /// Errors: the spool's folder cannot be used, or is in use.
    pub fn start(
        name: &str,
        spool: &str,
        options: &OutletOptions,
        encode: Box<dyn Encode>,
        deliver: Box<dyn Deliver>,
    ) -> io::Result<Self> {
        let now = u64::try_from(Timestamp::now().as_nanos() / 1_000_000).unwrap_or(1);
        let (queue, run, patience) = match &options.when_full {
            WhenFull::Wait(time) => (Queue::waiting(options.memory), now, (*time, *time)),
            WhenFull::Spool(None) => (Queue::spooling(options.memory, None), now, (Duration::MAX, LAST)),
            WhenFull::Spool(Some(o)) => {
                let spool = Spool::open(o, spool)?;
                let run = spool.last_run().map_or(now, |last| now.max(last + 1));
                (Queue::spooling(options.memory, Some(spool)), run, (Duration::MAX, LAST))
            }
        };
        let queue = Arc::new(queue);
        let worker = Worker::new(name.to_owned(), queue.clone(), deliver, patience);
        let thread = std::thread::Builder::new().name("sink".into()).spawn(move || worker.run())?;
        Ok(Self { run, last_seq: 0, encode, queue, thread: Some(thread) })
    }

    fn push(&self, seq: u64, bytes: Box<[u8]>) -> io::Result<()> {
        let pushed = self.queue.push(Record { run: self.run, seq, bytes });
        pushed.map_err(|why| io::Error::other(Undelivered(why)))
    }
}

impl Sink for Outlet {
    fn emit(&mut self, event: &Event) -> io::Result<()> {
        self.last_seq = event.seq;
        self.encode.event(event).map_or(Ok(()), |bytes| self.push(event.seq, bytes))
    }

    fn aside(&mut self, aside: &Event) -> io::Result<()> {
        self.encode.aside(aside).map_or(Ok(()), |bytes| self.push(aside.seq, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush();
        Ok(())
    }

    fn wants_payload(&self) -> bool {
        self.encode.wants_payload()
    }

    fn ending(&mut self) {
        self.queue.close();
    }

    fn close(&mut self) -> io::Result<()> {
        self.queue.close();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.map_err(io::Error::other),
            Some(Err(_)) => Err(io::Error::other(Undelivered("the sink's thread failed".into()))),
            None => Ok(()),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        let _ = self.close();
    }
}
