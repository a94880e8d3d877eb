//! A fallback's side: what it keeps, for how long, and how it goes home.

use super::*;
use crate::keys::hint_key_parts;

/// A node of the region that is no replica, and the replicas.
fn fallback(config: ShardConfig) -> (Bench, [u64; 3]) {
    let cluster = cluster(layout(&[(5, 3)], 0), &policy());
    let list = cluster.layout.as_ref().unwrap().preference_list(PARTITION, RegionId(0));
    let mut bench = Bench::at(list[3], cluster, config);
    for &replica in &list[..3] {
        bench.input(Input::PeerDown(replica));
    }
    (bench, [list[0].0, list[1].0, list[2].0])
}

pub(super) fn keep(op: u64, replica: u64, key: &str, object: Bytes) -> PeerMessage {
    PeerMessage::Hint(HintMessage::Keep {
        op: OpId(op),
        partition: PARTITION,
        replica: NodeId(replica),
        bucket: SIBLINGS,
        key: Bytes::from(key.to_owned()),
        object,
    })
}

/// What the effects say of hints that were to be kept.
pub(super) fn kept(effects: &[Effect]) -> Vec<Option<Refusal>> {
    let kept = |(_, message)| match message {
        PeerMessage::Hint(HintMessage::Kept { refused, .. }) => Some(refused),
        _ => None,
    };
    sends(effects).into_iter().filter_map(kept).collect()
}

/// Hints that are sent home: to whom, in which operation, of which key.
pub(super) fn sent_home(effects: &[Effect]) -> Vec<(u64, OpId, String)> {
    let home = |(to, message): (Vec<NodeId>, PeerMessage)| match message {
        PeerMessage::Hint(HintMessage::HandOff { op, key, .. }) => {
            Some((to[0].0, op, String::from_utf8_lossy(&key).into_owned()))
        }
        _ => None,
    };
    sends(effects).into_iter().filter_map(home).collect()
}

pub(super) fn home(op: OpId, refused: Option<Refusal>, window_bytes: u32) -> PeerMessage {
    PeerMessage::Hint(HintMessage::HandedOff { op, partition: PARTITION, refused, window_bytes })
}

fn store(bench: &mut Bench, replica: u64, keys: &[&str]) {
    for key in keys {
        bench.hear(replica, keep(1, replica, key, foreign(ObjectKind::Siblings, 1, key)));
    }
    assert_eq!(kept(&bench.commit()), vec![None; keys.len()]);
}

fn rows(bench: &Bench) -> usize {
    bench.disk.rows.keys().filter(|(table, _)| *table == Table::Hints).count()
}

/// Goal: a hint is a vote only when it is durable, and none if the disk refuses it.
#[test]
fn kept_is_said_when_it_is_durable() {
    let (mut bench, [a, b, _]) = fallback(ShardConfig::test_min());
    let object = foreign(ObjectKind::Siblings, 1, "v");
    assert_eq!(bench.hear(b, keep(7, a, "k", object.clone())), []);
    let effects = bench.fail_commit(StoreError::Full);
    assert_eq!(kept(&effects), [Some(Refusal::StoreFull)]);
    assert_eq!((rows(&bench), bench.shard.counters().hints), (0, 0));
    bench.shard.resume(Actor(0xa9));
    assert_eq!(bench.hear(b, keep(7, a, "k", object)), []);
    assert_eq!(kept(&bench.commit()), [None]);
    assert_eq!((rows(&bench), bench.shard.counters().hints), (1, 1));
    assert_eq!(bench.shard.counters().hints_since_ms, WALL_MS);
}

