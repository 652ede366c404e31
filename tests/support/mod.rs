//! What the tests share: disks made of loop devices, a walk of mounted file systems (the kernel
//! is the oracle), a replayer of events (the model) and a random workload. Nothing here uses the
//! library under test: only its binary's output is judged.
#![allow(dead_code, reason = "each test crate uses its own part of the support code")]

pub mod content;
pub mod daemon;
pub mod diff;
pub mod disk;
pub mod events;
pub mod live;
pub mod model;
pub mod need;
pub mod oracle;
pub mod record;
pub mod rng;
pub mod text;
pub mod workload;
