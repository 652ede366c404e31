//! The metadata filter: which 4 KiB of the disk hold metadata.

use std::ops::Range;

use super::doc::Doc;
use crate::interest::GRAIN;

/// One bit per 4 KiB of the disk, bit n in byte n / 8 from the lowest up.
pub struct Filter(Vec<u8>);

impl Filter {
    /// For a disk of `size` bytes, nothing set.
    pub fn new(size: u64) -> Self {
        Self(vec![0; usize::try_from(size.div_ceil(GRAIN).div_ceil(8)).unwrap_or(0)])
    }

    /// `range` (disk bytes) holds metadata. Beyond the disk's end nothing is set.
    pub fn set(&mut self, range: Range<u64>) {
        let end = range.end.div_ceil(GRAIN).min(self.0.len() as u64 * 8);
        for bit in range.start / GRAIN..end {
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|i| self.0.get_mut(i)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    /// Its document.
    pub fn into_doc(self) -> Doc {
        let mut doc = Doc::new("metadata_filter");
        doc.binary("bitarray", &self.0);
        doc
    }
}
