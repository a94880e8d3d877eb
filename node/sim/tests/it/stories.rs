//! Situations a newcomer should read first, each with what the nodes say to each other.
//!
//! Nodes are `n1`, `n2`, ...; `->` is a message that arrived, `-x` one that did not. `n1.1:2` is the
//! second write of node 1's first run; `{...}` holds an object's values, `[...]` its context.

use bytes::Bytes;
use holm_core::shard::config::ShardConfig;
use holm_protocol::error::{NotReady, Outcome, RequestError, StoreFault};
use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;
use holm_protocol::message::{Values, Written};
use holm_sim::script::Script;

pub(crate) type Answer<T> = Option<Result<T, RequestError>>;

pub(crate) fn blind() -> Bytes {
    Bytes::new()
}

#[track_caller]
pub(crate) fn written(answer: Answer<Written>) -> Written {
    answer.expect("the node answers").expect("the write is acknowledged")
}

#[track_caller]
pub(crate) fn values(answer: Answer<Values>) -> (Vec<String>, Bytes) {
    let values = answer.expect("the node answers").expect("the read is answered");
    let text = |s: &holm_protocol::message::Sibling| String::from_utf8_lossy(&s.value).into_owned();
    let mut shown: Vec<String> = values.siblings.iter().map(text).collect();
    shown.sort();
    (shown, values.context)
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Answer<T>) -> RequestError {
    answer.expect("the node answers").expect_err("the request is refused")
}

/// Goal: what a write and a read at quorum take in one region. Method: three replicas, every
/// message.
#[test]
fn a_quorum_write_and_a_quorum_read() {
    let mut script = Script::new(&[(3, 3)]);
    script.story();
    written(script.put(1, ("k", "red"), &blind(), Level::Quorum));
    script.run_ms(5);
    assert_eq!(
        script.story(),
        [
            "c1 -> n1 blind put k=\"red\" at quorum",
            "n1 -> n3 write k {n1.1:1=\"red\"} [n1.1:1]",
            "n1 -> n2 write k {n1.1:1=\"red\"} [n1.1:1]",
            "n3 -> n1 durable at n3",
            "n2 -> n1 durable at n2",
            "n1 -> c1 written n1.1:1 on n1 n3",
        ]
    );
    let (shown, _) = values(script.get(2, "k", Level::Quorum));
    assert_eq!(shown, ["red"]);
    let story = script.story();
    assert_eq!(story.len(), 4, "a question and an answer: {story:?}");
    assert!(story[1].contains("read digest of k") && story[2].contains("found digest"));
    assert_eq!(script.violation(), None);
}

/// Goal: a write crosses to each other region once, and its relay answers for those it has heard.
/// Method: two regions, a write at `all`.
#[test]
fn one_copy_for_each_region() {
    let mut script = Script::new(&[(1, 1), (2, 2)]);
    script.story();
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    let story = script.story();
    let across: Vec<&String> = story.iter().filter(|line| line.starts_with("n1 -> ")).collect();
    assert_eq!(across.len(), 2, "one copy and one answer to the client: {story:?}");
    assert!(across[0].contains("pass on to"));
    assert_eq!(
        (script.held(2, "k"), script.held(3, "k")),
        (vec!["red".into()], vec!["red".into()])
    );
    assert_eq!(script.violation(), None);
}

/// Goal: writes on both sides of a cut are both kept, as exactly two siblings in every region, and
/// resolved by whoever has read both. Method: cut, write, write, heal, read, resolve.
#[test]
fn concurrent_writes_become_two_siblings() {
    let mut script = Script::new(&[(3, 3), (3, 3)]);
    written(script.put(1, ("cart", "milk"), &blind(), Level::All));
    let (_, before) = values(script.get(1, "cart", Level::LocalQuorum));
    script.cluster().set_region_cut(1, true);
    script.run_ms(200);
    written(script.put(1, ("cart", "milk eggs"), &before, Level::LocalQuorum));
    written(script.put(4, ("cart", "milk rice"), &before, Level::LocalQuorum));
    assert_eq!(values(script.get(2, "cart", Level::LocalQuorum)).0, ["milk eggs"]);
    assert_eq!(values(script.get(5, "cart", Level::LocalQuorum)).0, ["milk rice"]);

    script.cluster().set_region_cut(1, false);
    script.run_ms(300);
    for node in [1, 4] {
        let (shown, _) = values(script.get(node, "cart", Level::All));
        assert_eq!(shown, ["milk eggs", "milk rice"]);
        script.run_ms(300);
    }
    for node in 1..=6 {
        assert_eq!(script.held(node, "cart"), ["milk eggs", "milk rice"], "n{node}");
    }

    let (_, both) = values(script.get(5, "cart", Level::All));
    written(script.put(5, ("cart", "milk eggs rice"), &both, Level::All));
    for node in 1..=6 {
        assert_eq!(script.held(node, "cart"), ["milk eggs rice"], "n{node}");
    }
    assert_eq!(script.violation(), None);
}

