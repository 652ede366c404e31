//! Hostile volumes: bits flipped, blocks swapped, fields made absurd, ends cut off, in what an
//! honest mkntfs and ntfs-3g made. Whatever is wrong, reading ends soon and well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gammaray::image::{Disk, ReadAt};
use gammaray::listing::{self, Depth};
use gammaray::lookup::Place;
use gammaray::name::GuestPath;
use gammaray::ntfs::Ntfs;
use gammaray::ntfs::live::Live;
use gammaray::tree::{Kind, Tree};
use gammaray::units::Timestamp;
use gammaray::volume::{Volume, VolumeWrite};
use rustix::fs::{XattrFlags, lsetxattr};
use support::disk::{Loop, Mount, make, scratch};
use support::rng::Rng;

const SIZE: u64 = 4 << 20;
const MUTANTS: usize = 2000;
/// The promise of the project is 10 s; a debug build on a busy machine shall still keep it.
const LONGEST: Duration = Duration::from_secs(10);

/// A small volume with one of each thing.
fn image() -> Vec<u8> {
    let scratch = scratch();
    let image = scratch.path().join("disk.raw");
    make(&image, SIZE, "ntfs -c 512");
    let device = Loop::attach(&image);
    let mount = Mount::new(&device.device, &scratch.path().join("guest"), "noatime,compression");
    fill(&mount.dir);
    mount.unmount();
    drop(device);
    fs::read(&image).unwrap()
}

fn fill(dir: &Path) {
    let packed = dir.join("packed");
    fs::create_dir(&packed).unwrap();
    let set = |at: &Path, name: &str, value: &[u8]| lsetxattr(at, name, value, XattrFlags::empty()).unwrap();
    set(&packed, "system.ntfs_attrib_be", &0x810_u32.to_be_bytes());
    fs::write(packed.join("text"), "some text that repeats; ".repeat(4000)).unwrap();
    (0..100).for_each(|n| fs::write(dir.join(format!("file-{n}")), vec![b'x'; n * 40]).unwrap());
    (0..30).for_each(|n| fs::hard_link(dir.join("file-9"), dir.join(format!("{}{n}", "long".repeat(40)))).unwrap());
    set(&dir.join("file-9"), "user.stream", &[b's'; 3000]);
    std::os::unix::fs::symlink("target", dir.join("link")).unwrap();
}

/// Places of what is not content: the boot sector, records, index blocks, and now and then any.
fn targets(image: &[u8]) -> Vec<usize> {
    let magics = [&b"FILE"[..], b"INDX", b"RSTR"];
    let sectors = (0..image.len()).step_by(512);
    let mut all: Vec<usize> = sectors.filter(|at| magics.contains(&&image[*at..at + 4])).collect();
    all.extend([0; 8]);
    all
}

/// Change something; what stood there before, to put it back.
fn mutate(rng: &mut Rng, image: &mut [u8], targets: &[usize]) -> Vec<(usize, Vec<u8>)> {
    let mut before = Vec::new();
    for _ in 0..rng.range(1, 5) {
        let at = *rng.pick(targets) + rng.below(1024) as usize;
        let absurd: [&[u8]; 6] =
            [&[0xFF; 8], &[0; 8], &[0, 0, 0, 0, 0, 0, 1, 0], &[0x7F], &[0xFF, 0xFF, 0xFF, 0x7F], &[1]];
        let new = match rng.below(4) {
            0 => vec![image[at] ^ 1 << rng.below(8)],
            1 => rng.pick(&absurd).to_vec(),
            2 => {
                let from = *rng.pick(targets);
                image[from..from + 512].to_vec()
            }
            _ => vec![rng.below(256) as u8],
        };
        let end = (at + new.len()).min(image.len());
        before.push((at, image[at..end].to_vec()));
        image[at..end].copy_from_slice(&new[..end - at]);
    }
    before
}

/// An image that tests go on to change.
struct Shared(std::sync::RwLock<Vec<u8>>);

impl ReadAt for Shared {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read().unwrap().read_at(offset, buf)
    }

    fn size(&self) -> u64 {
        self.0.read().unwrap().len() as u64
    }
}

