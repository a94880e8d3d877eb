//! Sloppy quorums as stories: who stands in, what is kept, and how it goes home by itself.

use holm_core::shard::config::ShardConfig;
use holm_core::shard::event::Counters;
use holm_protocol::error::{Outcome, RequestError};
use holm_protocol::ids::{NodeId, RegionId};
use holm_protocol::level::Level;
use holm_protocol::message::Receipt;
use holm_sim::plan::Plan;
use holm_sim::script::Script;
use holm_sim::sim::Sim;

use crate::stories::{blind, refused, values, written};

/// The region's nodes in the order of preference: its replicas first.
fn preferred(script: &mut Script, replicas: usize) -> (Vec<u64>, Vec<u64>) {
    let partition = holm_protocol::ids::Partition::from_u32(0);
    let list = script.cluster().layout().preference_list(partition, RegionId(0));
    let ids: Vec<u64> = list.iter().map(|node| node.0).collect();
    (ids[..replicas].to_vec(), ids[replicas..].to_vec())
}

fn fallbacks(receipt: &Receipt) -> Vec<u64> {
    let entries = receipt.replicas.iter().filter(|entry| entry.fallback);
    entries.map(|entry| entry.node.0).collect()
}

/// Goal: a write finds its quorum though two of three replicas are down; its receipt names the nodes
/// that stood in; when the replicas are back their hints come home, with no client doing anything,
/// and nothing is left.
#[test]
fn a_hint_goes_home_by_itself() {
    let mut script = Script::new(&[(5, 3)]);
    let (replicas, others) = preferred(&mut script, 3);
    for &node in &replicas[1..] {
        script.cluster().crash(NodeId(node));
    }
    script.run_ms(200);
    let answer = written(script.put(replicas[0], ("k", "red"), &blind(), Level::LocalQuorum));
    assert_eq!(fallbacks(&answer.receipt).len(), 1, "as many as are needed");
    script.run_ms(100);
    assert_eq!(script.cluster().hints_left().len(), 2);
    assert!(script.cluster().hints_left().iter().all(|(node, _)| others.contains(&node.0)));
    for &node in &replicas[1..] {
        script.cluster().restart(NodeId(node));
    }
    script.run_ms(500);
    assert_eq!(script.cluster().hints_left(), []);
    for &node in &replicas {
        assert_eq!(script.held(node, "k"), ["red"], "n{node}");
    }
    assert_eq!(script.cluster().counters().hints_handed_off, 2);
    assert_eq!(script.violation(), None);
}

/// Goal: a region whose replicas are all down stays writable and, where nobody else can be reached,
/// readable; what was written there meets what was written before.
#[test]
fn a_region_without_replicas_stays_writable() {
    let mut script = Script::new(&[(5, 3)]);
    let (replicas, others) = preferred(&mut script, 3);
    written(script.put(replicas[0], ("k", "old"), &blind(), Level::All));
    for &node in &replicas {
        script.cluster().crash(NodeId(node));
    }
    script.run_ms(200);
    let error = refused(script.put(others[0], ("k", "no"), &blind(), Level::Quorum));
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    // Also asked at the other one, which passes it on to the first.
    let answer = written(script.put(others[1], ("k", "red"), &blind(), Level::LocalQuorum));
    assert_eq!(answer.receipt.coordinator.0, others[0]);
    let mut named = fallbacks(&answer.receipt);
    named.sort_by_key(|node| *node != others[0]);
    assert_eq!(named, others);
    let (shown, context) = values(script.get(others[0], "k", Level::One));
    assert_eq!(shown, ["red"], "what was there before is out of reach");
    written(script.put(others[0], ("k", "blue"), &context, Level::One));
    for &node in &replicas {
        script.cluster().restart(NodeId(node));
    }
    script.run_ms(1_000);
    assert_eq!(script.cluster().hints_left(), []);
    let (shown, _) = values(script.get(replicas[2], "k", Level::All));
    assert_eq!(shown, ["blue", "old"]);
    assert_eq!(script.violation(), None);
}

/// Goal: a fallback that has handed over what it wrote, and writes to the key again, swallows nothing
/// of it: a dot of the same actor would cover the earlier ones. Method: three outages in a row, a
/// blind write at the same fallback in each.
#[test]
fn a_fallback_swallows_nothing_of_its_own() {
    let mut script = Script::new(&[(4, 3)]);
    let (replicas, others) = preferred(&mut script, 3);
    for value in ["one", "two", "three"] {
        for &node in &replicas {
            script.cluster().crash(NodeId(node));
        }
        script.run_ms(200);
        written(script.put(others[0], ("k", value), &blind(), Level::One));
        for &node in &replicas {
            script.cluster().restart(NodeId(node));
        }
        script.run_ms(1_000);
        assert_eq!(script.cluster().hints_left(), []);
    }
    assert_eq!(values(script.get(replicas[0], "k", Level::All)).0, ["one", "three", "two"]);
    assert_eq!(script.violation(), None);
}

/// Goal: without room for hints a write needs real replicas, and the error says so; nothing that was
/// written is lost, and there is room again when hints are home.
#[test]
fn hints_that_do_not_fit_are_told() {
    let config = ShardConfig { hint_bytes_max: 150, ..ShardConfig::test_min() };
    let mut script = Script::with_config(&[(4, 3)], config);
    let (replicas, _) = preferred(&mut script, 3);
    for &node in &replicas[1..] {
        script.cluster().crash(NodeId(node));
    }
    script.run_ms(200);
    written(script.put(replicas[0], ("k", "red"), &blind(), Level::LocalQuorum));
    let long = "green".repeat(30);
    let error = refused(script.put(replicas[0], ("k2", &long), &blind(), Level::LocalQuorum));
    assert_eq!(error, RequestError::HintsFull { needed: 2, durable: 1 });
    assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    written(script.put(replicas[0], ("k2", "blue"), &blind(), Level::One));
    script.run_ms(100);
    assert!(script.cluster().counters().writes_unhinted > 0);
    for &node in &replicas[1..] {
        script.cluster().restart(NodeId(node));
    }
    script.run_ms(1_000);
    assert_eq!(script.cluster().hints_left(), []);
    assert_eq!(values(script.get(replicas[1], "k", Level::LocalQuorum)).0, ["red"]);
    assert_eq!(values(script.get(replicas[1], "k2", Level::All)).0, ["blue".to_owned(), long]);
    assert_eq!(script.violation(), None);
}

/// Goal: seeds do all of this. Method: what the shards of some hundred runs counted, together.
#[test]
fn seeds_need_fallbacks() {
    let mut sum = Counters::default();
    for seed in 0..500 {
        let counters = Sim::new(Plan::from_seed(seed), false).run().counters;
        sum.hints_kept += counters.hints_kept;
        sum.hints_refused += counters.hints_refused;
        sum.hints_handed_off += counters.hints_handed_off;
        sum.handoffs_refused += counters.handoffs_refused;
        sum.handoffs_lost += counters.handoffs_lost;
        sum.writes_unhinted += counters.writes_unhinted;
        sum.writes_as_fallback += counters.writes_as_fallback;
        sum.reads_from_hints += counters.reads_from_hints;
    }
    assert!(sum.hints_kept > 50 && sum.hints_handed_off > 50, "{sum:?}");
    assert!(sum.hints_refused > 5 && sum.handoffs_refused > 0 && sum.handoffs_lost > 0, "{sum:?}");
    assert!(sum.writes_as_fallback > 0 && sum.writes_unhinted > 5, "{sum:?}");
}
