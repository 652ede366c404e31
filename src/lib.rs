//! gammaray tells from outside a virtual machine what happens to the files inside it.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod doctor;
pub mod error;
pub mod event;
pub mod ext4;
#[cfg(test)]
mod fake;
pub mod fuse;
pub mod guest;
pub mod image;
pub mod interest;
pub mod listing;
pub mod lookup;
pub mod name;
pub mod open;
pub mod overlay;
pub mod partition;
pub mod probe;
pub mod sink;
pub mod source;
pub mod tree;
pub mod units;
pub mod view;
pub mod write;
