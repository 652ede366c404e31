//! Reading many inodes: those of one directory mostly lie side by side, so whole pieces of the
//! inode tables are read and kept for a while.

use crate::error::Result;
use crate::ext4::Ext4;
use crate::ext4::blocks::Blocks;
use crate::ext4::inode::Inode;
use crate::units::{BlockNo, InodeNo};

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;
/// Pieces that are kept.
const SLOTS: u64 = 32;

/// The pieces. One object serves one file system.
#[derive(Default)]
pub struct Inodes {
    /// By piece number modulo [`SLOTS`]: the piece's number, and its bytes unless it cannot be read.
    slots: Vec<Option<(u64, Vec<u8>)>>,
}

impl Inodes {
    /// Inode `ino` of `fs`; `None` if it is not in use.
    pub fn read(&mut self, fs: &Ext4, ino: InodeNo) -> Result<Option<Inode>> {
        let (geometry, blocks) = (fs.geometry(), fs.blocks());
        let (block, within) = geometry.inode_place(ino)?;
        let size = u64::from(geometry.sb.block_size);
        let per_piece = (PIECE / size).max(1);
        let piece = block.0 / per_piece;
        let Some(bytes) = self.piece(fs, piece, per_piece) else { return geometry.inode(blocks, ino) };
        let start = usize::try_from(block.0 % per_piece * size).unwrap_or(usize::MAX).saturating_add(within);
        let bytes = bytes.get(start..start.saturating_add(geometry.sb.inode_size.into())).unwrap_or_default();
        Inode::parse(&geometry.sb, bytes, geometry.inode_at(ino))
    }

    fn piece(&mut self, fs: &Ext4, piece: u64, per_piece: u64) -> Option<&[u8]> {
        let slot = usize::try_from(piece % SLOTS).ok()?;
        if self.slots.is_empty() {
            self.slots.resize_with(usize::try_from(SLOTS).ok()?, || None);
        }
        let slot = self.slots.get_mut(slot)?;
        if slot.as_ref().is_none_or(|(number, _)| *number != piece) {
            let mut bytes = slot.take().map(|(_, bytes)| bytes).unwrap_or_default();
            let first = piece * per_piece;
            let count = per_piece.min(fs.geometry().sb.blocks.checked_sub(first)?);
            bytes.resize(usize::try_from(count * u64::from(fs.geometry().sb.block_size)).ok()?, 0);
            fs.blocks().read_bytes(BlockNo(first), 0, &mut bytes).ok()?;
            *slot = Some((piece, bytes));
        }
        slot.as_ref().map(|(_, bytes)| bytes.as_slice())
    }
}
