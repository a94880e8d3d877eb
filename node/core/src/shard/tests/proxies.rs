//! Requests that come to a node which cannot coordinate them.

use holm_protocol::error::NotReady;

use super::*;

/// What was passed on: to whom, under which operation, and the request.
#[track_caller]
fn passed(effects: &[Effect]) -> (NodeId, OpId, Request) {
    match &sends(effects)[..] {
        [(to, PeerMessage::Proxy { op, request, .. })] if to.len() == 1 => {
            (to[0], *op, request.clone())
        }
        other => panic!("{other:?}"),
    }
}

fn answer(op: OpId, error: RequestError) -> PeerMessage {
    PeerMessage::ProxyReply { op, partition: PARTITION, reply: Reply::Error(error) }
}

/// Nothing happened, and another node may do it.
fn elsewhere(op: OpId) -> PeerMessage {
    answer(op, RequestError::NotReady { reason: NotReady::Starting })
}

fn put(bench: &mut Bench) -> Put {
    bench.put("k", "value", Level::Quorum)
}

/// Goal: a request goes to one replica and its answer back to who asked, whatever it is. Method: a
/// put and a get, with answers of another node than was asked in between.
#[test]
fn a_request_is_passed_on_and_its_answer_back() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    let request = put(&mut bench);
    let (caller, effects) = bench.ask(Request::Put(request.clone()));
    let (target, op, sent) = passed(&effects);
    assert_eq!(sent, Request::Put(Put { timeout_ms: 1_000, ..request }));
    let counters = bench.shard.counters();
    assert_eq!((counters.in_flight, counters.proxied, bench.shard.held_bytes), (1, 1, 5));
    let other = bench.shard.cluster.layout.as_ref().unwrap().replicas(PARTITION).iter().copied();
    let other = other.into_iter().find(|&node| node != target).unwrap();
    assert_eq!(bench.hear(other.0, elsewhere(op)), []);
    assert_eq!(bench.peer_rejections(), 1);
    let refused = RequestError::ContextRequired;
    let effects = bench.hear(target.0, answer(op, refused.clone()));
    assert_eq!((error(reply_to(&effects, caller)), effects.len()), (refused, 1));
    bench.assert_quiet();
    assert_eq!(bench.hear(target.0, elsewhere(op)), [], "twice");
    assert_eq!(bench.peer_rejections(), 1);

    let (caller, effects) = bench.ask(Request::Get(get("k", Level::Quorum)));
    let (target, op, _) = passed(&effects);
    assert_eq!(bench.shard.held_bytes, 0);
    let effects = bench.hear(target.0, answer(op, RequestError::ContextRequired));
    assert!(reply_to(&effects, caller).is_some());
    bench.assert_quiet();
    // A delete goes the same way.
    let delete = bench.delete("k", Bytes::from_static(b"c"), Level::Quorum);
    let (_, effects) = bench.ask(Request::Delete(delete.clone()));
    assert_eq!(passed(&effects).2, Request::Delete(Delete { timeout_ms: 1_000, ..delete }));
}

/// Goal: replicas of the own region are asked first, then the region that answers soonest. Method:
/// a region of strangers and two regions; round trips learnt beforehand.
#[test]
fn the_nearest_replica_is_asked() {
    let mut bench = Bench::stranger(&[(3, 2), (1, 1)]);
    let mut near = Vec::new();
    for _ in 0..3 {
        let (_, effects) = bench.ask(Request::Get(get("k", Level::One)));
        let target = passed(&effects).0;
        near.push(target.0);
        bench.input(Input::PeerDown(target));
    }
    assert!(near[0] <= 3 && near[1] <= 3 && near[2] == 4, "{near:?}");

    // Node 1 becomes amnesiac: it passes on to regions whose times it knows.
    let mut bench = Bench::new(&[(1, 1), (1, 1), (1, 1)]);
    let asked = bench.now.mono;
    bench.shard.peers.answered(NodeId(2), asked, asked.plus_ms(80));
    bench.shard.peers.answered(NodeId(3), asked, asked.plus_ms(20));
    bench.input(Input::Amnesia);
    let (_, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert_eq!(passed(&effects).0, NodeId(3));
}

/// Goal: who refuses without having done anything is followed by the next, with the time that is
/// left; the last refusal is the answer; where the write may have happened nobody else is asked.
/// Method: refusals one after the other.
#[test]
fn refusals_lead_to_the_next() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    let request = put(&mut bench);
    let (caller, effects) = bench.ask(Request::Put(request));
    let (first, op, _) = passed(&effects);
    bench.now.mono.0 += 400_000;
    let effects = bench.hear(first.0, elsewhere(op));
    let (second, op, sent) = passed(&effects);
    let Request::Put(Put { timeout_ms: 600, .. }) = sent else { panic!("{sent:?}") };
    let effects = bench.hear(second.0, elsewhere(op));
    let (third, op, _) = passed(&effects);
    assert!(first != second && second != third && third != first);
    let effects = bench.hear(third.0, elsewhere(op));
    let starting = RequestError::NotReady { reason: NotReady::Starting };
    assert_eq!(error(reply_to(&effects, caller)), starting);
    bench.assert_quiet();

    for (refusal, final_answer) in [
        (RequestError::WriteUnknown { needed: 2, durable: 1 }, true),
        (RequestError::Overloaded { in_flight: 1, limit: 1, retry_after_ms: 1 }, true),
        (RequestError::WriteUnavailable { needed: 2, reachable: 1 }, false),
    ] {
        let request = put(&mut bench);
        let (caller, effects) = bench.ask(Request::Put(request));
        let (target, op, _) = passed(&effects);
        let effects = bench.hear(target.0, answer(op, refusal.clone()));
        assert_eq!(reply_to(&effects, caller).is_some(), final_answer, "{refusal:?}");
    }
}

