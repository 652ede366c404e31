//! An ext file system that is followed while its guest writes to it.
//!
//! With a journal in use, committed transactions are the truth, and are applied atomically; home
//! writes only confirm them. Without, or while the journal is clean, home writes are the truth:
//! they are gathered until a flush or a pause, because they come block by block in any order.

pub mod asides;
pub mod names;
pub mod changes;
pub mod content;
pub mod delta;
mod attribute;
mod commit;
pub mod follow;
pub mod load;
pub mod owners;
mod reshape;
mod route;
pub mod state;
pub mod tree;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use self::changes::{Cause, Changes};
use self::delta::{Changed, Delta, Differ, Unresolved};
use self::follow::Follower;
use self::names::Held;
use self::state::State;
use super::Ext4;
use super::blocks::{Blocks, Volume};
use super::fs::ROOT;
use super::reader::read_mapped;
use super::superblock;
use crate::error::Result;
use crate::event::{Body, Event, Origin};
use crate::ranges::{RangeLog, RangeSet};
use crate::tree::Tree;
use crate::units::{BlockNo, InodeNo, Timestamp};
use crate::volume::{Health, VolumeInterest, VolumeWrite};

/// Without a journal: after a pause as long as this, in nanoseconds, contradictions are settled by
/// reading everything again.
const CALM: i128 = 300_000_000;
/// Reading again waits this many times as long as it took the last time.
const READING_SHARE: u32 = 3;
/// Home writes are gathered for at most this long after the last one, in nanoseconds.
const PAUSE: i128 = 200_000_000;
/// Data written in place is told without waiting for a commit after this long, in nanoseconds.
/// Most data is followed by a commit within milliseconds; swap files and lazy times never are.
const PATIENCE: i128 = 1_000_000_000;
/// At most this many home blocks are gathered before they are applied.
const MAX_GATHERED: usize = 65_536;
/// At most this many separate ranges of unowned writes are remembered.
const MAX_WRITTEN: usize = 1 << 20;

/// For at most this many files it is remembered what was written behind their end.
const MAX_TAILS: usize = 65_536;

/// A live volume.
pub struct Live {
    state: Arc<RwLock<State>>,
    volume: Arc<Volume>,
    follower: Option<Follower>,
    interest: VolumeInterest,
    /// Journal blocks of the volume, by block: the same as the follower's runs.
    journal_blocks: BTreeMap<u64, (u64, u64)>,
    /// Bytes of the volume written since the last commit.
    fresh: RangeLog,
    /// When the oldest of them was written.
    fresh_since: Option<Timestamp>,
    /// Bytes written earlier, to blocks that no file owned.
    unowned: RangeSet,
    /// Bytes told to be written whose blocks are not marked as written yet.
    told: RangeSet,
    /// Bytes of files that were written behind the file's end, in its last block.
    tails: HashMap<u32, RangeSet>,
    /// Home writes that wait for a pause.
    gathered: Changed,
    gathered_at: Timestamp,
    /// Home blocks that do not say what the journal said: looked at when the journal is clean.
    suspects: BTreeSet<BlockNo>,
    /// Covered blocks by the commit that brought a copy.
    covers: BTreeMap<u64, Vec<BlockNo>>,
    /// The last commit that brought a copy of a covered block.
    covered_by: HashMap<BlockNo, u64>,
    /// Transactions since the start, so that their ids can be compared past 2^32.
    commits: u64,
    tids: HashMap<u32, u64>,
    unresolved: Unresolved,
    held: Held,
    health: Health,
    mounted: bool,
    /// When the last write came.
    wrote_at: Timestamp,
    /// Without a journal: blocks, maps or names contradicted each other since all was read.
    doubtful: bool,
    /// Not to be read again before.
    read_after: Option<Instant>,
}

impl Live {
    /// Crawl the volume and start following it. Marks what is wanted in `interest`.
    pub fn open(ext4: Ext4, interest: VolumeInterest) -> Result<Self> {
        let (geometry, volume, journal, next) = ext4.into_parts();
        let mounted = reshape::is_mounted(&geometry.sb);
        let state = load::crawl(geometry, &volume)?;
        let follower = journal.map(|j| Follower::new(j, next));
        let runs = follower.as_ref().map_or(&[][..], |f| f.journal.runs());
        let mut live = Self {
            journal_blocks: runs.iter().map(|r| (r.physical, (r.len, r.logical))).collect(),
            state: Arc::new(RwLock::new(state)),
            volume: Arc::new(volume),
            follower,
            interest,
            fresh: RangeLog::default(),
            fresh_since: None,
            unowned: RangeSet::default(),
            told: RangeSet::default(),
            tails: HashMap::new(),
            gathered: Changed::new(),
            gathered_at: Timestamp::default(),
            suspects: BTreeSet::new(),
            covers: BTreeMap::new(),
            covered_by: HashMap::new(),
            commits: 0,
            tids: HashMap::new(),
            unresolved: Unresolved::new(),
            held: Held::default(),
            health: Health::Good,
            mounted,
            wrote_at: Timestamp::default(),
            doubtful: false,
            read_after: None,
        };
        live.cover_anew();
        live.want_all();
        Ok(live)
    }

