//! Refusals and failures as numbered codes with a retry class.
//!
//! A node answers a request with its result or with one [`RequestError`]. Each says whether
//! **nothing happened** or the write **may have happened** ([`RequestError::outcome`]), and whether
//! repeating helps ([`RequestError::retry`]). Retry policy itself lives in the client, which knows
//! idempotence.

use serde::{Deserialize, Serialize};

use crate::ids::BucketId;
use crate::level::Level;

/// What an error says about the state of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The request changed nothing and never will.
    NothingHappened,
    /// The write may be visible now, later, or never: *unknown*.
    MayHaveHappened,
}

/// Whether repeating a request can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Retry {
    /// No: the request itself must change.
    Never,
    /// Yes, at another node.
    Elsewhere,
    /// Yes, after a pause.
    Later,
    /// Only with the same request id at the same run of the same node, which then applies it once.
    SameRequest,
}

/// Why a client's context was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ContextFault {
    /// Its bytes are no context.
    Malformed,
    /// Its MAC does not match this key: forged, altered, or of another key.
    Forged,
    /// Its secret has been rotated away, or is of another cluster.
    UnknownSecret,
    /// It is longer than any context can be.
    TooLong,
}

/// Why a node cannot serve requests at all right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NotReady {
    /// No layout has been applied to this cluster.
    NoLayout,
    /// The node is not in the layout.
    NotInLayout,
    /// The node is starting.
    Starting,
    /// The node is stopping.
    Stopping,
    /// The node has missed or lost something of what it once had, and takes it from another replica
    /// before it answers.
    Behind,
    /// The node has started, and has not yet compared with another replica whether its disk is the
    /// newest that it had.
    InDoubt,
    /// A context names a write of a run that ended, which this node lacks: it is being found out whether
    /// anybody has it.
    Undecided,
}

/// Why a write or read was refused by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StoreFault {
    /// No space left: reads go on, writes are refused until space is back.
    Full,
    /// An I/O error: the node is read-only until it is restarted.
    Io,
    /// Stored bytes do not match their checksum.
    Corrupt,
    /// The node keeps as many hints for other nodes as it may, and holds no replica itself.
    HintsFull,
}

/// A permission that a client certificate can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May get.
    Read,
    /// May put and delete.
    Write,
    /// May change buckets and layout, and see the cluster's state.
    Admin,
}

