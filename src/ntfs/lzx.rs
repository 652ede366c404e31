//! LZX as Windows image files and WOF use it: chunks of 32 KiB, each on its own (\[MS-PATCH\] tells
//! the format; in this variant a block's size is one bit or 16, and calls are translated for a
//! file of 12,000,000 bytes).

use super::bits::{Bits, Code, Wrong, repeat};

/// Offset slots of a window of 32 KiB.
const SLOTS: usize = 30;
const MAIN: usize = 256 + 8 * SLOTS;
const LENGTHS: usize = 249;
/// The usual size of a block.
const BLOCK: usize = 32 << 10;
const TRANSLATION: i32 = 12_000_000;

/// Unpack one chunk into `plain`, which must come out full.
pub fn decompress(packed: &[u8], plain: &mut [u8]) -> Result<(), Wrong> {
    let mut state = State { recent: [1; 3], main: [0; MAIN], lengths: [0; LENGTHS] };
    let mut bits = Bits::new(packed);
    let mut at = 0;
    while at < plain.len() {
        at = state.block(&mut bits, plain, at)?;
    }
    undo_calls(plain);
    Ok(())
}

/// What one block leaves for the next.
struct State {
    recent: [u32; 3],
    main: [u8; MAIN],
    lengths: [u8; LENGTHS],
}

impl State {
    fn block(&mut self, bits: &mut Bits<'_>, plain: &mut [u8], at: usize) -> Result<usize, Wrong> {
        let kind = bits.take(3);
        let size = if bits.take(1) == 1 { BLOCK } else { usize::try_from(bits.take(16)).unwrap_or(0) };
        let end = at.checked_add(size).filter(|e| size > 0 && *e <= plain.len()).ok_or("a block of a wrong size")?;
        match kind {
            1 => self.coded(bits, plain, at, end, false),
            2 => self.coded(bits, plain, at, end, true),
            3 => self.stored(bits, plain, at, end),
            _ => Err("a block of an unknown kind"),
        }
    }

    fn stored(&mut self, bits: &mut Bits<'_>, plain: &mut [u8], at: usize, end: usize) -> Result<usize, Wrong> {
        bits.align();
        for r in &mut self.recent {
            *r = bits.word()? | bits.word()? << 16;
        }
        let bytes = bits.bytes(end - at)?;
        plain.get_mut(at..end).ok_or("too many bytes")?.copy_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            // Padding; a last block may lack it.
            let _ = bits.byte();
        }
        Ok(end)
    }

    fn coded(
        &mut self,
        bits: &mut Bits<'_>,
        plain: &mut [u8],
        mut at: usize,
        end: usize,
        aligned: bool,
    ) -> Result<usize, Wrong> {
        let aligned = aligned.then(|| aligned_code(bits)).transpose()?;
        let (literals, matches) = self.main.split_at_mut(256);
        read_lengths(bits, literals)?;
        read_lengths(bits, matches)?;
        read_lengths(bits, &mut self.lengths)?;
        let (main, lengths) = (Code::new(&self.main)?, Code::new(&self.lengths)?);
        while at < end {
            let symbol = main.read(bits)?;
            if bits.is_over() {
                return Err("the data ends too early");
            }
            if let Ok(literal) = u8::try_from(symbol) {
                *plain.get_mut(at).ok_or("too many bytes")? = literal;
                at += 1;
                continue;
            }
            let (slot, header) = ((symbol - 256) >> 3, symbol & 7);
            let longer = if header == 7 { lengths.read(bits)? } else { 0 };
            let distance = self.distance(bits, slot, aligned.as_ref())?;
            at = repeat(plain, at, distance, usize::from(header + longer) + 2)?;
        }
        Ok(at)
    }

    /// The first three slots are the recent distances, which then come first.
    fn distance(&mut self, bits: &mut Bits<'_>, slot: u16, aligned: Option<&Code>) -> Result<usize, Wrong> {
        if slot < 3 {
            self.recent.swap(0, slot.into());
        } else {
            let new = formatted(bits, slot.into(), aligned)?.checked_sub(2).ok_or("a distance of 0")?;
            let [first, second, _] = self.recent;
            self.recent = [new, first, second];
        }
        let [first, ..] = self.recent;
        usize::try_from(first).map_err(|_| "a reference before the start")
    }
}

fn formatted(bits: &mut Bits<'_>, slot: u32, aligned: Option<&Code>) -> Result<u32, Wrong> {
    if slot < 4 {
        return Ok(slot);
    }
    let extra = slot / 2 - 1;
    let base = (2 + slot % 2) << extra;
    let low = match aligned {
        Some(code) if extra >= 3 => {
            let high = bits.take(extra - 3) << 3;
            high | u32::from(code.read(bits)?)
        }
        _ => bits.take(extra),
    };
    Ok(base + low)
}

fn aligned_code(bits: &mut Bits<'_>) -> Result<Code, Wrong> {
    let lengths: [u8; 8] = std::array::from_fn(|_| small(bits.take(3)));
    Code::new(&lengths)
}

fn small(v: u32) -> u8 {
    u8::try_from(v).unwrap_or(u8::MAX)
}

/// Lengths of code words are told as differences from those of the block before, in a code of
/// their own.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Result<(), Wrong> {
    let of_code: [u8; 20] = std::array::from_fn(|_| small(bits.take(4)));
    let code = Code::new(&of_code)?;
    let mut at = 0;
    while at < lengths.len() {
        if bits.is_over() {
            return Err("the data ends too early");
        }
        let symbol = code.read(bits)?;
        let (run, value) = match symbol {
            17 => (4 + bits.take(4), None),
            18 => (20 + bits.take(5), None),
            19 => {
                let run = 4 + bits.take(1);
                (run, Some(code.read(bits)?))
            }
            s => (1, Some(s)),
        };
        let before = lengths.get(at).copied().unwrap_or(0);
        let length = match value {
            None => 0,
            Some(difference @ ..17) => (before + 17 - small(difference.into())) % 17,
            Some(_) => return Err("a difference of more than 16"),
        };
        // A run may end past the last one.
        let run = usize::try_from(run).unwrap_or(0);
        lengths.iter_mut().skip(at).take(run).for_each(|l| *l = length);
        at += run;
    }
    Ok(())
}

/// The packer made the targets of x86 calls absolute, so that they repeat; the last ten bytes of a
/// chunk were left alone.
fn undo_calls(plain: &mut [u8]) {
    let mut at = 0;
    while at + 10 < plain.len() {
        if plain.get(at) != Some(&0xE8) {
            at += 1;
            continue;
        }
        let Some(target) = plain.get_mut(at + 1..).and_then(<[u8]>::first_chunk_mut::<4>) else { return };
        let absolute = i32::from_le_bytes(*target);
        let position = i32::try_from(at).unwrap_or(i32::MAX);
        if (0..TRANSLATION).contains(&absolute) {
            *target = (absolute - position).to_le_bytes();
        } else if absolute < 0 && absolute >= -position {
            *target = (absolute + TRANSLATION).to_le_bytes();
        }
        at += 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn noise_does_no_harm(packed in proptest::collection::vec(proptest::num::u8::ANY, 0..3000)) {
            let _ = decompress(&packed, &mut [0; BLOCK]);
        }
    }
}
