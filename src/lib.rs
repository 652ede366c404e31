//! gammaray tells from outside a virtual machine what happens to the files inside it.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod doctor;

pub mod units;
pub mod error;
pub mod name;
pub mod image;
pub mod overlay;

pub mod write;
pub mod interest;
pub mod ranges;
pub mod source;

pub mod partition;
pub mod probe;
pub mod open;

pub mod tree;
pub mod namespace;
pub mod volume;
pub mod ext4;
pub mod guest;
pub mod lookup;
pub mod listing;
pub mod index;

pub mod feed;
pub mod engine;
pub mod attach;

pub mod event;
pub mod sink;

pub mod fuse;
pub mod view;

#[cfg(test)]
mod fake;
