//! Serves an image as /dev/ublkbN, prints that path, and counts what passes until SIGINT or SIGTERM.
//!
//! `filter [--no-scan] [--no-map] [--buffered] [--want] [--depth N] [--queues N] IMAGE`
//!
//! Its tap costs what the real one does: a bit test, and a small descriptor on a bounded queue that
//! somebody else empties.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gammaray_ublk::{Backing, Device, OpenMode, Options, Tap};
use nix::sys::signal::{SigSet, Signal};

/// How many descriptors may wait.
const BOUND: usize = 1 << 16;

/// What the engine would learn of a write.
type Descriptor = (u64, u64, Option<Box<[u8]>>);

/// Counts, and wants everything or nothing.
#[derive(Debug, Default)]
struct Count {
    /// One bit per 4 KiB of the disk.
    wanted: Vec<AtomicU64>,
    queue: Mutex<VecDeque<Descriptor>>,
    lost: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
    seen: AtomicU64,
    zeros: AtomicU64,
    discards: AtomicU64,
    flushes: AtomicU64,
}

impl Count {
    fn new(size: u64, want: bool) -> Self {
        let words = usize::try_from(size.div_ceil(4096 * 64)).unwrap_or(0);
        let word = if want { u64::MAX } else { 0 };
        Self { wanted: (0..words).map(|_| AtomicU64::new(word)).collect(), ..Self::default() }
    }

    /// Empties the queue from time to time, as the engine would.
    fn consume(&self) -> ! {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let taken = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
            drop(taken);
        }
    }
}

impl Tap for Count {
    fn wants(&self, offset: u64, len: u64) -> bool {
        (offset / 4096..(offset + len).div_ceil(4096)).any(|block| {
            let word = usize::try_from(block / 64).ok().and_then(|w| self.wanted.get(w));
            word.is_some_and(|w| w.load(Relaxed) >> (block % 64) & 1 == 1)
        })
    }

    fn write(&self, offset: u64, len: u64, data: Option<&[u8]>) {
        self.writes.fetch_add(1, Relaxed);
        self.bytes.fetch_add(len, Relaxed);
        let copied = data.filter(|_| self.wants(offset, len)).map(Box::from);
        self.seen.fetch_add(if copied.is_some() { len } else { 0 }, Relaxed);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < BOUND {
            queue.push_back((offset, len, copied));
        } else {
            self.lost.fetch_add(1, Relaxed);
        }
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
    let (mut options, mut mode, mut want, mut image) = (Options::default(), OpenMode::Direct, false, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or("a number is missing");
        match arg.as_str() {
            "--no-scan" => options.scan_partitions = false,
            "--no-map" => options.map_memory = false,
            "--buffered" => mode = OpenMode::Buffered,
            "--want" => want = true,
            "--depth" => options.depth = number()?,
            "--queues" => options.queues = Some(number()?),
            _ => image = Some(arg),
        }
    }
    // Before there are threads, so that none of them takes these signals.
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    ends.thread_block()?;
    let backing = Arc::new(Backing::open(Path::new(&image.ok_or("which image?")?), mode)?);
    let tap = Arc::new(Count::new(backing.size(), want));
    let consumed = tap.clone();
    std::thread::spawn(move || consumed.consume());
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
    let Count { writes, bytes, seen, zeros, discards, flushes, lost, .. } = &*tap;
    println!(
        "writes: {writes:?} bytes: {bytes:?} seen: {seen:?} zeros: {zeros:?} discards: {discards:?} flushes: {flushes:?} lost: {lost:?}"
    );
    Ok(())
}
