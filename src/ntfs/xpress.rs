//! LZ77+Huffman, which Windows calls XPRESS (\[MS-XCA\] 2.1 and 2.2).

use super::bits::{Bits, Code, Wrong, repeat};

/// Unpack one chunk into `plain`, which must come out full.
pub fn decompress(packed: &[u8], plain: &mut [u8]) -> Result<(), Wrong> {
    let (table, data) = packed.split_at_checked(256).ok_or("no table of code words")?;
    let lengths: Vec<u8> = table.iter().flat_map(|b| [b & 0xF, b >> 4]).collect();
    let code = Code::new(&lengths)?;
    let mut bits = Bits::new(data);
    let mut at = 0;
    while at < plain.len() {
        let symbol = code.read(&mut bits)?;
        if bits.is_over() {
            return Err("the data ends too early");
        }
        match u8::try_from(symbol) {
            Ok(literal) => {
                *plain.get_mut(at).ok_or("too many bytes")? = literal;
                at += 1;
            }
            Err(_) => at = reference(&mut bits, symbol - 256, plain, at)?,
        }
    }
    Ok(())
}

fn reference(bits: &mut Bits<'_>, symbol: u16, plain: &mut [u8], at: usize) -> Result<usize, Wrong> {
    // Fills first: the bytes of a long length stand behind the words that are held now.
    let distance_bits = u32::from(symbol >> 4);
    let distance = 1 << distance_bits | bits.take(distance_bits);
    let mut length = u32::from(symbol & 0xF);
    if length == 0xF {
        length += u32::from(bits.byte()?);
        if length == 0xF + 0xFF {
            length = bits.word()?;
        }
    }
    let index = |v: u32| usize::try_from(v).map_err(|_| "a reference past the end");
    repeat(plain, at, index(distance)?, index(length)? + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn noise_does_no_harm(packed in proptest::collection::vec(proptest::num::u8::ANY, 200..3000)) {
            let _ = decompress(&packed, &mut [0; 4096]);
        }
    }
}
