//! The replica's step: what another node's writes and questions do here.

use holm_protocol::limits::OBJECT_LEN_MAX;

use super::*;
use crate::shard::log::decode_record;

/// What a write is answered with before any commit.
#[track_caller]
fn refusal_of(bench: &mut Bench, message: PeerMessage) -> Refusal {
    let rejections = bench.peer_rejections();
    let effects = bench.hear(2, message);
    let [(durable, refused)] = &reports(&effects, 2)[..] else { panic!("{effects:?}") };
    assert_eq!((durable.len(), bench.peer_rejections()), (0, rejections + 1));
    let [(node, refusal)] = refused[..] else { panic!("{refused:?}") };
    assert_eq!(node, bench.me);
    assert_eq!(bench.commit(), []);
    refusal
}

/// An object of an actor, with one value.
fn object_of(kind: ObjectKind, dot: Dot, hlc: Hlc) -> Bytes {
    let mut object = Object::new(kind);
    object.put(&VersionVector::new(), Sibling::new(dot, hlc, Bytes::from_static(b"v")));
    encoded(&object)
}

/// Goal: a replica says that a write is durable when it is (I2), under the operation it was asked
/// with. Method: write, look, commit, look.
#[test]
fn a_replica_speaks_after_its_commit() {
    let mut bench = Bench::new(&[(3, 3)]);
    let object = foreign(ObjectKind::Siblings, 1, "v");
    assert_eq!(bench.hear(2, write_message(77, "k", object.clone(), &[])), []);
    assert_eq!(bench.stored("k"), None);
    let effects = bench.commit();
    assert_eq!(sends(&effects), [(nodes(&[2]), durable(OpId(77), &[1]))]);
    assert_eq!(bench.stored("k"), Some(Object::decode(&object).unwrap()));
    assert_eq!(bench.shard.counters().objects_joined, 1);
    let clock = bench.shard.partition(PARTITION).unwrap().clock();
    assert!(clock.contains(Dot { actor: OTHER, counter: 1 }));
    // Again: acknowledged again, and nothing to do.
    let commits = bench.disk.commits;
    assert_eq!(bench.hear(2, write_message(78, "k", object, &[])), []);
    assert_eq!(sends(&bench.commit()), [(nodes(&[2]), durable(OpId(78), &[1]))]);
    assert_eq!((bench.shard.counters().objects_joined, bench.disk.commits), (1, commits));
}

/// Goal: what makes no sense is refused with its reason, and leaves no trace. Method: one of each.
#[test]
fn senseless_writes_are_refused() {
    let mut bench =
        Bench::at(NodeId(1), cluster(layout(&[(3, 3)], 1), &policy()), ShardConfig::test_min());
    let good = foreign(ObjectKind::Siblings, 1, "v");
    let place = |key: &str| {
        let key = key.as_bytes();
        bench.shard.cluster.layout.as_ref().unwrap().partition(PlacementId(0), SIBLINGS, key)
    };
    // Two keys, each of another partition.
    let keys: Vec<String> = (0..50).map(|at| format!("k{at}")).collect();
    let here = keys.iter().find(|key| place(key) == Some(PARTITION)).unwrap();
    let there = keys.iter().find(|key| place(key) != Some(PARTITION)).unwrap();
    let message = |key: &str, object: &Bytes| write_message(5, key, object.clone(), &[]);
    assert_eq!(refusal_of(&mut bench, message(there, &good)), Refusal::Malformed);
    let noise = Bytes::from_static(b"noise");
    assert_eq!(refusal_of(&mut bench, message(here, &noise)), Refusal::Malformed);
    let lww = foreign(ObjectKind::Lww, 1, "v");
    assert_eq!(refusal_of(&mut bench, message(here, &lww)), Refusal::WrongKind);
    let foreign_partition = match message(here, &good) {
        PeerMessage::Write { op, bucket, key, object, fan_out, .. } => {
            let partition = Partition { placement: PlacementId(0), index: 2 };
            PeerMessage::Write { op, partition, bucket, key, object, fan_out }
        }
        other => other,
    };
    assert_eq!(refusal_of(&mut bench, foreign_partition), Refusal::NotReplica);
    assert!(bench.disk.rows.is_empty());
    assert_eq!(bench.hear(2, message(here, &good)), []);
    assert_eq!(bench.commit().len(), 1);
}

