//! ext2, ext3 and ext4: from bytes to inodes, names and blocks.
//!
//! One on-disk thing per module, in reading order. Sources: the Linux kernel's `fs/ext4` and
//! `fs/jbd2`, read for facts.

pub mod blocks;
pub mod checksum;
pub mod dir;
pub mod extent;
pub mod features;
pub mod fs;
pub mod group;
pub mod inode;
pub mod jbd2;
pub mod live;
pub mod map;
pub mod reader;
pub mod recover;
pub mod superblock;
pub mod xattr;

pub use reader::{Ext4, probe};
