//! Variable-length integers and bounded reading of binary structures inside frames.
//!
//! A varint is unsigned LEB128: 7 bits in each byte, lowest first, the top bit set on all bytes but the last. It has at
//! most 10 bytes, and only the shortest form is valid, so that equal values have equal bytes.

use crate::format_error::Fault;

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A cursor over a structure. Every error names the structure.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn malformed(&self, problem: impl Into<String>) -> Fault {
        Fault::malformed(self.what, problem)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.malformed("ends inside an entry"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.malformed("ends inside an entry"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed("ends inside an entry"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.malformed("an integer has more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.malformed("an integer is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.malformed("an integer has more than 10 bytes"))
    }

    /// Reads a varint that must fit into 32 bits.
    pub(crate) fn varint_u32(&mut self, field: &str) -> Result<u32, Fault> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.malformed(format!("{field} {value} does not fit 32 bits")))
    }

    /// Reads a varint length and that many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Reads a varint count of entries with at least `entry_bytes` each. It is refused if the rest cannot contain them,
    /// so that a count is safe to use for an allocation.
    pub(crate) fn count(&mut self, entry_bytes: usize) -> Result<usize, Fault> {
        let count = self.varint()?;
        if count > (self.rest.len() / entry_bytes) as u64 {
            return Err(self.malformed(format!("{count} entries announced, {} bytes left", self.rest.len())));
        }
        Ok(count as usize)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits() {
        for (bytes, expected) in [
            (&[0_u8][..], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80, 1], Some(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Some(u64::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], None),
            (&[0x80, 0], None),
            (&[0x80], None),
            (&[], None),
        ] {
            assert_eq!(Reader::new("test", bytes).varint().ok(), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert!(reader.is_empty());
        }
    }
}
