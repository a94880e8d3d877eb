//! The relay: one replica of a remote region that passes a write on to the others there.

use super::*;

/// Node 1 relays for its region of three or more, for node 9 of another region.
fn relaying(count: u64) -> Bench {
    Bench::new(&[(count, count as u8), (3, 3)])
}

fn write(fan_out: &[u64]) -> PeerMessage {
    write_message(500, "k", foreign(ObjectKind::Siblings, 1, "v"), fan_out)
}

/// Goal: a relay passes a write on as it came, tells the coordinator of a majority, and of the rest
/// when all have answered, each node once. Method: five replicas, step by step.
#[test]
fn a_relay_tells_a_majority_and_then_the_rest() {
    let mut bench = relaying(5);
    let effects = bench.hear(6, write(&[2, 3, 4, 5]));
    let [(to, PeerMessage::Write { op, object, fan_out, key, .. })] = &sends(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((to, fan_out), (&nodes(&[2, 3, 4, 5]), &vec![]));
    assert_eq!((object, &key[..]), (&foreign(ObjectKind::Siblings, 1, "v"), &b"k"[..]));
    assert_ne!(*op, OpId(500), "its own operation");
    let op = *op;
    assert_eq!(bench.hear(2, durable(op, &[2])), []);
    assert_eq!(bench.commit(), [], "two of five");
    let effects = bench.hear(3, durable(op, &[3]));
    assert_eq!(sends(&effects), [(nodes(&[6]), durable(OpId(500), &[1, 2, 3]))]);
    assert_eq!(bench.hear(4, refusal(op, 4)), []);
    let effects = bench.hear(5, durable(op, &[5]));
    assert_eq!(reports(&effects, 6), [(nodes(&[5]), vec![(NodeId(4), Refusal::StoreIo)])]);
    bench.assert_quiet();
    assert_eq!(bench.peer_rejections(), 0);
}

/// Goal: three of four are needed, not two. Method: an even number of replicas.
#[test]
fn half_is_no_majority() {
    let mut bench = relaying(4);
    let op = writes(&bench.hear(5, write(&[2, 3, 4])))[0].1;
    bench.commit();
    assert_eq!(bench.hear(2, durable(op, &[2])), []);
    assert_eq!(reports(&bench.hear(3, durable(op, &[3])), 5), [(nodes(&[1, 2, 3]), vec![])]);
}

/// Goal: members speak for themselves, others not at all; a vote outweighs a refusal, whatever the
/// order. Method: votes about others, of strangers, and both of one node.
#[test]
fn a_relay_believes_each_about_itself() {
    let mut bench = relaying(3);
    let op = writes(&bench.hear(4, write(&[2, 3])))[0].1;
    assert_eq!(bench.hear(2, durable(op, &[3])), []);
    assert_eq!(bench.hear(2, refusal(op, 3)), []);
    assert_eq!(bench.peer_rejections(), 0);
    assert_eq!(bench.hear(9, durable(op, &[2])), []);
    assert_eq!(bench.peer_rejections(), 1);
    assert_eq!(bench.hear(2, refusal(op, 2)), []);
    let effects = bench.hear(2, durable(op, &[2]));
    assert_eq!(effects, []);
    assert_eq!(bench.hear(2, refusal(op, 2)), []);
    let effects = bench.commit();
    assert_eq!(reports(&effects, 4), [(nodes(&[1, 2]), vec![])]);
    let effects = bench.hear(3, durable(op, &[3]));
    assert_eq!(reports(&effects, 4), [(nodes(&[3]), vec![])]);
    bench.assert_quiet();
}

/// Goal: a relay is no way to write anywhere else. Method: a fan-out with nodes of another region
/// and with one that does not exist.
#[test]
fn a_relay_stays_in_its_region() {
    let mut bench = relaying(3);
    let effects = bench.hear(4, write(&[2, 5, 77]));
    assert_eq!(writes(&effects)[0].0, nodes(&[2]));
    assert_eq!(bench.peer_rejections(), 2);
    let op = writes(&effects)[0].1;
    bench.commit();
    let effects = bench.hear(2, durable(op, &[2]));
    assert_eq!(reports(&effects, 4), [(nodes(&[1, 2]), vec![])]);
    bench.assert_quiet();
}

/// Goal: a node that cannot be reached is told as such, and nobody waits for it. Method: one of
/// three down, then both.
#[test]
fn a_relay_tells_who_is_down() {
    let mut bench = relaying(3);
    bench.input(Input::PeerDown(NodeId(3)));
    let effects = bench.hear(4, write(&[2, 3]));
    assert_eq!(writes(&effects)[0].0, nodes(&[2]));
    let op = writes(&effects)[0].1;
    bench.hear(2, durable(op, &[2]));
    let effects = bench.commit();
    let down = vec![(NodeId(3), Refusal::Unreachable)];
    assert_eq!(reports(&effects, 4), [(nodes(&[1, 2]), down.clone())]);
    bench.assert_quiet();
    bench.input(Input::PeerDown(NodeId(2)));
    assert_eq!(bench.hear(4, write(&[2, 3])), []);
    let all = vec![(NodeId(2), Refusal::Unreachable), down[0]];
    assert_eq!(reports(&bench.commit(), 4), [(nodes(&[1]), all)]);
    bench.assert_quiet();
}

/// Goal: a relay that cannot store a write passes it on all the same, and says so; what makes no
/// sense it does not pass on. Method: a full disk, then noise, then a partition it does not hold.
#[test]
fn a_relay_without_room_passes_on() {
    let mut bench = relaying(3);
    bench.disk.room = Some(StoreError::Full);
    let op = writes(&bench.hear(4, write(&[2, 3])))[0].1;
    assert_eq!(bench.commit(), []);
    assert_eq!(bench.peer_rejections(), 1);
    assert_eq!(bench.hear(2, durable(op, &[2])), []);
    let effects = bench.hear(3, durable(op, &[3]));
    let full = vec![(NodeId(1), Refusal::StoreFull)];
    assert_eq!(reports(&effects, 4), [(nodes(&[2, 3]), full)]);
    bench.assert_quiet();

    // Nobody else is there: it tells at once.
    bench.input(Input::PeerDown(NodeId(2)));
    bench.input(Input::PeerDown(NodeId(3)));
    let effects = bench.hear(4, write(&[2, 3]));
    let [(to, refused)] = &reports(&effects, 4)[..] else { panic!("{effects:?}") };
    assert_eq!((to.len(), refused.len(), sends(&effects).len()), (0, 3, 1));
    bench.assert_quiet();

    let noise = write_message(501, "k", Bytes::from_static(b"noise"), &[2, 3]);
    let effects = bench.hear(4, noise);
    assert_eq!(reports(&effects, 4), [(vec![], vec![(NodeId(1), Refusal::Malformed)])]);
    assert!(writes(&effects).is_empty());
}

/// Goal: too long a silence ends a relay: it tells what it knows. Method: nobody answers; then with
/// nothing to tell.
#[test]
fn a_relay_does_not_wait_for_ever() {
    let mut bench = relaying(5);
    let op = writes(&bench.hear(6, write(&[2, 3, 4, 5])))[0].1;
    bench.commit();
    bench.hear(2, refusal(op, 2));
    assert_eq!(bench.wakes_in_us(), Some(100_000));
    assert_eq!(bench.pass_us(99_999), []);
    let effects = bench.pass_us(1);
    assert_eq!(reports(&effects, 6), [(nodes(&[1]), vec![(NodeId(2), Refusal::StoreIo)])]);
    bench.assert_quiet();
    assert_eq!(bench.hear(3, durable(op, &[3])), [], "too late");

    let op = writes(&bench.hear(6, write(&[2, 3, 4, 5])))[0].1;
    bench.hear(2, durable(op, &[2]));
    bench.hear(3, durable(op, &[3]));
    assert_eq!(reports(&bench.commit(), 6), [(nodes(&[1, 2, 3]), vec![])]);
    assert_eq!(bench.pass_ms(100), [], "nothing new");
    bench.assert_quiet();
}

/// Goal: a relay that passes on as many writes as it may stores one more, acknowledges it for itself
/// only, and remembers nothing of it (I10); its coordinator sends it again, directly. Method: fill
/// the relay, send one more, and let time make room.
#[test]
fn a_crowded_relay_speaks_for_itself() {
    let mut bench = relaying(3);
    let limit = bench.shard.config.relays_max as u64;
    let nth = |n: u64| {
        let object = foreign(ObjectKind::Siblings, 1 + n, "v");
        write_message(600 + n, "k", object, &[2, 3])
    };
    for n in 0..limit {
        assert_eq!(writes(&bench.hear(4, nth(n)))[0].0, nodes(&[2, 3]));
    }
    assert_eq!(bench.commit(), [], "one of three, each");
    let before = bench.shard.ops.len();
    assert_eq!(bench.hear(4, nth(limit)), []);
    let counters = bench.shard.counters();
    assert_eq!((counters.relays, counters.overloads), (limit, 1));
    assert_eq!(bench.shard.ops.len(), before);
    let own = durable(OpId(600 + limit), &[1]);
    assert_eq!(sends(&bench.commit()), [(nodes(&[4]), own)]);
    let stored = bench.stored("k").unwrap();
    assert!(stored.context.covers(Dot::new(OTHER, 1 + limit)));

    bench.pass_ms(100);
    bench.assert_quiet();
    assert_eq!(writes(&bench.hear(4, nth(limit + 1)))[0].0, nodes(&[2, 3]));
}
