//! Security descriptors: from $Secure to text in Windows' own notation (SDDL).

use std::collections::HashMap;
use std::fmt::Write as _;

use super::data;
use super::file::File;
use super::index;
use super::record::kind;
use super::volume::{Volume, fixed};
use crate::error::{Error, Result};

/// A descriptor has at most this many bytes; Windows allows 64 KiB for each list.
const MAX_LENGTH: u64 = 256 << 10;
/// More descriptors than these are a trap.
const MAX_DESCRIPTORS: usize = 1 << 20;
/// `struct SECURITY_HDR` (Linux `fs/ntfs3/ntfs.h`), before each descriptor in `$SDS`.
const SDS_HEADER: u64 = 20;

/// Where in `$SDS` the descriptors lie: by id, offset and length with the header.
#[derive(Debug, Default)]
pub struct Secure {
    places: HashMap<u32, (u64, u64)>,
    file: Option<File>,
}

impl Secure {
    /// Read the index of ids.
    pub fn load(volume: &Volume) -> Result<Self> {
        let Some(file) = volume.file(fixed::SECURE)? else { return Ok(Self::default()) };
        let name: Vec<u16> = "$SII".encode_utf16().collect();
        let mut places = HashMap::new();
        if let Some(root) = file.named(kind::INDEX_ROOT, &name) {
            index::walk(volume, root, file.named(kind::INDEX_ALLOCATION, &name), &mut |e| {
                if let Some((id, place)) = sii_entry(e.data()).filter(|_| places.len() < MAX_DESCRIPTORS) {
                    places.insert(id, place);
                }
            })?;
        }
        Ok(Self { places, file: Some(file) })
    }

    /// The descriptor with this id.
    pub fn descriptor(&self, volume: &Volume, id: u32) -> Result<Option<Vec<u8>>> {
        let (Some(&(offset, size)), Some(file)) = (self.places.get(&id), &self.file) else { return Ok(None) };
        let name: Vec<u16> = "$SDS".encode_utf16().collect();
        let Some(sds) = file.named(kind::DATA, &name) else { return Ok(None) };
        let length = size.checked_sub(SDS_HEADER).filter(|l| *l <= MAX_LENGTH);
        let length = length.ok_or_else(|| Error::corrupt("$SDS", offset, format!("up to {MAX_LENGTH} bytes"), size))?;
        let mut bytes = vec![0; data::to_usize(length)];
        let n = data::read(volume, &sds.value, offset.saturating_add(SDS_HEADER), &mut bytes)?;
        bytes.truncate(n);
        Ok(Some(bytes))
    }
}

/// `struct SECURITY_HDR`: hash, id, offset, size.
fn sii_entry(bytes: &[u8]) -> Option<(u32, (u64, u64))> {
    let offset = bytes.get(8..)?.first_chunk().map(|b| u64::from_le_bytes(*b))?;
    Some((u32_at(bytes, 4)?, (offset, u32_at(bytes, 16)?.into())))
}

/// Owner, group and lists of a self-relative descriptor (\[MS-DTYP\] 2.4.6) in SDDL (2.5.1); what
/// cannot be understood is left out.
pub fn sddl(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (letter, at) in [('O', 4), ('G', 8)] {
        if let Some(sid) = part(bytes, at).and_then(sid) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{letter}:{}", alias(&sid));
        }
    }
    let control = u16_at(bytes, 2).unwrap_or(0);
    for (letter, at, present, flags) in [
        ('D', 16, 0x0004, [(0x1000, "P"), (0x0100, "AR"), (0x0400, "AI")]),
        ('S', 12, 0x0010, [(0x2000, "P"), (0x0200, "AR"), (0x0800, "AI")]),
    ] {
        if control & present != 0 {
            let flags: String = flags.iter().filter(|(bit, _)| control & bit != 0).map(|(_, t)| *t).collect();
            let list = match part(bytes, at) {
                Some(acl) => entries(acl),
                None => "NO_ACCESS_CONTROL".into(),
            };
            let _ = write!(text, "{letter}:{flags}{list}");
        }
    }
    text
}

/// The owner of a descriptor, as `S-1-…`.
pub fn owner(bytes: &[u8]) -> Option<String> {
    part(bytes, 4).and_then(sid)
}

/// The part of a descriptor whose offset stands at `at`.
fn part(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let offset = data::to_usize(u32_at(bytes, at)?.into());
    bytes.get(offset..).filter(|_| offset != 0)
}

fn sid(bytes: &[u8]) -> Option<String> {
    let (&revision, &count) = (bytes.first()?, bytes.get(1)?);
    let authority = bytes.get(2..8)?.iter().fold(0_u64, |v, b| v << 8 | u64::from(*b));
    let mut text = format!("S-{revision}-{authority}");
    for n in 0..usize::from(count.min(15)) {
        let _ = write!(text, "-{}", u32_at(bytes, 8 + 4 * n)?);
    }
    Some(text)
}

