//! What one seed decides beforehand: cluster, clients, faults. A plan is data: it can be printed,
//! changed and run again.
//!
//! Modes, so that every kind of fault is met alone and every pair together: *calm* (none),
//! *nemesis* (one kind, again and again), *pair* (two kinds, one while the other lasts), *swarm* (a
//! random subset of the kinds).

mod draw;
mod fault;
mod links;
mod short;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use holm_core::layout::{Layout, LayoutNode, LayoutSpec, PlacementSpec};
use holm_core::shard::config::ShardConfig;
use holm_protocol::ids::{NodeId, Partition, PlacementId};
use holm_protocol::level::Level;

use crate::net::Delay;
use crate::store::SyncMode;
use crate::tamper::Tamper;

pub use draw::{draw_level, pick};
pub use fault::{Fault, FaultKind, Mode};

/// Regions, nodes, replicas, partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Per region, how many nodes, and how many replicas of each partition.
    pub regions: Vec<(usize, u8)>,
    /// Zones of each region, which its nodes share in turn. With 0 each node has its own.
    pub zones: usize,
    /// There are `2^bits` partitions.
    pub bits: u8,
    /// Shards of each node.
    pub shards: usize,
}

impl Shape {
    /// Each node with its region: numbers from 1, region by region.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<NodeId, usize> {
        let regions = self.regions.iter().enumerate();
        let regions = regions.flat_map(|(region, &(nodes, _))| std::iter::repeat_n(region, nodes));
        regions.enumerate().map(|(at, region)| (NodeId(at as u64 + 1), region)).collect()
    }

    /// All partitions.
    #[must_use]
    pub fn partitions(&self) -> Vec<Partition> {
        let placement = PlacementId(0);
        (0..1_u16 << self.bits).map(|index| Partition { placement, index }).collect()
    }

    /// The fewest replicas that a partition has in all.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.regions.iter().map(|&(_, replicas)| usize::from(replicas)).sum()
    }

    /// The layout of this shape.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let name = |region: usize| format!("region-{region}");
        let zone = |id: NodeId| match self.zones as u64 {
            0 => format!("zone-{id}"),
            zones => format!("zone-{}", id.0 % zones),
        };
        let node = |(id, region): (NodeId, usize)| LayoutNode {
            id,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, id.0 as u16)),
            region: name(region),
            zone: zone(id),
            capacity: 1,
        };
        let replicas = self.regions.iter().enumerate();
        let replication = replicas.map(|(region, &(_, factor))| (name(region), factor)).collect();
        let (id, bits) = (PlacementId(0), self.bits);
        let placement = PlacementSpec { id, name: "all".to_owned(), bits, replication };
        let nodes = self.nodes().into_iter().map(node).collect();
        let spec = LayoutSpec { version: 1, nodes, placements: vec![placement] };
        match Layout::compute(spec, None) {
            Ok(layout) => layout,
            Err(error) => unreachable!("a shape gives a valid layout: {error}"),
        }
    }
}

/// How long things take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// From region to region one way; within one on the diagonal.
    pub delays: Vec<Vec<Delay>>,
    /// Single links between nodes are up to this many percent longer, each by its own share.
    pub link_spread: u32,
    /// A batch's commit.
    pub disk: Delay,
    /// Until a node notices that a connection is gone, microseconds.
    pub detect_us: u64,
}

/// What a client does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// W1: reads and writes of registers, contexts kept, stale, used twice or lost.
    Register,
    /// W2: blind puts.
    Blind,
    /// W3: a set kept by read, add, write back.
    Set,
    /// W4: deletes and recreates.
    Recreate,
    /// W10: keys in which the last writer wins.
    Latest,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 5] =
        [Workload::Register, Workload::Blind, Workload::Set, Workload::Recreate, Workload::Latest];
}

/// Where a client repeats a write whose outcome it does not know, under its request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Where it was, if that node is a replica.
    AtReplicas,
    /// Where it was, also if that node passes requests on.
    AtNodes,
    /// Anywhere: the client accepts that its value may be written more than once.
    Anywhere,
}

impl Repeats {
    /// All of them.
    pub const ALL: [Repeats; 3] = [Repeats::AtReplicas, Repeats::AtNodes, Repeats::Anywhere];
}

