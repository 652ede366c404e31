//! Which blocks' bytes the tap should copy: superblock, descriptors, inode tables, journal,
//! directories, maps and attribute blocks.

use std::sync::Arc;

use super::Live;
use super::delta::Delta;
use super::state::State;
use crate::ext4::inode::Inode;
use crate::ext4::superblock;
use crate::tree::Kind;

impl Live {
    /// Want superblock, descriptors, inode tables, journal, directories, maps and attribute blocks.
    pub(super) fn want_all(&self) {
        let bs = self.block_size();
        let want =
            |start: u64, len: u64| self.interest.set(start.saturating_mul(bs)..(start + len).saturating_mul(bs), true);
        let state = self.look();
        self.interest.set(0..superblock::OFFSET + 1024, true);
        for g in state.geometry.groups.iter() {
            want(g.inode_table.0, state.geometry.table_blocks());
            want(g.at / bs, 1);
        }
        self.journal_blocks.iter().for_each(|(start, (len, _))| want(*start, *len));
        state.owners.nodes.keys().chain(state.owners.xattrs.keys()).for_each(|b| want(*b, 1));
        for (ino, inode) in state.inodes.iter().filter(|(_, i)| i.kind == Kind::Dir) {
            state.mapping(*ino, inode).runs.iter().for_each(|r| want(r.physical, r.len));
        }
    }

    /// Want the bytes of what became metadata, and no longer those of what ceased to be.
    pub(super) fn update_interest(&self, state: &State, delta: &Delta) {
        let bs = self.block_size();
        let set = |start: u64, len: u64, wanted| {
            self.interest.set(start.saturating_mul(bs)..(start + len).saturating_mul(bs), wanted);
        };
        let is_dir = |i: &Option<Arc<Inode>>| i.as_ref().is_some_and(|i| i.kind == Kind::Dir);
        // Without a journal the news that a block was taken may come before the news that it was
        // given up.
        let holds_names = |ino: &u32| state.inodes.get(ino).is_some_and(|i| i.kind == Kind::Dir);
        let is_free = |b: &u64| {
            let owner = state.owners.data_at(*b).map(|o| o.ino);
            !state.owners.nodes.contains_key(b)
                && !state.owners.xattrs.contains_key(b)
                && !owner.is_some_and(|ino| holds_names(&ino))
        };
        for t in delta.inodes.values() {
            if t.old_map != t.new_map || is_dir(&t.old) != is_dir(&t.new) {
                // A smaller block shares its bit with neighbours that may still be wanted.
                if bs >= crate::interest::GRAIN {
                    let runs = t.old_map.runs.iter().filter(|_| is_dir(&t.old));
                    let content = runs.flat_map(|r| r.physical..r.physical + r.len);
                    let all = content.chain(t.old_map.nodes.iter().map(|b| b.0));
                    all.filter(is_free).for_each(|b| set(b, 1, false));
                }
            }
        }
        for t in delta.inodes.values() {
            t.new_map.nodes.iter().for_each(|b| set(b.0, 1, true));
            t.new_map.runs.iter().filter(|_| is_dir(&t.new)).for_each(|r| set(r.physical, r.len, true));
            if let Some(i) = t.new.as_ref().filter(|i| state.owners.xattrs.contains_key(&i.xattr_block)) {
                set(i.xattr_block, 1, true);
            }
        }
    }
}
