//! The bytes of one file in the model: sparse, since guests make sparse files.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::text::hex;

const PAGE: u64 = 4096;

/// A file's bytes. Whatever was not set reads as zeros.
#[derive(Clone, Default)]
pub struct Content {
    size: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Content {
    pub fn zeros(size: u64) -> Self {
        Self { size, pages: BTreeMap::new() }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Set bytes; a file grows when they lie past its end.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        for part in split_at_pages(offset, data) {
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
            let start = (at % PAGE) as usize;
            page[start..start + part.len()].copy_from_slice(part);
            at += part.len() as u64;
        }
        self.size = self.size.max(at);
    }

    /// Zero a range; grows like a write.
    pub fn zero(&mut self, offset: u64, length: u64) {
        let end = offset + length;
        let touched: Vec<u64> = self.pages.range(offset / PAGE..end.div_ceil(PAGE)).map(|(no, _)| *no).collect();
        for no in touched {
            let from = offset.max(no * PAGE) - no * PAGE;
            let to = end.min((no + 1) * PAGE) - no * PAGE;
            if (from, to) == (0, PAGE) {
                self.pages.remove(&no);
            } else if let Some(page) = self.pages.get_mut(&no) {
                page[from as usize..to as usize].fill(0);
            }
        }
        self.size = self.size.max(end);
    }

    /// Cut off, or add zeros.
    pub fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size - size);
        }
        self.size = size;
    }

    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut at = 0;
        for (no, page) in &self.pages {
            let start = (no * PAGE).min(self.size);
            let end = (start + PAGE).min(self.size);
            hash_zeros(&mut hash, start - at);
            hash.update(&page[..(end - start) as usize]);
            at = end;
        }
        hash_zeros(&mut hash, self.size - at);
        hex(&hash.finalize())
    }
}

/// Hash so many zeros.
pub fn hash_zeros(hash: &mut Sha256, mut len: u64) {
    let zeros = [0u8; 64 << 10];
    while len > 0 {
        let n = len.min(zeros.len() as u64);
        hash.update(&zeros[..n as usize]);
        len -= n;
    }
}

fn split_at_pages(offset: u64, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let mut at = offset;
    std::iter::from_fn(move || {
        let n = ((PAGE - at % PAGE) as usize).min(rest.len());
        let (part, tail) = rest.split_at(n);
        (rest, at) = (tail, at + n as u64);
        (!part.is_empty()).then_some(part)
    })
}
