//! `gammaray attach`: the main job.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use gammaray_ublk::{Backing, Device, OpenMode, Options as DeviceOptions, Tap};

use super::signals::Signals;
use super::{Failure, PayloadArg};
use crate::attach::Follower;
use crate::config::{sinks, vm_name};
use crate::engine::{Engine, EngineOptions, Payload};
use crate::exact::Exact;
use crate::feed::{Feed, Limits};
use crate::open;
use crate::sink::jsonl::Jsonl;
use crate::sink::steady::Steady;
use crate::source::file::FileExport;
use crate::view::View;

/// How often to look whether the source or the view has ended.
const LOOK: Duration = Duration::from_millis(200);

/// How the guest reaches the disk.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// ublk if the kernel has it.
    #[default]
    Auto,
    /// A block device, /dev/ublkbN.
    Ublk,
    /// A file in a FUSE mount, for any VMM and for losetup.
    File,
}

/// Arguments of `attach`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gammaray attach disk.raw\n  \
    gammaray attach disk.raw --via file --export /run/disks --mount /mnt/guest --events events.jsonl\n\n\
    Runs until Ctrl-C or SIGTERM, then removes the device and the mounts.")]
pub struct AttachArgs {
    /// Raw disk image or block device.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// How the guest reaches the disk.
    #[arg(long, value_enum, default_value_t)]
    pub via: Via,
    /// With --via file: the disk is DIR/<the image's file name>.
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// Name of the VM in every event (default: the image's file name without its ending).
    #[arg(long)]
    pub vm: Option<String>,
    /// Show the guest's live files at DIR, read-only.
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// Where events go, as JSON Lines; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub events: PathBuf,
    /// Bytes in `write` events.
    #[arg(long, value_enum, default_value_t)]
    pub payload: PayloadArg,
    /// When the engine falls behind: let the guest wait instead of merging intermediate states.
    #[arg(long)]
    pub lossless: bool,
    /// Other sinks.
    #[command(flatten)]
    pub sinks: super::sinks::SinkArgs,
    /// What they cannot take.
    #[command(flatten)]
    pub spool: super::sinks::SpoolArgs,
}

/// Whatever serves the disk.
enum Source {
    Ublk(Device),
    File(FileExport),
}

impl Source {
    fn start(args: &AttachArgs, backing: Arc<Backing>, tap: Arc<dyn Tap>) -> Result<Self, Failure> {
        match args.via {
            Via::File => Self::file(args, backing, tap),
            Via::Ublk => Self::ublk(backing, tap),
            Via::Auto => match (gammaray_ublk::probe(), &args.export) {
                (Ok(_), _) => Self::ublk(backing, tap),
                (Err(why), Some(_)) => {
                    tracing::info!("{why}: the disk is served as a file");
                    Self::file(args, backing, tap)
                }
                (Err(why), None) => {
                    let advice = "or serve the disk as a file with --via file --export DIR; see `gammaray doctor`";
                    Err(Failure::new(why, args.image.display(), advice))
                }
            },
        }
    }

    fn ublk(backing: Arc<Backing>, tap: Arc<dyn Tap>) -> Result<Self, Failure> {
        Device::start(backing, tap, DeviceOptions::default()).map(Self::Ublk).map_err(Failure::line)
    }

    fn file(args: &AttachArgs, backing: Arc<Backing>, tap: Arc<dyn Tap>) -> Result<Self, Failure> {
        let missing = || Failure::new("--via file needs a directory", args.image.display(), "add --export DIR");
        let dir = args.export.as_deref().ok_or_else(missing)?;
        FileExport::single(backing, tap, dir, &file_name(&args.image)).map(Self::File).map_err(Failure::line)
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Ublk(d) => d.has_ended(),
            Self::File(f) => f.has_ended(),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Ublk(d) => d.path().into(),
            Self::File(f) => f.path(),
        }
    }

    fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Ublk(d) => d.stop().map_err(Failure::line),
            Self::File(f) => {
                f.stop();
                Ok(())
            }
        }
    }
}

/// Serve, follow and say until somebody asks for the end.
pub fn run(args: &AttachArgs) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let disk = open::image(&args.image).map_err(|e| Failure::image(&args.image, &e))?;
    let backing = Backing::open(&args.image, OpenMode::default()).map_err(Failure::line)?;
    let options =
        EngineOptions { vm: args.vm.clone().unwrap_or_else(|| vm_name(&args.image)), payload: args.payload.into() };
    let with_data = options.payload != Payload::None;
    let jsonl = Jsonl::open(&args.events).map_err(|e| Failure::output(args.events.display(), &e))?;
    let jsonl = Steady::new(jsonl.with_data(with_data), args.events.display().to_string());
    let remote = sinks::start(&args.sinks, &options.vm, with_data, &sinks::spooling(&args.spool))?;
    let no_copy = |e| Failure::new(format_args!("cannot make a temporary file: {e}"), "", "name a folder with TMPDIR");
    let exact = (options.payload == Payload::Exact).then(|| Exact::over(disk.clone())).transpose().map_err(no_copy)?;
    let disk = exact.as_ref().map_or(disk, Exact::disk);
    let mut engine = Engine::new(disk, options, Box::new(jsonl)).map_err(|e| Failure::table(&args.image, &e))?;
    remote.into_iter().for_each(|s| engine.add_sink(s));
    let limits = Limits { lossless: args.lossless, ..Limits::default() };
    let feed = Feed::new(exact.as_ref().map_or_else(|| engine.interest(), Exact::all_bytes), limits);
    let view = match &args.mount {
        Some(dir) => Some(View::mount(engine.guest(), dir).map_err(Failure::line)?),
        None => None,
    };
    if let Some(v) = &view {
        engine.add_sink(Box::new(v.sink()));
    }
    let source = Source::start(args, Arc::new(backing), feed.clone())?;
    eprintln!("gammaray: {} is served at {}", args.image.display(), source.path().display());
    let threads = |e| Failure::new(format_args!("cannot start a thread: {e}"), "", "check the limits of this process");
    let follower = Follower::start(engine, feed, exact).map_err(threads)?;
    while !signals.came_within(LOOK) && !source.has_ended() && !follower.has_ended() {}
    let stopped = source.stop();
    let result = follower.stop();
    drop(view);
    let events = result.map_err(|e| sinks::failure(&args.events, &e))?;
    tracing::info!("{events} events");
    stopped
}

fn file_name(image: &Path) -> OsString {
    image.file_name().map_or_else(|| "disk".into(), Into::into)
}