/// Goal: an operator sees what is kept of a key, for whom and since when, and no complaint that the
/// node is no replica.
#[test]
fn hints_are_described() {
    let (mut bench, [a, b, _]) = fallback(ShardConfig::test_min());
    store(&mut bench, a, &["k", "other"]);
    let (op, partition, bucket, key) = (OpId(4), PARTITION, SIBLINGS, Bytes::from_static(b"k"));
    let effects = bench.hear(b, PeerMessage::Inspect { op, partition, bucket, key });
    let [(_, PeerMessage::InspectReply { state, .. })] = &sends(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((state.hints.len(), &state.fault), (1, &None));
    assert_eq!((state.hints[0].replica, state.hints[0].since_ms), (NodeId(a), WALL_MS));
}

/// Goal: only replicas of the own region have hints, never this node, and only of what fits.
#[test]
fn what_makes_no_sense_is_refused() {
    let (mut bench, [a, b, _]) = fallback(ShardConfig::test_min());
    let (object, me) = (foreign(ObjectKind::Siblings, 1, "v"), bench.me.0);
    let stranger = (1..=5).find(|&n| n != me && !bench_is_replica(&bench, n)).unwrap();
    for (replica, object, refusal) in [
        (me, object.clone(), Refusal::NotReplica),
        (stranger, object.clone(), Refusal::NotReplica),
        (99, object.clone(), Refusal::NotReplica),
        (a, Bytes::from_static(b"no object"), Refusal::Malformed),
        (a, foreign(ObjectKind::Lww, 1, "v"), Refusal::WrongKind),
    ] {
        let effects = bench.hear(b, keep(7, replica, "k", object));
        assert_eq!(kept(&effects), [Some(refusal)], "{replica}");
    }
    bench.commit();
    assert_eq!(rows(&bench), 0);
}

fn bench_is_replica(bench: &Bench, node: u64) -> bool {
    let layout = bench.shard.cluster.layout.as_ref().unwrap();
    layout.is_replica(PARTITION, NodeId(node))
}

/// Goal: hints are bounded, and a refusal for lack of room says so. Room comes back when they go.
#[test]
fn hints_are_bounded() {
    let config = ShardConfig { hint_bytes_max: 100, ..ShardConfig::test_min() };
    let (mut bench, [a, b, _]) = fallback(config);
    store(&mut bench, a, &["k1"]);
    let counters = bench.shard.counters();
    assert!((51..100).contains(&counters.hint_bytes), "{}", counters.hint_bytes);
    let object = foreign(ObjectKind::Siblings, 1, "v");
    let effects = bench.hear(b, keep(7, a, "k2", object.clone()));
    assert_eq!(kept(&effects), [Some(Refusal::HintsFull)]);
    assert_eq!(bench.shard.counters().hints_refused, 1);
    bench.input(up(NodeId(a)));
    let sent = sent_home(&bench.pass_ms(0));
    bench.hear(a, home(sent[0].1, None, 1_000));
    bench.commit();
    assert_eq!((rows(&bench), bench.shard.counters().hint_bytes), (0, 0));
    assert_eq!(bench.hear(b, keep(7, a, "k2", object)), []);
    assert_eq!(kept(&bench.commit()), [None]);
}

/// Goal: hints go home in the order of keys, as many at a time as the replica grants, each deleted
/// on the answer to its own message, from its own replica. Method: three hints; answers of
/// strangers, of operations that never were, and the right ones.
#[test]
fn hints_go_home_as_granted() {
    let (mut bench, [a, b, _]) = fallback(ShardConfig::test_min());
    store(&mut bench, a, &["k2", "k1", "k3"]);
    store(&mut bench, b, &["other"]);
    assert_eq!(bench.shard.next_wakeup(), None, "nobody is there");
    bench.input(up(NodeId(a)));
    let first = sent_home(&bench.pass_ms(0));
    assert_eq!(first.len(), 1, "nothing is granted yet: one message");
    assert_eq!((first[0].0, first[0].2.as_str()), (a, "k1"));
    assert_eq!(bench.hear(b, home(first[0].1, None, 9_000)), []);
    assert_eq!(bench.hear(a, home(OpId(1), None, 9_000)), []);
    bench.commit();
    assert_eq!(rows(&bench), 4);
    let rest = sent_home(&bench.hear(a, home(first[0].1, None, 9_000)));
    assert_eq!(rest.iter().map(|it| it.2.as_str()).collect::<Vec<_>>(), ["k2", "k3"]);
    bench.commit();
    assert_eq!(rows(&bench), 3);
    // Nothing granted: a pause.
    assert_eq!(bench.hear(a, home(rest[0].1, None, 0)), []);
    assert_eq!(bench.hear(a, home(rest[1].1, None, 0)), []);
    bench.commit();
    assert_eq!((rows(&bench), bench.shard.counters().hints_handed_off), (1, 3));
    assert_eq!(bench.hear(a, home(rest[1].1, None, 0)), [], "a second answer");
    bench.pass_ms(100);
    bench.assert_quiet();
}

/// Goal: a hint that changed after it was sent stays until it was sent again; and one whose answer
/// comes after its connection was lost was not answered.
#[test]
fn only_its_own_answer_takes_a_hint() {
    let (mut bench, [a, b, _]) = fallback(ShardConfig::test_min());
    store(&mut bench, a, &["k"]);
    bench.input(up(NodeId(a)));
    let old = sent_home(&bench.pass_ms(0))[0].1;
    let mut newer = Object::new(ObjectKind::Siblings);
    newer.put(&VersionVector::new(), sibling(2, "newer"));
    bench.hear(b, keep(8, a, "k", encoded(&newer)));
    bench.commit();
    bench.hear(a, home(old, None, 1_000));
    bench.commit();
    assert_eq!(rows(&bench), 1, "the newer write is not home");
    let again = sent_home(&bench.pass_ms(1_000))[0].1;
    bench.input(Input::PeerDown(NodeId(a)));
    bench.input(up(NodeId(a)));
    bench.hear(a, home(again, None, 1_000));
    bench.commit();
    assert_eq!(rows(&bench), 1, "that run's disk may be gone");
    let last = sent_home(&bench.pass_ms(0))[0].1;
    bench.hear(a, home(last, None, 1_000));
    bench.commit();
    assert_eq!(rows(&bench), 0);
    bench.assert_quiet();
}

/// Goal: a hint comes home where every answer takes longer than the first one is awaited for. It was sent
/// again and again, and each answer was that of a hint that had been given up.
#[test]
fn slow_answers_are_waited_for() {
    let (mut bench, [a, ..]) = fallback(ShardConfig::test_min());
    store(&mut bench, a, &["k"]);
    let mut bench = bench.restart();
    for _ in 0..8 {
        let wait_us = bench.wakes_in_us().expect("a hint is left");
        let mut sent = sent_home(&bench.pass_us(wait_us));
        if let Some((_, op)) = sent.pop().map(|sent| (sent.0, sent.1)) {
            // The round trip: no answer, and maybe a new attempt meanwhile.
            bench.pass_ms(700);
            bench.hear(a, home(op, None, 0));
            bench.commit();
        }
        if bench.shard.counters().hints == 0 {
            return;
        }
    }
    panic!("the hint is still here");
}

/// Goal: refused and lost hints are sent again, later and later; a restart forgets none.
#[test]
fn hints_stay_until_they_are_home() {
    let (mut bench, [a, ..]) = fallback(ShardConfig::test_min());
    store(&mut bench, a, &["k"]);
    let mut bench = bench.restart();
    assert_eq!(bench.shard.counters().hints, 1);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let begun = bench.now.mono.0;
        let sent = loop {
            let wait_us = bench.wakes_in_us().expect("a hint is left");
            let sent = sent_home(&bench.pass_us(wait_us));
            if let Some(sent) = sent.into_iter().next() {
                break sent;
            }
        };
        pauses.push((bench.now.mono.0 - begun) / 1_000);
        bench.hear(a, home(sent.1, Some(Refusal::StoreFull), 0));
    }
    assert_eq!(pauses, [0, 100, 200, 400, 800, 800]);
    bench.pass_ms(800);
    let lost = bench.wakes_in_us().unwrap();
    assert_eq!(lost, 400_000, "it waits for an answer");
    assert_eq!(sent_home(&bench.pass_us(lost)).len(), 1);
    assert_eq!((bench.shard.counters().handoffs_lost, bench.shard.counters().hints), (1, 1));
}

