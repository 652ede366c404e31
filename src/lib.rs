//! gammaray tells from outside a virtual machine what happens to the files inside it.
//!
//! ```text
//!  guest ─► ublk ────────┐                                    ┌─► sink ─► JSON Lines
//!  guest ─► FUSE file ───┤ source     feed     engine   event │
//!  QEMU trace ───────────┼───────► Write ──► which volume? ───┤
//!  dm-log-writes log ────┘   ▲        ▲          │            └─► view: what the kernel shall forget
//!                            │        │          ▼                 │
//!                          image   interest ◄─ Volume (ext4) ─► Tree ─► view, ls, cat, crawl
//! ```
//!
//! **Source.** A guest's disk is a raw image that we serve: as a block device (the crate
//! `gammaray_ublk`) or as a file ([`source::file`]). Both carry out the guest's requests on the
//! image and tell a tap of each write after it is on the image and before the guest hears of it.
//! The other two sources only *read* of writes, in recordings; then the image is never changed and
//! the newer bytes lie in an [`overlay`].
//!
//! **Interest.** The tap runs on the guest's path, so it does little: one bit per 4 KiB of the disk
//! ([`interest`]) says whether a write's bytes matter (metadata, journal) and must be copied. The
//! rest are places and lengths. Both go into a bounded queue ([`feed`]). When the queue is full the
//! guest goes on, and the engine later reads the places that it missed from the image and says so
//! in a `gap` event; unless it was told to be lossless.
//!
//! **Volumes.** The [`engine`] finds the file systems of the disk ([`partition`], [`probe`],
//! [`open`]) and gives each its writes. A [`volume::Volume`] knows the role of every block, and says
//! what changed: for [`ext4`] with a journal a transaction is applied at its commit, whole or not at
//! all, long before the same blocks reach their home places; those writes only confirm it. Without
//! a journal the home places are all there is, and are made sense of at flushes and pauses.
//! So it is with [`ntfs`], whose records each tell all about their file.
//!
//! **Attribution.** File data usually reaches the disk before the metadata that says whose it is.
//! Writes to blocks that nobody owns yet are remembered as ranges, without bytes, and become
//! `write` events once a commit maps the blocks. Nothing is forgotten by time.
//!
//! **Names.** A [`namespace`] joins inodes, names and directories, and puts the changes of a
//! transaction into an order in which each step is possible: a name is freed before another file
//! takes it. So the events, replayed over the first tree, lead to the last one. That is the main
//! property that the tests hold against real kernels.
//!
//! **Events** are all that [`sink`]s know. The [`view`] reads the guest's live
//! [`tree`] and uses events only to tell the host's kernel what to forget.
//!
//! All that is read from a disk is hostile: see [`error`] for what may be wrong with it, and the
//! lints in `Cargo.toml` for what this code may not do with it.
#![forbid(unsafe_code)]

// What was typed, and what it means.
pub mod cli;
pub mod config;
pub mod doctor;
pub mod legacy;

// The words that all share.
pub mod units;
pub mod error;
pub mod name;
pub mod ranges;

// The disk, and what lies where on it.
pub mod image;
pub mod overlay;
pub mod partition;
pub mod probe;
pub mod open;

// A guest's writes, on their way to the engine.
pub mod write;
pub mod source;
pub mod interest;
pub mod feed;
pub mod attach;
pub mod exact;
pub mod engine;

// File systems: from blocks to files and to what changed.
pub mod volume;
pub mod tree;
pub mod namespace;
pub mod ext4;
pub mod ntfs;

// What happened, and who hears of it.
pub mod event;
pub mod sink;
pub mod follow;

// The guest's files as they are.
pub mod guest;
pub mod lookup;
pub mod listing;
pub mod index;
pub mod fuse;
pub mod view;

#[cfg(test)]
mod fake;
