//! What a shard is told at birth, and the state of the cluster it works in.

use std::collections::BTreeMap;
use std::sync::Arc;

use holm_protocol::bucket::BucketInfo;
use holm_protocol::ids::{Actor, BucketId, NodeId};

use crate::context::ContextSecrets;
use crate::layout::Layout;
pub use crate::peer::Standing;

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
    /// milliseconds. As much again for each 64 KiB of the object; doubles each time.
    pub resend_ms: u64,
    /// A read is hedged when an answer is later than the replica's usual time, but never sooner or
    /// later than these, milliseconds.
    pub hedge_ms_min: u64,
    /// See [`ShardConfig::hedge_ms_min`].
    pub hedge_ms_max: u64,
    /// How far ahead a last-writer-wins value's clock may be, milliseconds.
    pub max_clock_skew_ms: u64,
    /// Log records, one a commit, after which what they say is sorted into segments and checkpoints:
    /// bounds what is read at start.
    pub checkpoint_every: u32,
    /// A replica of the own region that has not acknowledged a write for this long is replaced by a
    /// fallback, milliseconds.
    pub hint_after_ms: u64,
    /// Bytes of hints on the disk. Above it they are refused, and writes need real replicas.
    pub hint_bytes_max: usize,
    /// Bytes of hints that may be on their way to this node, from all others together.
    pub handoff_window_bytes: usize,
    /// Bytes of the log's entries kept in memory. Above it they are sorted early.
    pub log_memory_bytes_max: usize,
    /// Bytes of the log's segments on disk. Above it the oldest are cut, and a replica that lacks what
    /// they knew takes the partition whole.
    pub log_segment_bytes_max: u64,
    /// Between two pulses to a node of the own region, milliseconds.
    pub pulse_ms: u64,
    /// Between two pulses to a node of another region, milliseconds.
    pub pulse_wan_ms: u64,
    /// Between two claims of what has been seen, milliseconds.
    pub seen_ms: u64,
    /// Between two looks at what has become stable, milliseconds.
    pub stable_ms: u64,
    /// Entries of a context, beyond those of live values, that are not worth a write of their own to be
    /// forgotten: they go when the object is written again.
    pub context_slack: usize,
    /// Questions about gaps under way at a time.
    pub gap_asks_max: usize,
    /// Bytes of objects that each may be answered with.
    pub gap_bytes_max: usize,
    /// How often a partition is verified with each other replica, milliseconds; 0: only on demand.
    pub verify_every_ms: u64,
    /// How often a shard looks for actors of runs that ended, milliseconds; 0: never.
    pub retire_ms: u64,
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
            // Seconds of a busy shard: what is stable by then is never sorted.
            checkpoint_every: 16_384,
            // Above a slow sync, far below what a client waits.
            hint_after_ms: 200,
            // Some minutes of a busy shard's writes for one replica. Arbitrary.
            hint_bytes_max: 256 << 20,
            // A round trip's worth at a gigabit and eight milliseconds.
            handoff_window_bytes: 1 << 20,
            log_memory_bytes_max: 16 << 20,
            log_segment_bytes_max: 1 << 30,
            pulse_ms: 50,
            pulse_wan_ms: 200,
            seen_ms: 1_000,
            stable_ms: 250,
            // As much as a short value's own overhead.
            context_slack: 6,
            // Enough for a long line: two megabytes in each round trip.
            gap_asks_max: 8,
            gap_bytes_max: 256 << 10,
            verify_every_ms: 3_600_000,
            // A run ends seldom, and nothing waits for it but room.
            retire_ms: 10_000,
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
            hint_after_ms: 60,
            hint_bytes_max: 16 << 10,
            handoff_window_bytes: 2 << 10,
            log_memory_bytes_max: 1 << 10,
            log_segment_bytes_max: 1 << 20,
            pulse_ms: 20,
            pulse_wan_ms: 60,
            seen_ms: 200,
            stable_ms: 50,
            context_slack: 1,
            gap_asks_max: 2,
            gap_bytes_max: 256,
            verify_every_ms: 0,
            retire_ms: 0,
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
    /// Where it stands with its partitions as it starts (I4, I11): in doubt; behind, if the store says
    /// that it lost state it once had. That it serves at once is for tests.
    pub standing: Standing,
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

    /// The next higher partition that does, whether there is such a one or not.
    #[must_use]
    pub fn next_owned(
        &self,
        partition: holm_protocol::ids::Partition,
    ) -> Option<holm_protocol::ids::Partition> {
        let shards = self.shards.max(1) as u64;
        let above = u64::from(partition.to_u32()) + 1;
        let next = above + (self.shard as u64 + shards - above % shards) % shards;
        u32::try_from(next).ok().map(holm_protocol::ids::Partition::from_u32)
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
