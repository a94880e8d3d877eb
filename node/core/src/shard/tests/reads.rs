//! The coordinator's side of gets: whom it asks for what, when it asks more, what it answers, and
//! whom it repairs.

use super::*;

/// A read at a level: its caller, its operation, and whom it asked first for what.
fn ask(bench: &mut Bench, level: Level) -> (Caller, OpId, Vec<(Vec<NodeId>, Want)>) {
    let (caller, effects) = bench.ask(Request::Get(get("k", level)));
    let asked = questions(&effects);
    assert_eq!(reply_to(&effects, caller), None);
    let op = asked.first().map_or(OpId(0), |(_, op, _)| *op);
    (caller, op, asked.into_iter().map(|(to, _, want)| (to, want)).collect())
}

/// The object under `k` here, as another replica would send it.
fn own(bench: &Bench) -> Object {
    bench.stored("k").unwrap()
}

/// Writes `k` and lets it be acknowledged everywhere.
fn seeded(regions: &[(u64, u8)]) -> Bench {
    let mut bench = Bench::new(regions);
    bench.write("k", "red");
    bench.pass_ms(2_000);
    bench.assert_quiet();
    bench
}

/// Goal: an equal digest is an answer. Method: three replicas, one other is asked.
#[test]
fn a_digest_completes_a_quorum() {
    let mut bench = seeded(&[(3, 3)]);
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    let [(to, want)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((to.len(), *want, bench.shard.counters().in_flight), (1, Want::Digest, 1));
    let digest = own(&bench).digest();
    let effects = bench.hear(to[0].0, found(op, Found::Digest(digest)));
    let Some(Reply::Values(values)) = reply_to(&effects, caller) else { panic!("{effects:?}") };
    assert_eq!((effects.len(), texts(&values)), (1, vec!["red".to_owned()]));
    assert_eq!(behind(&values.receipt), [NodeId(1), to[0]]);
    assert_eq!(bench.opened("k", &values.context), own(&bench).context);
    bench.assert_quiet();
    assert_eq!(bench.shard.counters().reads_coordinated, 1);
    assert_eq!(bench.shard.counters().read_repairs, 0);
}

/// Goal: near replicas take turns. Method: which of the others is asked, over many reads.
#[test]
fn near_replicas_take_turns() {
    let mut bench = seeded(&[(3, 3)]);
    let mut times = [0; 4];
    for _ in 0..40 {
        let (_, op, asked) = ask(&mut bench, Level::Quorum);
        times[asked[0].0[0].0 as usize] += 1;
        let digest = own(&bench).digest();
        bench.hear(asked[0].0[0].0, found(op, Found::Digest(digest)));
    }
    assert_eq!(times[2] + times[3], 40);
    assert!(times[2] >= 8 && times[3] >= 8, "{times:?}");
}

/// Goal: the own object always counts: it costs nothing. Method: the node with the highest number,
/// which loses every tie, many reads.
#[test]
fn the_own_object_is_always_taken() {
    let cluster = cluster(layout(&[(3, 3)], 0), &policy());
    let config = ShardConfig { in_flight_max: 1_000, ..ShardConfig::test_min() };
    let mut bench = Bench::at(NodeId(3), cluster, config);
    for _ in 0..600 {
        let asked = ask(&mut bench, Level::Quorum).2;
        assert!(matches!(asked[..], [(_, Want::Digest)]), "{asked:?}");
    }
}

/// Goal: as soon as those who were asked cannot be enough any more, all others are asked, although
/// an answer is still awaited. Method: one of two refuses, three are needed.
#[test]
fn a_refusal_is_made_good_at_once() {
    let mut bench = seeded(&[(5, 5)]);
    let (_, op, asked) = ask(&mut bench, Level::Quorum);
    let refuses = asked[0].0[0].0;
    let effects = bench.hear(refuses, found(op, Found::Refused(Refusal::Corrupt)));
    let [(to, same, want)] = &questions(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((to.len(), *same, *want), (2, op, Want::Full));
}

/// Goal: what overwrote a late value is not shown before it is durable: until then the key is as it
/// as it was, and the answer waits. Method: the overwriting is in the open batch when the late value is
/// found.
#[test]
fn what_overwrites_is_shown_when_it_is_durable() {
    let mut bench = Bench::new(&[(3, 3)]);
    let old = foreign(ObjectKind::Siblings, 1, "old");
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    bench.hear(2, write_message(0, "k", old.clone(), &[]));
    bench.commit();
    let context = bench.read("k").context;
    let put = Put { context, ..bench.put("k", "new", Level::One) };
    bench.ask(Request::Put(put));
    let other = asked[0].0[0].0;
    let digest = Object::decode(&old).unwrap().digest();
    bench.hear(other, found(op, Found::Digest(digest)));
    let effects = bench.hear(other, found(op, Found::Object(old)));
    assert_eq!(reply_to(&effects, caller), None);
    assert_eq!(shown(reply_to(&bench.commit(), caller)), ["new"]);
}

/// Goal: the own region is asked first, then the region that answers soonest. Method: three
/// regions; the nearest is learnt from reads at all.
#[test]
fn the_nearest_are_asked() {
    let mut bench = seeded(&[(2, 2), (1, 1), (1, 1)]);
    assert_eq!(ask(&mut bench, Level::Count(2)).2, [(nodes(&[2]), Want::Digest)], "not known yet");
    bench.pass_ms(2_000);
    let (_, op, asked) = ask(&mut bench, Level::All);
    assert_eq!(asked.len(), 3);
    let digest = own(&bench).digest();
    bench.pass_us(700);
    bench.hear(2, found(op, Found::Digest(digest)));
    bench.pass_us(20_000);
    bench.hear(4, found(op, Found::Digest(digest)));
    bench.pass_us(20_000);
    bench.hear(3, found(op, Found::Digest(digest)));
    bench.assert_quiet();
    assert_eq!(ask(&mut bench, Level::Count(2)).2, [(nodes(&[2]), Want::Digest)]);
    let asked = ask(&mut bench, Level::Count(3)).2;
    assert_eq!(asked, [(nodes(&[2]), Want::Digest), (nodes(&[4]), Want::Digest)]);
    bench.input(Input::PeerDown(NodeId(2)));
    let asked = ask(&mut bench, Level::Count(3)).2;
    assert_eq!(asked, [(nodes(&[4]), Want::Digest), (nodes(&[3]), Want::Digest)]);
}

/// Goal: another digest means another state: it is fetched, merged into the answer, and who lacks
/// it is repaired after the answer. Method: the other replica has a newer value.
#[test]
fn a_difference_is_fetched_and_repaired() {
    let mut bench = seeded(&[(3, 3)]);
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    let other = asked[0].0[0].0;
    let mut newer = own(&bench);
    newer.put(&VersionVector::new(), sibling(1, "blue"));
    let effects = bench.hear(other, found(op, Found::Digest(newer.digest())));
    assert_eq!(questions(&effects), [(nodes(&[other]), op, Want::Full)]);
    assert_eq!(reply_to(&effects, caller), None);
    let effects = bench.hear(other, found(op, Found::Object(encoded(&newer))));
    assert_eq!(shown(reply_to(&effects, caller)), ["blue", "red"]);
    assert_eq!(sends(&effects), [], "only this node was stale");
    assert_eq!(bench.shard.counters().read_repairs, 1);
    bench.commit();
    assert_eq!(own(&bench), newer);
    bench.assert_quiet();
}

/// Goal: a replica that is behind is sent the merge, one that is not is not. Method: five replicas,
/// one has nothing, one the same.
#[test]
fn who_is_behind_is_repaired() {
    let mut bench = seeded(&[(3, 3)]);
    let (caller, op, _) = ask(&mut bench, Level::All);
    assert_eq!(bench.wakes_in_us(), Some(1_000_000), "there is nobody to hedge with");
    let digest = own(&bench).digest();
    assert_eq!(bench.hear(2, found(op, Found::Digest(digest))), []);
    let effects = bench.hear(3, found(op, Found::Absent));
    assert_eq!(
        questions(&effects),
        [(nodes(&[2]), op, Want::Full)],
        "a digest says too little now"
    );
    let effects = bench.hear(2, found(op, Found::Object(encoded(&own(&bench)))));
    assert_eq!(shown(reply_to(&effects, caller)), ["red"]);
    let sent = sends(&effects);
    let [(to, PeerMessage::Repair { bucket, key, object, .. })] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!((to, *bucket, &key[..]), (&nodes(&[3]), SIBLINGS, &b"k"[..]));
    assert_eq!(object, &encoded(&own(&bench)));
    assert_eq!(bench.shard.counters().read_repairs, 1);
    bench.assert_quiet();
}

/// Goal: what the open batch has changed is not shown before it is durable, at any level. Method:
/// read before and after the commit.
#[test]
fn what_is_not_durable_is_not_shown() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "red", Level::One);
    bench.ask(Request::Put(put));
    let (one, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert_eq!(effects, []);
    let (quorum, op, asked) = ask(&mut bench, Level::Quorum);
    let object = bench.shard.ops.len();
    assert_eq!(object, 3);
    let other = asked[0].0[0].0;
    assert_eq!(bench.hear(other, found(op, Found::Absent)), []);
    let effects = bench.commit();
    assert_eq!(shown(reply_to(&effects, one)), ["red"]);
    assert_eq!(shown(reply_to(&effects, quorum)), ["red"]);
}

/// Goal: a late answer makes the others be asked for whole objects, once. Method: nothing is known
/// of the replicas: the longest patience; then of quick ones: the shortest; then of slow ones:
/// their usual time.
#[test]
fn late_answers_are_hedged() {
    for (usual_us, patience_us) in [(0, 100_000), (200, 5_000), (10_000, 30_000)] {
        let mut bench = seeded(&[(3, 3)]);
        let digest = own(&bench).digest();
        if usual_us > 0 {
            let (_, op, _) = ask(&mut bench, Level::All);
            bench.now.mono.0 += usual_us;
            bench.hear(2, found(op, Found::Digest(digest)));
            bench.hear(3, found(op, Found::Digest(digest)));
        }
        let (caller, op, asked) = ask(&mut bench, Level::Quorum);
        assert_eq!(bench.wakes_in_us(), Some(patience_us));
        assert_eq!(bench.pass_us(patience_us - 1), []);
        let other = NodeId(5 - asked[0].0[0].0);
        let effects = bench.pass_us(1);
        assert_eq!(questions(&effects), [(vec![other], op, Want::Full)]);
        assert_eq!(bench.shard.counters().reads_hedged, 1);
        assert_eq!(bench.wakes_in_us(), Some(1_000_000 - patience_us), "nobody is left to ask");
        let effects = bench.hear(other.0, found(op, Found::Object(encoded(&own(&bench)))));
        assert_eq!(shown(reply_to(&effects, caller)), ["red"]);
        assert_eq!(bench.hear(asked[0].0[0].0, found(op, Found::Digest(digest))), []);
        bench.assert_quiet();
    }
}

/// Goal: a read that is late already is hedged soon, not at once again and again. Method: the time
/// of a hedge passes while the shard is busy, and another answer comes first.
#[test]
fn a_late_hedge_is_in_the_future() {
    let mut bench = seeded(&[(5, 5)]);
    let (_, op, asked) = ask(&mut bench, Level::Quorum);
    assert_eq!(asked.len(), 2);
    bench.now.mono.0 += 150_000;
    let digest = own(&bench).digest();
    assert_eq!(bench.hear(asked[0].0[0].0, found(op, Found::Digest(digest))), []);
    assert_eq!(bench.wakes_in_us(), Some(1));
    assert_eq!(questions(&bench.pass_us(1)).len(), 1);
}

/// Goal: one who is lost or refuses is replaced at once, and a read without enough replicas left
/// says how many answered. Method: lose one, let the next refuse.
#[test]
fn lost_replicas_are_replaced_until_none_is_left() {
    let mut bench = seeded(&[(3, 3)]);
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    let (first, second) = (asked[0].0[0], NodeId(5 - asked[0].0[0].0));
    assert_eq!(bench.input(Input::PeerDown(NodeId(9))), []);
    let effects = bench.input(Input::PeerDown(first));
    assert_eq!(questions(&effects), [(vec![second], op, Want::Full)]);
    let effects = bench.hear(second.0, found(op, Found::Refused(Refusal::Corrupt)));
    let unavailable = RequestError::ReadUnavailable { needed: 2, answered: 1 };
    assert_eq!(error(reply_to(&effects, caller)), unavailable);
    bench.assert_quiet();
    assert_eq!(bench.shard.counters().reads_hedged, 0);

    // Known to be too few from the start.
    bench.input(Input::PeerDown(second));
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::Quorum)));
    assert_eq!(error(reply_to(&effects, caller)), unavailable);
    bench.assert_quiet();
}

