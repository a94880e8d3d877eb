//! The parts of a shard by themselves: cache, idempotence window, round trips, timers, ownership.

use super::*;
use crate::shard::cache::{Place, hex};
use crate::shard::config::shard_of;
use crate::shard::window::Fate;

/// An object with one value.
fn object(value: &str) -> Object {
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), sibling(1, value));
    object
}

fn load(cache: &mut ObjectCache, disk: &mut Disk, key: &str) -> Place {
    cache.load(key.as_bytes(), ObjectKind::Siblings, disk).unwrap()
}

fn change(cache: &mut ObjectCache, place: Place, value: &str) {
    let object = object(value);
    let bytes = encoded(&object);
    cache.change(place, object, bytes);
}

/// Stages, commits, and tells the cache.
fn commit(cache: &mut ObjectCache, disk: &mut Disk) {
    cache.stage(disk);
    disk.commit().unwrap();
    cache.committed();
}

/// Goal: who looks from outside sees what the open batch has made of an object, in either
/// generation, and moves nothing.
#[test]
fn looking_from_outside_moves_nothing() {
    let (mut cache, mut disk) = (ObjectCache::new(100), Disk::default());
    assert_eq!(cache.peek(b"key"), None);
    let place = load(&mut cache, &mut disk, "key");
    change(&mut cache, place, "v");
    assert_eq!(cache.peek(b"key"), Some(&object("v")));
    // The budget is small: the object is old after one commit, and gone after the next that turns.
    commit(&mut cache, &mut disk);
    assert_eq!(cache.peek(b"key"), Some(&object("v")), "old");
    let other = load(&mut cache, &mut disk, "other");
    change(&mut cache, other, "w");
    commit(&mut cache, &mut disk);
    assert_eq!(cache.peek(b"key"), None, "looked at, and gone all the same");
}

/// Goal: what is counted is what is there: about the size of objects and keys, and nothing of what
/// was dropped (I10). Method: load, change, move between generations, drop; compare with sums.
#[test]
fn the_cache_counts_its_bytes() {
    let (mut cache, mut disk) = (ObjectCache::new(20_000), Disk::default());
    let size = |key: &str, object: &Object| key.len() + object.size_bytes() + 160;
    let empty = Object::new(ObjectKind::Siblings);
    assert_eq!(cache.bytes(), 0);
    let place = load(&mut cache, &mut disk, "key");
    assert_eq!(cache.bytes(), size("key", &empty));
    load(&mut cache, &mut disk, "key");
    assert_eq!(cache.bytes(), size("key", &empty), "once");
    let long = "x".repeat(6_000);
    change(&mut cache, place, &long);
    let first = size("key", &object(&long));
    assert_eq!(cache.bytes(), first);
    change(&mut cache, place, "short");
    assert_eq!(cache.bytes(), size("key", &object("short")));
    change(&mut cache, place, &long);
    commit(&mut cache, &mut disk);
    let other = load(&mut cache, &mut disk, "other");
    change(&mut cache, other, &long);
    // More than half of the budget is young now: it grows old at the commit.
    let second = size("other", &object(&long));
    commit(&mut cache, &mut disk);
    assert_eq!(cache.bytes(), first + second);
    // A touched one moves back; the rest goes when the next generation is full.
    let other = load(&mut cache, &mut disk, "other");
    assert_eq!(cache.object(other), &object(&long));
    assert_eq!(cache.bytes(), first + second);
    let third = load(&mut cache, &mut disk, "third");
    change(&mut cache, third, &long);
    commit(&mut cache, &mut disk);
    assert_eq!(cache.bytes(), second + size("third", &object(&long)));
    disk.read = Some(StoreError::Full);
    assert!(cache.load(b"key", ObjectKind::Siblings, &mut disk).is_err(), "dropped");
    load(&mut cache, &mut disk, "other");
}

/// Goal: generations turn above half of the budget, only at a commit; a batch is crowded above the
/// whole budget, or four megabytes. Method: to the byte.
#[test]
fn generations_turn_above_half_of_the_budget() {
    let one = 3 + object("v").size_bytes() + 160;
    for (budget, turns) in [(2 * one, false), (2 * one - 1, true)] {
        let (mut cache, mut disk) = (ObjectCache::new(budget), Disk::default());
        let place = load(&mut cache, &mut disk, "key");
        change(&mut cache, place, "v");
        commit(&mut cache, &mut disk);
        // Were it old by now, a second turn would drop it.
        let place = load(&mut cache, &mut disk, "oth");
        change(&mut cache, place, "v");
        commit(&mut cache, &mut disk);
        disk.read = Some(StoreError::Full);
        assert_eq!(cache.load(b"key", ObjectKind::Siblings, &mut disk).is_err(), turns);
    }
    let exact = (4 << 20) - (3 + object("").size_bytes() + 160);
    for (more, crowded) in [(0, false), (1, true)] {
        let (mut cache, mut disk) = (ObjectCache::new(100), Disk::default());
        let place = load(&mut cache, &mut disk, "key");
        change(&mut cache, place, &"x".repeat(exact + more));
        assert_eq!(cache.is_crowded(), crowded);
        assert!(cache.has_changes());
    }
}

