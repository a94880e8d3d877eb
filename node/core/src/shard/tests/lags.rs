//! Lag: what peers say they have and this node lacks, for how long, and how long writes took to come.

use super::*;
use crate::clock::DotSet;
use crate::peer::GapObject;
use crate::shard::lag::{Arrival, Bringer, RegionLag};

fn pulse(actor: u64, counter: u64) -> PeerMessage {
    let counters = vec![(PARTITION, counter)];
    PeerMessage::Pulse { actor: Actor(actor), hlc: Hlc::new(WALL_MS, 0), counters }
}

/// The lag behind one region.
#[track_caller]
fn behind(bench: &Bench, region: u16) -> RegionLag {
    let lags = bench.shard.lag(bench.now);
    *lags.iter().find(|lag| lag.region.0 == region).expect("the region holds it too")
}

/// Another node's answer to the question for gaps that is under way.
fn answer_gap(bench: &mut Bench, effects: &Effects, object: Bytes, dots: &[Dot]) {
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Send { to, message: PeerMessage::GapAsk { op, .. } } => Some((to[0], *op)),
        _ => None,
    });
    let (from, op) = asked.expect("a question");
    let mut done = DotSet::new();
    dots.iter().for_each(|dot| _ = done.insert(*dot));
    let key = Bytes::from_static(b"key");
    let objects = vec![GapObject { bucket: SIBLINGS, key, object, done }];
    let (cut, unknown) = (DotSet::new(), DotSet::new());
    let partition = PARTITION;
    bench.hear(from.0, PeerMessage::GapAnswer { op, partition, objects, cut, unknown });
}

/// Goal: what a region says it has counts as lag as soon as it is said, once however many of its
/// replicas say it, as a gap when no message on its way explains it, and not at all when it is here.
/// Method: regions of one, two and one nodes; pulses of both of the second.
#[test]
fn what_a_region_has_is_lag_until_it_is_here() {
    let mut bench = Bench::new(&[(1, 1), (2, 2), (1, 1)]);
    assert_eq!(bench.shard.lag(bench.now).len(), 2, "nobody else is in its own region");
    assert_eq!((behind(&bench, 1).writes, behind(&bench, 1).partitions), (0, 1));
    for from in [2, 3] {
        bench.hear(from, pulse(OTHER.0, 2));
    }
    bench.pass_ms(10);
    let lag = behind(&bench, 1);
    assert_eq!((lag.writes, lag.ms, lag.partitions_lacking, lag.gap_ms), (2, 10, 0, 0));
    assert!(lag.bytes > 0);
    assert_eq!((behind(&bench, 2).writes, behind(&bench, 2).ms), (0, 0));
    bench.hear(2, write_message(1, "key", foreign(ObjectKind::Siblings, 1, "v"), &[]));
    assert_eq!(behind(&bench, 1).writes, 1);
    bench.pass_ms(500);
    let asked = bench.commit();
    let lag = behind(&bench, 1);
    assert_eq!((lag.writes, lag.ms, lag.partitions_lacking), (1, 510, 1));
    assert_eq!(lag.gap_ms, 510);
    let object = foreign(ObjectKind::Siblings, 2, "w");
    answer_gap(&mut bench, &asked, object, &[Dot::new(OTHER, 2)]);
    bench.commit();
    let lag = behind(&bench, 1);
    assert_eq!((lag.writes, lag.bytes, lag.ms, lag.gap_ms), (0, 0, 0, 0));
}

/// Goal: while repair brings writes of an hour ago, this replica is an hour behind, however short it
/// has known of it. Method: a node that comes up to a claim of two writes, and is sent the first.
#[test]
fn old_writes_that_are_being_repaired_tell_their_age() {
    const HOUR_MS: u64 = 3_600_000;
    let mut bench = Bench::new(&[(1, 1), (1, 1)]);
    bench.now.wall.0 += HOUR_MS;
    bench.hear(2, pulse(OTHER.0, 2));
    bench.pass_ms(500);
    let asked = bench.commit();
    assert!(behind(&bench, 1).ms < 1_000);
    let object = foreign(ObjectKind::Siblings, 1, "v");
    answer_gap(&mut bench, &asked, object, &[Dot::new(OTHER, 1)]);
    bench.commit();
    let lag = behind(&bench, 1);
    assert_eq!((lag.writes, lag.ms / HOUR_MS), (1, 1), "{lag:?}");
    assert!(lag.gap_ms < 1_000);
}

/// Goal: a region that cannot be heard is one behind which this node is for as long as that; one of
/// whose replicas one can be heard is not.
#[test]
fn silence_is_lag() {
    let mut bench = Bench::new(&[(1, 1), (2, 2)]);
    bench.input(Input::PeerDown(NodeId(2)));
    bench.pass_ms(1_000);
    assert_eq!((behind(&bench, 1).ms, behind(&bench, 1).partitions_unheard), (0, 0));
    bench.input(Input::PeerDown(NodeId(3)));
    bench.pass_ms(700);
    let lag = behind(&bench, 1);
    assert_eq!((lag.ms, lag.partitions_unheard, lag.writes), (700, 1, 0));
    bench.input(Input::PeerUp(NodeId(2), Actor(0xa2)));
    assert_eq!((behind(&bench, 1).ms, behind(&bench, 1).partitions_unheard), (0, 0));
}

/// Goal: a write's arrival is told once, when it is durable, with the region that it comes from and what
/// brought it; an own write never, nor one of a batch that was lost.
#[test]
fn arrivals_are_told_when_they_are_durable() {
    let mut bench = Bench::new(&[(1, 1), (1, 1)]);
    let object = foreign(ObjectKind::Siblings, 1, "v");
    bench.write("own", "v");
    bench.hear(2, write_message(1, "key", object.clone(), &[]));
    assert_eq!(bench.shard.take_arrivals(), []);
    bench.fail_commit(StoreError::Full);
    bench.shard.resume(Actor(0xa9));
    assert_eq!(bench.shard.take_arrivals(), []);
    bench.hear(2, write_message(2, "key", object.clone(), &[]));
    bench.commit();
    let hlc = Hlc::new(WALL_MS, 0);
    let unknown = Arrival { hlc, region: None, by: Bringer::Write };
    assert_eq!(bench.shard.take_arrivals(), [unknown]);
    bench.hear(2, write_message(3, "key", object, &[]));
    bench.hear(2, pulse(OTHER.0, 1));
    let object = foreign(ObjectKind::Siblings, 2, "w");
    let (partition, bucket, key) = (PARTITION, SIBLINGS, Bytes::from_static(b"key"));
    bench.hear(2, PeerMessage::Repair { partition, bucket, key, object });
    bench.commit();
    let repaired = Arrival { hlc, region: Some(RegionId(1)), by: Bringer::Repair };
    assert_eq!(bench.shard.take_arrivals(), [repaired]);
    assert_eq!(bench.shard.take_arrivals(), []);
}