/// Read all that there is, of each file at most a few MiB.
fn explore(disk: &Disk) -> usize {
    let Ok(fs) = Ntfs::open(disk.clone()) else { return 0 };
    fs.journal_dirty();
    // What cannot be read is an answer too.
    let _ = (fs.about(), fs.stat_fs());
    let tree: Arc<dyn Tree> = Arc::new(fs);
    let root = Place::File { ino: tree.root(), tree: tree.clone() };
    let mut files = 0;
    let done = listing::walk(&root, GuestPath(b"/".to_vec()), Depth { xattrs: true, hash: false }, |r| {
        files += 1;
        let Some(attr) = &r.attr else { return Ok(()) };
        let _ = tree.facts(attr.ino);
        let streams = tree.streams(attr.ino).unwrap_or_default();
        let all = streams.iter().map(|s| s.ino).chain((attr.kind == Kind::File).then_some(attr.ino));
        for ino in all {
            for offset in [0, attr.size / 2, attr.size.saturating_sub(9)] {
                let _ = tree.read(ino, offset, &mut [0; 256 << 10]);
            }
        }
        Ok(())
    });
    done.unwrap();
    files
}

#[test]
fn mutants_end_soon_and_well() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let mut rng = Rng::new(99);
    let mut bytes = image();
    let targets = targets(&bytes);
    assert!(targets.len() > 100, "{} targets", targets.len());
    let whole = explore(&(Arc::new(bytes.clone()) as Disk));
    assert!(whole > 130, "{whole} files");
    let (mut worst, mut readable, mut different) = (Duration::ZERO, 0, 0);
    for _ in 0..MUTANTS {
        let before = mutate(&mut rng, &mut bytes, &targets);
        let disk: Disk = Arc::new(std::mem::take(&mut bytes));
        let start = Instant::now();
        let files = explore(&disk);
        worst = worst.max(start.elapsed());
        assert!(worst < LONGEST, "{before:?} took {worst:?}");
        readable += usize::from(files > 0);
        different += usize::from(files != whole);
        bytes = recover(disk);
        before.into_iter().rev().for_each(|(at, old)| bytes[at..at + old.len()].copy_from_slice(&old));
    }
    eprintln!("{MUTANTS} mutants, {readable} readable, {different} with other files, the worst took {worst:?}");
    assert!(readable > MUTANTS / 2 && different > MUTANTS / 50, "they should be damaged, but not all beyond reading");
    assert_eq!(explore(&(Arc::new(bytes) as Disk)), whole, "all was put back");
}

/// The bytes of an image that nobody else holds.
fn recover(disk: Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn cut_short_anywhere() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let bytes = image();
    let mut rng = Rng::new(5);
    for _ in 0..100 {
        let len = rng.below(bytes.len() as u64) as usize;
        explore(&(Arc::new(bytes[..len].to_vec()) as Disk));
    }
}

/// A live volume on which noise appears, is followed by more noise, and goes again.
#[test]
fn live_mutants_end_well() {
    need!(root, fuse, loop, "mkntfs", "ntfs-3g");
    let mut rng = Rng::new(41);
    let honest = image();
    let targets = targets(&honest);
    for _ in 0..20 {
        let shared = Arc::new(Shared(std::sync::RwLock::new(honest.clone())));
        let disk: Disk = shared.clone();
        let mut live = Live::open(Ntfs::open(disk).unwrap()).unwrap();
        let mut events = Vec::new();
        let mut wrote = |live: &mut Live, at: usize, len: usize| {
            let range = at as u64..(at + len) as u64;
            live.write(VolumeWrite { range: &range, pieces: &[], time: Timestamp::now() }, &mut events);
            live.flush(Timestamp::now(), &mut events);
        };
        let mut undo = Vec::new();
        for _ in 0..20 {
            let before = mutate(&mut rng, &mut shared.0.write().unwrap(), &targets);
            before.iter().for_each(|(at, old)| wrote(&mut live, *at, old.len()));
            undo.extend(before);
        }
        for (at, old) in undo.into_iter().rev() {
            shared.0.write().unwrap()[at..at + old.len()].copy_from_slice(&old);
            wrote(&mut live, at, old.len());
        }
        live.finish(Timestamp::now(), &mut events);
        if live.health() == gammaray::volume::Health::Stale {
            continue;
        }
        let count = |tree: Arc<dyn Tree>| {
            let mut paths = Vec::new();
            let root = Place::File { ino: tree.root(), tree };
            listing::walk(&root, GuestPath(b"/".to_vec()), Depth::default(), |r| {
                paths.push(r.path.clone());
                Ok(())
            })
            .unwrap();
            paths
        };
        let fresh = Ntfs::open(shared.clone() as Disk).unwrap();
        assert_eq!(count(live.tree()), count(Arc::new(fresh)), "the honest volume is back");
    }
}
