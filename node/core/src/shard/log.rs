//! The dot log: which dots were seen with which key, in the order of commits.
//!
//! A clock says which writes a replica has seen; the log says which keys they were to, and is what
//! a clock is rebuilt from after a crash: its last checkpoint, and every record after that. It is
//! written in the same commit as the objects. Invariant (I3): a dot is in the clock if and only if
//! the state that accounts for it is in the same or an earlier commit.
//!
//! **One record per group commit**, for all partitions of the shard together, because a row costs as
//! much as an object's, and with hundreds of partitions nearly every write of a batch falls into
//! another one. Records lie in a *stream* per shard, named after the number of shards too: with
//! another number, partitions belong to other shards, which must not mix their records.
//!
//! **Checkpoints**: from time to time the clocks of all partitions that have changed are written,
//! and the stream's *mark*: all before it need not be read again. Reading too much does no harm, as
//! putting a dot into a clock twice changes nothing. Records may speak of partitions that this shard
//! does not hold any more, and may hold again: before a mark leaves such records behind, those
//! partitions' clocks are checkpointed too.
//!
//! A record: count (varint), then per entry the partition (4 bytes), the dot (actor 8 bytes, counter
//! varint), the clock reading (8 bytes), the bucket (4 bytes), the key (length, bytes); at the end a
//! crc32c.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};

use holm_protocol::dot::Dot;
use holm_protocol::ids::{BucketId, Hlc, Partition};
use holm_protocol::limits::KEY_LEN_MAX;
use holm_protocol::message::{dot as read_dot, put_dot};
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use crate::clock::PartitionClock;
use crate::keys::{checkpoint_key, log_key, log_key_parts, log_mark_key};
use crate::shard::partition::PartitionState;
use crate::store::{Store, StoreError, Table};

/// Log rows read at a time when clocks are rebuilt. Arbitrary: about a megabyte.
const REBUILD_ROWS: usize = 256;

/// The highest sequence that a record can have: a million commits a second take half a million years
/// to get there. Above it is damage, and counting on from it would overflow.
const SEQUENCE_MAX: u64 = 1 << 63;

/// A dot seen with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The key's partition.
    pub partition: Partition,
    /// The dot.
    pub dot: Dot,
    /// The write's clock reading; 0 where only a context named the dot.
    pub hlc: Hlc,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
}

/// One shard's stream of the log.
#[derive(Debug)]
pub struct ShardLog {
    stream: u32,
    /// The sequence of the last record.
    sequence: u64,
    records_since_checkpoint: u32,
    /// Partitions whose clock has changed since its checkpoint.
    changed: BTreeSet<Partition>,
    /// Clocks of partitions that records of this stream speak of and that this shard did not hold
    /// when it was read: kept until the next checkpoint.
    others: BTreeMap<Partition, PartitionClock>,
    /// What the open batch adds.
    pending: Vec<LogEntry>,
}

