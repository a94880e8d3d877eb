//! What a put or delete does before anybody has voted: what is refused, what is sent to whom.

use holm_protocol::error::ContextFault;
use holm_protocol::limits::{CONTEXT_LEN_MAX, KEY_LEN_MAX, PUT_OBJECT_LEN_MAX, VALUE_LEN_MAX};

use super::*;
use crate::layout::LayoutSpec;

/// A request that is refused at once, and why.
#[track_caller]
fn refused(bench: &mut Bench, request: Request) -> RequestError {
    let (caller, effects) = bench.ask(request);
    assert_eq!(effects.len(), 1, "only the refusal: {effects:?}");
    assert_eq!(bench.commit(), []);
    error(reply_to(&effects, caller))
}

/// A bench of one node with a policy.
fn alone(policy: BucketPolicy) -> Bench {
    let config = ShardConfig { held_bytes_max: 64 << 20, ..ShardConfig::test_min() };
    Bench::at(NodeId(1), cluster(layout(&[(1, 1)], 0), &policy), config)
}

/// Goal: a write goes to the region's other replicas at once, in one message, and is acknowledged
/// only when enough disks have it, the own one among them (I2). Method: every step of a put at
/// quorum of three, with the effects of each.
#[test]
fn a_write_is_acknowledged_by_disks() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "red", Level::Quorum);
    let (caller, effects) = bench.ask(Request::Put(put));
    let [(to, op, fan_out)] = writes(&effects).try_into().unwrap();
    assert_eq!((effects.len(), to, fan_out), (1, nodes(&[2, 3]), vec![]));
    assert_eq!(bench.stored("k"), None);
    assert_eq!(bench.shard.counters().in_flight, 1);

    // The own copy is one of two.
    assert_eq!(bench.commit(), []);
    assert_eq!(texts(&bench.read("k")), ["red"]);
    let effects = bench.hear(2, durable(op, &[2]));
    let answer = written(&reply_to(&effects, caller).unwrap());
    let dot = Dot { actor: ACTOR, counter: 1 };
    assert_eq!((answer.dot, behind(&answer.receipt)), (dot, nodes(&[1, 2])));
    assert_eq!(answer.receipt.coordinator, NodeId(1));
    assert_eq!(bench.opened("k", &answer.context), [dot].into_iter().collect());
    let counters = bench.shard.counters();
    assert_eq!((counters.in_flight, counters.lingering), (0, 1));
    assert_eq!((counters.writes_coordinated, counters.reads_coordinated), (1, 1));

    assert_eq!(bench.hear(3, durable(op, &[3])), []);
    bench.assert_quiet();
    let state = bench.shard.partition(PARTITION).unwrap();
    assert_eq!((state.own_counter(), state.clock().contains(dot)), (1, true));
}

/// Goal: what is sent is the object after the write, with the own dot in it, and a delete is sent
/// like a put. Method: decode what goes out.
#[test]
fn what_is_sent_is_the_object_after_the_write() {
    let mut bench = Bench::new(&[(2, 2)]);
    let first = bench.write("k", "red");
    let put = Put { context: first.context, ..bench.put("k", "blue", Level::Quorum) };
    let (_, effects) = bench.ask(Request::Put(put));
    let [(_, PeerMessage::Write { object, bucket, key, .. })] = &sends(&effects)[..] else {
        panic!("{effects:?}")
    };
    let object = Object::decode(object).unwrap();
    assert_eq!((*bucket, &key[..]), (SIBLINGS, &b"k"[..]));
    assert_eq!(object.siblings()[0].dot, Dot { actor: ACTOR, counter: 2 });
    assert_eq!(object.siblings().len(), 1);
    bench.commit();
    assert_eq!(bench.stored("k"), Some(object));

    let context = bench.read("k").context;
    let delete = bench.delete("k", context, Level::Quorum);
    let (_, effects) = bench.ask(Request::Delete(delete));
    let [(_, PeerMessage::Write { object, .. })] = &sends(&effects)[..] else {
        panic!("{effects:?}")
    };
    let object = Object::decode(object).unwrap();
    assert!(object.is_deleted());
    assert!(object.context.covers(Dot { actor: ACTOR, counter: 3 }));
}

