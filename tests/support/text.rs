//! Small conversions that the judges share.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes that a hex text stands for.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(|| format!("not hex: {text:.40}"));
    if !text.len().is_multiple_of(2) {
        return Err(format!("odd hex: {text:.40}"));
    }
    text.as_bytes().chunks(2).map(|p| Ok((digit(p[0])? * 16 + digit(p[1])?) as u8)).collect()
}

/// A path for a report: readable, unambiguous, bounded.
pub fn show(path: &[u8]) -> String {
    let text = path.escape_ascii().to_string();
    if text.len() <= 110 {
        text
    } else {
        format!("{}…{} ({} bytes)", &text[..40], &text[text.len() - 50..], path.len())
    }
}

/// `dir` and one more name of raw bytes.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = if dir == b"/" { Vec::new() } else { dir.to_vec() };
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// The directory and the last name of an absolute path other than `/`.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|b| *b == b'/')?;
    let name = &path[at + 1..];
    (!name.is_empty()).then(|| (if at == 0 { &path[..1] } else { &path[..at] }, name))
}

/// Where `path` of a guest lies under the mount point `root`.
pub fn under(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}
