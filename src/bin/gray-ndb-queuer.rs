//! `gray-ndb-queuer`: see [`gammaray::legacy`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gammaray::legacy::queuer::{QueuerArgs, run};

fn main() -> ExitCode {
    gammaray::legacy::main(|args: &QueuerArgs| args.common.clone(), run)
}
