//! The bytes of a value: in the record, in clusters, sparse, or compressed with LZNT1.

use super::lznt1;
use super::record::{NonResident, Value};
use super::run;
use super::volume::Volume;
use crate::error::{Error, Result};

/// Fill `buf` with the bytes of `value` from `offset` on; how many there were: fewer than asked for
/// only at its end. Holes and what lies past the valid length read as zeros.
pub fn read(volume: &Volume, value: &Value, offset: u64, buf: &mut [u8]) -> Result<usize> {
    match value {
        Value::Resident(bytes) => Ok(copy_from(bytes, offset, buf)),
        Value::NonResident(n) => read_non_resident(volume, n, offset, buf),
    }
}

/// Copy what `bytes` hold from `offset` on.
pub fn copy_from(bytes: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|o| bytes.get(o..)).unwrap_or_default();
    let len = rest.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
        to.copy_from_slice(from);
    }
    len
}

fn read_non_resident(volume: &Volume, n: &NonResident, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let len = to_usize(n.size.saturating_sub(offset)).min(buf.len());
    let valid = to_usize(n.valid.saturating_sub(offset)).min(len);
    let (stored, zeros) = buf.get_mut(..len).unwrap_or_default().split_at_mut(valid);
    zeros.fill(0);
    if n.unit == 0 {
        read_clusters(volume, n, offset, stored)?;
    } else {
        read_compressed(volume, n, offset, stored)?;
    }
    Ok(len)
}

/// Fill `buf` with what the clusters of `n` hold from byte `offset` on, whatever its lengths say.
pub fn read_clusters(volume: &Volume, n: &NonResident, offset: u64, buf: &mut [u8]) -> Result<()> {
    let cluster = volume.cluster_size();
    let (mut at, mut rest) = (offset, buf);
    while !rest.is_empty() {
        let Some(run) = run::find(&n.runs, at / cluster) else {
            return Err(Error::corrupt("runs of an attribute", at, "a run for this byte of it", "none"));
        };
        let within = at % cluster;
        let here = to_usize(run.len.saturating_mul(cluster) - within).min(rest.len());
        let (now, later) = std::mem::take(&mut rest).split_at_mut(here);
        match run.lcn {
            None => now.fill(0),
            Some(lcn) => {
                let place = lcn * cluster + within;
                let read = volume.disk().read_at(place, now);
                read.map_err(|source| Error::Io { what: "clusters", at: place, source })?;
            }
        }
        at += here as u64;
        rest = later;
    }
    Ok(())
}

fn read_compressed(volume: &Volume, n: &NonResident, offset: u64, buf: &mut [u8]) -> Result<()> {
    let unit = n.unit.saturating_mul(volume.cluster_size());
    let (mut at, mut rest) = (offset, buf);
    while !rest.is_empty() {
        let within = at % unit;
        let here = to_usize(unit - within).min(rest.len());
        let (now, later) = std::mem::take(&mut rest).split_at_mut(here);
        read_unit(volume, n, at / unit, to_usize(within), now)?;
        at += here as u64;
        rest = later;
    }
    Ok(())
}

/// A compression unit with all its clusters is stored as it is, one without any is zeros, and one
/// with some holds compressed data in those.
fn read_unit(volume: &Volume, n: &NonResident, unit: u64, skip: usize, buf: &mut [u8]) -> Result<()> {
    let cluster = volume.cluster_size();
    let (first, end) = (unit.saturating_mul(n.unit), (unit + 1).saturating_mul(n.unit));
    let start = n.runs.partition_point(|r| r.end() <= first);
    let pieces = n.runs.iter().skip(start).map_while(|r| r.cut(first, end));
    let stored: u64 = pieces.filter(|r| r.lcn.is_some()).map(|r| r.len).sum();
    if stored == 0 {
        buf.fill(0);
        return Ok(());
    }
    if stored == n.unit {
        return read_clusters(volume, n, first.saturating_mul(cluster).saturating_add(skip as u64), buf);
    }
    let mut packed = vec![0; to_usize(stored.saturating_mul(cluster))];
    read_clusters(volume, n, first.saturating_mul(cluster), &mut packed)?;
    let mut plain = vec![0; to_usize(n.unit.saturating_mul(cluster))];
    let at = volume.place(n, first.saturating_mul(cluster)).unwrap_or_default();
    lznt1::decompress(&packed, &mut plain).map_err(|why| Error::corrupt("compressed data", at, "LZNT1", why))?;
    copy_from(&plain, skip as u64, buf);
    Ok(())
}

/// As an index; too large is the largest.
pub fn to_usize(v: u64) -> usize {
    usize::try_from(v).unwrap_or(usize::MAX)
}
