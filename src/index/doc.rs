//! Writing one BSON document (BSON specification 1.1), field by field.
//!
//! Keys are constants: inlined, they are stores of known length instead of calls.
//!
//! The index needs what the `bson` crate's own writer rightly refuses: arrays whose keys are block
//! or sector numbers, with gaps and repetitions. The crate checks the result in the tests.

use std::io::{self, Write};

const STRING: u8 = 0x02;
const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
const BOOL: u8 = 0x08;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;

/// A document that is being written.
#[derive(Default)]
pub struct Doc {
    bytes: Vec<u8>,
}

impl Doc {
    /// A document of this type.
    pub fn new(kind: &str) -> Self {
        let mut doc = Self { bytes: Vec::new() };
        doc.start(kind);
        doc
    }

    /// Forget all fields and start a document of this type, in the same memory.
    pub fn start(&mut self, kind: &str) -> &mut Self {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; 4]);
        self.str("type", kind)
    }

    #[inline(always)]
    fn key(&mut self, kind: u8, key: &str) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.push(0);
    }

    /// A length or count: i32 on disk. Saturates; [`Doc::write`] refuses what does not fit.
    #[inline(always)]
    fn len(&mut self, len: usize) {
        self.bytes.extend_from_slice(&i32::try_from(len).unwrap_or(i32::MAX).to_le_bytes());
    }

    /// Text.
    #[inline(always)]
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(STRING, key);
        self.len(value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self
    }

    /// Bytes, generic subtype.
    #[inline(always)]
    pub fn binary(&mut self, key: &str, value: &[u8]) -> &mut Self {
        self.key(BINARY, key);
        self.len(value.len());
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
        self
    }

    /// A truth.
    #[inline(always)]
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(BOOL, key);
        self.bytes.push(value.into());
        self
    }

    /// A 32-bit number.
    #[inline(always)]
    pub fn i32(&mut self, key: &str, value: i32) -> &mut Self {
        self.key(INT32, key);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A 64-bit number.
    #[inline(always)]
    pub fn i64(&mut self, key: &str, value: i64) -> &mut Self {
        self.key(INT64, key);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A 64-bit number; saturates at the largest that BSON knows.
    #[inline(always)]
    pub fn u64(&mut self, key: &str, value: u64) -> &mut Self {
        self.i64(key, i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A number in 32 bits, as the C program wrote it, or in 64 if it does not fit.
    #[inline(always)]
    pub fn int(&mut self, key: &str, value: u64) -> &mut Self {
        match i32::try_from(value) {
            Ok(v) => self.i32(key, v),
            Err(_) => self.u64(key, value),
        }
    }

    /// An array; `fill` writes its elements, with keys of its own.
    #[inline(always)]
    pub fn array(&mut self, key: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.key(ARRAY, key);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        self.close(start);
        self
    }

    /// End the document or array that starts at byte `start`.
    fn close(&mut self, start: usize) {
        self.bytes.push(0);
        let len = i32::try_from(self.bytes.len() - start).unwrap_or(i32::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }

    /// End it and write it. A document of 2 GiB or more is refused.
    pub fn write(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.close(0);
        if i32::try_from(self.bytes.len()).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an index document of 2 GiB or more"));
        }
        out.write_all(&self.bytes)
    }
}
