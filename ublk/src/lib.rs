//! A generic block filter: it carries out a guest's reads, writes, flushes, discards and
//! write-zeroes on a backing image and tells a [`Tap`] what was written.
//!
//! It knows nothing of file systems. All `unsafe` code and all of libublk live here.

mod backing;
mod buffer;
mod tap;

pub use backing::{Backing, Discarded, OpenError, OpenMode};
pub use buffer::AlignedBuf;
pub use tap::Tap;
