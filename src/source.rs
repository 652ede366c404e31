//! Where the guest's changes come from: ways of being its disk, and ways of hearing of its writes.

pub mod file;
pub mod log_writes;
pub mod qemu_trace;
pub mod recording;
pub mod stream;

#[cfg(test)]
mod recording_tests;
