//! `gammaray crawl`: the index of a disk.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::index::{self, Extra};
use crate::open;

/// Arguments of `crawl`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gammaray crawl disk.raw disk.bson\n  gammaray -v crawl /dev/vg0/guest guest.bson")]
pub struct CrawlArgs {
    /// Raw disk image or block device. It may be in use; then the index is of the moment it was read.
    pub image: PathBuf,
    /// Where to write the index (BSON documents). It is replaced only when the new one is complete.
    pub index: PathBuf,
}

/// Run it.
pub fn run(args: &CrawlArgs) -> Result<(), Failure> {
    let disk = open::image(&args.image).map_err(|e| Failure::image(&args.image, &e))?;
    let survey = open::survey(&disk).map_err(|e| Failure::table(&args.image, &e))?;
    if survey.areas.iter().all(|a| a.files.is_none()) {
        return Err(crate::config::nothing_readable(&args.image, &survey));
    }
    if crate::config::is_same_file(&args.image, &args.index) {
        let advice = "name another file for the index";
        return Err(Failure::new("the index would overwrite the image", args.index.display(), advice));
    }
    let image = std::fs::canonicalize(&args.image).ok();
    let extra = Extra { image, ..Extra::default() };
    let counts =
        index::write(&disk, &survey, &extra, &args.index).map_err(|e| Failure::output(args.index.display(), &e))?;
    tracing::info!("{} file systems, {} names, {} with errors", counts.file_systems, counts.files, counts.errors);
    match counts.errors {
        0 => Ok(()),
        n => {
            let what = format_args!("{n} of {} files could not be read whole", counts.files);
            Err(Failure::new(what, args.image.display(), "the index holds the others; see the `error` fields in it"))
        }
    }
}
