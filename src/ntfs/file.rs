//! A file: its base record and its extension records as one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::list;
use super::names::{is_sane, wtf8};
use super::record::{Attribute, FileRef, Header, NonResident, Value, kind, utf16};
use super::run;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::units::Timestamp;

/// `struct ATTR_STD_INFO5` (Linux `fs/ntfs3/ntfs.h`); before NTFS 3.0 it ends after `class_id`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawStandard {
    cr_time: U64,
    m_time: U64,
    c_time: U64,
    a_time: U64,
    fa: U32,
    max_ver_num: U32,
    ver_num: U32,
    class_id: U32,
}

/// The rest of `struct ATTR_STD_INFO5`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawStandardMore {
    owner_id: U32,
    security_id: U32,
    quota_charge: U64,
    usn: U64,
}

/// `struct ATTR_FILE_NAME`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawFileName {
    home: U64,
    times: [U64; 4],
    alloc_size: U64,
    data_size: U64,
    fa: U32,
    ea_or_reparse: U32,
    name_len: u8,
    space: u8,
}

/// $STANDARD_INFORMATION.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standard {
    /// Creation.
    pub crtime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the record.
    pub ctime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// File attributes (`FILE_ATTRIBUTE_…`).
    pub attributes: u32,
    /// Key of the security descriptor in $Secure; 0: none.
    pub security_id: u32,
}

/// One $FILE_NAME.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileName {
    /// The directory.
    pub parent: FileRef,
    /// The name as WTF-8.
    pub name: Vec<u8>,
    /// Only the short form of another name in the same directory.
    pub is_dos: bool,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Record and sequence.
    pub id: FileRef,
    /// Header of the base record.
    pub header: Header,
    /// All attributes but the attribute list, each whole.
    pub attributes: Vec<Attribute>,
    /// The extension records, rising.
    pub extensions: Vec<u64>,
}

/// `FILE_NAME_DOS` alone: the short name of a file that has a long one.
const SPACE_DOS: u8 = 2;
/// More extension records than this no list of 256 KiB can name.
const MAX_PIECES: usize = 16_384;

/// Put together the file `id` from the attributes of its base record and what its attribute list
/// names in other records.
pub fn assemble(volume: &Volume, id: FileRef, header: Header, base: Vec<Attribute>) -> Result<File> {
    let Some(listed) = base.iter().find(|a| a.kind == kind::ATTRIBUTE_LIST) else {
        return Ok(File { id, header, attributes: join(volume, base, id)?, extensions: Vec::new() });
    };
    let entries = list::read(volume, listed)?;
    let mut held: BTreeMap<u64, Vec<Attribute>> = BTreeMap::from([(id.record(), base)]);
    let mut pieces = Vec::new();
    for e in &entries {
        let n = e.holder.record();
        let attributes = match held.entry(n) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(extension(volume, id, e.holder)?),
        };
        let same = |a: &&Attribute| a.kind == e.kind && a.id == e.id && a.first_vcn == e.first_vcn && a.name == e.name;
        let found = attributes.iter().find(same).ok_or_else(|| {
            let place = format!("attribute {:#x} number {} in record {n}", e.kind, e.id);
            Error::corrupt("attribute list", n, place, "none")
        })?;
        pieces.push(found.clone());
        if pieces.len() > MAX_PIECES {
            return Err(Error::corrupt("attribute list", id.record(), format!("up to {MAX_PIECES} entries"), "more"));
        }
    }
    held.remove(&id.record());
    Ok(File { id, header, attributes: join(volume, pieces, id)?, extensions: held.into_keys().collect() })
}

/// The attributes of the extension record `holder` of the file `id`.
fn extension(volume: &Volume, id: FileRef, holder: FileRef) -> Result<Vec<Attribute>> {
    let n = holder.record();
    let record = volume.record(n)?;
    let base = record.as_ref().and_then(|r| r.header.base.filter(|_| r.header.in_use));
    match record {
        Some(r) if base == Some(id) => r.attributes(),
        _ => Err(Error::corrupt("extension record", n, format!("one of record {}", id.record()), format!("{base:?}"))),
    }
}

