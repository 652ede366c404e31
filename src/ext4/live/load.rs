//! The crawl: reads all inodes and directories of a volume into a [`State`].

use std::sync::Arc;

use super::state::State;
use crate::error::Result;
use crate::ext4::blocks::Blocks;
use crate::ext4::fs::Geometry;
use crate::ext4::inode::Inode;
use crate::ext4::xattr;
use crate::tree::Kind;
use crate::units::{BlockNo, InodeNo};

/// Inode tables are read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;

/// Read everything. Damage hides what it concerns and is logged; only an unreadable image fails.
pub fn crawl(geometry: Geometry, blocks: &dyn Blocks) -> Result<State> {
    let mut state = State::new(geometry);
    let groups = state.geometry.groups.clone();
    for (group, index) in groups.iter().zip(0u32..) {
        load_inodes(&mut state, blocks, index, group.inode_table, group.used_inodes)?;
    }
    let all: Vec<(u32, Arc<Inode>)> = state.inodes.iter().map(|(n, i)| (*n, i.clone())).collect();
    for (ino, inode) in all {
        load_blocks(&mut state, blocks, ino, &inode);
    }
    state.link_all();
    Ok(state)
}

fn load_inodes(state: &mut State, blocks: &dyn Blocks, group: u32, table: BlockNo, used: u32) -> Result<()> {
    let size = u64::from(state.geometry.sb.inode_size);
    let first = group.saturating_mul(state.geometry.sb.inodes_per_group);
    let used = used.min(state.geometry.sb.inodes.saturating_sub(first));
    let bytes = u64::from(used) * size;
    let mut buf = vec![0; usize::try_from(PIECE.min(bytes)).unwrap_or(0)];
    let mut ino = first;
    for piece in 0..bytes.div_ceil(PIECE) {
        let len = usize::try_from(PIECE.min(bytes - piece * PIECE)).unwrap_or(0);
        let part = buf.get_mut(..len).unwrap_or_default();
        blocks.read_bytes(table, piece * PIECE, part)?;
        for (raw, n) in part.chunks_exact(usize::from(state.geometry.sb.inode_size)).zip(0u64..) {
            ino = ino.saturating_add(1);
            let at = blocks.at(table) + piece * PIECE + n * size;
            match Inode::parse(&state.geometry.sb, raw, at) {
                Ok(Some(inode)) => {
                    state.inodes.insert(ino, inode.into());
                }
                Ok(None) => {}
                Err(e) => tracing::warn!("inode {ino}: {e}"),
            }
        }
    }
    Ok(())
}

/// The blocks of one inode: its map, its names if it is a directory, its attribute block.
fn load_blocks(state: &mut State, blocks: &dyn Blocks, ino: u32, inode: &Inode) {
    match state.geometry.mapping(blocks, InodeNo(ino.into()), inode) {
        Ok(map) => {
            let map = Arc::new(map);
            state.owners.remap_new(ino, &Default::default(), &map);
            state.set_mapping(ino, map.clone());
            if inode.kind == Kind::Dir {
                let bs = u64::from(blocks.block_size());
                let end = inode.size.div_ceil(bs);
                let runs = map.runs.iter().filter_map(|r| r.cut(0, end)).filter(|r| !r.unwritten);
                for (logical, physical) in runs.flat_map(|r| (r.logical..r.end()).zip(r.physical..)) {
                    load_dir_block(state, blocks, ino, logical, BlockNo(physical));
                }
            }
        }
        Err(e) => tracing::warn!("blocks of inode {ino}: {e}"),
    }
    load_xattr_block(state, blocks, ino, inode.xattr_block);
}

/// Parse the directory block at `block` as block `logical` of `dir`.
pub fn load_dir_block(state: &mut State, blocks: &dyn Blocks, dir: u32, logical: u64, block: BlockNo) {
    match blocks.read(block) {
        Ok(bytes) => {
            let (entries, parsed) = state.parse_dir_block(&bytes, blocks.at(block));
            if let Err(e) = parsed {
                tracing::warn!("directory inode {dir}: {e}");
            }
            state.dirs.insert((dir, logical), entries);
        }
        Err(e) => tracing::warn!("directory inode {dir}: {e}"),
    }
}

/// Note that `ino` uses the attribute block `block`, and read it if it is new.
pub fn load_xattr_block(state: &mut State, blocks: &dyn Blocks, ino: u32, block: u64) {
    if block == 0 {
        return;
    }
    let known = state.owners.xattrs.contains_key(&block);
    let entry = state.owners.xattrs.entry(block).or_default();
    entry.users.insert(ino);
    if !known {
        let parsed = blocks.read(BlockNo(block)).and_then(|b| xattr::parse_block(&b, blocks.at(BlockNo(block))));
        match parsed {
            Ok(entries) => entry.entries = entries,
            Err(e) => tracing::warn!("attributes of inode {ino}: {e}"),
        }
    }
}
