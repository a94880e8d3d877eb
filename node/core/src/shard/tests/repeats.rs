//! Requests that come again under their request id: applied once (P10).

use super::*;

/// Goal: a repeated write in flight is one write with two who wait, and after its end it gives the
/// same answer. Method: ask, ask again before and after the quorum.
#[test]
fn a_repeated_write_is_one_write() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::Quorum);
    let (first, effects) = bench.ask(Request::Put(put.clone()));
    let op = writes(&effects)[0].1;
    bench.commit();
    let (second, effects) = bench.ask(Request::Put(put.clone()));
    assert_eq!(effects, []);
    let effects = bench.hear(2, durable(op, &[2]));
    let answers = [first, second].map(|caller| written(&reply_to(&effects, caller).unwrap()));
    assert_eq!(answers[0], answers[1]);
    let (third, effects) = bench.ask(Request::Put(put));
    assert_eq!(written(&reply_to(&effects, third).unwrap()), answers[0]);
    let counters = bench.shard.counters();
    assert_eq!((counters.writes_coordinated, counters.repeated_requests), (1, 2));
    assert_eq!(counters.in_flight, 0);
}

/// Goal: a few who lost patience may wait for one write; more are told that its end is not known to
/// them. Method: eight of them, and a ninth.
#[test]
fn those_who_wait_are_few() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::Quorum);
    let (_, effects) = bench.ask(Request::Put(put.clone()));
    let op = writes(&effects)[0].1;
    let mut waiting = Vec::new();
    for _ in 0..7 {
        let (caller, effects) = bench.ask(Request::Put(put.clone()));
        assert_eq!(effects, []);
        waiting.push(caller);
    }
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
    bench.commit();
    let effects = bench.hear(2, durable(op, &[2]));
    assert_eq!(effects.len(), 8);
    assert!(waiting.into_iter().all(|caller| reply_to(&effects, caller).is_some()));
}

/// Goal: a request id names one write. Method: the same id with any part changed; a put of nothing
/// and a delete of the same are two.
#[test]
fn another_write_under_the_same_id_is_an_error() {
    let mut bench = Bench::new(&[(1, 1)]);
    let context = bench.write("k", "before").context;
    let put = Put { context: context.clone(), ..bench.put("k", "", Level::One) };
    bench.write_as(put.clone());
    let Put { bucket, key, level, request, timeout_ms, .. } = put.clone();
    let delete = Delete { bucket, key, context, level, request, timeout_ms };
    let others = [
        Request::Put(Put { value: Bytes::from_static(b"x"), ..put.clone() }),
        Request::Put(Put { level: Some(Level::Quorum), ..put.clone() }),
        Request::Put(Put { level: None, ..put.clone() }),
        Request::Put(Put { context: Bytes::new(), ..put.clone() }),
        Request::Put(Put { key: Bytes::from_static(b"other"), ..put.clone() }),
        Request::Put(Put { bucket: LWW, ..put.clone() }),
        Request::Delete(delete),
    ];
    for other in others {
        let (caller, effects) = bench.ask(other.clone());
        let RequestId { client, sequence } = put.request;
        let reused = RequestError::RequestIdReused { client, sequence };
        assert_eq!(error(reply_to(&effects, caller)), reused, "{other:?}");
    }
    let (caller, effects) = bench.ask(Request::Put(Put { timeout_ms: 77, ..put }));
    assert!(matches!(reply_to(&effects, caller), Some(Reply::Written(_))));
    assert_eq!(bench.shard.counters().writes_coordinated, 2);
}

/// Goal: a write that missed its level can be driven again: same dot, new votes, what the key holds
/// now is sent. Method: miss a quorum, write something else, repeat, let it be acknowledged.
#[test]
fn an_unknown_write_is_driven_again() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::Quorum);
    let (caller, _) = bench.ask(Request::Put(put.clone()));
    bench.commit();
    let unknown = error(reply_to(&bench.pass_ms(1_000), caller));
    assert_eq!(unknown, RequestError::WriteUnknown { needed: 2, durable: 1 });
    bench.write("k", "later");
    bench.pass_ms(1_000);
    bench.assert_quiet();

    let (caller, effects) = bench.ask(Request::Put(put.clone()));
    let [(_, PeerMessage::Write { op, object, .. })] = &sends(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(Object::decode(object).unwrap().siblings().len(), 2);
    assert_eq!(bench.commit(), []);
    let effects = bench.hear(3, durable(*op, &[3]));
    let answer = written(&reply_to(&effects, caller).unwrap());
    assert_eq!(answer.dot, Dot { actor: ACTOR, counter: 1 });
    // What else the run wrote is not the writer's to overwrite.
    assert_eq!(bench.opened("k", &answer.context), VersionVector::new());
    assert_eq!(bench.shard.counters().writes_coordinated, 2);
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(written(&reply_to(&effects, caller).unwrap()), answer);
}

