//! Whose are the clusters: which file and stream, and which records of the MFT.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::ntfs::node::Node;
use crate::ntfs::record::NonResident;

/// The name of a stream in UTF-16; empty for the content itself.
pub type StreamName = Arc<[u16]>;

/// Clusters of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owned {
    /// First cluster on the volume.
    pub lcn: u64,
    /// How many.
    pub len: u64,
    /// The file's record.
    pub record: u64,
    /// The stream.
    pub stream: StreamName,
    /// First cluster within the stream.
    pub vcn: u64,
}

#[derive(Clone, Debug)]
struct Piece {
    len: u64,
    record: u64,
    stream: StreamName,
    vcn: u64,
}

/// Owners of clusters by the cluster. Where two claim one, the later claim counts.
#[derive(Debug, Default)]
pub struct Owners {
    pieces: BTreeMap<u64, Piece>,
}

impl Owners {
    /// Note what the streams of `node` hold.
    pub fn give(&mut self, node: &Node) {
        each_run(node, |stream, vcn, lcn, len| {
            self.take_range(lcn..lcn + len, None);
            let piece = Piece { len, record: node.file.id.record(), stream: stream.clone(), vcn };
            self.pieces.insert(lcn, piece);
        });
    }

    /// Forget what the streams of `node` hold, as far as it is still theirs.
    pub fn take(&mut self, node: &Node) {
        each_run(node, |_, _, lcn, len| self.take_range(lcn..lcn + len, Some(node.file.id.record())));
    }

    /// All that meets `clusters`, cut to it.
    pub fn within(&self, clusters: Range<u64>) -> Vec<Owned> {
        let before = self.pieces.range(..clusters.start).next_back();
        let inside = self.pieces.range(clusters.start..clusters.end.max(clusters.start));
        let cut = |(&lcn, p): (&u64, &Piece)| {
            let (start, end) = (lcn.max(clusters.start), (lcn + p.len).min(clusters.end));
            let (stream, vcn) = (p.stream.clone(), p.vcn + (start - lcn.min(start)));
            (start < end).then(|| Owned { lcn: start, len: end - start, record: p.record, stream, vcn })
        };
        before.into_iter().chain(inside).filter_map(cut).collect()
    }

    fn take_range(&mut self, range: Range<u64>, of: Option<u64>) {
        for o in self.within(range).into_iter().filter(|o| of.is_none_or(|r| r == o.record)) {
            let Some((&start, _)) = self.pieces.range(..=o.lcn).next_back() else { continue };
            let Some(piece) = self.pieces.remove(&start) else { continue };
            let (head, end) = (o.lcn - start, o.lcn + o.len);
            if head > 0 {
                self.pieces.insert(start, Piece { len: head, ..piece.clone() });
            }
            if end < start + piece.len {
                let skipped = end - start;
                let rest = Piece { len: piece.len - skipped, vcn: piece.vcn + skipped, ..piece };
                self.pieces.insert(end, rest);
            }
        }
    }
}

fn each_run(node: &Node, mut f: impl FnMut(&StreamName, u64, u64, u64)) {
    for a in node.file.streams() {
        let Some(n) = a.non_resident() else { continue };
        let name: StreamName = a.name.as_ref().into();
        for r in &n.runs {
            if let Some(lcn) = r.lcn {
                f(&name, r.vcn, lcn, r.len);
            }
        }
    }
}

/// Where the MFT lies, by cluster: to find the records that a write touches.
#[derive(Debug, Default)]
pub struct MftMap {
    /// First cluster → length, first cluster within the MFT.
    runs: BTreeMap<u64, (u64, u64)>,
    cluster: u64,
    record: u64,
}

impl MftMap {
    /// Of an MFT that lies at `mft`, with these sizes in bytes.
    pub fn new(mft: &NonResident, cluster: u64, record: u64) -> Self {
        let runs = mft.runs.iter().filter_map(|r| Some((r.lcn?, (r.len, r.vcn)))).collect();
        Self { runs, cluster, record }
    }

    /// The records that the bytes `range` of the volume meet.
    pub fn records(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let clusters = range.start / self.cluster..range.end.div_ceil(self.cluster);
        let before = self.runs.range(..clusters.start).next_back();
        let inside = self.runs.range(clusters.start..clusters.end.max(clusters.start));
        let meet = |(&lcn, &(len, vcn)): (&u64, &(u64, u64))| {
            let (from, to) = (lcn * self.cluster, (lcn + len) * self.cluster);
            let (start, end) = (range.start.max(from), range.end.min(to));
            let offset = |at: u64| (at - from).saturating_add(vcn.saturating_mul(self.cluster));
            (start < end).then(|| offset(start) / self.record..offset(end).div_ceil(self.record))
        };
        before.into_iter().chain(inside).filter_map(meet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::run::Run;

    #[test]
    fn writes_find_their_records() {
        let run = |vcn, lcn, len| Run { vcn, lcn: Some(lcn), len };
        let mft = NonResident { runs: vec![run(0, 4, 2), run(2, 100, 1)], ..NonResident::default() };
        let map = MftMap::new(&mft, 4096, 1024);
        assert_eq!(map.records(&(0..4 * 4096)), []);
        assert_eq!(map.records(&(4 * 4096 + 1023..4 * 4096 + 1025)).first(), Some(&(0..2)));
        assert_eq!(map.records(&(0..1 << 30)), [0..8, 8..12]);
        let small = MftMap::new(&mft, 512, 1024);
        assert_eq!(small.records(&(100 * 512..100 * 512 + 1)).first(), Some(&(1..2)));
    }
}
