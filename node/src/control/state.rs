//! What several threads want to know of a node: whether it serves as it should, or why not (I11).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holm_core::shard::config::ClusterState;
use holm_core::shard::event::{Counters, Demanded};
use holm_core::time::Mono;
use holm_protocol::admin::{
    BreakerState, Epoch, MemberState, MembershipStatus, NodeStatus, PeerOpinion, PeerStatus,
};
use holm_protocol::error::StoreFault;
use holm_protocol::ids::{Actor, NodeId};

use super::consistency::ShardFacts;
use crate::config::HealthConfig;
use crate::inbox::Inbox;
use crate::membership::Members;
use crate::net::peers::PeerPool;
use crate::store::RocksStore;

/// What a shard leaves for others to see, as of its last turn.
#[derive(Debug, Clone, Default)]
pub struct ShardState {
    /// What it counts.
    pub counters: Counters,
    /// Why it refuses writes, if it does.
    pub stopped: Option<StoreFault>,
    /// The nodes that it asks last, because they did not answer.
    pub breakers: Vec<(NodeId, BreakerState)>,
    /// What became of what operators wanted verified.
    pub demanded: Demanded,
    /// What it knows of consistency, as of its last look.
    pub facts: ShardFacts,
    /// The version of the layout that it knows.
    pub layout: u64,
    /// Whether it was told that the store lost state.
    pub knows_of_amnesia: bool,
}

/// What several threads want to know of a node's state.
#[derive(Debug)]
pub struct NodeState {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub run: Actor,
    /// When it started.
    pub started: Instant,
    /// Whether it lost state it once had.
    pub amnesia: AtomicBool,
    /// Whether it is stopping.
    pub stopping: AtomicBool,
    /// Whether a shard or the control thread cannot go on.
    pub broken: Arc<AtomicBool>,
    /// The layout's version, and the partitions the node holds.
    pub layout: Mutex<(u64, bool, u32)>,
    /// Each shard, as of its last turn.
    pub shards: Vec<Arc<Mutex<ShardState>>>,
    /// Nodes whose metadata was refused when it last came, and why.
    pub conflicts: Mutex<BTreeMap<NodeId, String>>,
    /// The store, to ask for room and failures.
    pub store: Mutex<RocksStore>,
    /// The other nodes.
    pub pool: PeerPool,
    /// What is thought of them.
    pub members: Arc<Members>,
    /// How far clocks may be apart, milliseconds.
    pub max_clock_skew_ms: u64,
    /// The shards' inboxes, for questions of HTTP.
    pub inboxes: Vec<Arc<Inbox>>,
    /// From when on consistency is worth an alarm.
    pub health: HealthConfig,
    /// Layout and buckets in force.
    pub cluster: Mutex<Arc<ClusterState>>,
    /// How often operators wanted what the node holds verified.
    pub demands: AtomicU64,
}

