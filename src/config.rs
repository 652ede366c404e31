//! What the command line means.

pub mod sinks;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::replay::ReplayArgs;
use crate::cli::sinks::SinkArgs;
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
            PayloadArg::Disk => Self::Disk,
            PayloadArg::Exact => Self::Exact,
        }
    }
}

/// A recorded stream of writes.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// Trace of the patched QEMU.
    QemuTrace(PathBuf),
    /// Log of dm-log-writes.
    LogWrites(PathBuf),
}

impl Recorded {
    /// Where it is; `-` is stdin.
    pub fn path(&self) -> &Path {
        match self {
            Self::QemuTrace(p) | Self::LogWrites(p) => p,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::QemuTrace(_) => "trace",
            Self::LogWrites(_) => "log",
        }
    }
}

/// What `replay` shall do.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// The disk before the first write.
    pub image: PathBuf,
    /// The writes.
    pub stream: Recorded,
    /// Where events go.
    pub events: PathBuf,
    /// Where the listing at the end goes.
    pub final_tree: Option<PathBuf>,
    /// Name of the VM.
    pub vm: String,
    /// Whose bytes `write` events carry.
    pub payload: Payload,
    /// Where events go too.
    pub sinks: SinkArgs,
}

impl ReplayConfig {
    /// What these arguments mean.
    pub fn new(args: &ReplayArgs) -> Result<Self, Failure> {
        let stream = match (&args.qemu_trace, &args.log_writes) {
            (Some(p), None) => Recorded::QemuTrace(p.clone()),
            (None, Some(p)) => Recorded::LogWrites(p.clone()),
            _ => return Err(Failure::line("name one recording, with --qemu-trace or --log-writes")),
        };
        for out in std::iter::once(&args.events).chain(&args.final_tree) {
            if [args.image.as_path(), stream.path()].into_iter().any(|input| is_same_file(input, out)) {
                return Err(Failure::new("this output would overwrite an input", out.display(), "name another file"));
            }
        }
        Ok(Self {
            image: args.image.clone(),
            stream,
            events: args.events.clone(),
            final_tree: args.final_tree.clone(),
            vm: args.vm.clone().unwrap_or_else(|| vm_name(&args.image)),
            payload: args.payload.into(),
            sinks: args.sinks.clone(),
        })
    }
}

/// The VM's name by default: the image's file name without its ending.
pub fn vm_name(image: &Path) -> String {
    image.file_stem().map_or_else(|| "vm".into(), |s| s.to_string_lossy().into_owned())
}

/// Whether both names lead to one file.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |p: &Path| std::fs::metadata(p).ok().map(|m| (m.dev(), m.ino()));
    id(a).is_some_and(|a| id(b) == Some(a))
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
