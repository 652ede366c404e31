//! Routes writes to the file systems of a disk and their events to the sink.
//!
//! Knows `Volume` and not ext4: which file system it is, [`opened`] finds out.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::event::{Body, Event, Origin};
use crate::feed::Lost;
use crate::guest::{Guest, Mounted};
use crate::image::{Disk, Slice};
use crate::interest::Interest;
use crate::name::GuestPath;
use crate::open;
use crate::sink::Sink;
use crate::units::Timestamp;
use crate::volume::{Health, Volume, VolumeInterest, VolumeWrite};
use crate::write::{Write, WriteOp};

/// Whether `write` events carry bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Payload {
    /// No.
    #[default]
    None,
    /// The file's bytes as they stand on disk when the event is made.
    Disk,
    /// The bytes that were written: the disk is to be one that shows no later ones.
    Exact,
}

/// How to run.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Name of the VM in every event.
    pub vm: String,
    /// Bytes in `write` events.
    pub payload: Payload,
}

/// A `write` event with more bytes than this is split, so that memory stays bounded.
const MAX_PAYLOAD: u64 = 1 << 20;
/// After a table or a file system was overwritten: look again when writes pause this long (ns).
const SETTLE: i128 = 500_000_000;
/// Bytes at the start of a partition whose change may mean that a file system came or went.
const HEAD: u64 = 128 << 10;
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Bytes at both ends of the disk that hold partition tables.
const TABLE: u64 = 64 << 10;

struct Part {
    name: Arc<str>,
    range: Range<u64>,
    volume: Option<Box<dyn Volume>>,
}

/// The engine of one disk.
pub struct Engine {
    disk: Disk,
    vm: Arc<str>,
    interest: Arc<Interest>,
    guest: Arc<Guest>,
    parts: Vec<Part>,
    sinks: Vec<Box<dyn Sink>>,
    /// Whether `write` events carry their bytes.
    with_bytes: bool,
    seq: u64,
    /// Number of the last write.
    write: u64,
    /// Tables or file systems may have changed; when that was last seen.
    unsettled: Option<Timestamp>,
    out: Vec<Event>,
}

impl Engine {
    /// Look at `disk`, crawl its file systems, and get ready to follow them.
    pub fn new(disk: Disk, options: EngineOptions, sink: Box<dyn Sink>) -> Result<Self> {
        let with_bytes = options.payload != Payload::None || sink.wants_payload();
        let interest = Arc::new(Interest::new(disk.size()));
        let vm = options.vm.as_str().into();
        let mut engine = Self {
            disk,
            vm,
            interest,
            guest: Arc::new(Guest::default()),
            parts: Vec::new(),
            sinks: vec![sink],
            with_bytes,
            seq: 0,
            write: 0,
            unsettled: None,
            out: Vec::new(),
        };
        engine.parts = engine.survey()?;
        engine.publish();
        Ok(engine)
    }

    /// Whose bytes the tap should copy.
    pub fn interest(&self) -> Arc<Interest> {
        self.interest.clone()
    }

    /// The live files, for views.
    pub fn guest(&self) -> Arc<Guest> {
        self.guest.clone()
    }

    /// Tell `sink` as well, from the next event on.
    pub fn add_sink(&mut self, sink: Box<dyn Sink>) {
        self.with_bytes |= sink.wants_payload();
        self.sinks.push(sink);
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        self.seq
    }

    /// Take one change of the disk, which the image shows already. An error is the sink's.
    pub fn apply(&mut self, w: &Write) -> std::io::Result<()> {
        self.write = w.seq;
        match &w.op {
            WriteOp::Data { offset, len, pieces } => {
                let range = *offset..offset.saturating_add(*len);
                self.watch_tables(&range, w.time);
                self.route(&range, |volume, local, start, out| {
                    let local_pieces = within(pieces, start, local);
                    volume.write(VolumeWrite { range: local, pieces: &local_pieces, time: w.time }, out);
                });
            }
            WriteOp::Zero(range) => {
                self.watch_tables(range, w.time);
                self.route(range, |volume, local, _, out| volume.zero(local.clone(), w.time, out));
            }
            WriteOp::Discard(range) => {
                self.watch_tables(range, w.time);
                self.route(range, |volume, local, _, out| volume.discard(local.clone(), w.time, out));
            }
            WriteOp::Flush => {
                let whole = 0..u64::MAX;
                self.route(&whole, |volume, _, _, out| volume.flush(w.time, out));
            }
        }
        self.deliver()
    }

