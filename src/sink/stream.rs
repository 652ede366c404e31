//! A durable Redis Stream of a VM's events, for consumer groups and for whoever comes later.
//!
//! The key is `gammaray:{VM}:events`; in a cluster the braces keep all of a VM in one slot. An
//! entry has the fields `event` (JSON) and `bson`. Its id is `RUN-SEQ`: the milliseconds since 1970
//! at which this run of the program started, and the event's `seq`. So an entry can be added only
//! once, whatever became of the answer, and ids rise from one run to the next.
//!
//! After a connection was lost the stream is asked for its last entry. What is there already is not
//! sent again; what Redis had taken and has lost (killed without a journal, a replica took over)
//! is, as far back as is remembered, and a `gap` tells of what is not.

pub mod agent;
mod append;

use redis::Value;

use self::agent::Heartbeat;
use self::append::Append;
use super::Sink;
use super::outlet::record::pack;
use super::outlet::{Encode, Outlet, OutletOptions};
use super::server::{Link, Servers};
use crate::event::Event;

pub use self::append::Keep;

/// The key of a VM's stream.
pub fn key(vm: &str) -> String {
    format!("gammaray:{{{vm}}}:events")
}

/// Adds events to a stream.
pub struct Stream {
    outlet: Outlet,
    heartbeat: Option<Heartbeat>,
}

impl Stream {
    /// Add to the stream of `vm` on `servers`, when they can be reached; `with_data`: entries carry
    /// the bytes of `write` events. Registers this agent as one that runs on `host`.
    ///
    /// Errors: the spool's.
    pub fn start(
        servers: Servers,
        host: &str,
        vm: &str,
        keep: Keep,
        with_data: bool,
        options: &OutletOptions,
    ) -> std::io::Result<Self> {
        let name = format!("Redis {} (stream)", servers.name());
        let append = Append::new(Link::new(servers.clone()), vm, keep);
        let encode = Box::new(Both { with_data });
        let outlet = Outlet::start(&name, &format!("{vm}.stream"), options, encode, Box::new(append))?;
        let heartbeat = Some(Heartbeat::start(servers, host, vm)?);
        Ok(Self { outlet, heartbeat })
    }
}

impl Sink for Stream {
    fn emit(&mut self, event: &Event) -> std::io::Result<()> {
        self.outlet.emit(event)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.outlet.flush()
    }

    fn ending(&mut self) {
        self.outlet.ending();
    }

    fn close(&mut self) -> std::io::Result<()> {
        let closed = self.outlet.close();
        self.heartbeat = None;
        closed
    }
}

/// The two forms of an entry.
struct Both {
    with_data: bool,
}

impl Encode for Both {
    fn event(&mut self, event: &Event) -> Option<Box<[u8]>> {
        let entry = entry(event, self.with_data);
        if let Err(e) = &entry {
            tracing::error!("event {} has no form for Redis: {e}", event.seq);
        }
        entry.ok()
    }
}

/// JSON and BSON of an event, packed.
fn entry(event: &Event, with_data: bool) -> anyhow::Result<Box<[u8]>> {
    let (json, bson) = if with_data {
        (serde_json::to_vec(event)?, bson::serialize_to_vec(event)?)
    } else {
        let plain = event.without_data();
        (serde_json::to_vec(&plain)?, bson::serialize_to_vec(&plain)?)
    };
    Ok(pack([&*json, &*bson]))
}

/// The id of an entry.
pub type Id = (u64, u64);

/// `MS-SEQ`
pub fn parse_id(id: &[u8]) -> Option<Id> {
    let (ms, seq) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}

/// The value of `name` in the answer of `XINFO`: names and values in turn.
pub fn info<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Array(all) = answer else { return None };
    all.chunks_exact(2).find_map(|pair| match pair {
        [Value::BulkString(n), v] if n == name.as_bytes() => Some(v),
        [Value::SimpleString(n), v] if n == name => Some(v),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, Origin};
    use crate::units::Timestamp;

    #[test]
    fn both_forms_say_the_same() {
        let body = Body::Write { offset: 1, length: 2, zero: false, data: Some(vec![0, 255]) };
        let e = Event { seq: 7, vm: "vm".into(), ..Event::new(Timestamp { secs: 1, nanos: 2 }, Origin::Journal, body) };
        let r = super::super::outlet::record::Record { run: 1, seq: 7, bytes: entry(&e, true).unwrap() };
        let [json, bson] = r.fields().collect::<Vec<_>>()[..] else { panic!() };
        let mut json: serde_json::Value = serde_json::from_slice(json).unwrap();
        let mut bson = bson::Document::from_reader(bson).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("data"), Some("AP8=".into()));
        assert_eq!(
            bson.remove("data").unwrap(),
            bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255] }.into()
        );
        assert_eq!(serde_json::to_value(bson).unwrap(), json);
        let plain = entry(&e, false).unwrap();
        assert!(!String::from_utf8_lossy(&plain).contains("data"));
    }

    #[test]
    fn ids_are_two_numbers() {
        assert_eq!(parse_id(b"17-5"), Some((17, 5)));
        assert_eq!([parse_id(b"17"), parse_id(b"-5"), parse_id(b"1-99999999999999999999")], [None; 3]);
    }
}
