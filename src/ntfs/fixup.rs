//! Fix-ups: records and index blocks carry in the last two bytes of every 512 a number that
//! changes with each write; what stood there lies in an array. So a write that reached the disk
//! only in part can be told.

use crate::error::{Error, Result};

const STRIDE: usize = 512;

/// Check that `bytes`, which stand at volume byte `at`, are a whole structure with this `magic`,
/// and put back what stood behind the fix-ups.
///
/// Errors: another magic, or a torn write.
pub fn apply(bytes: &mut [u8], magic: &[u8; 4], what: &'static str, at: u64) -> Result<()> {
    if bytes.get(..4) != Some(magic) {
        let found = format!("{:02x?}", bytes.get(..4).unwrap_or_default());
        return Err(Error::corrupt(what, at, String::from_utf8_lossy(magic), found));
    }
    let offset = usize::from(u16_at(bytes, 4));
    let count = usize::from(u16_at(bytes, 6));
    let strides = bytes.len() / STRIDE;
    let array_end = offset.saturating_add(count.saturating_mul(2));
    if count != strides + 1 || offset < 8 || offset % 2 != 0 || array_end > STRIDE - 2 {
        let found = format!("{count} at {offset}");
        return Err(Error::corrupt(what, at + 4, format!("{} fix-ups in the first 510 bytes", strides + 1), found));
    }
    let number = u16_at(bytes, offset);
    for n in 1..=strides {
        let end = n * STRIDE - 2;
        let stands = u16_at(bytes, end);
        if stands != number {
            return Err(Error::corrupt(
                what,
                at + end as u64,
                format!("fix-up {number:#06x}"),
                format!("{stands:#06x}"),
            ));
        }
    }
    for n in 1..=strides {
        let value = u16_at(bytes, offset + 2 * n).to_le_bytes();
        if let Some(place) = bytes.get_mut(n * STRIDE - 2..n * STRIDE) {
            place.copy_from_slice(&value);
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |b| u16::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Vec<u8> {
        let mut b = vec![7; 1024];
        b[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        b[0x30..0x36].copy_from_slice(&[9, 0, 1, 2, 3, 4]);
        b[510..512].copy_from_slice(&[9, 0]);
        b[1022..].copy_from_slice(&[9, 0]);
        b
    }

    #[test]
    fn ends_of_sectors_are_restored() {
        let mut b = block();
        apply(&mut b, b"FILE", "record", 0).unwrap();
        assert_eq!((&b[510..512], &b[1022..]), (&[1, 2][..], &[3, 4][..]));
    }

    #[test]
    fn a_torn_write_is_told() {
        let mut b = block();
        b[1022] = 8;
        assert!(apply(&mut b, b"FILE", "record", 0).is_err());
        assert_eq!(b[510], 9, "nothing is changed");
        b[4..6].copy_from_slice(&[0xFF, 0xFF]);
        assert!(apply(&mut b, b"FILE", "record", 0).is_err());
        assert!(apply(&mut b, b"INDX", "block", 0).is_err());
    }
}
