//! Names: UTF-16 that may hold unpaired surrogates, as WTF-8.

/// As WTF-8: UTF-8, and unpaired surrogates in the same scheme (three bytes that are no UTF-8).
pub fn wtf8(units: &[u16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(units.len());
    for c in char::decode_utf16(units.iter().copied()) {
        match c {
            Ok(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(e) => {
                let [high, low] = e.unpaired_surrogate().to_be_bytes();
                out.extend([0xE0 | high >> 4, 0x80 | (high & 0xF) << 2 | low >> 6, 0x80 | low & 0x3F]);
            }
        }
    }
    out
}

/// Whether a name can stand in a path: not empty, no `/`, no NUL, and not `.` or `..`.
pub fn is_sane(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|b| matches!(b, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_survive() {
        assert_eq!(wtf8(&"aé漢😀".encode_utf16().collect::<Vec<_>>()), "aé漢😀".as_bytes());
        assert_eq!(wtf8(&[0x61, 0xD800, 0x62, 0xDFFF]), [0x61, 0xED, 0xA0, 0x80, 0x62, 0xED, 0xBF, 0xBF]);
    }

    #[test]
    fn traps_are_no_names() {
        assert!(is_sane(b"a.b") && is_sane(b"..."));
        assert!(![&b""[..], b".", b"..", b"a/b", b"a\0"].into_iter().any(is_sane));
    }
}
