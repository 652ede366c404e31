//! What the tests share: disks made of loop devices, a walk of mounted file systems (the kernel
//! is the oracle), a replayer of events (the model) and a random workload. Nothing here uses the
//! library under test: only its binary's output is judged.
#![allow(dead_code, reason = "each test crate uses its own part of the support code")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

pub mod content;
pub mod daemon;
pub mod diff;
pub mod disk;
pub mod events;
pub mod formats;
pub mod lab;
pub mod live;
pub mod logwrites;
pub mod model;
pub mod need;
pub mod ntfs;
pub mod oracle;
pub mod record;
pub mod recorder;
pub mod redis;
pub mod rng;
pub mod script;
pub mod text;
pub mod two;
pub mod wim;
pub mod workload;