/// Goal: nobody else makes this run's dots (I1, I8), and everybody may have those it has made.
/// Method: the last that was made, and the next; of another actor any number.
#[test]
fn own_dots_come_from_here_only() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.write("other", "v");
    let object = |actor, counter| object_of(ObjectKind::Siblings, Dot { actor, counter }, Hlc(1));
    let next = write_message(5, "k", object(ACTOR, 2), &[]);
    assert_eq!(refusal_of(&mut bench, next), Refusal::Malformed);
    assert_eq!(bench.hear(2, write_message(6, "k", object(ACTOR, 1), &[])), []);
    assert_eq!(bench.hear(2, write_message(7, "k", object(OTHER, 900), &[])), []);
    assert_eq!(reports(&bench.commit(), 2).len(), 2);
    assert_eq!(bench.write("k", "v").dot.counter, 2);
}

/// Goal: a value from a clock too far ahead stays out where clocks decide, and is taken where they
/// do not (P15); a clock within the limit is followed. Method: at the limit and past it, in both
/// kinds of buckets.
#[test]
fn far_clocks_stay_out_where_they_decide() {
    let at = |ahead_ms| Hlc::new(WALL_MS + ahead_ms, 0);
    let dot = |counter| Dot { actor: OTHER, counter };
    let mut bench = Bench::new(&[(3, 3)]);
    let to_lww = |message| match message {
        PeerMessage::Write { op, partition, key, object, fan_out, .. } => {
            PeerMessage::Write { op, partition, bucket: LWW, key, object, fan_out }
        }
        other => other,
    };
    let far = to_lww(write_message(5, "k", object_of(ObjectKind::Lww, dot(1), at(501)), &[]));
    assert_eq!(refusal_of(&mut bench, far), Refusal::ClockSkew);
    let far = write_message(5, "k", object_of(ObjectKind::Siblings, dot(1), at(501)), &[]);
    assert_eq!(bench.hear(2, far), []);
    assert!(bench.write("k", "v").hlc < at(1), "not followed");
    let near = to_lww(write_message(5, "k", object_of(ObjectKind::Lww, dot(2), at(500)), &[]));
    assert_eq!(bench.hear(2, near), []);
    assert!(bench.write("k", "v").hlc > at(500), "followed");
}

/// Goal: a last-writer-wins write outranks what is stored here, also after a restart, unless that
/// would follow a clock too far ahead. Method: a stored reading at the limit, then past it.
#[test]
fn a_writer_outranks_what_is_stored() {
    for (ahead_ms, follows) in [(500, true), (501, false)] {
        let mut bench = Bench::new(&[(1, 1)]);
        bench.now.wall.0 += 10_000;
        let put = Put { bucket: LWW, ..bench.put("k", "old", Level::One) };
        bench.write_as(put);
        let mut bench = bench.restart();
        bench.now.wall = WallMs(WALL_MS + 10_000 - ahead_ms);
        let put = Put { bucket: LWW, ..bench.put("k", "new", Level::One) };
        let (caller, effects) = bench.ask(Request::Put(put));
        if follows {
            let answer = written(&reply_to(&bench.commit(), caller).unwrap());
            assert_eq!(answer.hlc, Hlc::new(WALL_MS + 10_000, 1));
        } else {
            let skew = RequestError::ClockSkew { ahead_ms, limit_ms: 500 };
            assert_eq!(error(reply_to(&effects, caller)), skew);
        }
    }
}

