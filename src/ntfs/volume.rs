//! The volume as records: where the MFT lies, and how to read a record from it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::boot::Geometry;
use super::data;
use super::file::{self, File};
use super::list;
use super::record::{Attribute, FileRef, NonResident, Record, Value, kind};
use super::run;
use crate::error::{Error, Result};
use crate::image::Disk;

/// Numbers of the MFT's fixed records (Linux `fs/ntfs3/ntfs.h`: `enum MFT_REC_…`).
pub mod fixed {
    #![allow(missing_docs, reason = "the names say it")]
    pub const MFT: u64 = 0;
    pub const LOG_FILE: u64 = 2;
    pub const VOLUME: u64 = 3;
    pub const ROOT: u64 = 5;
    pub const BITMAP: u64 = 6;
    pub const SECURE: u64 = 9;
    pub const EXTEND: u64 = 11;
    /// The first record that drivers show.
    pub const FIRST_SHOWN: u64 = 16;
}

/// Where the MFT lies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mft {
    /// Its data.
    pub data: Arc<NonResident>,
    /// Extension records of its own.
    pub extensions: BTreeSet<u64>,
}

/// A volume that can be read. May be used from several threads.
pub struct Volume {
    disk: Disk,
    geometry: Geometry,
    mft: RwLock<Mft>,
    /// Pieces of the MFT, by number: most records are looked at with their neighbours. Not while
    /// the volume changes.
    pieces: Option<Mutex<HashMap<u64, Arc<[u8]>>>>,
}

/// Bytes of a piece; a multiple of every size of records.
const PIECE: u64 = 64 << 10;
/// So many pieces are kept.
const MAX_PIECES: usize = 64;

impl Volume {
    /// Read boot sector and the MFT's own record.
    ///
    /// Errors: either is damaged beyond its copy.
    pub fn open(disk: Disk) -> Result<Self> {
        let geometry = Geometry::read(&*disk)?;
        let volume = Self { disk, geometry, mft: RwLock::default(), pieces: Some(Mutex::default()) };
        volume.reload_mft()?;
        Ok(volume)
    }

    /// The same volume, of which nothing is kept in memory: it changes.
    pub fn unkept(self) -> Self {
        Self { pieces: None, ..self }
    }

    /// What the boot sector says.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Bytes per cluster.
    pub fn cluster_size(&self) -> u64 {
        self.geometry.cluster_size.into()
    }