/// Goal: a read ends at its deadline. Method: nobody answers.
#[test]
fn a_read_ends_at_its_deadline() {
    let mut bench = seeded(&[(3, 3)]);
    let (caller, _, _) = ask(&mut bench, Level::Quorum);
    bench.pass_ms(100);
    assert_eq!(bench.pass_us(899_999), []);
    let effects = bench.pass_us(1);
    let unavailable = RequestError::ReadUnavailable { needed: 2, answered: 1 };
    assert_eq!(error(reply_to(&effects, caller)), unavailable);
    bench.assert_quiet();
}

/// Goal: who was not asked does not answer. Method: a stranger, and a replica whose turn it is not.
#[test]
fn only_who_was_asked_answers() {
    let mut bench = seeded(&[(3, 3)]);
    let (_, op, asked) = ask(&mut bench, Level::Quorum);
    let digest = own(&bench).digest();
    for (at, node) in [9, 5 - asked[0].0[0].0].into_iter().enumerate() {
        assert_eq!(bench.hear(node, found(op, Found::Digest(digest))), []);
        assert_eq!(bench.peer_rejections(), at as u64 + 1);
    }
    let unasked = NodeId(5 - asked[0].0[0].0);
    let effects = bench.input(Input::PeerDown(unasked));
    assert_eq!((effects, bench.peer_rejections()), (vec![], 2), "nobody waited for it");
}