/// Goal: a write whose coordinator is lost may have happened, and goes nowhere else (P9, P10); a
/// read goes to the next. Method: lose the connection to who was asked, and to others.
#[test]
fn a_lost_coordinator_is_unknown_for_writes() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    let request = put(&mut bench);
    let (caller, effects) = bench.ask(Request::Put(request));
    let (target, ..) = passed(&effects);
    let replicas = bench.shard.cluster.layout.as_ref().unwrap().replicas(PARTITION).to_vec();
    let other = replicas.into_iter().find(|&node| node != target).unwrap();
    assert_eq!(bench.input(Input::PeerDown(other)), []);
    let effects = bench.input(Input::PeerDown(target));
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
    bench.assert_quiet();
    bench.input(up(target));
    bench.input(up(other));

    let (caller, effects) = bench.ask(Request::Get(get("k", Level::One)));
    let mut lost = passed(&effects).0;
    for _ in 0..2 {
        lost = passed(&bench.input(Input::PeerDown(lost))).0;
    }
    let effects = bench.input(Input::PeerDown(lost));
    let unavailable = RequestError::ReadUnavailable { needed: 1, answered: 0 };
    assert_eq!(error(reply_to(&effects, caller)), unavailable);
    bench.assert_quiet();

    let request = put(&mut bench);
    let (caller, effects) = bench.ask(Request::Put(request));
    let unavailable = RequestError::WriteUnavailable { needed: 1, reachable: 0 };
    assert_eq!(error(reply_to(&effects, caller)), unavailable);
    bench.assert_quiet();
}

/// Goal: a repeated write goes to the coordinator that it went to before, over the same connection,
/// or nowhere: another would give it a second dot (P10). Method: repeat it, then lose and regain
/// the connection and repeat it; change it and repeat it.
#[test]
fn a_repeated_write_goes_where_it_went() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    let request = put(&mut bench);
    let (_, effects) = bench.ask(Request::Put(request.clone()));
    let (target, op, _) = passed(&effects);
    bench.hear(target.0, answer(op, RequestError::WriteUnknown { needed: 2, durable: 1 }));
    let (caller, effects) = bench.ask(Request::Put(request.clone()));
    let (again, op, _) = passed(&effects);
    assert_eq!(again, target);
    // Its refusal is an answer: nobody else is asked.
    let effects = bench.hear(target.0, elsewhere(op));
    assert!(reply_to(&effects, caller).is_some());
    bench.assert_quiet();

    let other = Put { value: Bytes::from_static(b"else"), ..request.clone() };
    let (caller, effects) = bench.ask(Request::Put(other));
    let RequestId { client, sequence } = request.request;
    let reused = RequestError::RequestIdReused { client, sequence };
    assert_eq!(error(reply_to(&effects, caller)), reused);

    bench.input(Input::PeerDown(target));
    let (caller, effects) = bench.ask(Request::Put(request.clone()));
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
    bench.input(up(target));
    let (caller, effects) = bench.ask(Request::Put(request));
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
    bench.assert_quiet();
}

/// Goal: of a repeated write whose coordinator cannot be reached nobody says that nothing happened.
/// Method: the connection goes while the repetition is on its way back from a refusal.
#[test]
fn a_repeated_write_is_not_refused_as_undone() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    let request = put(&mut bench);
    let (_, effects) = bench.ask(Request::Put(request.clone()));
    let (target, op, _) = passed(&effects);
    bench.hear(target.0, answer(op, RequestError::WriteUnknown { needed: 2, durable: 1 }));
    let (caller, _) = bench.ask(Request::Put(request));
    let effects = bench.input(Input::PeerDown(target));
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
}

