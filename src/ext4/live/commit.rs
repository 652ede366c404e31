//! Committed transactions, and what becomes of their copies when the blocks reach their homes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Live;
use super::changes::Cause;
use super::delta::Changed;
use super::follow::Followed;
use crate::event::{Body, Event, Origin};
use crate::ext4::blocks::Blocks;
use crate::ext4::jbd2::Transaction;
use crate::units::Timestamp;

impl Live {
    /// What an unclean journal holds from before we came counts as commit 0.
    pub(super) fn cover_anew(&mut self) {
        let blocks = self.volume.covered_blocks();
        self.covered_by = blocks.iter().map(|b| (*b, 0)).collect();
        self.covers = BTreeMap::from([(0, blocks)]);
        self.tids.clear();
        self.commits = 0;
    }

    pub(super) fn journal_written(&mut self, n: u32, bytes: Arc<[u8]>, time: Timestamp, out: &mut Vec<Event>) {
        let Some(follower) = &mut self.follower else { return };
        match follower.written(&self.volume, n, bytes) {
            Followed::Nothing => {}
            Followed::Committed(t, bytes) => self.committed(&t, bytes, out),
            Followed::Checkpointed(tid) => self.checkpointed(self.tids.get(&tid).copied().unwrap_or(0)),
            Followed::Emptied => {
                self.checkpointed(u64::MAX);
                self.clear_suspects(time, out);
            }
            Followed::Lost(why) => {
                let cause = Cause { time, txn: None, origin: Origin::Journal };
                tracing::warn!("{why}");
                out.push(cause.event(Body::Gap { reason: why, bytes: 0 }));
            }
        }
    }

    fn committed(&mut self, t: &Transaction, bytes: Vec<Arc<[u8]>>, out: &mut Vec<Event>) {
        self.apply_gathered(out);
        self.commits += 1;
        self.tids.insert(t.tid, self.commits);
        for b in &t.revoked {
            self.volume.uncover(*b);
        }
        let mut changed = Changed::new();
        for (logged, bytes) in t.blocks.iter().zip(bytes) {
            let Some(copy) = self.follower.as_ref().and_then(|f| f.journal.copy(logged)) else { continue };
            self.volume.cover(logged.home, copy);
            self.suspects.remove(&logged.home);
            changed.insert(logged.home, bytes);
        }
        self.covered_by.extend(changed.keys().map(|b| (*b, self.commits)));
        self.covers.insert(self.commits, changed.keys().copied().collect());
        let cause = Cause { time: t.time, txn: Some(t.tid.into()), origin: Origin::Journal };
        for (block, bytes) in &changed {
            if self.holds_superblock(*block) {
                self.superblock_changed(bytes, cause, out);
            }
        }
        self.apply(&changed, cause, out);
    }

    /// All commits before the one that was counted as `past` have reached their homes.
    fn checkpointed(&mut self, past: u64) {
        let later = self.covers.split_off(&past);
        let done = std::mem::replace(&mut self.covers, later);
        self.tids.retain(|_, n| *n >= past);
        for block in done.into_values().flatten() {
            if self.covered_by.get(&block).is_some_and(|by| *by < past) {
                self.covered_by.remove(&block);
                self.volume.uncover(block);
            }
        }
    }

    /// The journal is empty: home blocks are what a mount would see. Look at those that differed.
    fn clear_suspects(&mut self, time: Timestamp, out: &mut Vec<Event>) {
        let suspects = std::mem::take(&mut self.suspects);
        let blocks = suspects.into_iter().filter(|b| self.is_metadata(*b)).collect::<Vec<_>>();
        let changed: Changed = blocks.into_iter().filter_map(|b| Some((b, self.volume.read(b).ok()?))).collect();
        if !changed.is_empty() {
            self.apply(&changed, Cause { time, txn: None, origin: Origin::Resync }, out);
        }
    }
}
