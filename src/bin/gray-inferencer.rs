//! `gray-inferencer`: see [`gammaray::legacy`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gammaray::legacy::inferencer::{InferencerArgs, run};

fn main() -> ExitCode {
    gammaray::legacy::main(|args: &InferencerArgs| args.common.clone(), run)
}
