//! One MFT record: its header and its attributes.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::fixup;
use super::run::{self, Run};
use crate::error::{Error, Result};

/// `struct MFT_REC` (Linux `fs/ntfs3/ntfs.h`).
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    fix_off: U16,
    fix_num: U16,
    lsn: U64,
    seq: U16,
    hard_links: U16,
    attr_off: U16,
    flags: U16,
    used: U32,
    total: U32,
    parent_ref: U64,
    next_attr_id: U16,
}

/// Start of `struct ATTRIB`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawAttribute {
    kind: U32,
    size: U32,
    non_res: u8,
    name_len: u8,
    name_off: U16,
    flags: U16,
    id: U16,
}

/// `struct ATTR_RESIDENT`, behind the start.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawResident {
    data_size: U32,
    data_off: U16,
    flags: u8,
    reserved: u8,
}

/// `struct ATTR_NONRESIDENT`, behind the start.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawNonResident {
    svcn: U64,
    evcn: U64,
    run_off: U16,
    c_unit: u8,
    reserved: [u8; 5],
    alloc_size: U64,
    data_size: U64,
    valid_size: U64,
}

/// Kinds of attributes (Linux `fs/ntfs3/ntfs.h`: `enum ATTR_TYPE`).
pub mod kind {
    #![allow(missing_docs, reason = "the names say it")]
    pub const STANDARD_INFORMATION: u32 = 0x10;
    pub const ATTRIBUTE_LIST: u32 = 0x20;
    pub const FILE_NAME: u32 = 0x30;
    pub const OBJECT_ID: u32 = 0x40;
    pub const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub const VOLUME_NAME: u32 = 0x60;
    pub const VOLUME_INFORMATION: u32 = 0x70;
    pub const DATA: u32 = 0x80;
    pub const INDEX_ROOT: u32 = 0x90;
    pub const INDEX_ALLOCATION: u32 = 0xA0;
    pub const BITMAP: u32 = 0xB0;
    pub const REPARSE_POINT: u32 = 0xC0;
    pub const EA: u32 = 0xE0;
    pub const END: u32 = 0xFFFF_FFFF;
}

/// Number of a record and how often it was used: the identity of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileRef(pub u64);

impl FileRef {
    /// Of these two.
    pub fn new(record: u64, sequence: u16) -> Self {
        Self(record & RECORD_BITS | u64::from(sequence) << 48)
    }

    /// The record's number.
    pub fn record(self) -> u64 {
        self.0 & RECORD_BITS
    }

    /// How often it was used; 0: not said.
    pub fn sequence(self) -> u16 {
        u16::try_from(self.0 >> 48).unwrap_or_default()
    }
}

const RECORD_BITS: u64 = (1 << 48) - 1;

/// What a record's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// How often the record was used.
    pub sequence: u16,
    /// Names, also those in DOS form.
    pub hard_links: u16,
    /// Holds a file.
    pub in_use: bool,
    /// The file has an index of names.
    pub is_dir: bool,
    /// Of an extension record: the base record.
    pub base: Option<FileRef>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// In the record.
    Resident(Arc<[u8]>),
    /// In clusters.
    NonResident(Arc<NonResident>),
}

/// A value in clusters. Sizes in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NonResident {
    /// Rising, without holes (what is sparse is a run too).
    pub runs: Vec<Run>,
    /// Space set aside for it.
    pub allocated: u64,
    /// Length of the value.
    pub size: u64,
    /// Bytes from here on read as zeros.
    pub valid: u64,
    /// Clusters that are compressed as one; 0: not compressed.
    pub unit: u64,
}

/// An attribute, or the piece of one that a record holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// See [`kind`].
    pub kind: u32,
    /// Its name in UTF-16.
    pub name: Box<[u16]>,
    /// Number within the record.
    pub id: u16,
    /// Encrypted by the guest.
    pub encrypted: bool,
    /// First cluster that this piece tells of.
    pub first_vcn: u64,
    /// The value.
    pub value: Value,
}

/// Attribute flags (`ATTR_FLAG_COMPRESSED_MASK`, `ATTR_FLAG_ENCRYPTED`).
const COMPRESSED: u16 = 0x00FF;
const ENCRYPTED: u16 = 0x4000;
/// Record flags.
const IN_USE: u16 = 1;
const DIRECTORY: u16 = 2;

/// A record that is whole.
#[derive(Debug)]
pub struct Record {
    /// Its header.
    pub header: Header,
    bytes: Vec<u8>,
    at: u64,
    first: usize,
    clusters: u64,
}

