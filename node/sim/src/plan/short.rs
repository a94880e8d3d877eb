//! Short plans: one key, three replicas, few operations, faults of the kinds that the specifications
//! `Causality` and `Replication` know.
//!
//! Every node is a replica of the key, so that whoever is asked coordinates, and writes ask for a
//! quorum: two of the three. Disks keep what they have synced, and nothing else goes wrong with them.
//!
//! [`forgetting`] makes them for `Stability`: what is stable is forgotten soon, some disks sync now
//! and then, and one may become an older one, another's or empty. Ends of runs are not looked for, and
//! logs not cut.

use holm_core::shard::config::ShardConfig;
use holm_protocol::level::Level;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::plan::draw::{draw_config, draw_fault, draw_level, draw_timing, pick};
use crate::plan::{ClientPlan, FaultKind, Mode, Plan, Repeats, Shape, Workload};
use crate::rng::stream;
use crate::store::SyncMode;

/// What may happen. Two kinds that end runs, several that hurt messages, some that change who is
/// fast.
const KINDS: [FaultKind; 13] = [
    FaultKind::Loss,
    FaultKind::Duplicate,
    FaultKind::Reorder,
    FaultKind::ReplyLoss,
    FaultKind::Cut,
    FaultKind::OneWayCut,
    FaultKind::PartialCut,
    FaultKind::Kill,
    FaultKind::DieInCommit,
    FaultKind::PowerCut,
    FaultKind::TornWrite,
    FaultKind::Pause,
    FaultKind::SlowDisk,
];
/// And where runs forget: power does not fail within a commit, of which only a part may be kept then.
const KINDS_FORGETTING: [FaultKind; 11] = [
    FaultKind::Loss,
    FaultKind::Duplicate,
    FaultKind::Reorder,
    FaultKind::Cut,
    FaultKind::OneWayCut,
    FaultKind::PartialCut,
    FaultKind::Kill,
    FaultKind::DieInCommit,
    FaultKind::PowerCut,
    FaultKind::Pause,
    FaultKind::SlowDisk,
];
/// Three nodes, each a replica of everything: in one region, in two, in three.
const REGIONS: [&[(usize, u8)]; 3] = [&[(3, 3)], &[(2, 2), (1, 1)], &[(1, 1), (1, 1), (1, 1)]];
const WORKLOADS: [Workload; 4] =
    [Workload::Register, Workload::Blind, Workload::Set, Workload::Recreate];
/// Operations of all clients together: what they do to one key is a few dozen steps.
const OPERATIONS: [u32; 2] = [3, 5];

/// The short plan of a seed.
pub(super) fn plan(seed: u64) -> Plan {
    let rng = &mut stream(seed, "short plan");
    let regions = pick(rng, &REGIONS).to_vec();
    let shape = Shape { regions, zones: 0, bits: 0, shards: 1 };
    let timing = draw_timing(rng, shape.regions.len());
    let workload = pick(rng, &WORKLOADS);
    let count = rng.random_range(2..=3);
    let clients = (1..=count).map(|id| client(rng, id, (workload, shape.regions.len()))).collect();
    let mut plan = Plan {
        seed,
        mode: Mode::Swarm,
        shard: ShardConfig {
            // The specifications of these runs forget nothing.
            stable_ms: 1 << 40,
            ..draw_config(rng)
        },
        sync: SyncMode::Always,
        timing,
        keys: 1,
        strict: false,
        clients,
        faults: Vec::new(),
        faults_until_us: rng.random_range(700_000..1_500_000),
        tamper: None,
        shape,
    };
    plan.shard.in_flight_max = 64;
    strike(&mut plan, rng, &KINDS);
    plan
}

/// The short plan of a seed in which what is stable is forgotten.
pub(super) fn forgetting(seed: u64) -> Plan {
    let mut plan = plan(seed);
    let rng = &mut stream(seed, "short plan that forgets");
    let shard = &mut plan.shard;
    shard.seen_ms = rng.random_range(20..200);
    shard.stable_ms = rng.random_range(10..100);
    shard.log_segment_bytes_max = 1 << 20;
    let workload = pick(rng, &[Workload::Register, Workload::Recreate, Workload::Recreate]);
    plan.clients.iter_mut().for_each(|client| client.workload = workload);
    if rng.random_range(0..3) == 0 {
        plan.sync = SyncMode::Interval { ms: rng.random_range(5..200) };
    }
    // How much an interrupted disk keeps of what it has not synced nobody sees.
    let kinds: &[FaultKind] = match plan.sync {
        SyncMode::Always => &KINDS_FORGETTING,
        SyncMode::Interval { .. } => &KINDS_FORGETTING[..7],
    };
    strike(&mut plan, rng, kinds);
    if plan.sync == SyncMode::Always && rng.random() {
        let kind = pick(rng, &[FaultKind::Restore, FaultKind::Clone, FaultKind::Wipe]);
        let fault = draw_fault(&plan, rng, kind);
        plan.faults.push(fault);
        plan.faults.sort_by_key(|fault| fault.at_us);
    }
    plan
}

fn strike(plan: &mut Plan, rng: &mut ChaCha8Rng, kinds: &[FaultKind]) {
    let faults = (0..rng.random_range(2..=4)).map(|_| {
        let kind = pick(rng, kinds);
        draw_fault(plan, rng, kind)
    });
    plan.faults = faults.collect();
    plan.faults.sort_by_key(|fault| fault.at_us);
}

fn client(rng: &mut ChaCha8Rng, id: u64, (workload, regions): (Workload, usize)) -> ClientPlan {
    ClientPlan {
        id,
        region: rng.random_range(0..regions),
        workload,
        operations: rng.random_range(OPERATIONS[0]..=OPERATIONS[1]),
        think_us: pick(rng, &[1_000, 100_000, 300_000]),
        levels: Some((draw_level(rng, 3), Level::Quorum)),
        timeout_ms: rng.random_range(300..1_000),
        repeats: pick(rng, &Repeats::ALL),
    }
}
