//! Metadata as bytes: what is stored and sent between nodes.
//!
//! Layout: format (1 byte), digest (16 bytes), body. The digest is the first half of BLAKE3 over
//! the body and finds damage; it is no protection from whoever can write the bytes. The body is
//! postcard of [`Body`], whose shape the format fixes; equal metadata give equal bytes.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holm_protocol::bucket::BucketInfo;
use holm_protocol::limits::{FRAME_LEN_MAX, is_name};
use serde::{Deserialize, Serialize};

use super::change::can_be_asked;
use super::{BUCKETS_HARD_MAX, BucketEntry, Metadata, MetadataDecodeError, bucket_id};
use crate::context::{ContextSecret, ContextSecrets, PREVIOUS_SECRETS_MAX};
use crate::layout::{self, Layout};

/// The layout above.
const FORMAT: u8 = 1;

/// Damage goes unseen once in 2^128.
const DIGEST_BYTES: usize = 16;

/// What one bucket takes at most: a name of 64 bytes with its length, an id of 5, a policy of 19
/// and a version and node of 10 each.
const BUCKET_BYTES_MAX: usize = 109;

/// The longest encoded metadata, bytes: the longest layout, the most buckets, and 1 KiB for
/// cluster, secrets, lengths and digest.
pub const ENCODED_BYTES_MAX: usize =
    layout::ENCODED_BYTES_MAX + BUCKETS_HARD_MAX * BUCKET_BYTES_MAX + 1024;

// It travels in one frame, with room for whatever surrounds it.
const _: () = assert!(ENCODED_BYTES_MAX + 1024 <= FRAME_LEN_MAX);

/// The body of format 1.
#[derive(Serialize, Deserialize)]
struct Body {
    cluster: String,
    /// As [`Layout::encode`] wrote it.
    layout: Option<Bytes>,
    secrets: Option<ContextSecrets>,
    /// By id, ascending.
    buckets: Vec<BucketEntry>,
}

/// Any order of policies, as long as it is the same on all nodes.
pub(super) fn compare(one: &BucketInfo, other: &BucketInfo) -> Ordering {
    encoded(one).cmp(&encoded(other))
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    // Numbers, strings, lists and maps in memory: postcard refuses none of them.
    postcard::to_stdvec(value).unwrap_or_default()
}

impl Metadata {
    /// The metadata as bytes, at most [`ENCODED_BYTES_MAX`]. They contain the secrets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = encoded(&Body {
            cluster: self.cluster.clone(),
            layout: self.layout.as_ref().map(|layout| layout.encode().into()),
            secrets: self.secrets.clone(),
            buckets: self.buckets.values().cloned().collect(),
        });
        let mut bytes = Vec::with_capacity(1 + DIGEST_BYTES + body.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&digest(&body));
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what [`Metadata::encode`] wrote.
    ///
    /// # Errors
    /// The input is never trusted; [`MetadataDecodeError`] says what is wrong with it. Memory is
    /// bounded by a multiple of the input's length, which is at most [`ENCODED_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Metadata, MetadataDecodeError> {
        if bytes.len() > ENCODED_BYTES_MAX {
            return Err(MetadataDecodeError::TooLong { bytes: bytes.len() });
        }
        let truncated = MetadataDecodeError::Truncated { bytes: bytes.len() };
        let (&format, rest) = bytes.split_first().ok_or(truncated.clone())?;
        if format != FORMAT {
            return Err(MetadataDecodeError::Format { got: format });
        }
        let (claimed, body) = rest.split_first_chunk::<DIGEST_BYTES>().ok_or(truncated)?;
        if *claimed != digest(body) {
            return Err(MetadataDecodeError::Damaged);
        }
        match postcard::take_from_bytes::<Body>(body) {
            Ok((body, [])) => body.check(),
            Ok(_) | Err(_) => Err(MetadataDecodeError::Malformed),
        }
    }

    /// A digest of everything but the cluster's name. One way: it travels in every handshake, and
    /// the secrets are in it.
    pub(super) fn digest(&self) -> u64 {
        let layout = self.layout.as_ref().map(|layout| layout.digest());
        let buckets: Vec<&BucketEntry> = self.buckets.values().collect();
        let hash = blake3::hash(&encoded(&(layout, &self.secrets, buckets)));
        let (head, _) = hash.as_bytes().split_at(8);
        head.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

fn digest(body: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut half = [0; DIGEST_BYTES];
    half.copy_from_slice(&blake3::hash(body).as_bytes()[..DIGEST_BYTES]);
    half
}

impl Body {
    fn check(self) -> Result<Metadata, MetadataDecodeError> {
        if !is_name(&self.cluster) {
            return Err(MetadataDecodeError::Cluster(self.cluster));
        }
        if self.layout.is_some() != self.secrets.is_some() || !fit(self.secrets.as_ref()) {
            return Err(MetadataDecodeError::Secrets);
        }
        if self.buckets.len() > BUCKETS_HARD_MAX {
            return Err(MetadataDecodeError::TooManyBuckets { buckets: self.buckets.len() });
        }
        let mut buckets = BTreeMap::new();
        for entry in self.buckets {
            let info = &entry.info;
            info.policy.check(&info.name)?;
            if !can_be_asked(info.policy.read_level) || !can_be_asked(info.policy.write_level) {
                return Err(MetadataDecodeError::Level { name: entry.info.name });
            }
            let in_order = buckets.last_key_value().is_none_or(|(last, _)| *last < info.id);
            if info.id != bucket_id(&info.name) || !in_order {
                return Err(MetadataDecodeError::BucketId { name: entry.info.name });
            }
            buckets.insert(info.id, entry);
        }
        let layout = match self.layout {
            Some(bytes) => Some(Arc::new(Layout::decode(&bytes)?)),
            None => None,
        };
        Ok(Metadata { cluster: self.cluster, layout, secrets: self.secrets, buckets })
    }
}

/// Whether there are no more secrets than rotations keep, under ids that tell them apart.
fn fit(secrets: Option<&ContextSecrets>) -> bool {
    let Some(ContextSecrets { current, previous }) = secrets else { return true };
    let repeated = |(at, one): (usize, &ContextSecret)| {
        one.id == current.id || previous[..at].iter().any(|other| other.id == one.id)
    };
    previous.len() <= PREVIOUS_SECRETS_MAX && !previous.iter().enumerate().any(repeated)
}
