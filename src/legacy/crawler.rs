//! `gray-crawler disk.raw disk.bson`

use std::path::PathBuf;

use clap::Parser;

use super::Common;
use crate::cli::{Failure, crawl};

/// Write the index of a disk: all that gray-inferencer needs to know of it.
#[derive(Parser, Debug)]
#[command(name = "gray-crawler", version, max_term_width = 100)]
#[command(after_help = "Example:\n  gray-crawler disk.raw disk.bson\n\n\
    Crawl before the guest starts: the trace must begin where the index ends.")]
pub struct CrawlerArgs {
    /// Raw disk image or block device.
    pub image: PathBuf,
    /// Where to write the index. It is replaced only when the new one is complete.
    pub index: PathBuf,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}

/// Run it.
pub fn run(args: &CrawlerArgs) -> Result<(), Failure> {
    crawl::crawl(&args.image, &args.index, true)
}
