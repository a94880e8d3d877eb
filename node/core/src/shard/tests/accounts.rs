//! The bounds on what is held: requests in flight, bytes, lingering writes (I10).

use super::*;

fn put_one(bench: &mut Bench, value: &str, level: Level) -> (Caller, Effects) {
    let put = bench.put("k", value, level);
    bench.ask(Request::Put(put))
}

/// Goal: as many requests as configured are taken, the next is refused before anything changes, and
/// one that ends makes room for one. Method: two at a time, of each kind.
#[test]
fn requests_in_flight_are_limited() {
    let config = ShardConfig { in_flight_max: 2, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(3, 3)], config);
    let (_, effects) = put_one(&mut bench, "one", Level::Quorum);
    let op = writes(&effects)[0].1;
    bench.ask(Request::Get(get("k", Level::Quorum)));
    let (caller, effects) = put_one(&mut bench, "two", Level::Quorum);
    let overloaded = RequestError::Overloaded { in_flight: 2, limit: 2, retry_after_ms: 20 };
    assert_eq!(error(reply_to(&effects, caller)), overloaded);
    let (caller, effects) = bench.ask(Request::Get(get("k", Level::One)));
    assert_eq!(error(reply_to(&effects, caller)), overloaded);
    assert_eq!((bench.shard.counters().overloads, bench.shard.counters().in_flight), (2, 2));
    assert_eq!(bench.shard.partition(PARTITION).unwrap().own_counter(), 1);
    bench.commit();
    bench.hear(2, durable(op, &[2]));
    let (caller, effects) = put_one(&mut bench, "three", Level::Quorum);
    assert_eq!((reply_to(&effects, caller), writes(&effects).len()), (None, 1));
    bench.commit();
}

/// Goal: the bytes that requests hold are counted, limited, and given back. Method: one large write
/// that fills half the room and one that fills it; what comes next waits for their end.
#[test]
fn held_bytes_are_limited() {
    let config = ShardConfig { held_bytes_max: 3_000, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(3, 3)], config);
    let large = "x".repeat(1_400);
    let (_, effects) = put_one(&mut bench, &large, Level::Quorum);
    let first = writes(&effects)[0].1;
    let held = bench.shard.held_bytes;
    assert!(held > 1_400 && held < 1_600, "{held}");
    let put = bench.put("other", &large, Level::Quorum);
    let (_, effects) = bench.ask(Request::Put(put));
    let second = writes(&effects)[0].1;
    assert_eq!(bench.shard.held_bytes, 2 * held + "other".len() - "k".len() - 4);
    bench.shard.config.held_bytes_max = bench.shard.held_bytes;
    let (caller, effects) = put_one(&mut bench, "v", Level::Quorum);
    assert!(matches!(error(reply_to(&effects, caller)), RequestError::Overloaded { .. }));
    bench.shard.config.held_bytes_max += 1;
    bench.commit();
    for op in [first, second] {
        bench.hear(2, refusal(op, 2));
        bench.hear(3, refusal(op, 3));
    }
    bench.assert_quiet();
}

/// Goal: answered writes linger for their other replicas in limited number; the oldest are let go,
/// no more than must be. Method: one more than may linger, then replies for all of them.
#[test]
fn lingering_writes_are_limited_by_number() {
    let config = ShardConfig { lingering_max: 2, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(3, 3)], config);
    let mut ops = Vec::new();
    for (at, dropped) in [0, 0, 1, 2].into_iter().enumerate() {
        let (caller, effects) = put_one(&mut bench, "v", Level::One);
        ops.push(writes(&effects)[0].1);
        assert!(reply_to(&bench.commit(), caller).is_some());
        let counters = bench.shard.counters();
        assert_eq!(counters.lingering_dropped, dropped);
        assert_eq!(counters.lingering, (at + 1).min(2) as u64);
    }
    let here: Vec<bool> = ops.iter().map(|op| bench.shard.ops.contains_key(&op.0)).collect();
    assert_eq!(here, [false, false, true, true], "the oldest go first");
    for op in ops {
        bench.hear(2, durable(op, &[2]));
        bench.hear(3, durable(op, &[3]));
    }
    bench.assert_quiet();
}