/// Goal: a write crosses to another region once, through a relay that changes from write to write,
/// and goes directly to the own region. Method: one region of two and one of three, six writes.
#[test]
fn relays_take_turns() {
    let mut bench = Bench::new(&[(2, 2), (3, 3)]);
    let mut relays = Vec::new();
    for _ in 0..6 {
        let put = bench.put("k", "v", Level::One);
        let (_, effects) = bench.ask(Request::Put(put));
        let [near, far] = writes(&effects).try_into().unwrap();
        assert_eq!((near.0, near.2), (nodes(&[2]), vec![]));
        let [relay] = far.0.try_into().unwrap();
        let mut others = far.2;
        others.push(relay);
        others.sort_unstable();
        assert_eq!(others, nodes(&[3, 4, 5]));
        relays.push(relay);
        bench.commit();
    }
    assert_eq!(relays[..3], relays[3..]);
    relays.sort_unstable();
    relays.dedup();
    assert_eq!(relays.len(), 3, "each carries one of three");
}

/// Goal: nobody is sent what cannot be reached; a relay is one that can. Method: a relay region
/// with one node left, then with none.
#[test]
fn what_is_down_is_not_asked() {
    let mut bench = Bench::new(&[(2, 2), (3, 3)]);
    for node in [2, 3, 5] {
        bench.input(Input::PeerDown(NodeId(node)));
    }
    let put = bench.put("k", "v", Level::One);
    let (_, effects) = bench.ask(Request::Put(put));
    let [(to, _, mut fan_out)] = writes(&effects).try_into().unwrap();
    fan_out.sort_unstable();
    // The relay may have connections that this node has not.
    assert_eq!((to, fan_out), (nodes(&[4]), nodes(&[3, 5])));
    bench.commit();
    bench.input(Input::PeerDown(NodeId(4)));
    let put = bench.put("k", "v", Level::One);
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(effects, []);
    assert!(reply_to(&bench.commit(), caller).is_some());
}

/// Goal: what cannot be acknowledged is refused before anything happens, with the figures. Method:
/// each level with one replica too few, and with just enough.
#[test]
fn an_unreachable_level_is_refused_first() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.input(Input::PeerDown(NodeId(2)));
    let put = bench.put("k", "v", Level::All);
    let error = refused(&mut bench, Request::Put(put));
    assert_eq!(error, RequestError::WriteUnavailable { needed: 3, reachable: 2 });
    assert_eq!(bench.shard.partition(PARTITION).unwrap().own_counter(), 0);
    let put = bench.put("k", "v", Level::Quorum);
    assert_eq!(writes(&bench.ask(Request::Put(put)).1).len(), 1);
    bench.commit();
    let put = bench.put("k", "v", Level::Count(4));
    let error = refused(&mut bench, Request::Put(put));
    let (level, needed, available) = (Level::Count(4), 4, 3);
    assert_eq!(error, RequestError::LevelUnreachable { level, needed, available });
}

/// Goal: the limits of key and value are what they say, to the byte. Method: the longest that is
/// taken, and one more.
#[test]
fn lengths_are_limited_to_the_byte() {
    let mut bench = alone(BucketPolicy { max_value: 10, ..policy() });
    bench.write("k", "0123456789");
    let put = bench.put("k", "0123456789a", Level::One);
    let error = refused(&mut bench, Request::Put(put));
    assert_eq!(error, RequestError::ValueTooLarge { len: 11, limit: 10 });
    bench.write(&"k".repeat(KEY_LEN_MAX), "v");
    for len in [0, KEY_LEN_MAX + 1] {
        let put = bench.put(&"k".repeat(len), "v", Level::One);
        let (len, limit) = (len as u64, KEY_LEN_MAX as u64);
        let error = refused(&mut bench, Request::Put(put));
        assert_eq!(error, RequestError::KeyLength { len, limit });
    }
}

