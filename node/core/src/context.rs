//! The causal context in a client's hands: opaque, bound to its key, unforgeable.
//!
//! A client that read a key gets back what it saw as bytes, and returns them with its next write.
//! Whatever a context covers is overwritten by that write. A made-up context, or one from another
//! key, could cover dots that have not been issued yet: future writes would vanish the moment they
//! arrive (I8). So the bytes carry a MAC under a secret that only nodes have, over the bucket and
//! the key they belong to.
//!
//! Layout: version (1 byte), secret id (1 byte), MAC (16 bytes), version vector. No bytes at all
//! mean an empty context: a blind write. The MAC is the first half of keyed BLAKE3 over a domain
//! tag, the bucket (4 bytes), the key's length (8 bytes), the key and the version vector's bytes;
//! nothing of the version vector is looked at before it was found right.
//!
//! Rotation: new contexts are sealed with the current secret, those sealed with a previous one stay
//! good until that is dropped. What it leaves out: a context does not expire by itself, and whoever
//! may read a key may hand its context on.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use holm_protocol::ids::BucketId;
use holm_protocol::limits::{CONTEXT_ENTRIES_MAX, CONTEXT_LEN_MAX};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError};
use serde::{Deserialize, Serialize};

/// The layout above.
const VERSION: u8 = 1;

/// Keeps these MACs apart from any other use of the same secret; names the layout it covers.
const DOMAIN: &[u8] = b"holm causal context v1";

/// 128 bits: beyond any number of guesses that a node can answer. Half a hash keeps a context of
/// one entry at 28 bytes.
const MAC_BYTES: usize = 16;

/// What comes before the version vector.
const HEAD_BYTES: usize = 2 + MAC_BYTES;

// The longest context that `seal` can make is one that `open` takes: a count of at most three
// bytes, and per entry an actor and the longest varint.
const _: () = assert!(HEAD_BYTES + 3 + CONTEXT_ENTRIES_MAX * (8 + 10) <= CONTEXT_LEN_MAX);

/// How many replaced secrets are kept. Arbitrary; rotating daily, a client may sit on a context
/// for three days.
pub const PREVIOUS_SECRETS_MAX: usize = 3;

/// Why a context was refused. In every case nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Longer than any context that holm gives out.
    #[error("context is {len} bytes long, limit {limit}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// Too short to hold a MAC.
    #[error("context ends after {len} bytes")]
    Truncated {
        /// Its length in bytes.
        len: usize,
    },
    /// Made by a release that this one does not know.
    #[error("context format {got} is not known, this release reads {VERSION}")]
    Version {
        /// The version found.
        got: u8,
    },
    /// Sealed with a secret that is not known here: too old, or of another cluster.
    #[error("context was sealed with secret {id}, which is not known (any more)")]
    UnknownSecret {
        /// The secret's id.
        id: u8,
    },
    /// Not made by this cluster for this key, or altered since.
    #[error("context was not given out for this key")]
    Forged,
    /// Authentic, and yet not a version vector: made by a faulty node.
    #[error("context is authentic but malformed: {0}")]
    Malformed(WireError),
}

/// One key for sealing contexts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSecret {
    /// Tells the secrets in use apart; travels in the clear.
    pub id: u8,
    /// Random; made with the cluster, known to its nodes only.
    pub key: [u8; 32],
}

impl fmt::Debug for ContextSecret {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The secrets in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSecrets {
    /// Seals new contexts.
    pub current: ContextSecret,
    /// Replaced ones that still open old contexts, the latest first.
    pub previous: Vec<ContextSecret>,
}

impl ContextSecrets {
    /// The first secret of a cluster.
    #[must_use]
    pub fn new(key: [u8; 32]) -> ContextSecrets {
        ContextSecrets { current: ContextSecret { id: 0, key }, previous: Vec::new() }
    }

    /// Replaces the current secret. The replaced one goes on opening contexts, until
    /// [`PREVIOUS_SECRETS_MAX`] more have been replaced.
    pub fn rotate(&mut self, key: [u8; 32]) {
        let next = ContextSecret { id: self.current.id.wrapping_add(1), key };
        self.previous.insert(0, std::mem::replace(&mut self.current, next));
        self.previous.truncate(PREVIOUS_SECRETS_MAX);
    }

    /// The bytes a client gets for what it read of a key. An empty context gives no bytes.
    #[must_use]
    pub fn seal(&self, bucket: BucketId, key: &[u8], context: &VersionVector) -> Bytes {
        if context.is_empty() {
            return Bytes::new();
        }
        let mut out = BytesMut::with_capacity(HEAD_BYTES + 1 + context.len() * 11);
        out.put_u8(VERSION);
        out.put_u8(self.current.id);
        out.put_bytes(0, MAC_BYTES);
        context.encode(&mut out);
        let (head, vector) = out.split_at_mut(HEAD_BYTES);
        let hash = authenticate(&self.current, bucket, key, vector);
        head[2..].copy_from_slice(&hash.as_bytes()[..MAC_BYTES]);
        out.freeze()
    }

    /// Reads what a client handed back for a key.
    ///
    /// # Errors
    /// The input is never trusted: see [`ContextError`]. Apart from length, version and secret id,
    /// nothing is read before the MAC was found right.
    pub fn open(
        &self,
        bucket: BucketId,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<VersionVector, ContextError> {
        if bytes.is_empty() {
            return Ok(VersionVector::new());
        }
        if bytes.len() > CONTEXT_LEN_MAX {
            return Err(ContextError::TooLong { len: bytes.len(), limit: CONTEXT_LEN_MAX });
        }
        let Some((head, vector)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(ContextError::Truncated { len: bytes.len() });
        };
        let [version, id, mac @ ..] = head;
        if *version != VERSION {
            return Err(ContextError::Version { got: *version });
        }
        let secret = self.secret(*id).ok_or(ContextError::UnknownSecret { id: *id })?;
        let hash = authenticate(secret, bucket, key, vector);
        // Comparing a hash takes the same time wherever the bytes differ. It compares all of them,
        // so the half that does not travel is filled in.
        let mut claimed = *hash.as_bytes();
        claimed[..MAC_BYTES].copy_from_slice(mac);
        if hash != claimed {
            return Err(ContextError::Forged);
        }
        let mut reader = Reader::new(vector);
        let context = VersionVector::decode(&mut reader, CONTEXT_ENTRIES_MAX)
            .map_err(ContextError::Malformed)?;
        reader.finish().map_err(ContextError::Malformed)?;
        Ok(context)
    }

    fn secret(&self, id: u8) -> Option<&ContextSecret> {
        std::iter::once(&self.current).chain(&self.previous).find(|secret| secret.id == id)
    }
}

/// Keyed BLAKE3 over everything that a context is bound to. Lengths are fixed or written before
/// what they measure, so no two inputs run together to the same bytes.
fn authenticate(
    secret: &ContextSecret,
    bucket: BucketId,
    key: &[u8],
    vector: &[u8],
) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&secret.key);
    hasher.update(DOMAIN);
    hasher.update(&bucket.0.to_be_bytes());
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(vector);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
