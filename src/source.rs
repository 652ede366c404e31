//! Where the guest's changes come from: ways of being its disk, and ways of hearing of its writes.

pub mod file;
