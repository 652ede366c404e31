//! `gammaray usn`: the change journal of NTFS volumes, as far as Windows kept one.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::output::{self, Out, lost};
use super::{Failure, ImageArgs, human};
use crate::name::{hex, lossy};
use crate::ntfs::usn::{self, Note};
use crate::open::{self, Area, Files};
use crate::units::Timestamp;

/// Arguments of `usn`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gammaray usn disk.raw\n  gammaray usn --json disk.raw | jq -r 'select(.reason[] == \"file-delete\").name'"
)]
pub struct UsnArgs {
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// A note as JSON.
#[derive(Serialize)]
struct Line<'a> {
    volume: &'a str,
    usn: u64,
    time: Timestamp,
    inode: u64,
    sequence: u16,
    parent: u64,
    parent_sequence: u16,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    reason: Vec<&'static str>,
    attributes: u32,
}

/// Run it.
pub fn run(args: &UsnArgs) -> Result<(), Failure> {
    let path = &args.image.image;
    let disk = open::image(path).map_err(|e| Failure::image(path, &e))?;
    let areas = match args.image.offset {
        Some(offset) => open::at(&disk, offset).map(|a| vec![a]),
        None => open::survey(&disk).map(|s| s.areas),
    };
    let areas = areas.map_err(|e| Failure::table(path, &e))?;
    let mut out = Out::new();
    let mut journals = 0;
    for area in &areas {
        journals += u32::from(journal(args, area, &mut out)?);
    }
    out.finish()?;
    if journals == 0 {
        let advice = "Windows keeps one only where that is switched on (`fsutil usn createjournal`)";
        return Err(Failure::new("no NTFS volume with a change journal", path.display(), advice));
    }
    Ok(())
}

/// Whether there is one.
fn journal(args: &UsnArgs, area: &Area, out: &mut Out) -> Result<bool, Failure> {
    let Some(Files::Ntfs(fs)) = &area.files else { return Ok(false) };
    let read =
        usn::read(
            fs,
            |note| {
                if args.json { output::json_line(out, &json(&area.name, &note)) } else { line(out, &note) }
            },
        );
    let path = args.image.image.display();
    let advice = "the notes before it were shown";
    match read
        .map_err(|e| Failure::new(format_args!("{}: cannot read the change journal: {e}", area.name), path, advice))?
    {
        Ok(None) => Ok(false),
        Ok(Some(odd)) => {
            if odd > 0 {
                tracing::warn!("{}: {odd} pages of the change journal hold something else as well", area.name);
            }
            Ok(true)
        }
        Err(e) => Err(lost(&e)),
    }
}

fn json<'a>(volume: &'a str, n: &Note) -> Line<'a> {
    Line {
        volume,
        usn: n.usn,
        time: n.time,
        inode: n.file.record(),
        sequence: n.file.sequence(),
        parent: n.parent.record(),
        parent_sequence: n.parent.sequence(),
        name: lossy(&n.name).into_owned(),
        name_hex: std::str::from_utf8(&n.name).is_err().then(|| hex(&n.name)),
        reason: usn::reasons(n.reason),
        attributes: n.attributes,
    }
}

fn line(out: &mut Out, n: &Note) -> std::io::Result<()> {
    let reasons = usn::reasons(n.reason).join(",");
    writeln!(
        out,
        "{:>12} {} {:>8} {:>8} {} {reasons}",
        n.usn,
        n.time,
        n.file.record(),
        n.parent.record(),
        human::name(&n.name)
    )
}
