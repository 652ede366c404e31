//! Adds entries to the stream, each once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::{Pipeline, Value};

use super::{Id, entry, info, key, parse_id};
use crate::event::{Body, Event, Origin};
use crate::sink::outlet::Deliver;
use crate::sink::outlet::record::{Lost, Record};
use crate::sink::server::{Link, Trouble};
use crate::units::Timestamp;

/// What was taken is remembered up to this much, in case that Redis loses it.
const REMEMBERED: (usize, usize) = (16 << 20, 1 << 16);
/// At most this many points in time are remembered for the retention.
const MARKS: u32 = 64;

/// What the stream keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// About so many entries; 0: all.
    pub entries: u64,
    /// For so long.
    pub time: Option<Duration>,
}

/// The stream's end.
pub struct Append {
    link: Link,
    vm: String,
    key: String,
    keep: Keep,
    /// A run of the program, and the first part of its ids.
    session: Option<(u64, u64)>,
    /// Last id of the stream, known since the connection was made.
    last: Option<Id>,
    taken: VecDeque<Record>,
    taken_bytes: usize,
    /// Ids that were the last at some time.
    marks: VecDeque<(Instant, Id)>,
}

impl Append {
    /// To the stream of `vm`.
    pub fn new(link: Link, vm: &str, keep: Keep) -> Self {
        Self {
            link,
            vm: vm.to_owned(),
            key: key(vm),
            keep,
            session: None,
            last: None,
            taken: VecDeque::new(),
            taken_bytes: 0,
            marks: VecDeque::new(),
        }
    }

    /// The last id that the stream had or has.
    fn look(&mut self) -> Result<Id, Trouble> {
        let answer = self.link.run_all(redis::pipe().cmd("XINFO").arg("STREAM").arg(&self.key))?;
        match answer.first() {
            Some(Value::ServerError(e)) if e.details().is_some_and(|d| d.contains("no such key")) => Ok((0, 0)),
            Some(Value::ServerError(e)) => Err(self.link.failed(Trouble::from(e))),
            Some(answer) => match info(answer, "last-generated-id") {
                Some(Value::BulkString(id)) => parse_id(id).ok_or_else(|| Trouble::new("it names no last entry")),
                Some(Value::SimpleString(id)) => {
                    parse_id(id.as_bytes()).ok_or_else(|| Trouble::new("it names no last entry"))
                }
                _ => Err(Trouble::new("it does not answer XINFO as a stream does")),
            },
            None => Err(Trouble::new("it gives no answer")),
        }
    }

    /// The last id, and first part of ids of `run`. After a connection was made, what Redis lost is
    /// sent again.
    fn prepare(&mut self, run: u64) -> Result<(Id, u64), Trouble> {
        let last = match self.last.filter(|_| self.link.is_up()) {
            Some(last) => last,
            None => {
                let last = self.look()?;
                self.restore(last)?
            }
        };
        let ms = match self.session {
            Some((r, ms)) if r == run => ms,
            _ => {
                // Ids that this run used before, or later ones than all that are there.
                let ms = run.max(if last.0 == run || last == (0, 0) { run } else { last.0.saturating_add(1) });
                if ms != run {
                    tracing::warn!("{}: the stream has entries from the future: ids go on at {ms}", self.key);
                }
                self.session = Some((run, ms));
                self.forget();
                self.marks.push_back((Instant::now(), (ms, 0)));
                ms
            }
        };
        self.last = Some(last);
        Ok((last, ms))
    }

    /// The stream's last id is `last`: is that what it was? Returns what it is afterwards.
    fn restore(&mut self, last: Id) -> Result<Id, Trouble> {
        let (Some((run, ms)), Some(newest)) = (self.session, self.taken.back().map(|r| r.seq)) else { return Ok(last) };
        if last.0 > ms {
            // Somebody else writes to this stream; go on after it.
            self.session = None;
            return Ok(last);
        }
        let there = if last.0 == ms { last.1 } else { 0 };
        if there >= newest {
            return Ok(last);
        }
        let mut again: Vec<Record> = self.taken.iter().filter(|r| r.seq > there).cloned().collect();
        let first = again.first().map_or(newest, |r| r.seq);
        let events = newest - there;
        tracing::warn!("{}: Redis lost {events} events that it had taken: they are sent again", self.key);
        if first > there + 1 {
            let lost = Lost { run, first: there + 1, last: first - 1 };
            tracing::warn!("{}: {} of them are not remembered", self.key, lost.events());
            again.insert(0, self.gap(&lost));
        }
        let mut sent = last;
        for part in again.chunks(1000) {
            sent = self.add(part, ms)?;
        }
        Ok(sent)
    }

