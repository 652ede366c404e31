//! A generic block filter: it carries out a guest's reads, writes, flushes, discards and
//! write-zeroes on a backing image and tells a [`Tap`] what was written.
//!
//! ```text
//! guest ─► /dev/ublkbN ─► queue ─► request ─► engine ─► backing ─► tap ─► guest is told
//! ```
//!
//! [`Device`] is the disk, with a thread per queue; [`Backing`] is the image behind it, which other
//! transports use as well. It knows nothing of file systems. All `unsafe` code and all of libublk
//! live here.

mod backing;
mod buffer;
mod device;
mod features;
mod queue;
mod request;
mod sys;
mod tap;

pub use backing::{Backing, Discarded, OpenError, OpenMode};
pub use buffer::AlignedBuf;
pub use device::{Device, Error, Options};
pub use features::{Features, Unavailable, probe};
pub use tap::Tap;
