//! Fallbacks in a write: who is asked, when, for whom, and what their votes are worth.

use super::*;

/// Five nodes of which three are replicas; the bench is the first replica.
struct Region {
    bench: Bench,
    /// The other replicas.
    replicas: [u64; 2],
    /// The other nodes, in the order of preference.
    fallbacks: [u64; 2],
}

fn region_with(policy: &BucketPolicy) -> Region {
    let cluster = cluster(layout(&[(5, 3)], 0), policy);
    let list = cluster.layout.as_ref().unwrap().preference_list(PARTITION, RegionId(0));
    let bench = Bench::at(list[0], cluster, ShardConfig::test_min());
    Region { bench, replicas: [list[1].0, list[2].0], fallbacks: [list[3].0, list[4].0] }
}

fn region() -> Region {
    region_with(&policy())
}

/// Who is asked to keep something, for whom, in which operation.
pub(super) fn keeps(effects: &[Effect]) -> Vec<(u64, u64, OpId)> {
    let keep = |(to, message): (Vec<NodeId>, PeerMessage)| match message {
        PeerMessage::Hint(HintMessage::Keep { op, replica, .. }) => Some((to[0].0, replica.0, op)),
        _ => None,
    };
    sends(effects).into_iter().filter_map(keep).collect()
}

pub(super) fn kept(op: OpId, replica: u64, refused: Option<Refusal>) -> PeerMessage {
    let replica = NodeId(replica);
    PeerMessage::Hint(HintMessage::Kept { op, partition: PARTITION, replica, refused })
}

/// Nodes of a receipt, and whether each stood in for another.
pub(super) fn receipt(answer: &Written) -> Vec<(u64, bool)> {
    answer.receipt.replicas.iter().map(|entry| (entry.node.0, entry.fallback)).collect()
}

/// Goal: a replica that is down is replaced at once by the most preferred other node, whose vote
/// counts for it, and which the receipt names. Nothing of it happens at other levels.
#[test]
fn who_is_down_is_replaced() {
    let Region { mut bench, replicas: [a, b], fallbacks: [f, g] } = region();
    for node in [a, b] {
        bench.input(Input::PeerDown(NodeId(node)));
    }
    for level in [Level::Quorum, Level::All, Level::Count(2)] {
        let put = bench.put("k", "v", level);
        let (caller, effects) = bench.ask(Request::Put(put));
        let refused = error(reply_to(&effects, caller));
        assert!(matches!(refused, RequestError::WriteUnavailable { reachable: 1, .. }), "{level}");
    }
    let put = bench.put("k", "v", Level::LocalQuorum);
    let (caller, effects) = bench.ask(Request::Put(put));
    let asked = keeps(&effects);
    let op = asked[0].2;
    assert_eq!(asked, [(f, a, op), (g, b, op)]);
    assert_eq!(bench.commit(), []);
    // Nobody votes but who was asked, and for whom it was.
    for (from, replica) in [(f, b), (g, a), (f, f), (a, a)] {
        assert_eq!(bench.hear(from, kept(op, replica, None)), []);
    }
    assert_eq!(bench.peer_rejections(), 4);
    let effects = bench.hear(g, kept(op, b, None));
    let answer = written(&reply_to(&effects, caller).unwrap());
    assert_eq!(receipt(&answer), [(bench.me.0, false), (g, true)]);
    assert_eq!(bench.hear(f, kept(op, a, None)), []);
    assert_eq!(bench.shard.counters().writes_unhinted, 0);
    bench.assert_quiet();
}

