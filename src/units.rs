//! Quantities that must not be mixed up.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// An inode number (ext2/3/4) or an MFT record number (NTFS).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct InodeNo(pub u64);

/// A file-system block (ext2/3/4: unit of the superblock's block size), counted from the volume's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct BlockNo(pub u64);

impl fmt::Display for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: seconds since 1970-01-01 UTC (negative before) and nanoseconds within the second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch.
    pub secs: i64,
    /// 0..1_000_000_000
    pub nanos: u32,
}

impl Timestamp {
    /// Now, by the host's clock.
    pub fn now() -> Self {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => Self { secs: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() },
            Err(_) => Self::default(),
        }
    }

    /// Nanoseconds since the epoch.
    pub fn as_nanos(self) -> i128 {
        i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// As an integer of nanoseconds since the epoch, the form of the canonical listing.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let ns = self.as_nanos();
        match i64::try_from(ns) {
            Ok(v) => s.serialize_i64(v),
            Err(_) => s.serialize_u64(u64::try_from(ns).unwrap_or_default()),
        }
    }
}

/// RFC 3339 with nanoseconds, UTC: `2026-11-22T23:05:48.123456789Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = civil(self.secs.div_euclid(86_400));
        let s = self.secs.rem_euclid(86_400);
        if !(0..=9999).contains(&y) {
            return write!(
                f,
                "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{:09}Z",
                s / 3600,
                s / 60 % 60,
                s % 60,
                self.nanos
            );
        }
        // Every event has a time: digit by digit is ten times faster than the formatter.
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        for (at, len, value) in
            [(0, 4, y), (5, 2, m), (8, 2, d), (11, 2, s / 3600), (14, 2, s / 60 % 60), (17, 2, s % 60)]
        {
            digits(text.get_mut(at..at + len), value.unsigned_abs());
        }
        digits(text.get_mut(20..29), self.nanos.into());
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Write the last decimal digits of `value` over all of `to`.
fn digits(to: Option<&mut [u8]>, mut value: u64) {
    for digit in to.unwrap_or_default().iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days since 1970-01-01 to (year, month, day) in the proleptic Gregorian calendar,
/// by counting 400-year eras that start on 1 March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc3339() {
        let t = |secs| Timestamp { secs, nanos: 5 }.to_string();
        assert_eq!(t(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(t(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(t(-1), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(t(1_795_388_748), "2026-11-22T23:05:48.000000005Z");
    }
}
