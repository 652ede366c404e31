//! gammaray tells from outside a virtual machine what happens to the files inside it.
#![forbid(unsafe_code)]

pub mod error;
pub mod event;
pub mod ext4;
pub mod fuse;
pub mod guest;
pub mod image;
pub mod interest;
pub mod name;
pub mod namespace;
pub mod ranges;
pub mod sink;
pub mod source;
pub mod tree;
pub mod units;
pub mod volume;
pub mod view;
pub mod write;
