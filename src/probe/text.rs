//! Labels and identifiers as text, the way `blkid` writes them.

use crate::name::hex;

/// A label in a fixed field: up to the first NUL, without trailing blanks; `None` if nothing is left.
pub fn latin(field: &[u8]) -> Option<String> {
    let text = field.split(|b| *b == 0).next()?;
    let text = String::from_utf8_lossy(text.trim_ascii_end()).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The usual 8-4-4-4-12 form of 16 bytes; `None` for all zeros.
pub fn uuid(bytes: &[u8]) -> Option<String> {
    bytes.iter().any(|b| *b != 0).then(|| grouped(&hex(bytes), &[8, 4, 4, 4, 12]))
}

/// LVM's form of its 32 letters.
pub fn lvm_uuid(letters: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(letters).ok()?;
    text.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| grouped(text, &[6, 4, 4, 4, 4, 4, 6]))
}

/// FAT's form of a 32-bit serial number: `1234-ABCD`.
pub fn dashed_serial(serial: u32) -> Option<String> {
    (serial != 0).then(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xFFFF))
}

fn grouped(text: &str, lengths: &[usize]) -> String {
    let mut letters = text.chars();
    let groups = lengths.iter().map(|n| letters.by_ref().take(*n).collect::<String>());
    groups.collect::<Vec<_>>().join("-")
}
