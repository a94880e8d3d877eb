//! What a replica holds, as one digest per bucket: the messages of [`crate::shard::fingerprint`].

use bytes::{BufMut, BytesMut};

use holm_protocol::ids::{BucketId, Partition};
use holm_protocol::message::kind;
use holm_protocol::wire::{Reader, WireError, put_varint};

use super::{OpId, Refusal};

const ASK: u8 = kind::PEER_FIRST + 72;
const ANSWER: u8 = ASK + 1;

/// The most buckets in one answer: above what anybody makes.
const BUCKETS_MAX: usize = 1 << 16;

/// What one replica holds of one bucket in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketDigest {
    /// The bucket.
    pub bucket: BucketId,
    /// The sum of the digests of its keys.
    pub digest: u128,
    /// How many keys have values.
    pub keys: u64,
    /// How many rows have none: deletes that are not forgotten yet. Replicas may differ in these.
    pub tombstones: u64,
}

impl BucketDigest {
    /// What must be equal on all replicas, if anything is alive.
    #[must_use]
    pub fn live(&self) -> Option<(BucketId, u128, u64)> {
        (self.keys > 0).then_some((self.bucket, self.digest, self.keys))
    }
}

/// A question for a replica's digests, or the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FingerprintMessage {
    /// What do you hold?
    Ask {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
    },
    /// The digests of the buckets of which the replica holds a row, ascending.
    Answer {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The digests, or why there are none.
        result: Result<Vec<BucketDigest>, Refusal>,
    },
}

impl FingerprintMessage {
    /// Whether a frame of this kind is one.
    pub(super) fn is_kind(kind: u8) -> bool {
        (ASK..=ANSWER).contains(&kind)
    }

    /// The answer to a question that is refused as soon as it comes; `None` if it is none.
    #[must_use]
    pub fn answer(&self, refusal: Refusal) -> Option<FingerprintMessage> {
        match *self {
            FingerprintMessage::Ask { op, partition } => {
                Some(FingerprintMessage::Answer { op, partition, result: Err(refusal) })
            }
            FingerprintMessage::Answer { .. } => None,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        match self {
            FingerprintMessage::Ask { partition, .. }
            | FingerprintMessage::Answer { partition, .. } => *partition,
        }
    }

    pub(super) fn kind_and_op(&self) -> (u8, OpId) {
        match self {
            FingerprintMessage::Ask { op, .. } => (ASK, *op),
            FingerprintMessage::Answer { op, .. } => (ANSWER, *op),
        }
    }

    pub(super) fn encode_rest(&self, out: &mut BytesMut) {
        let FingerprintMessage::Answer { result, .. } = self else { return };
        match result {
            Ok(digests) => {
                out.put_u8(0);
                put_varint(out, digests.len() as u64);
                for BucketDigest { bucket, digest, keys, tombstones } in digests {
                    out.put_u32(bucket.0);
                    out.put_u128(*digest);
                    put_varint(out, *keys);
                    put_varint(out, *tombstones);
                }
            }
            Err(refusal) => out.put_u8(*refusal as u8),
        }
    }

    /// Reads what follows the partition in a frame of such a kind.
    ///
    /// # Errors
    /// [`WireError`]; lengths are checked before anything is allocated.
    pub(super) fn decode(
        kind: u8,
        op: OpId,
        partition: Partition,
        reader: &mut Reader<'_>,
    ) -> Result<FingerprintMessage, WireError> {
        if kind == ASK {
            return Ok(FingerprintMessage::Ask { op, partition });
        }
        let result = match reader.u8()? {
            0 => Ok(digests(reader)?),
            byte => Err(Refusal::from_byte(byte)?),
        };
        Ok(FingerprintMessage::Answer { op, partition, result })
    }
}

fn digests(reader: &mut Reader<'_>) -> Result<Vec<BucketDigest>, WireError> {
    let count = reader.length("buckets", BUCKETS_MAX)?;
    // Grows as it is read: the count alone is a promise.
    let mut digests: Vec<BucketDigest> = Vec::new();
    for _ in 0..count {
        let bucket = BucketId(reader.u32()?);
        if digests.last().is_some_and(|last| last.bucket >= bucket) {
            return Err(WireError::Invalid { field: "bucket", got: bucket.0.into() });
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(reader.take(16)?);
        let digest = u128::from_be_bytes(digest);
        let keys = reader.varint("keys")?;
        digests.push(BucketDigest {
            bucket,
            digest,
            keys,
            tombstones: reader.varint("tombstones")?,
        });
    }
    Ok(digests)
}
