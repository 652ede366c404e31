//! Access to the blocks of a volume, with the newer versions that an unreplayed journal holds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::image::{Disk, ReadAt};
use crate::units::BlockNo;

/// Reads whole blocks of a file system.
pub trait Blocks {
    /// Bytes per block.
    fn block_size(&self) -> u32;
    /// Blocks of the file system.
    fn count(&self) -> u64;
    /// Fill `buf`, of block size, with `block`.
    fn read_into(&self, block: BlockNo, buf: &mut [u8]) -> Result<()>;

    /// The bytes of `block`.
    fn read(&self, block: BlockNo) -> Result<Arc<[u8]>> {
        let mut buf = vec![0; self.block_size() as usize];
        self.read_into(block, &mut buf)?;
        Ok(buf.into())
    }

    /// Fill `buf` from byte `within` of `block` on; the range may run over following blocks.
    fn read_bytes(&self, block: BlockNo, within: u64, buf: &mut [u8]) -> Result<()>;

    /// Volume byte at which `block` starts.
    fn at(&self, block: BlockNo) -> u64 {
        block.0.saturating_mul(u64::from(self.block_size()))
    }
}

/// A committed block that has not reached its home: where its journal copy lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalCopy {
    /// Block of the volume (in the journal's file).
    pub block: BlockNo,
    /// The copy's first four bytes were zeroed because they looked like a journal header.
    pub escaped: bool,
}

/// The blocks as a mount would see them: journal copies first, then the image.
pub struct Volume {
    disk: Disk,
    block_size: u32,
    count: AtomicU64,
    overlay: RwLock<HashMap<BlockNo, JournalCopy>>,
}

impl Volume {
    /// `count` blocks of `block_size` bytes on `disk`.
    pub fn new(disk: Disk, block_size: u32, count: u64) -> Self {
        Self { disk, block_size, count: AtomicU64::new(count), overlay: RwLock::default() }
    }

    /// Show `copy` in the place of `home` from now on.
    pub fn cover(&self, home: BlockNo, copy: JournalCopy) {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner).insert(home, copy);
    }

    /// Show the image's own `home` again.
    pub fn uncover(&self, home: BlockNo) {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner).remove(&home);
    }

    /// Show the image as it is.
    pub fn uncover_all(&self) {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The journal copy that covers `home`.
    pub fn covering(&self, home: BlockNo) -> Option<JournalCopy> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner).get(&home).copied()
    }

    /// The blocks that are covered.
    pub fn covered_blocks(&self) -> Vec<BlockNo> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// How many blocks are covered.
    pub fn covered(&self) -> usize {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Show the image with the covers of `other`.
    pub fn replace_covers(&self, other: &Self) {
        let covers = other.overlay.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.overlay.write().unwrap_or_else(PoisonError::into_inner) = covers;
    }

    /// The file system now has `count` blocks.
    pub fn resize(&self, count: u64) {
        self.count.store(count, Ordering::Relaxed);
    }

    /// The image below, to keep.
    pub fn shared_disk(&self) -> Disk {
        self.disk.clone()
    }

    /// The image below.
    pub fn disk(&self) -> &dyn ReadAt {
        &*self.disk
    }

    /// Fill `buf` with `block` as it stands on the image.
    pub fn read_home(&self, block: BlockNo, buf: &mut [u8]) -> Result<()> {
        let at = self.at(block);
        if block.0 >= self.count() {
            return Err(Error::corrupt("block number", at, format!("below {}", self.count()), block));
        }
        self.disk.read_at(at, buf).map_err(|source| Error::Io { what: "block", at, source })
    }
}

impl Blocks for Volume {
    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn read_into(&self, block: BlockNo, buf: &mut [u8]) -> Result<()> {
        match self.covering(block) {
            None => self.read_home(block, buf),
            Some(copy) => {
                self.read_home(copy.block, buf)?;
                if copy.escaped {
                    super::jbd2::unescape(buf);
                }
                Ok(())
            }
        }
    }

    fn read_bytes(&self, block: BlockNo, within: u64, buf: &mut [u8]) -> Result<()> {
        if self.covered() == 0 {
            let at = self.at(block).saturating_add(within);
            return self.disk.read_at(at, buf).map_err(|source| Error::Io { what: "file data", at, source });
        }
        let size = u64::from(self.block_size);
        let mut scratch = vec![0; self.block_size as usize];
        let (mut block, mut within, mut buf) = (block.0 + within / size, within % size, buf);
        while !buf.is_empty() {
            self.read_into(BlockNo(block), &mut scratch)?;
            let from = scratch.get(usize::try_from(within).unwrap_or(usize::MAX)..).unwrap_or_default();
            let len = from.len().min(buf.len());
            let (now, later) = std::mem::take(&mut buf).split_at_mut(len);
            now.copy_from_slice(from.get(..len).unwrap_or_default());
            (block, within, buf) = (block + 1, 0, later);
        }
        Ok(())
    }
}