    fn state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to look at: views go on reading.
    fn look(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn block_size(&self) -> u64 {
        self.volume.block_size().into()
    }

    fn bytes_of(&self, block: BlockNo) -> Range<u64> {
        let at = self.volume.at(block);
        at..at + self.block_size()
    }

    /// Whether committed transactions, and not home writes, are the truth now.
    fn follows_journal(&self) -> bool {
        self.follower.as_ref().is_some_and(Follower::is_live)
    }

    /// Without a journal every block comes by itself, and a later one may show that an earlier one
    /// was misunderstood. What still does not fit once the guest pauses, the disk decides.
    fn settle_doubts(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let start = Instant::now();
        if !self.doubtful || self.read_after.is_some_and(|t| start < t) {
            return;
        }
        if let Err(e) = self.read_again(now, out) {
            tracing::warn!("cannot read the volume again: {e}");
        }
        self.doubtful = false;
        self.read_after = Some(start + start.elapsed() * READING_SHARE);
    }

    fn wrote_data(&mut self, range: Range<u64>, time: Timestamp) {
        if self.fresh.len() < MAX_WRITTEN {
            self.fresh.insert(range);
            self.fresh_since.get_or_insert(time);
        }
    }

    fn apply_gathered(&mut self, out: &mut Vec<Event>) {
        let changed = std::mem::take(&mut self.gathered);
        let data = !self.follows_journal() && !self.fresh.is_empty();
        if !changed.is_empty() || data {
            let time = if changed.is_empty() { self.fresh_since.unwrap_or_default() } else { self.gathered_at };
            self.apply(&changed, Cause { time, txn: None, origin: Origin::Direct }, out);
        }
    }

    /// Find what differs in `changed`, and say it.
    fn apply(&mut self, changed: &Changed, cause: Cause, out: &mut Vec<Event>) {
        if self.health == Health::Stale {
            return;
        }
        let state = self.state.clone();
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        let written = [&self.unowned, &*self.fresh.settle()];
        let differ = Differ::new(&mut state, &self.volume, changed, written, &mut self.unresolved, cause.time);
        let delta = differ.run();
        let bs = self.block_size();
        for r in &delta.regained {
            self.wrote_data(r.start.saturating_mul(bs)..r.end.saturating_mul(bs), cause.time);
        }
        let again = delta.again;
        let doubtful = again || !delta.regained.is_empty() || !delta.errors.is_empty() || !self.unresolved.is_empty();
        self.say(&mut state, delta, cause, out);
        drop(state);
        self.doubtful |= cause.origin == Origin::Direct && (doubtful || self.held.count() > 0);
        if again && !changed.is_empty() {
            self.apply(&Changed::new(), cause, out);
        }
    }

    fn say(&mut self, state: &mut State, delta: Delta, cause: Cause, out: &mut Vec<Event>) {
        self.update_interest(state, &delta);
        self.forget_freed(state, &delta, cause.origin);
        for e in &delta.errors {
            tracing::warn!("{e}");
        }
        if let Some(first) = delta.errors.first().filter(|_| cause.origin == Origin::Journal) {
            let bytes = self.block_size().saturating_mul(delta.errors.len() as u64);
            out.push(cause.event(Body::Gap { reason: first.to_string(), bytes }));
        }
        let in_place = self.attribute(state, &delta);
        let blocks = self.volume.clone();
        let (told, held) = (&mut self.told, &mut self.held);
        let changes = Changes { state, blocks: &*blocks, delta, in_place, told, held, cause };
        out.extend(changes.run());
    }

    /// Read everything again and say what differs.
    fn read_again(&mut self, now: Timestamp, out: &mut Vec<Event>) -> Result<()> {
        let disk = self.volume.shared_disk();
        let (geometry, volume, journal, next) = Ext4::open(disk)?.into_parts();
        let fresh = load::crawl(geometry, &volume)?;
        self.follower = journal.map(|j| Follower::new(j, next));
        let runs = self.follower.as_ref().map_or(&[][..], |f| f.journal.runs());
        self.journal_blocks = runs.iter().map(|r| (r.physical, (r.len, r.logical))).collect();
        self.volume.replace_covers(&volume);
        self.cover_anew();
        self.suspects.clear();
        self.gathered.clear();
        self.unresolved.clear();
        let state = self.state.clone();
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        let delta = state.replace(fresh, &*self.volume);
        self.say(&mut state, delta, Cause { time: now, txn: None, origin: Origin::Resync }, out);
        drop(state);
        self.want_all();
        Ok(())
    }
}

impl crate::volume::Volume for Live {
    fn fs(&self) -> &'static str {
        self.look().geometry.sb.kind()
    }

