//! Where events go. Sinks know [`Event`] and nothing else.

pub mod jsonl;
pub mod outlet;
pub mod pubsub;
pub mod server;
pub mod steady;
pub mod stream;

use crate::event::Event;

/// Takes events in the order of their `seq`.
pub trait Sink: Send {
    /// Take one event. An error means that it was not taken: the caller keeps it or says so.
    fn emit(&mut self, event: &Event) -> std::io::Result<()>;
    /// Make sure that whatever was taken has left our buffers. Called at the end of each transaction.
    fn flush(&mut self) -> std::io::Result<()>;

    /// Take a [`Body::Aside`](crate::event::Body::Aside), which is no event. Most sinks have no use for it.
    fn aside(&mut self, _aside: &Event) -> std::io::Result<()> {
        Ok(())
    }

    /// Whether `write` events must carry their bytes. It is asked once.
    fn wants_payload(&self) -> bool {
        false
    }

    /// No more will come, and `close` follows soon: whoever needs time may begin.
    fn ending(&mut self) {}

    /// No more will come. An error tells of what was taken and not delivered.
    fn close(&mut self) -> std::io::Result<()> {
        self.flush()
    }
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
