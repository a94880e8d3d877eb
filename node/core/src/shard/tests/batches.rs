//! Batches that are kept, lost, and found again after a restart; and changes of the cluster.

use super::*;
use crate::keys::log_mark_key;

/// Goal: a batch is one commit, and a batch of nothing none. Method: count.
#[test]
fn a_batch_is_one_commit() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.commit();
    assert_eq!(bench.disk.commits, 0);
    for key in ["a", "b", "a"] {
        let put = bench.put(key, "v", Level::Quorum);
        bench.ask(Request::Put(put));
    }
    bench.commit();
    assert_eq!(bench.disk.commits, 1);
    bench.read("a");
    bench.commit();
    assert_eq!(bench.disk.commits, 1);
}

/// Goal: a dot that is new and changes no object is kept all the same (I3). Method: an overwritten
/// value arrives for the first time after what overwrote it.
#[test]
fn a_dot_alone_is_a_change() {
    let mut bench = Bench::new(&[(3, 3)]);
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), sibling(1, "first"));
    let first = encoded(&object);
    let context = object.context.clone();
    object.put(&context, sibling(2, "second"));
    bench.hear(2, write_message(0, "k", encoded(&object), &[]));
    bench.commit();
    let clock = |bench: &Bench| bench.shard.partition(PARTITION).unwrap().clock().clone();
    assert_eq!(clock(&bench).count(), 1);
    bench.hear(2, write_message(0, "k", first, &[]));
    bench.commit();
    assert_eq!((texts(&bench.read("k")), clock(&bench).count()), (vec!["second".to_owned()], 2));
    assert_eq!(bench.disk.commits, 2);
    assert_eq!(clock(&bench.restart()).count(), 2);
}

/// Goal: what a lost batch held back becomes a refusal with the reason; its clients hear that nobody
/// knows; reads go on from what is durable; writes are refused until the shard resumes as a new run
/// (I1, I2). Method: one of everything that waits for a commit, a disk that is full or broken at the
/// commit only.
#[test]
fn a_lost_batch_is_refused() {
    let cases = [
        (StoreError::Full, Refusal::StoreFull, StoreFault::Full),
        (StoreError::Io("broken".to_owned()), Refusal::StoreIo, StoreFault::Io),
    ];
    for (failure, refusal, fault) in cases {
        let mut bench = Bench::new(&[(3, 3)]);
        bench.write("k", "before");
        bench.pass_ms(2_000);
        let put = bench.put("k", "lost", Level::One);
        let (writer, effects) = bench.ask(Request::Put(put));
        let op = writes(&effects)[0].1;
        let (reader, _) = bench.ask(Request::Get(get("k", Level::One)));
        let put = bench.put("k", "lost too", Level::One);
        let request = Request::Put(put);
        let proxy = PeerMessage::Proxy { op: OpId(5), partition: PARTITION, request };
        let proxied = writes(&bench.hear(3, proxy))[0].1;
        bench.hear(2, write_message(7, "k", foreign(ObjectKind::Siblings, 1, "far"), &[]));
        let key = Bytes::from_static(b"k");
        let (partition, bucket, want) = (PARTITION, SIBLINGS, Want::Full);
        bench.hear(2, PeerMessage::Read { op: OpId(8), partition, bucket, key, want });
        let effects = bench.fail_commit(failure);

        // Others are asked, for whole objects: the own one could not be shown.
        assert_eq!(reply_to(&effects, reader), None);
        assert!(questions(&effects).iter().all(|(_, _, want)| *want == Want::Full));
        assert_eq!(reports(&effects, 2), [(vec![], vec![(NodeId(1), refusal)])]);
        let to_peers = sends(&effects);
        assert!(to_peers.contains(&(nodes(&[2]), found(OpId(8), Found::Refused(refusal)))));
        assert_eq!(bench.shard.stopped(), Some(fault));
        assert_eq!(bench.shard.counters().commits_failed, 1);
        assert_eq!(texts(&bench.read("k")), ["before"]);

        let put = bench.put("k", "v", Level::One);
        let (caller, effects) = bench.ask(Request::Put(put.clone()));
        assert_eq!(error(reply_to(&effects, caller)), RequestError::Store { fault });
        let write = write_message(9, "k", foreign(ObjectKind::Siblings, 1, "far"), &[]);
        assert_eq!(reports(&bench.hear(2, write), 2), [(vec![], vec![(NodeId(1), refusal)])]);
        bench.shard.resume(Actor(0xc3));
        assert_eq!(bench.shard.stopped(), None);
        let dot = bench.write("k", "v").dot;
        assert_eq!(dot, Dot { actor: Actor(0xc3), counter: 1 });

        // Another disk may have it, and then it is acknowledged; if none has, nobody knows.
        let answer = written(&reply_to(&bench.hear(2, durable(op, &[2])), writer).unwrap());
        assert_eq!(behind(&answer.receipt), nodes(&[2]));
        assert_eq!(bench.hear(2, super::refusal(proxied, 2)), []);
        let effects = bench.hear(3, super::refusal(proxied, 3));
        let reply = Reply::Error(RequestError::WriteUnknown { needed: 1, durable: 0 });
        let reply = PeerMessage::ProxyReply { op: OpId(5), partition: PARTITION, reply };
        assert_eq!(sends(&effects), [(nodes(&[3]), reply)]);
    }
}

