//! What each of the world's subtler knobs does, one at a time: a fault that is not felt tests
//! nothing.

use std::collections::BTreeSet;

use holm_core::shard::config::ShardConfig;
use holm_protocol::error::RequestError;
use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;
use holm_sim::script::Script;

use crate::stories::{blind, refused, values, written};

/// Goal: nodes that cannot reach each other can be reached by a third that serves both sides.
/// Method: cut one node off from two of five; write and read on both sides at quorum.
#[test]
fn a_partial_cut_leaves_a_bridge() {
    let mut script = Script::new(&[(5, 5)]);
    let (one, two) = ([NodeId(1)], [NodeId(2), NodeId(3)]);
    script.cluster().set_partial_cut((&one, &two), (true, true));
    written(script.put(1, ("k", "red"), &blind(), Level::Quorum));
    script.run_ms(200);
    assert_eq!((script.held(4, "k"), script.held(2, "k")), (vec!["red".into()], vec![]));
    // 2 and 3 reach 4 and 5, and so what 1 has written.
    assert_eq!(values(script.get(2, "k", Level::Quorum)).0, ["red"]);
    let tally = script.cluster().tally();
    assert!(tally.cut > 0 && tally.links_lost == 4, "{tally:?}");
    assert_eq!(script.violation(), None);
}

/// Goal: a cut in one direction stops what goes that way and nothing else, and both ends take the
/// connection for lost. Method: the answers of one node of two do not come through.
#[test]
fn a_one_way_cut_has_a_direction() {
    let mut script = Script::new(&[(2, 2)]);
    script.cluster().set_partial_cut((&[NodeId(2)], &[NodeId(1)]), (true, false));
    let mut put = script.start_put(1, ("k", "red"), &blind(), Level::All);
    script.run_ms(10);
    assert_eq!(script.held(2, "k"), ["red"], "there and not back");
    let error = refused(script.finish(&mut put));
    assert_eq!(error, RequestError::WriteUnknown { needed: 2, durable: 1 });
    assert_eq!(script.violation(), None);
}

/// Goal: a slow node takes its time for whatever comes in, and does not hold up a quorum of others.
/// Method: one of three waits 30 ms before each batch.
#[test]
fn a_slow_node_is_late() {
    let mut script = Script::new(&[(3, 3)]);
    script.cluster().slow_node(NodeId(3), 30_000);
    let began_us = script.cluster().now_us();
    written(script.put(1, ("k", "red"), &blind(), Level::Quorum));
    assert!(script.cluster().now_us() - began_us < 10_000);
    assert!(script.held(3, "k").is_empty());
    // Until claims are told and noted, so that nothing else keeps it awake.
    script.run_ms(2_000);
    assert_eq!(script.held(3, "k"), ["red"]);
    let began_us = script.cluster().now_us();
    values(script.get(3, "k", Level::One));
    assert!(script.cluster().now_us() - began_us > 30_000);
    assert!(script.cluster().tally().slow_inputs >= 2);
    script.cluster().slow_node(NodeId(3), 0);
    let began_us = script.cluster().now_us();
    values(script.get(3, "k", Level::One));
    assert!(script.cluster().now_us() - began_us < 10_000);
    assert_eq!(script.violation(), None);
}

/// Goal: power that fails in the middle of a commit takes the whole batch and nothing before it, and
/// the write is unknown to its client. Method: one node alone; tear its second write.
#[test]
fn a_torn_batch_vanishes_whole() {
    let mut script = Script::new(&[(1, 1)]);
    written(script.put(1, ("k", "red"), &blind(), Level::One));
    script.cluster().tear_next_commit(NodeId(1));
    let mut put = script.start_put(1, ("k", "blue"), &blind(), Level::One);
    assert_eq!(script.finish(&mut put), None, "its node died");
    script.cluster().restart(NodeId(1));
    script.run_ms(100);
    assert_eq!(script.cluster().tally().torn, 1);
    assert_eq!(script.held(1, "k"), ["red"]);
    assert_eq!(values(script.get(1, "k", Level::One)).0, ["red"]);
    written(script.put(1, ("k", "green"), &blind(), Level::One));
    assert_eq!(script.violation(), None);
}

