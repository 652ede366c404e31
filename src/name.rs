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