/// Goal: a repair that a commit's own votes bring about is a batch of its own: if it is lost, what
/// was made durable before it stays, and is answered (I1, I3). Method: a read that ends within the
/// commit of a write and finds this replica stale; a disk that takes one commit.
#[test]
fn a_lost_repair_takes_nothing_back() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "here", Level::One);
    let (writer, _) = bench.ask(Request::Put(put));
    let (reader, effects) = bench.ask(Request::Get(get("k", Level::All)));
    let there = foreign(ObjectKind::Siblings, 1, "there");
    for (to, op, _) in questions(&effects) {
        for node in to {
            bench.hear(node.0, found(op, Found::Object(there.clone())));
        }
    }
    bench.disk.sound = 1;
    let effects = bench.fail_commit(StoreError::Full);
    assert_eq!(bench.disk.commits, 1);
    let answer = written(&reply_to(&effects, writer).expect("it is durable"));
    assert_eq!(behind(&answer.receipt), nodes(&[1]));
    assert_eq!(shown(reply_to(&effects, reader)), ["here", "there"]);
    let stored = bench.stored("k").unwrap();
    assert_eq!((stored.siblings().len(), stored.siblings()[0].dot), (1, answer.dot));
    let clock = bench.shard.partition(PARTITION).unwrap().clock();
    assert!(clock.contains(answer.dot) && clock.count() == 1);
    assert_eq!(bench.shard.stopped(), Some(StoreFault::Full));
}

/// Goal: an answer held for the batch turns into the store's fault when the batch is lost. Method:
/// a repeated write whose answer shows a change of the open batch: none is held for clients today,
/// so the rule is asked directly.
#[test]
fn held_answers_turn_into_faults() {
    let caller = Caller { lane: 1, request: 2 };
    let reply = Reply::Error(RequestError::CoordinatorLost);
    let held = Effect::Reply { caller, reply, since: Mono(7) };
    let reply = Reply::Error(RequestError::Store { fault: StoreFault::Full });
    let told = Effect::Reply { caller, reply, since: Mono(7) };
    assert_eq!(commit::refused(held, NodeId(1), Refusal::StoreFull, StoreFault::Full), Some(told));
}

/// Goal: dots of a lost batch are known elsewhere and belong to this run: they are no forgery.
/// Method: lose a batch whose message has left; a read brings its value back.
#[test]
fn dots_of_a_lost_batch_were_made_here() {
    let mut bench = Bench::new(&[(2, 2)]);
    let put = bench.put("k", "lost", Level::Quorum);
    let (_, effects) = bench.ask(Request::Put(put));
    let [(_, PeerMessage::Write { object, .. })] = &sends(&effects)[..] else {
        panic!("{effects:?}")
    };
    bench.fail_commit(StoreError::Full);
    assert!(bench.shard.partition(PARTITION).unwrap().clock().is_empty());
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::All)));
    let op = questions(&effects)[0].1;
    let digest = Object::decode(object).unwrap().digest();
    bench.hear(2, found(op, Found::Digest(digest)));
    let effects = bench.hear(2, found(op, Found::Object(object.clone())));
    assert_eq!(shown(reply_to(&effects, caller)), ["lost"]);
    assert_eq!(bench.peer_rejections(), 0);
}

