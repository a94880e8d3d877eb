//! Nodes that die for good and are taken out of the layout: nothing waits for them, and nothing of what
//! others had is lost.

use holm_protocol::ids::NodeId;
use holm_sim::plan::Plan;
use holm_sim::sim::Sim;

/// Goal: whatever happened before, when a dead node is taken out the rest comes to hold the same, forgets
/// what is dead, closes the node's runs, and brings hints for it to others; no rule is broken. Method:
/// the plans of many seeds, a node of each.
#[test]
fn the_rest_goes_on_without_the_dead() {
    let (mut buried, mut forgotten, mut folded, mut moved) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let plan = Plan::from_seed(seed);
        let nodes = plan.shape.nodes().len() as u64;
        let report = Sim::new(plan, false).burying(NodeId(seed % nodes + 1)).run();
        assert!(report.violation.is_none(), "{report}");
        let is_buried = report.faults.wipes > 0;
        buried += u64::from(is_buried);
        forgotten += u64::from(is_buried && report.counters.tombstones_removed > 0);
        folded += u64::from(is_buried && report.counters.runs_folded > 0);
        moved += report.counters.hints_moved;
    }
    assert!(buried > SEEDS / 2, "{buried} of {SEEDS}");
    assert!(forgotten > SEEDS / 10 && folded > SEEDS / 10, "{forgotten}, {folded}");
    assert!(moved > 0, "no hint was for the dead");
}

/// Arbitrary: enough for each of the kinds of faults several times.
const SEEDS: u64 = 300;
