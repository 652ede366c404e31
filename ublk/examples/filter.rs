//! Serves an image as /dev/ublkbN, prints that path, and counts what passes until SIGINT or SIGTERM.
//!
//! `filter [--no-scan] [--no-map] [--buffered] [--want] [--depth N] [--queues N] IMAGE`

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gammaray_ublk::{Backing, Device, OpenMode, Options, Tap};
use nix::sys::signal::{SigSet, Signal};

/// Counts, and wants everything or nothing.
#[derive(Debug, Default)]
struct Count {
    want: bool,
    writes: AtomicU64,
    bytes: AtomicU64,
    seen: AtomicU64,
    zeros: AtomicU64,
    discards: AtomicU64,
    flushes: AtomicU64,
}

impl Tap for Count {
    fn wants(&self, _: u64, _: u64) -> bool {
        self.want
    }

    fn write(&self, _: u64, len: u64, data: Option<&[u8]>) {
        self.writes.fetch_add(1, Relaxed);
        self.bytes.fetch_add(len, Relaxed);
        self.seen.fetch_add(data.map_or(0, |d| d.len() as u64), Relaxed);
    }

    fn zero(&self, _: u64, _: u64) {
        self.zeros.fetch_add(1, Relaxed);
    }

    fn discard(&self, _: u64, _: u64) {
        self.discards.fetch_add(1, Relaxed);
    }

    fn flush(&self) {
        self.flushes.fetch_add(1, Relaxed);
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("filter: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut options, mut mode, mut tap, mut image) = (Options::default(), OpenMode::Direct, Count::default(), None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or("a number is missing");
        match arg.as_str() {
            "--no-scan" => options.scan_partitions = false,
            "--no-map" => options.map_memory = false,
            "--buffered" => mode = OpenMode::Buffered,
            "--want" => tap.want = true,
            "--depth" => options.depth = number()?,
            "--queues" => options.queues = Some(number()?),
            _ => image = Some(arg),
        }
    }
    // Before there are threads, so that none of them takes these signals.
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    ends.thread_block()?;
    let backing = Arc::new(Backing::open(Path::new(&image.ok_or("which image?")?), mode)?);
    let tap = Arc::new(tap);
    let device = Arc::new(Device::start(backing, tap.clone(), options)?);
    println!("{}", device.path().display());
    let watched = device.clone();
    std::thread::spawn(move || {
        if let Err(e) = watched.wait() {
            eprintln!("filter: {e}");
            std::process::exit(1);
        }
    });
    ends.wait()?;
    device.stop()?;
    println!("{tap:?}");
    Ok(())
}
