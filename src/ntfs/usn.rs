//! $UsnJrnl: what Windows notes of changes, when that is switched on.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Ntfs;
use super::data::{self, to_usize};
use super::file::timestamp;
use super::index;
use super::names::wtf8;
use super::record::{FileRef, kind, utf16};
use super::volume::fixed;
use crate::error::Result;
use crate::units::Timestamp;

/// `USN_RECORD_COMMON_HEADER` (Windows `winioctl.h`).
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    record_length: U32,
    major_version: U16,
    minor_version: U16,
}

/// The rest of `USN_RECORD_V2`; `V3` has references of 16 bytes before `usn`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawRecord {
    usn: U64,
    time_stamp: U64,
    reason: U32,
    source_info: U32,
    security_id: U32,
    file_attributes: U32,
    file_name_length: U16,
    file_name_offset: U16,
}

/// One note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Its number: its offset in the journal.
    pub usn: u64,
    /// When.
    pub time: Timestamp,
    /// The file.
    pub file: FileRef,
    /// Its directory.
    pub parent: FileRef,
    /// `USN_REASON_…` bits.
    pub reason: u32,
    /// File attributes.
    pub attributes: u32,
    /// Its name, WTF-8.
    pub name: Vec<u8>,
}

/// Records do not cross the borders of these.
const PAGE: usize = 4096;
const PIECE: usize = 256 << 10;

/// Names of `USN_REASON_…`.
const REASONS: [(u32, &str); 23] = [
    (0x1, "data-overwrite"),
    (0x2, "data-extend"),
    (0x4, "data-truncation"),
    (0x10, "named-data-overwrite"),
    (0x20, "named-data-extend"),
    (0x40, "named-data-truncation"),
    (0x100, "file-create"),
    (0x200, "file-delete"),
    (0x400, "ea-change"),
    (0x800, "security-change"),
    (0x1000, "rename-old-name"),
    (0x2000, "rename-new-name"),
    (0x4000, "indexable-change"),
    (0x8000, "basic-info-change"),
    (0x1_0000, "hard-link-change"),
    (0x2_0000, "compression-change"),
    (0x4_0000, "encryption-change"),
    (0x8_0000, "object-id-change"),
    (0x10_0000, "reparse-point-change"),
    (0x20_0000, "stream-change"),
    (0x40_0000, "transacted-change"),
    (0x80_0000, "integrity-change"),
    (0x8000_0000, "close"),
];

/// The names of the bits of a reason.
pub fn reasons(bits: u32) -> Vec<&'static str> {
    REASONS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

/// Call `found` with every note, the oldest first. Returns whether there is a journal, and how many
/// pages held something that is no note.
pub fn read<E>(fs: &Ntfs, mut found: impl FnMut(Note) -> Result<(), E>) -> Result<Result<Option<u64>, E>> {
    let volume = fs.volume();
    let Some(extend) = volume.file(fixed::EXTEND)? else { return Ok(Ok(None)) };
    let (names, _) = index::names(volume, &extend)?;
    let journal = names.into_iter().find(|(_, n)| n.name == b"$UsnJrnl").map(|(id, _)| id.record());
    let Some(file) = journal.map(|n| volume.file(n)).transpose()?.flatten() else { return Ok(Ok(None)) };
    let Some(stream) = file.named(kind::DATA, &[0x24, 0x4A]) else { return Ok(Ok(None)) };
    let (mut odd, mut buf) = (0, vec![0; PIECE]);
    for range in stored(stream, volume.cluster_size()) {
        let mut at = range.start;
        while at < range.end {
            let want = to_usize(range.end - at).min(PIECE);
            let len = data::read(volume, &stream.value, at, buf.get_mut(..want).unwrap_or_default())?;
            if len == 0 {
                break;
            }
            for page in buf.get(..len).unwrap_or_default().chunks(PAGE) {
                let (notes, whole) = parse(page);
                odd += u64::from(!whole);
                for note in notes {
                    if let Err(e) = found(note) {
                        return Ok(Err(e));
                    }
                }
            }
            at += len as u64;
        }
    }
    Ok(Ok(Some(odd)))
}

/// The bytes of a stream that are not sparse, from whole pages on.
fn stored(stream: &super::record::Attribute, cluster: u64) -> Vec<std::ops::Range<u64>> {
    let Some(n) = stream.non_resident() else { return std::iter::once(0..stream.size()).collect() };
    let mut all: Vec<std::ops::Range<u64>> = Vec::new();
    for r in n.runs.iter().filter(|r| r.lcn.is_some()) {
        let (start, end) = (r.vcn.saturating_mul(cluster), r.end().saturating_mul(cluster).min(n.size));
        match all.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => all.push(start..end),
        }
    }
    all.retain(|r| !r.is_empty());
    all
}

/// The notes of one page, and whether nothing else stood there.
fn parse(page: &[u8]) -> (Vec<Note>, bool) {
    let (mut notes, mut rest) = (Vec::new(), page);
    while let Ok((header, _)) = RawHeader::ref_from_prefix(rest) {
        let length = to_usize(header.record_length.get().into());
        if length == 0 {
            return (notes, rest.iter().all(|b| *b == 0));
        }
        let Some((bytes, after)) = rest.split_at_checked(length).filter(|_| length.is_multiple_of(8)) else {
            return (notes, false);
        };
        match header.major_version.get() {
            2 => notes.extend(note(bytes, 8)),
            3 => notes.extend(note(bytes, 16)),
            // Version 4 tells ranges of what another note tells.
            4 => {}
            _ => return (notes, false),
        }
        rest = after;
    }
    (notes, true)
}

/// One record whose references have `width` bytes.
fn note(bytes: &[u8], width: usize) -> Option<Note> {
    let reference = |at: usize| bytes.get(at..)?.first_chunk().map(|b| FileRef(u64::from_le_bytes(*b)));
    let (raw, _) = RawRecord::ref_from_prefix(bytes.get(8 + 2 * width..)?).ok()?;
    let name_at = usize::from(raw.file_name_offset.get());
    let name = bytes.get(name_at..name_at + usize::from(raw.file_name_length.get()))?;
    Some(Note {
        usn: raw.usn.get(),
        time: timestamp(raw.time_stamp.get()),
        file: reference(8)?,
        parent: reference(8 + width)?,
        reason: raw.reason.get(),
        attributes: raw.file_attributes.get(),
        name: wtf8(&utf16(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_what_is_none() {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&[72, 0, 0, 0, 2, 0, 0, 0]);
        page[8..16].copy_from_slice(&(7_u64 << 48 | 40).to_le_bytes());
        page[16..24].copy_from_slice(&(5_u64 << 48 | 5).to_le_bytes());
        page[24] = 9;
        page[40..44].copy_from_slice(&0x8000_0100_u32.to_le_bytes());
        page[56..60].copy_from_slice(&[6, 0, 60, 0]);
        page[60..66].copy_from_slice(b"a\0.\0b\0");
        let (notes, whole) = parse(&page);
        assert!(whole && notes.len() == 1);
        assert_eq!((notes[0].usn, notes[0].file.record(), notes[0].parent.record()), (9, 40, 5));
        assert_eq!((notes[0].name.as_slice(), reasons(notes[0].reason)), (&b"a.b"[..], vec!["file-create", "close"]));
        page[72] = 1;
        assert!(!parse(&page).1, "a length that is no multiple of 8");
        page[72..80].copy_from_slice(&[0xFF; 8]);
        assert!(!parse(&page).1);
        page[56] = 200;
        assert!(parse(&page).0.is_empty(), "the name does not fit");
    }
}