/// Goal: what a faulty replica sends is a refusal, counted. Method: noise, an object of another
/// kind, a dot that only this run can make, in a last-writer-wins bucket a clock far ahead.
#[test]
fn senseless_answers_are_refusals() {
    let impossible = {
        let mut object = Object::new(ObjectKind::Siblings);
        let dot = Dot { actor: ACTOR, counter: 2 };
        object.put(&VersionVector::new(), Sibling::new(dot, Hlc(1), Bytes::from_static(b"no")));
        encoded(&object)
    };
    let bad = [Bytes::from_static(b"noise"), foreign(ObjectKind::Lww, 1, "lww"), impossible];
    for object in bad {
        let mut bench = seeded(&[(2, 2)]);
        let (caller, op, _) = ask(&mut bench, Level::All);
        let effects = bench.hear(2, found(op, Found::Object(object)));
        let unavailable = RequestError::ReadUnavailable { needed: 2, answered: 1 };
        assert_eq!(error(reply_to(&effects, caller)), unavailable);
        assert_eq!(bench.peer_rejections(), 1);
    }
    let mut bench = Bench::new(&[(2, 2)]);
    let (caller, effects) = bench.ask(Request::Get(Get { bucket: LWW, ..get("k", Level::All) }));
    let op = questions(&effects)[0].1;
    let mut object = Object::new(ObjectKind::Lww);
    let far = Hlc::new(WALL_MS + 501, 0);
    let dot = Dot { actor: OTHER, counter: 1 };
    object.put(&VersionVector::new(), Sibling::new(dot, far, Bytes::from_static(b"far")));
    let effects = bench.hear(2, found(op, Found::Object(encoded(&object))));
    assert!(matches!(error(reply_to(&effects, caller)), RequestError::ReadUnavailable { .. }));
    assert_eq!(bench.peer_rejections(), 1);
}