/// Goal: a replica joins what was kept for it like any write, says so when it is durable, and grants
/// its share of the window: none while it is busy.
#[test]
fn a_replica_takes_its_hints() {
    let mut bench = Bench::new(&[(3, 3)]);
    let hand_off = |op: u64, key: &str| {
        PeerMessage::Hint(HintMessage::HandOff {
            op: OpId(op),
            partition: PARTITION,
            bucket: SIBLINGS,
            key: Bytes::from(key.to_owned()),
            object: foreign(ObjectKind::Siblings, op, "v"),
        })
    };
    assert_eq!(bench.hear(2, hand_off(7, "k")), []);
    let window = (ShardConfig::test_min().handoff_window_bytes / 3) as u32;
    assert_eq!(sends(&bench.commit()), [(nodes(&[2]), home(OpId(7), None, window))]);
    assert!(bench.stored("k").is_some());
    for _ in 0..=ShardConfig::test_min().in_flight_max / 2 {
        bench.ask(Request::Get(get("k", Level::All)));
    }
    bench.hear(2, hand_off(8, "k"));
    assert_eq!(sends(&bench.commit()), [(nodes(&[2]), home(OpId(8), None, 0))]);
    bench.hear(2, hand_off(9, "k2"));
    let effects = bench.fail_commit(StoreError::Full);
    let refused = home(OpId(9), Some(Refusal::StoreFull), 0);
    assert!(sends(&effects).contains(&(nodes(&[2]), refused)));
}

/// Goal: what is kept for a node that a layout takes out goes to a replica that is left, also where
/// there is a hint for that one already; nothing is sent to the one that is gone. Method: hints for
/// two replicas, one of which is removed; the other is back.
#[test]
fn hints_for_who_is_gone_go_to_another() {
    let (mut bench, [a, b, c]) = fallback(ShardConfig::test_min());
    store(&mut bench, a, &["of-a", "of-both"]);
    store(&mut bench, b, &["of-both"]);
    let before = bench.shard.cluster.layout.clone().unwrap();
    let mut spec = before.spec().clone();
    spec.version += 1;
    spec.nodes.retain(|node| node.id != NodeId(a));
    let layout = Arc::new(before.without(spec).unwrap());
    let cluster = ClusterState { layout: Some(layout), ..(*bench.shard.cluster).clone() };
    bench.input(Input::Cluster(Arc::new(cluster)));
    bench.pass_ms(0);
    bench.commit();
    let replicas = bench.disk.rows.keys().filter(|(table, _)| *table == Table::Hints);
    let replicas: Vec<u64> = replicas.map(|(_, key)| hint_key_parts(key).unwrap().0.0).collect();
    assert_eq!(replicas, [b, b], "c is {c}");
    assert_eq!(bench.shard.counters().hints, 2);
    bench.input(up(NodeId(b)));
    let home = sent_home(&bench.pass_ms(200));
    assert_eq!(home.iter().map(|(to, _, key)| (*to, key.as_str())).next(), Some((b, "of-a")));
}
