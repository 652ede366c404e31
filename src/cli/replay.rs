//! `gammaray replay`: the events of a recorded stream of writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};

use super::{Failure, PayloadArg, output};
use crate::config::{Recorded, ReplayConfig, sinks};
use crate::engine::{Engine, EngineOptions, Payload};
use crate::listing::{self, Depth};
use crate::lookup;
use crate::name::GuestPath;
use crate::overlay::Overlay;
use crate::sink::jsonl::Jsonl;
use crate::sink::outlet::OutletOptions;
use crate::source::log_writes::LogWrites;
use crate::source::qemu_trace::QemuTrace;
use crate::source::recording::Recording;
use crate::source::stream::{Replay, Stream, StreamError};
use crate::units::Timestamp;
use crate::write::WriteOp;
use crate::{open, sink};

/// How long a pipe may be silent before the engine makes sense of what came.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `replay`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("stream").required(true).args(["qemu_trace", "log_writes"])))]
#[command(after_help = "Examples:\n  gammaray replay --image before.raw --log-writes writes.log\n  \
    gammaray replay --image before.raw --qemu-trace disk.fifo --events events.jsonl\n  \
    gammaray replay --image before.raw --qemu-trace - --final-tree tree.jsonl < trace > events.jsonl\n\n\
    The image is never changed: newer bytes are read from the recording. What comes from a pipe\n\
    is kept in a temporary file (TMPDIR).")]
pub struct ReplayArgs {
    /// The disk as it was before the first recorded write.
    #[arg(long, value_name = "BEFORE")]
    pub image: PathBuf,
    /// Trace of the patched QEMU: a file, a FIFO, or `-` for stdin.
    #[arg(long, value_name = "FILE")]
    pub qemu_trace: Option<PathBuf>,
    /// Log of dm-log-writes or of QEMU's blklogwrites.
    #[arg(long, value_name = "FILE")]
    pub log_writes: Option<PathBuf>,
    /// Where events go, as JSON Lines; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub events: PathBuf,
    /// Write the canonical listing of the inferred files at the end, with SHA-256; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    pub final_tree: Option<PathBuf>,
    /// Name of the VM in every event (default: the image's file name without its ending).
    #[arg(long)]
    pub vm: Option<String>,
    /// Bytes in `write` events.
    #[arg(long, value_enum, default_value_t)]
    pub payload: PayloadArg,
    /// Other sinks.
    #[command(flatten)]
    pub sinks: super::sinks::SinkArgs,
}

/// Run it to the end of the stream, or to where the stream makes no sense any more. What came
/// before is delivered either way.
pub fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let config = ReplayConfig::new(args)?;
    let started = Instant::now();
    let base = open::image(&config.image).map_err(|e| Failure::image(&config.image, &e))?;
    let recording = Recording::open(config.stream.path()).map_err(|e| unreadable(&config.stream, &e))?;
    let store = recording.store().map_err(|e| unreadable(&config.stream, &e))?;
    let overlay = Arc::new(Overlay::new(base, store));
    let lost = |e: std::io::Error| sinks::failure(&config.events, &e);
    let with_data = config.payload != Payload::None;
    let sink = Jsonl::open(&config.events).map_err(lost)?.with_data(with_data);
    let options = EngineOptions { vm: config.vm.clone(), payload: config.payload };
    let mut engine =
        Engine::new(overlay.clone(), options, Box::new(sink)).map_err(|e| Failure::table(&config.image, &e))?;
    for sink in sinks::start(&config.sinks, &config.vm, with_data, &OutletOptions::waiting())? {
        engine.add_sink(sink);
    }
    let replay = Replay::new(recording, engine.interest(), overlay.clone());
    let mut totals = Totals::default();
    let ended = match stream(&config.stream, replay) {
        Ok(mut stream) => follow(&mut engine, &mut *stream, &mut totals).map_err(lost)?,
        Err(e) => Some(e),
    };
    engine.finish().map_err(lost)?;
    engine.close().map_err(lost)?;
    totals.report(started.elapsed(), engine.events(), overlay.ranges());
    if let Some(path) = &config.final_tree {
        write_tree(&engine, path).map_err(|e| Failure::output(path.display(), &e))?;
    }
    ended.map_or(Ok(()), |e| Err(stopped(&config.stream, &e)))
}

fn stream(kind: &Recorded, replay: Replay) -> Result<Box<dyn Stream>, StreamError> {
    Ok(match kind {
        Recorded::QemuTrace(_) => Box::new(QemuTrace::new(replay)),
        Recorded::LogWrites(_) => Box::new(LogWrites::new(replay)?),
    })
}

/// Feed the engine. The outer error is the sink's; the inner value is why the stream ended early.
fn follow(engine: &mut Engine, stream: &mut dyn Stream, totals: &mut Totals) -> std::io::Result<Option<StreamError>> {
    loop {
        while !stream.replay().recording.is_ready(PAUSE) {
            engine.tick(Timestamp::now())?;
        }
        match stream.next() {
            None => return Ok(None),
            Some(Err(e)) => return Ok(Some(e)),
            Some(Ok(write)) => {
                totals.count(&write.op);
                engine.apply(&write)?;
            }
        }
    }
}

#[derive(Default)]
struct Totals {
    writes: u64,
    bytes: u64,
}

impl Totals {
    fn count(&mut self, op: &WriteOp) {
        self.writes += 1;
        if let WriteOp::Data { len, .. } = op {
            self.bytes += len;
        }
    }

    fn report(&self, time: Duration, events: u64, ranges: usize) {
        let Self { writes, bytes } = self;
        tracing::info!("{writes} writes, {bytes} bytes, {events} events in {time:?}; {ranges} ranges of newer bytes");
    }
}

fn write_tree(engine: &Engine, path: &Path) -> std::io::Result<()> {
    let mut out = sink::jsonl::create(path)?;
    let depth = Depth { hash: true, ..listing::ALL };
    let root = lookup::root(&engine.guest());
    listing::walk(&root, GuestPath(b"/".to_vec()), depth, |r| output::json_line(&mut out, r))?;
    std::io::Write::flush(&mut out)
}

fn unreadable(stream: &Recorded, why: &std::io::Error) -> Failure {
    Failure::new(format_args!("cannot open the {}: {why}", stream.name()), stream.path().display(), "check the path")
}

fn stopped(stream: &Recorded, why: &StreamError) -> Failure {
    let advice = match why {
        StreamError::Cut { .. } => "the events before it are complete; record again for the rest",
        StreamError::Text { .. } => {
            "send QEMU's messages elsewhere and record again; the events before it are complete"
        }
        StreamError::Lost { .. } => {
            "record again with a faster reader or a larger buffer; the events before it are complete"
        }
        StreamError::Implausible { .. } => "check that it is such a recording, and of this disk",
        StreamError::PastEnd { .. } => "name the image on which it was recorded with --image",
        StreamError::Io { .. } => "check the disk that holds it and the room in TMPDIR",
    };
    Failure::new(format_args!("cannot follow the {} further: {why}", stream.name()), stream.path().display(), advice)
}
