//! What a shard is told at birth, and the state of the cluster it works in.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_protocol::bucket::BucketInfo;
use holm_protocol::ids::{Actor, BucketId, NodeId};

use crate::context::ContextSecrets;
use crate::layout::Layout;

/// A shard's limits and intervals. Every queue and wait has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardConfig {
    /// Client requests not yet answered. Above it requests are refused as overload.
    pub in_flight_max: usize,
    /// Writes already answered whose other replicas are still awaited. Above it the oldest are let
    /// go: repair finds what they missed.
    pub lingering_max: usize,
    /// Writes being passed on to other replicas of the region. Above it a write is stored and not
    /// passed on: its coordinator sends it to the others itself after a while.
    pub relays_max: usize,
    /// Bytes of values and objects that requests in flight and lingering writes hold. Above it
    /// requests are refused as overload; above half of it lingering writes are let go.
    pub held_bytes_max: usize,
    /// Bytes of decoded objects kept in memory.
    pub cache_bytes_max: usize,
    /// Writes remembered by request id, and for how long, milliseconds, whichever is less. A retry
    /// outside this window is a new write.
    pub requests_max: usize,
    /// See [`ShardConfig::requests_max`].
    pub requests_window_ms: u64,
    /// Deadline of a request that names none, milliseconds.
    pub timeout_ms: u32,
    /// A replica that has not acknowledged a write for this long gets it again, directly,
    /// milliseconds. Doubles each time.
    pub resend_ms: u64,
    /// A read is hedged when an answer is later than the replica's usual time, but never sooner or
    /// later than these, milliseconds.
    pub hedge_ms_min: u64,
    /// See [`ShardConfig::hedge_ms_min`].
    pub hedge_ms_max: u64,
    /// How far ahead a last-writer-wins value's clock may be, milliseconds.
    pub max_clock_skew_ms: u64,
    /// Log records, one a commit, between two checkpoints of the clocks: bounds what is read at
    /// start.
    pub checkpoint_every: u32,
    /// How often a partition is verified with each other replica, milliseconds; 0: only on demand.
    pub verify_every_ms: u64,
    /// Rows that a verification reads at a time; requests are served between. At most 4096 count
    /// when keys are compared.
    pub verify_rows: usize,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig {
            // At 50,000 requests a second and 5 ms each, 250 are in flight; this is 16 times that.
            in_flight_max: 4096,
            lingering_max: 16_384,
            // As many as the requests that one coordinator may have in flight.
            relays_max: 4096,
            held_bytes_max: 64 << 20,
            cache_bytes_max: 32 << 20,
            requests_max: 131_072,
            requests_window_ms: 60_000,
            timeout_ms: 5_000,
            // Above any round trip on earth, so that only lost messages are repeated.
            resend_ms: 500,
            hedge_ms_min: 5,
            hedge_ms_max: 1_000,
            max_clock_skew_ms: 500,
            checkpoint_every: 1024,
            verify_every_ms: 3_600_000,
            // About a quarter of a millisecond.
            verify_rows: 512,
        }
    }
}

impl ShardConfig {
    /// Small limits, so that tests reach all of them.
    #[must_use]
    pub fn test_min() -> Self {
        ShardConfig {
            in_flight_max: 8,
            lingering_max: 4,
            relays_max: 4,
            held_bytes_max: 64 << 10,
            cache_bytes_max: 4 << 10,
            requests_max: 16,
            requests_window_ms: 2_000,
            timeout_ms: 1_000,
            resend_ms: 100,
            hedge_ms_min: 5,
            hedge_ms_max: 100,
            max_clock_skew_ms: 500,
            checkpoint_every: 4,
            verify_every_ms: 0,
            verify_rows: 3,
        }
    }
}

/// Who the shard is in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// The node.
    pub node: NodeId,
    /// The run: fresh and random at every start (I1).
    pub actor: Actor,
    /// Whether the store lost state it once had: such a node answers no reads and coordinates
    /// nothing, because what it would push could bring back what others have forgotten (I4, I11).
    pub amnesia: bool,
    /// Which of the node's shards this is.
    pub shard: usize,
    /// How many there are: partition `p` belongs to shard `p % shards`.
    pub shards: usize,
}

impl Boot {
    /// Whether a partition belongs to this shard.
    #[must_use]
    pub fn owns(&self, partition: holm_protocol::ids::Partition) -> bool {
        shard_of(partition, self.shards) == self.shard
    }
}

/// The shard of a partition.
#[must_use]
pub fn shard_of(partition: holm_protocol::ids::Partition, shards: usize) -> usize {
    partition.to_u32() as usize % shards.max(1)
}

/// What all shards of a node share about the cluster. Replaced whole when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// The layout in force.
    pub layout: Option<Arc<Layout>>,
    /// The buckets.
    pub buckets: BTreeMap<BucketId, BucketInfo>,
    /// What seals contexts. Made with the first layout.
    pub secrets: Option<ContextSecrets>,
}
