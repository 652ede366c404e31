//! The superblock changed: mounted, unmounted, resized, or another file system altogether?

use super::changes::Cause;
use super::{Live, asides};
use crate::event::{Body, Event, Origin};
use crate::ext4::fs::Geometry;
use crate::ext4::group;
use crate::ext4::reader::Covered;
use crate::ext4::superblock::Superblock;
use crate::units::Timestamp;
use crate::volume::Health;

impl Live {
    pub(super) fn superblock_written(&mut self, block: &[u8], time: Timestamp, out: &mut Vec<Event>) {
        self.superblock_changed(block, Cause { time, txn: None, origin: Origin::Direct }, out);
    }

    /// `block` holds the superblock: the same file system, another size, or another file system?
    pub(super) fn superblock_changed(&mut self, block: &[u8], cause: Cause, out: &mut Vec<Event>) {
        let skip = if block.len() > 1024 { 1024 } else { 0 };
        let Ok(new) = Superblock::parse(block.get(skip..).unwrap_or_default()) else {
            self.health = Health::Stale;
            return;
        };
        let old = self.look().geometry.sb.clone();
        if identity(&old) != identity(&new) {
            self.health = Health::Stale;
            return;
        }
        out.extend(asides::superblock(&old, &new).map(|body| cause.event(body)));
        if old.blocks != new.blocks {
            self.resized(new.clone(), cause, out);
        }
        let mounted = is_mounted(&new);
        self.state().geometry.sb = new;
        if mounted != self.mounted {
            self.mounted = mounted;
            let what = if mounted { "mounted" } else { "unmounted" };
            out.push(cause.event(Body::Volume { what, fs: Some(old.kind()) }));
        }
    }

    fn resized(&mut self, sb: Superblock, cause: Cause, out: &mut Vec<Event>) {
        self.volume.resize(sb.blocks);
        match group::read_all(&Covered(&self.volume), &sb) {
            Ok(groups) => {
                out.push(cause.event(Body::Volume { what: "resized", fs: Some(sb.kind()) }));
                let old = self.look().geometry.groups.clone();
                out.extend(asides::groups(&sb, &old, &groups).map(|body| cause.event(body)));
                self.state().geometry = Geometry::new(sb, groups);
                self.want_all();
            }
            Err(e) => {
                tracing::warn!("after a resize: {e}");
                self.health = Health::Stale;
            }
        }
    }
}

/// What makes it the same file system.
fn identity(sb: &Superblock) -> impl PartialEq + use<> {
    (sb.uuid, sb.mkfs_time, sb.block_size, sb.inode_size, sb.inodes_per_group, sb.blocks_per_group, sb.journal_inode)
}

/// With a journal, a mount sets the recovery flag; without, it clears the valid bit.
pub fn is_mounted(sb: &Superblock) -> bool {
    sb.needs_recovery() || sb.state & 1 == 0
}
