//! Breakers: who does not answer is asked last for a while, tried by one request, and asked all the
//! same where nobody else can meet the level.

use super::*;
use crate::shard::peers::Peers;

const NODE: NodeId = NodeId(2);

fn ms(ms: u64) -> Mono {
    Mono(ms * 1_000)
}

/// Peers with a connection to the node, and a breaker that has just opened at this time.
fn tripped(now: Mono) -> Peers {
    let mut peers = Peers::default();
    peers.set_up(NODE, true);
    for miss in 0..5 {
        assert!(!peers.is_last(NODE, now), "after {miss} misses");
        peers.missed(NODE, now);
    }
    assert!(peers.is_last(NODE, now));
    peers
}

/// How long the node is asked last from now on, milliseconds.
fn paused(peers: &Peers, now: Mono) -> u64 {
    (0..100_000).find(|&later| !peers.is_last(NODE, now.plus_ms(later))).unwrap()
}

/// Goal: misses in a row open a breaker; one answer in between does not let it come to that.
#[test]
fn misses_in_a_row_open() {
    let mut peers = tripped(ms(0));
    assert_eq!((peers.trips, peers.open), (1, 1));
    assert_eq!(peers.breakers().collect::<Vec<_>>(), [(NODE, BreakerState::Open)]);
    peers.close(NODE);
    assert_eq!((peers.trips, peers.open, peers.is_last(NODE, ms(0))), (1, 0, false));
    for _ in 0..10 {
        (0..4).for_each(|_| peers.missed(NODE, ms(1)));
        peers.answered(NODE, ms(0), ms(1));
    }
    assert_eq!((peers.trips, peers.open), (1, 0));
}

/// Goal: after the pause one request tries the node, and while it does the others leave it alone; a
/// try that is in vain makes the next pause longer, up to a limit, and no two are alike.
#[test]
fn one_request_tries_and_pauses_grow() {
    let mut now = ms(7);
    let mut peers = tripped(now);
    let mut pauses = Vec::new();
    for whole in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let pause = paused(&peers, now);
        assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        pauses.push(pause * 1_000 / whole);
        now = now.plus_ms(pause);
        peers.asked(NODE, now);
        assert!(peers.is_last(NODE, now), "others leave it alone");
        assert_eq!(peers.breakers().collect::<Vec<_>>(), [(NODE, BreakerState::Probing)]);
        peers.missed(NODE, now.plus_ms(50));
        now = now.plus_ms(50);
    }
    assert_eq!((peers.trips, peers.probes, peers.open), (9, 8, 1));
    pauses.dedup();
    assert!(pauses.len() > 4, "{pauses:?}");
    // Of a try nothing may be heard at all.
    now = now.plus_ms(30_000);
    peers.asked(NODE, now);
    assert!(paused(&peers, now) <= 30_000);
    assert_eq!(peers.open, 1);
}

/// Goal: a new connection is a new chance, and without one nothing is counted; membership's doubt
/// lasts as long as it says.
#[test]
fn connections_and_doubts_count() {
    let mut peers = tripped(ms(0));
    peers.set_up(NODE, false);
    (0..9).for_each(|_| peers.missed(NODE, ms(0)));
    peers.set_up(NODE, true);
    assert_eq!((peers.is_last(NODE, ms(0)), peers.open), (false, 0));
    peers.set_doubted(NODE, true);
    assert!(peers.is_last(NODE, ms(1_000_000)) && peers.open == 0);
    peers.set_doubted(NODE, false);
    assert!(!peers.is_last(NODE, ms(0)));
}

/// Reads at a quorum and lets it be made good by whoever answers, which node 2 never does. Whom it
/// asked first.
fn read_without_2(bench: &mut Bench) -> NodeId {
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::Quorum)));
    let (to, op, _) = questions(&effects).remove(0);
    if to[0] == NODE {
        bench.pass_ms(150);
    }
    let object = bench.stored("k").unwrap();
    let answer = Found::Object(encoded(&object));
    assert!(reply_to(&bench.hear(3, found(op, answer)), caller).is_some());
    to[0]
}

/// Goal: a replica that never answers costs a few reads a hedge, then none but those that try it; and
/// where it is needed it is asked. Method: node 2 of three is up and silent; then node 3 goes away.
#[test]
fn a_silent_replica_is_asked_last_but_asked() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.write("k", "red");
    bench.pass_ms(2_000);
    let asked: Vec<NodeId> = (0..60).map(|_| read_without_2(&mut bench)).collect();
    let silent = asked.iter().filter(|&&node| node == NODE).count();
    assert_eq!(silent, 5, "{asked:?}");
    let counters = bench.shard.counters();
    assert_eq!((counters.breaker_trips, counters.breakers_open), (1, 1));
    bench.input(Input::PeerDown(NodeId(3)));
    let (_, effects) = bench.ask(Request::Get(get("k", Level::Quorum)));
    let asked: Vec<_> = questions(&effects).into_iter().map(|(to, ..)| to).collect();
    assert_eq!(asked, [vec![NODE]], "it is needed");
}

/// Goal: an answer that comes too late for its read still says that the replica lives: the slow are
/// not put last. Method: node 2 answers each read after it has ended.
#[test]
fn late_answers_keep_a_breaker_closed() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.write("k", "red");
    bench.pass_ms(2_000);
    let mut asked_2 = 0;
    for _ in 0..60 {
        let asked = read_without_2(&mut bench);
        asked_2 += usize::from(asked == NODE);
        bench.hear(2, found(OpId(1), Found::Absent));
    }
    assert!(asked_2 > 10, "{asked_2}");
    assert_eq!(bench.shard.counters().breaker_trips, 0);
}

/// Goal: a node whose membership is in doubt is asked last, and asked where it is needed. Method: doubt
/// node 2 of three; then node 3 goes away.
#[test]
fn the_doubted_are_asked_last() {
    let mut bench = Bench::new(&[(3, 3)]);
    bench.write("k", "red");
    bench.pass_ms(2_000);
    bench.input(Input::PeerDoubted(NODE, true));
    for _ in 0..5 {
        assert_eq!(read_without_2(&mut bench), NodeId(3));
    }
    bench.input(Input::PeerDown(NodeId(3)));
    let (_, effects) = bench.ask(Request::Get(get("k", Level::Quorum)));
    assert_eq!(questions(&effects)[0].0, [NODE]);
}

/// Goal: writes go to every replica, but choose a relay that answers if there is one. Method: region
/// `b` has nodes 2 and 3; node 2 is doubted.
#[test]
fn relays_are_those_that_answer() {
    let mut bench = Bench::new(&[(1, 1), (2, 2)]);
    bench.input(Input::PeerDoubted(NODE, true));
    for at in 0..6 {
        let put = bench.put(&format!("k{at}"), "red", Level::One);
        let (_, effects) = bench.ask(Request::Put(put));
        let to: Vec<NodeId> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send { to, message: PeerMessage::Write { .. } } => Some(to.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(to, [NodeId(3)]);
        bench.commit();
    }
}
