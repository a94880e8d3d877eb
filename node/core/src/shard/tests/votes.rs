//! From a write's dot to its acknowledgement: whose votes count, when it is answered, sent again,
//! and let go.

use super::*;
use crate::shard::acknowledge::RESEND_STEP;

/// A write at a level, committed. Its caller, its operation, and the effects of the commit.
fn start(bench: &mut Bench, level: Level) -> (Caller, OpId, Effects) {
    let put = bench.put("k", "v", level);
    let (caller, effects) = bench.ask(Request::Put(put));
    let op = writes(&effects)[0].1;
    (caller, op, bench.commit())
}

/// Goal: nobody votes for others but a relay for its region, and this node about what it cannot
/// reach. Method: two regions, votes of everyone about everyone that are not allowed to count, then
/// those that are.
#[test]
fn votes_speak_for_who_gives_them() {
    let mut bench = Bench::new(&[(3, 3), (3, 3)]);
    let (caller, op, effects) = start(&mut bench, Level::All);
    assert_eq!(effects, []);
    // (who speaks, about whom): a neighbour of the own region, a relay about another region, one
    // of the own region about the other, a stranger about itself, and a member about a stranger.
    let bad = [(2, 3), (4, 2), (2, 4), (9, 9), (4, 9), (9, 2)];
    for (at, (from, about)) in bad.into_iter().enumerate() {
        assert_eq!(bench.hear(from, durable(op, &[about])), []);
        assert_eq!(bench.peer_rejections(), at as u64 + 1, "{from} about {about}");
    }
    // A refusal is a vote as well.
    assert_eq!(bench.hear(2, refusal(op, 3)), []);
    assert_eq!(bench.peer_rejections(), bad.len() as u64 + 1);

    assert_eq!(bench.hear(2, durable(op, &[2])), []);
    assert_eq!(bench.hear(5, durable(op, &[4, 5, 6])), []);
    let effects = bench.hear(3, durable(op, &[3]));
    let answer = written(&reply_to(&effects, caller).unwrap());
    assert_eq!(behind(&answer.receipt), nodes(&[1, 2, 3, 4, 5, 6]));
    assert_eq!(bench.peer_rejections(), bad.len() as u64 + 1);
    bench.assert_quiet();
}

/// Goal: a vote is counted once, an answer given once. Method: the same votes again and again,
/// before and after.
#[test]
fn a_repeated_vote_changes_nothing() {
    let mut bench = Bench::new(&[(5, 5)]);
    let (caller, op, _) = start(&mut bench, Level::Quorum);
    assert_eq!(bench.hear(2, durable(op, &[2])), []);
    assert_eq!(bench.hear(2, durable(op, &[2])), []);
    let effects = bench.hear(3, durable(op, &[3]));
    assert!(reply_to(&effects, caller).is_some());
    assert_eq!(bench.hear(3, durable(op, &[3])), []);
    assert_eq!(bench.shard.counters().lingering, 1);
    assert_eq!(bench.hear(4, durable(op, &[4])), []);
    assert_eq!(bench.hear(5, durable(op, &[5])), []);
    bench.assert_quiet();
    assert_eq!(bench.hear(5, durable(op, &[5])), []);
    bench.assert_quiet();
}

/// Goal: a write that can no longer meet its level is told at once as unknown, with the figures.
/// Method: refusals until the quorum is impossible.
#[test]
fn refusals_end_a_write_early() {
    let mut bench = Bench::new(&[(3, 3)]);
    let (caller, op, _) = start(&mut bench, Level::Quorum);
    assert_eq!(bench.hear(2, refusal(op, 2)), []);
    let effects = bench.hear(3, refusal(op, 3));
    let unknown = RequestError::WriteUnknown { needed: 2, durable: 1 };
    assert_eq!(error(reply_to(&effects, caller)), unknown);
    bench.assert_quiet();
}

