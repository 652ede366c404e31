//! `gammaray stat`: all that is known about one file.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use super::output::{self, Out, lost};
use super::{Failure, ImageArgs, human};
use crate::config::Target;
use crate::listing::{self, Depth, Record};
use crate::lookup::Place;
use crate::tree::Attr;

/// Arguments of `stat`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gammaray stat disk.raw /etc/passwd\n  gammaray stat --json --hash disk.raw /p1/bin/sh"
)]
pub struct StatArgs {
    /// As the JSON object of the canonical listing.
    #[arg(long)]
    pub json: bool,
    /// Also the SHA-256 of a regular file's content.
    #[arg(long)]
    pub hash: bool,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Path in the guest. If it names a symbolic link, the link itself is shown.
    pub path: OsString,
}

/// Run it.
pub fn run(args: &StatArgs) -> Result<(), Failure> {
    let target = Target::open(&args.image)?;
    let (place, path) = target.find(args.path.as_bytes(), false)?;
    let record = listing::record(&place, path, Depth { xattrs: true, hash: args.hash });
    // What fails here failed for the record as well, and is told there.
    let facts = match &place {
        Place::File { tree, ino } if !args.json => tree.facts(*ino).unwrap_or_default(),
        _ => Vec::new(),
    };
    let mut out = Out::new();
    let written = if args.json { output::json_line(&mut out, &record) } else { show(&mut out, &record, &facts) };
    written.map_err(|e| lost(&e))?;
    out.finish()?;
    match &record.error {
        None => Ok(()),
        Some(why) => Err(target.failure(format_args!("cannot read it whole: {why}"), "see what else is shown")),
    }
}

fn show(out: &mut impl Write, r: &Record, facts: &[(&str, String)]) -> io::Result<()> {
    writeln!(out, "  Path: {}", human::name(&r.path.0))?;
    if let Some(target) = &r.target {
        writeln!(out, "Target: {}", human::name(target))?;
    }
    if let Some(a) = &r.attr {
        show_attr(out, a)?;
    }
    for (name, value) in &r.xattrs {
        writeln!(out, " Xattr: {} = 0x{}", human::name(name), crate::name::hex(value))?;
    }
    for s in &r.streams {
        let hash = s.sha256.map(|h| format!(" SHA256 {}", crate::name::hex(&h))).unwrap_or_default();
        writeln!(out, "Stream: {} ({} bytes){hash}", human::name(&s.name), s.size)?;
    }
    for (name, value) in facts {
        writeln!(out, "{name}: {}", crate::name::one_line(value))?;
    }
    if let Some(hash) = &r.sha256 {
        writeln!(out, "SHA256: {}", crate::name::hex(hash))?;
    }
    Ok(())
}

fn show_attr(out: &mut impl Write, a: &Attr) -> io::Result<()> {
    writeln!(
        out,
        "  Size: {}\tSpace: {} bytes\tInode: {}\tLinks: {}",
        a.size,
        a.sectors.saturating_mul(512),
        a.ino,
        a.nlink
    )?;
    let id = |v: Option<u32>| v.map_or_else(|| "-".into(), |v| v.to_string());
    writeln!(out, "Access: {} ({:04o})\tUid: {}\tGid: {}", human::mode(a), a.mode.unwrap_or(0), id(a.uid), id(a.gid))?;
    if let Some((major, minor)) = a.rdev {
        writeln!(out, "Device: {major}, {minor}")?;
    }
    writeln!(out, "Access: {}\nModify: {}\nChange: {}", a.atime, a.mtime, a.ctime)?;
    a.crtime.map_or(Ok(()), |t| writeln!(out, " Birth: {t}"))
}
