//! What one seed decides beforehand: cluster, clients, faults. A plan is data: it can be printed,
//! changed and run again.
//!
//! Modes, so that every kind of fault is met alone and every pair together: *calm* (none),
//! *nemesis* (one kind, again and again), *swarm* (a random subset of the kinds).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use holm_core::layout::{Layout, LayoutNode, LayoutSpec, PlacementSpec};
use holm_core::shard::config::ShardConfig;
use holm_protocol::ids::{NodeId, Partition, PlacementId};
use holm_protocol::level::Level;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::net::Delay;
use crate::rng::stream;
use crate::store::SyncMode;
use crate::tamper::Tamper;

/// Regions, nodes, replicas, partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Per region, how many nodes, and how many replicas of each partition.
    pub regions: Vec<(usize, u8)>,
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
        let node = |(id, region): (NodeId, usize)| LayoutNode {
            id,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, id.0 as u16)),
            region: name(region),
            zone: format!("zone-{id}"),
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
    /// Between two regions one way; within one on the diagonal.
    pub delays: Vec<Vec<Delay>>,
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
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Messages vanish.
    Loss,
    /// Messages come twice.
    Duplicate,
    /// Messages overtake each other.
    Reorder,
    /// Answers to clients vanish.
    ReplyLoss,
    /// A link is cut in both directions.
    Cut,
    /// A link is cut in one direction.
    OneWayCut,
    /// A region is cut off.
    RegionCut,
    /// A process is killed.
    Kill,
    /// A process dies between commit and acknowledgement.
    DieInCommit,
    /// A node loses power.
    PowerCut,
    /// A node's disk is replaced.
    Wipe,
    /// A process is stopped for a while.
    Pause,
    /// A disk is slow.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// Commits fail.
    CommitError,
    /// Reads fail.
    ReadError,
    /// Objects are damaged.
    Damage,
    /// A wall clock jumps.
    Skew,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 18] = [
        FaultKind::Loss,
        FaultKind::Duplicate,
        FaultKind::Reorder,
        FaultKind::ReplyLoss,
        FaultKind::Cut,
        FaultKind::OneWayCut,
        FaultKind::RegionCut,
        FaultKind::Kill,
        FaultKind::DieInCommit,
        FaultKind::PowerCut,
        FaultKind::Wipe,
        FaultKind::Pause,
        FaultKind::SlowDisk,
        FaultKind::FullDisk,
        FaultKind::CommitError,
        FaultKind::ReadError,
        FaultKind::Damage,
        FaultKind::Skew,
    ];
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, simulated microseconds.
    pub at_us: u64,
    /// How long it lasts.
    pub for_us: u64,
    /// What it is.
    pub kind: FaultKind,
    /// Whom it strikes.
    pub node: NodeId,
    /// Whom else, where it takes two.
    pub other: NodeId,
    /// How bad it is, 1 to 100.
    pub strength: u32,
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// None.
    Calm,
    /// A random subset.
    Swarm,
    /// One kind.
    Nemesis(FaultKind),
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
        let rng = &mut stream(seed, "plan");
        let mode = match rng.random_range(0..10) {
            0 => Mode::Calm,
            1..=4 => Mode::Nemesis(pick(rng, &FaultKind::ALL)),
            _ => Mode::Swarm,
        };
        Plan::with_mode(seed, mode)
    }

    /// The plan of a seed in a given mode.
    #[must_use]
    pub fn with_mode(seed: u64, mode: Mode) -> Plan {
        let rng = &mut stream(seed, "cluster and clients");
        let shape = draw_shape(rng);
        let timing = draw_timing(rng, shape.regions.len());
        let sync = match rng.random_range(0..3) {
            0 => SyncMode::Interval { ms: rng.random_range(5..200) },
            _ => SyncMode::Always,
        };
        let count = rng.random_range(2..=6);
        let clients = (1..=count).map(|id| draw_client(rng, id, &shape)).collect();
        let faults_until_us = rng.random_range(1_500_000..4_000_000);
        let mut plan = Plan {
            seed,
            mode,
            shard: draw_config(rng),
            sync,
            timing,
            keys: rng.random_range(1..=3),
            clients,
            faults: Vec::new(),
            faults_until_us,
            tamper: None,
            shape,
        };
        plan.faults = draw_faults(&plan, &mut stream(seed, "faults"));
        plan
    }
}

/// One of several.
pub fn pick<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

