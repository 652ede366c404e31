//! Where the guest's changes come from: ways of being its disk, and ways of hearing of its writes.

pub mod file;
pub mod known_disk;
pub mod live_trace;
pub mod log_writes;
pub mod qemu_trace;
pub mod recording;
pub mod redis_queue;
pub mod stream;
pub mod trace;
pub mod uring;

#[cfg(test)]
mod recording_tests;
