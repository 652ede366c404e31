//! `gray-crawler`: see [`gammaray::legacy`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use gammaray::legacy::crawler::{CrawlerArgs, run};

fn main() -> ExitCode {
    gammaray::legacy::main(|args: &CrawlerArgs| args.common.clone(), run)
}