impl Record {
    /// Check `bytes`, which stand at volume byte `at` of a volume of `clusters`. `None` for a record
    /// that was never used.
    ///
    /// Errors: it is no record, or torn.
    pub fn parse(mut bytes: Vec<u8>, at: u64, clusters: u64) -> Result<Option<Self>> {
        if bytes.get(..4).is_none_or(|m| *m == [0; 4]) {
            return Ok(None);
        }
        fixup::apply(&mut bytes, b"FILE", "MFT record", at)?;
        let (raw, _) = RawHeader::ref_from_prefix(&bytes)
            .map_err(|_| Error::corrupt("MFT record", at, "a header", bytes.len()))?;
        let base = FileRef(raw.parent_ref.get());
        let header = Header {
            sequence: raw.seq.get(),
            hard_links: raw.hard_links.get(),
            in_use: raw.flags.get() & IN_USE != 0,
            is_dir: raw.flags.get() & DIRECTORY != 0,
            base: (base.0 != 0).then_some(base),
        };
        let first = usize::from(raw.attr_off.get());
        let used = usize::try_from(raw.used.get()).unwrap_or(usize::MAX);
        if used > bytes.len() || first > used || first % 4 != 0 {
            let found = format!("attributes from {first}, {used} in use");
            return Err(Error::corrupt("MFT record", at, format!("at most {} bytes", bytes.len()), found));
        }
        bytes.truncate(used);
        Ok(Some(Self { header, bytes, at, first, clusters }))
    }

    /// Its attributes.
    ///
    /// Errors: a contradiction; there is no telling where the next attribute would start.
    pub fn attributes(&self) -> Result<Vec<Attribute>> {
        let mut all = Vec::new();
        let mut rest = self.bytes.get(self.first..).unwrap_or_default();
        loop {
            let at = self.at + (self.bytes.len() - rest.len()) as u64;
            let kind = rest.first_chunk().map_or(kind::END, |b| u32::from_le_bytes(*b));
            if kind == kind::END {
                return Ok(all);
            }
            let (raw, _) = RawAttribute::ref_from_prefix(rest)
                .map_err(|_| Error::corrupt("attribute", at, "a header", rest.len()))?;
            let size = usize::try_from(raw.size.get()).unwrap_or(usize::MAX);
            let (Some((bytes, after)), 16.., 0) = (rest.split_at_checked(size), size, size % 8) else {
                return Err(Error::corrupt("attribute length", at + 4, format!("up to {}", rest.len()), size));
            };
            all.push(attribute(raw, bytes, at, self.clusters)?);
            rest = after;
        }
    }
}

/// Parse one attribute: `bytes` from its header on, at volume byte `at`.
fn attribute(raw: &RawAttribute, bytes: &[u8], at: u64, clusters: u64) -> Result<Attribute> {
    let short = |what, found: usize| Error::corrupt(what, at, format!("within {} bytes", bytes.len()), found);
    let name_at = usize::from(raw.name_off.get());
    let name = match raw.name_len {
        0 => Box::default(),
        n => {
            let end = name_at + 2 * usize::from(n);
            utf16(bytes.get(name_at..end).ok_or_else(|| short("name of an attribute", end))?)
        }
    };
    let tail = bytes.get(size_of::<RawAttribute>()..).unwrap_or_default();
    let flags = raw.flags.get();
    let (value, first_vcn) = if raw.non_res == 0 {
        let (r, _) = RawResident::ref_from_prefix(tail).map_err(|_| short("resident attribute", bytes.len()))?;
        let start = usize::from(r.data_off.get());
        let end = start.saturating_add(usize::try_from(r.data_size.get()).unwrap_or(usize::MAX));
        let value = bytes.get(start..end).ok_or_else(|| short("value of an attribute", end))?;
        (Value::Resident(value.into()), 0)
    } else {
        let (n, _) = RawNonResident::ref_from_prefix(tail).map_err(|_| short("non-resident attribute", bytes.len()))?;
        let pairs_at = usize::from(n.run_off.get());
        let pairs = bytes.get(pairs_at..).ok_or_else(|| short("mapping pairs", pairs_at))?;
        let first_vcn = n.svcn.get();
        (Value::NonResident(non_resident(n, pairs, flags, at, clusters)?.into()), first_vcn)
    };
    Ok(Attribute { kind: raw.kind.get(), name, id: raw.id.get(), encrypted: flags & ENCRYPTED != 0, first_vcn, value })
}

fn non_resident(raw: &RawNonResident, pairs: &[u8], flags: u16, at: u64, clusters: u64) -> Result<NonResident> {
    let runs = run::decode(pairs, raw.svcn.get(), clusters, at)?;
    // What follows the first piece of a value has no sizes.
    let first = raw.svcn.get() == 0;
    let sized = |v: &U64| if first { v.get() } else { 0 };
    let (allocated, size, valid) = (sized(&raw.alloc_size), sized(&raw.data_size), sized(&raw.valid_size));
    if size > i64::MAX.unsigned_abs() {
        return Err(Error::corrupt("size of an attribute", at + 48, "less than 2^63", size));
    }
    let unit = match raw.c_unit {
        0 => 0,
        log @ 1..=8 if flags & COMPRESSED != 0 => 1 << log,
        _ if flags & COMPRESSED == 0 => 0,
        log => return Err(Error::corrupt("compression unit", at + 34, "at most 2^8 clusters", log)),
    };
    Ok(NonResident { runs, allocated, size, valid: valid.min(size), unit })
}

/// Bytes as UTF-16.
pub fn utf16(bytes: &[u8]) -> Box<[u16]> {
    bytes.chunks_exact(2).filter_map(|p| p.first_chunk().map(|b| u16::from_le_bytes(*b))).collect()
}