/// Why a request was not answered with a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The bytes of the request are not one.
    #[error("malformed request: {what}; the client and node may speak different versions")]
    Malformed {
        /// What is wrong with them.
        what: String,
    },
    /// No common protocol version.
    #[error(
        "protocol version {got} is not spoken here (only {min} to {max}); upgrade the older side"
    )]
    UnsupportedVersion {
        /// What the other side asked for.
        got: u16,
        /// The lowest spoken here.
        min: u16,
        /// The highest spoken here.
        max: u16,
    },
    /// The connection was meant for another cluster.
    #[error("this node is of cluster `{here}`, not `{asked}`; check the cluster file")]
    WrongCluster {
        /// This node's cluster.
        here: String,
        /// What was asked for.
        asked: String,
    },
    /// The certificate does not carry the role.
    #[error(
        "the client certificate lacks role `{needed:?}`; issue one with `holm cert client --roles`"
    )]
    Unauthorized {
        /// The role that is needed.
        needed: Role,
    },
    /// Nodes' settings that must be equal differ.
    #[error(
        "settings fingerprint {theirs:016x} differs from {ours:016x}; both nodes must run the same limits and version"
    )]
    SettingsDiffer {
        /// This node's fingerprint.
        ours: u64,
        /// The other's.
        theirs: u64,
    },
    /// No such bucket here (yet).
    #[error("unknown bucket {}; create it with `holm bucket create`", .bucket.0)]
    UnknownBucket {
        /// The number asked for.
        bucket: BucketId,
    },
    /// The key is empty or too long.
    #[error("key is {len} bytes, must be 1 to {limit}")]
    KeyLength {
        /// Its length.
        len: u64,
        /// The most allowed.
        limit: u64,
    },
    /// The value is too large for its bucket.
    #[error("value is {len} bytes, the bucket's limit is {limit}")]
    ValueTooLarge {
        /// Its length.
        len: u64,
        /// The bucket's `max_value`.
        limit: u64,
    },
    /// The object with all its siblings would be too large.
    #[error(
        "object would be {len} bytes with its siblings, limit {limit}; read and resolve them first"
    )]
    ObjectTooLarge {
        /// What it would be.
        len: u64,
        /// The most allowed.
        limit: u64,
    },
    /// The context was refused.
    #[error("context refused ({fault:?}); read the key again and use the context it gives")]
    Context {
        /// Why.
        fault: ContextFault,
    },
    /// A delete without a context.
    #[error("a delete needs the context of a read; read the key first")]
    ContextRequired,
    /// A put that overwrites nothing on a key with too many siblings.
    #[error(
        "key has {siblings} siblings, the bucket's limit is {limit}; read it and put with its context"
    )]
    TooManySiblings {
        /// How many there are.
        siblings: u32,
        /// The bucket's `max_siblings`.
        limit: u32,
    },
    /// The replication factor can never meet this level.
    #[error(
        "level {level} needs {needed} replicas, the bucket has {available} there; choose another level"
    )]
    LevelUnreachable {
        /// The level.
        level: Level,
        /// How many replicas it needs.
        needed: u32,
        /// How many there are.
        available: u32,
    },
    /// A write without enough durable copies in time. It *may* appear later.
    #[error(
        "write not acknowledged: {durable} of {needed} required copies are durable; it may still appear"
    )]
    WriteUnknown {
        /// How many copies the level needs.
        needed: u32,
        /// How many are known to be durable.
        durable: u32,
    },
    /// Too few replicas can be reached for the level. Nothing was done.
    #[error(
        "write refused: {reachable} of {needed} required replicas can be reached; nothing was done"
    )]
    WriteUnavailable {
        /// How many copies the level needs.
        needed: u32,
        /// How many of its replicas can be reached.
        reachable: u32,
    },
    /// A read without enough answers in time.
    #[error("read not answered: {answered} of {needed} required replicas answered in time")]
    ReadUnavailable {
        /// How many the level needs.
        needed: u32,
        /// How many answered.
        answered: u32,
    },
    /// A queue is full. Nothing was done.
    #[error(
        "node overloaded: {in_flight} requests in flight, limit {limit}; retry in {retry_after_ms} ms"
    )]
    Overloaded {
        /// What is in the queue.
        in_flight: u32,
        /// Its limit.
        limit: u32,
        /// When to come back, milliseconds.
        retry_after_ms: u32,
    },
    /// The node cannot serve at all.
    #[error("node not ready ({reason:?}); try another node")]
    NotReady {
        /// Why.
        reason: NotReady,
    },
    /// The store refused.
    #[error("store refused ({fault:?}); see this node's log and /readyz")]
    Store {
        /// Why.
        fault: StoreFault,
    },
    /// The same request id was used for another write.
    #[error("request id {client:016x}-{sequence} was used for another write; ids must be unique")]
    RequestIdReused {
        /// The id's client.
        client: u64,
        /// The id's sequence.
        sequence: u64,
    },
    /// A node that passed the request on does not know what became of it.
    #[error("the coordinator did not answer in time; a write may still appear")]
    CoordinatorLost,
    /// A bucket's name or policy is not possible, or conflicts with an existing one.
    #[error("bucket refused: {why}")]
    BucketRefused {
        /// Why.
        why: String,
    },
    /// A layout is not possible, or conflicts with the one in force.
    #[error("layout refused: {why}")]
    LayoutRefused {
        /// Why.
        why: String,
    },
    /// A development command on a node that does not run in development mode.
    #[error("this node does not run with `dev.enabled = true`; development commands are refused")]
    NotDevelopment,
    /// The frame is longer than any message.
    #[error("frame of {len} bytes, limit {limit}; the connection is closed")]
    FrameTooLong {
        /// Its announced length.
        len: u64,
        /// The most allowed.
        limit: u64,
    },
    /// Clocks differ too much for last-writer-wins.
    #[error(
        "clock is {ahead_ms} ms ahead of this node, limit {limit_ms}; check time synchronisation"
    )]
    ClockSkew {
        /// How far ahead.
        ahead_ms: u64,
        /// `max_clock_skew_ms`.
        limit_ms: u64,
    },
    /// Too few replicas made the write durable, and the nodes that could have stood in for the
    /// others keep as many hints as they may. It *may* appear later.
    #[error(
        "write not acknowledged: {durable} of {needed} required copies are durable, and no other node has room for hints; bring replicas back or raise limits.hint_bytes_max; it may still appear"
    )]
    HintsFull {
        /// How many copies the level needs.
        needed: u32,
        /// How many are known to be durable, hints included.
        durable: u32,
    },
}

impl RequestError {
    /// The error's number: stable, in documentation, metrics and scripts.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            RequestError::Malformed { .. } => 1,
            RequestError::UnsupportedVersion { .. } => 2,
            RequestError::WrongCluster { .. } => 3,
            RequestError::Unauthorized { .. } => 4,
            RequestError::SettingsDiffer { .. } => 5,
            RequestError::UnknownBucket { .. } => 6,
            RequestError::KeyLength { .. } => 7,
            RequestError::ValueTooLarge { .. } => 8,
            RequestError::ObjectTooLarge { .. } => 9,
            RequestError::Context { .. } => 10,
            RequestError::ContextRequired => 11,
            RequestError::TooManySiblings { .. } => 12,
            RequestError::LevelUnreachable { .. } => 13,
            RequestError::WriteUnknown { .. } => 14,
            RequestError::ReadUnavailable { .. } => 15,
            RequestError::Overloaded { .. } => 16,
            RequestError::NotReady { .. } => 17,
            RequestError::Store { .. } => 18,
            RequestError::RequestIdReused { .. } => 19,
            RequestError::CoordinatorLost => 20,
            RequestError::BucketRefused { .. } => 21,
            RequestError::LayoutRefused { .. } => 22,
            RequestError::NotDevelopment => 23,
            RequestError::FrameTooLong { .. } => 24,
            RequestError::ClockSkew { .. } => 25,
            RequestError::WriteUnavailable { .. } => 26,
            RequestError::HintsFull { .. } => 27,
        }
    }

    /// What the error says about the state of the database.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            RequestError::WriteUnknown { .. }
            | RequestError::HintsFull { .. }
            | RequestError::CoordinatorLost => Outcome::MayHaveHappened,
            _ => Outcome::NothingHappened,
        }
    }

    /// Whether repeating can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            RequestError::WriteUnknown { .. }
            | RequestError::HintsFull { .. }
            | RequestError::CoordinatorLost => Retry::SameRequest,
            RequestError::Overloaded { .. } => Retry::Later,
            RequestError::NotReady { .. }
            | RequestError::Store { .. }
            | RequestError::UnknownBucket { .. }
            | RequestError::WriteUnavailable { .. }
            | RequestError::ReadUnavailable { .. } => Retry::Elsewhere,
            _ => Retry::Never,
        }
    }
}
