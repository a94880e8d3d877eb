//! Why metadata was refused. Nothing has happened then: each node keeps what it holds.

use holm_protocol::bucket::BucketPolicyError;
use holm_protocol::ids::BucketId;

use super::{BUCKETS_HARD_MAX, ENCODED_BYTES_MAX};
use crate::layout::LayoutDecodeError;

/// Why two nodes' metadata cannot be merged. **Nothing happened**: nothing of the other node's
/// was taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataConflict {
    /// The nodes are of two clusters.
    #[error("this node is of cluster `{ours}`, the other one of `{theirs}`: check their addresses")]
    Cluster {
        /// This node's cluster.
        ours: String,
        /// The other's.
        theirs: String,
    },
    /// Two layouts were applied as the same version.
    #[error(
        "two layouts were applied as version {version}: {ours:016x} is in force here and \
         {theirs:016x} on the other node; decide which one stays"
    )]
    Layout {
        /// Their version.
        version: u64,
        /// The digest of this node's.
        ours: u64,
        /// The digest of the other's.
        theirs: u64,
    },
    /// The two nodes' clusters were created apart: each has secrets of its own.
    #[error(
        "this node and the other one got different first layouts, so they are two clusters \
         of one name; give the one without data an empty data directory"
    )]
    Secrets,
    /// Two buckets that were created apart have the same id.
    #[error(
        "bucket `{ours}` of this node and bucket `{theirs}` of the other one have the same id {}; \
         one of them needs another name",
        id.0
    )]
    BucketName {
        /// Their id.
        id: BucketId,
        /// The name here.
        ours: String,
        /// The name there.
        theirs: String,
    },
    /// Together there would be more buckets than [`BUCKETS_HARD_MAX`].
    #[error("the two nodes have {buckets} buckets together, the limit is {BUCKETS_HARD_MAX}")]
    TooManyBuckets {
        /// How many there would be.
        buckets: usize,
    },
}

/// Why bytes are not metadata. **Nothing happened**: they are dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataDecodeError {
    /// Longer than any metadata; nothing was read.
    #[error("encoded metadata of {bytes} bytes: the limit is {ENCODED_BYTES_MAX}")]
    TooLong {
        /// How long the input is.
        bytes: usize,
    },
    /// Too short to hold a format and a digest.
    #[error("encoded metadata ends after {bytes} bytes")]
    Truncated {
        /// How long the input is.
        bytes: usize,
    },
    /// Made by a release that this one does not know.
    #[error("metadata format {got} is not known here: upgrade this node")]
    Format {
        /// The format found.
        got: u8,
    },
    /// The bytes are not those that were written.
    #[error("encoded metadata does not match its digest: it is damaged")]
    Damaged,
    /// Undamaged, and yet not metadata: made by a faulty node.
    #[error("encoded metadata is undamaged but malformed")]
    Malformed,
    /// The cluster's name is none.
    #[error("encoded metadata names a cluster that cannot be: {0:?}")]
    Cluster(String),
    /// The layout is refused.
    #[error("encoded metadata: {0}")]
    Layout(#[from] LayoutDecodeError),
    /// A layout without secrets, secrets without a layout, or too many of them.
    #[error("encoded metadata whose secrets do not fit its layout")]
    Secrets,
    /// More buckets than [`BUCKETS_HARD_MAX`].
    #[error("encoded metadata of {buckets} buckets: the limit is {BUCKETS_HARD_MAX}")]
    TooManyBuckets {
        /// How many there are.
        buckets: usize,
    },
    /// A bucket's id is not that of its name, or buckets are not in order.
    #[error("encoded metadata with bucket `{name}` under a wrong id or out of order")]
    BucketId {
        /// The bucket.
        name: String,
    },
    /// A bucket's default level is a number of replicas that nobody can ask for.
    #[error("encoded metadata with bucket `{name}` whose default level is 0 or above 127")]
    Level {
        /// The bucket.
        name: String,
    },
    /// A bucket's policy is refused.
    #[error("encoded metadata: {0}")]
    Policy(#[from] BucketPolicyError),
}
