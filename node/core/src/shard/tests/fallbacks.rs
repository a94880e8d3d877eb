//! A region whose replicas are all out of reach: who coordinates there, under which actor, and what
//! is read.

use super::hinted::{home, sent_home};
use super::stand_ins::{keeps, kept, receipt};
use super::*;
use holm_protocol::error::NotReady;

/// Six nodes of which three are replicas, in this order of preference; the replicas are down, and
/// the bench is one of the others.
fn stranded(at: usize, policy: &BucketPolicy) -> (Bench, Vec<u64>) {
    let cluster = cluster(layout(&[(6, 3), (1, 1)], 0), policy);
    let list = cluster.layout.as_ref().unwrap().preference_list(PARTITION, RegionId(0));
    let mut bench = Bench::at(list[at], cluster, ShardConfig::test_min());
    for &replica in &list[..3] {
        bench.input(Input::PeerDown(replica));
    }
    (bench, list.iter().map(|node| node.0).collect())
}

fn hints(bench: &Bench) -> usize {
    bench.disk.rows.keys().filter(|(table, _)| *table == Table::Hints).count()
}

/// The first fallback takes a write at level one. Its answer.
fn write(bench: &mut Bench, value: &str, context: Bytes) -> Written {
    let put = Put { context, ..bench.put("k", value, Level::One) };
    bench.write_as(put)
}

/// Goal: the first fallback within reach coordinates, stands for one replica itself, asks others to
/// stand for the others, and sends remote regions their copy. Its actor is its own.
#[test]
fn the_first_fallback_coordinates() {
    let (mut bench, list) = stranded(3, &policy());
    let put = bench.put("k", "v", Level::LocalQuorum);
    let (caller, effects) = bench.ask(Request::Put(put.clone()));
    let op = writes(&effects)[0].1;
    assert_eq!(writes(&effects), [(nodes(&[7]), op, vec![])]);
    assert_eq!(keeps(&effects), [(list[4], list[1], op), (list[5], list[2], op)]);
    assert_eq!(bench.commit(), []);
    let effects = bench.hear(list[4], kept(op, list[1], None));
    let answer = written(&reply_to(&effects, caller).unwrap());
    let mut named = receipt(&answer);
    named.sort_by_key(|(node, _)| *node != list[3]);
    assert_eq!(named, [(list[3], true), (list[4], true)]);
    assert_ne!(answer.dot.actor, ACTOR);
    assert_eq!(hints(&bench), 1);
    assert!(bench.shard.partition(PARTITION).is_none(), "it is no replica");
    // The same request again is the same write.
    let (caller, effects) = bench.ask(Request::Put(put));
    assert_eq!(written(&reply_to(&effects, caller).unwrap()).dot, answer.dot);
    bench.hear(list[5], kept(op, list[2], None));
    bench.hear(7, durable(op, &[7]));
    bench.assert_quiet();
}

/// Goal: nothing of it at stricter levels, in strict buckets, where a replica of the region can be
/// reached, or at a node that has lost its memory; who is not the first asks the first.
#[test]
fn others_do_not() {
    let (mut bench, _) = stranded(3, &policy());
    for level in [Level::Quorum, Level::EachQuorum, Level::All] {
        let put = bench.put("k", "v", level);
        let (_, effects) = bench.ask(Request::Put(put));
        assert!(matches!(sends(&effects)[..], [(_, PeerMessage::Proxy { .. })]), "{level}");
    }
    let strict = BucketPolicy { strict: true, ..policy() };
    let (mut bench, _) = stranded(3, &strict);
    let put = bench.put("k", "v", Level::One);
    let asked = sends(&bench.ask(Request::Put(put)).1);
    assert_eq!(asked[0].0, nodes(&[7]), "a replica elsewhere");

    let (mut bench, list) = stranded(4, &policy());
    let put = bench.put("k", "v", Level::One);
    let asked = sends(&bench.ask(Request::Put(put.clone())).1);
    assert_eq!(asked[0].0, nodes(&[list[3]]));
    // Asked by another node, which reaches nobody before it, it does it.
    let proxied = |op| PeerMessage::Proxy {
        op: OpId(op),
        partition: PARTITION,
        request: Request::Put(Put {
            request: RequestId { client: 8, sequence: op },
            ..put.clone()
        }),
    };
    bench.hear(list[5], proxied(1));
    let answer = sends(&bench.commit());
    assert!(matches!(answer[0].1, PeerMessage::ProxyReply { reply: Reply::Written(_), .. }));
    bench.input(up(NodeId(list[0])));
    let refused = sends(&bench.hear(list[5], proxied(2)));
    let reason = NotReady::NotInLayout;
    let reply = Reply::Error(RequestError::NotReady { reason });
    let refusal = PeerMessage::ProxyReply { op: OpId(2), partition: PARTITION, reply };
    assert_eq!(refused, [(nodes(&[list[5]]), refusal)]);
}