/// Goal: a change is open until its commit, and gone with its batch. Method: commit one, roll
/// another back.
#[test]
fn changes_are_open_until_their_commit() {
    let (mut cache, mut disk) = (ObjectCache::new(100_000), Disk::default());
    let place = load(&mut cache, &mut disk, "key");
    assert!(!cache.is_open(place) && !cache.has_changes());
    change(&mut cache, place, "one");
    assert!(cache.is_open(place) && cache.has_changes());
    assert_eq!(cache.key(place), &b"key"[..]);
    commit(&mut cache, &mut disk);
    assert!(!cache.is_open(place) && !cache.has_changes());
    assert_eq!(cache.object(place), &object("one"));
    change(&mut cache, place, "two");
    let bytes = cache.bytes();
    cache.roll_back();
    assert!(!cache.has_changes() && cache.bytes() < bytes);
    let place = load(&mut cache, &mut disk, "key");
    assert_eq!(cache.object(place), &object("one"));
    for batch in 0..3 {
        let (a, b) = (load(&mut cache, &mut disk, "a"), load(&mut cache, &mut disk, "b"));
        change(&mut cache, a, &batch.to_string());
        assert!(cache.is_open(a) && !cache.is_open(b), "{batch}");
        commit(&mut cache, &mut disk);
    }
}