    /// Time passed: make sense of what has settled.
    pub fn tick(&mut self, now: Timestamp) -> std::io::Result<()> {
        self.route(&(0..u64::MAX), |volume, _, _, out| volume.tick(now, out));
        if self.unsettled.is_some_and(|t| now.as_nanos() - t.as_nanos() >= SETTLE) {
            self.look_again(now);
        }
        self.deliver()
    }

    /// No more writes will come: say all that is left.
    pub fn finish(&mut self) -> std::io::Result<()> {
        let now = Timestamp::now();
        self.route(&(0..u64::MAX), |volume, _, _, out| volume.finish(now, out));
        if self.unsettled.is_some() {
            self.look_again(now);
        }
        self.deliver()
    }

    /// Nothing more will be said: let the sinks deliver what they hold.
    pub fn close(&mut self) -> std::io::Result<()> {
        self.sinks.iter_mut().for_each(|s| s.ending());
        // Each has its chance, whatever becomes of another.
        self.sinks.iter_mut().map(|s| s.close()).fold(Ok(()), std::io::Result::and)
    }

    /// Writes were lost when the queue was full: read the disk again and say what differs.
    pub fn resync(&mut self, lost: &Lost) -> std::io::Result<()> {
        self.resync_because(format!("{} writes came faster than they could be followed", lost.writes), lost)
    }

    /// The same, if they were lost for another `reason`.
    pub fn resync_because(&mut self, reason: String, lost: &Lost) -> std::io::Result<()> {
        let now = Timestamp::now();
        tracing::warn!("{reason}");
        let gap = Event::new(now, Origin::Resync, Body::Gap { reason, bytes: lost.ranges.bytes() });
        self.stamp(vec![gap], None)?;
        for r in lost.ranges.iter() {
            self.watch_tables(&r, now);
            self.route(&r, |volume, local, _, out| {
                volume.write(VolumeWrite { range: local, pieces: &[], time: now }, out);
            });
        }
        self.route(&(0..u64::MAX), |volume, _, _, out| {
            if let Err(e) = volume.resync(now, out) {
                tracing::warn!("cannot read the volume again: {e}");
            }
        });
        self.deliver()
    }

    /// The disk was changed by somebody whose writes do not come by here: read it again and say what
    /// differs.
    pub fn reread(&mut self) -> std::io::Result<()> {
        let now = Timestamp::now();
        self.route(&(0..u64::MAX), |volume, _, _, out| {
            if let Err(e) = volume.resync(now, out) {
                tracing::info!("cannot read the volume again: {e}");
            }
        });
        if self.has_moved() {
            self.look_again(now);
        }
        self.deliver()
    }

    /// Whether other file systems are on the disk than those that are followed.
    fn has_moved(&self) -> bool {
        let Ok(survey) = open::survey(&self.disk) else { return false };
        let same = |(area, part): (&open::Area, &Part)| {
            let range = area.offset..area.offset.saturating_add(area.length);
            let good = part.volume.as_ref().map(|v| v.health() == Health::Good);
            area.name == part.name && range == part.range && good == area.files.as_ref().map(|_| true)
        };
        survey.areas.len() != self.parts.len() || !survey.areas.iter().zip(&self.parts).all(same)
    }

    /// Call `f` for each volume that meets `range` with its part of it, in volume bytes.
    fn route(&mut self, range: &Range<u64>, mut f: impl FnMut(&mut dyn Volume, &Range<u64>, u64, &mut Vec<Event>)) {
        let several = self.has_several();
        for part in &mut self.parts {
            let start = range.start.max(part.range.start);
            let end = range.end.min(part.range.end);
            let Some(volume) = part.volume.as_deref_mut().filter(|_| start < end) else { continue };
            let mut out = Vec::new();
            f(volume, &(start - part.range.start..end - part.range.start), part.range.start, &mut out);
            if volume.health() == Health::Stale && self.unsettled.is_none() {
                self.unsettled = Some(Timestamp::now());
            }
            if !out.is_empty() && self.with_bytes {
                out = with_payload(out, volume);
            }
            for mut e in out {
                e.volume = Some(part.name.clone());
                place_on_disk(&mut e, part.range.start);
                if several {
                    prefix(&mut e, &part.name);
                }
                self.out.push(e);
            }
        }
    }

    /// Whether each file system is a top folder.
    fn has_several(&self) -> bool {
        self.parts.iter().filter(|p| p.volume.is_some()).count() > 1
    }