/// Goal: a store that keeps half of a torn batch is noticed. Method: the same, on a disk whose log
/// is not checked, with a second node that has not heard of the write: the object is on one disk
/// only, and neither clock knows of it.
#[test]
fn half_a_torn_batch_is_noticed() {
    let mut script = Script::new(&[(2, 2)]);
    let node = NodeId(1);
    written(script.put(1, ("other", "x"), &blind(), Level::All));
    script.cluster().set_cut(node, NodeId(2), (true, true));
    script.cluster().set_store_faults(node, |faults| faults.torn_shows = true);
    script.cluster().tear_next_commit(node);
    let mut put = script.start_put(1, ("k", "blue"), &blind(), Level::One);
    assert_eq!(script.finish(&mut put), None, "its node died");
    script.cluster().restart(node);
    script.run_ms(100);
    assert_eq!((script.held(1, "k"), script.held(2, "k")), (vec!["blue".into()], vec![]));
    assert!(script.violation().is_some());
}

/// Goal: a disk set back has forgotten what came after the copy, its node reuses no dot, and what
/// others hold comes back to it by reading. Method: copy, write, put the copy back.
#[test]
fn a_disk_set_back_reuses_no_dot() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    script.cluster().copy_disk(NodeId(1));
    let (_, context) = values(script.get(1, "k", Level::One));
    let forgotten = written(script.put(1, ("k", "blue"), &context, Level::All));
    script.cluster().crash(NodeId(1));
    script.cluster().restore_disk(NodeId(1));
    script.cluster().restart(NodeId(1));
    script.run_ms(200);
    assert_eq!(script.cluster().tally().restored, 1);
    assert_eq!(values(script.get(1, "k", Level::One)).0, ["red"], "as it was copied");
    let fresh = written(script.put(1, ("other", "x"), &blind(), Level::One));
    assert_ne!(fresh.dot, forgotten.dot);
    assert_eq!(values(script.get(1, "k", Level::All)).0, ["blue"]);
    script.run_ms(10);
    assert_eq!(script.held(1, "k"), ["blue"]);
    assert_eq!(script.violation(), None);
}

/// Goal: a node on a copy of another's disk writes under an actor of its own, and both go on.
/// Method: three nodes; the third gets a copy of the first's disk, then both write.
#[test]
fn a_cloned_disk_reuses_no_dot() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    written(script.put(3, ("only-3", "x"), &blind(), Level::All));
    script.cluster().set_partial_cut((&[NodeId(1)], &[NodeId(2), NodeId(3)]), (true, true));
    script.run_ms(200);
    written(script.put(1, ("k", "blue"), &blind(), Level::One));
    script.cluster().crash(NodeId(3));
    script.cluster().clone_disk(NodeId(3), NodeId(1));
    script.cluster().restart(NodeId(3));
    script.cluster().set_partial_cut((&[NodeId(1)], &[NodeId(2), NodeId(3)]), (false, true));
    script.run_ms(300);
    assert_eq!(script.cluster().tally().cloned, 1);
    assert_eq!(script.held(3, "k"), ["blue", "red"], "what node 1 had");
    let one = written(script.put(1, ("k", "a"), &blind(), Level::All));
    let three = written(script.put(3, ("k", "b"), &blind(), Level::All));
    assert_ne!(one.dot.actor, three.dot.actor);
    script.run_ms(10);
    for node in 1..=3 {
        assert_eq!(script.held(node, "k"), ["a", "b", "blue", "red"], "n{node}");
    }
    assert_eq!(script.violation(), None);
}

/// Goal: siblings do not depend on clocks an hour off, in either direction (P15). Method: three
/// nodes, one an hour ahead, one an hour behind, one with a clock that runs at half speed; each
/// overwrites what it has read.
#[test]
fn siblings_do_not_depend_on_clocks() {
    let mut script = Script::new(&[(3, 3)]);
    script.cluster().set_skew(NodeId(1), 3_600_000);
    script.cluster().set_skew(NodeId(2), -3_600_000);
    script.cluster().set_drift(NodeId(3), -50);
    let mut context = blind();
    for round in 0..9 {
        let node = 1 + round % 3;
        written(script.put(node, ("k", &format!("v{round}")), &context, Level::Quorum));
        let (shown, next) = values(script.get(1 + (round + 1) % 3, "k", Level::Quorum));
        assert_eq!(shown, [format!("v{round}")]);
        context = next;
    }
    let tally = script.cluster().tally();
    assert!(tally.far_skewed > 0 && tally.drifted > 0 && tally.clock_jumps == 2);
    assert_eq!(script.violation(), None);
}

