//! `holm explain`: what each replica says of a key.

use holm_protocol::admin::{Explanation, HintState, ReplicaState};

use super::*;

fn explain(bench: &mut Bench) -> Effects {
    let caller = Caller { lane: 1, request: 1 };
    let (bucket, key) = (SIBLINGS, Bytes::from_static(b"k"));
    bench.input(Input::Explain { caller, bucket, key })
}

fn explained(effects: &[Effect]) -> Option<Result<Explanation, RequestError>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Explained { result, .. } => Some(result.clone()),
        _ => None,
    })
}

fn inspected(effects: &[Effect]) -> (Vec<NodeId>, OpId) {
    match &sends(effects)[..] {
        [(to, PeerMessage::Inspect { op, .. })] => (to.clone(), *op),
        other => panic!("{other:?}"),
    }
}

fn state(digest: u64) -> ReplicaState {
    ReplicaState { digest, ..ReplicaState::default() }
}

fn reply(op: OpId, digest: u64) -> PeerMessage {
    PeerMessage::InspectReply { op, partition: PARTITION, state: state(digest) }
}

/// Goal: an explanation has what every replica that can be reached holds, each by its own word, and
/// names the fallbacks. Method: four nodes of which three are replicas; strangers speak too.
#[test]
fn an_explanation_has_every_replica() {
    let regions = [(4, 3)];
    let layout = layout(&regions, 0);
    let replicas = layout.replicas(PARTITION).to_vec();
    let fallback = (1..=4).map(NodeId).find(|node| !replicas.contains(node)).unwrap();
    let me = replicas[0];
    let mut bench = Bench::at(me, cluster(layout, &policy()), ShardConfig::test_min());
    bench.write("k", "value");
    bench.pass_ms(2_000);
    let effects = explain(&mut bench);
    let (mut to, op) = inspected(&effects);
    to.sort_unstable();
    let mut others = [&replicas[1..], &[fallback]].concat();
    others.sort_unstable();
    assert_eq!((to, bench.shard.counters().in_flight), (others, 1));
    assert_eq!(bench.hear(replicas[1].0, reply(op, 11)), []);
    assert_eq!(bench.hear(9, reply(op, 99)), []);
    assert_eq!(bench.peer_rejections(), 1);
    let hint = HintState { replica: replicas[1], bytes: 7, since_ms: 3 };
    let kept = ReplicaState { hints: vec![hint], ..ReplicaState::default() };
    let partition = PARTITION;
    let message = PeerMessage::InspectReply { op, partition, state: kept.clone() };
    assert_eq!(bench.hear(fallback.0, message), []);
    let effects = bench.hear(replicas[2].0, reply(op, 12));
    let explanation = explained(&effects).unwrap().unwrap();
    assert_eq!((explanation.partition, explanation.asked_by), (PARTITION, me));
    let of = |node| explanation.members.iter().find(|member| member.node == node).unwrap();
    let digests = replicas[1..].iter().map(|&node| of(node).state.as_ref().unwrap().digest);
    assert_eq!(digests.collect::<Vec<_>>(), [11, 12]);
    let own = of(me).state.clone().unwrap();
    let object = bench.stored("k").unwrap();
    assert_eq!((own.digest, own.fault), (object.digest(), None));
    let dot = Dot { actor: ACTOR, counter: 1 };
    assert_eq!((own.context, own.siblings[0].0, own.siblings[0].2), (vec![dot], dot, 5));
    assert_eq!(own.clock, [(dot, 0)]);
    assert_eq!((of(fallback).replica, &of(fallback).state), (false, &Some(kept)));
    assert_eq!(explanation.members.len(), 4);
    assert!(replicas.iter().all(|&node| of(node).replica));
    bench.assert_quiet();
    assert_eq!(bench.hear(replicas[1].0, reply(op, 11)), []);
}

/// Goal: who is down or silent is left out, and nobody waits long. Method: one down and one silent;
/// then nobody to ask.
#[test]
fn an_explanation_does_not_wait_for_ever() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.input(Input::PeerDown(NodeId(3)));
    let effects = explain(&mut bench);
    assert_eq!(inspected(&effects).0, nodes(&[2]));
    assert_eq!(bench.wakes_in_us(), Some(2_000_000));
    let explanation = explained(&bench.pass_ms(2_000)).unwrap().unwrap();
    let known: Vec<bool> = explanation.members.iter().map(|m| m.state.is_some()).collect();
    assert_eq!(known.iter().filter(|known| **known).count(), 1);
    bench.assert_quiet();
    bench.input(Input::PeerDown(NodeId(2)));
    assert!(explained(&explain(&mut bench)).is_some());
    bench.assert_quiet();
    bench.shard.config.in_flight_max = 0;
    let refused = explained(&explain(&mut bench)).unwrap();
    assert!(matches!(refused, Err(RequestError::Overloaded { .. })));
}

/// Goal: a replica describes itself to others: what it holds, how far its clock has come and how
/// much it has seen beyond a gap, or why it cannot. Method: a dot beyond a gap; amnesia.
#[test]
fn a_replica_describes_itself() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.hear(2, write_message(0, "k", foreign(ObjectKind::Siblings, 1, "v"), &[]));
    bench.hear(2, write_message(0, "other", foreign(ObjectKind::Siblings, 5, "w"), &[]));
    bench.commit();
    let ask = |bench: &mut Bench| {
        let (bucket, key) = (SIBLINGS, Bytes::from_static(b"k"));
        let message = PeerMessage::Inspect { op: OpId(4), partition: PARTITION, bucket, key };
        match &sends(&bench.hear(2, message))[..] {
            [(to, PeerMessage::InspectReply { op: OpId(4), state, .. })] if *to == nodes(&[2]) => {
                state.clone()
            }
            other => panic!("{other:?}"),
        }
    };
    let state = ask(&mut bench);
    assert_eq!(state.siblings.len(), 1);
    assert_eq!(state.clock, [(Dot { actor: OTHER, counter: 1 }, 1)]);
    bench.input(Input::Amnesia);
    assert_eq!(ask(&mut bench).fault, Some("Behind".to_owned()));
}
