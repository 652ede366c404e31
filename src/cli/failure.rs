//! How a command ends when it does not end well: one line on stderr that says what, where and what to do.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::name::one_line;
use crate::open::NoImage;

/// What failed, where, and what to do about it. Printed on one line; names are escaped.
#[derive(Debug)]
pub struct Failure {
    what: String,
    place: String,
    advice: String,
    /// Nobody reads our output any more: that is no failure.
    is_broken_pipe: bool,
}

impl Failure {
    /// `gammaray: what: place: advice`
    pub fn new(what: impl fmt::Display, place: impl fmt::Display, advice: impl fmt::Display) -> Self {
        let (what, place, advice) = (what.to_string(), place.to_string(), advice.to_string());
        Self { what, place, advice, is_broken_pipe: false }
    }

    /// A failure whose message already says what, where and what to do.
    pub fn line(message: impl fmt::Display) -> Self {
        Self::new(message, "", "")
    }

    /// An image that cannot be used.
    pub fn image(path: &Path, why: &NoImage) -> Self {
        let advice = match why {
            NoImage::Io(e) if e.kind() == io::ErrorKind::NotFound => "check the path",
            NoImage::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => "run as root or ask for read permission",
            NoImage::Io(_) => "check the disk that holds it",
            NoImage::Kind(_) | NoImage::Empty | NoImage::Tiny(_) => "name a raw disk image or a block device",
        };
        Self::new(format_args!("cannot use the image: {why}"), path.display(), advice)
    }

    /// The table of an image cannot be read.
    pub fn table(path: &Path, why: &crate::error::Error) -> Self {
        let advice = "repair it (sgdisk, sfdisk), or name the byte where a file system starts with --offset";
        Self::new(format_args!("cannot read the partition table: {why}"), path.display(), advice)
    }

    /// Our own output cannot be written.
    pub fn output(to: impl fmt::Display, why: &io::Error) -> Self {
        let advice = match why.kind() {
            io::ErrorKind::StorageFull => "make room and run it again",
            _ => "check that it can be written",
        };
        let is_broken_pipe = why.kind() == io::ErrorKind::BrokenPipe;
        Self { is_broken_pipe, ..Self::new(format_args!("cannot write: {why}"), to, advice) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.what, &self.place, &self.advice].into_iter().filter(|p| !p.is_empty());
        f.write_str(&one_line(&parts.map(String::as_str).collect::<Vec<_>>().join(": ")))
    }
}

impl std::error::Error for Failure {}

/// Why the process ends.
#[derive(Debug)]
pub enum Stop {
    /// Help, or a wrong command line.
    Usage(clap::Error),
    /// It failed.
    Failed(Failure),
}

impl From<clap::Error> for Stop {
    fn from(e: clap::Error) -> Self {
        Self::Usage(e)
    }
}

impl From<Failure> for Stop {
    fn from(f: Failure) -> Self {
        Self::Failed(f)
    }
}

impl Stop {
    /// Tell the user, and the exit code: 0 fine, 1 failed, 2 usage.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Usage(e) => {
                // There is nobody left to tell when that fails.
                let _ = e.print();
                ExitCode::from(if e.use_stderr() { 2 } else { 0 })
            }
            Self::Failed(f) if f.is_broken_pipe => ExitCode::SUCCESS,
            Self::Failed(f) => {
                use io::Write as _;
                let _ = writeln!(io::stderr(), "gammaray: {f}");
                ExitCode::FAILURE
            }
        }
    }
}
