//! Records of the QEMU trace: what may stand where a record starts. Shared by whoever reads traces.
//!
//! A record is a header `{ sector_num: i64, nb_sectors: i32 }`, little-endian, and the bytes that
//! were written; there is no framing, magic or checksum. Two extensions are those of the patch in
//! `patches/`: a header without sectors and with a negative sector says that so many writes are
//! missing at this place.
//!
//! QEMU's own messages may stand between records. They are whole lines of text, and no plausible
//! header is text: sector numbers that are have their top bytes set. So behind lines of text there
//! is normally one place only where a record can start, and that is proof enough to go on there.

use std::ops::Range;

use super::stream::StreamError;

/// Bytes of a header.
pub const HEADER: usize = 12;
/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// The most that QEMU writes at once (`BDRV_REQUEST_MAX_SECTORS`).
const MAX_SECTORS: i32 = i32::MAX / 512;
/// A disk is taken to be no larger than this many bytes if nobody knows its size: 1 PiB.
pub const LARGEST_DISK: u64 = 1 << 50;
/// A message that is longer than this is not looked through.
pub const MAX_TEXT: usize = 64 << 10;
/// How much of a message is told.
const TOLD: usize = 200;

/// What stands at the start of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// These bytes of the disk were written; it may be none.
    Write(Range<u64>),
    /// So many writes are missing.
    Lost(u64),
}

/// Read the header at stream byte `at`, for a disk of `size` bytes.
///
/// # Errors
/// It is no plausible header.
pub fn start(header: &[u8; HEADER], at: u64, size: u64) -> Result<Start, StreamError> {
    let (sector, sectors) = fields(header);
    if sectors == 0 && sector < 0 {
        return Ok(Start::Lost(sector.unsigned_abs()));
    }
    match range(sector, sectors) {
        Some(range) if range.end <= size => Ok(Start::Write(range)),
        _ if header.iter().all(|b| is_text(*b)) => Err(StreamError::Text { at, text: told(header) }),
        Some(range) if range.start < size => Err(StreamError::PastEnd { at, end: range.end, size }),
        _ => Err(StreamError::Implausible { at, why: format!("sector {sector}, {sectors} sectors") }),
    }
}

fn fields(header: &[u8; HEADER]) -> (i64, i32) {
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = *header;
    (i64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), i32::from_le_bytes([n0, n1, n2, n3]))
}

fn range(sector: i64, sectors: i32) -> Option<Range<u64>> {
    let start = u64::try_from(sector).ok()?.checked_mul(SECTOR)?;
    let len = u64::try_from(sectors).ok().filter(|_| sectors <= MAX_SECTORS)?.checked_mul(SECTOR)?;
    Some(start..start.checked_add(len)?)
}

fn is_text(b: u8) -> bool {
    b.is_ascii_graphic() || matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// The beginning of a message, for people.
pub fn told(bytes: &[u8]) -> String {
    let text: String = bytes.iter().take(TOLD).take_while(|b| is_text(**b)).map(|b| char::from(*b)).collect();
    text.trim_end().replace(['\r', '\n', '\t'], " ")
}

/// Where a record starts behind text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// So many bytes later: there is no other place.
    At(usize),
    /// More bytes are needed to tell.
    More,
    /// Nowhere, or at several places: nothing proves which.
    Unclear,
}

/// Look for the record behind the text at the start of `bytes`; `size` is the disk's.
pub fn behind_text(bytes: &[u8], size: u64) -> Behind {
    let text = bytes.iter().position(|b| !is_text(*b)).unwrap_or(bytes.len());
    if text > MAX_TEXT {
        return Behind::Unclear;
    }
    // A header has a byte that is no text among its first eight, so none starts earlier.
    if bytes.len() < text + HEADER {
        return Behind::More;
    }
    let lines = bytes.iter().take(text).enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    let mut places = lines.filter(|at| text - at < 8 && is_header(bytes.get(*at..).unwrap_or_default(), size));
    match (places.next(), places.next()) {
        (Some(at), None) => Behind::At(at),
        _ => Behind::Unclear,
    }
}

fn is_header(bytes: &[u8], size: u64) -> bool {
    let header = bytes.first_chunk::<HEADER>();
    header.is_some_and(|h| matches!(start(h, 0, size), Ok(Start::Write(r)) if !r.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sector: i64, sectors: i32) -> Vec<u8> {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes()].concat()
    }

    #[test]
    fn behind_whole_lines_a_record_is_found() {
        for (sector, sectors) in [(0, 1), (10, 8), (0x0a0a, 8), (0x2020_0a0a, 8), (0x7e7e_7e7e, 2047), (7, 0x0a)] {
            for text in ["\n", "qemu: warning: x\n", "one\r\n\ntwo\n"] {
                let bytes = [text.as_bytes(), &header(sector, sectors), &[b'x'; 30]].concat();
                assert_eq!(behind_text(&bytes, 1 << 40), Behind::At(text.len()), "{sector} {sectors} {text:?}");
                for cut in 0..text.len() + HEADER {
                    assert_eq!(behind_text(&bytes[..cut], 1 << 40), Behind::More, "{cut}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_proven_is_not_believed() {
        let unclear = |text: &[u8], rest: Vec<u8>| {
            assert_eq!(behind_text(&[text, &rest, &[0; 30]].concat(), 1 << 40), Behind::Unclear, "{text:?}");
        };
        unclear(b"half a line", header(1, 8));
        unclear(b"line\n", header(-1, 8));
        unclear(b"line\n", header(1, -8));
        // An empty line at the end: its newline could be sector 10's, of 256 sectors.
        unclear(b"line\n\n", header(0, 1));
        // Both at the newline's successor and one byte later: 256 sectors at sector 10.
        unclear(b"line\n", header(10, 256));
        unclear(&[b'x'; MAX_TEXT + 1], header(1, 8));
    }

    #[test]
    fn headers_are_told_from_text_and_nonsense() {
        let of = |bytes: &[u8]| start(bytes.first_chunk().unwrap(), 5, 1 << 20);
        assert_eq!(of(&header(3, 2)).unwrap(), Start::Write(1536..2560));
        assert_eq!(of(&header(-3, 0)).unwrap(), Start::Lost(3));
        assert!(matches!(of(b"qemu: hello!"), Err(StreamError::Text { at: 5, .. })));
        assert!(matches!(of(&header(2047, 2)), Err(StreamError::PastEnd { at: 5, end: 1_049_088, .. })));
        assert!(matches!(of(&header(1 << 60, 2)), Err(StreamError::Implausible { .. })));
        assert!(matches!(of(&header(1, i32::MAX)), Err(StreamError::Implausible { .. })));
    }
}
