//! Which blocks of the volume hold which blocks of a file: extent trees and the block maps of ext2.

use std::collections::HashSet;
use std::sync::Arc;

use super::blocks::Blocks;
use super::extent::{self, Node};
use super::inode::Inode;
use super::superblock::Superblock;
use crate::error::{Error, Result};
use crate::units::BlockNo;

/// A contiguous piece of a file. Units: blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First block within the file.
    pub logical: u64,
    /// First block on the volume.
    pub physical: u64,
    /// Number of blocks.
    pub len: u64,
    /// Allocated but never written: reads as zeros.
    pub unwritten: bool,
}

impl Run {
    /// First block within the file behind this run.
    pub fn end(&self) -> u64 {
        self.logical + self.len
    }

    /// The part within `from..to` (file blocks), if any.
    pub fn cut(&self, from: u64, to: u64) -> Option<Self> {
        let start = self.logical.max(from);
        let end = self.end().min(to);
        (start < end).then(|| Self {
            logical: start,
            physical: self.physical + (start - self.logical),
            len: end - start,
            unwritten: self.unwritten,
        })
    }
}

/// The blocks of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mapping {
    /// In rising logical order, without overlaps, neighbours joined.
    pub runs: Vec<Run>,
    /// Blocks of the volume that hold the map itself.
    pub nodes: Vec<BlockNo>,
}

/// More runs than this in one file are taken for damage: a walk must end.
const MAX_RUNS: usize = 1 << 24;

impl Mapping {
    /// Read the whole map of `inode`, whose inode lies at volume byte `at`.
    ///
    /// The work is bounded by the volume's size: no node is visited twice, no run may leave the
    /// volume, and logical blocks must rise.
    pub fn read(sb: &Superblock, blocks: &dyn Blocks, inode: &Inode, at: u64) -> Result<Self> {
        let mut walk = Walk::default();
        if !inode.maps_blocks(sb) {
            return Ok(walk.map);
        }
        if inode.uses_extents() {
            walk.extents(blocks, &inode.block, at, None, 0)?;
        } else {
            walk.block_map(blocks, inode)?;
        }
        Ok(walk.map)
    }

    /// The run that holds file block `logical`, or the next one behind it.
    pub fn at_or_after(&self, logical: u64) -> Option<&Run> {
        self.runs.get(self.runs.partition_point(|r| r.end() <= logical))
    }

    /// Whether file block `logical` has a block that was written.
    pub fn is_written(&self, logical: u64) -> bool {
        self.at_or_after(logical).is_some_and(|r| r.logical <= logical && !r.unwritten)
    }

    /// The runs that hold the file blocks of `run`, cut to them.
    pub fn cuts(&self, run: &Run) -> impl Iterator<Item = Run> {
        let (from, to) = (run.logical, run.end());
        let first = self.runs.partition_point(|r| r.end() <= from);
        self.runs.iter().skip(first).take_while(move |r| r.logical < to).filter_map(move |r| r.cut(from, to))
    }

    fn push(&mut self, blocks: &dyn Blocks, run: Run, at: u64) -> Result<()> {
        let end = run.physical.checked_add(run.len);
        if run.len == 0 || run.physical == 0 || end.is_none_or(|e| e > blocks.count()) {
            let found = format!("{} blocks from {}", run.len, run.physical);
            return Err(Error::corrupt("extent", at, format!("within {} blocks", blocks.count()), found));
        }
        let full = self.runs.len() >= MAX_RUNS;
        match self.runs.last_mut() {
            Some(last) if run.logical < last.end() => {
                Err(Error::corrupt("extent order", at, format!("at least {}", last.end()), run.logical))
            }
            Some(last)
                if run.logical == last.end()
                    && run.physical == last.physical + last.len
                    && run.unwritten == last.unwritten =>
            {
                last.len += run.len;
                Ok(())
            }
            _ if full => Err(Error::corrupt("extent count", at, format!("at most {MAX_RUNS}"), "more")),
            _ => {
                self.runs.push(run);
                Ok(())
            }
        }
    }
}

#[derive(Default)]
struct Walk {
    map: Mapping,
    seen: HashSet<BlockNo>,
}

impl Walk {
    fn extents(&mut self, blocks: &dyn Blocks, node: &[u8], at: u64, depth: Option<u16>, first: u64) -> Result<()> {
        let (depth, node) = extent::parse(node, at, depth)?;
        match node {
            Node::Leaf(runs) => runs.into_iter().try_for_each(|run| self.map.push(blocks, run, at)),
            Node::Index(children) => {
                let mut first = first;
                for (logical, child) in children {
                    if logical < first {
                        return Err(Error::corrupt("extent index order", at, format!("at least {first}"), logical));
                    }
                    first = logical + 1;
                    let bytes = self.node(blocks, child)?;
                    self.extents(blocks, &bytes, blocks.at(child), Some(depth - 1), logical)?;
                }
                Ok(())
            }
        }
    }

    /// Read a node's block and note that it is one. No block may be a node twice: a tree that
    /// points back into itself would be walked for ages.
    fn node(&mut self, blocks: &dyn Blocks, block: BlockNo) -> Result<Arc<[u8]>> {
        if !self.seen.insert(block) {
            return Err(Error::corrupt("block map", blocks.at(block), "a node used once", block));
        }
        self.map.nodes.push(block);
        blocks.read(block)
    }

    /// 12 direct blocks, then one tree each of height 1, 2 and 3 (`fs/ext4/indirect.c`).
    fn block_map(&mut self, blocks: &dyn Blocks, inode: &Inode) -> Result<()> {
        let per_block = u64::from(blocks.block_size() / 4);
        for n in 0..12 {
            self.block_map_entry(blocks, inode.block_word(n), n as u64, 0, per_block)?;
        }
        let mut logical = 12;
        for (n, height) in [(12, 1), (13, 2), (14, 3)] {
            self.block_map_entry(blocks, inode.block_word(n), logical, height, per_block)?;
            logical += per_block.pow(height);
        }
        Ok(())
    }

    fn block_map_entry(
        &mut self,
        blocks: &dyn Blocks,
        block: u32,
        logical: u64,
        height: u32,
        per_block: u64,
    ) -> Result<()> {
        let physical = u64::from(block);
        if physical == 0 {
            return Ok(());
        }
        if height == 0 {
            return self.map.push(
                blocks,
                Run { logical, physical, len: 1, unwritten: false },
                blocks.at(BlockNo(physical)),
            );
        }
        let bytes = self.node(blocks, BlockNo(physical))?;
        let step = per_block.pow(height - 1);
        for (word, n) in bytes.as_chunks::<4>().0.iter().zip(0..) {
            self.block_map_entry(blocks, u32::from_le_bytes(*word), logical + n * step, height - 1, per_block)?;
        }
        Ok(())
    }
}