/// Goal: a node whose connection is lost is not waited for, neither before nor after the answer,
/// and no other node's loss counts for it. Method: lose one of three at a time.
#[test]
fn a_lost_connection_is_a_refusal() {
    let mut bench = Bench::new(&[(3, 3), (1, 1)]);
    let (caller, _, _) = start(&mut bench, Level::All);
    // The relay of the other region is lost: its region has only it.
    let effects = bench.input(Input::PeerDown(NodeId(4)));
    let unknown = RequestError::WriteUnknown { needed: 4, durable: 1 };
    assert_eq!(error(reply_to(&effects, caller)), unknown);
    assert_eq!(bench.shard.counters().lingering, 1);
    bench.input(Input::PeerDown(NodeId(2)));
    assert_eq!(bench.shard.counters().lingering, 1);
    bench.input(Input::PeerDown(NodeId(3)));
    bench.assert_quiet();

    let mut bench = Bench::new(&[(2, 2), (3, 2)]);
    let spare = (3..=5)
        .find(|&n| !bench.shard.cluster.layout.as_ref().unwrap().is_replica(PARTITION, NodeId(n)));
    start(&mut bench, Level::One);
    bench.input(Input::PeerDown(NodeId(spare.unwrap())));
    assert_eq!(bench.peer_rejections(), 0, "no vote about who is no replica");
}

/// Goal: a replica that is silent gets the write again, directly, after twice as long each time,
/// until the deadline; who has it or cannot be reached does not. Method: one of three answers, one
/// is lost, one is silent.
#[test]
fn a_silent_replica_is_asked_again() {
    let mut bench = Bench::new(&[(1, 1), (3, 3)]);
    let (caller, op, _) = start(&mut bench, Level::Quorum);
    assert_eq!(bench.wakes_in_us(), Some(100_000));
    bench.hear(2, durable(op, &[2]));
    bench.input(Input::PeerDown(NodeId(3)));
    assert_eq!(bench.pass_us(99_999), []);
    let [(to, again, fan_out)] = writes(&bench.pass_us(1)).try_into().unwrap();
    assert_eq!((to, again, fan_out), (nodes(&[4]), op, vec![]));
    assert_eq!(bench.shard.counters().writes_resent, 1);
    assert_eq!(bench.wakes_in_us(), Some(200_000));
    bench.input(up(NodeId(3)));
    let [(to, ..)] = writes(&bench.pass_ms(200)).try_into().unwrap();
    assert_eq!(to, nodes(&[3, 4]), "what was lost and is back is asked as well");
    assert_eq!(bench.shard.counters().writes_resent, 3);
    assert_eq!(bench.wakes_in_us(), Some(400_000));
    let mut effects = bench.input(Input::PeerDown(NodeId(3)));
    effects.extend(bench.input(Input::PeerDown(NodeId(4))));
    let unknown = RequestError::WriteUnknown { needed: 3, durable: 2 };
    assert_eq!(error(reply_to(&effects, caller)), unknown);
    bench.assert_quiet();
}

/// Goal: what is long is not sent again while its first copy may still be on its way. Method: values
/// of no, one and four steps at replicas that stay silent.
#[test]
fn a_long_write_waits_longer() {
    for (steps, first_ms) in [(0, 100), (1, 200), (4, 500)] {
        let mut bench = Bench::new(&[(3, 3)]);
        let value = "v".repeat(steps * RESEND_STEP);
        let put = bench.put("k", &value, Level::All);
        bench.ask(Request::Put(put));
        bench.commit();
        assert_eq!(bench.pass_us(first_ms * 1_000 - 1), [], "{steps} steps");
        assert_eq!(writes(&bench.pass_us(1)).len(), 1, "{steps} steps");
        assert_eq!(bench.shard.counters().breaker_trips, 0, "late once");
    }
}

/// Goal: the last sleep ends at the deadline, and then the write is over: told as unknown if it has
/// not been answered, dropped in silence if it has. Method: a write nobody answers, and one that
/// is answered by its own commit.
#[test]
fn a_write_ends_at_its_deadline() {
    let mut bench = Bench::new(&[(3, 3)]);
    let (caller, _, _) = start(&mut bench, Level::Quorum);
    for (sleep_us, resent) in [(100_000, true), (200_000, true), (400_000, true)] {
        assert_eq!(bench.wakes_in_us(), Some(sleep_us));
        assert_eq!(!writes(&bench.pass_us(sleep_us)).is_empty(), resent);
    }
    assert_eq!(bench.wakes_in_us(), Some(300_000), "a second in all");
    let effects = bench.pass_us(300_000);
    let unknown = RequestError::WriteUnknown { needed: 2, durable: 1 };
    assert_eq!(error(reply_to(&effects, caller)), unknown);
    assert_eq!(effects.len(), 1);
    bench.assert_quiet();

    let (caller, _, effects) = start(&mut bench, Level::One);
    assert!(reply_to(&effects, caller).is_some());
    assert_eq!(bench.shard.counters().lingering, 1);
    while bench.shard.timers.next().is_some() {
        let effects = bench.pass_us(bench.wakes_in_us().unwrap());
        assert_eq!(reply_to(&effects, caller), None);
    }
    bench.assert_quiet();
}

