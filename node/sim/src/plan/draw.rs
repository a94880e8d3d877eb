//! Drawing a plan.

use holm_core::shard::config::ShardConfig;
use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::net::Delay;
use crate::plan::{
    ClientPlan, Fault, FaultKind, Mode, Plan, Repeats, Shape, Timing, Workload, links,
};
use crate::rng::stream;
use crate::store::SyncMode;

/// Nodes of a cluster. Arbitrary: three regions of three.
const NODES_MAX: usize = 9;
/// Between the start of a run and its first fault, between the last one's start and the end of
/// all, and how long a fault lasts at least and at most, microseconds.
const FIRST_US: u64 = 50_000;
const LAST_US: u64 = 200_000;
const SHORTEST_US: u64 = 20_000;
const LONGEST_US: u64 = 1_500_000;

/// The plan of a seed in a mode.
pub(super) fn plan(seed: u64, mode: Mode) -> Plan {
    let rng = &mut stream(seed, "cluster and clients");
    let kinds = mode.kinds();
    let mut shape = draw_shape(rng);
    while !suits(&shape, &kinds) {
        shape = draw_shape(rng);
    }
    let spare = &mut stream(seed, "spare nodes");
    let is_sparing = spare.random_range(0..3) == 0;
    if is_sparing {
        let thinned = with_spares(&shape, spare);
        shape = Some(thinned).filter(|thinned| suits(thinned, &kinds)).unwrap_or(shape);
    }
    let timing = draw_timing(rng, shape.regions.len());
    let sync = match rng.random_range(0..3) {
        0 => SyncMode::Interval { ms: rng.random_range(5..200) },
        _ => SyncMode::Always,
    };
    let count = rng.random_range(2..=6);
    let mut clients: Vec<ClientPlan> = (1..=count).map(|id| draw_client(rng, id, &shape)).collect();
    for client in clients.iter_mut().filter(|_| is_sparing) {
        let mut level = || pick(spare, &[Level::One, Level::LocalQuorum]);
        let sloppy = (level(), level());
        if spare.random() {
            client.levels = Some(sloppy);
        }
    }
    let faults_until_us = rng.random_range(1_500_000..4_000_000);
    let mut plan = Plan {
        seed,
        mode,
        shard: draw_config(rng),
        sync,
        timing,
        keys: rng.random_range(1..=3),
        strict: stream(seed, "strict buckets").random_range(0..5) == 0,
        clients,
        faults: Vec::new(),
        faults_until_us,
        tamper: None,
        shape,
    };
    draw_hints(&mut plan.shard, &mut stream(seed, "hints"));
    // Seldom enough that it hides nothing that the other rules are to find.
    let rng = &mut stream(seed, "verification");
    plan.shard.verify_every_ms = pick(rng, &[0, 0, 0, 1_000, 5_000]);
    plan.shard.verify_rows = pick(rng, &[1, 2, 100]);
    // Some never close what ended: then holes and old actors are there to be lived with.
    plan.shard.retire_ms = pick(&mut stream(seed, "ends of runs"), &[0, 50, 150, 300, 600]);
    plan.faults = draw_faults(&plan, &mut stream(seed, "faults"));
    plan
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
    let count = pick(rng, &[1, 2, 2, 3, 3]);
    let mut left = NODES_MAX;
    let region = |_| {
        let nodes = pick(rng, &[1, 2, 3, 3, 3, 4, 6]).min(left - (count - 1));
        left -= nodes - 1;
        // Five replicas where they fit, now and then; else up to three, and mostly that.
        let most = if nodes >= 5 && rng.random() { 5 } else { nodes.min(3) };
        let fewer = rng.random_range(1..=most);
        (nodes, pick(rng, &[most, most, fewer]) as u8)
    };
    let regions: Vec<(usize, u8)> = (0..count).map(region).collect();
    let zones = rng.random_range(0..4);
    Shape { regions, zones, bits: rng.random_range(0..=2), shards: rng.random_range(1..=2) }
}

/// The shape with fewer replicas, so that there are nodes to stand in for them.
fn with_spares(shape: &Shape, rng: &mut ChaCha8Rng) -> Shape {
    let fewer = |&(nodes, replicas): &(usize, u8)| {
        let most = (nodes as u8 - 1).clamp(1, replicas);
        (nodes, pick(rng, &[1, most, most]))
    };
    Shape { regions: shape.regions.iter().map(fewer).collect(), ..shape.clone() }
}

/// Whether faults of these kinds can do something to a cluster of this shape.
fn suits(shape: &Shape, kinds: &[FaultKind]) -> bool {
    kinds.iter().all(|kind| match kind {
        FaultKind::RegionCut => shape.regions.len() > 1,
        // A partition must keep a replica that remembers.
        FaultKind::Wipe => shape.replicas() > 1,
        FaultKind::Loss | FaultKind::Duplicate | FaultKind::Reorder => shape.replicas() > 1,
        kind => !kind.takes_two() || shape.nodes().len() > 1,
    })
}