/// Goal: a read that hears nothing for half of its time asks someone else, once, and takes the
/// first answer of either, but no late refusal; a write waits to the end. Method: silence.
#[test]
fn a_silent_coordinator_is_hedged_for_reads() {
    let mut bench = Bench::stranger(&[(3, 2)]);
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::One)));
    let (first, op, _) = passed(&effects);
    assert_eq!(bench.wakes_in_us(), Some(500_000));
    let effects = bench.pass_ms(500);
    let (second, same, sent) = passed(&effects);
    assert!(second != first && same == op);
    let Request::Get(Get { timeout_ms: 500, .. }) = sent else { panic!("{sent:?}") };
    assert_eq!(bench.wakes_in_us(), Some(250_000));
    assert_eq!(bench.pass_ms(250), [], "nobody is left");
    assert_eq!(bench.wakes_in_us(), Some(250_000), "until the deadline");
    assert_eq!(bench.hear(first.0, elsewhere(op)), [], "a late refusal");
    assert_eq!(bench.peer_rejections(), 1);
    let stranger = PeerMessage::ProxyReply { op, partition: PARTITION, reply: values() };
    assert_eq!(bench.hear(99, stranger.clone()), []);
    assert_eq!(bench.peer_rejections(), 2);
    let effects = bench.hear(first.0, stranger);
    assert_eq!(reply_to(&effects, caller), Some(values()));
    bench.assert_quiet();

    let (caller, effects) = bench.ask(Request::Get(get("k", Level::One)));
    passed(&effects);
    bench.pass_ms(500);
    bench.pass_ms(250);
    let unavailable = RequestError::ReadUnavailable { needed: 1, answered: 0 };
    assert_eq!(error(reply_to(&bench.pass_ms(250), caller)), unavailable);
    bench.assert_quiet();

    let request = put(&mut bench);
    let (caller, _) = bench.ask(Request::Put(request));
    assert_eq!(bench.wakes_in_us(), Some(1_000_000));
    let effects = bench.pass_ms(1_000);
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
    bench.assert_quiet();
}

fn values() -> Reply {
    let receipt = holm_protocol::message::Receipt {
        coordinator: NodeId(2),
        level: Level::One,
        replicas: vec![],
    };
    Reply::Values(Values { siblings: vec![], context: Bytes::new(), receipt })
}

/// Goal: a write's answer counts only from who was asked last: another may be doing it. Method: the
/// first refuses, the second is asked, the first speaks again.
#[test]
fn a_write_hears_only_its_coordinator() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    let request = put(&mut bench);
    let (caller, effects) = bench.ask(Request::Put(request));
    let (first, op, _) = passed(&effects);
    let (second, ..) = passed(&bench.hear(first.0, elsewhere(op)));
    assert_eq!(bench.hear(first.0, elsewhere(op)), []);
    assert_eq!(bench.peer_rejections(), 1);
    assert!(
        reply_to(&bench.hear(second.0, answer(op, RequestError::ContextRequired)), caller)
            .is_some()
    );
}

/// Goal: a request is passed on once; a node that is asked by another and cannot coordinate says
/// why. Method: a stranger to the key, and a replica without its memory.
#[test]
fn a_request_is_passed_on_once() {
    let reason = |bench: &mut Bench| {
        let request = Request::Get(get("k", Level::One));
        let message = PeerMessage::Proxy { op: OpId(5), partition: PARTITION, request };
        let effects = bench.hear(2, message);
        match &sends(&effects)[..] {
            [(to, PeerMessage::ProxyReply { op: OpId(5), reply, .. })] if *to == nodes(&[2]) => {
                error(Some(reply.clone()))
            }
            other => panic!("{other:?}"),
        }
    };
    let mut stranger = Bench::stranger(&[(4, 3)]);
    let not_ready = |reason| RequestError::NotReady { reason };
    assert_eq!(reason(&mut stranger), not_ready(NotReady::NotInLayout));
    stranger.input(Input::Amnesia);
    assert_eq!(reason(&mut stranger), not_ready(NotReady::NotInLayout));
    let mut replica = Bench::new(&[(3, 3)]);
    replica.input(Input::Amnesia);
    assert_eq!(reason(&mut replica), not_ready(NotReady::Behind));
    let put = replica.put("k", "v", Level::One);
    let message =
        PeerMessage::Proxy { op: OpId(6), partition: PARTITION, request: Request::Put(put) };
    assert_eq!(sends(&replica.hear(2, message)).len(), 1);
    replica.assert_quiet();
}

/// Goal: a request of another node is coordinated like a client's, and its answer goes there, after
/// the commit. Method: a put at one through another node, and one whose batch is lost.
#[test]
fn a_replica_coordinates_for_others() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::One);
    let request = Request::Put(put);
    let message = PeerMessage::Proxy { op: OpId(5), partition: PARTITION, request };
    assert_eq!(writes(&bench.hear(2, message)).len(), 1);
    let sent = sends(&bench.commit());
    let [(to, PeerMessage::ProxyReply { op: OpId(5), reply: Reply::Written(_), .. })] = &sent[..]
    else {
        panic!("{sent:?}")
    };
    assert_eq!(to, &nodes(&[2]));
}

/// Goal: an overloaded node passes nothing on. Method: no room.
#[test]
fn passing_on_takes_room() {
    let mut bench = Bench::stranger(&[(4, 3)]);
    bench.shard.config.in_flight_max = 0;
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert!(matches!(error(reply_to(&effects, caller)), RequestError::Overloaded { .. }));
}
