//! Where the guest's changes come from: ways of being its disk, and ways of hearing of its writes.

pub mod file;
pub mod log_writes;
pub mod qemu_trace;
pub mod recording;

#[cfg(test)]
mod recording_tests;
