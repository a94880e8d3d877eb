//! The opaque causal context that travels from a read to the write that follows it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use holm_protocol::limits::CONTEXT_LEN_MAX;

/// What a read saw. Opaque: made, authenticated and understood by nodes only. Its text form
/// (`Display`, `FromStr`) is hexadecimal, for command lines and cookies.
///
/// ```
/// use holm_client::Context;
///
/// let context: Context = "0102ff".parse().unwrap();
/// assert_eq!(context.as_bytes(), [1, 2, 255]);
/// assert_eq!(context.to_string(), "0102ff");
/// assert!("0102f".parse::<Context>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Context(Bytes);

/// Why a text is no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextParseError {
    /// A byte takes two digits.
    #[error("a context has an even number of hexadecimal digits, not {len}; was it cut off?")]
    OddLength {
        /// How many there are.
        len: usize,
    },
    /// Not a hexadecimal digit.
    #[error("byte {at} of the context is no hexadecimal digit")]
    BadDigit {
        /// Where, in bytes.
        at: usize,
    },
    /// Longer than any context.
    #[error("context is {len} bytes, limit {limit}")]
    TooLong {
        /// Its length, bytes.
        len: usize,
        /// The most allowed, bytes.
        limit: usize,
    },
}

impl Context {
    /// Wraps the bytes of a context that was taken apart by [`Context::as_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Context {
        Context(bytes.into())
    }

    /// The bytes, to be stored or sent elsewhere.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it covers nothing: a write with it is a blind one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl FromStr for Context {
    type Err = ContextParseError;

    fn from_str(text: &str) -> Result<Context, ContextParseError> {
        let len = text.len();
        if len % 2 == 1 {
            return Err(ContextParseError::OddLength { len });
        }
        if len / 2 > CONTEXT_LEN_MAX {
            return Err(ContextParseError::TooLong { len: len / 2, limit: CONTEXT_LEN_MAX });
        }
        let digit = |at: usize| {
            let digit = char::from(text.as_bytes()[at]).to_digit(16);
            // A hexadecimal digit is below 16.
            digit.map(|d| d as u8).ok_or(ContextParseError::BadDigit { at })
        };
        let byte = |i: usize| Ok(digit(2 * i)? << 4 | digit(2 * i + 1)?);
        (0..len / 2).map(byte).collect::<Result<Vec<u8>, _>>().map(Context::from_bytes)
    }
}
