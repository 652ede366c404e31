//! What the command line means.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::{Failure, ImageArgs, PayloadArg};
use crate::engine::Payload;
use crate::error::Error;
use crate::guest::Guest;
use crate::image::Disk;
use crate::lookup::{self, Place};
use crate::name::{GuestPath, escape};
use crate::open::{self, Survey};

impl From<PayloadArg> for Payload {
    fn from(arg: PayloadArg) -> Self {
        match arg {
            PayloadArg::None => Self::None,
            PayloadArg::Disk | PayloadArg::Exact => Self::Disk,
        }
    }
}

/// An image to look into.
pub struct Target {
    path: PathBuf,
    guest: Guest,
}

impl Target {
    /// Open an image, and its readable file systems or the one at `--offset`.
    pub fn open(args: &ImageArgs) -> Result<Self, Failure> {
        let path = args.image.clone();
        let disk = open::image(&path).map_err(|e| Failure::image(&path, &e))?;
        let guest = match args.offset {
            None => guest(&path, &disk)?,
            Some(offset) if offset >= disk.size() => {
                let what = format_args!("--offset {offset} is past the end of the image ({} bytes)", disk.size());
                return Err(Failure::new(what, path.display(), "see `gammaray volumes` for what lies where"));
            }
            Some(offset) => open::guest_at(&disk, offset).map_err(|e| {
                let advice = "see `gammaray volumes` for what lies where";
                Failure::new(format_args!("cannot read a file system: {e}"), path.display(), advice)
            })?,
        };
        Ok(Self { path, guest })
    }

    /// Its file systems.
    pub fn into_guest(self) -> Guest {
        self.guest
    }

    /// Find a path in the guest.
    pub fn find(&self, path: &[u8], follow: bool) -> Result<(Place, GuestPath), Failure> {
        lookup::find(&self.guest, path, follow).map_err(|e| self.unreadable(&GuestPath(path.to_vec()), &e))
    }

    /// A file of the guest cannot be read.
    pub fn unreadable(&self, path: &GuestPath, why: &Error) -> Failure {
        let advice = match why {
            Error::NotFound | Error::NotADirectory => "see `gammaray ls` for what is there",
            Error::IsADirectory => "list it with `gammaray ls`",
            Error::Corrupt { .. } => "the image is damaged: check a copy of it with fsck",
            _ => "see `gammaray volumes` for the state of its file system",
        };
        self.failure(format_args!("cannot read {}: {why}", escape(&path.0)), advice)
    }

    /// A failure about this image.
    pub fn failure(&self, what: impl fmt::Display, advice: &str) -> Failure {
        Failure::new(what, self.path.display(), advice)
    }
}

fn guest(path: &Path, disk: &Disk) -> Result<Guest, Failure> {
    let survey = open::survey(disk).map_err(|e| Failure::table(path, &e))?;
    for problem in &survey.table.problems {
        tracing::warn!("{}: {}: {problem}", path.display(), survey.table.scheme);
    }
    if survey.areas.iter().all(|a| a.files.is_none()) {
        return Err(nothing_readable(path, &survey));
    }
    Ok(survey.guest())
}

/// No file system of an image can be read.
pub fn nothing_readable(path: &Path, survey: &Survey) -> Failure {
    let states: Vec<_> = survey.areas.iter().map(|a| format!("{}: {}", a.name, a.state)).collect();
    let why = if states.is_empty() { "no partitions".to_owned() } else { states.join(", ") };
    let what = format_args!("no file system that can be read ({why})");
    Failure::new(what, path.display(), "see `gammaray volumes` for what lies where")
}
