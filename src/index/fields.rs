//! Fields of `file` documents that are the same for every file system.

use super::doc::Doc;
use crate::name::lossy;
use crate::tree::{Attr, Kind};
use crate::units::Timestamp;

/// Text, and its exact bytes in a field of their own if it is not UTF-8.
pub fn text(doc: &mut Doc, key: &str, exact: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(s) => {
            doc.str(key, s);
        }
        Err(_) => {
            doc.str(key, &lossy(bytes)).binary(exact, bytes);
        }
    }
}

/// What `stat` tells.
pub fn attributes(doc: &mut Doc, a: &Attr) {
    doc.bool("is_dir", a.kind == Kind::Dir).u64("size", a.size).u64("mode", mode(a)).u64("link_count", a.nlink.into());
    doc.u64("uid", a.uid.unwrap_or(0).into()).u64("gid", a.gid.unwrap_or(0).into());
    doc.i64("atime", a.atime.secs).i64("mtime", a.mtime.secs).i64("ctime", a.ctime.secs);
    let nanos = |t: Timestamp| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX);
    let times = [nanos(a.atime), nanos(a.mtime), nanos(a.ctime), a.crtime.map_or(i64::MIN, nanos)];
    doc.binary("times_ns", times.map(i64::to_le_bytes).as_flattened()).int("generation", a.generation);
}

/// Permission bits and the file type, as in `st_mode`.
fn mode(a: &Attr) -> u64 {
    let kind = match a.kind {
        Kind::Fifo => 0o01_0000,
        Kind::Chr => 0o02_0000,
        Kind::Dir => 0o04_0000,
        Kind::Blk => 0o06_0000,
        Kind::File | Kind::Reparse => 0o10_0000,
        Kind::Symlink => 0o12_0000,
        Kind::Sock => 0o14_0000,
    };
    kind | u64::from(a.mode.unwrap_or(0))
}

/// Numbers as keys, without a new string for each.
#[derive(Default)]
pub struct Number(String);

impl Number {
    /// `n` in decimal.
    pub fn text(&mut self, n: u64) -> &str {
        use std::fmt::Write as _;
        self.0.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{n}");
        &self.0
    }
}