impl ShardLog {
    /// The log of one shard of so many, before anything has been loaded.
    #[must_use]
    pub fn new(shard: usize, shards: usize) -> ShardLog {
        ShardLog {
            // Both are small: a node has at most some hundred threads.
            stream: (shards as u32) << 16 | shard as u32 & 0xffff,
            sequence: 0,
            records_since_checkpoint: 0,
            changed: BTreeSet::new(),
            others: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    /// Rebuilds the clocks of these partitions: checkpoints, then all streams' records after their
    /// marks. What the records say of others that are `held` is known already.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a checkpoint or a record is damaged, or what the store reports.
    pub fn load<S: Store>(
        &mut self,
        partitions: &BTreeSet<Partition>,
        held: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) -> Result<BTreeMap<Partition, PartitionState>, StoreError> {
        let mut clocks = BTreeMap::new();
        for &partition in partitions {
            clocks.insert(partition, read_checkpoint(partition, store)?);
        }
        let end = log_key(u32::MAX, u64::MAX);
        let mut from = log_key(0, 0);
        let mut stream = None;
        loop {
            let rows = store.scan(Table::Log, &from, &end, REBUILD_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            let (of, sequence) = key_parts(last)?;
            from = next_key(of, sequence);
            for (key, record) in &rows {
                let (of, sequence) = key_parts(key)?;
                if stream != Some(of) {
                    // A stream begins: go on after its mark, leaving the rest of these rows.
                    stream = Some(of);
                    let mark = read_mark(of, store)?;
                    if mark >= sequence {
                        from = next_key(of, mark);
                        break;
                    }
                }
                if of == self.stream {
                    self.sequence = self.sequence.max(sequence);
                    self.records_since_checkpoint += 1;
                }
                self.replay(record, (&mut clocks, held), (of, store))?;
            }
        }
        // Also where all records before the mark are gone: a sequence is never used again.
        self.sequence = self.sequence.max(read_mark(self.stream, store)?);
        if self.sequence > SEQUENCE_MAX {
            let (stream, sequence) = (self.stream, self.sequence);
            return Err(StoreError::Corrupt(format!("dot log stream {stream}: record {sequence}")));
        }
        let state = |(partition, clock)| (partition, PartitionState::new(clock));
        Ok(clocks.into_iter().map(state).collect())
    }

    fn replay<S: Store>(
        &mut self,
        record: &[u8],
        (clocks, held): (
            &mut BTreeMap<Partition, PartitionClock>,
            &BTreeMap<Partition, PartitionState>,
        ),
        (stream, store): (u32, &mut S),
    ) -> Result<(), StoreError> {
        let entries = decode_record(record)
            .map_err(|error| StoreError::Corrupt(format!("dot log record: {error}")))?;
        for entry in entries {
            if let Some(clock) = clocks.get_mut(&entry.partition) {
                if clock.insert(entry.dot) {
                    self.changed.insert(entry.partition);
                }
            } else if stream == self.stream && !held.contains_key(&entry.partition) {
                let clock = match self.others.entry(entry.partition) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(read_checkpoint(entry.partition, store)?),
                };
                clock.insert(entry.dot);
            }
        }
        Ok(())
    }

    /// Whether the open batch adds anything.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Adds an entry to the open batch.
    pub fn push(&mut self, entry: LogEntry) {
        self.pending.push(entry);
    }

    /// Gives up the open batch: the partitions it concerned.
    pub fn roll_back(&mut self) -> BTreeSet<Partition> {
        self.pending.drain(..).map(|entry| entry.partition).collect()
    }

    /// Stages the batch's record, and checkpoints when they are due.
    pub fn stage<S: Store>(
        &mut self,
        every: u32,
        partitions: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) {
        if self.pending.is_empty() {
            return;
        }
        self.sequence += 1;
        let record = encode_record(&self.pending);
        store.stage_put(Table::Log, &log_key(self.stream, self.sequence), &record);
        self.records_since_checkpoint += 1;
        if self.records_since_checkpoint >= every {
            self.changed.extend(self.pending.iter().map(|entry| entry.partition));
            self.stage_checkpoint(partitions, store);
        }
    }

    /// After a commit: what was pending is in the log.
    pub fn committed(&mut self) {
        self.changed.extend(self.pending.drain(..).map(|entry| entry.partition));
        if self.records_since_checkpoint == 0 {
            self.changed.clear();
            self.others.clear();
        }
    }

    /// Stages a checkpoint of every clock that has changed, and the stream's mark.
    pub fn stage_checkpoint<S: Store>(
        &mut self,
        partitions: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) {
        self.records_since_checkpoint = 0;
        for (partition, clock) in &self.others {
            if !partitions.contains_key(partition) {
                store.stage_put(
                    Table::Meta,
                    &checkpoint_key(*partition),
                    &encode_checkpoint(clock),
                );
            }
        }
        for partition in &self.changed {
            if let Some(state) = partitions.get(partition) {
                let bytes = encode_checkpoint(state.clock());
                store.stage_put(Table::Meta, &checkpoint_key(*partition), &bytes);
            }
        }
        store.stage_put(Table::Meta, &log_mark_key(self.stream), &self.sequence.to_be_bytes());
    }
}

/// Stream and sequence of a record that was found.
fn key_parts(key: &[u8]) -> Result<(u32, u64), StoreError> {
    let corrupt = || StoreError::Corrupt(format!("dot log: a key of {} bytes", key.len()));
    log_key_parts(key).ok_or_else(corrupt)
}

/// The least key above a record's.
fn next_key(stream: u32, sequence: u64) -> [u8; 12] {
    match sequence.checked_add(1) {
        Some(next) => log_key(stream, next),
        None => log_key(stream.saturating_add(1), 0),
    }
}

fn read_mark<S: Store>(stream: u32, store: &mut S) -> Result<u64, StoreError> {
    let bytes = store.get(Table::Meta, &log_mark_key(stream))?;
    match bytes.map(<[u8; 8]>::try_from) {
        None => Ok(0),
        Some(Ok(mark)) => Ok(u64::from_be_bytes(mark)),
        Some(Err(_)) => Err(StoreError::Corrupt(format!("mark of dot log stream {stream}"))),
    }
}

fn read_checkpoint<S: Store>(
    partition: Partition,
    store: &mut S,
) -> Result<PartitionClock, StoreError> {
    let Some(bytes) = store.get(Table::Meta, &checkpoint_key(partition))? else {
        return Ok(PartitionClock::default());
    };
    decode_checkpoint(&bytes)
        .map_err(|error| StoreError::Corrupt(format!("clock checkpoint of {partition}: {error}")))
}

fn encode_checkpoint(clock: &PartitionClock) -> Vec<u8> {
    let mut out = Vec::new();
    clock.encode(&mut out);
    seal(out)
}

fn decode_checkpoint(bytes: &[u8]) -> Result<PartitionClock, WireError> {
    let mut reader = Reader::new(checked(bytes, "clock checkpoint")?);
    let clock = PartitionClock::decode(&mut reader)?;
    reader.finish()?;
    Ok(clock)
}

fn encode_record(entries: &[LogEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + entries.iter().map(|e| 40 + e.key.len()).sum::<usize>());
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        out.put_u32(entry.partition.to_u32());
        put_dot(&mut out, entry.dot);
        out.put_u64(entry.hlc.0);
        out.put_u32(entry.bucket.0);
        put_slice(&mut out, &entry.key);
    }
    seal(out)
}

/// Reads a log record.
///
/// # Errors
/// [`WireError`] if it is damaged.
pub fn decode_record(bytes: &[u8]) -> Result<Vec<LogEntry>, WireError> {
    let mut reader = Reader::new(checked(bytes, "dot log record")?);
    let count = reader.varint("log entries")?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let partition = Partition::from_u32(reader.u32()?);
        let dot = read_dot(&mut reader)?;
        let hlc = Hlc(reader.u64()?);
        let bucket = BucketId(reader.u32()?);
        let key = reader.bytes("key", KEY_LEN_MAX)?;
        entries.push(LogEntry { partition, dot, hlc, bucket, key });
    }
    reader.finish()?;
    Ok(entries)
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn checked<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a [u8], WireError> {
    match bytes.split_last_chunk::<4>() {
        Some((body, crc)) if crc32c::crc32c(body) == u32::from_be_bytes(*crc) => Ok(body),
        _ => Err(WireError::Checksum { field }),
    }
}

#[cfg(test)]
mod tests;
