//! What a mount's journal replay would change, found without writing: pairs of a home block and
//! the journal copy that replaces it (Linux `fs/jbd2/recovery.c`).

use std::collections::HashMap;

use super::blocks::{Blocks, JournalCopy, Volume};
use super::jbd2::{self, Missing, Super};
use super::map::{Mapping, Run};
use crate::error::{Error, Result};
use crate::units::BlockNo;

/// The journal of a volume: where its blocks lie, and its superblock.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Journal blocks in rising order.
    runs: Vec<Run>,
    /// The journal's superblock as last read.
    pub superblock: Super,
}

impl Journal {
    /// Read the journal's superblock; `mapping` tells where the journal's file lies.
    pub fn open(blocks: &dyn Blocks, mapping: Mapping) -> Result<Self> {
        let len = mapping.runs.last().map_or(0, Run::end);
        let first = locate(&mapping.runs, 0);
        let first = first.ok_or_else(|| Error::corrupt("journal", 0, "a first block", "none"))?;
        let superblock = Super::parse(&blocks.read(first)?, blocks.at(first), len)?;
        Ok(Self { runs: mapping.runs, superblock })
    }

    /// Where journal block `n` lies on the volume.
    pub fn block(&self, n: u32) -> Option<BlockNo> {
        locate(&self.runs, n.into())
    }

    /// The pieces of the journal's file.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Read journal block `n` from the image.
    pub fn read(&self, volume: &Volume, n: u32) -> Result<std::sync::Arc<[u8]>> {
        let block = self.block(n).ok_or_else(|| Error::corrupt("journal block", 0, "a mapped block", n))?;
        let mut buf = vec![0; volume.block_size() as usize];
        volume.read_home(block, &mut buf)?;
        Ok(buf.into())
    }

    /// The journal copy of block `home`, for [`Volume::cover`].
    pub fn copy(&self, logged: &jbd2::Logged) -> Option<JournalCopy> {
        Some(JournalCopy { block: self.block(logged.copy)?, escaped: logged.escaped })
    }

    /// Cover `volume` with all that a replay would write. Returns the id of the next transaction
    /// and the journal block at which it would start. The work is bounded by the journal's length.
    pub fn recover(&self, volume: &Volume) -> Result<(u32, u32)> {
        let js = &self.superblock;
        let (mut tid, mut at) = (js.sequence, js.start);
        if at == 0 {
            return Ok((tid, js.first));
        }
        let mut newest: HashMap<BlockNo, (u32, JournalCopy)> = HashMap::new();
        let mut revoked: HashMap<BlockNo, u32> = HashMap::new();
        let mut left = u64::from(js.end);
        while left > 0 {
            let t = match jbd2::read_transaction(js, tid, at, &mut |n| self.read(volume, n)) {
                Ok(t) => t,
                Err(Missing::Incomplete) => break,
                Err(Missing::Damaged(what, n)) => {
                    tracing::warn!("journal replay stops at transaction {tid}, journal block {n}: wrong {what}");
                    break;
                }
                Err(Missing::Unreadable(e)) => return Err(e),
            };
            newest.extend(t.blocks.iter().filter_map(|l| Some((l.home, (tid, self.copy(l)?)))));
            revoked.extend(t.revoked.iter().map(|b| (*b, tid)));
            left = left.saturating_sub(t.blocks.len() as u64 + 1);
            (tid, at) = (tid.wrapping_add(1), t.next);
        }
        for (home, (written, copy)) in newest {
            // Ids wrap: a revoke counts if it is not older than the copy.
            let void = revoked.get(&home).is_some_and(|r| r.wrapping_sub(written).cast_signed() >= 0);
            if !void {
                volume.cover(home, copy);
            }
        }
        Ok((tid, at))
    }
}

fn locate(runs: &[Run], n: u64) -> Option<BlockNo> {
    let run = runs.get(runs.partition_point(|r| r.end() <= n))?;
    (run.logical <= n).then(|| BlockNo(run.physical + (n - run.logical)))
}
