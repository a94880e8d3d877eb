//! What reads and writes give back.

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::Hlc;
use holm_protocol::message::{self, Receipt, Sibling};

use crate::context::Context;

/// What a key holds: no value, one, or several written concurrently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    siblings: Vec<Sibling>,
    context: Context,
    receipt: Receipt,
}

impl Got {
    /// The concurrent values. None: the key is absent or deleted.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// The values, owned.
    #[must_use]
    pub fn into_siblings(self) -> Vec<Sibling> {
        self.siblings
    }

    /// The value, if there is exactly one. `None` for an absent key and for siblings alike; ask
    /// [`Got::siblings`] to tell them apart.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match self.siblings.as_slice() {
            [only] => Some(&only.value),
            _ => None,
        }
    }

    /// The sibling with the highest clock reading. Convenient, and as lossy as last-writer-wins:
    /// writing it back with the context drops the others.
    #[must_use]
    pub fn latest(&self) -> Option<&Sibling> {
        self.siblings.iter().max_by_key(|sibling| (sibling.hlc, sibling.dot))
    }

    /// Whether the key holds no value.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.siblings.is_empty()
    }

    /// What this read saw, to hand back with the write that follows.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Which replicas' states the answer includes.
    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

impl From<message::Values> for Got {
    fn from(values: message::Values) -> Got {
        Got {
            siblings: values.siblings,
            context: Context::from_bytes(values.context),
            receipt: values.receipt,
        }
    }
}

/// An acknowledged put or delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    dot: Dot,
    hlc: Hlc,
    context: Context,
    receipt: Receipt,
    context_was_read: bool,
}

impl Written {
    pub(crate) fn new(written: message::Written, context_was_read: bool) -> Written {
        Written {
            dot: written.dot,
            hlc: written.hlc,
            context: Context::from_bytes(written.context),
            receipt: written.receipt,
            context_was_read,
        }
    }

    /// The write's dot.
    #[must_use]
    pub fn dot(&self) -> Dot {
        self.dot
    }

    /// The coordinator's clock reading.
    #[must_use]
    pub fn hlc(&self) -> Hlc {
        self.hlc
    }

    /// Covers the write and all that it overwrote: good for the next write to this key, without a
    /// read in between.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Which replicas had made the write durable when it was acknowledged.
    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Whether this was a delete without a context, for which the client read one first.
    #[must_use]
    pub fn context_was_read(&self) -> bool {
        self.context_was_read
    }
}
