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
pub mod follow;
pub mod load;
pub mod owners;
pub mod state;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use self::changes::{Cause, Changes};
use self::delta::{Changed, Delta, Differ, Unresolved};
use self::follow::{Followed, Follower};
use self::names::Held;
use self::state::State;
use super::blocks::{Blocks, Volume};
use super::fs::ROOT;
use super::jbd2::Transaction;
use super::reader::{Covered, read_mapped};
use super::superblock::{self, Superblock};
use super::{Ext4, group};
use crate::error::Result;
use crate::event::{Body, Event, Origin};
use crate::ranges::{RangeLog, RangeSet};
use crate::tree::{Kind, Tree};
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
        let mounted = is_mounted(&geometry.sb);
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

    /// What an unclean journal holds from before we came counts as commit 0.
    fn cover_anew(&mut self) {
        let blocks = self.volume.covered_blocks();
        self.covered_by = blocks.iter().map(|b| (*b, 0)).collect();
        self.covers = BTreeMap::from([(0, blocks)]);
        self.tids.clear();
        self.commits = 0;
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

    /// Want superblock, descriptors, inode tables, journal, directories, maps and attribute blocks.
    fn want_all(&self) {
        let bs = self.block_size();
        let want =
            |start: u64, len: u64| self.interest.set(start.saturating_mul(bs)..(start + len).saturating_mul(bs), true);
        let state = self.look();
        self.interest.set(0..superblock::OFFSET + 1024, true);
        for g in state.geometry.groups.iter() {
            want(g.inode_table.0, state.geometry.table_blocks());
            want(g.at / bs, 1);
        }
        self.journal_blocks.iter().for_each(|(start, (len, _))| want(*start, *len));
        state.owners.nodes.keys().chain(state.owners.xattrs.keys()).for_each(|b| want(*b, 1));
        for (ino, inode) in state.inodes.iter().filter(|(_, i)| i.kind == Kind::Dir) {
            state.mapping(*ino, inode).runs.iter().for_each(|r| want(r.physical, r.len));
        }
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
        self.wrote_at = time;
        if self.fresh.len() < MAX_WRITTEN {
            self.fresh.insert(range);
            self.fresh_since.get_or_insert(time);
        }
    }

    fn journal_block(&self, block: u64) -> Option<u32> {
        let (start, (len, logical)) = self.journal_blocks.range(..=block).next_back()?;
        let skip = block - start;
        (skip < *len).then(|| u32::try_from(logical + skip).ok()).flatten()
    }

    /// The bytes of `block` after a write of `piece` at volume byte `at`: from the piece if it
    /// covers the block, else from the image, which has them by now.
    fn whole_block(&self, block: BlockNo, at: u64, piece: &[u8]) -> Option<Arc<[u8]>> {
        let r = self.bytes_of(block);
        let from = r.start.checked_sub(at).and_then(|f| usize::try_from(f).ok());
        let len = usize::try_from(self.block_size()).ok()?;
        if let Some(bytes) = from.and_then(|f| piece.get(f..f.checked_add(len)?)) {
            return Some(bytes.into());
        }
        let mut buf = vec![0; len];
        self.volume.read_home(block, &mut buf).ok()?;
        Some(buf.into())
    }

    fn block_written(&mut self, block: BlockNo, bytes: Arc<[u8]>, time: Timestamp, out: &mut Vec<Event>) {
        if let Some(n) = self.journal_block(block.0) {
            self.journal_written(n, bytes, time, out);
            return;
        }
        if self.holds_superblock(block) {
            self.superblock_written(&bytes, time, out);
        }
        if !self.is_metadata(block) {
            return;
        }
        if self.follows_journal() {
            self.confirm(block, &bytes);
        } else if self.health == Health::Good {
            self.gathered.insert(block, bytes);
            self.gathered_at = time;
            if self.gathered.len() >= MAX_GATHERED {
                self.apply_gathered(out);
            }
        }
    }

    fn holds_superblock(&self, block: BlockNo) -> bool {
        self.bytes_of(block).contains(&superblock::OFFSET)
    }

    /// Whether `block` is part of an inode table, a directory, a map or an attribute block.
    fn is_metadata(&self, block: BlockNo) -> bool {
        let state = self.look();
        state.geometry.inodes_in(block).next().is_some()
            || state.owners.nodes.contains_key(&block.0)
            || state.owners.xattrs.contains_key(&block.0)
            || state
                .owners
                .data_at(block.0)
                .and_then(|o| state.inodes.get(&o.ino).map(|i| i.kind))
                .is_some_and(|k| k == Kind::Dir)
    }

    /// A home write while the journal is the truth: normally what was committed before.
    fn confirm(&mut self, block: BlockNo, bytes: &[u8]) {
        if self.volume.covering(block).is_some() {
            match self.volume.read(block) {
                Ok(committed) if *committed == *bytes => self.volume.uncover(block),
                _ => {
                    self.suspects.insert(block);
                }
            }
        } else if !self.look().agrees(block, self.volume.at(block), bytes) {
            self.suspects.insert(block);
        }
    }

    fn journal_written(&mut self, n: u32, bytes: Arc<[u8]>, time: Timestamp, out: &mut Vec<Event>) {
        let Some(follower) = &mut self.follower else { return };
        match follower.written(&self.volume, n, bytes) {
            Followed::Nothing => {}
            Followed::Committed(t, bytes) => self.committed(&t, bytes, out),
            Followed::Checkpointed(tid) => self.checkpointed(self.tids.get(&tid).copied().unwrap_or(0)),
            Followed::Emptied => {
                self.checkpointed(u64::MAX);
                self.clear_suspects(time, out);
            }
            Followed::Lost(why) => {
                let cause = Cause { time, txn: None, origin: Origin::Journal };
                tracing::warn!("{why}");
                out.push(cause.event(Body::Gap { reason: why, bytes: 0 }));
            }
        }
    }

    fn committed(&mut self, t: &Transaction, bytes: Vec<Arc<[u8]>>, out: &mut Vec<Event>) {
        self.apply_gathered(out);
        self.commits += 1;
        self.tids.insert(t.tid, self.commits);
        for b in &t.revoked {
            self.volume.uncover(*b);
        }
        let mut changed = Changed::new();
        for (logged, bytes) in t.blocks.iter().zip(bytes) {
            let Some(copy) = self.follower.as_ref().and_then(|f| f.journal.copy(logged)) else { continue };
            self.volume.cover(logged.home, copy);
            self.suspects.remove(&logged.home);
            changed.insert(logged.home, bytes);
        }
        self.covered_by.extend(changed.keys().map(|b| (*b, self.commits)));
        self.covers.insert(self.commits, changed.keys().copied().collect());
        let cause = Cause { time: t.time, txn: Some(t.tid.into()), origin: Origin::Journal };
        for (block, bytes) in &changed {
            if self.holds_superblock(*block) {
                self.superblock_changed(bytes, cause, out);
            }
        }
        self.apply(&changed, cause, out);
    }

    /// All commits before the one that was counted as `past` have reached their homes.
    fn checkpointed(&mut self, past: u64) {
        let later = self.covers.split_off(&past);
        let done = std::mem::replace(&mut self.covers, later);
        self.tids.retain(|_, n| *n >= past);
        for block in done.into_values().flatten() {
            if self.covered_by.get(&block).is_some_and(|by| *by < past) {
                self.covered_by.remove(&block);
                self.volume.uncover(block);
            }
        }
    }

    /// The journal is empty: home blocks are what a mount would see. Look at those that differed.
    fn clear_suspects(&mut self, time: Timestamp, out: &mut Vec<Event>) {
        let suspects = std::mem::take(&mut self.suspects);
        let blocks = suspects.into_iter().filter(|b| self.is_metadata(*b)).collect::<Vec<_>>();
        let changed: Changed = blocks.into_iter().filter_map(|b| Some((b, self.volume.read(b).ok()?))).collect();
        if !changed.is_empty() {
            self.apply(&changed, Cause { time, txn: None, origin: Origin::Resync }, out);
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

    /// Whose are the bytes written since the last time? Those that nobody owns are kept.
    fn attribute(&mut self, state: &State, delta: &Delta) -> BTreeMap<u32, RangeSet> {
        let bs = self.block_size();
        let mut files: BTreeMap<u32, RangeLog> = BTreeMap::new();
        for r in self.fresh.take().iter() {
            let mut at = r.start;
            for o in state.owners.data_in(r.start / bs..r.end.div_ceil(bs)) {
                let start = (o.physical * bs).max(r.start);
                let end = ((o.physical + o.len) * bs).min(r.end);
                self.unowned.insert(at..start);
                self.unowned.remove(start..end);
                at = end;
                let shift = |b: u64| (b - o.physical * bs).saturating_add(o.logical.saturating_mul(bs));
                files.entry(o.ino).or_default().insert(shift(start)..shift(end));
            }
            self.unowned.insert(at..r.end);
        }
        let mut files = files.into_iter().map(|(ino, mut log)| (ino, log.take())).collect();
        self.fresh_since = None;
        self.match_tails(state, delta, &mut files);
        if self.unowned.len() > MAX_WRITTEN {
            tracing::warn!("more than {MAX_WRITTEN} ranges of unowned writes: forgetting them");
            self.unowned = RangeSet::default();
        }
        files
    }

    /// What was written to the last block behind a file's end counts once the file has grown: the
    /// data may reach the disk transactions before the size does.
    fn match_tails(&mut self, state: &State, delta: &Delta, files: &mut BTreeMap<u32, RangeSet>) {
        let bs = self.block_size();
        for (ino, t) in &delta.inodes {
            let tail = self.tails.remove(ino).unwrap_or_default();
            // Another file with the same number has no part in it; what lies in unwritten blocks is
            // told when they become written.
            let same = t.new.is_some() && !t.is_replaced();
            for r in tail.iter().filter(|r| same && t.new_map.is_written(r.start / bs)) {
                files.entry(*ino).or_default().insert(r);
            }
        }
        if self.tails.len() > MAX_TAILS {
            self.tails.clear();
        }
        // A block that is new to a file was written to its end, whatever the file's size.
        let remapped = delta.inodes.iter().filter(|(_, t)| t.old_map != t.new_map);
        for (ino, inode) in remapped.filter_map(|(i, t)| Some((i, t.new.as_ref()?))) {
            let written = state.mapping(*ino, inode).is_written(inode.size / bs);
            if inode.kind == Kind::File && inode.size % bs != 0 && written {
                self.tails.entry(*ino).or_default().insert(inode.size..inode.size.next_multiple_of(bs));
            }
        }
        for (ino, ranges) in files.iter() {
            let Some(inode) = state.inodes.get(ino).filter(|i| i.kind == Kind::File) else { continue };
            let behind = ranges.overlap(inode.size..inode.size.next_multiple_of(bs));
            if !behind.is_empty() {
                let tail = self.tails.entry(*ino).or_default();
                behind.into_iter().for_each(|r| tail.insert(r));
            }
        }
    }

    /// Blocks that a file gives up: what was written there was its own. Without a journal the next
    /// owner may have written already, before the news that it is the owner. Blocks that a file
    /// takes are no longer unowned.
    fn forget_freed(&mut self, state: &State, delta: &Delta, origin: Origin) {
        let bs = self.block_size();
        let bytes = |start: u64, len: u64| start.saturating_mul(bs)..(start + len).saturating_mul(bs);
        for (ino, t) in delta.inodes.iter().filter(|(_, t)| t.old_map != t.new_map) {
            for r in &t.old_map.runs {
                let mut freed = RangeSet::default();
                freed.insert(bytes(r.physical, r.len));
                let kept = state.owners.data_in(r.physical..r.physical + r.len).filter(|o| o.ino == *ino);
                kept.for_each(|o| freed.remove(bytes(o.physical, o.len)));
                for f in freed.iter() {
                    self.told.remove(f.clone());
                    if origin == Origin::Journal {
                        self.unowned.remove(f);
                    }
                }
            }
            t.new_map.runs.iter().for_each(|r| self.unowned.remove(bytes(r.physical, r.len)));
        }
    }

    /// Want the bytes of what became metadata, and no longer those of what ceased to be.
    fn update_interest(&self, state: &State, delta: &Delta) {
        let bs = self.block_size();
        let set = |start: u64, len: u64, wanted| {
            self.interest.set(start.saturating_mul(bs)..(start + len).saturating_mul(bs), wanted);
        };
        let is_dir = |i: &Option<Arc<super::inode::Inode>>| i.as_ref().is_some_and(|i| i.kind == Kind::Dir);
        // Without a journal the news that a block was taken may come before the news that it was
        // given up.
        let holds_names = |ino: &u32| state.inodes.get(ino).is_some_and(|i| i.kind == Kind::Dir);
        let is_free = |b: &u64| {
            let owner = state.owners.data_at(*b).map(|o| o.ino);
            !state.owners.nodes.contains_key(b)
                && !state.owners.xattrs.contains_key(b)
                && !owner.is_some_and(|ino| holds_names(&ino))
        };
        for t in delta.inodes.values() {
            if t.old_map != t.new_map || is_dir(&t.old) != is_dir(&t.new) {
                // A smaller block shares its bit with neighbours that may still be wanted.
                if bs >= crate::interest::GRAIN {
                    let runs = t.old_map.runs.iter().filter(|_| is_dir(&t.old));
                    let content = runs.flat_map(|r| r.physical..r.physical + r.len);
                    let all = content.chain(t.old_map.nodes.iter().map(|b| b.0));
                    all.filter(is_free).for_each(|b| set(b, 1, false));
                }
            }
        }
        for t in delta.inodes.values() {
            t.new_map.nodes.iter().for_each(|b| set(b.0, 1, true));
            t.new_map.runs.iter().filter(|_| is_dir(&t.new)).for_each(|r| set(r.physical, r.len, true));
            if let Some(i) = t.new.as_ref().filter(|i| state.owners.xattrs.contains_key(&i.xattr_block)) {
                set(i.xattr_block, 1, true);
            }
        }
    }

    /// Blocks that were no metadata when the tap looked, and are by now: their bytes did not come
    /// with the write, but the image has them.
    fn catch_up(&mut self, w: &VolumeWrite<'_>, out: &mut Vec<Event>) {
        let bs = self.block_size();
        let came = |at: u64| w.pieces.iter().any(|(p, bytes)| (*p..p + bytes.len() as u64).contains(&at));
        let mut blocks = self.look().metadata_in(w.range.start / bs..w.range.end.div_ceil(bs));
        blocks.retain(|b| !came(self.bytes_of(*b).start.max(w.range.start)));
        for block in blocks {
            if let Some(bytes) = self.whole_block(block, 0, &[]) {
                self.block_written(block, bytes, w.time, out);
            }
        }
    }

    fn superblock_written(&mut self, block: &[u8], time: Timestamp, out: &mut Vec<Event>) {
        self.superblock_changed(block, Cause { time, txn: None, origin: Origin::Direct }, out);
    }

    /// `block` holds the superblock: the same file system, another size, or another file system?
    fn superblock_changed(&mut self, block: &[u8], cause: Cause, out: &mut Vec<Event>) {
        let skip = if block.len() > 1024 { 1024 } else { 0 };
        let Ok(new) = Superblock::parse(block.get(skip..).unwrap_or_default()) else {
            self.health = Health::Stale;
            return;
        };
        let old = self.look().geometry.sb.clone();
        if identity(&old) != identity(&new) {
            self.health = Health::Stale;
            return;
        }
        out.extend(asides::superblock(&old, &new).map(|body| cause.event(body)));
        if old.blocks != new.blocks {
            self.resized(new.clone(), cause, out);
        }
        let mounted = is_mounted(&new);
        self.state().geometry.sb = new;
        if mounted != self.mounted {
            self.mounted = mounted;
            let what = if mounted { "mounted" } else { "unmounted" };
            out.push(cause.event(Body::Volume { what, fs: Some(old.kind()) }));
        }
    }

    fn resized(&mut self, sb: Superblock, cause: Cause, out: &mut Vec<Event>) {
        self.volume.resize(sb.blocks);
        match group::read_all(&Covered(&self.volume), &sb) {
            Ok(groups) => {
                out.push(cause.event(Body::Volume { what: "resized", fs: Some(sb.kind()) }));
                let old = self.look().geometry.groups.clone();
                out.extend(asides::groups(&sb, &old, &groups).map(|body| cause.event(body)));
                self.state().geometry = super::fs::Geometry::new(sb, groups);
                self.want_all();
            }
            Err(e) => {
                tracing::warn!("after a resize: {e}");
                self.health = Health::Stale;
            }
        }
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

/// What makes it the same file system.
fn identity(sb: &Superblock) -> impl PartialEq + use<> {
    (sb.uuid, sb.mkfs_time, sb.block_size, sb.inode_size, sb.inodes_per_group, sb.blocks_per_group, sb.journal_inode)
}

/// With a journal, a mount sets the recovery flag; without, it clears the valid bit.
fn is_mounted(sb: &Superblock) -> bool {
    sb.needs_recovery() || sb.state & 1 == 0
}

impl crate::volume::Volume for Live {
    fn fs(&self) -> &'static str {
        self.look().geometry.sb.kind()
    }

    fn tree(&self) -> Arc<dyn Tree> {
        Arc::new(tree::LiveTree::new(self.state.clone(), self.volume.clone()))
    }

    fn write(&mut self, w: VolumeWrite<'_>, out: &mut Vec<Event>) {
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