/// Well-known names (\[MS-DTYP\] 2.5.1.1: `sid-token`).
fn alias(sid: &str) -> &str {
    const KNOWN: [(&str, &str); 14] = [
        ("S-1-1-0", "WD"),
        ("S-1-3-0", "CO"),
        ("S-1-3-1", "CG"),
        ("S-1-5-2", "NU"),
        ("S-1-5-4", "IU"),
        ("S-1-5-6", "SU"),
        ("S-1-5-7", "AN"),
        ("S-1-5-11", "AU"),
        ("S-1-5-18", "SY"),
        ("S-1-5-19", "LS"),
        ("S-1-5-20", "NS"),
        ("S-1-5-32-544", "BA"),
        ("S-1-5-32-545", "BU"),
        ("S-1-5-32-546", "BG"),
    ];
    KNOWN.iter().find(|(s, _)| *s == sid).map_or(sid, |(_, a)| a)
}

fn entries(acl: &[u8]) -> String {
    let count = u16_at(acl, 4).unwrap_or(0);
    let mut rest = acl.get(8..usize::from(u16_at(acl, 2).unwrap_or(0))).unwrap_or_default();
    let mut text = String::new();
    for _ in 0..count {
        let size = usize::from(u16_at(rest, 2).unwrap_or(0));
        let (Some((entry, after)), 8..) = (rest.split_at_checked(size), size) else { break };
        let _ = write!(text, "({})", ace(entry));
        rest = after;
    }
    text
}

fn ace(entry: &[u8]) -> String {
    let kind = entry.first().copied().unwrap_or(0);
    let flags = entry.get(1).copied().unwrap_or(0);
    let mask = u32_at(entry, 4).unwrap_or(0);
    // Object entries have a word of flags and up to two GUIDs before the SID.
    let object = matches!(kind, 5..=8);
    let present = if object { u32_at(entry, 8).unwrap_or(0) } else { 0 };
    let sid_at = if object {
        12 + 16 * usize::try_from(present & 1).unwrap_or(0) + 8 * usize::try_from(present & 2).unwrap_or(0)
    } else {
        8
    };
    let who = entry.get(sid_at..).and_then(sid).unwrap_or_default();
    let kind = match kind {
        0 => "A".into(),
        1 => "D".into(),
        2 => "AU".into(),
        5 => "OA".into(),
        6 => "OD".into(),
        7 => "OU".into(),
        9 => "XA".into(),
        10 => "XD".into(),
        0x11 => "ML".into(),
        other => format!("{other:#x}"),
    };
    format!("{kind};{};{};;;{}", ace_flags(flags), rights(mask), alias(&who))
}

fn ace_flags(flags: u8) -> String {
    let known = [(1, "OI"), (2, "CI"), (4, "NP"), (8, "IO"), (0x10, "ID"), (0x40, "SA"), (0x80, "FA")];
    known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, t)| *t).collect()
}

fn rights(mask: u32) -> String {
    match mask {
        0x001F_01FF => "FA".into(),
        0x0012_0089 => "FR".into(),
        0x0012_0116 => "FW".into(),
        0x0012_00A0 => "FX".into(),
        0x1000_0000 => "GA".into(),
        0x2000_0000 => "GX".into(),
        0x4000_0000 => "GW".into(),
        0x8000_0000 => "GR".into(),
        other => format!("{other:#x}"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sid_bytes(parts: &[u32]) -> Vec<u8> {
        let mut b = vec![1, u8::try_from(parts.len()).unwrap(), 0, 0, 0, 0, 0, 5];
        parts.iter().for_each(|p| b.extend(p.to_le_bytes()));
        b
    }

    #[test]
    fn descriptors_become_text() {
        let (owner_sid, group) = (sid_bytes(&[32, 544]), sid_bytes(&[21, 1, 2, 3, 1000]));
        let mut b = vec![1, 0, 4, 0x80];
        let dacl_at = 20 + owner_sid.len() + group.len();
        for at in [20, 20 + owner_sid.len(), 0, dacl_at] {
            b.extend(u32::try_from(at).unwrap().to_le_bytes());
        }
        b.extend([owner_sid, group].concat());
        b.extend([2, 0, 28, 0, 1, 0, 0, 0, 0, 3, 20, 0, 0xFF, 1, 0x1F, 0]);
        b.extend(sid_bytes(&[18]));
        assert_eq!(sddl(&b), "O:BAG:S-1-5-21-1-2-3-1000D:(A;OICI;FA;;;SY)");
        assert_eq!(owner(&b).unwrap(), "S-1-5-32-544");
        for end in 0..b.len() {
            sddl(&b[..end]);
        }
    }
}
