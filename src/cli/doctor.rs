//! `gammaray doctor`: what this host offers, and how to get what is missing.

use std::io;

use clap::Args;

use super::output::{self, Out, lost};
use super::{Failure, human};
use crate::doctor::{Finding, examine};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gammaray doctor\n  gammaray doctor --json | jq 'select(.ok | not)'\n\n\
    Exits with 0 whatever is missing: nothing of it is needed for `ls`, `crawl` and `replay`.")]
pub struct DoctorArgs {
    /// One JSON object a line: name, ok, found, advice.
    #[arg(long)]
    pub json: bool,
}

/// Run it.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let mut out = Out::new();
    for finding in examine() {
        let written = if args.json { output::json_line(&mut out, &finding) } else { line(&mut out, &finding) };
        written.map_err(|e| lost(&e))?;
    }
    out.finish()
}

fn line(out: &mut impl io::Write, f: &Finding) -> io::Result<()> {
    let state = if f.ok { "ok" } else { "missing" };
    write!(out, "{:16} {state:8} {}", f.name, human::name(f.found.as_bytes()))?;
    match &f.advice {
        Some(advice) => writeln!(out, ": {advice}"),
        None => writeln!(out),
    }
}
