//! Where events go. Sinks know [`Event`] and nothing else.

pub mod jsonl;

use crate::event::Event;

/// Takes events in the order of their `seq`.
pub trait Sink: Send {
    /// Take one event. An error means that it was not taken: the caller keeps it or says so.
    fn emit(&mut self, event: &Event) -> std::io::Result<()>;
    /// Make sure that whatever was taken has left our buffers. Called at the end of each transaction.
    fn flush(&mut self) -> std::io::Result<()>;
}

impl Sink for Vec<Event> {
    fn emit(&mut self, event: &Event) -> std::io::Result<()> {
        self.push(event.clone());
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
