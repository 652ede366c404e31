//! Reading BSON (specification 1.1) as leniently as old indexes need: the keys of arrays may repeat
//! or have gaps, and binary values have any subtype. The `bson` crate refuses some of that.

/// A value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// 32-bit or 64-bit.
    Int(i64),
    /// The same number in 32 bits.
    Int32(i32),
    /// Text; anything between its length and its terminating zero.
    Text(&'a [u8]),
    /// Bytes of any subtype.
    Bytes(&'a [u8]),
    /// A document or an array, to be read with [`elements`].
    Nested(&'a [u8]),
    /// A truth.
    Bool(bool),
    /// A kind that no index has.
    Other,
}

/// What is wrong with a document.
pub type Damage = &'static str;

/// The elements of `document`, which is a whole one: its key and value each.
///
/// # Errors
/// Its length or its end are wrong. An element that is damaged is the last.
pub fn elements(document: &[u8]) -> Result<Elements<'_>, Damage> {
    let (length, rest) = document.split_first_chunk::<4>().ok_or("a document without a length")?;
    let is_whole = usize::try_from(i32::from_le_bytes(*length)) == Ok(document.len());
    match rest.split_last() {
        Some((0, rest)) if is_whole => Ok(Elements { rest }),
        _ => Err("a document with a wrong length"),
    }
}

/// Iterator over elements.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<(&'a [u8], Value<'a>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.element().ok_or("a damaged element");
        if element.is_err() {
            self.rest = &[];
        }
        Some(element)
    }
}

impl<'a> Elements<'a> {
    fn element(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let kind = self.take(1)?.first().copied()?;
        let end = self.rest.iter().position(|b| *b == 0)?;
        let key = self.take(end)?;
        self.take(1)?;
        Some((key, self.value(kind)?))
    }

    fn value(&mut self, kind: u8) -> Option<Value<'a>> {
        Some(match kind {
            0x02 => {
                let length = self.length()?;
                let (last, text) = self.take(length)?.split_last()?;
                (*last == 0).then_some(Value::Text(text))?
            }
            0x03 | 0x04 => {
                let length = usize::try_from(i32::from_le_bytes(*self.rest.first_chunk()?)).ok()?;
                Value::Nested(self.take(length)?)
            }
            0x05 => {
                let length = self.length()?;
                self.take(1)?;
                Value::Bytes(self.take(length)?)
            }
            0x08 => Value::Bool(self.take(1)?.first() != Some(&0)),
            0x10 => Value::Int32(i32::from_le_bytes(*self.take(4)?.first_chunk()?)),
            0x12 => Value::Int(i64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            0x01 | 0x09 | 0x11 => self.other(8)?,
            0x07 => self.other(12)?,
            0x06 | 0x0A | 0x7F | 0xFF => Value::Other,
            _ => return None,
        })
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(i32::from_le_bytes(*self.take(4)?.first_chunk()?)).ok()
    }

    fn other(&mut self, length: usize) -> Option<Value<'a>> {
        self.take(length).map(|_| Value::Other)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

/// The fields of a document by name; of those that repeat the first counts.
#[derive(Clone, Debug)]
pub struct Fields<'a>(Elements<'a>);

impl<'a> Fields<'a> {
    /// Of `document`, all of whose elements are looked at once.
    ///
    /// # Errors
    /// It is damaged.
    pub fn new(document: &'a [u8]) -> Result<Self, Damage> {
        let all = elements(document)?;
        all.clone().try_for_each(|e| e.map(|_| ()))?;
        Ok(Self(all))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.0.clone().flatten().find(|(k, _)| *k == key.as_bytes()).map(|(_, v)| v)
    }

    /// A number that is not negative. One of 32 bits that seems negative was larger than 2^31.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(as_number)
    }

    /// A truth.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// Bytes.
    pub fn bytes(&self, key: &str) -> Option<&'a [u8]> {
        match self.get(key)? {
            Value::Bytes(b) => Some(b),
            _ => None,
        }
    }

    /// A text's bytes: nothing says that those of old indexes are UTF-8.
    pub fn text(&self, key: &str) -> Option<&'a [u8]> {
        match self.get(key)? {
            Value::Text(b) => Some(b),
            _ => None,
        }
    }
}

/// See [`Fields::number`].
pub fn as_number(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Int32(n) => Some(n.cast_unsigned().into()),
        Value::Int(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_reads_what_the_bson_crate_writes() {
        let doc = bson::doc! {
            "s": "text", "i": -7_i32, "l": 1_i64 << 40, "b": true, "n": null, "d": 1.5,
            "bin": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![1, 2, 3] },
            "a": [1, "x"], "oid": bson::oid::ObjectId::new(),
        };
        let bytes = doc.to_vec().unwrap();
        let f = Fields::new(&bytes).unwrap();
        assert_eq!((f.text("s"), f.number("l"), f.bool("b")), (Some(&b"text"[..]), Some(1 << 40), Some(true)));
        assert_eq!((f.number("i"), f.bytes("bin")), (Some(u64::from(u32::MAX) - 6), Some(&[1, 2, 3][..])));
        assert_eq!((f.get("n"), f.get("oid"), f.get("none")), (Some(Value::Other), Some(Value::Other), None));
        let Some(Value::Nested(a)) = f.get("a") else { panic!() };
        let values: Vec<_> = elements(a).unwrap().map(|e| e.unwrap().1).collect();
        assert_eq!(values, [Value::Int32(1), Value::Text(b"x")]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(length) = i32::try_from(bytes.len()) && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&length.to_le_bytes());
                *bytes.last_mut().unwrap() = 0;
            }
            let _ = Fields::new(&bytes).map(|f| (f.get("a"), f.number("type")));
        }
    }
}
