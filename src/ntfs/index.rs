//! Indexes: the names of a directory, and the tables of $Secure. B-trees whose root lies in the
//! record and whose other nodes are index blocks.

use std::collections::HashSet;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::data;
use super::file::{self, File, FileName};
use super::fixup;
use super::record::{Attribute, FileRef, Value, kind};
use super::volume::Volume;
use crate::error::{Error, Result};

/// Start of `struct INDEX_ROOT` (Linux `fs/ntfs3/ntfs.h`), before its `INDEX_HDR`.
const ROOT_HEADER: usize = 16;
/// Start of `struct INDEX_BUFFER`, before its `INDEX_HDR`.
const BLOCK_HEADER: usize = 24;

/// `struct INDEX_HDR`. Offsets count from its own start.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    de_off: U32,
    used: U32,
    total: U32,
    flags: u8,
    reserved: [u8; 3],
}

/// `struct NTFS_DE`. In indexes other than of names, the first eight bytes tell where the data is.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    reference: U64,
    size: U16,
    key_size: U16,
    flags: U16,
    reserved: U16,
}

const HAS_SUBNODE: u16 = 1;
const LAST: u16 = 2;
/// More index blocks than these in one index are a trap.
const MAX_BLOCKS: u64 = 1 << 22;

/// The name of the index of a directory's names: `$I30`.
pub const NAMES: [u16; 4] = [0x24, 0x49, 0x33, 0x30];

/// An entry of an index.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// In an index of names: the file.
    pub reference: FileRef,
    /// The key.
    pub key: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Entry<'a> {
    /// In other indexes: the data that belongs to the key.
    pub fn data(&self) -> &'a [u8] {
        let field = |at: usize| self.whole.get(at..).and_then(<[u8]>::first_chunk).map(|b| u16::from_le_bytes(*b));
        let (start, len) = (field(0).unwrap_or(0).into(), usize::from(field(2).unwrap_or(0)));
        self.whole.get(start..start + len).unwrap_or_default()
    }
}

/// Names in a directory and the files that they stand for.
pub type Names = Vec<(FileRef, FileName)>;

/// The names in a directory, also those in DOS form, each with the file that it stands for.
///
/// Errors: it has no index. Damage within is told at the end: what could be read comes first.
pub fn names(volume: &Volume, dir: &File) -> Result<(Names, Result<()>)> {
    let root = dir.named(kind::INDEX_ROOT, &NAMES).ok_or(Error::NotADirectory)?;
    let mut all = Vec::new();
    let walked = walk(volume, root, dir.named(kind::INDEX_ALLOCATION, &NAMES), &mut |e| {
        all.extend(file::file_name(e.key).map(|n| (e.reference, n)));
    });
    Ok((all, walked))
}

/// Call `found` with every entry of an index, in no particular order.
pub fn walk(
    volume: &Volume,
    root: &Attribute,
    allocation: Option<&Attribute>,
    found: &mut dyn FnMut(Entry<'_>),
) -> Result<()> {
    let Value::Resident(bytes) = &root.value else {
        return Err(Error::corrupt("index root", 0, "a resident value", "clusters"));
    };
    let mut todo = Vec::new();
    node(bytes.get(ROOT_HEADER..).unwrap_or_default(), 0, &mut todo, found)?;
    let mut seen = HashSet::new();
    let mut result = Ok(());
    while let Some(vcn) = todo.pop() {
        if !seen.insert(vcn) || seen.len() as u64 > MAX_BLOCKS {
            result = Err(Error::corrupt("index", vcn, "a tree", "a block in two places"));
            continue;
        }
        let read = allocation
            .ok_or_else(|| Error::corrupt("index", vcn, "index blocks", "none"))
            .and_then(|a| block(volume, a, vcn))
            .and_then(|(bytes, at)| node(bytes.get(BLOCK_HEADER..).unwrap_or_default(), at, &mut todo, found));
        if read.is_err() {
            result = read;
        }
    }
    result
}

/// Read the index block at `vcn`; also where it lies on the volume.
fn block(volume: &Volume, allocation: &Attribute, vcn: u64) -> Result<(Vec<u8>, u64)> {
    let geometry = volume.geometry();
    let offset = vcn.saturating_mul(geometry.index_unit());
    let mut bytes = vec![0; data::to_usize(geometry.index_size.into())];
    let at = allocation.non_resident().and_then(|n| volume.place(n, offset)).unwrap_or_default();
    let len = data::read(volume, &allocation.value, offset, &mut bytes)?;
    if len != bytes.len() {
        return Err(Error::corrupt("index block", at, format!("{} bytes", bytes.len()), len));
    }
    fixup::apply(&mut bytes, b"INDX", "index block", at)?;
    Ok((bytes, at))
}

/// The entries of one node, which `bytes` hold from its `INDEX_HDR` on.
fn node(bytes: &[u8], at: u64, todo: &mut Vec<u64>, found: &mut dyn FnMut(Entry<'_>)) -> Result<()> {
    let wrong = |expected: &'static str, found: usize| Error::corrupt("index entries", at, expected, found);
    let (header, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| wrong("a header", bytes.len()))?;
    let (start, end) = (data::to_usize(header.de_off.get().into()), data::to_usize(header.used.get().into()));
    let mut rest = bytes.get(start..end).ok_or_else(|| wrong("entries within their node", end))?;
    while !rest.is_empty() {
        let (raw, _) = RawEntry::ref_from_prefix(rest).map_err(|_| wrong("an entry", rest.len()))?;
        let size = usize::from(raw.size.get());
        let (Some((whole, after)), 16..) = (rest.split_at_checked(size), size) else {
            return Err(wrong("an entry that fits", size));
        };
        let flags = raw.flags.get();
        if flags & HAS_SUBNODE != 0 {
            let vcn = whole.last_chunk().map(|b| u64::from_le_bytes(*b)).filter(|_| size >= 24);
            todo.push(vcn.ok_or_else(|| wrong("a place for the subnode", size))?);
        }
        if flags & LAST != 0 {
            return Ok(());
        }
        let key = whole.get(16..16 + usize::from(raw.key_size.get())).ok_or_else(|| wrong("a key that fits", size))?;
        found(Entry { reference: FileRef(raw.reference.get()), key, whole });
        rest = after;
    }
    Ok(())
}