/// Goal: lingering writes leave half of the room to requests. Method: a write that fills half of
/// it exactly, and one byte more.
#[test]
fn lingering_writes_are_limited_by_bytes() {
    for (less, stays) in [(0, true), (1, false)] {
        let mut bench = Bench::new(&[(3, 3)]);
        let (_, effects) = put_one(&mut bench, &"x".repeat(1_001), Level::One);
        let op = writes(&effects)[0].1;
        bench.shard.config.held_bytes_max = 2 * (bench.shard.held_bytes - less);
        bench.commit();
        assert_eq!(bench.shard.counters().lingering, u64::from(stays));
        assert_eq!(bench.shard.ops.contains_key(&op.0), stays);
        assert_eq!(bench.shard.held_bytes > 0, stays);
        assert_eq!(bench.shard.counters().lingering_dropped, u64::from(!stays));
    }
}

/// Goal: a write that has not been answered is not let go, however full it is. Method: an open
/// write, and lingering ones behind it that are.
#[test]
fn only_answered_writes_are_let_go() {
    let config = ShardConfig { lingering_max: 1, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(3, 3)], config);
    let (open, effects) = put_one(&mut bench, "open", Level::Quorum);
    let op = writes(&effects)[0].1;
    bench.commit();
    for _ in 0..3 {
        put_one(&mut bench, "v", Level::One);
        bench.commit();
    }
    assert_eq!(bench.shard.counters().lingering_dropped, 2);
    assert!(reply_to(&bench.hear(2, durable(op, &[2])), open).is_some());
}

/// Goal: the order of lingering writes stays short even if an old one never ends. Method: one that
/// waits for a silent replica, and hundreds behind it that end at once.
#[test]
fn the_order_of_lingering_writes_stays_short() {
    let config = ShardConfig { lingering_max: 100, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(3, 3)], config);
    put_one(&mut bench, "old", Level::One);
    bench.commit();
    let mut longest = 0;
    for at in 0..300 {
        let put = bench.put(&at.to_string(), "v", Level::One);
        let (_, effects) = bench.ask(Request::Put(put));
        let op = writes(&effects)[0].1;
        bench.commit();
        bench.hear(2, durable(op, &[2]));
        bench.hear(3, durable(op, &[3]));
        longest = longest.max(bench.shard.lingering.order.len());
    }
    assert_eq!(bench.shard.counters().lingering, 1);
    // Twice as many as there are, and some slack, so that sweeping costs little.
    assert!((40..=70).contains(&longest), "{longest}");
    assert_eq!(bench.shard.counters().lingering_dropped, 0);
}

/// Goal: the counters of now are those of now, and what is cached is counted. Method: before and
/// after a write.
#[test]
fn gauges_follow_what_is_there() {
    let mut bench = Bench::new(&[(3, 3)]);
    assert_eq!(bench.shard.counters(), Counters::default());
    put_one(&mut bench, "v", Level::Quorum);
    let counters = bench.shard.counters();
    assert_eq!((counters.in_flight, counters.lingering), (1, 0));
    assert!(counters.cache_bytes > 200, "{counters:?}");
    assert!(!bench.shard.is_crowded());
}

/// Goal: a batch that touches more than the cache may hold asks for its commit. Method: put more
/// than four megabytes, the least that is always allowed.
#[test]
fn a_large_batch_is_crowded() {
    let config = ShardConfig { held_bytes_max: 64 << 20, ..ShardConfig::test_min() };
    let mut bench = Bench::with(&[(1, 1)], config);
    for at in 1..=5 {
        let put = bench.put(&at.to_string(), &"x".repeat(1 << 20), Level::One);
        bench.ask(Request::Put(put));
        assert_eq!(bench.shard.is_crowded(), at >= 4, "{at}");
    }
    bench.commit();
    assert!(!bench.shard.is_crowded());
}