/// Goal: a deleted key is gone in every region, and a blind recreate lives. Method: delete with
/// the context of a read, read everywhere, put again.
#[test]
fn a_delete_reaches_everyone() {
    let mut script = Script::new(&[(2, 2), (2, 2)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    let (_, context) = values(script.get(3, "k", Level::LocalQuorum));
    let error = refused(script.delete(3, "k", &blind(), Level::LocalQuorum));
    assert_eq!(error, RequestError::ContextRequired);
    written(script.delete(3, "k", &context, Level::LocalQuorum));
    script.run_ms(200);
    for node in 1..=4 {
        assert_eq!(values(script.get(node, "k", Level::One)).0, [""; 0], "n{node}");
    }
    written(script.put(1, ("k", "blue"), &blind(), Level::LocalQuorum));
    script.run_ms(200);
    for node in 1..=4 {
        assert_eq!(script.held(node, "k"), ["blue"], "n{node}");
    }
    assert_eq!(script.violation(), None);
}

/// Goal: a write that arrives after its deletion does not come back (I4). Method: the very message
/// that carried the write is delivered again, to a replica and to the reader's eyes.
#[test]
fn a_late_copy_of_a_deleted_write_stays_dead() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    let (_, context) = values(script.get(1, "k", Level::One));
    written(script.delete(1, "k", &context, Level::All));
    script.story();
    assert!(script.deliver_again(1, 2, "write k {n1.1:1=\"red\"}"));
    script.run_ms(10);
    assert_eq!(script.story()[0], "n1 -> n2 write k {n1.1:1=\"red\"} [n1.1:1]");
    assert_eq!(script.held(2, "k"), [""; 0]);
    assert_eq!(values(script.get(2, "k", Level::All)).0, [""; 0]);
    assert!(script.cluster().counters().late_siblings_dropped > 0);
    assert_eq!(script.violation(), None);
}

/// Goal: a killed node loses nothing that was acknowledged, and catches up by read repair with what
/// it missed. Method: kill one of three, write, start it, read.
#[test]
fn a_killed_node_loses_nothing() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    script.cluster().power_cut(NodeId(1));
    script.run_ms(200);
    let (shown, context) = values(script.get(2, "k", Level::Quorum));
    assert_eq!(shown, ["red"]);
    written(script.put(2, ("k", "blue"), &context, Level::Quorum));
    script.cluster().restart(NodeId(1));
    script.run_ms(200);
    assert_eq!(script.held(1, "k"), ["red"]);
    assert_eq!(values(script.get(1, "k", Level::All)).0, ["blue"]);
    script.run_ms(10);
    assert_eq!(script.held(1, "k"), ["blue"]);
    assert_eq!(script.violation(), None);
}

/// Goal: a write that misses its quorum is unknown, not failed; asked for again under its request
/// id it is acknowledged, and applied once. Method: cut the links silently, so that nobody knows
/// that the others cannot be reached; mend them; repeat.
#[test]
fn a_missed_quorum_is_unknown_and_can_be_repeated() {
    let mut script = Script::new(&[(3, 3)]);
    script.cluster().set_weather(|weather| weather.loss = 1000);
    let mut put = script.start_put(1, ("k", "red"), &blind(), Level::Quorum);
    let error = script.finish(&mut put).expect("an answer").expect_err("no quorum");
    assert_eq!(error, RequestError::WriteUnknown { needed: 2, durable: 1 });
    assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    assert_eq!(script.held(1, "k"), ["red"]);

    script.cluster().set_weather(|weather| weather.loss = 0);
    let acknowledged = written(script.repeat(&mut put));
    let again = written(script.repeat(&mut put));
    assert_eq!(acknowledged.dot, again.dot);
    script.run_ms(10);
    for node in 1..=3 {
        assert_eq!(script.held(node, "k"), ["red"], "n{node}");
    }
    assert_eq!(script.cluster().counters().writes_coordinated, 1);
    assert_eq!(script.violation(), None);
}

/// Goal: what cannot meet its level is refused before anything happens, once the node knows.
/// Method: the others are dead and that was noticed.
#[test]
fn an_unreachable_quorum_is_refused_before_anything_happens() {
    let mut script = Script::new(&[(3, 3)]);
    script.cluster().crash(NodeId(2));
    script.cluster().crash(NodeId(3));
    script.run_ms(200);
    let error = refused(script.put(1, ("k", "red"), &blind(), Level::Quorum));
    assert_eq!(error, RequestError::WriteUnavailable { needed: 2, reachable: 1 });
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert_eq!(script.held(1, "k"), [""; 0]);
    written(script.put(1, ("k", "blue"), &blind(), Level::One));
    assert_eq!(script.violation(), None);
}

