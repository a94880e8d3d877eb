//! A client that is up to no good: it writes with contexts that it was not given.
//!
//! It has seen contexts of others, and uses one for another key, or changes a byte of it. What such
//! a context covers would vanish, now or when it is written (I8), so each of its writes must be
//! refused.

use bytes::Bytes;
use holm_protocol::ids::{NodeId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Put, Request};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::cluster::{CallId, CallResult, Cluster};
use crate::history::{EventId, KeyId};
use crate::plan::pick;
use crate::rng::stream;

/// Its number among clients.
const HOSTILE: u64 = 1 << 21;
/// The deadline of its calls, milliseconds. Arbitrary.
const TIMEOUT_MS: u32 = 1_000;

/// See the [module](self).
#[derive(Debug)]
pub struct Hostile {
    rng: ChaCha8Rng,
    sequence: u64,
    waiting: Vec<(CallId, EventId)>,
}

impl Hostile {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(seed: u64) -> Hostile {
        Hostile { rng: stream(seed, "hostile"), sequence: 0, waiting: Vec::new() }
    }

    /// When it acts next, if a run is to be disturbed `times` before `until_us`.
    pub fn next_us(&mut self, now_us: u64, until_us: u64, times: u64) -> u64 {
        now_us + self.rng.random_range(1..=(2 * until_us / times).max(1))
    }

    /// Writes with a context that was not given out for the key.
    pub fn act(&mut self, cluster: &mut Cluster) {
        let Some((key, context)) = self.forge(cluster) else { return };
        let value = |id: EventId| Bytes::from(format!("forged {}", id.0));
        let now_us = cluster.now_us();
        let (id, value) = cluster.referee_mut().begin_forged(key, value, (Level::One, now_us));
        self.sequence += 1;
        let facts = cluster.referee().history().key(key);
        let request = Request::Put(Put {
            bucket: facts.bucket,
            key: facts.name.clone(),
            value,
            context,
            level: Some(Level::One),
            request: RequestId { client: HOSTILE, sequence: self.sequence },
            timeout_ms: TIMEOUT_MS,
        });
        let nodes: Vec<NodeId> = cluster.node_ids().collect();
        let node = pick(&mut self.rng, &nodes);
        let region = cluster.region_of(node);
        let call = cluster.call((HOSTILE, region), node, request, 0);
        self.waiting.push((call, id));
    }

    /// A context of somebody else's, altered or for another key.
    fn forge(&mut self, cluster: &Cluster) -> Option<(KeyId, Bytes)> {
        let history = cluster.referee().history();
        let contexts = history.contexts();
        let at = self.rng.random_range(0..contexts.len().max(1));
        let (of, context) = history.contexts().nth(at)?;
        let others = history
            .keys()
            .filter(|&(key, facts)| key != of && facts.bucket == history.key(of).bucket);
        let others: Vec<KeyId> = others.map(|(key, _)| key).collect();
        if !others.is_empty() && self.rng.random() {
            return Some((pick(&mut self.rng, &others), context.clone()));
        }
        let mut altered = context.to_vec();
        let byte = self.rng.random_range(0..altered.len());
        altered[byte] ^= 1 << self.rng.random_range(0..8);
        Some((of, altered.into()))
    }

    /// A call has ended, maybe one of its own.
    pub fn on_answer(&mut self, call: CallId, result: &CallResult, cluster: &mut Cluster) {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == call) {
            let (_, id) = self.waiting.swap_remove(at);
            cluster.referee_mut().forged_told(id, result);
        }
    }
}
