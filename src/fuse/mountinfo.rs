//! What is mounted where, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Major and minor number of a mounted file system.
pub(super) type Device = (u32, u32);

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its `st_dev`.
    pub device: Device,
    /// The mount point.
    dir: PathBuf,
    /// What is mounted (`/dev/sda1`, `tmpfs`, `gammaray`), for people to read.
    pub source: String,
}

/// The topmost mount on exactly `dir`, an absolute path without links.
pub(super) fn top_at(dir: &Path) -> Option<Entry> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    top_in(&table, dir)
}

fn top_in(table: &[u8], dir: &Path) -> Option<Entry> {
    table.split(|b| *b == b'\n').filter_map(parse).rfind(|e| e.dir == dir)
}

/// `36 35 98:0 /root /mount/point options [tag…] - type source superoptions`
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let dir = unescape(fields.nth(1)?);
    let source = fields.skip_while(|f| *f != b"-").nth(2)?;
    Some(Entry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        dir: OsString::from_vec(dir).into(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
    })
}

/// Blanks, newlines and backslashes in names are written as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 0:21 / / rw shared:1 - ext4 /dev/root rw\n\
        30 22 0:50 / /mnt/a\\040b rw,relatime shared:7 master:2 - fuse.x two\\040words rw,user_id=0\n\
        31 22 0:51 / /mnt/a\\040b rw - tmpfs top rw\n\
        broken line\n";

    #[test]
    fn the_topmost_mount_is_found_under_its_unescaped_name() {
        let top = top_in(TABLE, Path::new("/mnt/a b")).unwrap();
        assert_eq!((top.device, top.source.as_str()), ((0, 51), "top"));
        assert_eq!(top_in(TABLE, Path::new("/")).unwrap().source, "/dev/root");
        assert_eq!(top_in(TABLE, Path::new("/mnt")), None);
    }

    #[test]
    fn only_whole_octal_escapes_are_undone() {
        assert_eq!(unescape(b"a\\134\\0409\\04"), b"a\\ 9\\04");
    }
}