/// Join the pieces of values that are spread over records.
fn join(volume: &Volume, mut pieces: Vec<Attribute>, id: FileRef) -> Result<Vec<Attribute>> {
    pieces.retain(|a| a.kind != kind::ATTRIBUTE_LIST);
    // A stable sort: several names of a file keep their order.
    pieces.sort_by(|a, b| (a.kind, &a.name, a.first_vcn).cmp(&(b.kind, &b.name, b.first_vcn)));
    let mut all: Vec<Attribute> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if piece.first_vcn == 0 {
            all.push(piece);
            continue;
        }
        let wrong = || Error::corrupt("pieces of an attribute", id.record(), "one after another", piece.first_vcn);
        let last = all.last_mut().filter(|l| (l.kind, &l.name) == (piece.kind, &piece.name)).ok_or_else(wrong)?;
        let (Value::NonResident(whole), Value::NonResident(more)) = (&mut last.value, &piece.value) else {
            return Err(wrong());
        };
        if whole.runs.last().map_or(0, run::Run::end) != piece.first_vcn {
            return Err(wrong());
        }
        let whole = std::sync::Arc::make_mut(whole);
        more.runs.iter().for_each(|r| run::push(&mut whole.runs, *r));
    }
    for n in all.iter().filter_map(Attribute::non_resident) {
        let mapped = n.runs.last().map_or(0, run::Run::end).saturating_mul(volume.cluster_size());
        if n.size > mapped {
            return Err(Error::corrupt("size of an attribute", id.record(), format!("at most {mapped}"), n.size));
        }
    }
    Ok(all)
}

impl File {
    /// The first attribute of this kind without a name.
    pub fn attribute(&self, kind: u32) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.kind == kind && a.name.is_empty())
    }

    /// The attribute of this kind and name.
    pub fn named(&self, kind: u32, name: &[u16]) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.kind == kind && *a.name == *name)
    }

    /// A resident value without a name.
    pub fn resident(&self, kind: u32) -> Option<&[u8]> {
        match &self.attribute(kind)?.value {
            Value::Resident(bytes) => Some(bytes),
            Value::NonResident(_) => None,
        }
    }

    /// $STANDARD_INFORMATION; zeros if there is none.
    pub fn standard(&self) -> Standard {
        let bytes = self.resident(kind::STANDARD_INFORMATION).unwrap_or_default();
        let Ok((raw, more)) = RawStandard::ref_from_prefix(bytes) else { return Standard::default() };
        let security_id = RawStandardMore::ref_from_prefix(more).map_or(0, |(m, _)| m.security_id.get());
        Standard {
            crtime: timestamp(raw.cr_time.get()),
            mtime: timestamp(raw.m_time.get()),
            ctime: timestamp(raw.c_time.get()),
            atime: timestamp(raw.a_time.get()),
            attributes: raw.fa.get(),
            security_id,
        }
    }

    /// All names that could be understood, also those in DOS form.
    pub fn names(&self) -> impl Iterator<Item = FileName> + '_ {
        let values = self.attributes.iter().filter(|a| a.kind == kind::FILE_NAME);
        values.filter_map(|a| match &a.value {
            Value::Resident(bytes) => file_name(bytes),
            Value::NonResident(_) => None,
        })
    }

    /// Its names in directories: those that are shown.
    pub fn links(&self) -> Vec<FileName> {
        let mut all: Vec<FileName> = self.names().filter(|n| !n.is_dos && is_sane(&n.name)).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The values of streams: the unnamed one and the others.
    pub fn streams(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|a| a.kind == kind::DATA)
    }
}

/// Parse the value of a $FILE_NAME, as it also stands in the index of a directory.
pub fn file_name(bytes: &[u8]) -> Option<FileName> {
    let (raw, name) = RawFileName::ref_from_prefix(bytes).ok()?;
    let name = name.get(..2 * usize::from(raw.name_len))?;
    Some(FileName { parent: FileRef(raw.home.get()), name: wtf8(&utf16(name)), is_dos: raw.space == SPACE_DOS })
}

impl Attribute {
    /// Length of the value in bytes.
    pub fn size(&self) -> u64 {
        match &self.value {
            Value::Resident(bytes) => bytes.len() as u64,
            Value::NonResident(n) => n.size,
        }
    }

    /// Clusters that it takes up on disk, in bytes.
    pub fn space(&self, cluster: u64) -> u64 {
        self.non_resident().map_or(0, |n| {
            let used = n.runs.iter().filter(|r| r.lcn.is_some()).map(|r| r.len);
            used.fold(0, u64::saturating_add).saturating_mul(cluster)
        })
    }

    /// The value in clusters, if it is.
    pub fn non_resident(&self) -> Option<&NonResident> {
        match &self.value {
            Value::Resident(_) => None,
            Value::NonResident(n) => Some(n),
        }
    }
}

/// 100 ns since 1601-01-01 UTC.
pub fn timestamp(ticks: u64) -> Timestamp {
    const PER_SECOND: u64 = 10_000_000;
    const TO_1970: i64 = 11_644_473_600;
    let secs = i64::try_from(ticks / PER_SECOND).unwrap_or_default() - TO_1970;
    Timestamp { secs, nanos: u32::try_from(ticks % PER_SECOND * 100).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_1601() {
        assert_eq!(timestamp(116_444_736_000_000_001), Timestamp { secs: 0, nanos: 100 });
        assert_eq!(timestamp(0).to_string(), "1601-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(u64::MAX).secs, 1_833_029_933_770);
    }
}