/// Goal: overload is refused before anything changes, and only while it lasts. Method: more writes
/// at once than may be in flight, none of which can finish at once.
#[test]
fn overload_is_refused_before_any_change() {
    let mut script =
        Script::with_config(&[(3, 3)], ShardConfig { in_flight_max: 2, ..ShardConfig::test_min() });
    let mut puts: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|value| script.start_put(1, (value, value), &blind(), Level::Quorum))
        .collect();
    for put in &mut puts[..2] {
        written(script.finish(put));
    }
    for put in &mut puts[2..] {
        let error = refused(script.finish(put));
        assert!(matches!(error, RequestError::Overloaded { in_flight: 2, limit: 2, .. }));
        assert_eq!(error.outcome(), Outcome::NothingHappened);
    }
    assert_eq!(script.cluster().counters().overloads, 2);
    assert_eq!((script.held(1, "c"), script.held(1, "d")), (vec![], vec![]));
    written(script.put(1, ("c", "later"), &blind(), Level::Quorum));
    assert_eq!(script.violation(), None);
}

/// Goal: on a full disk writes are refused and reads go on; with room again the node resumes, under
/// a new actor if a commit had failed. Method: a disk that is full only at the commit.
#[test]
fn a_full_disk_refuses_writes_and_resumes_as_a_new_actor() {
    let mut script = Script::new(&[(1, 1)]);
    written(script.put(1, ("k", "red"), &blind(), Level::One));
    let large = "x".repeat(2_000);
    script.cluster().set_free(NodeId(1), Some(1_000));
    let error = refused(script.put(1, ("k", large.as_str()), &blind(), Level::One));
    // The dot was drawn: nobody can say any more that nothing happened.
    assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    let error = refused(script.put(1, ("k", "blue"), &blind(), Level::One));
    assert_eq!(error, RequestError::Store { fault: StoreFault::Full });
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert_eq!(values(script.get(1, "k", Level::One)).0, ["red"]);
    script.cluster().set_free(NodeId(1), None);
    script.run_ms(500);
    script.story();
    written(script.put(1, ("k", "green"), &blind(), Level::One));
    let story = script.story();
    assert_eq!(story[1], "n1 -> c1 written n1.2:1 on n1", "a new actor counts from 1");
    assert_eq!(script.held(1, "k"), ["green", "red"]);
    assert_eq!(script.violation(), None);
}

/// Goal: a slow replica does not hold up a read: another is asked. Method: the replica that would
/// answer is stopped, each of the others in turn, so that one of them is.
#[test]
fn a_slow_replica_is_hedged() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    let until_us = script.cluster().now_us() + 900_000;
    script.cluster().pause(NodeId(2), until_us);
    for _ in 0..6 {
        let began_us = script.cluster().now_us();
        assert_eq!(values(script.get(1, "k", Level::Quorum)).0, ["red"]);
        assert!(script.cluster().now_us() - began_us < 150_000);
    }
    assert!(script.cluster().counters().reads_hedged > 0);
    assert_eq!(script.violation(), None);
}

/// Goal: a relay that dies with a write is gone round: the coordinator sends directly to the others
/// of its region. Method: kill the relay while the write is under way.
#[test]
fn a_dead_relay_is_gone_round() {
    let mut script = Script::new(&[(1, 1), (3, 3)]);
    let mut put = script.start_put(1, ("k", "red"), &blind(), Level::EachQuorum);
    script.run_ms(10);
    // Who the relay is shows in the same story without the death.
    let relay = (2..=4).map(NodeId).find(|node| {
        let mut undisturbed = Script::new(&[(1, 1), (3, 3)]);
        written(undisturbed.put(1, ("k", "red"), &blind(), Level::EachQuorum));
        let words = format!("n1 -> {node} write k");
        undisturbed.story().iter().any(|line| line.starts_with(&words))
    });
    script.cluster().crash(relay.expect("a relay"));
    let acknowledged = script.finish(&mut put).expect("an answer").expect("acknowledged");
    assert_eq!(acknowledged.receipt.replicas.len(), 3);
    let story = script.story();
    let direct = story.iter().filter(|l| l.starts_with("n1 -> n") && l.contains("write k")).count();
    assert_eq!(direct, 2, "to the two that are left: {story:?}");
    assert!(script.cluster().counters().writes_resent >= 2);
    assert_eq!(script.violation(), None);
}