/// One client: one call at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPlan {
    /// Its number, which names its stream of random numbers: a plan may lack some.
    pub id: u64,
    /// Its region.
    pub region: usize,
    /// What it does.
    pub workload: Workload,
    /// How many operations it does.
    pub operations: u32,
    /// The longest pause between two, microseconds.
    pub think_us: u64,
    /// Its levels of reads and of writes; drawn anew each time if there are none.
    pub levels: Option<(Level, Level)>,
    /// The deadline of its calls, milliseconds.
    pub timeout_ms: u32,
    /// Where it repeats writes.
    pub repeats: Repeats,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed it was made from, and from which everything else is drawn.
    pub seed: u64,
    /// Which faults there are.
    pub mode: Mode,
    /// The cluster.
    pub shape: Shape,
    /// Every shard's limits.
    pub shard: ShardConfig,
    /// When commits are safe.
    pub sync: SyncMode,
    /// How long things take.
    pub timing: Timing,
    /// How many keys each workload has.
    pub keys: usize,
    /// Whether buckets have no fallbacks.
    pub strict: bool,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// The faults, by their beginning.
    pub faults: Vec<Fault>,
    /// When all faults end, simulated microseconds.
    pub faults_until_us: u64,
    /// A bug put back.
    pub tamper: Option<Tamper>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Plan {
        Plan::with_mode(seed, Mode::of_seed(seed))
    }

    /// A short plan with one key and few nodes, whose protocol steps are recorded for the
    /// specifications: what these leave out does not happen in it.
    #[must_use]
    pub fn short(seed: u64) -> Plan {
        short::plan(seed)
    }

    /// A short plan in which what is stable is forgotten, for the specification `Stability`.
    #[must_use]
    pub fn forgetting(seed: u64) -> Plan {
        short::forgetting(seed)
    }

    /// The plan of a seed in a given mode.
    #[must_use]
    pub fn with_mode(seed: u64, mode: Mode) -> Plan {
        draw::plan(seed, mode)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: zones are shared, and a partition's replicas in a region lie in as many as there are.
    /// Method: six nodes in three zones, three replicas.
    #[test]
    fn zones_are_shared() {
        let layout = Shape { regions: vec![(6, 3)], zones: 3, bits: 4, shards: 1 }.layout();
        for index in 0..16 {
            let partition = Partition { placement: PlacementId(0), index };
            let zones: BTreeSet<u64> =
                layout.replicas(partition).iter().map(|node| node.0 % 3).collect();
            assert_eq!(zones.len(), 3, "{partition}");
        }
    }

    /// Goal: within a round of seeds every pair of kinds is planned, both kinds at the same time.
    /// Method: all plans of two rounds, one of them far from the first seed.
    #[test]
    fn every_pair_of_faults_meets() {
        for from in [0, 1_000_003] {
            let mut met = BTreeSet::new();
            for seed in from..from + Mode::ROUND {
                let plan = Plan::from_seed(seed);
                let Mode::Pair(one, other) = plan.mode else { continue };
                let of = |kind| plan.faults.iter().filter(move |fault| fault.kind == kind);
                if of(one).any(|fault| of(other).any(|other| fault.overlaps(other))) {
                    met.insert((one, other));
                }
            }
            assert_eq!(met.len(), FaultKind::PAIRS, "from seed {from}");
        }
    }

    /// Goal: plans have all the shapes that they are to have. Method: many seeds, each feature.
    #[test]
    fn plans_differ_in_shape() {
        let plans: Vec<Plan> = (0..600).map(Plan::from_seed).collect();
        let has = |what: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| what(plan)).count();
        assert!(has(&|plan| plan.shape.nodes().len() == 9 && plan.shape.regions.len() == 3) > 5);
        assert!(has(&|plan| (1..4).contains(&plan.shape.zones)) > 100, "shared zones");
        for factor in 1..=5 {
            let with = |plan: &Plan| plan.shape.regions.iter().any(|region| region.1 == factor);
            assert!(has(&with) > 5, "replication factor {factor}");
        }
        let is_uneven = |plan: &Plan| {
            let regions = 0..plan.shape.regions.len();
            let delays = &plan.timing.delays;
            regions.clone().any(|a| regions.clone().any(|b| delays[a][b] != delays[b][a]))
        };
        assert!(has(&is_uneven) > 100, "links that are longer one way");
        assert!(has(&|plan| matches!(plan.sync, SyncMode::Interval { .. })) > 100);
    }
}
