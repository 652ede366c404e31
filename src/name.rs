//! Names that guests chose: raw bytes, mostly UTF-8, never trusted.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// An absolute path in a guest: `/`, or `/` and names joined by `/`. Raw bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GuestPath(pub Vec<u8>);

impl GuestPath {
    /// The path as text, with U+FFFD where it is not UTF-8.
    pub fn lossy(&self) -> Cow<'_, str> {
        lossy(&self.0)
    }

    /// The exact bytes as hex, if the text form loses something.
    pub fn hex_if_not_utf8(&self) -> Option<String> {
        std::str::from_utf8(&self.0).is_err().then(|| hex(&self.0))
    }

    /// This path with one more name.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut p = self.0.clone();
        if p.last() != Some(&b'/') {
            p.push(b'/');
        }
        p.extend_from_slice(name);
        Self(p)
    }
}

/// Text with U+FFFD in place of what is not UTF-8.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A name for a terminal, on one line: control characters, marks that reorder or hide text, and
/// bytes that are not UTF-8 become `\n`, `\u{202e}`, `\xff`; a backslash becomes two.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&one_line(&chunk.valid().replace('\\', r"\\")));
        for b in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

/// Text for a terminal, on one line: as [`escape`], but backslashes stay, so that text of our own
/// may hold names that were escaped before.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_treacherous(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Marks of Unicode that reorder the text around them, break lines, or show nothing.
fn is_treacherous(c: char) -> bool {
    matches!(c,
        '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        // Writing to a String cannot fail.
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Extended attributes as a JSON object of hex values.
pub struct XattrMap<'a>(pub &'a [(Vec<u8>, Vec<u8>)]);

impl Serialize for XattrMap<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            m.serialize_entry(&lossy(name), &hex(value))?;
        }
        m.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_terminal_is_escaped() {
        assert_eq!(escape("grün 日本 a b".as_bytes()), "grün 日本 a b");
        assert_eq!(escape(b"a\x1b[2Jb\n\x7f"), r"a\u{1b}[2Jb\n\u{7f}");
        assert_eq!(escape("x\u{202e}gpj.exe\u{9b}".as_bytes()), r"x\u{202e}gpj.exe\u{9b}");
        assert_eq!(escape(b"\xff\\"), r"\xff\\");
    }

    proptest::proptest! {
        #[test]
        fn escaped_names_are_one_printable_line(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            proptest::prop_assert!(!escape(&bytes).chars().any(char::is_control));
        }
    }
}
