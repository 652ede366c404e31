//! Directories as they are listed: a snapshot, taken once per opening, so that a huge directory is
//! walked once and its offsets stay true while it changes.

use std::sync::atomic::{AtomicBool, Ordering};

use super::node::Slot;
use crate::tree::{Attr, DirEntry, Kind, StatFs};
use crate::units::{InodeNo, Timestamp};

/// The kernel refuses a whole listing for one name longer than this (FUSE_NAME_MAX).
const MAX_NAME: usize = 1024;
/// The unit in which several volumes are added up.
const UNIT: u32 = 4096;
/// The number of the folder of volumes.
const TOP_NUMBER: InodeNo = InodeNo(1);

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The name.
    pub name: Vec<u8>,
    /// The guest's number.
    pub ino: InodeNo,
    /// The kind, where it is known without looking at the file.
    pub kind: Option<Kind>,
    /// Index of the volume in the folder of volumes.
    pub volume: Option<usize>,
}

/// A snapshot of a directory. The first two lines are `.` and `..`.
#[derive(Debug)]
pub struct Listing {
    lines: Vec<Line>,
    read: AtomicBool,
}

impl Listing {
    fn new(own: InodeNo, parent: InodeNo, lines: impl IntoIterator<Item = Line>) -> Self {
        let dots = [(b".".to_vec(), own), (b"..".to_vec(), parent)];
        let dots = dots.map(|(name, ino)| Line { name, ino, kind: Some(Kind::Dir), volume: None });
        Self { lines: dots.into_iter().chain(lines).collect(), read: AtomicBool::new(false) }
    }

    /// `true` the first time it is asked.
    pub fn is_unread(&self) -> bool {
        !self.read.swap(true, Ordering::Relaxed)
    }

    /// The lines from `offset` on, each with the offset of the one after it.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Line)> {
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        (1u64..).zip(&self.lines).skip(skip)
    }
}

impl Line {
    /// Whether it is `.` or `..`.
    pub fn is_dot(&self) -> bool {
        self.name == b"." || self.name == b".."
    }
}

/// What a directory of a volume holds, without names that would make the kernel refuse all of it.
pub(super) fn of_dir(slot: &Slot, dir: InodeNo, parent: InodeNo, entries: Vec<DirEntry>) -> Listing {
    let (good, bad): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| is_name(&e.name));
    if !bad.is_empty() {
        tracing::warn!(volume = &*slot.name, inode = dir.0, "view: {} impossible names left out", bad.len());
    }
    Listing::new(dir, parent, good.into_iter().map(|e| Line { name: e.name, ino: e.ino, kind: e.kind, volume: None }))
}

/// The folder of volumes.
pub(super) fn of_volumes(slots: &[Slot]) -> Listing {
    let lines = slots.iter().enumerate().map(|(i, s)| Line {
        name: s.name.as_bytes().to_vec(),
        ino: s.tree.root(),
        kind: Some(Kind::Dir),
        volume: Some(i),
    });
    Listing::new(TOP_NUMBER, TOP_NUMBER, lines)
}

/// Attributes of the folder of volumes.
pub(super) fn top_attr(volumes: usize, since: Timestamp) -> Attr {
    Attr {
        ino: TOP_NUMBER,
        kind: Kind::Dir,
        size: 0,
        sectors: 0,
        nlink: u32::try_from(volumes).unwrap_or(u32::MAX).saturating_add(2),
        mode: Some(0o555),
        uid: Some(0),
        gid: Some(0),
        mtime: since,
        atime: since,
        ctime: since,
        crtime: Some(since),
        rdev: None,
        generation: 0,
        flags: 0,
    }
}

/// Totals of all volumes that can tell theirs.
pub(super) fn total(slots: &[Slot]) -> StatFs {
    let zero = StatFs { block_size: UNIT, ..StatFs::default() };
    slots.iter().filter_map(|s| s.tree.stat_fs().ok()).fold(zero, |sum, one| StatFs {
        block_size: UNIT,
        blocks: sum.blocks.saturating_add(in_units(one.blocks, one.block_size)),
        free_blocks: sum.free_blocks.saturating_add(in_units(one.free_blocks, one.block_size)),
        inodes: sum.inodes.saturating_add(one.inodes),
        free_inodes: sum.free_inodes.saturating_add(one.free_inodes),
    })
}

fn in_units(blocks: u64, size: u32) -> u64 {
    blocks.saturating_mul(size.into()) / u64::from(UNIT)
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME && !name.iter().any(|b| matches!(b, b'/' | 0))
}