/// Goal: a last-writer-wins key comes together again after a clock was an hour ahead, once time has
/// passed that hour. Method: a write under the fast clock, which nobody else takes; the clock is set
/// right; an hour passes.
#[test]
fn an_hour_heals_a_fast_clock() {
    let mut script = Script::with_config(
        &[(3, 3)],
        ShardConfig { max_clock_skew_ms: 500, ..ShardConfig::test_min() },
    );
    script.use_latest();
    script.cluster().set_skew(NodeId(1), 3_600_000);
    written(script.put(1, ("k", "future"), &blind(), Level::One));
    script.cluster().set_skew(NodeId(1), 0);
    script.run_ms(200);
    refused(script.get(2, "k", Level::All));
    script.cluster().outwait_fast_clocks();
    assert_eq!(values(script.get(2, "k", Level::All)).0, ["future"]);
    script.run_ms(10);
    assert_eq!(script.held(3, "k"), ["future"]);
    assert_eq!(script.violation(), None);
}

/// Goal: a request repeated under its id through the node that passed it on is done once. Method: a
/// node that is no replica passes a write on; the answer to its client is lost; asked again.
#[test]
fn a_repeated_request_is_passed_on_to_where_it_went() {
    let mut script = Script::new(&[(4, 3)]);
    let replicas = script.replicas_of("k");
    let outsider = (1..=4).find(|&node| !replicas.contains(&NodeId(node))).expect("one of four");
    script.cluster().lose_replies(1_000);
    let mut put = script.start_put(outsider, ("k", "red"), &blind(), Level::All);
    assert_eq!(script.finish(&mut put), None, "no answer came");
    script.cluster().lose_replies(0);
    written(script.repeat(&mut put));
    assert_eq!(script.cluster().counters().writes_coordinated, 1);
    assert_eq!(script.held(replicas[0].0, "k"), ["red"]);
    assert_eq!(script.violation(), None);
}

/// Goal: a request repeated elsewhere may be done once more, as a write of its own, and the referee
/// knows: one value under two dots. Method: the same request to another replica.
#[test]
fn a_request_repeated_elsewhere_may_be_done_twice() {
    let mut script = Script::new(&[(3, 3)]);
    script.cluster().lose_replies(1_000);
    let mut put = script.start_put(1, ("k", "red"), &blind(), Level::All);
    assert_eq!(script.finish(&mut put), None, "no answer came");
    script.cluster().lose_replies(0);
    let again = written(script.repeat_at(&mut put, 2));
    assert_eq!(again.receipt.coordinator, NodeId(2));
    assert_eq!(values(script.get(3, "k", Level::All)).0, ["red", "red"]);
    assert_eq!(script.violation(), None);
}

/// Goal: who is doubted is asked last, and by who doubts it alone; a level that needs it is met all the
/// same. Method: one of three nodes doubts another, then the third.
#[test]
fn a_doubted_node_is_asked_last() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    let doubts = |script: &mut Script, node, doubted| {
        script.cluster().set_doubted(NodeId(1), NodeId(node), doubted);
        script.run_ms(10);
    };
    for (doubted, asked) in [(2, 3), (3, 2)] {
        doubts(&mut script, doubted, true);
        let named = |script: &mut Script, node, level| {
            let answer = script.get(node, "k", level).expect("an answer").expect("values");
            let nodes: BTreeSet<u64> = answer.receipt.replicas.iter().map(|it| it.node.0).collect();
            nodes
        };
        for _ in 0..5 {
            assert_eq!(named(&mut script, 1, Level::Quorum), BTreeSet::from([1, asked]));
        }
        assert_eq!(named(&mut script, 1, Level::All), BTreeSet::from([1, 2, 3]));
        doubts(&mut script, doubted, false);
    }
    assert_eq!((script.cluster().tally().doubted, script.violation()), (2, None));
}
