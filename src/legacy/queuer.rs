//! `gray-ndb-queuer [disk.bson] disk.fifo 4`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use super::{Common, RedisArgs, bad_index, database, no_redis};
use crate::cli::Failure;
use crate::cli::signals::Signals;
use crate::index::read;
use crate::source::live_trace::{Found, LiveTrace};
use crate::source::redis_queue::{Entry, Producer};
use crate::source::stream::StreamError;

/// How often to look for signals while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// Put the writes of a trace into the queue in Redis.
#[derive(Parser, Debug)]
#[command(name = "gray-ndb-queuer", version, max_term_width = 100)]
#[command(override_usage = "gray-ndb-queuer [OPTIONS] [INDEX] TRACE DATABASE")]
#[command(after_help = "Examples:\n  gray-ndb-queuer disk.bson disk.fifo 4\n  gray-ndb-queuer - 4 < disk.trace\n\n\
    When the queue is full, because gray-inferencer lags, the trace is not read until there is room.")]
pub struct QueuerArgs {
    /// The disk's index, by which nonsense in the trace is told from writes; the trace (a FIFO, a file,
    /// or - for stdin); the number of the Redis database.
    #[arg(value_name = "[INDEX] TRACE DATABASE", num_args = 2..=3, required = true)]
    pub what: Vec<String>,
    /// The server.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// How much may wait in the queue (64M, 2G).
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::quantity::bytes, default_value = "64M")]
    pub queue_limit: u64,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}

/// Run it to the end of the trace, which a FIFO does not have.
pub fn run(args: &QueuerArgs) -> Result<(), Failure> {
    let (index, trace, number) = match args.what.as_slice() {
        [trace, number] => (None, trace, number),
        [index, trace, number] => (Some(Path::new(index)), trace, number),
        _ => return Err(Failure::line("name a trace and the number of a database")),
    };
    let trace = PathBuf::from(trace);
    let servers = args.redis.servers(database(number)?)?;
    let size = match index {
        Some(path) => read::head(path).map_err(|e| bad_index(path, &e))?.disk_size,
        None => None,
    };
    let signals = Signals::catch()?;
    let limit = usize::try_from(args.queue_limit).unwrap_or(usize::MAX).max(1 << 20);
    let queue = Producer::new(servers.clone(), limit).map_err(|e| no_redis(&servers, &e))?;
    let reader = LiveTrace::open(&trace, size).map_err(|e| {
        Failure::new(format_args!("cannot open the trace: {e}"), trace.display(), "check the path; mkfifo makes a FIFO")
    })?;
    Queuer { trace, reader, queue, bytes: 0 }.run(&signals)
}

struct Queuer {
    trace: PathBuf,
    reader: LiveTrace,
    queue: Producer,
    bytes: u64,
}

impl Queuer {
    fn run(mut self, signals: &Signals) -> Result<(), Failure> {
        let ended = loop {
            // What is there already goes in one batch.
            let found = match self.reader.next_within(Duration::ZERO) {
                Ok(Found::Nothing) => {
                    self.queue.flush().map_err(|e| self.refused(&e))?;
                    if signals.came_within(Duration::ZERO) {
                        break Ok(());
                    }
                    self.reader.next_within(LOOK)
                }
                found => found,
            };
            match found {
                Ok(Found::End) => {
                    self.push(&Entry::Ended)?;
                    break Ok(());
                }
                Ok(found) => self.take(found)?,
                Err(why) => {
                    // What comes behind is lost to us: whoever infers must not go on as if nothing was.
                    self.push(&Entry::Lost(1))?;
                    break Err(self.stopped(&why));
                }
            }
        };
        self.queue.flush().map_err(|e| self.refused(&e))?;
        let (elements, waits) = (self.queue.elements(), self.queue.waits());
        tracing::info!("{elements} elements, {} bytes of writes, {waits} waits for room", self.bytes);
        ended
    }

    fn take(&mut self, found: Found) -> Result<(), Failure> {
        let trace = self.trace.display();
        match found {
            Found::Write { offset, data } => {
                self.bytes += data.len() as u64;
                self.push(&Entry::Write(offset, data))
            }
            Found::Lost(writes) => {
                tracing::warn!("{trace}: {writes} writes are missing before byte {}", self.reader.at());
                self.push(&Entry::Lost(writes))
            }
            Found::Text { at, text } => {
                tracing::warn!("{trace}: text at byte {at}, skipped: {text:?}");
                Ok(())
            }
            Found::Torn { at, missing } => {
                tracing::warn!("{trace}: the writer left within the record at byte {at}, which lacks {missing} bytes");
                self.push(&Entry::Lost(1))?;
                self.push(&Entry::Closed)
            }
            Found::Closed => self.push(&Entry::Closed),
            Found::Nothing | Found::End => Ok(()),
        }
    }

    fn push(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.queue.push(entry).map_err(|e| self.refused(&e))
    }

    fn refused(&self, why: &std::io::Error) -> Failure {
        Failure::new(format_args!("Redis does not take the writes: {why}"), "", "check the server and its database")
    }

    fn stopped(&self, why: &StreamError) -> Failure {
        let advice = match why {
            StreamError::Cut { .. } => "what came before is in the queue; record again for the rest",
            StreamError::Text { .. } => "send QEMU's messages elsewhere; what came before is in the queue",
            StreamError::PastEnd { .. } => "name the index of the disk on which it is recorded",
            StreamError::Implausible { .. } | StreamError::Lost { .. } => {
                "check that it is such a trace, and of this disk"
            }
            StreamError::Io { .. } => "check the disk that holds it",
        };
        Failure::new(format_args!("cannot follow the trace further: {why}"), self.trace.display(), advice)
    }
}
