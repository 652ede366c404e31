//! Events from the streams of one VM or of several.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::Value;

use super::glob::is_glob;
use super::pattern::Pattern;
use crate::sink::server::{Link, Servers, Trouble};
use crate::sink::stream::{Id, agent, info, key, parse_id};

/// How often to look for more VMs.
const LOOK: Duration = Duration::from_secs(3);
/// How long a server may keep us waiting for news.
const BLOCK_MS: u64 = 500;
/// With several streams none is waited for.
const PAUSE: Duration = Duration::from_millis(100);
const COUNT: u64 = 500;

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// With what happens next.
    Now,
    /// With the first event that is kept.
    First,
    /// With this `seq` of the latest run.
    Seq(u64),
}

/// The streams that are read.
pub struct Streams {
    servers: Servers,
    registry: Link,
    pattern: Pattern,
    since: Since,
    /// VM → its stream and the last entry that was read.
    open: BTreeMap<String, (Link, Option<Id>)>,
    looked: Option<Instant>,
}

impl Streams {
    /// Those that `pattern` means.
    pub fn new(servers: Servers, pattern: Pattern, since: Since) -> Self {
        let registry = Link::new(servers.clone());
        Self { servers, registry, pattern, since, open: BTreeMap::new(), looked: None }
    }

    /// What came since the last call, as JSON text; waits a little if nothing did.
    pub fn news(&mut self) -> Result<Vec<Vec<u8>>, Trouble> {
        if self.looked.is_none_or(|t| t.elapsed() >= LOOK) {
            self.look()?;
            self.looked = Some(Instant::now());
        }
        let block = if self.open.len() == 1 { Some(BLOCK_MS) } else { None };
        let mut all = Vec::new();
        for (vm, (link, at)) in &mut self.open {
            let read = read(link, vm, at, self.since, block);
            match read {
                Err(e) if e.is_routine() => {}
                read => all.extend(read?),
            }
        }
        if all.is_empty() && block.is_none() {
            std::thread::sleep(PAUSE);
        }
        Ok(all)
    }

    /// Find the VMs that are meant.
    fn look(&mut self) -> Result<(), Trouble> {
        let mut found = Vec::new();
        if self.pattern.host.is_none() && !is_glob(&self.pattern.vm) {
            found.push(self.pattern.vm.clone());
        } else {
            let mut command = redis::cmd("ZRANGE");
            command.arg(agent::VMS).arg(0).arg(-1);
            let agents = match self.registry.run(&command) {
                // The cluster has it elsewhere.
                Err(e) if e.is_routine() => self.registry.run(&command)?,
                other => other?,
            };
            let agents = texts(agents);
            let named = agents.iter().filter_map(|a| a.split_once(':'));
            found.extend(named.filter(|(h, v)| self.pattern.is_agent(h, v)).map(|(_, v)| v.to_owned()));
        }
        for vm in found {
            let servers = &self.servers;
            self.open.entry(vm).or_insert_with(|| (Link::new(servers.clone()), None));
        }
        Ok(())
    }
}

fn texts(value: Value) -> Vec<String> {
    let Value::Array(all) = value else { return Vec::new() };
    let text = |v| match v {
        Value::BulkString(b) => String::from_utf8(b).ok(),
        _ => None,
    };
    all.into_iter().filter_map(text).collect()
}

fn read(
    link: &mut Link,
    vm: &str,
    at: &mut Option<Id>,
    since: Since,
    block: Option<u64>,
) -> Result<Vec<Vec<u8>>, Trouble> {
    let from = match *at {
        Some(id) => id,
        None => start(link, vm, since)?,
    };
    *at = Some(from);
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(COUNT);
    if let Some(ms) = block {
        command.arg("BLOCK").arg(ms);
    }
    command.arg("STREAMS").arg(key(vm)).arg(format!("{}-{}", from.0, from.1));
    let mut all = Vec::new();
    for (id, json) in entries(link.run(&command)?) {
        *at = Some(id);
        all.push(json);
    }
    Ok(all)
}

/// The entry after which to begin.
fn start(link: &mut Link, vm: &str, since: Since) -> Result<Id, Trouble> {
    if since == Since::First {
        return Ok((0, 0));
    }
    let answers = link.run_all(redis::pipe().cmd("XINFO").arg("STREAM").arg(key(vm)))?;
    let last = match answers.first() {
        // Nothing there yet: all that will be is news.
        Some(Value::ServerError(e)) if e.details().is_some_and(|d| d.contains("no such key")) => (0, 0),
        Some(Value::ServerError(e)) => return Err(link.failed(Trouble::from(e))),
        Some(answer) => match info(answer, "last-generated-id") {
            Some(Value::BulkString(id)) => parse_id(id).unwrap_or_default(),
            _ => (0, 0),
        },
        None => (0, 0),
    };
    Ok(match since {
        Since::Seq(seq) => (last.0, seq.saturating_sub(1)),
        Since::Now | Since::First => last,
    })
}

/// Ids and JSON of the answer to `XREAD` for one stream: [[key, [[id, [field, value, …]], …]]] or nil.
fn entries(answer: Value) -> Vec<(Id, Vec<u8>)> {
    let list = |v| if let Value::Array(all) = v { all } else { Vec::new() };
    let streams = list(answer).into_iter().flat_map(|s| list(s).into_iter().nth(1));
    streams.flat_map(list).filter_map(|e| entry(list(e))).collect()
}

fn entry(parts: Vec<Value>) -> Option<(Id, Vec<u8>)> {
    let mut parts = parts.into_iter();
    let (Some(Value::BulkString(id)), Some(Value::Array(fields))) = (parts.next(), parts.next()) else { return None };
    let at = fields.iter().position(|f| matches!(f, Value::BulkString(b) if b == b"event"))?;
    match fields.into_iter().nth(at + 1)? {
        Value::BulkString(json) => Some((parse_id(&id)?, json)),
        _ => None,
    }
}
