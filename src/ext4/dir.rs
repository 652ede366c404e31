//! Directory blocks. Hash-tree directories are read linearly: their index blocks look like one
//! empty entry, and their leaves are ordinary blocks.

use crate::error::{Error, Result};
use crate::tree::Kind;

/// One entry (`struct ext4_dir_entry_2` in Linux `fs/ext4/ext4.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Inode, never 0.
    pub ino: u32,
    /// Raw name, 1..=255 bytes, without `/` and NUL.
    pub name: &'a [u8],
    /// Kind, if recorded.
    pub kind: Option<Kind>,
}

impl Entry<'_> {
    /// `.` or `..`
    pub fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// Call `found` for each entry in use of the directory block `bytes`, which lies at volume byte
/// `at`. Stops at the first contradiction and returns it; what was found before is good.
pub fn parse<'a>(bytes: &'a [u8], at: u64, has_kinds: bool, mut found: impl FnMut(Entry<'a>)) -> Result<()> {
    let mut pos = 0;
    while let Some(rest) = bytes.get(pos..)
        && !rest.is_empty()
    {
        let (entry, rec_len) = one(rest, bytes.len(), at + pos as u64, has_kinds)?;
        if let Some(e) = entry {
            found(e);
        }
        pos += rec_len;
    }
    Ok(())
}

fn one(rest: &[u8], block: usize, at: u64, has_kinds: bool) -> Result<(Option<Entry<'_>>, usize)> {
    let [i0, i1, i2, i3, r0, r1, name_len, kind, names @ ..] = rest else {
        return Err(Error::corrupt("directory entry", at, "8 bytes", rest.len()));
    };
    let rec_len = record_length(u16::from_le_bytes([*r0, *r1]), block);
    if rec_len < 8 || !rec_len.is_multiple_of(4) || rec_len > rest.len() {
        let want = format!("a multiple of 4 from 8 to {}", rest.len());
        return Err(Error::corrupt("directory entry length", at, want, rec_len));
    }
    let ino = u32::from_le_bytes([*i0, *i1, *i2, *i3]);
    if ino == 0 {
        return Ok((None, rec_len));
    }
    let name_len = usize::from(*name_len);
    let name = names.get(..name_len).filter(|_| name_len + 8 <= rec_len && name_len > 0);
    let Some(name) = name else {
        return Err(Error::corrupt("directory entry name length", at, format!("1..={}", rec_len - 8), name_len));
    };
    if name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(Error::corrupt("directory entry name", at, "no NUL and no slash", crate::name::hex(name)));
    }
    Ok((Some(Entry { ino, name, kind: has_kinds.then(|| kind_of(*kind)).flatten() }), rec_len))
}

/// `ext4_rec_len_from_disk`: in 64 KiB blocks the whole block is written as 65535 or 0, and the
/// lowest two bits carry the upper two.
fn record_length(raw: u16, block: usize) -> usize {
    let len = usize::from(raw);
    match raw {
        65535 | 0 if block >= 65536 => block,
        _ if block >= 65536 => len & 65532 | (len & 3) << 16,
        _ => len,
    }
}

/// `EXT4_FT_*`
fn kind_of(file_type: u8) -> Option<Kind> {
    Some(match file_type & 0x0f {
        1 => Kind::File,
        2 => Kind::Dir,
        3 => Kind::Chr,
        4 => Kind::Blk,
        5 => Kind::Fifo,
        6 => Kind::Sock,
        7 => Kind::Symlink,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ino: u32, name: &[u8], rec_len: u16) -> Vec<u8> {
        let mut b = ino.to_le_bytes().to_vec();
        b.extend(rec_len.to_le_bytes());
        b.push(u8::try_from(name.len()).unwrap());
        b.push(1);
        b.extend(name);
        b.resize(usize::from(rec_len).max(b.len()), 0);
        b
    }

    fn names(block: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let mut v = Vec::new();
        let ok = parse(block, 0, true, |e| v.push(e.name.to_vec())).is_ok();
        (v, ok)
    }

    #[test]
    fn entries_before_damage_are_kept() {
        let mut block = entry(11, b"a", 12);
        block.extend(entry(0, b"gone", 12));
        block.extend(entry(12, b"bb", 40));
        assert_eq!(names(&block), (vec![b"a".to_vec(), b"bb".to_vec()], true));
        block.extend(entry(13, b"c", 3));
        assert_eq!(names(&block), (vec![b"a".to_vec(), b"bb".to_vec()], false));
    }

    #[test]
    fn names_that_lie_are_refused() {
        assert_eq!(names(&entry(11, b"a/b", 12)), (vec![], false));
        assert_eq!(names(&entry(11, b"", 12)), (vec![], false));
        assert_eq!(names(&entry(11, b"longer than its record", 12)), (vec![], false));
    }

    #[test]
    fn a_block_of_64_kib_may_be_one_entry() {
        assert_eq!(record_length(65535, 65536), 65536);
        assert_eq!(record_length(0, 65536), 65536);
        assert_eq!(record_length(12, 65536), 12);
        assert_eq!(record_length(0, 4096), 0);
    }
}