    /// Where the MFT lies.
    pub fn mft(&self) -> Mft {
        self.mft.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Look where the MFT lies now.
    pub fn reload_mft(&self) -> Result<()> {
        let mft = self.find_mft()?;
        *self.mft.write().unwrap_or_else(PoisonError::into_inner) = mft;
        Ok(())
    }

    /// How many records the MFT has.
    pub fn records(&self) -> u64 {
        let mft = self.mft.read().unwrap_or_else(PoisonError::into_inner);
        let mapped = mft.data.runs.last().map_or(0, run::Run::end).saturating_mul(self.cluster_size());
        mft.data.valid.min(mapped).min(self.disk.size()) / u64::from(self.geometry.record_size)
    }

    /// Record `n` of the MFT as it lies on disk; `None` past the MFT's end, or if never used.
    pub fn record(&self, n: u64) -> Result<Option<Record>> {
        if n >= self.records() {
            return Ok(None);
        }
        let mft = self.mft().data;
        match self.kept(&mft, n) {
            Some((bytes, at)) => Record::parse(bytes, at, self.geometry.clusters),
            None => self.record_in(&mft, n),
        }
    }

    /// The bytes of record `n` from a piece that is kept or can be; also where it lies.
    fn kept(&self, mft: &NonResident, n: u64) -> Option<(Vec<u8>, u64)> {
        let pieces = self.pieces.as_ref()?;
        let size = u64::from(self.geometry.record_size);
        let offset = n.checked_mul(size)?;
        let at = self.place(mft, offset)?;
        let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let number = offset / PIECE;
        let piece = if let Some(piece) = pieces.get(&number) {
            piece.clone()
        } else {
            let end = mft.runs.last()?.end().saturating_mul(self.cluster_size());
            let mut bytes = vec![0; data::to_usize(PIECE.min(end.checked_sub(number * PIECE)?))];
            data::read_clusters(self, mft, number * PIECE, &mut bytes).ok()?;
            if pieces.len() >= MAX_PIECES {
                pieces.clear();
            }
            let piece: Arc<[u8]> = bytes.into();
            pieces.insert(number, piece.clone());
            piece
        };
        let start = data::to_usize(offset % PIECE);
        Some((piece.get(start..start + data::to_usize(size))?.to_vec(), at))
    }

    fn record_in(&self, mft: &NonResident, n: u64) -> Result<Option<Record>> {
        let size = u64::from(self.geometry.record_size);
        let offset = n.saturating_mul(size);
        let at = self.place(mft, offset).ok_or_else(|| Error::corrupt("MFT", offset, "a record", "a hole"))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        data::read_clusters(self, mft, offset, &mut bytes)?;
        Record::parse(bytes, at, self.geometry.clusters)
    }

    /// The byte of the volume at which byte `offset` of a value lies.
    pub fn place(&self, value: &NonResident, offset: u64) -> Option<u64> {
        let cluster = self.cluster_size();
        let lcn = run::find(&value.runs, offset / cluster)?.lcn?;
        Some(lcn * cluster + offset % cluster)
    }

    /// Record 0, or its copy in the mirror.
    fn first_record(&self) -> Result<Record> {
        let read = |lcn: u64| {
            let at = lcn.saturating_mul(self.cluster_size());
            let mut bytes = vec![0; usize::try_from(self.geometry.record_size).unwrap_or(0)];
            let read = self.disk.read_at(at, &mut bytes);
            read.map_err(|source| Error::Io { what: "first MFT record", at, source })?;
            let record = Record::parse(bytes, at, self.geometry.clusters)?;
            record.ok_or_else(|| Error::corrupt("first MFT record", at, "a record", "zeros"))
        };
        let first = read(self.geometry.mft);
        match first {
            Err(Error::Corrupt { .. }) => read(self.geometry.mft_mirror).or(first),
            other => other,
        }
    }

    /// The MFT's record tells where the MFT lies; where it has an attribute list, further records
    /// tell the rest, each in a part that is known by then.
    fn find_mft(&self) -> Result<Mft> {
        let attributes = self.first_record()?.attributes()?;
        let at = self.geometry.mft.saturating_mul(self.cluster_size());
        let first = attributes.iter().find(|a| is_data(a));
        let Some(Value::NonResident(first)) = first.map(|a| &a.value) else {
            return Err(Error::corrupt("MFT", at, "data in clusters", "none"));
        };
        let mut data = NonResident::clone(first);
        let mut extensions = BTreeSet::new();
        let listed = attributes.iter().find(|a| a.kind == kind::ATTRIBUTE_LIST);
        let entries = listed.map_or(Ok(Vec::new()), |l| list::read(self, l))?;
        for entry in entries {
            let n = entry.holder.record();
            if n != fixed::MFT {
                extensions.insert(n);
            }
            let next = data.runs.last().map_or(0, run::Run::end);
            if entry.kind != kind::DATA || !entry.name.is_empty() || entry.first_vcn != next || next == 0 {
                continue;
            }
            let Some(record) = self.record_in(&data, n)? else { continue };
            let more = record.attributes()?.into_iter().find(|a| is_data(a) && a.first_vcn == next);
            if let Some(Value::NonResident(more)) = more.map(|a| a.value) {
                more.runs.iter().for_each(|r| run::push(&mut data.runs, *r));
            }
        }
        Ok(Mft { data: data.into(), extensions })
    }

    /// The file in record `n` with all its extension records; `None` if it is not in use, or an
    /// extension record itself.
    ///
    /// Errors: a record is torn or contradicts itself, or what the attribute list says.
    pub fn file(&self, n: u64) -> Result<Option<File>> {
        let Some(base) = self.record(n)? else { return Ok(None) };
        if !base.header.in_use || base.header.base.is_some() {
            return Ok(None);
        }
        let attributes = base.attributes()?;
        let id = FileRef::new(n, base.header.sequence);
        file::assemble(self, id, base.header, attributes).map(Some)
    }

    /// The bytes of a value, which may have at most `most`.
    pub fn value(&self, a: &Attribute, most: u64) -> Result<Arc<[u8]>> {
        let n = match &a.value {
            Value::Resident(bytes) => return Ok(bytes.clone()),
            Value::NonResident(n) => n,
        };
        if n.size > most {
            let at = self.place(n, 0).unwrap_or_default();
            return Err(Error::corrupt("length of an attribute", at, format!("at most {most}"), n.size));
        }
        let mut bytes = vec![0; usize::try_from(n.size).unwrap_or(0)];
        data::read(self, &a.value, 0, &mut bytes)?;
        Ok(bytes.into())
    }
}

fn is_data(a: &Attribute) -> bool {
    a.kind == kind::DATA && a.name.is_empty()
}
