//! What a written block is: part of the journal, metadata at home, or data.

use std::sync::Arc;

use super::{Live, MAX_GATHERED};
use crate::event::Event;
use crate::ext4::blocks::Blocks;
use crate::ext4::superblock;
use crate::tree::Kind;
use crate::units::{BlockNo, Timestamp};
use crate::volume::{Health, VolumeWrite};

impl Live {
    pub(super) fn journal_block(&self, block: u64) -> Option<u32> {
        let (start, (len, logical)) = self.journal_blocks.range(..=block).next_back()?;
        let skip = block - start;
        (skip < *len).then(|| u32::try_from(logical + skip).ok()).flatten()
    }

    /// The bytes of `block` after a write of `piece` at volume byte `at`: from the piece if it
    /// covers the block, else from the image, which has them by now.
    pub(super) fn whole_block(&self, block: BlockNo, at: u64, piece: &[u8]) -> Option<Arc<[u8]>> {
        let r = self.bytes_of(block);
        let from = r.start.checked_sub(at).and_then(|f| usize::try_from(f).ok());
        let len = usize::try_from(self.block_size()).ok()?;
        if let Some(bytes) = from.and_then(|f| piece.get(f..f.checked_add(len)?)) {
            return Some(bytes.into());
        }
        let mut buf = vec![0; len];
        self.volume.read_home(block, &mut buf).ok()?;
        Some(buf.into())
    }

    pub(super) fn block_written(&mut self, block: BlockNo, bytes: Arc<[u8]>, time: Timestamp, out: &mut Vec<Event>) {
        if let Some(n) = self.journal_block(block.0) {
            self.journal_written(n, bytes, time, out);
            return;
        }
        if self.holds_superblock(block) {
            self.superblock_written(&bytes, time, out);
        }
        if !self.is_metadata(block) {
            return;
        }
        if self.follows_journal() {
            self.confirm(block, &bytes);
        } else if self.health == Health::Good {
            self.gathered.insert(block, bytes);
            self.gathered_at = time;
            if self.gathered.len() >= MAX_GATHERED {
                self.apply_gathered(out);
            }
        }
    }

    pub(super) fn holds_superblock(&self, block: BlockNo) -> bool {
        self.bytes_of(block).contains(&superblock::OFFSET)
    }

    /// Whether `block` is part of an inode table, a directory, a map or an attribute block.
    pub(super) fn is_metadata(&self, block: BlockNo) -> bool {
        let state = self.look();
        state.geometry.inodes_in(block).next().is_some()
            || state.owners.nodes.contains_key(&block.0)
            || state.owners.xattrs.contains_key(&block.0)
            || state
                .owners
                .data_at(block.0)
                .and_then(|o| state.inodes.get(&o.ino).map(|i| i.kind))
                .is_some_and(|k| k == Kind::Dir)
    }

    /// A home write while the journal is the truth: normally what was committed before.
    fn confirm(&mut self, block: BlockNo, bytes: &[u8]) {
        if self.volume.covering(block).is_some() {
            match self.volume.read(block) {
                Ok(committed) if *committed == *bytes => self.volume.uncover(block),
                _ => {
                    self.suspects.insert(block);
                }
            }
        } else if !self.look().agrees(block, self.volume.at(block), bytes) {
            self.suspects.insert(block);
        }
    }

    /// Blocks that were no metadata when the tap looked, and are by now: their bytes did not come
    /// with the write, but the image has them.
    pub(super) fn catch_up(&mut self, w: &VolumeWrite<'_>, out: &mut Vec<Event>) {
        let bs = self.block_size();
        let came = |at: u64| w.pieces.iter().any(|(p, bytes)| (*p..p + bytes.len() as u64).contains(&at));
        let mut blocks = self.look().metadata_in(w.range.start / bs..w.range.end.div_ceil(bs));
        blocks.retain(|b| !came(self.bytes_of(*b).start.max(w.range.start)));
        for block in blocks {
            if let Some(bytes) = self.whole_block(block, 0, &[]) {
                self.block_written(block, bytes, w.time, out);
            }
        }
    }
}
