//! `gammaray crawl`: the index of a disk.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::index::{self, Extra};
use crate::open;
use crate::ranges::RangeSet;

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
    crawl(&args.image, &args.index, false)
}

/// Index `image`; with `blocks` so that inference can start from the index alone.
pub fn crawl(image: &Path, index: &Path, blocks: bool) -> Result<(), Failure> {
    let disk = open::image(image).map_err(|e| Failure::image(image, &e))?;
    let survey = open::survey(&disk).map_err(|e| Failure::table(image, &e))?;
    if survey.areas.iter().all(|a| a.files.is_none()) {
        return Err(crate::config::nothing_readable(image, &survey));
    }
    if crate::config::is_same_file(image, index) {
        let advice = "name another file for the index";
        return Err(Failure::new("the index would overwrite the image", index.display(), advice));
    }
    let keep = if blocks { index::needed(&disk).map_err(|e| Failure::table(image, &e))? } else { RangeSet::default() };
    let extra = Extra { sequence: 0, image: std::fs::canonicalize(image).ok(), keep };
    let counts = index::write(&disk, &survey, &extra, index).map_err(|e| Failure::output(index.display(), &e))?;
    tracing::info!("{} file systems, {} names, {} with errors", counts.file_systems, counts.files, counts.errors);
    match counts.errors {
        0 => Ok(()),
        n => {
            let what = format_args!("{n} of {} files could not be read whole", counts.files);
            Err(Failure::new(what, image.display(), "the index holds the others; see the `error` fields in it"))
        }
    }
}
