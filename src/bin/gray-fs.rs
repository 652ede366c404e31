//! `gray-fs`: see [`gammaray::legacy`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gammaray::legacy::fs::{FsArgs, run};

fn main() -> ExitCode {
    gammaray::legacy::main(FsArgs::common, run)
}
