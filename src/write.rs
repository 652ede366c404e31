//! What a source hands to the engine: one change of the disk after another.

use std::ops::Range;

use crate::units::Timestamp;

/// One change to the disk, in the order in which they completed on the backing image.
#[derive(Clone, Debug)]
pub struct Write {
    /// Counts changes from 1 on, without holes.
    pub seq: u64,
    /// Counts flushes: two writes with the same epoch have no durable order.
    pub epoch: u64,
    /// When it completed.
    pub time: Timestamp,
    /// What it did.
    pub op: WriteOp,
}

/// The kinds of change.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Bytes were written to `offset..offset + len` of the disk.
    Data {
        /// Byte offset on the disk.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// The bytes that were wanted: pieces in rising order, each a disk offset and its bytes.
        /// A piece starts and ends on an [`crate::interest::GRAIN`] boundary, or where the write does.
        pieces: Vec<(u64, Box<[u8]>)>,
    },
    /// The range now reads as zeros.
    Zero(Range<u64>),
    /// The range was discarded; its content is whatever the image now holds.
    Discard(Range<u64>),
    /// All earlier changes are durable.
    Flush,
}
