//! What inference reads of a disk when it starts, kept in the index: superblocks, inode tables in
//! use, directories, maps, the journal's superblock. With it inference starts from the moment of
//! the crawl, whatever has become of the disk since, and needs no disk at all.
//!
//! It is the field `blocks` of the last document: pieces one behind the other, each a byte offset
//! on the disk (u64), a length in bytes (u32), a length in this field (u32), all little-endian, and
//! the bytes, compressed (LZ4 block format).

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::image::{Disk, ReadAt};
use crate::ranges::RangeSet;

/// The most bytes in one piece.
const PIECE: u64 = 1 << 20;
const HEADER: usize = 16;

/// A disk that remembers what was read of it.
pub struct Watched {
    disk: Disk,
    seen: Mutex<RangeSet>,
}

impl Watched {
    /// Nothing read yet.
    pub fn new(disk: Disk) -> Arc<Self> {
        Arc::new(Self { disk, seen: Mutex::default() })
    }

    /// What was read so far.
    pub fn seen(&self) -> RangeSet {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ReadAt for Watched {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)?;
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(range);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }
}

/// The field for what stands in `ranges` of `disk` now.
///
/// # Errors
/// The disk cannot be read, or the field would be too large for a document.
pub fn pack(disk: &Disk, ranges: &RangeSet) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    let mut buf = Vec::new();
    for range in ranges.iter() {
        let mut at = range.start;
        while at < range.end {
            let len = PIECE.min(range.end - at);
            buf.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            disk.read_at(at, &mut buf)?;
            let bytes = lz4_flex::block::compress(&buf);
            let count = |n: usize| u32::try_from(n).map_err(io::Error::other);
            packed.extend_from_slice(&at.to_le_bytes());
            packed.extend_from_slice(&count(buf.len())?.to_le_bytes());
            packed.extend_from_slice(&count(bytes.len())?.to_le_bytes());
            packed.extend_from_slice(&bytes);
            at += len;
        }
    }
    match i32::try_from(packed.len()) {
        Ok(_) => Ok(packed),
        Err(_) => Err(io::Error::new(io::ErrorKind::FileTooLarge, "the metadata is too large for an index")),
    }
}

/// The packed bytes, by their place on the disk.
#[derive(Default, Debug)]
pub struct Snapshot {
    packed: Vec<u8>,
    /// Disk range and range in `packed`, rising and disjoint.
    pieces: Vec<(Range<u64>, Range<usize>)>,
    /// The piece that was unpacked last.
    last: Mutex<Option<(u64, Arc<[u8]>)>>,
}

impl Snapshot {
    /// From the field.
    ///
    /// # Errors
    /// It is damaged; what is wrong with it.
    pub fn new(packed: Vec<u8>) -> Result<Self, String> {
        let mut pieces: Vec<(Range<u64>, Range<usize>)> = Vec::new();
        let mut at = 0_usize;
        while at < packed.len() {
            let (range, bytes) = piece(&packed, at).ok_or_else(|| format!("no piece at byte {at} of `blocks`"))?;
            if pieces.last().is_some_and(|(before, _)| before.end > range.start) {
                return Err(format!("pieces out of order at byte {at} of `blocks`"));
            }
            at = bytes.end;
            pieces.push((range, bytes));
        }
        Ok(Self { packed, pieces, last: Mutex::default() })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The piece that covers `at` or comes next, as its range on the disk.
    pub fn next(&self, at: u64) -> Option<Range<u64>> {
        let i = self.pieces.partition_point(|(r, _)| r.end <= at);
        self.pieces.get(i).map(|(r, _)| r.clone())
    }

    /// Fill `buf` from disk byte `at` on, all of which lies in one piece.
    ///
    /// # Errors
    /// It does not, or the piece is damaged.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let i = self.pieces.partition_point(|(r, _)| r.end <= at);
        let (range, place) = self.pieces.get(i).filter(|(r, _)| r.start <= at).ok_or(io::ErrorKind::NotFound)?;
        let bytes = self.unpacked(range, place)?;
        let from = usize::try_from(at - range.start).map_err(io::Error::other)?;
        let part = bytes.get(from..from.saturating_add(buf.len())).ok_or(io::ErrorKind::NotFound)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn unpacked(&self, range: &Range<u64>, place: &Range<usize>) -> io::Result<Arc<[u8]>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((start, bytes)) = last.as_ref().filter(|(start, _)| *start == range.start) {
            debug_assert_eq!(*start, range.start);
            return Ok(Arc::clone(bytes));
        }
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let bytes = lz4_flex::block::decompress(self.packed.get(place.clone()).unwrap_or_default(), len);
        let bytes = bytes.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        if bytes.len() != len {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece of the index has another length"));
        }
        let bytes: Arc<[u8]> = bytes.into();
        *last = Some((range.start, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

/// The piece whose header stands at byte `at`: its range on the disk, and that of its bytes.
fn piece(packed: &[u8], at: usize) -> Option<(Range<u64>, Range<usize>)> {
    let header = packed.get(at..)?.first_chunk::<HEADER>()?;
    let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, p0, p1, p2, p3] = *header;
    let start = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
    let len = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
    let bytes = usize::try_from(u32::from_le_bytes([p0, p1, p2, p3])).ok()?;
    let from = at + HEADER;
    let place = from..from.checked_add(bytes)?;
    let fits = (1..=PIECE).contains(&len) && place.end <= packed.len();
    fits.then_some((start..start.checked_add(len)?, place))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_read_comes_back() {
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|i| u8::try_from(i / 777 % 256).unwrap()).collect();
        let disk: Disk = Arc::new(bytes.clone());
        let watched = Watched::new(disk.clone());
        for (at, len) in [(0, 512), (1000, 2_500_000), (3_000_000, 1)] {
            watched.read_at(at, &mut vec![0; len]).unwrap();
        }
        assert!(watched.read_at(3 << 20, &mut [0]).is_err());
        let snapshot = Snapshot::new(pack(&disk, &watched.seen()).unwrap()).unwrap();
        assert_eq!((snapshot.next(0), snapshot.next(600)), (Some(0..512), Some(1000..1000 + (1 << 20))));
        assert_eq!((snapshot.next(2_501_000), snapshot.next(3_000_001)), (Some(3_000_000..3_000_001), None));
        let mut buf = [0; 100];
        snapshot.read(2_000_000, &mut buf).unwrap();
        assert_eq!(buf, bytes[2_000_000..2_000_100]);
        assert!(snapshot.read(500, &mut buf).is_err() && snapshot.read(600, &mut buf).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0_u32..2000) {
            let field = [&7_u64.to_le_bytes()[..], &len.to_le_bytes(), &u32::try_from(bytes.len()).unwrap().to_le_bytes(), &bytes].concat();
            if let Ok(s) = Snapshot::new(field) {
                let _ = s.read(7, &mut [0; 3]);
            }
            let _ = Snapshot::new(bytes);
        }
    }
}
