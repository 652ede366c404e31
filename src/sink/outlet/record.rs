//! An event on its way, in the form in which it will be sent.

/// What one event becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The run of the program that made it: milliseconds since 1970 at its start, and rising.
    pub run: u64,
    /// The event's `seq`. Records of one run have rising ones; asides share that of the event before.
    pub seq: u64,
    /// Fields, as [`pack`] joins them.
    pub bytes: Box<[u8]>,
}

impl Record {
    /// Memory that it takes, roughly.
    pub fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    /// The fields. Where the bytes make no sense they end.
    pub fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.bytes;
        std::iter::from_fn(move || {
            let (len, more) = rest.split_first_chunk::<4>()?;
            let (field, more) = more.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
            rest = more;
            Some(field)
        })
    }
}

/// Join fields: each with its length in four bytes before it, little-endian. A field of 4 GiB or
/// more (no event has one) is left out.
pub fn pack<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Box<[u8]> {
    let mut all = Vec::new();
    for field in fields {
        if let Ok(len) = u32::try_from(field.len()) {
            all.extend_from_slice(&len.to_le_bytes());
            all.extend_from_slice(field);
        }
    }
    all.into()
}

/// Events that had to be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Their run.
    pub run: u64,
    /// `seq` of the first.
    pub first: u64,
    /// `seq` of the last.
    pub last: u64,
}

impl Lost {
    /// One record is lost.
    pub fn of(r: &Record) -> Self {
        Self { run: r.run, first: r.seq, last: r.seq }
    }

    /// How many events are missing.
    pub fn events(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Both, if `next` follows in the same run.
    pub fn joined(self, next: Self) -> Option<Self> {
        (self.run == next.run).then_some(Self {
            last: next.last.max(self.last),
            first: self.first.min(next.first),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_out_as_they_went_in() {
        let fields: [&[u8]; 3] = [b"", b"\xff\0", b"abc"];
        let r = Record { run: 1, seq: 2, bytes: pack(fields) };
        assert_eq!(r.fields().collect::<Vec<_>>(), fields);
        let cut = Record { bytes: r.bytes[..r.bytes.len() - 1].into(), ..r };
        assert_eq!(cut.fields().count(), 2);
    }
}