    fn deliver(&mut self) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        for e in out {
            self.emit(e)?;
        }
        self.sinks.iter_mut().try_for_each(|s| s.flush())
    }

    fn emit(&mut self, mut e: Event) -> std::io::Result<()> {
        e.vm = self.vm.clone();
        e.write = self.write;
        if matches!(e.body, Body::Aside { .. }) {
            e.seq = self.seq;
            return self.sinks.iter_mut().try_for_each(|s| s.aside(&e));
        }
        self.seq += 1;
        e.seq = self.seq;
        self.sinks.iter_mut().try_for_each(|s| s.emit(&e))
    }

    fn stamp(&mut self, events: Vec<Event>, volume: Option<&Arc<str>>) -> std::io::Result<()> {
        self.out.extend(events.into_iter().map(|e| Event { volume: volume.cloned(), ..e }));
        self.deliver()
    }

    /// Note writes to places where tables and file systems start.
    fn watch_tables(&mut self, range: &Range<u64>, time: Timestamp) {
        let meets = |r: Range<u64>| range.start < r.end && r.start < range.end;
        let size = self.disk.size();
        let tables = meets(0..TABLE) || meets(size.saturating_sub(TABLE)..size);
        let whole = self.parts.iter().any(|p| &*p.name == "disk");
        let empty = |p: &Part| p.volume.as_ref().is_none_or(|v| v.health() == Health::Stale);
        let head = |p: &Part| meets(p.range.start..p.range.start.saturating_add(HEAD));
        if tables && !whole || self.parts.iter().any(|p| empty(p) && head(p)) {
            self.unsettled = Some(time);
        } else if self.unsettled.is_some() && self.parts.iter().any(empty) {
            // A mkfs is still writing somewhere.
            self.unsettled = Some(time);
        }
    }

    /// Read tables and superblocks again; say which volumes came, went or became others.
    fn look_again(&mut self, now: Timestamp) {
        self.unsettled = None;
        let survey = match open::survey(&self.disk) {
            Ok(s) => s,
            Err(e) => {
                tracing::warn!("cannot read the partition table: {e}");
                return;
            }
        };
        let mut old = std::mem::take(&mut self.parts);
        let first = self.out.len();
        for area in survey.areas {
            let range = area.offset..area.offset.saturating_add(area.length);
            let i = old.iter().position(|p| p.name == area.name && p.range == range);
            let before = i.map(|i| old.swap_remove(i));
            let part = self.settle(area, range, before, now);
            self.parts.push(part);
        }
        if self.has_several() {
            for e in self.out.iter_mut().skip(first) {
                let name = e.volume.clone();
                prefix(e, name.as_deref().unwrap_or_default());
            }
        }
        for gone in old.into_iter().filter(|p| p.volume.is_some()) {
            self.say(&gone.name, now, "went", gone.volume.as_deref());
        }
        self.publish();
    }

    /// What an area is now, given what it was before.
    fn settle(&mut self, area: open::Area, range: Range<u64>, before: Option<Part>, now: Timestamp) -> Part {
        let name = area.name.clone();
        let old = match before.and_then(|p| p.volume) {
            Some(v) if v.health() == Health::Good => return Part { name, range, volume: Some(v) },
            old => old,
        };
        let mut volume = self.opened(&area);
        match (&old, &mut volume) {
            (None, Some(v)) => self.introduce(&name, now, "appeared", &mut **v),
            (Some(_), Some(v)) => self.introduce(&name, now, "reformatted", &mut **v),
            (Some(v), None) => self.say(&name, now, "went", Some(&**v)),
            (None, None) => {}
        }
        Part { name, range, volume }
    }

    /// Say that a file system is there, and what is in it.
    fn introduce(&mut self, name: &Arc<str>, now: Timestamp, what: &'static str, volume: &mut dyn Volume) {
        self.say(name, now, what, Some(volume));
        let mut files = Vec::new();
        volume.introduce(now, &mut files);
        if self.with_bytes {
            files = with_payload(files, volume);
        }
        self.out.extend(files.into_iter().map(|e| Event { volume: Some(name.clone()), ..e }));
    }

    fn say(&mut self, name: &Arc<str>, now: Timestamp, what: &'static str, volume: Option<&dyn Volume>) {
        let fs = volume.map(Volume::fs);
        let mut e = Event::new(now, Origin::Direct, Body::Volume { what, fs });
        e.volume = Some(name.clone());
        self.out.push(e);
    }

    fn survey(&mut self) -> Result<Vec<Part>> {
        let survey = open::survey(&self.disk)?;
        for problem in &survey.table.problems {
            tracing::warn!("{}: {problem}", survey.table.scheme);
        }
        let part = |area: open::Area| {
            let range = area.offset..area.offset.saturating_add(area.length);
            Part { name: area.name.clone(), range, volume: self.opened(&area) }
        };
        Ok(survey.areas.into_iter().map(part).collect())
    }

    /// Follow the file system of `area`, if it is one that we know.
    fn opened(&self, area: &open::Area) -> Option<Box<dyn Volume>> {
        if area.files.is_none() {
            tracing::info!("{}: not followed: {}", area.name, area.state);
            return None;
        }
        let slice: Disk = Arc::new(Slice::new(self.disk.clone(), area.offset, area.length));
        let interest = VolumeInterest::new(self.interest.clone(), area.offset);
        let opened: Result<Box<dyn Volume>> = match area.files.as_ref()? {
            open::Files::Ext4(_) => crate::ext4::Ext4::open(slice)
                .and_then(|fs| Ok(Box::new(crate::ext4::live::Live::open(fs, interest)?) as Box<dyn Volume>)),
            open::Files::Ntfs(_) => crate::ntfs::Ntfs::open(slice)
                .and_then(|fs| Ok(Box::new(crate::ntfs::live::Live::open(fs)?) as Box<dyn Volume>)),
        };
        match opened {
            Ok(live) => Some(live),
            Err(e) => {
                tracing::warn!("{}: not followed: {e}", area.name);
                None
            }
        }
    }

    /// Show the volumes that are followed to views.
    fn publish(&self) {
        let mounted = |p: &Part| Some(Mounted { name: p.name.clone(), tree: p.volume.as_ref()?.tree() });
        self.guest.set(self.parts.iter().filter_map(mounted).collect());
    }
}

