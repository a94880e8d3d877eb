//! How much faster than real time the simulator is when nine nodes have something to do.
//!
//! Three regions of three nodes, each partition in all nodes, and clients of all workloads that
//! think for a moment between two calls. What is timed ends with the clients' work: the referee's
//! last reads are no load.

use holm_sim::plan::{ClientPlan, Mode, Plan, Shape, Workload};
use holm_sim::referee::OutcomeTally;
use holm_sim::sim::Sim;

use crate::Verdict;
use crate::figures::{cpu_seconds, memory, now};

/// Less than this many times faster than real time is too slow.
const FACTOR_MIN: f64 = 50.0;
/// Clients of each region, three for each node: registers most of all, as in most applications.
const CLIENTS: [(Workload, usize); 5] = [
    (Workload::Register, 4),
    (Workload::Blind, 1),
    (Workload::Set, 1),
    (Workload::Recreate, 2),
    (Workload::Latest, 1),
];
/// The longest pause of a client between two calls, microseconds.
const THINK_US: u64 = 50_000;
/// What a call takes on average, as seen, microseconds: many wait for another region.
const CALL_US: u64 = 130_000;
/// Keys of each workload: enough that referee and replicas have something to remember.
const KEYS: usize = 200;

pub(crate) fn run(seconds: u64) -> Verdict {
    let plan = plan(seconds);
    let clients = plan.clients.len();
    let began = now();
    let (mut took, mut busy) = (0.0, None);
    let report = Sim::new(plan, false).run_and_tell(|| {
        took = began.elapsed().as_secs_f64();
        busy = cpu_seconds();
    });
    // On a machine that does other things too, what counts is what this thread was given.
    let busy = busy.unwrap_or(took);
    if report.violation.is_some() {
        println!("{report}");
        return Verdict::Broken;
    }
    let worked = report.worked_us as f64 / 1e6;
    let OutcomeTally { acknowledged, reads, .. } = report.outcomes;
    let factor = worked / busy;
    println!(
        "9 nodes, {clients} clients: {:.0} calls and {:.0} steps a simulated second for {worked:.0} s; \
         took {took:.2} s, {busy:.2} s of them on a core: {factor:.0} times faster than real time (at least {FACTOR_MIN:.0}), \
         {} of memory at most",
        (acknowledged + reads) as f64 / worked,
        report.steps as f64 / worked,
        memory(),
    );
    if factor < FACTOR_MIN { Verdict::Broken } else { Verdict::Clean }
}

fn plan(seconds: u64) -> Plan {
    let drawn = Plan::with_mode(9, Mode::Calm);
    let shape = Shape { regions: vec![(3, 3), (3, 3), (3, 3)], bits: 4, shards: 2, ..drawn.shape };
    let delay = |base_us| holm_sim::net::Delay { base_us, jitter_us: base_us / 5 };
    let delays = |from: usize| -> Vec<_> {
        (0..3).map(|to| delay(if from == to { 300 } else { 40_000 })).collect()
    };
    let mut timing = drawn.timing;
    timing.delays = (0..3).map(delays).collect();
    let like = drawn.clients[0].clone();
    let mut clients = Vec::new();
    for region in 0..3 {
        for (workload, count) in CLIENTS {
            for _ in 0..count {
                let operations = (seconds * 1_000_000 / (THINK_US / 2 + CALL_US)) as u32;
                clients.push(ClientPlan {
                    id: clients.len() as u64 + 1,
                    region,
                    workload,
                    operations,
                    think_us: THINK_US,
                    levels: None,
                    timeout_ms: 2_000,
                    ..like.clone()
                });
            }
        }
    }
    let shard = holm_core::shard::config::ShardConfig::default();
    Plan { shape, timing, clients, shard, keys: KEYS, ..drawn }
}