/// Goal: a shard that cannot read its clocks back after a lost batch answers no reads and writes
/// nothing, also when there is room again (I4, I11). Method: a disk that neither writes nor reads.
#[test]
fn a_shard_without_its_clocks_steps_aside() {
    let mut bench = Bench::new(&[(3, 3)]);
    let put = bench.put("k", "v", Level::One);
    bench.ask(Request::Put(put));
    bench.disk.read = Some(StoreError::Io("broken".to_owned()));
    bench.fail_commit(StoreError::Full);
    bench.disk.read = None;
    assert_eq!(bench.shard.stopped(), Some(StoreFault::Io));
    let (_, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert!(matches!(sends(&effects)[..], [(_, PeerMessage::Proxy { .. })]));
}

/// Goal: a restart finds what was committed, clocks and objects, and draws its own dots from 1.
/// Method: with checkpoints far apart, with one at the stop, and with one at every commit.
#[test]
fn a_restart_finds_what_was_committed() {
    for (every, clean) in [(100, false), (100, true), (1, false)] {
        let config = ShardConfig { checkpoint_every: every, ..ShardConfig::test_min() };
        let mut bench = Bench::with(&[(1, 1)], config);
        for key in ["a", "b", "c"] {
            bench.write(key, "v");
        }
        let mark = (Table::Meta, log_mark_key(1 << 16).to_vec());
        assert_eq!(bench.disk.rows.contains_key(&mark), every == 1);
        if clean {
            bench.shard.checkpoint(&mut bench.disk).unwrap();
            assert_eq!(bench.disk.rows[&mark], 3u64.to_be_bytes());
        }
        let before = bench.shard.partition(PARTITION).unwrap().clock().clone();
        assert_eq!(before.count(), 3);
        let mut bench = bench.restart();
        assert_eq!(bench.shard.partition(PARTITION).unwrap().clock(), &before);
        assert_eq!(texts(&bench.read("b")), ["v"]);
        let dot = bench.write("b", "w").dot;
        assert_eq!((dot.actor == ACTOR, dot.counter), (false, 1));
    }
}

/// Goal: the records since the last checkpoint are counted over a restart, so that no more than so
/// many are ever read at a start. Method: a restart in the middle, and the commit at which the next
/// checkpoint comes.
#[test]
fn checkpoints_come_in_time_after_a_restart() {
    let config = ShardConfig { checkpoint_every: 5, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(1, 1)], config);
    let mark = (Table::Meta, log_mark_key(1 << 16).to_vec());
    let marked = |bench: &Bench| bench.disk.rows.get(&mark).map(|mark| mark[7]);
    (0..3).for_each(|_| drop(bench.write("k", "v")));
    let mut bench = bench.restart();
    bench.write("k", "v");
    assert_eq!(marked(&bench), None);
    bench.write("k", "v");
    assert_eq!(marked(&bench), Some(5));
    (0..4).for_each(|_| drop(bench.write("k", "v")));
    assert_eq!(marked(&bench), Some(5));
    bench.write("k", "v");
    assert_eq!(marked(&bench), Some(10));
}

/// Goal: a shard holds the partitions that are its node's and its own, loads each once, and keeps
/// what it has when the cluster's state changes (I9). Method: two shards of a node with four
/// partitions; a layout that comes again; one that the node is not in.
#[test]
fn a_shard_holds_its_partitions() {
    let cluster = cluster(layout(&[(3, 3)], 2), &policy());
    for shard in 0..2 {
        let boot =
            Boot { node: NodeId(1), actor: ACTOR, standing: Standing::Serves, shard, shards: 2 };
        let mut bench =
            Bench::start(boot, Arc::new(cluster.clone()), ShardConfig::test_min(), Disk::default());
        let held: Vec<u16> = (0..4)
            .filter(|&index| bench.shard.partition(Partition { index, ..PARTITION }).is_some())
            .collect();
        assert_eq!(held, [shard as u16, shard as u16 + 2]);
        let partition = Partition { index: shard as u16, ..PARTITION };
        bench.shard.partitions.get_mut(&partition).unwrap().next_dot(ACTOR);
        bench.input(Input::Cluster(Arc::new(cluster.clone())));
        assert_eq!(bench.shard.partition(partition).unwrap().own_counter(), 1);
    }
    let stranger = Bench::stranger(&[(4, 3)]);
    assert!(stranger.shard.partition(PARTITION).is_none());
    let boot =
        Boot { node: NodeId(1), actor: ACTOR, standing: Standing::Serves, shard: 0, shards: 1 };
    let mut shard = Shard::new(ShardConfig::test_min(), boot);
    let mut disk = Disk { read: Some(StoreError::Full), ..Disk::default() };
    let now = Now { mono: Mono(1), wall: WallMs(1) };
    let input = Input::Cluster(Arc::new(cluster));
    assert_eq!(shard.handle(now, input, &mut disk, &mut vec![]), Err(StoreError::Full));
}

/// Goal: quorums follow the layout. Method: the same key at `all` before and after two nodes join
/// the replicas.
#[test]
fn quorums_follow_the_layout() {
    let small = layout(&[(3, 1)], 0);
    let me = small.replicas(PARTITION)[0];
    let small = cluster(small, &policy());
    let mut replica = Bench::at(me, small, ShardConfig::test_min());
    let put = replica.put("k", "v", Level::All);
    let (caller, _) = replica.ask(Request::Put(put));
    assert!(reply_to(&replica.commit(), caller).is_some());
    let large = cluster(layout(&[(3, 3)], 0), &policy());
    replica.input(Input::Cluster(Arc::new(large)));
    let put = replica.put("k", "v", Level::All);
    let (caller, effects) = replica.ask(Request::Put(put));
    assert_eq!(writes(&effects)[0].0.len(), 2);
    assert_eq!(reply_to(&replica.commit(), caller), None);
}

/// Goal: only requests about keys get here. Method: another one.
#[test]
fn rare_requests_are_not_for_a_shard() {
    let mut bench = Bench::new(&[(1, 1)]);
    let request = holm_protocol::admin::AdminRequest::View;
    let (caller, effects) = bench.ask(Request::Admin(request));
    assert!(matches!(error(reply_to(&effects, caller)), RequestError::Malformed { .. }));
    assert_eq!(bench.shard.counters().overloads, 0);
}
