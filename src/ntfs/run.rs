//! Runs: where the clusters of a non-resident attribute lie ("mapping pairs").

use crate::error::{Error, Result};

/// Clusters of an attribute that lie side by side. All in clusters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First cluster within the attribute.
    pub vcn: u64,
    /// First cluster on the volume; `None`: nowhere, it reads as zeros.
    pub lcn: Option<u64>,
    /// How many.
    pub len: u64,
}

impl Run {
    /// The cluster of the attribute behind the run.
    pub fn end(&self) -> u64 {
        self.vcn.saturating_add(self.len)
    }

    /// What of the run lies in `from..to` (clusters of the attribute).
    pub fn cut(&self, from: u64, to: u64) -> Option<Self> {
        let (start, end) = (self.vcn.max(from), self.end().min(to));
        let lcn = self.lcn.map(|l| l + start.saturating_sub(self.vcn));
        (start < end).then(|| Self { vcn: start, lcn, len: end - start })
    }
}

/// Attributes end before this cluster: Windows counts no further, on volumes and in files.
const MAX_VCN: u64 = 1 << 32;

/// Decode the mapping pairs `bytes`, which stand at volume byte `at`, of an attribute that starts
/// at cluster `vcn`, on a volume of `clusters`. A run without an offset field is sparse; the
/// offset 0 is not (cluster 0 holds the boot sector).
pub fn decode(bytes: &[u8], vcn: u64, clusters: u64, at: u64) -> Result<Vec<Run>> {
    let wrong = |expected: &str, found: String| Err(Error::corrupt("mapping pairs", at, expected, found));
    let (mut runs, mut rest, mut vcn, mut lcn) = (Vec::new(), bytes, vcn, 0_i64);
    while let Some((head, tail)) = rest.split_first().filter(|(head, _)| **head != 0) {
        let (for_len, for_offset) = (usize::from(head & 0xF), usize::from(head >> 4));
        let fields = tail.split_at_checked(for_len).and_then(|(l, t)| Some((l, t.split_at_checked(for_offset)?)));
        let Some((len, (offset, after))) = fields else { return wrong("fields that fit", format!("{head:#04x}")) };
        rest = after;
        let len = match number(len).and_then(|n| u64::try_from(n).ok()) {
            Some(n @ 1..MAX_VCN) if vcn < MAX_VCN => n,
            other => return wrong("a length", format!("{other:?}")),
        };
        let place = if for_offset == 0 {
            None
        } else {
            let moved = number(offset).and_then(|o| lcn.checked_add(o));
            let start = moved.and_then(|l| u64::try_from(l).ok());
            let Some(start) = start.filter(|s| s.checked_add(len).is_some_and(|end| end <= clusters)) else {
                return wrong(&format!("clusters below {clusters}"), format!("{len} from {moved:?}"));
            };
            lcn = moved.unwrap_or_default();
            Some(start)
        };
        push(&mut runs, Run { vcn, lcn: place, len });
        vcn += len;
        if vcn > MAX_VCN {
            return wrong("at most 2^32 clusters", vcn.to_string());
        }
    }
    Ok(runs)
}

/// Add a run, joined with the last one if it goes on from there.
pub fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.end() == run.vcn && last.lcn.map(|l| l + last.len) == run.lcn && last.lcn.is_some() => {
            last.len += run.len;
        }
        Some(last) if last.end() == run.vcn && last.lcn.is_none() && run.lcn.is_none() => last.len += run.len,
        _ => runs.push(run),
    }
}

/// The run that holds cluster `vcn`, cut to start there.
pub fn find(runs: &[Run], vcn: u64) -> Option<Run> {
    let i = runs.partition_point(|r| r.end() <= vcn);
    runs.get(i)?.cut(vcn, u64::MAX).filter(|r| r.vcn == vcn)
}

/// A little-endian two's-complement number of up to 8 bytes.
fn number(bytes: &[u8]) -> Option<i64> {
    let mut all = [if bytes.last()? & 0x80 == 0 { 0 } else { 0xFF }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_relative_and_sparse_by_the_length_of_the_offset() {
        let runs = decode(&[0x11, 4, 0, 0x01, 2, 0x11, 3, 16, 0x11, 1, 0xFE, 0], 0, 100, 0).unwrap();
        let run = |vcn, lcn, len| Run { vcn, lcn, len };
        assert_eq!(runs, [run(0, Some(0), 4), run(4, None, 2), run(6, Some(16), 3), run(9, Some(14), 1)]);
        assert_eq!(find(&runs, 7), Some(run(7, Some(17), 2)));
        assert_eq!(find(&runs, 10), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&[0x11, 4][..], &[0x11, 0, 4], &[0x11, 4, 97], &[0x11, 4, 0xFF], &[0xF1, 1, 1], &[0x11, 0x80, 1]]
        {
            assert!(decode(bytes, 0, 100, 0).is_err(), "{bytes:02x?}");
        }
        assert_eq!(decode(&[], 0, 100, 0).unwrap(), []);
    }
}