/// Goal: a late wake-up answers and does not spin. Method: sleep through everything.
#[test]
fn oversleeping_is_harmless() {
    let mut bench = Bench::new(&[(3, 3)]);
    let (caller, _, _) = start(&mut bench, Level::Quorum);
    let effects = bench.pass_ms(60_000);
    assert!(reply_to(&effects, caller).is_some());
    bench.assert_quiet();
    assert_eq!(bench.pass_ms(1), []);
}

/// Goal: a request's own timeout counts, cut to the most that is allowed; 0 means the usual one.
/// Method: the moment a write that nobody answers ends.
#[test]
fn deadlines_are_what_was_asked_for() {
    for (asked_ms, ends_ms) in [(0, 1_000), (50, 50), (70_000, 60_000)] {
        let mut bench = Bench::new(&[(3, 3)]);
        let put = Put { timeout_ms: asked_ms, ..bench.put("k", "v", Level::Quorum) };
        let (caller, _) = bench.ask(Request::Put(put));
        bench.commit();
        let early = bench.pass_us(ends_ms * 1000 - 1);
        assert_eq!(reply_to(&early, caller), None, "{asked_ms}");
        assert!(reply_to(&bench.pass_us(1), caller).is_some(), "{asked_ms}");
    }
}

/// Goal: an answer to another question is refused and counted, whatever it is. Method: a vote for a
/// read, a found object for a write, and both for an operation that was never there.
#[test]
fn answers_must_match_their_question() {
    let mut bench = Bench::new(&[(3, 3)]);
    let (caller, write, _) = start(&mut bench, Level::Quorum);
    let (_, effects) = bench.ask(Request::Get(get("k", Level::Quorum)));
    let read = questions(&effects)[0].1;
    assert_eq!(bench.hear(2, durable(read, &[2])), []);
    assert_eq!(bench.peer_rejections(), 1);
    assert_eq!(bench.hear(2, found(write, Found::Absent)), []);
    assert_eq!(bench.peer_rejections(), 2);
    let reply = Reply::Error(RequestError::CoordinatorLost);
    let answer = PeerMessage::ProxyReply { op: write, partition: PARTITION, reply };
    assert_eq!(bench.hear(2, answer), []);
    assert_eq!(bench.peer_rejections(), 3);
    let state = holm_protocol::admin::ReplicaState::default();
    let answer = PeerMessage::InspectReply { op: write, partition: PARTITION, state };
    assert_eq!(bench.hear(2, answer), []);
    assert_eq!(bench.peer_rejections(), 4);
    let stranger = OpId(0x7777);
    assert_eq!(bench.hear(2, durable(stranger, &[2])), []);
    assert_eq!(bench.hear(2, found(stranger, Found::Absent)), []);
    assert_eq!(bench.peer_rejections(), 4, "late answers are no offence");
    assert!(reply_to(&bench.hear(2, durable(write, &[2])), caller).is_some());
}

/// Goal: an operation's number is never 0, which stands for messages that nobody answers, and
/// differs between operations. Method: a run whose actor is the highest number.
#[test]
fn operations_have_numbers() {
    let boot = Boot {
        node: NodeId(1),
        actor: Actor(u64::MAX),
        standing: Standing::Serves,
        shard: 0,
        shards: 1,
    };
    let mut shard = Shard::new(ShardConfig::test_min(), boot);
    let drawn: Vec<OpId> = (0..3).map(|_| shard.new_op()).collect();
    assert_eq!(drawn, [OpId(1), OpId(2), OpId(3)]);
    let shard = &mut Shard::new(ShardConfig::test_min(), Boot { actor: ACTOR, ..boot });
    assert_eq!(shard.new_op(), OpId(ACTOR.0 + 1));
}