/// Goal: an overloaded node does not drive a write again either. Method: no room.
#[test]
fn driving_again_takes_room() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::Quorum);
    bench.ask(Request::Put(put.clone()));
    bench.commit();
    bench.pass_ms(1_000);
    bench.shard.config.in_flight_max = 0;
    let (caller, effects) = bench.ask(Request::Put(put));
    assert!(matches!(error(reply_to(&effects, caller)), RequestError::Overloaded { .. }));
}

/// Goal: a write lost with its batch is not told as done when it comes again. Method: fail the
/// commit, resume, repeat.
#[test]
fn what_was_lost_with_its_batch_stays_unknown() {
    let mut bench = Bench::new(&[(1, 1)]);
    let put = bench.put("k", "v", Level::One);
    let (caller, _) = bench.ask(Request::Put(put.clone()));
    let effects = bench.fail_commit(StoreError::Full);
    let unknown = RequestError::WriteUnknown { needed: 1, durable: 0 };
    assert_eq!(error(reply_to(&effects, caller)), unknown);
    bench.shard.resume(Actor(0xc3));
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(error(reply_to(&effects, caller)), RequestError::CoordinatorLost);
}

/// Goal: a disk whose commit failed vouches for nothing, also when what failed can be read: a repeat
/// of the write is acknowledged by others or not at all. Found by cutting the power of real
/// machines: the last step of a commit failed, the write was there to be read, the repeat was
/// acknowledged, and the next start did not find it. Method: fail a commit that shows, repeat.
#[test]
fn a_failed_disk_does_not_vouch_for_repeats() {
    for (nodes, level) in [(1, Level::One), (3, Level::Quorum)] {
        let mut bench = Bench::new(&[(nodes, nodes as u8)]);
        let put = bench.put("k", "v", level);
        bench.ask(Request::Put(put.clone()));
        bench.disk.failed_shows = true;
        bench.fail_commit(StoreError::Io("the last step".to_owned()));
        // Nobody else answers, so the others do not decide it either.
        bench.pass_ms(1_000);
        let (caller, effects) = bench.ask(Request::Put(put));
        if nodes == 1 {
            let unknown = RequestError::WriteUnknown { needed: 1, durable: 0 };
            assert_eq!(error(reply_to(&effects, caller)), unknown);
            continue;
        }
        assert_eq!(reply_to(&bench.commit(), caller), None);
        let Effect::Send { message: PeerMessage::Write { op, .. }, .. } = &effects[0] else {
            panic!("{effects:?}");
        };
        assert_eq!(reply_to(&bench.hear(2, durable(*op, &[2])), caller), None);
        let effects = bench.hear(3, durable(*op, &[3]));
        let answer = written(&reply_to(&effects, caller).unwrap());
        let named: Vec<NodeId> = answer.receipt.replicas.iter().map(|entry| entry.node).collect();
        assert_eq!(named, [NodeId(2), NodeId(3)]);
    }
}

/// Goal: the window forgets after its time, and not before. Method: repeat just before and at it.
#[test]
fn the_window_ends() {
    for (after_us, again) in [(1_999_999, true), (2_000_000, false)] {
        let mut bench = Bench::new(&[(1, 1)]);
        let put = bench.put("k", "v", Level::One);
        let first = bench.write_as(put.clone());
        bench.pass_us(after_us);
        // Room is made when something new is remembered.
        bench.write("other", "v");
        let second = match bench.ask(Request::Put(put)) {
            (caller, effects) if again => written(&reply_to(&effects, caller).unwrap()),
            (caller, _) => written(&reply_to(&bench.commit(), caller).unwrap()),
        };
        assert_eq!(first.dot == second.dot, again);
    }
}
