//! What is wrong with a listing, in words.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::record::{Listing, Record, Stream};
use super::text::show;

/// More lines than these tell nothing new.
const MOST: usize = 16;

/// Every difference of the two listings, fewest words first to find the cause: missing files,
/// files too many, then fields. Fields that one side does not know are not compared.
pub fn diff(expected: &Listing, actual: &Listing) -> Vec<String> {
    let mut out = Vec::new();
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (expected.keys().collect(), actual.keys().collect());
    out.extend(a.difference(&b).map(|p| format!("missing: {} ({})", show(p), brief(&expected[*p]))));
    out.extend(b.difference(&a).map(|p| format!("too many: {} ({})", show(p), brief(&actual[*p]))));
    for path in a.intersection(&b) {
        fields(&show(path), &expected[*path], &actual[*path], &mut out);
    }
    bound(out)
}

/// Nothing, or a report with a heading for an assertion.
pub fn report(what: &str, expected: &Listing, actual: &Listing) -> Result<(), String> {
    let lines = diff(expected, actual);
    if lines.is_empty() {
        return Ok(());
    }
    Err(format!("{what}: {} files expected, {} found\n  {}", expected.len(), actual.len(), lines.join("\n  ")))
}

/// Panic with the report, if there is something to report.
pub fn must_equal(what: &str, expected: &Listing, actual: &Listing) {
    report(what, expected, actual).unwrap_or_else(|e| panic!("{e}"));
}

/// The errors of several judgements in one.
pub fn all_of<const N: usize>(results: [Result<(), String>; N]) -> Result<(), String> {
    let errors: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

fn brief(r: &Record) -> String {
    format!("{} ino {:?} nlink {:?} size {:?}", r.kind, r.ino, r.nlink, r.size)
}

fn fields(path: &str, e: &Record, a: &Record, out: &mut Vec<String>) {
    let mut check = |name: &str, e: &dyn Debug, a: &dyn Debug, same: bool| {
        if !same {
            out.push(format!("{path}: {name} should be {}, is {}", short(e), short(a)));
        }
    };
    check("type", &e.kind, &a.kind, e.kind == a.kind);
    check("error", &e.error, &a.error, e.error == a.error);
    macro_rules! compare {
        ($($field:ident)+) => {$(
            check(stringify!($field), &e.$field, &a.$field, both(&e.$field, &a.$field));
        )+};
    }
    compare!(size ino nlink mode uid gid mtime atime ctime crtime rdev xattrs reparse_tag sha256);
    check("streams", &e.streams, &a.streams, same_streams(e, a));
    let text = |t: &Option<Vec<u8>>| t.as_deref().map(show);
    check("target", &text(&e.target), &text(&a.target), both(&e.target, &a.target));
}

/// Streams whose content one side does not know are not compared by it.
fn same_streams(e: &Record, a: &Record) -> bool {
    let (Some(e), Some(a)) = (&e.streams, &a.streams) else { return true };
    let same = |((n, s), (m, t)): ((&String, &Stream), (&String, &Stream))| {
        n == m && s.size == t.size && both(&s.sha256, &t.sha256)
    };
    e.len() == a.len() && e.iter().zip(a).all(same)
}

fn short(value: &dyn Debug) -> String {
    format!("{value:?}").chars().take(200).collect()
}

fn both<T: PartialEq>(e: &Option<T>, a: &Option<T>) -> bool {
    e.is_none() || a.is_none() || e == a
}

fn bound(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST);
    if more > 0 {
        lines.truncate(MOST);
        lines.push(format!("… and {more} more"));
    }
    lines
}
