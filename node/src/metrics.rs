//! What a node tells about itself in numbers: `/metrics`.
//!
//! Two halves. [`RequestMetrics`] is written by the shard threads at every answer and must cost
//! next to nothing: every series has its place in an array, and an observation is a few relaxed
//! additions. Everything else is kept anyway by whoever works with it (counters of shards and
//! network, the store's figures) and is only read when somebody asks, by [`Exposition`].
//!
//! The text is OpenMetrics. Names start with `holm_`, but for the `process_` ones, which every
//! exporter has; base units, in the name (`_seconds`, `_bytes`); what only grows ends in `_total`.
//! There are no globals: two nodes in one process have two pages.
//!
//! Labels stay few: `kind`, `level` and `outcome` of requests have a fixed set of values, `shard` and
//! `peer` as many as there are. Never a key, a bucket or a client.

mod collect;
mod consistency;
mod histogram;
mod membership;
mod outcome;
mod page;
mod process;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use holm_protocol::level::Level;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::control::NodeState;
use crate::inbox::Inbox;
use crate::net::counters::NetCounters;
pub use consistency::{Visibility, Visible};

use collect::{NodeCollector, ProcessCollector};
use histogram::Histogram;
use outcome::OUTCOMES;

/// Upper bounds of the latency buckets, microseconds: six a decade, so that a percentile read off
/// them is at most a third too high, from well below a local answer to the longest sensible wait.
const LATENCY_BOUNDS_US: &[u64] = &[
    50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000,
    20_000, 30_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 500_000, 750_000,
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 5_000_000, 7_500_000, 10_000_000,
];

/// Upper bounds of the siblings buckets, up to the hard limit. 0 is a key without a value.
const SIBLINGS_BOUNDS: &[u64] = &[0, 1, 2, 3, 5, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Values of the `kind` label.
const KINDS: [&str; 4] = ["put", "get", "delete", "explain"];

/// Values of the `level` label: what the request named, `default` if nothing.
const LEVELS: [&str; 7] =
    ["default", "one", "local_quorum", "quorum", "each_quorum", "all", "number"];

/// What a shard was asked to do, and at which level, as far as the request named one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A put.
    Put(Option<Level>),
    /// A get.
    Get(Option<Level>),
    /// A delete.
    Delete(Option<Level>),
    /// An operator's question where a key lives.
    Explain,
}

impl Operation {
    /// Its place in [`KINDS`].
    fn kind(self) -> usize {
        match self {
            Operation::Put(_) => 0,
            Operation::Get(_) => 1,
            Operation::Delete(_) => 2,
            Operation::Explain => 3,
        }
    }

    /// The place of its level in [`LEVELS`].
    fn level(self) -> usize {
        let (Operation::Put(level) | Operation::Get(level) | Operation::Delete(level)) = self
        else {
            return 0;
        };
        // 1 to 5 for the named levels; numbers share the last place.
        usize::from(Level::to_byte(level)).min(LEVELS.len() - 1)
    }
}

/// What became of requests: written by all shards, read by `/metrics`.
#[derive(Debug)]
pub struct RequestMetrics {
    /// By kind, level and outcome, in this order.
    answered: Box<[AtomicU64]>,
    /// By kind, in microseconds.
    latency: [Histogram; KINDS.len()],
    siblings: Histogram,
    /// Reads refused for lost writes.
    reads_refused: AtomicU64,
    /// How long writes of other nodes take until they can be seen here.
    pub visibility: Visibility,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        RequestMetrics::new()
    }
}

impl RequestMetrics {
    /// All zero.
    #[must_use]
    pub fn new() -> RequestMetrics {
        let series = KINDS.len() * LEVELS.len() * OUTCOMES.len();
        RequestMetrics {
            answered: std::iter::repeat_with(AtomicU64::default).take(series).collect(),
            latency: std::array::from_fn(|_| Histogram::new(LATENCY_BOUNDS_US)),
            siblings: Histogram::new(SIBLINGS_BOUNDS),
            reads_refused: AtomicU64::new(0),
            visibility: Visibility::default(),
        }
    }

    /// Counts an answer: `code` is 0 for a result, else
    /// [`RequestError::code`](holm_protocol::error::RequestError::code); `latency_us` is from the
    /// request's arrival at the shard to its answer's release.
    pub fn observe(&self, operation: Operation, code: u16, latency_us: u64) {
        let place = place(operation.kind(), operation.level(), outcome::position(code));
        self.answered[place].fetch_add(1, Ordering::Relaxed);
        self.latency[operation.kind()].observe(latency_us);
    }

    /// Counts the siblings in the answer to a get.
    pub fn observe_siblings(&self, siblings: usize) {
        self.siblings.observe(siblings as u64);
    }

    /// Counts a read that had to be refused because this node lost writes it once had.
    pub fn observe_refused_read(&self) {
        self.reads_refused.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self, place: usize) -> u64 {
        self.answered[place].load(Ordering::Relaxed)
    }
}

/// Where requests of a kind, level and outcome are counted.
fn place(kind: usize, level: usize, outcome: usize) -> usize {
    (kind * LEVELS.len() + level) * OUTCOMES.len() + outcome
}

/// Whatever a node's metrics are read from.
#[derive(Debug)]
pub struct Sources {
    /// The node, its store, its shards' counters and its peers.
    pub state: Arc<NodeState>,
    /// What became of requests.
    pub requests: Arc<RequestMetrics>,
    /// What the network did and refused.
    pub net: Arc<NetCounters>,
    /// The shards' inboxes, in order.
    pub inboxes: Vec<Arc<Inbox>>,
}

/// The page of metrics.
pub struct Exposition {
    registry: Registry,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl Exposition {
    /// A page that reads from these.
    #[must_use]
    pub fn new(sources: Sources) -> Exposition {
        let mut registry = Registry::default();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let started =
            since_1970.unwrap_or_default().saturating_sub(sources.state.started.elapsed());
        registry.register_collector(Box::new(ProcessCollector { started }));
        let holm = registry.sub_registry_with_prefix("holm");
        holm.register_collector(Box::new(NodeCollector { sources }));
        Exposition { registry }
    }

    /// The page as of now, in OpenMetrics text. Reads some twenty figures from RocksDB and four
    /// small files from `/proc`: a millisecond or less.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail, and no metric here has anything to refuse.
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics are incomplete");
        }
        text
    }
}
