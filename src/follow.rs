//! Reading back what the sinks sent to Redis: the other end, for people and scripts.

pub mod glob;
pub mod messages;
pub mod pattern;
pub mod show;
pub mod streams;
