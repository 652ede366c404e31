//! CRC-32C the way that the kernel chains it: no inversion at either end.

/// Continue the checksum `seed` over `data` (Linux `crc32c()`).
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chaining_equals_one_pass() {
        let whole = crc32c(!0, b"123456789");
        assert_eq!(crc32c(crc32c(!0, b"1234"), b"56789"), whole);
        // The CRC-32C check value, before its final inversion.
        assert_eq!(!whole, 0xE306_9283);
    }
}