    fn tree(&self) -> Arc<dyn Tree> {
        Arc::new(tree::LiveTree::new(self.state.clone(), self.volume.clone()))
    }

    fn write(&mut self, w: VolumeWrite<'_>, out: &mut Vec<Event>) {
        self.wrote_at = w.time;
        self.wrote_data(w.range.clone(), w.time);
        let bs = self.block_size();
        for (at, piece) in w.pieces {
            let end = at.saturating_add(piece.len() as u64);
            for block in at / bs..end.div_ceil(bs) {
                let block = BlockNo(block);
                let known = self.journal_block(block.0).is_some() || self.is_metadata(block);
                // Without a journal what is known of a block may be out of date: it stays data too.
                if known && (self.follows_journal() || self.journal_block(block.0).is_some()) {
                    self.fresh.remove(self.bytes_of(block));
                }
                if let Some(bytes) =
                    self.whole_block(block, *at, piece).filter(|_| known || self.holds_superblock(block))
                {
                    self.block_written(block, bytes, w.time, out);
                }
            }
        }
        // All that is metadata by now is wanted by now.
        if !self.follows_journal() && self.interest.any(w.range) {
            self.catch_up(&w, out);
        }
    }

    fn zero(&mut self, range: Range<u64>, time: Timestamp, out: &mut Vec<Event>) {
        self.wrote_at = time;
        self.wrote_data(range.clone(), time);
        if range.contains(&superblock::OFFSET) {
            self.superblock_written(&[0; 1024], time, out);
        }
        let bs = self.block_size();
        let blocks = self.look().metadata_in(range.start.div_ceil(bs)..range.end / bs);
        for block in blocks {
            self.block_written(block, vec![0; usize::try_from(bs).unwrap_or(0)].into(), time, out);
        }
    }

    fn discard(&mut self, range: Range<u64>, time: Timestamp, out: &mut Vec<Event>) {
        self.fresh.remove(range.clone());
        self.unowned.remove(range.clone());
        if range.contains(&superblock::OFFSET) {
            let mut bytes = [0; 1024];
            if self.volume.disk().read_at(superblock::OFFSET, &mut bytes).is_ok() {
                self.superblock_written(&bytes, time, out);
            }
        }
    }

    fn flush(&mut self, _: Timestamp, out: &mut Vec<Event>) {
        if !self.follows_journal() {
            self.apply_gathered(out);
        }
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let direct = !self.follows_journal();
        let last = if self.gathered.is_empty() { self.fresh_since } else { Some(self.gathered_at) };
        if direct && last.is_some_and(|t| now.as_nanos() - t.as_nanos() >= PAUSE) {
            self.apply_gathered(out);
        }
        if direct && now.as_nanos() - self.wrote_at.as_nanos() >= CALM {
            self.settle_doubts(now, out);
        }
        if !direct && self.fresh_since.is_some_and(|t| now.as_nanos() - t.as_nanos() >= PATIENCE) {
            self.apply(&Changed::new(), Cause { time: now, txn: None, origin: Origin::Direct }, out);
        }
    }

    fn read_written(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let state = self.look();
        let inode = state.inode(ino).ok_or(crate::error::Error::NotFound)?;
        let n = u32::try_from(ino.0).unwrap_or_default();
        let mut map = state.mapping(n, inode).as_ref().clone();
        map.runs.iter_mut().for_each(|r| r.unwritten = false);
        read_mapped(&*self.volume, &map, inode.size, offset, buf)
    }

    fn finish(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        self.apply_gathered(out);
        if !self.fresh.is_empty() {
            self.apply(&Changed::new(), Cause { time: now, txn: None, origin: Origin::Direct }, out);
        }
        self.read_after = None;
        if !self.follows_journal() {
            self.settle_doubts(now, out);
        }
        if self.held.count() > 0 {
            tracing::info!("{} changes of names never became complete", self.held.count());
        }
    }

    fn resync(&mut self, now: Timestamp, out: &mut Vec<Event>) -> Result<()> {
        self.read_again(now, out)
    }

    fn introduce(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let state = self.state.clone();
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        let nothing = State::new(state.geometry.clone());
        let known = std::mem::replace(&mut *state, nothing);
        let delta = state.replace(known, &*self.volume);
        self.say(&mut state, delta, Cause { time: now, txn: None, origin: Origin::Resync }, out);
    }

    fn health(&self) -> Health {
        self.health
    }
}