/// Goal: what was overwritten here comes back into no answer (I4), and what overwrote it is in the
/// answer in its place (I5). Method: a read that took its own object before the overwriting, and
/// another replica's object from before it.
#[test]
fn late_values_are_replaced_by_what_overwrote_them() {
    let mut bench = Bench::new(&[(3, 3)]);
    let old = foreign(ObjectKind::Siblings, 1, "old");
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    bench.hear(2, write_message(0, "k", old.clone(), &[]));
    bench.commit();
    let context = bench.read("k").context;
    let put = Put { context, ..bench.put("k", "new", Level::One) };
    bench.write_as(put);
    let other = asked[0].0[0].0;
    let digest = Object::decode(&old).unwrap().digest();
    bench.hear(other, found(op, Found::Digest(digest)));
    let effects = bench.hear(other, found(op, Found::Object(old)));
    assert_eq!(shown(reply_to(&effects, caller)), ["new"]);
    assert_eq!(bench.shard.counters().late_siblings_dropped, 1);
}

/// Goal: a clock that may claim more than the disk has drops nothing from an answer (I5): a context
/// would go out that covers a value which nobody was shown, and the next write would lose it. Nor can it
/// tell what is late (I4), so the read is not answered. Found
/// by cutting the power of real machines. Method: a write comes here whose commit fails, and the
/// clock cannot be read back; or the shard is told of amnesia. Then the other's object comes, to a
/// read that was under way.
#[test]
fn a_clock_in_doubt_drops_nothing() {
    for told in [false, true] {
        let mut bench = Bench::new(&[(3, 3)]);
        let object = foreign(ObjectKind::Siblings, 1, "here");
        let (caller, op, asked) = ask(&mut bench, Level::Quorum);
        bench.hear(2, write_message(0, "k", object.clone(), &[]));
        if told {
            bench.commit();
            bench.disk.rows.clear();
            bench.shard.cache = ObjectCache::new(bench.shard.config.cache_bytes_max);
            bench.input(Input::Amnesia);
        } else {
            bench.disk.scan = Some(StoreError::Io("gone".to_owned()));
            bench.fail_commit(StoreError::Io("gone".to_owned()));
        }
        let other = asked[0].0[0].0;
        let digest = Object::decode(&object).unwrap().digest();
        bench.hear(other, found(op, Found::Digest(digest)));
        let effects = bench.hear(other, found(op, Found::Object(object)));
        let reply = reply_to(&effects, caller);
        let is_refused = matches!(reply, Some(Reply::Error(RequestError::ReadUnavailable { .. })));
        assert!(is_refused, "told: {told}, {reply:?}");
    }
}