/// Goal: a bucket's limit of siblings stops blind puts and nothing else. Method: fill up; then a
/// blind put, one that replaces a value, and, with a lower limit, one that makes no more than
/// there were.
#[test]
fn siblings_are_limited_at_the_door() {
    let mut bench = alone(BucketPolicy { max_siblings: 3, ..policy() });
    let answers: Vec<Written> = (0..3).map(|at| bench.write("k", &at.to_string())).collect();
    let put = bench.put("k", "more", Level::One);
    let error = refused(&mut bench, Request::Put(put));
    assert_eq!(error, RequestError::TooManySiblings { siblings: 3, limit: 3 });
    let one = bench.sealed("k", &[answers[0].dot]);
    let put = Put { context: one, ..bench.put("k", "new", Level::One) };
    bench.write_as(put);
    assert_eq!(texts(&bench.read("k")), ["1", "2", "new"]);
    assert_eq!(bench.shard.counters().siblings_max, 3);

    let lower = BucketPolicy { max_siblings: 1, ..policy() };
    bench.input(Input::Cluster(Arc::new(cluster(layout(&[(1, 1)], 0), &lower))));
    // A writer that has seen the first two counters of this run: "1" goes.
    let context = bench.sealed("k", &[answers[1].dot]);
    let put = Put { context, ..bench.put("k", "newer", Level::One) };
    bench.write_as(put);
    assert_eq!(texts(&bench.read("k")), ["2", "new", "newer"]);
    let put = bench.put("k", "more", Level::One);
    let error = refused(&mut bench, Request::Put(put));
    assert_eq!(error, RequestError::TooManySiblings { siblings: 3, limit: 1 });
}

/// Goal: an object that is too large to be sent is refused while it is still small, but a value
/// alone never is, nor one that makes the object no worse. Method: values that reach the limit to
/// the byte, counting 64 for each.
#[test]
fn siblings_are_limited_in_bytes() {
    let long = |less: usize| "x".repeat(VALUE_LEN_MAX - less);
    let mut bench = alone(policy());
    let config = ShardConfig { held_bytes_max: 64 << 20, ..ShardConfig::test_min() };
    bench.shard.config = config;
    bench.write("alone", &long(0));
    bench.write("k", &long(0));
    let put = bench.put("k", &long(127), Level::One);
    let error = refused(&mut bench, Request::Put(put));
    let (len, limit) = (PUT_OBJECT_LEN_MAX as u64 + 1, PUT_OBJECT_LEN_MAX as u64);
    assert_eq!(error, RequestError::ObjectTooLarge { len, limit });
    bench.write("k", &long(128));

    // One more that another node wrote: above the limit, and that is no reason to refuse what
    // replaces one of them.
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), sibling(1, &long(0)));
    bench.hear(2, write_message(0, "k", encoded(&object), &[]));
    bench.commit();
    let context = bench.sealed("k", &[Dot { actor: OTHER, counter: 1 }]);
    let put = Put { context, ..bench.put("k", &long(0), Level::One) };
    bench.write_as(put);
    assert_eq!(bench.read("k").siblings.len(), 3);
    let put = bench.put("k", "v", Level::One);
    let error = refused(&mut bench, Request::Put(put));
    assert!(matches!(error, RequestError::ObjectTooLarge { .. }));
}

/// Goal: a delete in a siblings bucket names what it deletes; in a last-writer-wins bucket the
/// clock says it. Method: both, blind.
#[test]
fn a_blind_delete_is_for_the_last_writer() {
    let mut bench = alone(policy());
    bench.write("k", "red");
    let delete = bench.delete("k", Bytes::new(), Level::One);
    let error = refused(&mut bench, Request::Delete(delete));
    assert_eq!(error, RequestError::ContextRequired);
    let put = Put { bucket: LWW, ..bench.put("k", "red", Level::One) };
    bench.write_as(put);
    let delete = Delete { bucket: LWW, ..bench.delete("k", Bytes::new(), Level::One) };
    let (caller, _) = bench.ask(Request::Delete(delete));
    written(&reply_to(&bench.commit(), caller).unwrap());
    let get = Get { bucket: LWW, ..get("k", Level::One) };
    let (caller, effects) = bench.ask(Request::Get(get));
    assert_eq!(shown(reply_to(&effects, caller)), [""; 0]);
    let blind = bench.put("k", "blue", Level::One);
    bench.write_as(blind);
}

