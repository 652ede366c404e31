//! The thread that delivers: tries until it succeeds, and says once when it stops or starts to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{Item, Queue, Taken};
use super::record::Record;
use super::{Deliver, Undelivered};
use crate::sink::server::Trouble;

/// Pauses between attempts: they double from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// At the end an attempt or two are made, however long nothing arrived before.
const LAST_ATTEMPTS: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(1);

/// The thread.
pub struct Worker {
    name: String,
    queue: Arc<Queue>,
    deliver: Box<dyn Deliver>,
    /// How long nothing may arrive before we give up: while events come, and at the end.
    patience: (Duration, Duration),
    trouble: Option<Trouble>,
    /// When something last arrived, or there last was nothing to deliver.
    arrived: Instant,
}

impl Worker {
    /// Deliver what comes by `queue`.
    pub fn new(name: String, queue: Arc<Queue>, deliver: Box<dyn Deliver>, patience: (Duration, Duration)) -> Self {
        Self { name, queue, deliver, patience, trouble: None, arrived: Instant::now() }
    }

    /// Until the queue ends.
    pub fn run(mut self) -> Result<(), Undelivered> {
        loop {
            match self.queue.take(IDLE) {
                Taken::Batch(batch) => {
                    let left = self.batch(batch);
                    if !left.is_empty() || self.is_late() {
                        return self.give_up(left);
                    }
                    self.queue.delivered();
                }
                Taken::Idle => {
                    self.arrived = Instant::now();
                    self.deliver.idle();
                }
                Taken::End => {
                    self.deliver.end();
                    return Ok(());
                }
            }
        }
    }

    /// Deliver these. Returns those that are left when it is time to give up.
    fn batch(&mut self, batch: Vec<Item>) -> Vec<Record> {
        let mut records: Vec<Record> = batch.into_iter().map(|item| self.record(item)).collect();
        let (mut done, mut attempt) = (0, 0);
        while let Some(rest) = records.get(done..).filter(|r| !r.is_empty()) {
            match self.deliver.deliver(rest) {
                Ok(n) => {
                    done += n.max(1);
                    attempt = 0;
                    self.up();
                }
                Err(trouble) => {
                    attempt += 1;
                    self.down(trouble, attempt);
                    if self.is_hopeless() {
                        break;
                    }
                    self.pause(attempt);
                }
            }
        }
        records.drain(..done.min(records.len()));
        records
    }

    fn record(&self, item: Item) -> Record {
        match item {
            Item::Record(r) => r,
            Item::Lost(lost) => {
                tracing::warn!("{}: {} events had to be dropped", self.name, lost.events());
                self.deliver.gap(&lost)
            }
        }
    }

    /// Whether to stop trying: nothing arrives.
    fn is_hopeless(&self) -> bool {
        match self.queue.since_close() {
            Some(time) => self.arrived.elapsed() >= self.patience.1 && time >= LAST_ATTEMPTS,
            None => self.arrived.elapsed() >= self.patience.0,
        }
    }

    /// Whether the end came a while ago, and what is left can be kept for another run.
    fn is_late(&self) -> bool {
        self.queue.can_keep()
            && self.queue.since_close().is_some_and(|t| t >= self.patience.1)
            && !self.queue.is_empty()
    }

    fn up(&mut self) {
        self.arrived = Instant::now();
        if self.trouble.take().is_some() {
            tracing::warn!("{}: events arrive again; {} more wait", self.name, self.queue.len());
        }
    }

    fn down(&mut self, trouble: Trouble, attempt: u32) {
        // That a connection broke, or that another node has to be asked, is no news if the next
        // attempt succeeds.
        if (attempt > 1 || self.trouble.is_some()) && !trouble.is_routine() && self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("{}: {trouble}: events are kept and tried again", self.name);
            self.trouble = Some(trouble);
        }
    }

    fn pause(&self, attempt: u32) {
        if attempt > 1 {
            let (first, last) = PAUSE;
            let time = first.saturating_mul(1 << attempt.saturating_sub(2).min(10)).min(last);
            if self.queue.sleep(time) {
                // The end came, and wakes nobody twice.
                std::thread::sleep(first);
            }
        }
    }

    /// Keep what is left for another run, if that is possible.
    fn give_up(&mut self, undelivered: Vec<Record>) -> Result<(), Undelivered> {
        let trouble = self.trouble.as_ref().map_or_else(|| "it is slow".to_owned(), ToString::to_string);
        let why = format!("{}: {trouble}", self.name);
        if undelivered.is_empty() {
            self.queue.delivered();
        }
        let all = undelivered.len() as u64 + self.queue.len();
        let items = undelivered.into_iter().map(Item::Record).collect();
        let deliver = &self.deliver;
        match self.queue.give_up(&why, items, |lost| deliver.gap(lost)) {
            0 => tracing::warn!("{why}: {all} events are kept for the next run"),
            lost => return Err(Undelivered(format!("{why}: {lost} events did not arrive"))),
        }
        Ok(())
    }
}
