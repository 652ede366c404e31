//! The messages of 2013: Redis pub/sub, one BSON document a message, on channels that are named
//! after host, VM and path.
//!
//! A subscriber gets each message at least once: one whose receipt was not confirmed before the
//! connection broke is sent again. Who is not subscribed gets nothing; the
//! [`stream`](super::stream) is there for that.

pub mod message;

use std::fmt;

use redis::{Pipeline, Value};

use self::message::Messages;
use super::Sink;
use super::outlet::record::{Lost, Record, pack};
use super::outlet::{Deliver, Encode, Outlet, OutletOptions};
use super::server::{Link, Servers, Trouble};
use crate::event::Event;

/// Publishes events to a Redis server.
pub struct PubSub(Outlet);

impl PubSub {
    /// Connect to the server at `url` (`database` goes before the URL's), and publish the events of
    /// `vm` as `host`. The engine waits for the server; when it is away for a minute that is an
    /// error. For programs that can be kept waiting; `attach` uses [`PubSub::start`].
    ///
    /// Errors: the URL, or that the server cannot be reached now.
    pub fn connect(url: &str, database: Option<i64>, host: &str, vm: &str) -> Result<Self, Refused> {
        let servers = Servers::new(&[url.to_owned()], database, None).map_err(Refused)?;
        servers.any().map_err(|e| Refused(format!("{}: {e}", servers.name())))?;
        Self::start(servers, host, vm, &OutletOptions::waiting()).map_err(|e| Refused(e.to_string()))
    }

    /// Publish to `servers`, when they can be reached, the events of `vm` as `host`.
    ///
    /// Errors: the spool's.
    pub fn start(servers: Servers, host: &str, vm: &str, options: &OutletOptions) -> std::io::Result<Self> {
        let name = format!("Redis {} (pub/sub)", servers.name());
        let messages = Messages::new(host, vm);
        let deliver = Publish { link: Link::new(servers), messages: messages.clone() };
        Outlet::start(&name, &format!("{vm}.pubsub"), options, Box::new(messages), Box::new(deliver)).map(Self)
    }
}

/// The server cannot be used; where and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Sink for PubSub {
    fn emit(&mut self, event: &Event) -> std::io::Result<()> {
        self.0.emit(event)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }

    fn aside(&mut self, aside: &Event) -> std::io::Result<()> {
        self.0.aside(aside)
    }

    fn wants_payload(&self) -> bool {
        true
    }

    fn ending(&mut self) {
        self.0.ending();
    }

    fn close(&mut self) -> std::io::Result<()> {
        self.0.close()
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PubSub")
    }
}

impl Encode for Messages {
    fn event(&mut self, event: &Event) -> Option<Box<[u8]>> {
        let all = self.of(event);
        let fields = all.iter().flat_map(|m| [&*m.channel, &*m.document]);
        (!all.is_empty()).then(|| pack(fields))
    }

    fn aside(&mut self, aside: &Event) -> Option<Box<[u8]>> {
        self.event(aside)
    }

    fn wants_payload(&self) -> bool {
        true
    }
}

struct Publish {
    link: Link,
    messages: Messages,
}

impl Deliver for Publish {
    fn deliver(&mut self, records: &[Record]) -> Result<usize, Trouble> {
        let mut pipeline = Pipeline::with_capacity(records.len());
        let mut counts = Vec::with_capacity(records.len());
        for r in records {
            let before = pipeline.len();
            let mut fields = r.fields();
            while let (Some(channel), Some(document)) = (fields.next(), fields.next()) {
                pipeline.cmd("PUBLISH").arg(channel).arg(document);
            }
            counts.push(pipeline.len() - before);
        }
        if pipeline.is_empty() {
            return Ok(records.len());
        }
        let answers = self.link.run_all(&pipeline)?;
        self.arrived(&answers, &counts)
    }

    fn gap(&self, lost: &Lost) -> Record {
        let m = self.messages.gap(lost.events());
        Record { run: lost.run, seq: lost.last, bytes: pack([&*m.channel, &*m.document]) }
    }
}

impl Publish {
    /// How many records, each of so many messages, have arrived as a whole: up to the first error.
    fn arrived(&mut self, answers: &[Value], counts: &[usize]) -> Result<usize, Trouble> {
        let refused = answers.iter().enumerate().find_map(|(i, a)| match a {
            Value::ServerError(e) => Some((i, Trouble::from(e))),
            _ => None,
        });
        let Some((at, trouble)) = refused else { return Ok(counts.len()) };
        let ends = counts.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        });
        let done = ends.take_while(|end| *end <= at).count();
        let trouble = self.link.failed(trouble);
        if done > 0 { Ok(done) } else { Err(trouble) }
    }
}