/// Any level.
pub fn draw_level(rng: &mut ChaCha8Rng, replicas: usize) -> Level {
    match rng.random_range(0..12) {
        0..=2 => Level::One,
        3..=5 => Level::LocalQuorum,
        6..=8 => Level::Quorum,
        9 => Level::EachQuorum,
        10 => Level::All,
        _ => Level::Count(rng.random_range(1..=replicas.min(127)) as u8),
    }
}

fn draw_shape(rng: &mut ChaCha8Rng) -> Shape {
    let regions = pick(rng, &[1, 1, 2, 2, 3]);
    let region = |_| {
        let nodes = pick(rng, &[1, 2, 3, 3, 3]);
        (nodes, rng.random_range(1..=nodes.min(3)) as u8)
    };
    let regions = (0..regions).map(region).collect();
    Shape { regions, bits: rng.random_range(0..=2), shards: rng.random_range(1..=2) }
}

fn draw_timing(rng: &mut ChaCha8Rng, regions: usize) -> Timing {
    // Drawn once for each pair of regions; a link is as long one way as the other.
    let mut pairs = BTreeMap::new();
    for (from, to) in (0..regions).flat_map(|from| (from..regions).map(move |to| (from, to))) {
        let delay = if from == to {
            Delay { base_us: rng.random_range(100..500), jitter_us: rng.random_range(0..1_000) }
        } else {
            let base_us = rng.random_range(20_000..90_000);
            Delay { base_us, jitter_us: rng.random_range(0..10_000) }
        };
        pairs.insert((from, to), delay);
        pairs.insert((to, from), delay);
    }
    let row = |from: usize| (0..regions).map(|to| pairs[&(from, to)]).collect();
    let delays = (0..regions).map(row).collect();
    let disk = Delay { base_us: rng.random_range(20..500), jitter_us: rng.random_range(0..2_000) };
    Timing { delays, disk, detect_us: rng.random_range(10_000..800_000) }
}

fn draw_config(rng: &mut ChaCha8Rng) -> ShardConfig {
    let in_flight_max = if rng.random_range(0..4) == 0 { rng.random_range(1..4) } else { 64 };
    ShardConfig {
        in_flight_max,
        lingering_max: rng.random_range(1..16),
        cache_bytes_max: rng.random_range(512..16_384),
        // More than any client asks for, so that every repetition falls into the window.
        requests_max: 10_000,
        requests_window_ms: 600_000,
        timeout_ms: rng.random_range(300..1_500),
        resend_ms: rng.random_range(50..400),
        hedge_ms_min: rng.random_range(1..10),
        hedge_ms_max: rng.random_range(20..300),
        checkpoint_every: rng.random_range(1..20),
        ..ShardConfig::test_min()
    }
}

fn draw_client(rng: &mut ChaCha8Rng, id: u64, shape: &Shape) -> ClientPlan {
    let replicas = shape.replicas();
    let levels = match rng.random_range(0..3) {
        0 => None,
        1 => Some((Level::Quorum, Level::Quorum)),
        _ => Some((draw_level(rng, replicas), draw_level(rng, replicas))),
    };
    ClientPlan {
        id,
        region: rng.random_range(0..shape.regions.len()),
        workload: pick(rng, &Workload::ALL),
        operations: rng.random_range(10..40),
        think_us: pick(rng, &[1_000, 20_000, 150_000]),
        levels,
        timeout_ms: rng.random_range(200..1_200),
    }
}

fn draw_faults(plan: &Plan, rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let kinds: Vec<FaultKind> = match plan.mode {
        Mode::Calm => return Vec::new(),
        Mode::Nemesis(kind) => vec![kind],
        Mode::Swarm => {
            let odds = rng.random_range(15..60);
            FaultKind::ALL.into_iter().filter(|_| rng.random_range(0..100) < odds).collect()
        }
    };
    if kinds.is_empty() {
        return Vec::new();
    }
    let nodes: Vec<NodeId> = plan.shape.nodes().into_keys().collect();
    let count = rng.random_range(2..=10);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let at_us = rng.random_range(50_000..plan.faults_until_us - 200_000);
            let longest_us = (plan.faults_until_us - at_us).min(1_500_000);
            Fault {
                at_us,
                for_us: rng.random_range(20_000..longest_us),
                kind: pick(rng, &kinds),
                node: pick(rng, &nodes),
                other: pick(rng, &nodes),
                strength: rng.random_range(1..=100),
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_us);
    // A partition must keep a replica that remembers.
    let mut wiped = plan.shape.replicas() < 2;
    faults.retain(|fault| {
        let keep = fault.kind != FaultKind::Wipe || !wiped;
        wiped |= fault.kind == FaultKind::Wipe;
        keep
    });
    faults
}
