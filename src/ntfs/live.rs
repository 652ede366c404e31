//! An NTFS volume that is followed while its guest writes to it.
//!
//! The records of the MFT are the truth. Which of them were written is gathered until a flush or a
//! pause; then they are read from the image, which has them by now, and compared with what was
//! known. So a tap need not copy any bytes. A record that is torn, or that does not fit the others
//! yet, waits. The order of what was gathered together is not known, and is made such that every
//! step is possible.
//!
//! $LogFile is not followed: see the README.

pub mod changes;
pub mod collect;
pub mod content;
pub mod owners;
pub mod state;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use self::changes::{Changes, InPlace};
use self::collect::{Collector, Touched};
use self::owners::MftMap;
use self::state::{State, is_shown};
use super::Ntfs;
use super::boot::{self, Geometry};
use super::node::record_of;
use super::reader;
use super::record::FileRef;
use super::volume::{Volume, fixed};
use crate::error::{Error, Result};
use crate::event::{Body, Event, Origin};
use crate::ranges::RangeSet;
use crate::tree::Tree;
use crate::units::{InodeNo, Timestamp};
use crate::volume::{Health, VolumeWrite};

/// Writes are gathered for at most this long after the last one, in nanoseconds.
const PAUSE: i128 = 200_000_000;
/// At most so many records, or ranges of data, are gathered before they are made sense of.
const MAX_GATHERED: usize = 65_536;

/// A live volume.
pub struct Live {
    state: Arc<RwLock<State>>,
    volume: Arc<Volume>,
    root: FileRef,
    mft: MftMap,
    /// Records that were written since the last time, or wait for more.
    dirty: BTreeSet<u64>,
    /// Records that waited already: they alone are no reason to look again.
    waiting: BTreeSet<u64>,
    /// Files whose names contradict others'.
    unplaced: BTreeSet<u64>,
    /// Bytes of streams that were written and could not be read so far.
    later: InPlace,
    /// Bytes of the volume that were written since the last time.
    fresh: RangeSet,
    /// When the last write came.
    last: Option<Timestamp>,
    in_use: bool,
    health: Health,
}

impl Live {
    /// Read all of the volume's records and start to follow it.
    pub fn open(ntfs: Ntfs) -> Result<Self> {
        let volume = ntfs.into_volume();
        let root = volume.file(fixed::ROOT)?.ok_or(Error::NotFound)?.id;
        let state = State::crawl(&volume, root);
        let volume = volume.unkept();
        let mut live = Self {
            state: Arc::new(RwLock::new(state)),
            in_use: reader::about(&volume).dirty,
            volume: Arc::new(volume),
            root,
            mft: MftMap::default(),
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            later: InPlace::new(),
            fresh: RangeSet::default(),
            last: None,
            health: Health::Good,
        };
        live.map_mft();
        Ok(live)
    }