    /// Add all of these or none.
    fn add(&mut self, records: &[Record], ms: u64) -> Result<Id, Trouble> {
        let mut pipeline = Pipeline::with_capacity(records.len() + 2);
        pipeline.cmd("MULTI");
        for r in records {
            let mut fields = r.fields();
            let (json, bson) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            pipeline.cmd("XADD").arg(&self.key);
            if self.keep.entries > 0 {
                pipeline.arg("MAXLEN").arg("~").arg(self.keep.entries);
            }
            pipeline.arg(format!("{ms}-{}", r.seq)).arg("event").arg(json).arg("bson").arg(bson);
        }
        pipeline.cmd("EXEC");
        let answers = self.link.run_all(&pipeline)?;
        match refusal(&answers) {
            None => Ok((ms, records.last().map_or(0, |r| r.seq))),
            Some(trouble) => Err(self.link.failed(trouble)),
        }
    }

    fn forget(&mut self) {
        self.taken.clear();
        self.taken_bytes = 0;
    }

    fn remember(&mut self, records: &[Record]) {
        for r in records {
            self.taken_bytes += r.cost();
            self.taken.push_back(r.clone());
        }
        while (self.taken_bytes > REMEMBERED.0 || self.taken.len() > REMEMBERED.1)
            && let Some(old) = self.taken.pop_front()
        {
            self.taken_bytes -= old.cost();
        }
    }

    /// Drop entries that are older than they may be.
    fn trim(&mut self) {
        let (Some(keep), Some(last)) = (self.keep.time, self.last) else { return };
        if self.marks.back().is_none_or(|(t, _)| t.elapsed() >= keep / MARKS) {
            self.marks.push_back((Instant::now(), last));
        }
        let mut due = None;
        while self.marks.front().is_some_and(|(t, _)| t.elapsed() >= keep) {
            due = self.marks.pop_front();
        }
        let Some((_, (ms, seq))) = due else { return };
        // Everything up to that one; when it fails the next one does it.
        let min = seq.checked_add(1).map_or((ms.saturating_add(1), 0), |s| (ms, s));
        let id = format!("{}-{}", min.0, min.1);
        let _ = self.link.run_all(redis::pipe().cmd("XTRIM").arg(&self.key).arg("MINID").arg(id));
    }
}

/// Why a transaction was refused: what a command says counts more than that all was discarded.
fn refusal(answers: &[Value]) -> Option<Trouble> {
    let first = |answers: &[Value]| {
        answers.iter().find_map(|a| match a {
            Value::ServerError(e) => Some(Trouble::from(e)),
            _ => None,
        })
    };
    first(answers).or_else(|| match answers.last() {
        Some(Value::Array(all)) => first(all),
        _ => Some(Trouble::new("it does not answer EXEC as it should")),
    })
}

impl Deliver for Append {
    fn deliver(&mut self, records: &[Record]) -> Result<usize, Trouble> {
        let Some(run) = records.first().map(|r| r.run) else { return Ok(0) };
        let (last, ms) = self.prepare(run)?;
        let of_run = records.iter().take_while(|r| r.run == run).count();
        let known = |r: &&Record| last.0 == ms && r.seq <= last.1;
        let there = records.iter().take(of_run).take_while(known).count();
        if let Some(new) = records.get(there..of_run).filter(|n| !n.is_empty()) {
            self.last = None;
            self.last = Some(self.add(new, ms)?);
            self.remember(new);
        }
        self.trim();
        Ok(of_run)
    }

    fn gap(&self, lost: &Lost) -> Record {
        let body = Body::Missed { reason: "events were dropped on the way".into(), events: lost.events() };
        let vm = self.vm.as_str().into();
        let e = Event { seq: lost.last, vm, ..Event::new(Timestamp::now(), Origin::Resync, body) };
        Record { run: lost.run, seq: lost.last, bytes: entry(&e, false).unwrap_or_default() }
    }

    fn idle(&mut self) {
        if self.link.is_up() {
            self.trim();
        }
    }
}
