//! What a node with a valid certificate could do to another, and cannot any more. Each test plays
//! one story in the world of the target `shard`, whose rules judge it.

use bytes::Bytes;
use holm_core::peer::{Found, OpId, PeerMessage};
use holm_fuzz::input::RawObject;
use holm_fuzz::shard::place::{self, BUCKETS, KEYS, ME};
use holm_fuzz::shard::world::World;
use holm_protocol::ids::{Actor, Hlc, NodeId, Partition, PlacementId};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Request};

/// Siblings and context entries that one object may have.
const OBJECT_MAX: u64 = 1024;
const LIAR: NodeId = NodeId(2);
/// Objects of that size that are more than a clock can hold, and a checkpoint after it is too full.
const ROUNDS: u64 = 70;

/// A key of which this node and the liar hold replicas, and its partition.
fn place_of_both() -> (Bytes, Partition) {
    let layout = place::layout();
    let both = KEYS.iter().find_map(|key| {
        let partition = layout.partition(PlacementId(0), BUCKETS[0], key)?;
        let holds = |node| layout.is_replica(partition, node);
        (holds(ME) && holds(LIAR)).then(|| (Bytes::from_static(key), partition))
    });
    both.unwrap_or_else(|| panic!("no key of six is held by both"))
}

/// Entries of ever new actors, the first of which is given, and a sibling each.
fn of_new_actors(first: u64, siblings: u64) -> Bytes {
    let context = (0..OBJECT_MAX).map(|n| (Actor(first + n), 1)).collect();
    let live = (0..siblings).map(|n| (n, 1, Hlc(1), Some(vec![]))).collect();
    RawObject { kind: 1, context, live }.encode()
}

fn write(world: &mut World, op: u64, object: Bytes, fan_out: &[NodeId]) {
    let (key, partition) = place_of_both();
    let (op, bucket, fan_out) = (OpId(op), BUCKETS[0], fan_out.to_vec());
    world.peer(LIAR, &PeerMessage::Write { op, partition, bucket, key, object, fan_out });
}

/// A clock is read back up to 65,536 actors. A peer named 70 times 1,024 that nobody ever was, all
/// of them were marked as seen, and the checkpoint that was written then was taken for damage: the
/// node did not start again. Past a limit below that such objects are refused.
#[test]
fn ever_new_actors_do_not_make_the_clock_unreadable() {
    let mut world = World::new();
    for round in 0..ROUNDS {
        other_keys(&mut world, round, of_new_actors(1 + round * OBJECT_MAX, 0));
        world.commit();
    }
    let refused = world.counters().peer_rejections;
    world.end();
    assert!(refused > 0);
}

/// Past that limit a node was to have room for its own runs, and had none: its first write named the
/// run's actor, which is new too, so that after a restart every write was refused, also those that
/// had seen nothing.
#[test]
fn a_restart_at_the_limit_of_actors_takes_writes() {
    let mut world = World::new();
    let (key, _) = place_of_both();
    for round in 0..ROUNDS {
        other_keys(&mut world, round, of_new_actors(1 + round * OBJECT_MAX, 0));
        world.commit();
    }
    let refused = world.counters().peer_rejections;
    assert!(refused > 0, "the limit is reached");
    // No more than the siblings that a key may have.
    for puts in [1..3, 3..4] {
        world.restart(false);
        for put in puts {
            world.asked.clear();
            let (bucket, request) = (BUCKETS[0], place::request_id(put));
            let (key, value, context) = (key.clone(), Bytes::from_static(b"v"), Bytes::new());
            let level = Some(Level::One);
            let put = Put { bucket, key, value, context, level, request, timeout_ms: 100 };
            world.request(Request::Put(put));
            let is_write = |(_, it): &(_, PeerMessage)| matches!(it, PeerMessage::Write { .. });
            assert!(world.asked.iter().any(is_write), "a write was refused");
            world.commit();
        }
    }
    // Nobody else has got more room by that.
    other_keys(&mut world, ROUNDS, of_new_actors(1 + ROUNDS * OBJECT_MAX, 0));
    assert_eq!(world.counters().peer_rejections, 1);
    world.end();
}