/// Goal: no dot covers a write that the state does not account for. A fallback knows what its actor
/// wrote to a key only while it keeps it: what it writes after a hint went home is of another actor.
/// Method: two blind writes while the hint is here, which become siblings under one actor; then the
/// hint goes home, and a third, whose context must cover none of the two.
#[test]
fn an_actor_ends_when_its_hint_goes_home() {
    let (mut bench, list) = stranded(3, &policy());
    let one = write(&mut bench, "one", Bytes::new());
    let two = write(&mut bench, "two", Bytes::new());
    assert_eq!((one.dot.actor, one.dot.counter, two.dot.counter), (two.dot.actor, 1, 2));
    let covers = bench.opened("k", &two.context);
    assert!(!covers.covers(one.dot), "its writer has not seen it");
    assert_eq!(texts(&bench_read(&mut bench, &list)), ["one", "two"]);

    bench.input(up(NodeId(list[0])));
    let sent = sent_home(&bench.pass_ms(0));
    bench.hear(list[0], home(sent[0].1, None, 1_000));
    bench.commit();
    assert_eq!(hints(&bench), 0);
    bench.input(Input::PeerDown(NodeId(list[0])));
    let three = write(&mut bench, "three", Bytes::new());
    assert_ne!(three.dot.actor, one.dot.actor);
    assert_eq!(three.dot.counter, 1);
    let covers = bench.opened("k", &three.context);
    assert!(!covers.covers(one.dot) && !covers.covers(two.dot));
    // And of another in the next run, whatever is on the disk.
    let mut bench = bench.restart();
    for &replica in &list[..3] {
        bench.input(Input::PeerDown(NodeId(replica)));
    }
    let four = write(&mut bench, "four", three.context);
    assert!(![one.dot.actor, three.dot.actor].contains(&four.dot.actor));
    assert_eq!(texts(&bench_read(&mut bench, &list)), ["four"]);
}

/// Reads at level one while the other region is out of reach too.
fn bench_read(bench: &mut Bench, list: &[u64]) -> Values {
    bench.input(Input::PeerDown(NodeId(7)));
    let values = bench.read("k");
    let entry = values.receipt.replicas[0];
    assert_eq!((entry.node.0, entry.fallback), (list[3], true));
    bench.input(up(NodeId(7)));
    values
}

/// Goal: a read is answered from hints only at level one, when no replica anywhere can be reached,
/// and if there is something; what is not durable is not shown.
#[test]
fn hints_are_read_when_nothing_else_can_be() {
    let (mut bench, _) = stranded(3, &policy());
    write(&mut bench, "red", Bytes::new());
    let (_, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert_eq!(sends(&effects)[0].0, nodes(&[7]), "a replica elsewhere is better");
    bench.input(Input::PeerDown(NodeId(7)));
    let put = bench.put("k", "blue", Level::One);
    bench.ask(Request::Put(put));
    assert_eq!(texts(&bench.read("k")), ["red"]);
    bench.commit();
    assert_eq!(texts(&bench.read("k")), ["blue", "red"]);
    assert_eq!(bench.shard.counters().reads_from_hints, 2);
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::LocalQuorum)));
    assert!(matches!(error(reply_to(&effects, caller)), RequestError::ReadUnavailable { .. }));
    let (_, effects) = bench.ask(Request::Get(get("other", Level::One)));
    assert!(matches!(sends(&effects)[..], [(_, PeerMessage::Proxy { .. })]), "others may know");
}