/// Goal: a node that lost its disk answers nothing, coordinates nothing and takes nothing in, until it
/// has taken from the others what they have; that it does by itself. Method: wipe one of three, and cut
/// it off for a while.
#[test]
fn an_amnesiac_node_steps_aside() {
    let mut script = Script::new(&[(3, 3)]);
    written(script.put(1, ("k", "red"), &blind(), Level::All));
    let (others, amnesiac) = ([NodeId(1), NodeId(2)], [NodeId(3)]);
    script.cluster().crash(NodeId(3));
    script.cluster().wipe(NodeId(3));
    script.cluster().set_partial_cut((&others, &amnesiac), (true, true));
    script.cluster().restart(NodeId(3));
    script.run_ms(200);
    // With nobody else in reach it refuses.
    let error = refused(script.put(3, ("k", "green"), &blind(), Level::One));
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    assert_eq!(error, RequestError::NotReady { reason: NotReady::Behind });
    let error = refused(script.get(1, "k", Level::All));
    assert!(matches!(error, RequestError::ReadUnavailable { needed: 3, .. }));
    written(script.put(1, ("k2", "blue"), &blind(), Level::Quorum));
    script.cluster().set_partial_cut((&others, &amnesiac), (false, true));
    script.run_ms(1_000);
    assert_eq!(
        (script.held(3, "k"), script.held(3, "k2")),
        (vec!["red".to_owned()], vec!["blue".to_owned()])
    );
    // It is as good as any now.
    assert_eq!(values(script.get(3, "k", Level::All)).0, ["red"]);
    let taken = written(script.put(3, ("k", "blue"), &blind(), Level::All));
    assert_eq!(taken.receipt.coordinator, NodeId(3));
    assert_eq!(script.violation(), None);
}

/// Goal: an answer never loses a key between two writes. Method: the bug's story: a read took its
/// own copy of a value, the value was overwritten through the same node while the read waited for
/// another replica, and that replica's copy of the old value was then dropped as late, while the
/// new one was not part of the answer: it said that the key was empty.
#[test]
fn a_read_that_a_write_overtakes_is_not_empty() {
    let mut script = Script::new(&[(1, 1), (1, 1)]);
    let old = written(script.put(1, ("k", "old"), &blind(), Level::All));
    // The replicas differ, so that the read has to ask for a whole object, after a digest.
    script.cluster().set_region_cut(1, true);
    script.run_ms(200);
    written(script.put(2, ("k", "other"), &blind(), Level::One));
    script.cluster().set_region_cut(1, false);
    script.run_ms(300);
    let read = script.start_get(1, "k", Level::All);
    // The digest has come back, the question for the object has been answered, and the answer is
    // on its way.
    script.run_ms(130);
    written(script.put(1, ("k", "new"), &old.context, Level::One));
    let (shown, _) = values(script.finish_get(&read));
    assert!(shown == ["old", "other"] || shown == ["new", "other"], "{shown:?}");
    assert_eq!(script.violation(), None);
}

/// Goal: a last-writer-wins value from a clock far ahead does not spread, also not through a read,
/// and does not spoil the clocks of others. Method: one node's clock runs an hour ahead; it takes a
/// write at level `one`, others read at quorum and write.
#[test]
fn a_value_from_a_fast_clock_does_not_spread() {
    let mut script = Script::new(&[(3, 3)]);
    script.use_latest();
    script.cluster().set_skew(NodeId(1), 3_600_000);
    written(script.put(1, ("k", "future"), &blind(), Level::One));
    script.run_ms(300);
    assert_eq!(script.held(2, "k"), Vec::<String>::new(), "refused by the others");

    let all = script.get(2, "k", Level::All);
    assert!(matches!(refused(all), RequestError::ReadUnavailable { .. }), "it is no answer");
    written(script.put(2, ("k", "present"), &blind(), Level::Quorum));
    let (shown, _) = values(script.get(3, "k", Level::Quorum));
    assert_eq!(shown, ["present"]);
    written(script.put(3, ("other", "present"), &blind(), Level::Quorum));
}

/// Goal: a node that knows a value from a far future refuses to overwrite it, rather than follow its
/// clock. Method: the clock that was ahead is set right; a write through it.
#[test]
fn a_clock_set_right_does_not_follow_its_past() {
    let mut script = Script::new(&[(1, 1)]);
    script.use_latest();
    script.cluster().set_skew(NodeId(1), 3_600_000);
    written(script.put(1, ("k", "future"), &blind(), Level::One));
    script.cluster().crash(NodeId(1));
    script.cluster().restart(NodeId(1));
    script.run_ms(100);
    script.cluster().set_skew(NodeId(1), 0);
    let error = refused(script.put(1, ("k", "present"), &blind(), Level::One));
    assert!(matches!(error, RequestError::ClockSkew { ahead_ms, .. } if ahead_ms > 3_000_000));
    written(script.put(1, ("other", "present"), &blind(), Level::One));
}