/// Goal: a full or broken disk refuses writes by its name before anything happens, of nodes and of
/// clients, and goes on reading. Method: a disk that says so beforehand.
#[test]
fn a_disk_without_room_refuses() {
    let cases = [
        (StoreError::Full, Refusal::StoreFull, StoreFault::Full),
        (StoreError::Io("broken".to_owned()), Refusal::StoreIo, StoreFault::Io),
    ];
    for (room, refusal, fault) in cases {
        let mut bench = Bench::new(&[(3, 3)]);
        bench.write("k", "v");
        bench.disk.room = Some(room);
        let write = write_message(5, "k", foreign(ObjectKind::Siblings, 1, "far"), &[]);
        assert_eq!(refusal_of(&mut bench, write), refusal);
        let put = bench.put("k", "w", Level::One);
        let (caller, effects) = bench.ask(Request::Put(put));
        assert_eq!(error(reply_to(&effects, caller)), RequestError::Store { fault });
        assert_eq!(texts(&bench.read("k")), ["v"]);
        bench.disk.room = None;
        bench.write("k", "w");
    }
}

/// Goal: a disk that cannot read refuses by its name, and counts damage only. Method: a write and a
/// question about a key that is not in memory.
#[test]
fn a_disk_that_cannot_read_refuses() {
    let corrupt = StoreError::Corrupt("bad".to_owned());
    let cases = [
        (StoreError::Io("broken".to_owned()), Refusal::StoreIo, StoreFault::Io, 0),
        (corrupt, Refusal::Corrupt, StoreFault::Corrupt, 1),
    ];
    for (read, refusal, fault, counted) in cases {
        let mut bench = Bench::new(&[(3, 3)]);
        bench.disk.read = Some(read);
        let write = write_message(5, "k", foreign(ObjectKind::Siblings, 1, "far"), &[]);
        assert_eq!(refusal_of(&mut bench, write), refusal);
        assert_eq!(bench.shard.counters().corrupt_objects, counted);
        let put = bench.put("k", "w", Level::One);
        let (caller, effects) = bench.ask(Request::Put(put));
        assert_eq!(error(reply_to(&effects, caller)), RequestError::Store { fault });
        let question = question("k", Want::Full);
        let sent = sends(&bench.hear(2, question));
        assert_eq!(sent, [(nodes(&[2]), found(OpId(8), Found::Refused(refusal)))]);
        assert_eq!(bench.shard.counters().corrupt_objects, 3 * counted);
    }
}

fn question(key: &str, want: Want) -> PeerMessage {
    let key = Bytes::from(key.to_owned());
    PeerMessage::Read { op: OpId(8), partition: PARTITION, bucket: SIBLINGS, key, want }
}

/// Goal: a question is answered with what is durable, whole or as a digest, and waits for the commit
/// of what is not. Method: absent, stored, changed in the open batch, unknown bucket, amnesia.
#[test]
fn questions_are_answered_from_what_is_durable() {
    let mut bench = Bench::new(&[(3, 3)]);
    let answer = |effects: &[Effect]| match &sends(effects)[..] {
        [(to, PeerMessage::ReadReply { op: OpId(8), found, .. })] if *to == nodes(&[2]) => {
            Some(found.clone())
        }
        _ => None,
    };
    assert_eq!(answer(&bench.hear(2, question("k", Want::Full))), Some(Found::Absent));
    assert_eq!(answer(&bench.hear(2, question("k", Want::Digest))), Some(Found::Absent));
    let put = bench.put("k", "v", Level::One);
    bench.ask(Request::Put(put));
    assert_eq!(bench.hear(2, question("k", Want::Digest)), []);
    let effects: Effects =
        bench.commit().into_iter().filter(|e| matches!(e, Effect::Send { .. })).collect();
    let object = bench.stored("k").unwrap();
    assert_eq!(answer(&effects), Some(Found::Digest(object.digest())));
    let whole = answer(&bench.hear(2, question("k", Want::Full)));
    assert_eq!(whole, Some(Found::Object(encoded(&object))));
    let elsewhere = match question("k", Want::Full) {
        PeerMessage::Read { op, partition, key, want, .. } => {
            PeerMessage::Read { op, partition, bucket: BucketId(99), key, want }
        }
        other => other,
    };
    let unknown = Some(Found::Refused(Refusal::UnknownBucket));
    assert_eq!(answer(&bench.hear(2, elsewhere)), unknown);
    bench.input(Input::Amnesia);
    let behind = Some(Found::Refused(Refusal::Behind));
    assert_eq!(answer(&bench.hear(2, question("k", Want::Full))), behind);
}

