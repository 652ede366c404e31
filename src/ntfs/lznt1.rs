//! LZNT1, the compression of NTFS files (\[MS-XCA\] 2.5).

/// Unpack `packed` into `plain`, whose rest is filled with zeros.
///
/// Errors: what is wrong with it.
pub fn decompress(packed: &[u8], plain: &mut [u8]) -> Result<(), &'static str> {
    let mut rest = packed;
    for block in plain.chunks_mut(CHUNK) {
        let header = match rest.split_first_chunk::<2>() {
            Some((h, after)) => {
                rest = after;
                u16::from_le_bytes(*h)
            }
            None => 0,
        };
        if header == 0 {
            // The end: nothing follows, also no further header.
            rest = &[];
            block.fill(0);
            continue;
        }
        let size = usize::from(header & 0xFFF) + 1;
        let (body, after) = rest.split_at_checked(size).ok_or("a chunk longer than the data")?;
        rest = after;
        let filled = if header & 0x8000 != 0 { unpack(body, block)? } else { store(body, block) };
        if let Some(zeros) = block.get_mut(filled..) {
            zeros.fill(0);
        }
    }
    Ok(())
}

/// Plain bytes per chunk.
const CHUNK: usize = 4096;

fn store(body: &[u8], block: &mut [u8]) -> usize {
    super::data::copy_from(body, 0, block)
}

/// Unpack one chunk; how many bytes came of it.
fn unpack(body: &[u8], block: &mut [u8]) -> Result<usize, &'static str> {
    let mut bytes = body.iter().copied();
    let mut at = 0;
    while let Some(flags) = bytes.next() {
        for bit in 0..8 {
            let Some(byte) = bytes.next() else { return Ok(at) };
            if flags >> bit & 1 == 0 {
                *block.get_mut(at).ok_or("a chunk of more than 4096 bytes")? = byte;
                at += 1;
            } else {
                let high = bytes.next().ok_or("half a reference")?;
                at = copy(u16::from_le_bytes([byte, high]), block, at)?;
            }
        }
    }
    Ok(at)
}

/// Carry out one reference. Its distance has as many bits as the bytes so far need, at least four;
/// the length has the others.
fn copy(reference: u16, block: &mut [u8], at: usize) -> Result<usize, &'static str> {
    let mut length_bits = 12;
    while at > 1 << (16 - length_bits) {
        length_bits -= 1;
    }
    let distance = usize::from(reference >> length_bits) + 1;
    let length = usize::from(reference & ((1 << length_bits) - 1)) + 3;
    let from = at.checked_sub(distance).ok_or("a reference before the chunk")?;
    for n in 0..length {
        let byte = block.get(from + n).copied().ok_or("a reference past the chunk")?;
        *block.get_mut(at + n).ok_or("a chunk of more than 4096 bytes")? = byte;
    }
    Ok(at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        // [MS-XCA] 3.3
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let mut plain = vec![1; 200];
        decompress(&packed, &mut plain).unwrap();
        let expected = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E \
            F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D";
        assert_eq!(&plain[..expected.len()], expected.as_bytes());
        assert!(plain[expected.len() + 1..].iter().all(|b| *b == 0));
    }

    proptest::proptest! {
        #[test]
        fn noise_does_no_harm(packed in proptest::collection::vec(proptest::num::u8::ANY, 0..9000)) {
            let _ = decompress(&packed, &mut [0; 16384]);
        }
    }
}
