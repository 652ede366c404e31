//! $ATTRIBUTE_LIST: which record holds which attribute, when one record is too small for a file.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::record::{Attribute, FileRef, utf16};
use super::volume::Volume;
use crate::error::{Error, Result};

/// `struct ATTR_LIST_ENTRY` (Linux `fs/ntfs3/ntfs.h`).
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    kind: U32,
    size: U16,
    name_len: u8,
    name_off: u8,
    vcn: U64,
    holder: U64,
    id: U16,
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Kind of the attribute.
    pub kind: u32,
    /// Its name.
    pub name: Box<[u16]>,
    /// First cluster of the piece.
    pub first_vcn: u64,
    /// The record that holds it.
    pub holder: FileRef,
    /// Its number within that record.
    pub id: u16,
}

/// Windows allows lists of 256 KiB.
const MAX_LENGTH: u64 = 256 << 10;

/// The entries of an attribute list.
pub fn read(volume: &Volume, list: &Attribute) -> Result<Vec<Entry>> {
    parse(&volume.value(list, MAX_LENGTH)?)
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while rest.len() >= size_of::<RawEntry>() {
        let at = (bytes.len() - rest.len()) as u64;
        let (raw, _) = RawEntry::ref_from_prefix(rest)
            .map_err(|_| Error::corrupt("attribute list", at, "an entry", rest.len()))?;
        let size = usize::from(raw.size.get());
        let (Some((entry, after)), 26..) = (rest.split_at_checked(size), size) else {
            return Err(Error::corrupt("attribute list", at, "an entry that fits", size));
        };
        let name_at = usize::from(raw.name_off);
        let name_end = name_at + 2 * usize::from(raw.name_len);
        let name = match raw.name_len {
            0 => &[][..],
            _ => entry
                .get(name_at..name_end)
                .ok_or_else(|| Error::corrupt("attribute list", at, format!("a name in {size} bytes"), name_end))?,
        };
        all.push(Entry {
            kind: raw.kind.get(),
            name: utf16(name),
            first_vcn: raw.vcn.get(),
            holder: FileRef(raw.holder.get()),
            id: raw.id.get(),
        });
        rest = after;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_bounded() {
        let mut e = vec![0; 32];
        e[0] = 0x80;
        e[4] = 32;
        e[16] = 7;
        assert_eq!(parse(&e).unwrap().len(), 1);
        e[4] = 0;
        assert!(parse(&e).is_err(), "no length");
        e[4] = 40;
        assert!(parse(&e).is_err(), "past the end");
        e[4] = 32;
        (e[6], e[7]) = (4, 26);
        assert!(parse(&e).is_err(), "long name");
    }
}
