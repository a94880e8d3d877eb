//! Goal: clocks come back from the log exactly, whatever was checkpointed when, and damage is told.

use holm_protocol::ids::{Actor, PlacementId};
use proptest::prelude::*;

use super::*;
use crate::keys::checkpoint_key;
use crate::store::Row;

/// The least store: everything staged is committed at once.
#[derive(Debug, Default)]
struct Maps(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Store for Maps {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let range = self.0.range((table, from.to_vec())..(table, to.to_vec()));
        Ok(range.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn writable(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn stage_put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.insert((table, key.to_vec()), value.to_vec());
    }

    fn stage_delete(&mut self, table: Table, key: &[u8]) {
        self.0.remove(&(table, key.to_vec()));
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn committed(&self) -> u64 {
        0
    }

    fn durable(&self) -> u64 {
        0
    }
}

fn limits(records: u32) -> LogLimits {
    LogLimits { records, bytes: usize::MAX, segments: u64::MAX }
}

/// Bug: a row with a key of another length was read as record 0 of stream 0, the scan went on after
/// that record, met the row again and never ended. It is damage.
#[test]
fn a_foreign_key_is_damage() {
    for key in [&[5][..], &[5; 11], &[5; 13]] {
        let mut store = Maps::default();
        store.stage_put(Table::Log, key, &encode_record(&[entry(0, 1)]));
        let loaded = ShardLog::new(0, 1).load(&all(), &BTreeMap::new(), &mut store);
        assert!(matches!(loaded, Err(StoreError::Corrupt(_))), "{key:?}: {loaded:?}");
    }
}

/// Bug: a mark, or a record's key, with the highest number there is was believed, and counting on
/// from it overflowed at the next commit: a panic, or sequences that begin anew and are skipped at
/// the next start. It is damage.
#[test]
fn a_sequence_that_nobody_can_have_reached_is_damage() {
    let stream = ShardLog::new(0, 1).stream;
    let mut marked = Maps::default();
    marked.stage_put(Table::Meta, &log_mark_key(stream), &u64::MAX.to_be_bytes());
    let mut recorded = Maps::default();
    let record = encode_record(&[entry(0, 1)]);
    recorded.stage_put(Table::Log, &log_key(stream, u64::MAX), &record);
    for mut store in [marked, recorded] {
        let loaded = ShardLog::new(0, 1).load(&all(), &BTreeMap::new(), &mut store);
        assert!(matches!(loaded, Err(StoreError::Corrupt(_))), "{loaded:?}");
    }
}

fn partition(index: u16) -> Partition {
    Partition { placement: PlacementId(0), index }
}

fn entry(index: u16, counter: u64) -> LogEntry {
    LogEntry {
        partition: partition(index),
        dot: Dot { actor: Actor(7), counter },
        hlc: Hlc(9),
        bucket: BucketId(1),
        // Every third dot is to the same key.
        key: Bytes::from(format!("k{}", counter % 3)),
        has_more: false,
    }
}

fn all() -> BTreeSet<Partition> {
    (0..4).map(partition).collect()
}

proptest! {
    /// Method: batches of dots go through logs of one or two shards, whose number changes at
    /// restarts, with little memory or much; after each restart the clocks are compared with a set of
    /// all dots, and the log is asked for the keys of all of them.
    #[test]
    fn clocks_come_back_exactly(
        runs in prop::collection::vec(
            (1usize..3, prop::collection::vec(prop::collection::vec((0u16..4, 1u64..40), 1..4), 0..8)),
            1..5,
        ),
        every in 1u32..4,
        bytes in 0usize..1_000,
    ) {
        let mut store = Maps::default();
        let mut model: BTreeSet<(Partition, u64)> = BTreeSet::new();
        for (shards, batches) in runs {
            let owned = |shard: usize| {
                all().into_iter().filter(move |p| p.to_u32() as usize % shards == shard).collect()
            };
            let mut logs: Vec<ShardLog> = (0..shards).map(|s| ShardLog::new(s, shards)).collect();
            let mut states = Vec::new();
            for (shard, log) in logs.iter_mut().enumerate() {
                states.push(log.load(&owned(shard), &BTreeMap::new(), &mut store).unwrap());
            }
            for index in 0..4u16 {
                let state = &states[usize::from(index) % shards][&partition(index)];
                for counter in 1..40 {
                    let seen = state.clock().contains(Dot { actor: Actor(7), counter });
                    prop_assert_eq!(seen, model.contains(&(partition(index), counter)));
                }
                let log = &logs[usize::from(index) % shards];
                let found = log.find(partition(index), (state.clock(), 1_000), &mut store).unwrap();
                prop_assert_eq!(found.cut, DotSet::new());
                let mut all = DotSet::new();
                for (_, key, dots) in found.keys {
                    for (_, first, last) in dots.spans() {
                        prop_assert!((first..=last).all(|c| entry(index, c).key == key));
                    }
                    all.merge(&dots);
                }
                prop_assert_eq!(&all, state.clock());
            }
            for batch in batches {
                for (index, counter) in batch {
                    let shard = usize::from(index) % shards;
                    let state = states[shard].get_mut(&partition(index)).unwrap();
                    if state.see(Dot { actor: Actor(7), counter }) {
                        logs[shard].push(entry(index, counter));
                        model.insert((partition(index), counter));
                    }
                }
                for (log, states) in logs.iter_mut().zip(&states) {
                    log.stage(LogLimits { records: every, bytes, segments: u64::MAX }, states, &mut store);
                    log.committed();
                }
            }
        }
    }
}

/// Goal: a dot that came long after its neighbours is found, whatever lies between, and one that the
/// log does not have is told; the open batch is left out. Method: segments that overlap, over more
/// counters than one may span.
#[test]
fn late_dots_are_found() {
    let mut store = Maps::default();
    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&all(), &BTreeMap::new(), &mut store).unwrap();
    for counters in [vec![1, 9_000], (2..8_000).step_by(2).collect(), vec![3, 7_001], vec![5]] {
        let dots: Vec<(u16, u64)> = counters.into_iter().map(|counter| (0, counter)).collect();
        write(&mut log, &mut states, &dots, &mut store);
        while !log.stage_rest(&states, &mut store) {
            log.committed();
        }
        log.committed();
    }
    let segments = store.scan(Table::Log, &SEGMENTS_BEGIN, &[0xff; 30], 1_000).unwrap();
    assert!(segments.len() > 5, "{}", segments.len());
    states.get_mut(&partition(0)).unwrap().see(entry(0, 11).dot);
    log.push(entry(0, 11));
    for counter in [1, 3, 5, 7_001, 7_998, 9_000] {
        let mut wanted = DotSet::new();
        wanted.insert(entry(0, counter).dot);
        let found = log.find(partition(0), (&wanted, 10), &mut store).unwrap();
        assert_eq!(found.keys, vec![(BucketId(1), entry(0, counter).key, wanted)]);
    }
    let mut wanted = DotSet::new();
    wanted.insert_range(Actor(7), 7, 11);
    let found = log.find(partition(0), (&wanted, 10), &mut store).unwrap();
    let mut cut = DotSet::new();
    [7, 9].iter().for_each(|&counter| _ = cut.insert(entry(0, counter).dot));
    assert_eq!(found.cut, cut);
    assert_eq!(found.keys.iter().map(|(.., dots)| dots.count()).sum::<u64>(), 2);
}

/// Goal: a damaged segment is told, and not taken for a log that was cut.
#[test]
fn damaged_segments_are_told() {
    let mut store = Maps::default();
    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&all(), &BTreeMap::new(), &mut store).unwrap();
    write(&mut log, &mut states, &[(0, 1), (0, 2)], &mut store);
    assert!(log.stage_rest(&states, &mut store));
    log.committed();
    let key = crate::keys::segment_key(partition(0), entry(0, 2).dot);
    let mut segment = store.get(Table::Log, &key).unwrap().unwrap();
    segment[2] ^= 1;
    store.stage_put(Table::Log, &key, &segment);
    let clock = states[&partition(0)].clock();
    let refused = log.find(partition(0), (clock, 10), &mut store);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}

/// Goal: records that are dealt with are gone, so that the log is not kept twice. Method: what is on
/// disk after many commits to all partitions.
#[test]
fn records_do_not_pile_up() {
    let mut store = Maps::default();
    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&all(), &BTreeMap::new(), &mut store).unwrap();
    for counter in 1..200 {
        write(&mut log, &mut states, &[((counter % 4) as u16, counter)], &mut store);
    }
    let records = store.scan(Table::Log, &log_key(0, 0), &SEGMENTS_BEGIN, 1_000).unwrap();
    assert!(records.len() <= 8, "{}", records.len());
}

