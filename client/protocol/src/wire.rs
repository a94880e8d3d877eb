//! Reading and writing bytes that may have come from anywhere.
//!
//! [`Reader`] is total: any bytes give a value or a [`WireError`], lengths are checked against
//! what is there before anything is allocated, and nothing panics (I8). Integers are big-endian or
//! LEB128 varints in their shortest form, so that one value has one encoding.

use bytes::{BufMut, Bytes};

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("{missing} more bytes were announced than are there")]
    Truncated {
        /// How many bytes are missing at least.
        missing: usize,
    },
    /// Bytes are left after the last field.
    #[error("{left} bytes are left over after the last field")]
    LeftOver {
        /// How many.
        left: usize,
    },
    /// A length or count is above its limit.
    #[error("{field} is {got}, limit {limit}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// What was announced.
        got: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// A field holds what it must not.
    #[error("{field} holds an invalid value ({got})")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it held.
        got: u64,
    },
    /// A checksum does not match the bytes it covers.
    #[error("checksum of {field} does not match")]
    Checksum {
        /// Which bytes.
        field: &'static str,
    },
}

/// A cursor over untrusted bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { left: bytes }
    }

    /// What has not been read.
    #[must_use]
    pub fn left(&self) -> &'a [u8] {
        self.left
    }

    /// The next `len` bytes, borrowed.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if there are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        match self.left.split_at_checked(len) {
            Some((taken, left)) => {
                self.left = left;
                Ok(taken)
            }
            None => Err(WireError::Truncated { missing: len - self.left.len() }),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, big-endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes, big-endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big-endian.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A LEB128 varint of at most ten bytes, in its shortest form.
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::Invalid`] if it overflows or has a shorter form.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(WireError::Invalid { field, got: value })
    }

    /// A varint that counts or measures something, at most `limit`.
    ///
    /// # Errors
    /// As [`Reader::varint`], and [`WireError::TooLong`].
    pub fn length(&mut self, field: &'static str, limit: usize) -> Result<usize, WireError> {
        let got = self.varint(field)?;
        match usize::try_from(got) {
            Ok(length) if length <= limit => Ok(length),
            _ => Err(WireError::TooLong { field, got, limit: limit as u64 }),
        }
    }

    /// A length of at most `limit` and that many bytes, borrowed.
    ///
    /// # Errors
    /// As [`Reader::length`] and [`Reader::take`].
    pub fn slice(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], WireError> {
        let length = self.length(field, limit)?;
        self.take(length)
    }

    /// A length of at most `limit` and that many bytes, copied: a small value that borrowed from
    /// a packet's buffer would keep the whole buffer alive.
    ///
    /// # Errors
    /// As [`Reader::slice`].
    pub fn bytes(&mut self, field: &'static str, limit: usize) -> Result<Bytes, WireError> {
        Ok(Bytes::copy_from_slice(self.slice(field, limit)?))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`WireError::LeftOver`] if bytes are left.
    pub fn finish(self) -> Result<(), WireError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(WireError::LeftOver { left }),
        }
    }
}

/// Appends a LEB128 varint.
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a length and the bytes.
pub fn put_slice(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: one value has one encoding. Method: write, read back; any bytes that read as a
        /// varint are what writing gives.
        #[test]
        fn varints_are_canonical(value: u64, noise: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("v"), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));

            let mut reader = Reader::new(&noise);
            if let Ok(value) = reader.varint("v") {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(&noise[..noise.len() - reader.left().len()], &out[..]);
            }
        }

        /// Goal: an announced length is never trusted. Method: a slice past the end is an error.
        #[test]
        fn slices_never_reach_past_the_end(noise: Vec<u8>, limit in 0usize..64) {
            let mut reader = Reader::new(&noise);
            if let Ok(slice) = reader.slice("s", limit) {
                prop_assert!(slice.len() <= limit && slice.len() < noise.len());
            }
        }
    }
}
