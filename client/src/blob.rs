//! Keys and values as callers have them.

use bytes::Bytes;

/// A key or value: anything that is bytes. Borrowed ones are copied once, owned ones are moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub(crate) Bytes);

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        Blob(bytes)
    }
}

impl From<&Bytes> for Blob {
    fn from(bytes: &Bytes) -> Blob {
        Blob(bytes.clone())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(bytes.into())
    }
}

impl From<&Vec<u8>> for Blob {
    fn from(bytes: &Vec<u8>) -> Blob {
        Blob(Bytes::copy_from_slice(bytes))
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        Blob(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Blob {
    fn from(bytes: &[u8; N]) -> Blob {
        Blob(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<[u8; N]> for Blob {
    fn from(bytes: [u8; N]) -> Blob {
        Blob(Bytes::copy_from_slice(&bytes))
    }
}

impl From<String> for Blob {
    fn from(text: String) -> Blob {
        Blob(text.into())
    }
}

impl From<&String> for Blob {
    fn from(text: &String) -> Blob {
        Blob(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Blob {
        Blob(Bytes::copy_from_slice(text.as_bytes()))
    }
}
