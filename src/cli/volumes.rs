//! `gammaray volumes`: what lies where.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::output::{self, Out, lost};
use super::{Failure, human};
use crate::open::{self, Area};

/// Arguments of `volumes`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gammaray volumes disk.raw\n  gammaray volumes --json /dev/vg0/guest | jq .offset")]
pub struct VolumesArgs {
    /// One JSON object a line: name, offset, length (bytes), fs, label, uuid, state.
    #[arg(long)]
    pub json: bool,
    /// Raw disk image or block device.
    pub image: PathBuf,
}

/// Run it.
pub fn run(args: &VolumesArgs) -> Result<(), Failure> {
    let disk = open::image(&args.image).map_err(|e| Failure::image(&args.image, &e))?;
    let survey = open::survey(&disk).map_err(|e| Failure::table(&args.image, &e))?;
    for problem in &survey.table.problems {
        tracing::warn!("{}: {}: {problem}", args.image.display(), survey.table.scheme);
    }
    if survey.areas.is_empty() {
        tracing::warn!("{}: {} without partitions", args.image.display(), survey.table.scheme);
    }
    let mut out = Out::new();
    if !args.json {
        header(&mut out).map_err(|e| lost(&e))?;
    }
    for area in &survey.areas {
        let written = if args.json { output::json_line(&mut out, area) } else { line(&mut out, area) };
        written.map_err(|e| lost(&e))?;
    }
    out.finish()
}

fn header(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{:5} {:>15} {:>15}  {:9} {:16} {:36}  STATE", "NAME", "OFFSET", "LENGTH", "FS", "LABEL", "UUID")
}

fn line(out: &mut impl Write, a: &Area) -> std::io::Result<()> {
    let text = |s: Option<&str>| s.map_or_else(|| "-".into(), |s| human::name(s.as_bytes()));
    let (fs, label, uuid) = (text(a.fs), text(a.label.as_deref()), text(a.uuid.as_deref()));
    let (name, offset, length, state) = (&a.name, a.offset, a.length, a.state.to_string());
    let state = human::name(state.as_bytes());
    writeln!(out, "{name:5} {offset:>15} {length:>15}  {fs:9} {label:16} {uuid:36}  {state}")
}