impl NodeState {
    /// The store, for figures. Shards have handles of their own.
    pub fn store(&self) -> MutexGuard<'_, RocksStore> {
        // Nothing is staged in this handle, so a panic leaves nothing half done.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the node does not serve requests as it should; empty if it does.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let (version, member, _) = *self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if version == 0 {
            reasons.push("no layout has been applied (holm layout apply)".to_owned());
        } else if !member {
            reasons.push("this node is not in the layout".to_owned());
        }
        if self.amnesia.load(Ordering::Acquire) {
            let how = "amnesia: the store lost state; it is taken from the others";
            reasons.push(how.to_owned());
        }
        if self.store().space().full {
            reasons.push("the disk is full: writes are refused".to_owned());
        }
        if let Some(failure) = self.store().failure() {
            reasons.push(format!("the store failed, writes are refused: {failure}"));
        }
        for file in self.store().damaged_files() {
            let file = file.display();
            reasons.push(format!("{file} is damaged: what it holds is left to the others"));
        }
        for (shard, state) in self.shards().iter().enumerate() {
            if let Some(fault) = state.stopped {
                let why = match fault {
                    StoreFault::Full => "the disk was full",
                    _ => "a commit failed; restart the node",
                };
                reasons.push(format!("shard {shard} refuses writes: {why}"));
            }
        }
        let (in_doubt, behind) = self.quarantined();
        if in_doubt > 0 {
            reasons.push(format!(
                "{in_doubt} partitions are in doubt: no other replica has said yet that this node's \
                 disk is not an older one"
            ));
        }
        if behind > 0 {
            reasons.push(format!(
                "{behind} partitions are behind: they are taken from other replicas first"
            ));
        }
        let conflicts = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, why) in conflicts.iter() {
            reasons.push(format!("cluster metadata of {node} was refused: {why}"));
        }
        drop(conflicts);
        if self.stopping.load(Ordering::Acquire) {
            reasons.push("the node is stopping".to_owned());
        }
        if self.broken.load(Ordering::Acquire) {
            reasons.push("a thread of the node cannot go on; see its log".to_owned());
        }
        reasons
    }

    /// The node's state for operators.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let (layout_version, _, partitions) =
            *self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = self.reasons();
        NodeStatus {
            node: self.node,
            run: self.run,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            layout_version,
            ready: if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) },
            amnesia: self.amnesia.load(Ordering::Acquire),
            peers: self.pool.status(),
            in_flight: self.counters().iter().map(|counters| counters.in_flight as u32).sum(),
            partitions,
        }
    }

    /// What the node thinks of the others: of those that its pool knows, and those that it has heard
    /// of.
    #[must_use]
    pub fn membership(&self) -> MembershipStatus {
        let now = self.members.now().mono;
        let mut opinions: BTreeMap<NodeId, PeerOpinion> = BTreeMap::new();
        for PeerStatus { node, connected, rtt_us } in self.pool.status() {
            let opinion = opinions.entry(node).or_insert_with(|| unheard(node, now));
            (opinion.connected, opinion.rtt_us) = (connected, rtt_us);
        }
        let driver = self.members.lock();
        for (node, known) in driver.opinions() {
            let opinion = opinions.entry(node).or_insert_with(|| unheard(node, now));
            opinion.state = known.state;
            opinion.epoch = known.epoch;
            opinion.incarnation = known.incarnation;
            opinion.since_ms = known.since.ms_until(now);
            opinion.addr = known.addr;
        }
        for opinion in opinions.values_mut() {
            opinion.clock = driver.clock(opinion.node, now);
        }
        let (epoch, incarnation) = (driver.epoch(), driver.incarnation());
        drop(driver);
        for (node, breaker) in self.shards().into_iter().flat_map(|shard| shard.breakers) {
            if let Some(opinion) = opinions.get_mut(&node) {
                opinion.breaker = opinion.breaker.max(breaker);
            }
        }
        MembershipStatus {
            node: self.node,
            epoch,
            incarnation,
            max_clock_skew_ms: self.max_clock_skew_ms,
            peers: opinions.into_values().collect(),
        }
    }

    /// Layout and buckets in force.
    #[must_use]
    pub fn cluster(&self) -> Arc<ClusterState> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Partitions for which the node does not answer: in doubt, and behind.
    #[must_use]
    pub fn quarantined(&self) -> (u64, u64) {
        let counters = self.counters();
        let in_doubt = counters.iter().map(|counters| counters.in_doubt).sum();
        (in_doubt, counters.iter().map(|counters| counters.behind).sum())
    }

    /// Whether all shards know that the store lost state, and answer for all that the layout gives them.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        let (version, member, _) = *self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let knows = |shard: &ShardState| shard.layout == version && shard.knows_of_amnesia;
        member && self.shards().iter().all(knows) && self.quarantined() == (0, 0)
    }

    /// Each shard's counters.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.shards().iter().map(|shard| shard.counters).collect()
    }

    pub(super) fn shards(&self) -> Vec<ShardState> {
        let read =
            |c: &Arc<Mutex<ShardState>>| c.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shards.iter().map(read).collect()
    }
}

/// A node of which nothing has been heard, since the start.
fn unheard(node: NodeId, now: Mono) -> PeerOpinion {
    PeerOpinion {
        node,
        state: MemberState::Unknown,
        epoch: Epoch::default(),
        incarnation: 0,
        since_ms: Mono(0).ms_until(now),
        addr: None,
        connected: false,
        rtt_us: 0,
        clock: None,
        breaker: BreakerState::Closed,
    }
}
