//! NTFS: from bytes to records, files, names and streams.
//!
//! One on-disk thing per module, in reading order. Sources: the Linux kernel's `fs/ntfs3` and
//! ntfs-3g's headers, read for facts, and Microsoft's open specifications (MS-FSCC, MS-XCA,
//! MS-DTYP).

pub mod boot;
pub mod fixup;
pub mod run;
pub mod record;
pub mod list;
pub mod volume;
pub mod file;
pub mod names;
pub mod index;

pub mod data;
pub mod lznt1;
pub mod bits;
pub mod xpress;
pub mod lzx;
pub mod wof;
pub mod reparse;

pub mod security;
pub mod logfile;
pub mod usn;
pub mod describe;
pub mod node;
pub mod reader;
pub mod live;

pub use reader::Ntfs;
