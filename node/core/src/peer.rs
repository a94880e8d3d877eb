//! What nodes say to each other about keys.
//!
//! Every message names its partition, so that a node's router finds the shard without reading on,
//! and an operation, so that an answer finds its question. Operation ids are drawn by the asking
//! shard, starting from its run's random actor: an answer to an earlier run matches nothing.
//!
//! Layout: a frame whose id is the operation, whose kind is
//! [`PEER_FIRST`](holm_protocol::message::kind::PEER_FIRST) plus the variant's number, and whose
//! body starts with the partition (4 bytes, big-endian). Pulses and claims speak of several; the
//! receiver's router cuts them up ([`PeerMessage::split`]).

mod closing;
mod codec;
mod compare;
pub mod fingerprint;
mod gaps;
mod hint;
pub mod packed;

pub mod verify;

use bytes::Bytes;

use holm_protocol::admin::ReplicaState;
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition};
use holm_protocol::message::{Reply, Request};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::WireError;

use crate::clock::DotSet;
use crate::shard::ends::End;

pub use closing::{Actors, CloseMessage, Finding, Step};
pub use compare::{CompareMessage, Position, Standing};
use fingerprint::FingerprintMessage;
pub use gaps::{Claimed, GapObject, PageObject};
pub use hint::HintMessage;

/// One operation of one shard's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Why a replica did not do what it was asked. Nothing happened there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is no replica of the partition, by the layout it knows.
    NotReplica = 1,
    /// What it was sent is not possible: a damaged object, a key of another partition, dots that
    /// only the replica itself could have made.
    Malformed = 2,
    /// The object is of another kind than its bucket.
    WrongKind = 3,
    /// The object would exceed a limit.
    TooLarge = 4,
    /// A last-writer-wins value from a clock too far ahead.
    ClockSkew = 5,
    /// Its store is full.
    StoreFull = 6,
    /// Its store failed.
    StoreIo = 7,
    /// The stored object is damaged.
    Corrupt = 8,
    /// It has missed or lost something, and takes the partition whole from another replica first.
    Behind = 9,
    /// It has started and has not compared with another replica yet.
    InDoubt = 21,
    /// Its queues are full.
    Overloaded = 10,
    /// It does not know the bucket (yet), and so not how to read the key.
    UnknownBucket = 12,
    /// There is no connection to it, as the asking shard or a relay finds.
    Unreachable = 11,
    /// It keeps as many hints as it may.
    HintsFull = 20,
    /// What it was sent names a dot of a run that ended, which may be void: it is being decided.
    Frozen = 22,
    /// What it was sent names a void dot, of a run that ended.
    Void = 23,
}

impl Refusal {
    /// Whether it is about the replica and not about what it was sent: another node can take that
    /// in its place.
    #[must_use]
    pub fn is_of_the_node(self) -> bool {
        !matches!(
            self,
            Refusal::Malformed
                | Refusal::WrongKind
                | Refusal::TooLarge
                | Refusal::ClockSkew
                | Refusal::Void
        )
    }

    fn from_byte(byte: u8) -> Result<Refusal, WireError> {
        Ok(match byte {
            1 => Refusal::NotReplica,
            2 => Refusal::Malformed,
            3 => Refusal::WrongKind,
            4 => Refusal::TooLarge,
            5 => Refusal::ClockSkew,
            6 => Refusal::StoreFull,
            7 => Refusal::StoreIo,
            8 => Refusal::Corrupt,
            9 => Refusal::Behind,
            10 => Refusal::Overloaded,
            11 => Refusal::Unreachable,
            12 => Refusal::UnknownBucket,
            20 => Refusal::HintsFull,
            21 => Refusal::InDoubt,
            22 => Refusal::Frozen,
            23 => Refusal::Void,
            got => return Err(WireError::Invalid { field: "refusal", got: got.into() }),
        })
    }
}

/// How much of an object a read wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The whole object.
    Full,
    /// Its digest.
    Digest,
}

/// What a replica found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The encoded object.
    Object(Bytes),
    /// Its digest.
    Digest(u64),
    /// Nothing: never written, as far as the replica knows.
    Absent,
    /// It could not look.
    Refused(Refusal),
}

