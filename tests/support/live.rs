//! One live run: a guest's kernel works on a disk that gammaray serves, and at every point of rest
//! what gammaray infers is compared with what the kernel finds on the disk.

use std::path::{Path, PathBuf};

use super::daemon::{self, Attach, Via};
use super::diff::{all_of, must_equal, report};
use super::disk::{Loop, Mount, copy, fsck, kernel_listing, kernel_listing_at, make, same_bytes, scratch};
use super::events::Events;
use super::model::Model;
use super::oracle;
use super::record::Listing;
use super::workload::Workload;

const SIZE: u64 = 128 << 20;
const OPERATIONS: usize = 10_000;
const ROUNDS: usize = 4;

/// What a run is made of.
pub struct Setup {
    pub seed: u64,
    /// Words for `mke2fs -t`.
    pub mkfs: &'static str,
    /// Options of the guest's mount.
    pub mount: &'static str,
}

/// Run it; a failure panics with the seed, the round and the differences, and leaves the list of
/// operations, the events and the log in the target folder.
pub fn run(setup: &Setup) {
    run_via(Via::File, setup);
}

/// The same, however the guest reaches the disk.
pub fn run_via(via: Via, setup: &Setup) {
    let scratch = scratch();
    let mut live = Live::start(via, setup, scratch.path());
    let result = live.rounds().and_then(|()| live.end());
    if let Err(error) = result {
        let kept = live.keep(setup);
        let Setup { seed, mkfs, mount } = setup;
        panic!("seed {seed}, {mkfs}, mounted {mount}: {error}\nsee {}\n{}", kept.display(), live.log());
    }
}

/// Fields in the order in which they must be dropped: the mount sits on the loop device, that on
/// the daemon's disk.
struct Live {
    workload: Workload,
    mount: Option<Mount>,
    device: Option<Loop>,
    attach: Option<Attach>,
    events: Events,
    model: Model,
    image: PathBuf,
    scratch: PathBuf,
}

impl Live {
    fn start(via: Via, setup: &Setup, scratch: &Path) -> Self {
        let image = scratch.join("disk.raw");
        make(&image, SIZE, setup.mkfs);
        let first = daemon::listing(&image);
        must_equal("the fresh disk", &kernel_listing(&image, scratch), &first);
        let attach = Attach::start_via(via, &image, scratch, true, &["--payload", "disk"]);
        let device = (via == Via::File).then(|| Loop::attach(&attach.disk));
        let block_device = device.as_ref().map_or(&attach.disk, |d| &d.device);
        let mount = Mount::new(block_device, &scratch.join("guest"), setup.mount);
        Self {
            workload: Workload::new(&mount.dir, setup.seed),
            events: Events::new(&attach.events),
            model: Model::new(&first).unwrap(),
            mount: Some(mount),
            device,
            attach: Some(attach),
            image,
            scratch: scratch.to_path_buf(),
        }
    }

    fn rounds(&mut self) -> Result<(), String> {
        let rounds = number("GAMMARAY_ROUNDS", ROUNDS);
        let each = number("GAMMARAY_OPERATIONS", OPERATIONS).div_ceil(rounds);
        (0..rounds).try_for_each(|round| {
            let before = self.workload.log.len();
            self.workload.run(each);
            let after = self.workload.log.len();
            self.rest(round).map_err(|e| format!("round {round}, operations {before}..{after}: {e}"))
        })
    }

    /// Let all come to rest, and compare: the replayed events, the live view, and a reading of the
    /// disk with its journal unclean, each with what the kernel finds on a copy.
    fn rest(&mut self, round: usize) -> Result<(), String> {
        let mount = self.mount.as_ref().expect("mounted until the end");
        std::fs::write(mount.dir.join(format!("marker-{round}")), "").map_err(|e| e.to_string())?;
        mount.sync();
        let events = self.events.settled(&format!("\"path\":\"/marker-{round}\""))?;
        let copied = self.scratch.join("copy.raw");
        copy(&self.image, &copied);
        let at_rest = daemon::listing(&copied);
        let expected = kernel_listing_at(&copied, &self.scratch, &[]);
        let view = self.attach.as_ref().and_then(|a| a.view.as_ref()).expect("has a view until the end");
        // All of them, since what one knows and the other does not tells the cause.
        all_of([
            report("ls of the unclean disk", &expected, &at_rest),
            report("the live view", &expected, &oracle::walk(view)),
            self.compare(&expected, &events),
        ])
    }

    fn compare(&mut self, expected: &Listing, events: &str) -> Result<(), String> {
        self.model.apply_all(events)?;
        if self.model.gaps > 0 {
            eprintln!("{} gaps", self.model.gaps);
        }
        report("the replayed events", expected, &self.model.listing())
    }

    /// Unmount, stop, and compare once more what is left on the disk.
    fn end(&mut self) -> Result<(), String> {
        self.workload.close_held();
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
        self.device = None;
        let mut events = self.events.settled("")?;
        if let Some(attach) = self.attach.take() {
            same_bytes(&attach.disk, &self.image);
            attach.stop();
        }
        events += &self.events.read_new()?;
        fsck(&self.image)?;
        let expected = kernel_listing(&self.image, &self.scratch);
        let found = daemon::listing(&self.image);
        all_of([report("ls after the end", &expected, &found), self.compare(&expected, &events)])
    }

    fn log(&self) -> String {
        self.attach.as_ref().map(Attach::log).unwrap_or_default()
    }

    /// Save what tells the cause.
    fn keep(&self, setup: &Setup) -> PathBuf {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("live-seed-{}", setup.seed));
        std::fs::create_dir_all(&kept).unwrap();
        self.workload.save_log(&kept.join("operations.txt"));
        copy(&self.scratch.join("events.jsonl"), &kept.join("events.jsonl"));
        copy(&self.image, &kept.join("disk.raw"));
        kept
    }
}

/// A number from the environment, to search for the cause of a failure with smaller runs.
pub fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}