/// Goal: a fallback that refuses is followed by the next, one that is lost too; when none is left
/// the write is unknown, and the error says if room for hints would have helped.
#[test]
fn fallbacks_follow_each_other() {
    for last in [Refusal::HintsFull, Refusal::Unreachable] {
        let Region { mut bench, replicas: [a, b], fallbacks: [f, g] } = region();
        bench.input(Input::PeerDown(NodeId(a)));
        let put = bench.put("k", "v", Level::LocalQuorum);
        let (caller, effects) = bench.ask(Request::Put(put));
        let op = keeps(&effects)[0].2;
        bench.commit();
        let effects = bench.hear(f, kept(op, a, Some(Refusal::StoreFull)));
        assert_eq!(keeps(&effects), [(g, a, op)]);
        let effects = match last {
            Refusal::Unreachable => bench.input(Input::PeerDown(NodeId(g))),
            last => bench.hear(g, kept(op, a, Some(last))),
        };
        assert_eq!(effects, [], "the other replica has not answered");
        // Not one that a fallback could cure.
        let refused = vec![(NodeId(b), Refusal::TooLarge)];
        let partition = PARTITION;
        let message = PeerMessage::WriteReply { op, partition, durable: vec![], refused };
        let effects = bench.hear(b, message);
        match (last, error(reply_to(&effects, caller))) {
            (Refusal::HintsFull, RequestError::HintsFull { needed: 2, durable: 1 }) => {}
            (Refusal::Unreachable, RequestError::WriteUnknown { needed: 2, durable: 1 }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.shard.counters().writes_unhinted, 0, "it was not acknowledged");
        bench.assert_quiet();
    }
}

/// Goal: a replica that says nothing for long, or refuses for a reason of its own, is replaced; its
/// own vote, should it come, is not a second one.
#[test]
fn who_is_late_or_refuses_is_replaced() {
    let Region { mut bench, replicas: [a, b], fallbacks: [f, g] } = region();
    let put = bench.put("k", "v", Level::LocalQuorum);
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(keeps(&effects), []);
    let op = writes(&effects)[0].1;
    let me = bench.me.0;
    assert_eq!(keeps(&bench.fail_commit(StoreError::Full)), [(f, me, op)], "its own disk refuses");
    assert_eq!(keeps(&bench.hear(a, refusal(op, a))), [(g, a, op)]);
    assert_eq!(bench.hear(f, kept(op, me, None)), []);
    assert_eq!(bench.hear(a, durable(op, &[a])).len(), 1, "it took it after all");
    let effects = bench.hear(g, kept(op, a, None));
    assert_eq!(reply_to(&effects, caller), None, "answered before");
    assert_eq!(bench.pass_ms(60), []);
    let _ = bench.hear(b, durable(op, &[b]));
    bench.assert_quiet();

    let Region { mut bench, replicas: [a, b], fallbacks: [f, g] } = region();
    let put = bench.put("k", "v", Level::LocalQuorum);
    let (caller, effects) = bench.ask(Request::Put(put));
    let op = writes(&effects)[0].1;
    bench.commit();
    assert_eq!(bench.pass_ms(59), []);
    let effects = bench.pass_ms(1);
    assert_eq!(keeps(&effects), [(f, a, op), (g, b, op)]);
    let effects = bench.hear(f, kept(op, a, None));
    let answer = written(&reply_to(&effects, caller).unwrap());
    assert_eq!(receipt(&answer), [(bench.me.0, false), (f, true)]);
    assert_eq!(bench.hear(a, durable(op, &[a])), []);
    assert_eq!(bench.hear(b, durable(op, &[b])), []);
    bench.assert_quiet();
}

/// Goal: `strict` turns it off.
#[test]
fn a_strict_bucket_has_no_fallbacks() {
    let policy = BucketPolicy { strict: true, ..policy() };
    let Region { mut bench, replicas, .. } = region_with(&policy);
    for node in replicas {
        bench.input(Input::PeerDown(NodeId(node)));
    }
    let put = bench.put("k", "v", Level::LocalQuorum);
    let (caller, effects) = bench.ask(Request::Put(put));
    let refused = RequestError::WriteUnavailable { needed: 2, reachable: 1 };
    assert_eq!(error(reply_to(&effects, caller)), refused);
    let put = bench.put("k", "v", Level::One);
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(keeps(&effects), []);
    assert!(reply_to(&bench.commit(), caller).is_some());
    assert_eq!(bench.shard.counters().writes_unhinted, 1, "left to repair");
}
