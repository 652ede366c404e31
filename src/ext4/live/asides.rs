//! Changes of the file system's geometry that are no events: the messages of 2013 tell them.

use crate::event::Body;
use crate::ext4::group::Group;
use crate::ext4::superblock::Superblock;

const SECTOR: u64 = 512;

/// What differs between two superblocks of one file system.
pub fn superblock(old: &Superblock, new: &Superblock) -> impl Iterator<Item = Body> + use<> {
    let fields = [
        ("superblock.block_size", old.block_size.into(), new.block_size.into()),
        ("superblock.num_block_groups", old.groups(), new.groups()),
        ("superblock.num_files", files(old), files(new)),
    ];
    fields.into_iter().filter_map(changed)
}

/// Inodes in use: of the reserved ones only the root directory counts.
fn files(sb: &Superblock) -> u64 {
    let used = sb.inodes.saturating_sub(sb.free_inodes);
    (u64::from(used) + 2).saturating_sub(sb.first_inode.into())
}

/// Where parts of groups lie now, in sectors of the volume; groups that are new were at 0.
pub fn groups(sb: &Superblock, old: &[Group], new: &[Group]) -> impl Iterator<Item = Body> + use<> {
    let per_block = u64::from(sb.block_size) / SECTOR;
    let mut all = Vec::new();
    for (i, g) in new.iter().enumerate() {
        let was = old.get(i);
        let mut field = |name, before: Option<u64>, after: u64| {
            let sector = |block: u64| block.saturating_mul(per_block);
            all.extend(changed((name, before.map_or(0, sector), sector(after))));
        };
        field("bgd.block_bitmap_sector_start", was.map(|w| w.block_bitmap.0), g.block_bitmap.0);
        field("bgd.inode_bitmap_sector_start", was.map(|w| w.inode_bitmap.0), g.inode_bitmap.0);
        field("bgd.inode_table_sector_start", was.map(|w| w.inode_table.0), g.inode_table.0);
    }
    all.into_iter()
}

fn changed((field, old, new): (&'static str, u64, u64)) -> Option<Body> {
    (old != new).then_some(Body::Aside { field, old, new })
}