/// Method: flip every byte of a record.
#[test]
fn damaged_records_are_told() {
    let entries = vec![entry(1, 3), entry(2, 1)];
    let record = encode_record(&entries);
    assert_eq!(decode_record(&record), Ok(entries));
    for at in 0..record.len() {
        let mut damaged = record.clone();
        damaged[at] ^= 1;
        assert!(decode_record(&damaged).is_err());
    }
}

/// Goal: a checkpoint saves reading: records before the mark are not touched again. Method: damage
/// one before the mark and one after it.
#[test]
fn only_what_follows_the_mark_is_read() {
    let mut store = Maps::default();
    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&all(), &BTreeMap::new(), &mut store).unwrap();
    for counter in 1..=5 {
        states.get_mut(&partition(0)).unwrap().see(entry(0, counter).dot);
        log.push(entry(0, counter));
        log.stage(limits(3), &states, &mut store);
        log.committed();
    }
    let stream = 1 << 16;
    store.stage_put(Table::Log, &log_key(stream, 2), b"damaged");
    let loaded = ShardLog::new(0, 1).load(&all(), &BTreeMap::new(), &mut store).unwrap();
    assert_eq!(loaded[&partition(0)].clock().count(), 5);
    store.stage_put(Table::Log, &log_key(stream, 4), b"damaged");
    let refused = ShardLog::new(0, 1).load(&all(), &BTreeMap::new(), &mut store);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
}