/// Joins an object under a key of its own: of the same partition, found by trying.
fn other_keys(world: &mut World, round: u64, object: Bytes) {
    let (_, partition) = place_of_both();
    let layout = place::layout();
    let fits = |key: &Bytes| layout.partition(PlacementId(0), BUCKETS[0], key) == Some(partition);
    let keys = (0u64..).map(|n| Bytes::from(format!("{round}-{n}")));
    let Some(key) = keys.into_iter().find(fits) else { return };
    world.peer(LIAR, &PeerMessage::Repair { partition, bucket: BUCKETS[0], key, object });
}

/// As above, with one actor: every second of its writes, 1,024 to an object. Each is a range of its
/// own in the clock, and 65,536 are read back.
#[test]
fn ever_more_gaps_do_not_make_the_clock_unreadable() {
    let mut world = World::new();
    for round in 0..ROUNDS {
        let first = 2 + round * 2 * OBJECT_MAX;
        let context = vec![(Actor(7), first + 2 * OBJECT_MAX - 2)];
        let dot = |n| (0, first + 2 * n, Hlc(1), Some(vec![]));
        let live = (0..OBJECT_MAX).map(dot).collect();
        let object = RawObject { kind: 1, context, live }.encode();
        other_keys(&mut world, round, object);
        world.commit();
    }
    let refused = world.counters().peer_rejections;
    world.end();
    assert!(refused > 0);
}

/// Each replica may hold 1,024 siblings and entries. The answers of two that held different ones
/// were joined and sent to the client, which could not read more than 1,024 of either; a replica
/// that answered again and again let the merge grow without limit. What does not fit any more
/// counts as a refusal.
#[test]
fn answers_that_are_too_large_together_are_not_joined() {
    let mut world = World::new();
    let (key, _) = place_of_both();
    let (bucket, level) = (BUCKETS[0], Some(Level::All));
    world.request(Request::Get(Get { bucket, key, level, timeout_ms: 100 }));
    for round in 0..4 {
        for (from, question) in world.asked.clone() {
            if let PeerMessage::Read { op, partition, .. } = question {
                let first = 1 + (from.0 * 8 + round) * 2 * OBJECT_MAX;
                let found = Found::Object(of_new_actors(first, OBJECT_MAX));
                world.peer(from, &PeerMessage::ReadReply { op, partition, found });
            }
        }
    }
    assert!(world.counters().peer_rejections > 0);
    world.end();
}

/// A read that waited for its own replica's commit ends within that commit. If it finds this replica
/// stale, the repair was left in an open batch that nobody had a reason to commit: its dots were in
/// the clock, which a clean stop writes, and its object nowhere. It takes replies that are there
/// before the commit: of nodes that guessed the operation, which counts up from the run's actor.
#[test]
fn a_repair_that_ends_within_a_commit_is_committed() {
    let mut world = World::new();
    let (key, partition) = place_of_both();
    let (bucket, request) = (BUCKETS[0], place::request_id(1));
    let (value, level) = (Bytes::from_static(b"v"), Some(Level::All));
    let context = Bytes::new();
    let put = Put { bucket, key: key.clone(), value, context, level, request, timeout_ms: 100 };
    world.request(Request::Put(put));
    world.request(Request::Get(Get { bucket, key, level, timeout_ms: 100 }));
    for (from, question) in world.asked.clone() {
        if let PeerMessage::Read { op, .. } = question {
            let (context, live) = (vec![(Actor(7), 1)], vec![(0, 1, Hlc(1), Some(vec![]))]);
            let found = Found::Object(RawObject { kind: 1, context, live }.encode());
            world.peer(from, &PeerMessage::ReadReply { op, partition, found });
        }
    }
    world.commit();
    assert!(world.counters().read_repairs > 0, "this replica was stale, among others");
    world.stop();
    world.restart(false);
    world.end();
}

/// A relay remembers each write that it passes on until all have answered. Nothing limited how many
/// that were: a peer that sent one after the other filled the memory.
#[test]
fn relays_are_bounded() {
    let mut world = World::new();
    let limit = place::config().relays_max as u64;
    let (_, partition) = place_of_both();
    let layout = place::layout();
    let home = layout.region_of(ME).expect("it is in the layout");
    let fan_out: Vec<NodeId> = layout.replicas_in(partition, home).to_vec();
    for op in 0..2 * limit {
        let context = vec![(Actor(7), op + 1)];
        let object = RawObject { kind: 1, context, live: vec![] }.encode();
        write(&mut world, op, object, &fan_out);
        assert!(world.counters().relays <= limit);
    }
    assert_eq!(world.counters().relays, limit);
    assert_eq!(world.counters().overloads, limit);
    world.end();
}
