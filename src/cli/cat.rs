//! `gammaray cat`: a file's bytes.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use super::output::{Out, lost};
use super::{Failure, ImageArgs};
use crate::config::Target;
use crate::error::Error;
use crate::lookup::Place;
use crate::tree::Kind;

const CHUNK: usize = 1 << 20;

/// Arguments of `cat`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gammaray cat disk.raw /etc/hostname\n  gammaray cat disk.raw /p2/var/log/syslog | less"
)]
pub struct CatArgs {
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Path in the guest. Symbolic links are followed inside the guest.
    pub path: OsString,
}

/// Run it.
pub fn run(args: &CatArgs) -> Result<(), Failure> {
    let target = Target::open(&args.image)?;
    let (place, path) = target.find(args.path.as_bytes(), true)?;
    let mut out = Out::new();
    let Place::File { tree, ino } = place else { return Err(target.unreadable(&path, &Error::IsADirectory)) };
    let unreadable = |e: Error| target.unreadable(&path, &e);
    let attr = tree.attr(ino).map_err(unreadable)?;
    match attr.kind {
        Kind::File => {}
        Kind::Dir => return Err(unreadable(Error::IsADirectory)),
        _ => return Err(unreadable(Error::Unsupported { what: "the content of a special file".into(), at: 0 })),
    }
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    while offset < attr.size {
        let len = tree.read(ino, offset, &mut buf).map_err(unreadable)?;
        if len == 0 {
            break;
        }
        out.write_all(buf.get(..len).unwrap_or_default()).map_err(|e| lost(&e))?;
        offset += len as u64;
    }
    out.finish()
}
