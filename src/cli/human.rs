//! Files as people read them. All names are escaped: a guest chose them.

use crate::listing::Record;
use crate::name::escape;
use crate::tree::{Attr, Kind};

/// A guest's name, safe on a terminal.
pub fn name(bytes: &[u8]) -> String {
    escape(bytes)
}

/// `-rwxr-xr-x`
pub fn mode(a: &Attr) -> String {
    let mode = a.mode.unwrap_or(0);
    let mut text = String::with_capacity(10);
    text.push(letter(a.kind));
    for (shift, special, (with_x, without)) in
        [(6, 0o4000, ('s', 'S')), (3, 0o2000, ('s', 'S')), (0, 0o1000, ('t', 'T'))]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => with_x,
            (false, true) => without,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Sock => 's',
        Kind::Chr => 'c',
        Kind::Blk => 'b',
        Kind::Reparse => 'r',
    }
}

/// A line like those of `ls -l`, for a file shown as `shown`.
pub fn line(r: &Record, shown: &[u8]) -> String {
    let mut text = r.attr.as_ref().map_or_else(|| "??????????".into(), columns);
    if r.is_top {
        text = "dr-xr-xr-x".into();
    }
    text.push(' ');
    text.push_str(&escape(shown));
    if let Some(target) = &r.target {
        text.push_str(" -> ");
        text.push_str(&escape(target));
    }
    if let Some(hash) = &r.sha256 {
        text.push_str("  sha256:");
        text.push_str(&crate::name::hex(hash));
    }
    if let Some(error) = &r.error {
        text.push_str("  [");
        text.push_str(&escape(error.as_bytes()));
        text.push(']');
    }
    text
}

fn columns(a: &Attr) -> String {
    let owner = |id: Option<u32>| id.map_or_else(|| "-".into(), |i| i.to_string());
    let size = a.rdev.map_or_else(|| a.size.to_string(), |(major, minor)| format!("{major}, {minor}"));
    let (uid, gid, mode) = (owner(a.uid), owner(a.gid), mode(a));
    let time = a.mtime.to_string();
    let time = time.get(..19).unwrap_or(&time).replace('T', " ");
    format!("{mode} {:3} {uid:>5} {gid:>5} {size:>12} {time}", a.nlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn modes_are_spelled_like_ls() {
        let tree = crate::fake::Fake::new([(2, crate::fake::Node::Dir(vec![]))]);
        let attr = tree.attr(tree.root()).unwrap();
        let spelled = |bits| mode(&Attr { mode: Some(bits), ..attr.clone() });
        assert_eq!(spelled(0o755), "drwxr-xr-x");
        assert_eq!(spelled(0o7640), "drwSr-S--T");
        assert_eq!(spelled(0o7777), "drwsrwsrwt");
    }
}