/// Goal: a value that was overwritten here does not come back, what came with it does, and the
/// object that stays is the join (I4). Method: a late copy beside a new value.
#[test]
fn late_values_are_dropped_one_by_one() {
    let mut bench = Bench::new(&[(3, 3)]);
    let old = foreign(ObjectKind::Siblings, 1, "old");
    bench.hear(2, write_message(0, "k", old.clone(), &[]));
    bench.commit();
    let context = bench.read("k").context;
    let put = Put { context, ..bench.put("k", "new", Level::One) };
    bench.write_as(put);
    bench.hear(2, write_message(0, "k", old.clone(), &[]));
    let mut both = Object::decode(&old).unwrap();
    both.put(&VersionVector::new(), sibling(2, "newer"));
    bench.hear(3, write_message(0, "k", encoded(&both), &[]));
    bench.commit();
    assert_eq!(texts(&bench.read("k")), ["new", "newer"]);
    assert_eq!(bench.shard.counters().late_siblings_dropped, 2);
    assert_eq!(bench.stored("k").unwrap().check(), Ok(()));
}

/// Goal: what is stored is what was joined, not what was sent, also where a faulty node sends what
/// no history makes (I4, I8). Method: an object that claims to have seen the overwriting of a value
/// and still has it; then a restart.
#[test]
fn what_was_dropped_is_not_stored() {
    let mut bench = Bench::new(&[(3, 3)]);
    let old = foreign(ObjectKind::Siblings, 1, "old");
    bench.hear(2, write_message(0, "k", old.clone(), &[]));
    bench.commit();
    let context = bench.read("k").context;
    let put = Put { context, ..bench.put("k", "new", Level::One) };
    let overwriting = bench.write_as(put).dot;
    let mut faulty = Object::decode(&old).unwrap();
    faulty.context.insert(overwriting);
    faulty.put(&VersionVector::new(), sibling(2, "newer"));
    bench.hear(2, write_message(0, "k", encoded(&faulty), &[]));
    bench.commit();
    assert_eq!(texts(&bench.read("k")), ["newer"]);
    assert_eq!(texts(&bench.restart().read("k")), ["newer"]);
}

/// Goal: an object replaces the local one byte for byte only where that is the join. Method: one
/// that has seen what is here, one that has not, and one that still has what was deleted here.
#[test]
fn what_has_seen_everything_replaces() {
    let mut bench = Bench::new(&[(3, 3)]);
    let dot = bench.write("k", "mine").dot;
    let mut seen = bench.stored("k").unwrap();
    let context: VersionVector = [dot].into_iter().collect();
    seen.put(&context, sibling(1, "theirs"));
    bench.hear(2, write_message(0, "k", encoded(&seen), &[]));
    bench.commit();
    assert_eq!(bench.stored("k"), Some(seen.clone()));
    let mut unseen = Object::new(ObjectKind::Siblings);
    unseen.put(&VersionVector::new(), sibling(2, "blind"));
    bench.hear(2, write_message(0, "k", encoded(&unseen), &[]));
    bench.commit();
    let mut joined = seen;
    joined.join(unseen).unwrap();
    assert_eq!(bench.stored("k"), Some(joined));
}

