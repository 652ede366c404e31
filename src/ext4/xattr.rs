//! Extended attributes, in the inode and in a block of their own (Linux `fs/ext4/xattr.h`).

use crate::error::{Error, Result};
use crate::tree::Xattr;

/// Starts an attribute block, and the attribute area of an inode.
pub const MAGIC: u32 = 0xEA02_0000;
const BLOCK_HEADER: usize = 32;
const INODE_HEADER: usize = 4;

/// An attribute whose value may lie elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Full name (`user.x`).
    pub name: Vec<u8>,
    /// Name index as stored.
    pub index: u8,
    /// Where the value is.
    pub value: Value,
}

/// Where a value is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Beside the entry.
    Here(Vec<u8>),
    /// In an inode of its own, with its length (feature ea_inode).
    Inode(u32, u64),
}

/// Entries of an attribute block at volume byte `at`.
pub fn parse_block(bytes: &[u8], at: u64) -> Result<Vec<Entry>> {
    check_magic(bytes, at)?;
    entries(bytes.get(BLOCK_HEADER..).unwrap_or_default(), bytes, at)
}

/// Entries of an inode's attribute area at volume byte `at`; value offsets count from behind the magic.
pub fn parse_inode(bytes: &[u8], at: u64) -> Result<Vec<Entry>> {
    check_magic(bytes, at)?;
    let area = bytes.get(INODE_HEADER..).unwrap_or_default();
    entries(area, area, at)
}

fn check_magic(bytes: &[u8], at: u64) -> Result<()> {
    match bytes.first_chunk::<4>().map(|m| u32::from_le_bytes(*m)) {
        Some(MAGIC) => Ok(()),
        other => Err(Error::corrupt("attribute magic", at, "0xea020000", format!("{other:x?}"))),
    }
}

fn entries(mut list: &[u8], values: &[u8], at: u64) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    while let Some((head, rest)) = list.split_first_chunk::<16>() {
        let [name_len, index, o0, o1, i0, i1, i2, i3, s0, s1, s2, s3, ..] = *head;
        if [name_len, index, o0, o1] == [0; 4] {
            break;
        }
        let name = rest.get(..usize::from(name_len));
        let name = name.ok_or_else(|| Error::corrupt("attribute name", at, "within its area", name_len))?;
        let offset = usize::from(u16::from_le_bytes([o0, o1]));
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let inode = u32::from_le_bytes([i0, i1, i2, i3]);
        let value = if inode != 0 {
            Value::Inode(inode, size.into())
        } else {
            let end = offset.checked_add(size as usize);
            let bytes = end.and_then(|e| values.get(offset..e));
            let bytes = bytes.ok_or_else(|| Error::corrupt("attribute value", at, "within its area", size))?;
            Value::Here(bytes.to_vec())
        };
        all.push(Entry { name: [prefix(index), name].concat(), index, value });
        list = rest.get(usize::from(name_len).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(all)
}

/// `EXT4_XATTR_INDEX_*`
fn prefix(index: u8) -> &'static [u8] {
    match index {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        7 => b"system.",
        8 => b"system.richacl",
        9 => b"encryption.",
        _ => b"unknown.",
    }
}

const INDEX_ACL_ACCESS: u8 = 2;
const INDEX_ACL_DEFAULT: u8 = 3;
const INDEX_ENCRYPTION: u8 = 9;

/// What `listxattr` and `getxattr` show of an entry with this stored value; `None` for those that
/// the kernel keeps to itself.
pub fn shown(entry: &Entry, value: Vec<u8>) -> Option<Xattr> {
    if entry.name == b"system.data" || entry.index == INDEX_ENCRYPTION {
        return None;
    }
    let acl = matches!(entry.index, INDEX_ACL_ACCESS | INDEX_ACL_DEFAULT);
    let value = if acl { acl_to_xattr(&value).unwrap_or(value) } else { value };
    Some((entry.name.clone(), value))
}

/// ext4 stores access-control lists in a form of its own, version 1, with ids only where a tag
/// has one; `getxattr` shows version 2 (Linux `fs/ext4/acl.c`, `uapi/linux/posix_acl_xattr.h`).
fn acl_to_xattr(stored: &[u8]) -> Option<Vec<u8>> {
    const NAMED_USER: u16 = 0x02;
    const NAMED_GROUP: u16 = 0x08;
    let (version, mut rest) = stored.split_first_chunk::<4>()?;
    if *version != 1u32.to_le_bytes() {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    while let Some((entry, tail)) = rest.split_first_chunk::<4>() {
        out.extend_from_slice(entry);
        let [t0, t1, ..] = *entry;
        let named = matches!(u16::from_le_bytes([t0, t1]), NAMED_USER | NAMED_GROUP);
        let (id, tail) = if named { tail.split_first_chunk::<4>()? } else { (&[0xff; 4], tail) };
        out.extend_from_slice(id);
        rest = tail;
    }
    rest.is_empty().then_some(out)
}
