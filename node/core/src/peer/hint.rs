//! What nodes say to each other about hints: copies that a node keeps for a replica which cannot
//! take them now (DESIGN 6).
//!
//! A *fallback* is asked to keep an object for a replica, and says so once it is durable. Later it
//! hands the object to that replica, which joins it, and deletes its own copy when the replica has
//! answered just that message. How much may be on its way, the replica says in each answer.

use bytes::{BufMut, Bytes, BytesMut};

use holm_protocol::ids::{BucketId, NodeId, Partition};
use holm_protocol::limits::OBJECT_LEN_MAX;
use holm_protocol::message::kind;
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use super::codec::{put_target, target};
use super::{OpId, Refusal};

/// Apart from the other messages between nodes, so that each list can grow.
const KEEP: u8 = kind::PEER_FIRST + 64;
const KEPT: u8 = KEEP + 1;
const HAND_OFF: u8 = KEEP + 2;
const HANDED_OFF: u8 = KEEP + 3;

/// A message about hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HintMessage {
    /// Keep this object for a replica of your region, make it durable, say so.
    Keep {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The replica that it is for.
        replica: NodeId,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
        /// The encoded object.
        object: Bytes,
    },
    /// Whether it is durable.
    Kept {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The replica that it is for.
        replica: NodeId,
        /// Why it was not taken; `None` if it is on the disk.
        refused: Option<Refusal>,
    },
    /// Join this object, which was kept for you, make it durable, say so.
    HandOff {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
        /// The encoded object.
        object: Bytes,
    },
    /// Whether it is durable at home.
    HandedOff {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// Why it was not taken; `None` if it is on the disk.
        refused: Option<Refusal>,
        /// Bytes that may be on their way from now on. With 0 one message may, after a pause.
        window_bytes: u32,
    },
}

impl HintMessage {
    /// Whether a frame of this kind is one.
    pub(super) fn is_kind(kind: u8) -> bool {
        (KEEP..=HANDED_OFF).contains(&kind)
    }

    /// The answer to a request that is refused as soon as it comes; `None` if it is none.
    #[must_use]
    pub fn answer(&self, refusal: Refusal) -> Option<HintMessage> {
        let refused = Some(refusal);
        match *self {
            HintMessage::Keep { op, partition, replica, .. } => {
                Some(HintMessage::Kept { op, partition, replica, refused })
            }
            HintMessage::HandOff { op, partition, .. } => {
                Some(HintMessage::HandedOff { op, partition, refused, window_bytes: 0 })
            }
            HintMessage::Kept { .. } | HintMessage::HandedOff { .. } => None,
        }
    }

    /// What becomes of an answer when the disk did not take what it speaks of.
    #[must_use]
    pub fn refused(self, refusal: Refusal) -> HintMessage {
        let refused = Some(refusal);
        match self {
            HintMessage::Kept { op, partition, replica, .. } => {
                HintMessage::Kept { op, partition, replica, refused }
            }
            HintMessage::HandedOff { op, partition, window_bytes, .. } => {
                HintMessage::HandedOff { op, partition, refused, window_bytes }
            }
            other => other,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        match self {
            HintMessage::Keep { partition, .. }
            | HintMessage::Kept { partition, .. }
            | HintMessage::HandOff { partition, .. }
            | HintMessage::HandedOff { partition, .. } => *partition,
        }
    }

    pub(super) fn kind_and_op(&self) -> (u8, OpId) {
        match self {
            HintMessage::Keep { op, .. } => (KEEP, *op),
            HintMessage::Kept { op, .. } => (KEPT, *op),
            HintMessage::HandOff { op, .. } => (HAND_OFF, *op),
            HintMessage::HandedOff { op, .. } => (HANDED_OFF, *op),
        }
    }

    pub(super) fn encode_rest(&self, out: &mut BytesMut) {
        match self {
            HintMessage::Keep { replica, bucket, key, object, .. } => {
                put_varint(out, replica.0);
                put_target(out, *bucket, key);
                put_slice(out, object);
            }
            HintMessage::Kept { replica, refused, .. } => {
                put_varint(out, replica.0);
                put_refusal(out, *refused);
            }
            HintMessage::HandOff { bucket, key, object, .. } => {
                put_target(out, *bucket, key);
                put_slice(out, object);
            }
            HintMessage::HandedOff { refused, window_bytes, .. } => {
                put_refusal(out, *refused);
                put_varint(out, (*window_bytes).into());
            }
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
    ) -> Result<HintMessage, WireError> {
        Ok(match kind {
            KEEP => {
                let replica = NodeId(reader.varint("replica")?);
                let (bucket, key) = target(reader)?;
                let object = reader.bytes("object", OBJECT_LEN_MAX)?;
                HintMessage::Keep { op, partition, replica, bucket, key, object }
            }
            KEPT => {
                let replica = NodeId(reader.varint("replica")?);
                HintMessage::Kept { op, partition, replica, refused: refusal(reader)? }
            }
            HAND_OFF => {
                let (bucket, key) = target(reader)?;
                let object = reader.bytes("object", OBJECT_LEN_MAX)?;
                HintMessage::HandOff { op, partition, bucket, key, object }
            }
            HANDED_OFF => {
                let refused = refusal(reader)?;
                let window_bytes = reader.length("window", u32::MAX as usize)? as u32;
                HintMessage::HandedOff { op, partition, refused, window_bytes }
            }
            got => return Err(WireError::Invalid { field: "frame kind", got: got.into() }),
        })
    }
}

fn put_refusal(out: &mut BytesMut, refusal: Option<Refusal>) {
    out.put_u8(refusal.map_or(0, |refusal| refusal as u8));
}

fn refusal(reader: &mut Reader<'_>) -> Result<Option<Refusal>, WireError> {
    match reader.u8()? {
        0 => Ok(None),
        byte => Refusal::from_byte(byte).map(Some),
    }
}
