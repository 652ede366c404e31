//! The `gammaray` command.
#![forbid(unsafe_code)]

fn main() {}
