//! Sizes and times as people write them.

use std::time::Duration;

/// `64M`, `2G`, `4096`: bytes, in powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, &[("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)])
        .ok_or_else(|| "write a number of bytes, such as 64M or 2G".into())
}

/// `90s`, `15m`, `12h`, `30d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)])
        .filter(|s| *s > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "write a time, such as 90s, 15m, 12h or 30d".into())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = units.iter().find(|(u, _)| *u == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units() {
        assert_eq!((bytes("0"), bytes("4096"), bytes("2G")), (Ok(0), Ok(4096), Ok(2 << 30)));
        assert!([bytes("G"), bytes("-1"), bytes("1 G"), bytes("99999999999T")].iter().all(Result::is_err));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert!([duration("15"), duration("0s"), duration("1w")].iter().all(Result::is_err));
    }
}