pub(super) fn draw_timing(rng: &mut ChaCha8Rng, regions: usize) -> Timing {
    let delays = links::draw_delays(rng, regions);
    let disk = Delay { base_us: rng.random_range(20..500), jitter_us: rng.random_range(0..2_000) };
    let link_spread = pick(rng, &[0, 10, 50]);
    Timing { delays, link_spread, disk, detect_us: rng.random_range(10_000..800_000) }
}

pub(super) fn draw_config(rng: &mut ChaCha8Rng) -> ShardConfig {
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
        log_memory_bytes_max: rng.random_range(0..2_000),
        log_segment_bytes_max: pick(rng, &[300, 1_000, 5_000, 1_000_000]),
        pulse_ms: rng.random_range(10..100),
        pulse_wan_ms: rng.random_range(20..300),
        seen_ms: rng.random_range(50..1_000),
        stable_ms: rng.random_range(10..500),
        context_slack: rng.random_range(0..3),
        gap_asks_max: rng.random_range(1..4),
        gap_bytes_max: rng.random_range(1..1_000),
        ..ShardConfig::test_min()
    }
}

fn draw_hints(config: &mut ShardConfig, rng: &mut ChaCha8Rng) {
    config.hint_after_ms = rng.random_range(10..300);
    // So few that some writes find no room, now and then.
    config.hint_bytes_max = pick(rng, &[300, 3_000, 1 << 20, 1 << 20]);
    config.handoff_window_bytes = pick(rng, &[1, 1_000, 1 << 20]);
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
        timeout_ms: rng.random_range(300..1_500),
        repeats: pick(rng, &Repeats::ALL),
    }
}

fn draw_faults(plan: &Plan, rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let kinds: Vec<FaultKind> = match plan.mode {
        Mode::Calm => return Vec::new(),
        Mode::Nemesis(_) | Mode::Pair(..) => plan.mode.kinds(),
        Mode::Swarm => {
            let odds = rng.random_range(15..60);
            let all = FaultKind::ALL.into_iter();
            all.filter(|&kind| suits(&plan.shape, &[kind]) && rng.random_range(0..100) < odds)
                .collect()
        }
    };
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = rng.random_range(2..=10);
    let mut faults = Vec::new();
    while faults.len() < count {
        match plan.mode {
            Mode::Pair(one, other) => draw_pair(plan, rng, (one, other), &mut faults),
            _ => {
                let kind = pick(rng, &kinds);
                faults.push(draw_fault(plan, rng, kind));
            }
        }
    }
    faults.sort_by_key(|fault| fault.at_us);
    keep_one_wipe(&mut faults);
    faults
}

pub(super) fn draw_fault(plan: &Plan, rng: &mut ChaCha8Rng, kind: FaultKind) -> Fault {
    let at_us = rng.random_range(FIRST_US..plan.faults_until_us - LAST_US);
    let longest_us = (plan.faults_until_us - at_us).min(LONGEST_US);
    let nodes: Vec<NodeId> = plan.shape.nodes().into_keys().collect();
    let node = pick(rng, &nodes);
    let others: Vec<NodeId> = nodes.iter().copied().filter(|&other| other != node).collect();
    let for_us = rng.random_range(SHORTEST_US..longest_us);
    let other = if others.is_empty() { node } else { pick(rng, &others) };
    Fault { at_us, for_us, kind, node, other, strength: rng.random_range(1..=100) }
}

/// Two faults of different kinds, in either order: the second begins while the first lasts, and
/// strikes the same node half of the time.
fn draw_pair(
    plan: &Plan,
    rng: &mut ChaCha8Rng,
    (one, other): (FaultKind, FaultKind),
    faults: &mut Vec<Fault>,
) {
    let (first, second) = if rng.random() { (one, other) } else { (other, one) };
    let first = draw_fault(plan, rng, first);
    let mut second = draw_fault(plan, rng, second);
    let until_us = (first.at_us + first.for_us).min(plan.faults_until_us - LAST_US);
    second.at_us = rng.random_range(first.at_us..until_us.max(first.at_us + 1));
    second.for_us = second.for_us.min(plan.faults_until_us - second.at_us);
    if rng.random() {
        (second.node, second.other) = (first.node, first.other);
    }
    faults.extend([first, second]);
}

/// A partition must keep a replica that remembers: of several wipes only the first is left.
fn keep_one_wipe(faults: &mut Vec<Fault>) {
    let mut wiped = false;
    faults.retain(|fault| {
        let keep = fault.kind != FaultKind::Wipe || !wiped;
        wiped |= fault.kind == FaultKind::Wipe;
        keep
    });
}
