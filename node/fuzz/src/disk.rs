//! What a shard finds on its disk at start: objects, log records, checkpoints, marks.
//!
//! Promises: whatever the rows, a shard starts or says what is damaged; one that has started
//! serves, commits, and starts again with the clocks it had (I3, I11).

use bytes::{BufMut, Bytes};
use holm_core::clock::PartitionClock;
use holm_core::keys::{checkpoint_key, log_key, log_mark_key, object_key};
use holm_core::shard::Shard;
use holm_core::shard::config::{Boot, Standing};
use holm_core::shard::event::{Caller, Effects, Input as Event};
use holm_core::shard::log::decode_record;
use holm_core::store::{Store, StoreError, Table};
use holm_core::time::{Mono, Now, WallMs};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Request, put_dot};
use holm_protocol::wire::{put_slice, put_varint};
use holm_sim::store::{SimStore, SyncMode};

use crate::input::{Input, sealed};
use crate::objects;
use crate::shard::place::{self, BUCKETS, KEYS, ME};

/// The first byte chooses: one log record, or a disk.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte().is_multiple_of(4) {
        let _ = decode_record(input.rest());
        return;
    }
    let mut store = SimStore::new(SyncMode::Always);
    for _ in 0..24 {
        if input.is_empty() {
            break;
        }
        row(&mut input, &mut store);
    }
    assert!(store.commit().is_ok());
    let Ok((mut shard, clocks)) = start(1, &mut store) else { return };
    serve(&mut shard, &mut store);
    drop(shard);
    // Serving has added dots of run 1 and nothing else.
    match start(2, &mut store) {
        Ok((_, again)) => {
            for (partition, before) in clocks {
                let after = again.iter().find(|(it, _)| *it == partition);
                let covers = after.is_some_and(|(_, after)| after.covers(&before));
                assert!(covers, "{partition} has forgotten what it had seen");
            }
        }
        Err(what) => panic!("a shard that has served does not start again: {what}"),
    }
}

fn partition(input: &mut Input<'_>) -> Partition {
    let all = place::partitions();
    match input.pick(&all) {
        Some(partition) if input.byte() < 250 => partition,
        _ => Partition::from_u32(input.number() as u32),
    }
}

/// One row, of one of the shapes that the core writes, or of none.
fn row(input: &mut Input<'_>, store: &mut SimStore) {
    match input.byte() % 6 {
        0 => {
            let stream = if input.flag() { 1 << 16 } else { input.number() as u32 };
            store.stage_put(Table::Log, &log_key(stream, sequence(input)), &record(input));
        }
        1 => {
            let mut clock = Vec::new();
            clock_of(input).encode(&mut clock);
            let key = checkpoint_key(partition(input));
            store.stage_put(Table::Meta, &key, &sealed(clock));
        }
        2 => {
            let stream = if input.flag() { 1 << 16 } else { input.number() as u32 };
            let mark = sequence(input).to_be_bytes();
            let value = if input.byte() < 240 { &mark[..] } else { input.bytes(12) };
            store.stage_put(Table::Meta, &log_mark_key(stream), value);
        }
        3 => {
            let mut key = Vec::new();
            let bucket = BUCKETS[input.below(2)];
            object_key(&mut key, partition(input), bucket, KEYS[input.below(KEYS.len())]);
            let mut object = objects::raw(input);
            // Runs have random names: no disk holds one that is still to come.
            object.context.iter_mut().for_each(|(actor, _)| actor.0 &= !place::OUR_RUNS);
            let object = object.encode();
            store.stage_put(Table::Objects, &key, &object);
        }
        4 => {
            let table = Table::ALL[input.below(Table::ALL.len())];
            let (key, value) = (input.bytes(16), input.bytes(64));
            store.stage_put(table, key, value);
        }
        _ => {
            let table = Table::ALL[input.below(Table::ALL.len())];
            let key = input.bytes(16);
            let value = sealed(input.bytes(64).to_vec());
            store.stage_put(table, key, &value);
        }
    }
}

/// The number of a record: of a log that was written, or one that nobody can have reached. (Of one
/// just below that limit, nothing is promised.)
fn sequence(input: &mut Input<'_>) -> u64 {
    let number = input.number();
    if (1 << 62..=1 << 63).contains(&number) { u64::MAX } else { number }
}

fn clock_of(input: &mut Input<'_>) -> PartitionClock {
    let mut clock = PartitionClock::new();
    for _ in 0..input.below(5) {
        let actor = Actor(input.below(4) as u64);
        let first = input.number();
        clock.insert_range(actor, first, first.saturating_add(input.number()));
    }
    clock
}

fn record(input: &mut Input<'_>) -> Bytes {
    let mut out = Vec::new();
    let count = input.below(5) as u64;
    put_varint(&mut out, if input.byte() < 240 { count } else { input.number() });
    for _ in 0..count {
        out.put_u32(partition(input).to_u32());
        put_dot(&mut out, Dot::new(Actor(input.below(4) as u64), input.number()));
        out.put_u64(Hlc(input.number()).0);
        out.put_u32(BUCKETS[input.below(2)].0);
        put_slice(&mut out, input.bytes(12));
    }
    sealed(out)
}

fn now(at_ms: u64) -> Now {
    Now { mono: Mono(at_ms * 1000), wall: WallMs(1_700_000_000_000 + at_ms) }
}

type Clocks = Vec<(Partition, PartitionClock)>;

/// Starts the shard of run `actor`; or what it says is damaged.
fn start(actor: u64, store: &mut SimStore) -> Result<(Shard, Clocks), String> {
    let boot = Boot {
        node: ME,
        actor: Actor(place::OUR_RUNS | actor),
        standing: Standing::Serves,
        shard: 0,
        shards: 1,
    };
    let mut shard = Shard::new(place::config(), boot);
    let mut effects = Effects::new();
    let event = Event::Cluster(place::cluster());
    match shard.handle(now(0), event, store, &mut effects) {
        Ok(()) => {
            let clock = |id| Some((id, shard.partition(id)?.clock().clone()));
            let clocks = place::partitions().into_iter().filter_map(clock).collect();
            Ok((shard, clocks))
        }
        Err(StoreError::Corrupt(what)) => {
            assert!(!what.is_empty());
            Err(what)
        }
        Err(other) => panic!("the disk has not failed: {other}"),
    }
}

/// Reads and writes every key.
fn serve(shard: &mut Shard, store: &mut SimStore) {
    let mut effects = Effects::new();
    let mut sequence = 0;
    for bucket in BUCKETS {
        for key in KEYS {
            sequence += 1;
            let key = Bytes::from_static(key);
            let request = place::request_id(sequence);
            let (level, timeout_ms) = (Some(Level::One), 100);
            let (value, context) = (Bytes::from_static(b"v"), Bytes::new());
            let put = Put { bucket, key: key.clone(), value, context, level, request, timeout_ms };
            let get = Get { bucket, key, level, timeout_ms };
            for request in [Request::Get(get), Request::Put(put)] {
                let caller = Caller { lane: 1, request: sequence };
                let event = Event::Client { caller, request };
                assert!(shard.handle(now(sequence), event, store, &mut effects).is_ok());
            }
            assert!(shard.commit(now(sequence), store, &mut effects).is_ok());
        }
    }
    assert!(shard.checkpoint(store).is_ok());
}
