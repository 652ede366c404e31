//! Extent tree nodes (Linux `fs/ext4/ext4_extents.h`).

use super::map::Run;
use crate::error::{Error, Result};
use crate::units::BlockNo;

const MAGIC: u16 = 0xF30A;
/// Deeper trees are never made (`EXT4_MAX_EXTENT_DEPTH`).
pub const MAX_DEPTH: u16 = 5;
/// A length above this marks an unwritten extent (`EXT_INIT_MAX_LEN`).
const MAX_WRITTEN: u16 = 32768;

/// A parsed node.
#[derive(Debug)]
pub enum Node {
    /// Extents, in the order of the node.
    Leaf(Vec<Run>),
    /// First logical block and node block of each child.
    Index(Vec<(u64, BlockNo)>),
}

/// Parse a node of which `bytes` lie at volume byte `at`; its depth must be `depth` if given.
/// Returns its depth too.
pub fn parse(bytes: &[u8], at: u64, depth: Option<u16>) -> Result<(u16, Node)> {
    let (units, _) = bytes.as_chunks::<12>();
    let [header, entries @ ..] = units else {
        return Err(Error::corrupt("extent node", at, "12 bytes", bytes.len()));
    };
    let [m0, m1, e0, e1, _, _, d0, d1, ..] = *header;
    let magic = u16::from_le_bytes([m0, m1]);
    if magic != MAGIC {
        return Err(Error::corrupt("extent node magic", at, "0xf30a", format!("{magic:#06x}")));
    }
    let found = u16::from_le_bytes([d0, d1]);
    if found > MAX_DEPTH || depth.is_some_and(|d| d != found) {
        let want = depth.map_or_else(|| format!("0..={MAX_DEPTH}"), |d| d.to_string());
        return Err(Error::corrupt("extent node depth", at, want, found));
    }
    let count = u16::from_le_bytes([e0, e1]);
    let Some(entries) = entries.get(..usize::from(count)) else {
        return Err(Error::corrupt("extent node entries", at, format!("at most {}", entries.len()), count));
    };
    let node = if found == 0 {
        Node::Leaf(entries.iter().map(leaf).collect())
    } else {
        Node::Index(entries.iter().map(index).collect())
    };
    Ok((found, node))
}

/// `struct ext4_extent`
fn leaf(e: &[u8; 12]) -> Run {
    let [b0, b1, b2, b3, l0, l1, h0, h1, p0, p1, p2, p3] = *e;
    let len = u16::from_le_bytes([l0, l1]);
    let unwritten = len > MAX_WRITTEN;
    Run {
        logical: u32::from_le_bytes([b0, b1, b2, b3]).into(),
        physical: u64::from(u16::from_le_bytes([h0, h1])) << 32 | u64::from(u32::from_le_bytes([p0, p1, p2, p3])),
        len: u64::from(if unwritten { len - MAX_WRITTEN } else { len }),
        unwritten,
    }
}

/// `struct ext4_extent_idx`
fn index(e: &[u8; 12]) -> (u64, BlockNo) {
    let [b0, b1, b2, b3, p0, p1, p2, p3, h0, h1, ..] = *e;
    let high = u64::from(u16::from_le_bytes([h0, h1]));
    let block = high << 32 | u64::from(u32::from_le_bytes([p0, p1, p2, p3]));
    (u32::from_le_bytes([b0, b1, b2, b3]).into(), BlockNo(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(depth: u16, entries: &[[u8; 12]], claimed: u16) -> Vec<u8> {
        let mut b = Vec::new();
        for v in [MAGIC, claimed, 4, depth, 0, 0] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        b.extend(entries.iter().flatten());
        b
    }

    #[test]
    fn unwritten_extents_are_told_apart() {
        let mut e = [0; 12];
        e[4..6].copy_from_slice(&(32768u16 + 7).to_le_bytes());
        e[8] = 9;
        let (_, Node::Leaf(runs)) = parse(&node(0, &[e], 1), 0, None).unwrap() else { panic!() };
        assert_eq!(runs, [Run { logical: 0, physical: 9, len: 7, unwritten: true }]);
        e[4..6].copy_from_slice(&32768u16.to_le_bytes());
        let (_, Node::Leaf(runs)) = parse(&node(0, &[e], 1), 0, None).unwrap() else { panic!() };
        assert!(!runs[0].unwritten && runs[0].len == 32768);
    }

    #[test]
    fn depth_and_count_are_checked() {
        assert!(parse(&node(2, &[[0; 12]], 1), 0, Some(1)).is_err());
        assert!(parse(&node(6, &[[0; 12]], 1), 0, None).is_err());
        assert!(parse(&node(0, &[[0; 12]], 2), 0, None).is_err());
        assert!(parse(&[0; 60], 0, None).is_err());
        assert!(parse(&[], 0, None).is_err());
    }
}
