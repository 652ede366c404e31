//! What XPRESS and LZX share: bits from 16-bit words, highest first, and canonical Huffman codes.

/// Why packed data cannot be unpacked.
pub type Wrong = &'static str;

/// A stream of bits. Past its end come zeros; [`Bits::is_over`] tells.
pub struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
    over: u32,
}

/// Words that may be read past the end before that counts as damage: codes are looked at 16 bits
/// at a time.
const SLACK: u32 = 2;

impl<'a> Bits<'a> {
    /// The bits of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0, over: 0 }
    }

    /// Hold at least 16 bits: what is read as bytes comes from behind them.
    pub fn fill(&mut self) {
        while self.count < 16 {
            let word = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
            self.over += u32::from(word.is_none());
            let word = word.map_or(0, |w| u16::from_le_bytes(*w));
            self.held |= u32::from(word) << (16 - self.count);
            self.at += 2;
            self.count += 16;
        }
    }

    /// Whether more was read than there is.
    pub fn is_over(&self) -> bool {
        self.over > SLACK
    }

    /// The next `n` bits, up to 16.
    pub fn take(&mut self, n: u32) -> u32 {
        self.fill();
        let value = if n == 0 { 0 } else { self.held >> (32 - n) };
        self.skip(n);
        value
    }

    fn skip(&mut self, n: u32) {
        self.held = self.held.checked_shl(n).unwrap_or(0);
        self.count -= n.min(self.count);
    }

    /// Drop the rest of the current word, a whole one if it has not been begun.
    pub fn align(&mut self) {
        if self.count == 0 {
            self.fill();
        }
        // Words held beyond the current one have not been read yet.
        self.at -= 2 * usize::try_from(self.count.saturating_sub(1) / 16).unwrap_or(0);
        (self.held, self.count) = (0, 0);
    }

    /// The next byte behind the words that are held.
    pub fn byte(&mut self) -> Result<u8, Wrong> {
        let byte = self.bytes.get(self.at).copied().ok_or("the data ends too early")?;
        self.at += 1;
        Ok(byte)
    }

    /// The next bytes behind the words that are held, low one first.
    pub fn word(&mut self) -> Result<u32, Wrong> {
        let low = self.byte()?;
        Ok(u32::from(u16::from_le_bytes([low, self.byte()?])))
    }

    /// The next `n` bytes behind the words that are held.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Wrong> {
        let end = self.at.checked_add(n).ok_or("the data ends too early")?;
        let bytes = self.bytes.get(self.at..end).ok_or("the data ends too early")?;
        self.at = end;
        Ok(bytes)
    }
}

/// A canonical Huffman code with code words of up to 16 bits.
pub struct Code {
    /// For each length: the first code word behind those of this length, left-aligned in 16 bits.
    limits: [u32; 17],
    /// For each length: what to add to a code word to get the place of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u16>,
}

impl Code {
    /// The code with these lengths of code words (0: the symbol has none).
    ///
    /// Errors: more code words than there can be.
    pub fn new(lengths: &[u8]) -> Result<Self, Wrong> {
        let mut counts = [0_u32; 17];
        for l in lengths {
            *counts.get_mut(usize::from(*l)).ok_or("a code word of more than 16 bits")? += 1;
        }
        let mut symbols: Vec<u16> = (0..).zip(lengths).filter(|(_, l)| **l > 0).map(|(s, _)| s).collect();
        symbols.sort_by_key(|s| lengths.get(usize::from(*s)).copied());
        let (mut limits, mut offsets) = ([0; 17], [0; 17]);
        let (mut code, mut place) = (0_u32, 0_i32);
        for ((limit, offset), (count, bits)) in
            limits.iter_mut().zip(&mut offsets).zip(counts.iter().zip(0_u32..)).skip(1)
        {
            let first = i32::try_from(code >> (16 - bits)).map_err(|_| "too many code words")?;
            *offset = place - first;
            code += count << (16 - bits);
            place += i32::try_from(*count).map_err(|_| "too many code words")?;
            *limit = code;
        }
        if code > 1 << 16 {
            return Err("too many code words");
        }
        Ok(Self { limits, offsets, symbols })
    }

    /// Read one symbol.
    pub fn read(&self, bits: &mut Bits<'_>) -> Result<u16, Wrong> {
        bits.fill();
        let next = bits.held >> 16;
        let lengths = self.limits.iter().zip(&self.offsets).zip(0_u32..).skip(1);
        for ((limit, offset), length) in lengths {
            if next < *limit {
                let code = i32::try_from(next >> (16 - length)).map_err(|_| "no code word")?;
                bits.skip(length);
                let place = usize::try_from(code + offset).map_err(|_| "no code word")?;
                return self.symbols.get(place).copied().ok_or("no code word");
            }
        }
        Err("no code word")
    }
}

/// Repeat `length` bytes from `distance` back, at `at`.
pub fn repeat(plain: &mut [u8], at: usize, distance: usize, length: usize) -> Result<usize, Wrong> {
    let from = at.checked_sub(distance).filter(|_| distance > 0).ok_or("a reference before the start")?;
    let end = at.checked_add(length).filter(|e| *e <= plain.len()).ok_or("a reference past the end")?;
    if distance >= length {
        plain.copy_within(from..from + length, at);
    } else {
        for n in 0..length {
            let byte = plain.get(from + n).copied().unwrap_or_default();
            if let Some(to) = plain.get_mut(at + n) {
                *to = byte;
            }
        }
    }
    Ok(end)
}