/// A message between shards of different nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// Join this object, make it durable, say so.
    Write {
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
        /// The other replicas of the receiver's region, to which it is to pass the object on.
        fan_out: Vec<NodeId>,
    },
    /// Who made a write durable. A relay speaks for the replicas of its region, each by name.
    WriteReply {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// Replicas on whose disk it is.
        durable: Vec<NodeId>,
        /// Replicas that refused.
        refused: Vec<(NodeId, Refusal)>,
    },
    /// What do you hold of this key?
    Read {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
        /// How much of it.
        want: Want,
    },
    /// What the replica holds.
    ReadReply {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// What it found.
        found: Found,
    },
    /// Join this object; nobody waits for it.
    Repair {
        /// The partition.
        partition: Partition,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
        /// The encoded object.
        object: Bytes,
    },
    /// A client's request, from a node that holds no replica of the key.
    Proxy {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The request.
        request: Request,
    },
    /// The answer to it.
    ProxyReply {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The answer.
        reply: Reply,
    },
    /// A question of a replica that verifies a partition with this one.
    Verify {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// What it asks.
        question: verify::Question,
    },
    /// The answer to it.
    VerifyReply {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The answer.
        answer: verify::Answer,
    },
    /// Describe what you hold of this key, for an operator.
    Inspect {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
    },
    /// The description.
    InspectReply {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// What it holds.
        state: ReplicaState,
    },
    /// About a hint.
    Hint(HintMessage),
    /// About what a replica holds, as digests.
    Fingerprint(FingerprintMessage),
    /// About where replicas stand with partitions. Nobody waits for it but the partitions themselves.
    Compare(CompareMessage),
    /// About actors of runs that ended.
    Close(CloseMessage),
    /// How far this run has written to the partitions on which that has changed. Speaks only of what
    /// is durable; nobody answers.
    Pulse {
        /// The sender's run.
        actor: Actor,
        /// Every write of the run with this reading or an earlier one is among these counters, or
        /// those of earlier pulses.
        hlc: Hlc,
        /// Per partition the last counter; at least one.
        counters: Vec<(Partition, u64)>,
    },
    /// What the sender has seen of the actors of whom that has changed, durably, of any run.
    /// Repeated until it is noted.
    Seen {
        /// The operation.
        op: OpId,
        /// The sender's run, and the version of the layout that it goes by: a claim counts for these.
        run: Actor,
        /// See there.
        layout: u64,
        /// What is claimed, per partition; at least one.
        clocks: Vec<(Partition, Claimed)>,
    },
    /// A shard has taken in its part of [`PeerMessage::Seen`].
    Noted {
        /// The operation.
        op: OpId,
        /// A partition of that part.
        partition: Partition,
        /// Which shard, of how many: that is the part.
        shard: u16,
        /// See there.
        shards: u16,
    },
    /// Send what I am missing.
    GapAsk {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// What is missing.
        missing: DotSet,
        /// How much the asking shard takes now, bytes. One object is taken whatever its length.
        bytes_max: u32,
    },
    /// Some of what was missing. What is not spoken of can be asked for again.
    GapAnswer {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The current objects of keys to which missing writes were.
        objects: Vec<GapObject>,
        /// Seen here, but the log does not know any more which keys these were to.
        cut: DotSet,
        /// Not seen here.
        unknown: DotSet,
    },
    /// Send the objects of a partition, in the order of their keys.
    PageAsk {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// The bucket and key of the last object that came; of nothing, to begin.
        after: Option<(BucketId, Bytes)>,
        /// What the asking node knows to be stable, to begin.
        know: VersionVector,
        /// Whether it asks of all that others have, because none of them serves. Otherwise only who
        /// serves can answer.
        gathers: bool,
        /// The run that asks: only one that the other node has met is sent anything.
        run: Actor,
        /// How much the asking shard takes now, bytes. One object is taken whatever its length.
        bytes_max: u32,
    },
    /// Some of them.
    PageAnswer {
        /// The operation.
        op: OpId,
        /// The partition.
        partition: Partition,
        /// What the sender had seen before it read the page, if that is the first.
        clock: DotSet,
        /// What it knew to be stable then, likewise.
        know: VersionVector,
        /// What the sender knew then of actors that ended.
        ends: Vec<(Actor, End)>,
        /// The objects.
        objects: Vec<PageObject>,
        /// Whether these were the last ones.
        is_last: bool,
    },
}

#[cfg(test)]
mod tests;