fn write(
    log: &mut ShardLog,
    states: &mut BTreeMap<Partition, PartitionState>,
    dots: &[(u16, u64)],
    store: &mut Maps,
) {
    for &(index, counter) in dots {
        states.get_mut(&partition(index)).unwrap().see(entry(index, counter).dot);
        log.push(entry(index, counter));
    }
    log.stage(limits(2), states, store);
    log.committed();
}

/// Goal: a partition that a shard gives up and holds again later has its whole clock, also if the
/// log's mark has moved on meanwhile. The simulator found this with a disk that was copied from node
/// to node and back (seed 700263): the mark had left the records behind, and no checkpoint had them.
#[test]
fn a_partition_held_again_has_its_clock() {
    let mut store = Maps::default();
    let both: BTreeSet<Partition> = [partition(0), partition(1)].into();
    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&both, &BTreeMap::new(), &mut store).unwrap();
    write(&mut log, &mut states, &[(0, 1), (1, 1)], &mut store);

    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&[partition(0)].into(), &BTreeMap::new(), &mut store).unwrap();
    for counter in 2..6 {
        write(&mut log, &mut states, &[(0, counter)], &mut store);
    }

    let mut log = ShardLog::new(0, 1);
    let states = log.load(&both, &BTreeMap::new(), &mut store).unwrap();
    assert!(states[&partition(1)].clock().contains(entry(1, 1).dot));
    assert!(states[&partition(0)].clock().contains(entry(0, 5).dot));
}

/// Goal: loading some partitions at run time leaves alone what is held already. Bug: every held
/// partition that records speak of had its checkpoint read and its clock copied, so that a damaged
/// checkpoint of one made a failed commit to another the end of the run.
#[test]
fn what_is_held_is_not_read_again() {
    let mut store = Maps::default();
    let both: BTreeSet<Partition> = [partition(0), partition(1)].into();
    let mut log = ShardLog::new(0, 1);
    let mut states = log.load(&both, &BTreeMap::new(), &mut store).unwrap();
    write(&mut log, &mut states, &[(0, 1), (1, 1)], &mut store);
    store.stage_put(Table::Meta, &checkpoint_key(partition(1)), b"damaged");

    let one: BTreeSet<Partition> = [partition(0)].into();
    let loaded = log.load(&one, &states, &mut store).unwrap();
    assert!(loaded[&partition(0)].clock().contains(entry(0, 1).dot));
    assert!(log.others.is_empty());
    let refused = log.load(&one, &BTreeMap::new(), &mut store);
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "not held, it is needed");
}