/// The pieces that lie in a volume which starts at disk byte `start`, in volume bytes, cut to `local`.
fn within<'a>(pieces: &'a [(u64, Box<[u8]>)], start: u64, local: &Range<u64>) -> Vec<(u64, &'a [u8])> {
    let cut = |(at, bytes): &'a (u64, Box<[u8]>)| {
        let from = (*at).max(start + local.start);
        let to = at.saturating_add(bytes.len() as u64).min(start + local.end);
        let a = usize::try_from(from.checked_sub(*at)?).ok()?;
        let b = usize::try_from(to.checked_sub(*at)?).ok()?;
        Some((from - start, bytes.get(a..b).filter(|p| !p.is_empty())?))
    };
    pieces.iter().filter_map(cut).collect()
}

/// Asides of a volume count its sectors; the messages of 2013 count the disk's.
fn place_on_disk(e: &mut Event, start: u64) {
    if let Body::Aside { field, old, new } = &mut e.body
        && field.ends_with("_sector_start")
    {
        let first = start / SECTOR;
        *old = if *old == 0 { 0 } else { old.saturating_add(first) };
        *new = new.saturating_add(first);
    }
}

/// Put the volume's folder before the event's paths.
fn prefix(e: &mut Event, name: &str) {
    let under = |p: &GuestPath| {
        let tail = if p.0 == b"/" { &[][..] } else { &p.0 };
        GuestPath([b"/", name.as_bytes(), tail].concat())
    };
    e.path = e.path.as_ref().map(under);
    if let Body::Rename { from, .. } = &mut e.body {
        *from = under(from);
    }
}

/// Add the bytes to `write` events; long ones are split.
fn with_payload(events: Vec<Event>, volume: &dyn Volume) -> Vec<Event> {
    let mut all = Vec::with_capacity(events.len());
    for e in events {
        let (Body::Write { offset, length, zero: false, .. }, Some(ino)) = (&e.body, e.inode) else {
            all.push(e);
            continue;
        };
        let end = offset.saturating_add(*length);
        let mut at = *offset;
        while at < end {
            let len = MAX_PAYLOAD.min(end - at);
            let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
            match volume.read_written(e.stream.as_ref().map_or(ino, |s| s.ino), at, &mut data) {
                Ok(n) => data.truncate(n),
                Err(err) => {
                    tracing::warn!("cannot read what was written to inode {ino}: {err}");
                    data.clear();
                }
            }
            let body = Body::Write { offset: at, length: len, zero: false, data: Some(data) };
            all.push(Event { body, ..e.clone() });
            at += len;
        }
    }
    all
}