/// Goal: a damaged object here does not spoil the read: the others answer, and it is counted.
/// Method: damage the row, restart, read at quorum and at one.
#[test]
fn a_damaged_object_is_left_out() {
    let mut bench = seeded(&[(3, 3)]);
    let whole = encoded(&own(&bench));
    let row = bench.disk.rows.iter_mut().find(|((table, _), _)| *table == Table::Objects);
    row.unwrap().1[3] ^= 1;
    let mut bench = bench.restart();
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    assert_eq!(bench.shard.counters().corrupt_objects, 1);
    let mut wants: Vec<Want> = asked.iter().map(|(_, want)| *want).collect();
    wants.sort_unstable();
    assert_eq!(wants, [Want::Full, Want::Digest], "two others, one of them for the object");
    let digest = Object::decode(&whole).unwrap().digest();
    let full = asked.iter().find(|(_, want)| *want == Want::Full).unwrap().0[0].0;
    assert_eq!(bench.hear(5 - full, found(op, Found::Digest(digest))), []);
    let effects = bench.hear(full, found(op, Found::Object(whole)));
    let Some(Reply::Values(values)) = reply_to(&effects, caller) else { panic!("{effects:?}") };
    assert_eq!((texts(&values), behind(&values.receipt)), (vec!["red".into()], nodes(&[2, 3])));
    // At level one somebody else is asked.
    let (_, _, asked) = ask(&mut bench, Level::One);
    assert_eq!((asked.len(), asked[0].1), (1, Want::Full));
}

/// Goal: values from before a key's bucket was known are no difference. Method: a read of a key
/// that nobody has.
#[test]
fn an_absent_key_is_an_answer() {
    let mut bench = Bench::new(&[(3, 3)]);
    let (caller, op, asked) = ask(&mut bench, Level::Quorum);
    let effects = bench.hear(asked[0].0[0].0, found(op, Found::Absent));
    let Some(Reply::Values(values)) = reply_to(&effects, caller) else { panic!("{effects:?}") };
    assert_eq!((texts(&values), values.context.len(), effects.len()), (vec![], 0, 1));
    assert_eq!(values.receipt.replicas.len(), 2);
}
