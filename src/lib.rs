//! gammaray tells from outside a virtual machine what happens to the files inside it.
#![forbid(unsafe_code)]

pub mod error;
pub mod event;
pub mod guest;
pub mod image;
pub mod interest;
pub mod name;
pub mod sink;
pub mod tree;
pub mod units;
pub mod write;