/// Goal: a context is refused with its reason, and changes nothing. Method: one for each reason.
#[test]
fn bad_contexts_are_told_apart() {
    let mut bench = alone(policy());
    let dot = bench.write("k", "red").dot;
    let mut unknown = bench.sealed("k", &[dot]).to_vec();
    unknown[1] ^= 0x55;
    let cases = [
        (bench.sealed("other", &[dot]), ContextFault::Forged),
        (Bytes::from(unknown), ContextFault::UnknownSecret),
        (Bytes::from(vec![1; CONTEXT_LEN_MAX + 1]), ContextFault::TooLong),
        (Bytes::from_static(b"x"), ContextFault::Malformed),
    ];
    for (context, fault) in cases {
        let put = Put { context, ..bench.put("k", "blue", Level::One) };
        assert_eq!(refused(&mut bench, Request::Put(put)), RequestError::Context { fault });
    }
    assert_eq!(texts(&bench.read("k")), ["red"]);
}

/// Goal: what a writer gets back covers its write and what it had read, never what it has not seen
/// (I5), nor a write of this run without that write's effects (I3). Method: blind puts beside a
/// foreign value, beside an own one, and over everything.
#[test]
fn a_writer_is_given_what_it_may_overwrite() {
    let mut bench = alone(policy());
    let dot = |counter| Dot { actor: ACTOR, counter };
    let cover = |dots: &[Dot]| dots.iter().copied().collect::<VersionVector>();
    bench.hear(2, write_message(0, "k", foreign(ObjectKind::Siblings, 1, "far"), &[]));
    bench.commit();
    let first = bench.write("k", "one");
    assert_eq!(bench.opened("k", &first.context), cover(&[dot(1)]));
    let second = bench.write("k", "two");
    assert_eq!(bench.opened("k", &second.context), VersionVector::new());
    let context = bench.read("k").context;
    let put = Put { context, ..bench.put("k", "all", Level::One) };
    let last = bench.write_as(put);
    let everything = cover(&[dot(3), Dot { actor: OTHER, counter: 1 }]);
    assert_eq!(bench.opened("k", &last.context), everything);
}

/// Goal: before there is a layout, a bucket or a replica of the region, a request says which is
/// missing. Method: each is missing once.
#[test]
fn what_is_missing_is_said() {
    let mut bench = alone(policy());
    let put = Put { bucket: BucketId(77), ..bench.put("k", "v", Level::One) };
    let error = refused(&mut bench, Request::Put(put));
    assert_eq!(error, RequestError::UnknownBucket { bucket: BucketId(77) });

    // The second region has nodes and no replicas.
    let spec = layout(&[(2, 2), (1, 1)], 0).spec().clone();
    let mut placements = spec.placements.clone();
    placements[0].replication.remove("b");
    let spec = LayoutSpec { placements, ..spec };
    let cluster = cluster(Layout::compute(spec, None).unwrap(), &policy());
    let mut bench = Bench::at(NodeId(3), cluster, ShardConfig::test_min());
    let put = bench.put("k", "v", Level::LocalQuorum);
    let error = refused(&mut bench, Request::Put(put));
    let level = Level::LocalQuorum;
    assert_eq!(error, RequestError::LevelUnreachable { level, needed: 1, available: 0 });
    let put = bench.put("k", "v", Level::Quorum);
    assert!(matches!(sends(&bench.ask(Request::Put(put)).1)[..], [(_, PeerMessage::Proxy { .. })]));

    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::LocalQuorum);
    assert_eq!(writes(&bench.ask(Request::Put(put)).1).len(), 1);
}
