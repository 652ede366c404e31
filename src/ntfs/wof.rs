//! Files that Windows compressed behind its file system's back (WOF, "compact OS"): a reparse point
//! says how, a named stream holds the chunks, and the unnamed stream has only a length.

use super::data::{self, copy_from, to_usize};
use super::record::Attribute;
use super::volume::Volume;
use super::{lzx, xpress};
use crate::error::{Error, Result};

/// Name of the stream with the chunks.
pub const STREAM: &str = "WofCompressedData";

/// How a file was compressed (`FILE_PROVIDER_COMPRESSION_…`, Windows `ntifs.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// XPRESS, 4 KiB.
    Xpress4k,
    /// LZX, 32 KiB.
    Lzx,
    /// XPRESS, 8 KiB.
    Xpress8k,
    /// XPRESS, 16 KiB.
    Xpress16k,
}

impl Algorithm {
    /// By its number in the reparse point.
    pub fn from_number(n: u32) -> Option<Self> {
        [Self::Xpress4k, Self::Lzx, Self::Xpress8k, Self::Xpress16k].get(usize::try_from(n).ok()?).copied()
    }

    /// Plain bytes per chunk.
    fn chunk(self) -> u64 {
        match self {
            Self::Xpress4k => 4 << 10,
            Self::Xpress8k => 8 << 10,
            Self::Xpress16k => 16 << 10,
            Self::Lzx => 32 << 10,
        }
    }
}

/// Read from `offset` on of a file of `size` plain bytes whose chunks are in `packed`.
pub fn read(
    volume: &Volume,
    packed: &Attribute,
    algorithm: Algorithm,
    size: u64,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let len = to_usize(size.saturating_sub(offset)).min(buf.len());
    let (mut at, mut rest) = (offset, buf.get_mut(..len).unwrap_or_default());
    let chunk = algorithm.chunk();
    while !rest.is_empty() {
        let plain = read_chunk(volume, packed, algorithm, size, at / chunk)?;
        let n = copy_from(&plain, at % chunk, rest);
        if n == 0 {
            return Err(Error::corrupt("compressed chunk", at, "bytes", "none"));
        }
        rest = rest.split_at_mut(n).1;
        at += n as u64;
    }
    Ok(len)
}

/// Chunk `n`. Their offsets stand in front: of all but the first, from the end of the table on.
fn read_chunk(volume: &Volume, packed: &Attribute, algorithm: Algorithm, size: u64, n: u64) -> Result<Vec<u8>> {
    let chunk = algorithm.chunk();
    let chunks = size.div_ceil(chunk);
    let width: u64 = if size > u64::from(u32::MAX) { 8 } else { 4 };
    let table = (chunks - 1) * width;
    let start = if n == 0 { 0 } else { entry(volume, packed, width, n - 1)? };
    let end = if n + 1 < chunks { entry(volume, packed, width, n)? } else { packed.size().saturating_sub(table) };
    let plain_len = chunk.min(size - n * chunk);
    let packed_len = end.checked_sub(start).filter(|l| (1..=plain_len).contains(l));
    let packed_len = packed_len.ok_or_else(|| {
        Error::corrupt("compressed chunk", n * chunk, format!("1 to {plain_len} bytes"), format!("{start} to {end}"))
    })?;
    let mut bytes = vec![0; to_usize(packed_len)];
    exactly(volume, packed, table.saturating_add(start), &mut bytes)?;
    if packed_len == plain_len {
        return Ok(bytes);
    }
    let mut plain = vec![0; to_usize(plain_len)];
    let unpacked = match algorithm {
        Algorithm::Lzx => lzx::decompress(&bytes, &mut plain),
        _ => xpress::decompress(&bytes, &mut plain),
    };
    unpacked.map_err(|why| Error::corrupt("compressed chunk", n * chunk, format!("{algorithm:?}"), why))?;
    Ok(plain)
}

fn entry(volume: &Volume, packed: &Attribute, width: u64, n: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    let field = bytes.get_mut(..to_usize(width)).unwrap_or_default();
    exactly(volume, packed, n.saturating_mul(width), field)?;
    Ok(u64::from_le_bytes(bytes))
}

fn exactly(volume: &Volume, packed: &Attribute, offset: u64, buf: &mut [u8]) -> Result<()> {
    let wanted = buf.len();
    match data::read(volume, &packed.value, offset, buf)? {
        n if n == wanted => Ok(()),
        n => Err(Error::corrupt("compressed chunks", offset, format!("{wanted} bytes"), n)),
    }
}
