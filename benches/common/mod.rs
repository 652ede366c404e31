//! What the benches share: running a program with its cost, and tables.
#![allow(dead_code, reason = "each bench uses its own part")]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds on a CPU, in user and kernel mode.
    pub cpu: f64,
    /// Largest resident memory in bytes.
    pub memory: u64,
}

/// Run a program to its end with its output going to `to`; panics unless it exits with 0.
///
/// The cost comes from GNU time, which reports `getrusage` of the child alone.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>, to: &Path) -> Cost {
    let report = tempfile::NamedTempFile::new().unwrap();
    let start = Instant::now();
    let mut command = Command::new("/usr/bin/time");
    command.args(["-f", "%U %S %M", "-o"]).arg(report.path()).arg(program).args(args);
    command.stdin(Stdio::null()).stdout(File::create(to).unwrap());
    let status = command.status().unwrap_or_else(|e| panic!("GNU time: {e} (apt-get install time)"));
    let wall = start.elapsed().as_secs_f64();
    assert!(status.success(), "{program}: {:?} {:?}", status.code(), status.signal());
    let text = std::fs::read_to_string(report.path()).unwrap();
    let field = |n: usize| text.split_whitespace().nth(n).unwrap();
    let seconds = |n: usize| field(n).parse::<f64>().unwrap();
    Cost { wall, cpu: seconds(0) + seconds(1), memory: field(2).parse::<u64>().unwrap() * 1024 }
}

/// The median of what `of` finds in each of `costs`.
pub fn median<T>(costs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A number that the environment may change.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}: not a number: {v}")))
}