/// Goal: the log says which key a dot was seen with and when it was written; 0 where only a context
/// named it (I3). Method: an object with a value and an overwritten write.
#[test]
fn the_log_has_dots_keys_and_readings() {
    let mut bench = Bench::new(&[(3, 3)]);
    let mut object = Object::new(ObjectKind::Siblings);
    let overwritten: VersionVector = [Dot { actor: Actor(0x77), counter: 4 }].into_iter().collect();
    object.put(&overwritten, sibling(1, "v"));
    bench.hear(2, write_message(0, "key", encoded(&object), &[]));
    bench.commit();
    let record = bench.disk.rows.iter().find(|((table, _), _)| *table == Table::Log).unwrap().1;
    let entries = decode_record(record).unwrap();
    let seen: Vec<(Dot, Hlc)> = entries.iter().map(|entry| (entry.dot, entry.hlc)).collect();
    let value = (Dot { actor: OTHER, counter: 1 }, Hlc::new(WALL_MS, 0));
    assert_eq!(seen.len(), 2);
    assert!(
        seen.contains(&value) && seen.contains(&(Dot { actor: Actor(0x77), counter: 4 }, Hlc(0)))
    );
    assert!(entries.iter().all(|entry| &entry.key[..] == b"key" && entry.bucket == SIBLINGS));
    let own = bench.write("own", "v");
    let records = bench.disk.rows.iter().filter(|((table, _), _)| *table == Table::Log);
    let last = decode_record(records.max_by_key(|(key, _)| *key).unwrap().1).unwrap();
    assert_eq!((last[0].dot, last[0].hlc, &last[0].key[..]), (own.dot, own.hlc, &b"own"[..]));
}

/// Goal: an object that grows too long is refused, to the byte, before it is stored. Method: joins
/// with a long object that reach the limit and pass it by one. The long one is put into the cache:
/// no single write is as long.
#[test]
fn objects_are_limited_in_bytes() {
    let value = Bytes::from(vec![7; 1 << 20]);
    let object = |actor, less| {
        let mut object = Object::new(ObjectKind::Siblings);
        let dot = Dot { actor: Actor(actor), counter: 1 };
        let value = value.slice(less..);
        object.put(&VersionVector::new(), Sibling::new(dot, Hlc(1), value));
        object
    };
    let mut near = Object::new(ObjectKind::Siblings);
    (1..=31).for_each(|actor| near.join(object(actor, 0)).unwrap());
    let mut whole = near.clone();
    whole.join(object(32, 0)).unwrap();
    let exact = encoded(&whole).len() - OBJECT_LEN_MAX;

    let mut bench = Bench::new(&[(3, 3)]);
    let key = bench.shard.object_key(PARTITION, SIBLINGS, b"k");
    let place = bench.shard.cache.load(&key, ObjectKind::Siblings, &mut bench.disk).unwrap();
    bench.shard.cache.change(place, near, Bytes::new());
    let long = write_message(6, "k", encoded(&object(32, exact - 1)), &[]);
    let effects = bench.hear(2, long);
    assert_eq!(reports(&effects, 2), [(vec![], vec![(NodeId(1), Refusal::TooLarge)])]);
    assert_eq!(bench.hear(2, write_message(7, "k", encoded(&object(32, exact)), &[])), []);
    assert_eq!(bench.shard.counters().objects_joined, 1);
}

/// Goal: a repair is joined like a write, and nobody is told; a senseless one is counted. Method:
/// one of each.
#[test]
fn repairs_are_joined_in_silence() {
    let mut bench = Bench::new(&[(3, 3)]);
    let repair = |object| {
        let (partition, bucket, key) = (PARTITION, SIBLINGS, Bytes::from_static(b"k"));
        PeerMessage::Repair { partition, bucket, key, object }
    };
    assert_eq!(bench.hear(2, repair(foreign(ObjectKind::Siblings, 1, "v"))), []);
    assert_eq!((bench.commit(), bench.peer_rejections()), (vec![], 0));
    assert_eq!(texts(&bench.read("k")), ["v"]);
    assert_eq!(bench.hear(2, repair(Bytes::from_static(b"noise"))), []);
    assert_eq!(bench.peer_rejections(), 1);
}