/// Goal: the last change of a key is the one that is stored. Method: two in one batch, between
/// others.
#[test]
fn the_last_change_is_stored() {
    let (mut cache, mut disk) = (ObjectCache::new(100_000), Disk::default());
    for (key, value) in [("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("b", "3")] {
        let place = load(&mut cache, &mut disk, key);
        change(&mut cache, place, value);
    }
    commit(&mut cache, &mut disk);
    assert_eq!(disk.rows[&(Table::Objects, b"b".to_vec())], encoded(&object("3")));
    assert_eq!(disk.rows.len(), 3);
}

/// Goal: an absent key has the kind it is asked for last; what is there keeps its own. Method: ask
/// for both kinds, before and after a write.
#[test]
fn nothing_is_of_no_kind() {
    let (mut cache, mut disk) = (ObjectCache::new(100_000), Disk::default());
    for kind in [ObjectKind::Siblings, ObjectKind::Lww, ObjectKind::Siblings] {
        let place = cache.load(b"key", kind, &mut disk).unwrap();
        assert_eq!(cache.object(place).kind(), kind);
    }
    let place = load(&mut cache, &mut disk, "key");
    change(&mut cache, place, "v");
    let place = cache.load(b"key", ObjectKind::Lww, &mut disk).unwrap();
    assert_eq!(cache.object(place), &object("v"));
}

/// Goal: damage is told with the key it concerns. Method: a damaged row.
#[test]
fn damage_names_its_key() {
    let (mut cache, mut disk) = (ObjectCache::new(100_000), Disk::default());
    disk.rows.insert((Table::Objects, vec![0, 0xab]), b"damaged".to_vec());
    let damage = cache.load(&[0, 0xab], ObjectKind::Siblings, &mut disk);
    let Err(StoreError::Corrupt(text)) = damage else { panic!("{damage:?}") };
    assert!(text.contains("00ab"), "{text}");
    assert_eq!(hex(&[0, 0xab]), "00ab");
}

fn id(sequence: u64) -> RequestId {
    RequestId { client: 1, sequence }
}

fn done() -> Fate {
    Fate::Done(Bytes::from_static(b"done"))
}

/// Goal: the window is bounded by number: the oldest goes, unless it is in flight. Method: one more
/// than fit, with and without the oldest in flight.
#[test]
fn the_window_is_bounded_by_number() {
    let now = Mono(1);
    for in_flight in [false, true] {
        let mut window = RequestWindow::new(3, 1_000);
        let fate = if in_flight { Fate::InFlight(OpId(5)) } else { done() };
        window.begin(now, id(1), 7, fate);
        for sequence in 2..=3 {
            window.begin(now, id(sequence), 7, done());
        }
        let known = |window: &RequestWindow| {
            (1..=4).map(|s| window.get(id(s)).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(known(&window), [true, true, true, false]);
        window.begin(now, id(4), 7, done());
        assert_eq!(window.get(id(1)).is_some(), in_flight);
        assert_eq!(known(&window).iter().filter(|known| **known).count(), 3);
        assert!(window.get(id(4)).is_some());
    }
}

/// Goal: a window that had to keep writes in flight shrinks again when they end. Method: all in
/// flight, beyond the limit; settle them; remember a few more.
#[test]
fn the_window_shrinks_again() {
    let now = Mono(1);
    let mut window = RequestWindow::new(3, 1_000);
    for sequence in 0..9 {
        window.begin(now, id(sequence), 7, Fate::InFlight(OpId(5)));
    }
    let count = |window: &RequestWindow| (0..40).filter(|&s| window.get(id(s)).is_some()).count();
    assert_eq!(count(&window), 9);
    (0..9).for_each(|sequence| window.settle(id(sequence), done()));
    for sequence in 9..14 {
        window.begin(now, id(sequence), 7, done());
    }
    assert_eq!(count(&window), 3);
}

/// Goal: the window is bounded by time, also for what never ended. Method: at the end of the time
/// and just before.
#[test]
fn the_window_is_bounded_by_time() {
    for (after_us, known) in [(999_999, true), (1_000_000, false)] {
        for fate in [done(), Fate::InFlight(OpId(5))] {
            let mut window = RequestWindow::new(100, 1_000);
            window.begin(Mono(1), id(1), 7, fate);
            window.begin(Mono(1 + after_us), id(2), 7, done());
            assert_eq!(window.get(id(1)).is_some(), known);
            assert_eq!(window.get(id(2)).map(|known| known.fingerprint), Some(7));
        }
    }
}

/// Goal: what became of a write replaces what was known, once. Method: begin, settle, begin again;
/// settle what is not known.
#[test]
fn the_window_knows_the_last_fate() {
    let mut window = RequestWindow::new(2, 1_000);
    window.begin(Mono(1), id(1), 7, Fate::InFlight(OpId(5)));
    window.settle(id(1), done());
    assert_eq!(window.get(id(1)).unwrap().fate, done());
    window.settle(id(2), done());
    assert!(window.get(id(2)).is_none());
    // Under the same id again: one entry, one place in the order.
    window.begin(Mono(1), id(1), 8, done());
    window.begin(Mono(1), id(2), 7, done());
    assert!(window.get(id(1)).is_some());
}

/// Goal: round trips are smoothed as TCP does (RFC 6298): an eighth of each new one, and a quarter
/// of its deviation. Method: the figures of three answers, worked out by hand.
#[test]
fn round_trips_are_smoothed() {
    let node = NodeId(2);
    let mut peers = Peers::default();
    assert_eq!((peers.srtt_us(node), peers.late_after_us(node)), (0, 0));
    peers.answered(node, Mono(1_000), Mono(9_000));
    // 8000, deviation 4000.
    assert_eq!((peers.srtt_us(node), peers.late_after_us(node)), (8_000, 24_000));
    peers.answered(node, Mono(0), Mono(16_000));
    // Deviation (3 * 4000 + 8000) / 4 = 5000, mean (7 * 8000 + 16000) / 8 = 9000.
    assert_eq!((peers.srtt_us(node), peers.late_after_us(node)), (9_000, 29_000));
    peers.answered(node, Mono(0), Mono(1_000));
    // Deviation (3 * 5000 + 8000) / 4 = 5750, mean (7 * 9000 + 1000) / 8 = 8000.
    assert_eq!((peers.srtt_us(node), peers.late_after_us(node)), (8_000, 31_000));
}

/// Goal: only a connection that was there can be lost. Method: down, up, down, down.
#[test]
fn losses_count_connections() {
    let node = NodeId(2);
    let mut peers = Peers::default();
    let mut set_up = |up| {
        peers.set_up(node, up);
        (peers.is_up(node), peers.losses(node))
    };
    assert_eq!(set_up(false), (false, 0));
    assert_eq!(set_up(true), (true, 0));
    assert_eq!(set_up(true), (true, 0));
    assert_eq!(set_up(false), (false, 1));
    assert_eq!(set_up(false), (false, 1));
    assert_eq!(set_up(true), (true, 1));
    assert_eq!(peers.losses(NodeId(3)), 0);
}

/// Goal: wake-ups come in order, not before their time, and not after they were taken back. Method:
/// three of them.
#[test]
fn wake_ups_come_in_order() {
    let mut timers = Timers::default();
    timers.set(Mono(30), OpId(1));
    timers.set(Mono(10), OpId(2));
    timers.set(Mono(20), OpId(3));
    timers.clear(Mono(20), OpId(3));
    assert_eq!((timers.next(), timers.pop_due(Mono(9))), (Some(Mono(10)), None));
    assert_eq!(timers.pop_due(Mono(10)), Some(OpId(2)));
    assert_eq!((timers.next(), timers.pop_due(Mono(10))), (Some(Mono(30)), None));
    assert_eq!(timers.pop_due(Mono(31)), Some(OpId(1)));
    assert_eq!((timers.next(), timers.pop_due(Mono(99))), (None, None));
}

/// Goal: each partition has one shard, whatever their number, 0 included. Method: all of some.
#[test]
fn each_partition_has_one_shard() {
    for shards in [0, 1, 2, 3, 8] {
        for index in 0..16 {
            let partition = Partition { index, ..PARTITION };
            let owner = shard_of(partition, shards);
            let boot = |shard| Boot {
                node: NodeId(1),
                actor: ACTOR,
                standing: Standing::Serves,
                shard,
                shards,
            };
            let owners = (0..shards.max(1)).filter(|&shard| boot(shard).owns(partition));
            assert_eq!(owners.collect::<Vec<_>>(), [owner]);
            assert_eq!(owner, usize::from(index) % shards.max(1));
        }
    }
}