    fn look(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mft(&mut self) {
        let record = self.volume.geometry().record_size.into();
        self.mft = MftMap::new(&self.volume.mft().data, self.volume.cluster_size(), record);
    }

    /// Something was written; its bytes are on the image.
    fn written(&mut self, range: &Range<u64>, is_data: bool, time: Timestamp, out: &mut Vec<Event>) {
        if range.start < boot::LENGTH as u64 {
            self.check_boot();
        }
        for records in self.mft.records(range) {
            let end = records.end.min(self.volume.records().max(records.start + 1));
            self.dirty.extend(records.start..end);
        }
        if is_data {
            self.fresh.insert(range.clone());
        }
        self.last = Some(time);
        if self.dirty.len() > MAX_GATHERED || self.fresh.len() > MAX_GATHERED {
            self.apply(time, Origin::Direct, out);
        }
    }

    /// Is it still the same volume?
    fn check_boot(&mut self) {
        let mut bytes = [0; boot::LENGTH];
        let read = self.volume.disk().read_at(0, &mut bytes).is_ok();
        let same = Geometry::parse(&bytes, 0).is_ok_and(|g| g == *self.volume.geometry());
        if !read || !same {
            self.health = Health::Stale;
        }
    }

    fn is_quiet(&self) -> bool {
        self.fresh.is_empty() && self.dirty.is_subset(&self.waiting)
    }

    /// Make sense of what was gathered.
    fn apply(&mut self, time: Timestamp, origin: Origin, out: &mut Vec<Event>) {
        self.last = None;
        if self.health == Health::Stale {
            return;
        }
        self.follow_mft();
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.contains(&fixed::VOLUME) {
            self.check_use(time, origin, out);
        }
        let (touched, waiting) = {
            let state = self.look();
            let again: BTreeSet<u64> = dirty.union(&self.unplaced).copied().collect();
            let mut collector = Collector::new(&self.volume, &state);
            (collector.run(&again), collector.waiting)
        };
        self.dirty.extend(waiting.iter());
        self.waiting = waiting;
        self.say(touched, time, origin, out);
    }

    /// The MFT may have grown: all that is new in it counts as written.
    fn follow_mft(&mut self) {
        let before = self.volume.mft();
        let own = |n: &u64| *n == fixed::MFT || before.extensions.contains(n);
        if !self.dirty.iter().any(own) {
            return;
        }
        let records = self.volume.records();
        if let Err(e) = self.volume.reload_mft() {
            tracing::debug!("MFT: {e}");
            return;
        }
        self.dirty.extend(records..self.volume.records().max(records));
        if self.volume.mft() != before {
            self.map_mft();
        }
    }

    fn check_use(&mut self, time: Timestamp, origin: Origin, out: &mut Vec<Event>) {
        let in_use = reader::about(&self.volume).dirty;
        if in_use != self.in_use {
            self.in_use = in_use;
            let what = if in_use { "mounted" } else { "unmounted" };
            out.push(Event::new(time, origin, Body::Volume { what, fs: Some("ntfs") }));
        }
    }

    fn say(&mut self, touched: Vec<Touched>, time: Timestamp, origin: Origin, out: &mut Vec<Event>) {
        let state = self.state.clone();
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        for t in &touched {
            if let Some(old) = t.old.as_ref().filter(|o| t.new.as_ref().is_none_or(|n| n.file.id != o.file.id)) {
                state.ghosts.insert(old.file.id, old.clone());
            }
            state.put(t.record, None);
        }
        for t in &touched {
            state.put(t.record, t.new.clone());
        }
        if touched.iter().any(|t| t.record == fixed::ROOT && t.new.as_ref().is_none_or(|n| n.file.id != self.root)) {
            self.health = Health::Stale;
            return;
        }
        let in_place = self.attribute(&state);
        let touched: BTreeMap<u64, Touched> =
            touched.into_iter().filter(|t| is_shown(t.record)).map(|t| (t.record, t)).collect();
        let unplaced = std::mem::take(&mut self.unplaced);
        let mut changes = Changes {
            state: &mut state,
            volume: &self.volume,
            touched,
            in_place,
            later: InPlace::new(),
            unplaced,
            time,
            origin,
        };
        out.extend(changes.run());
        self.later = changes.later;
        self.unplaced = changes.unplaced;
        if self.unplaced.len() > MAX_GATHERED {
            tracing::warn!("more than {MAX_GATHERED} names contradict others: forgetting them");
            self.unplaced.clear();
        }
    }

    /// Whose are the bytes that were written? Those of nobody become somebody's when a record says
    /// so, and count as written then.
    fn attribute(&mut self, state: &State) -> InPlace {
        let cluster = self.volume.cluster_size();
        let mut all = std::mem::take(&mut self.later);
        for r in std::mem::take(&mut self.fresh).iter() {
            for o in state.owners.within(r.start / cluster..r.end.div_ceil(cluster)) {
                let start = (o.lcn * cluster).max(r.start) - o.lcn * cluster;
                let end = ((o.lcn + o.len) * cluster).min(r.end) - o.lcn * cluster;
                let shift = |b: u64| b.saturating_add(o.vcn.saturating_mul(cluster));
                all.entry(o.record).or_default().entry(o.stream).or_default().insert(shift(start)..shift(end));
            }
        }
        all
    }
}

impl crate::volume::Volume for Live {
    fn fs(&self) -> &'static str {
        "ntfs"
    }

    fn tree(&self) -> Arc<dyn Tree> {
        Arc::new(tree::LiveTree::new(self.state.clone(), self.volume.clone()))
    }

    fn write(&mut self, w: VolumeWrite<'_>, out: &mut Vec<Event>) {
        self.written(w.range, true, w.time, out);
    }

    fn zero(&mut self, range: Range<u64>, time: Timestamp, out: &mut Vec<Event>) {
        self.written(&range, true, time, out);
    }

    fn discard(&mut self, range: Range<u64>, time: Timestamp, out: &mut Vec<Event>) {
        self.written(&range, false, time, out);
    }

    fn flush(&mut self, time: Timestamp, out: &mut Vec<Event>) {
        if self.last.is_some() && !self.is_quiet() {
            self.apply(time, Origin::Direct, out);
        }
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        if self.last.is_some_and(|t| now.as_nanos() - t.as_nanos() >= PAUSE) {
            self.apply(now, Origin::Direct, out);
        }
    }

    fn read_written(&self, ino: InodeNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let node = self.look().nodes.get(&record_of(ino).0).cloned().ok_or(Error::NotFound)?;
        tree::read(&self.volume, &node, ino, offset, buf)
    }

    fn finish(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        self.apply(now, Origin::Direct, out);
        if !self.dirty.is_empty() {
            tracing::info!("{} records never became whole", self.dirty.len());
        }
    }

    fn resync(&mut self, now: Timestamp, out: &mut Vec<Event>) -> Result<()> {
        self.volume.reload_mft()?;
        self.map_mft();
        let known = self.look().nodes.keys().next_back().map_or(0, |n| n + 1);
        self.dirty.extend(0..self.volume.records().max(known));
        self.apply(now, Origin::Resync, out);
        Ok(())
    }

    fn introduce(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let touched = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let known = std::mem::replace(&mut *state, State::new(self.root));
            let file = |(record, node)| Touched { record, old: None, new: Some(node) };
            known.nodes.into_iter().map(file).collect()
        };
        self.say(touched, now, Origin::Resync, out);
    }

    fn health(&self) -> Health {
        self.health
    }
}
