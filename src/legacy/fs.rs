//! `gray-fs MNT -d -s disk.raw`

mod changes;

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

use self::changes::Changes;
use super::Common;
use crate::cli::Failure;
use crate::cli::signals::Signals;
use crate::engine::{Engine, EngineOptions, Payload};
use crate::event::Event;
use crate::image::Disk;
use crate::open;
use crate::sink::Sink;
use crate::view::View;

/// How often to look whether the image has changed.
const LOOK: Duration = Duration::from_millis(200);
/// Reading the image again takes up at most one part in so many of the time.
const SHARE: u32 = 4;

/// Show the files of a disk, read-only, and follow what its guest writes.
#[derive(Parser, Debug)]
#[command(name = "gray-fs", version, max_term_width = 100)]
#[command(after_help = "Example:\n  gray-fs /mnt/guest -d -s disk.raw\n\n\
    Without -f and -d it goes into the background once the files are there. It ends with\n\
    `umount MOUNTPOINT`, and in the foreground with Ctrl-C. Other options of libfuse are ignored.")]
pub struct FsArgs {
    /// Directory to show the files at.
    pub mountpoint: PathBuf,
    /// Raw disk image or block device. A guest may be using it.
    pub image: PathBuf,
    /// Stay in the foreground, and say more on stderr.
    #[arg(short = 'd')]
    pub debug: bool,
    /// Stay in the foreground.
    #[arg(short = 'f')]
    pub foreground: bool,
    /// Serve from one thread.
    #[arg(short = 's')]
    pub single: bool,
    /// Mount options: ignored. The view is always read-only, nosuid, nodev and noexec.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}

impl FsArgs {
    /// With `-d` as if there was a `-v`.
    pub fn common(&self) -> Common {
        Common { verbose: self.common.verbose.max(self.debug.into()) }
    }
}

/// Run it until somebody asks for the end or unmounts it; in the background if so wanted.
pub fn run(args: &FsArgs) -> Result<(), Failure> {
    if args.debug || args.foreground { serve(args) } else { go_behind(args) }
}

/// Knows no events.
struct Silent;

impl Sink for Silent {
    fn emit(&mut self, _: &Event) -> std::io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn serve(args: &FsArgs) -> Result<(), Failure> {
    let disk = open::image(&args.image).map_err(|e| Failure::image(&args.image, &e))?;
    let unseen =
        |e: std::io::Error| Failure::new(format_args!("cannot watch the image: {e}"), args.image.display(), "");
    // Looked at first: what changes during the crawl is read again.
    let changes = Changes::of(&args.image).map_err(unseen)?;
    let mut engine = crawl(&args.image, &disk)?;
    let signals = Signals::catch()?;
    let view = if args.single {
        View::mount_with(engine.guest(), &args.mountpoint, 1)
    } else {
        View::mount(engine.guest(), &args.mountpoint)
    };
    let view = view.map_err(Failure::line)?;
    engine.add_sink(Box::new(view.sink()));
    tracing::info!("{} is shown at {}", args.image.display(), view.dir().display());
    follow(&mut engine, changes, &view, &signals);
    view.stop();
    Ok(())
}

fn crawl(image: &Path, disk: &Disk) -> Result<Engine, Failure> {
    let options = EngineOptions { vm: String::new(), payload: Payload::None };
    let engine = Engine::new(disk.clone(), options, Box::new(Silent)).map_err(|e| Failure::table(image, &e))?;
    if engine.guest().volumes().is_empty() {
        let survey = open::survey(disk).map_err(|e| Failure::table(image, &e))?;
        return Err(crate::config::nothing_readable(image, &survey));
    }
    Ok(engine)
}

/// Read the image again whenever it has changed. The writes themselves do not come by here, and
/// the image may be read while half of a change is on it; then the next look finds the rest.
fn follow(engine: &mut Engine, mut changes: Changes, view: &View, signals: &Signals) {
    let mut pause = LOOK;
    while !view.has_ended() && !signals.came_within(pause) {
        pause = LOOK;
        if !changes.came() {
            continue;
        }
        let start = Instant::now();
        if let Err(e) = engine.reread() {
            tracing::warn!("cannot follow the image: {e}");
        }
        pause = LOOK.max(start.elapsed() * SHARE);
    }
}

/// Start the same in the background, and wait until the files are there.
fn go_behind(args: &FsArgs) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;
    let cannot = |e: std::io::Error| Failure::new(format_args!("cannot go into the background: {e}"), "", "use -f");
    let before = device(&args.mountpoint);
    let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
    command.arg("-f").args(args.single.then_some("-s")).arg("--").arg(&args.mountpoint).arg(&args.image);
    // What it says goes to a file: whoever waits for our stderr to be closed would wait for the view's
    // end. A process group of its own: the terminal's Ctrl-C is not for it.
    let mut said = tempfile::tempfile().map_err(cannot)?;
    let stderr = said.try_clone().map_err(cannot)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
    let mut child = command.spawn().map_err(cannot)?;
    loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            return if status.success() { Ok(()) } else { Err(last_words(&mut said)) };
        }
        if device(&args.mountpoint) != before {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Why the process in the background has ended.
fn last_words(said: &mut std::fs::File) -> Failure {
    let mut text = String::new();
    // What cannot be read is not told.
    let _ = said.rewind().and_then(|()| said.take(1 << 16).read_to_string(&mut text));
    let line = text.lines().last().unwrap_or("it has ended and did not say why");
    Failure::line(line.strip_prefix("gammaray: ").unwrap_or(line))
}

fn device(dir: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(dir).ok().map(|m| m.dev())
}
