//! `gammaray ls`: a directory, or with `-R` the canonical listing.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use super::output::{self, Out, lost};
use super::{Failure, ImageArgs, human};
use crate::config::Target;
use crate::listing::{self, Depth, Record};
use crate::lookup::Place;
use crate::name::GuestPath;

/// Arguments of `ls`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gammaray ls disk.raw /etc\n  gammaray ls -R --json --hash disk.raw > listing.jsonl\n  \
    gammaray ls --offset 1048576 disk.raw /\n\nOn a disk with several file systems they are the folders /p1, /p2, …"
)]
pub struct LsArgs {
    /// The directory itself and everything below it, sorted by the paths' bytes.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// One JSON object a line (the canonical listing).
    #[arg(long)]
    pub json: bool,
    /// Also the SHA-256 of every regular file's content.
    #[arg(long)]
    pub hash: bool,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Path in the guest.
    #[arg(default_value = "/")]
    pub path: OsString,
}

/// Run it.
pub fn run(args: &LsArgs) -> Result<(), Failure> {
    let target = Target::open(&args.image)?;
    let (place, path) = target.find(args.path.as_bytes(), false)?;
    let depth = Depth { xattrs: args.json, hash: args.hash };
    let mut out = Out::new();
    let mut failed = 0_u64;
    let mut show = |r: &Record, shown: &[u8]| {
        failed += u64::from(r.error.is_some());
        if args.json { output::json_line(&mut out, r) } else { line(&mut out, &human::line(r, shown)) }
    };
    let done = if args.recursive {
        listing::walk(&place, path, depth, |r| show(r, &r.path.0))
    } else {
        one_level(&target, &place, path, depth, &mut show)?
    };
    done.map_err(|e| lost(&e))?;
    out.finish()?;
    match failed {
        0 => Ok(()),
        n => Err(target.failure(format_args!("{n} files could not be read whole"), "see what their lines say")),
    }
}

fn line(out: &mut Out, text: &str) -> io::Result<()> {
    use io::Write as _;
    writeln!(out, "{text}")
}

/// The names in a directory by rising bytes, or the file itself. The outer error is about the
/// guest, the inner one about our output.
fn one_level(
    target: &Target,
    place: &Place,
    path: GuestPath,
    depth: Depth,
    show: &mut impl FnMut(&Record, &[u8]) -> io::Result<()>,
) -> Result<io::Result<()>, Failure> {
    let own = listing::record(place, path.clone(), Depth::default());
    if !own.is_dir() {
        let own = listing::record(place, path, depth);
        return Ok(show(&own, &own.path.0));
    }
    let (names, problem) = listing::names(place);
    let mut names = names.into_iter();
    let shown = names.try_for_each(|(name, place)| show(&listing::record(&place, path.join(&name), depth), &name));
    match problem {
        Some(e) if shown.is_ok() => Err(target.unreadable(&path, &e)),
        _ => Ok(shown),
    }
}
