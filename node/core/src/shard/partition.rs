//! What a shard keeps of one partition besides its objects: the clock, its own counter, the log.
//!
//! The log records, in the same commit as the objects, which dots were seen with which key: the
//! clock is rebuilt from its last checkpoint and the records after it, exactly. One record per
//! group commit, because every row costs as much as an object's. Invariant (I3): a dot is in the
//! clock if and only if the state that accounts for it is in the same or an earlier commit.
//!
//! A record: count (varint), then per entry the dot (actor 8 bytes, counter varint), the clock
//! reading (8 bytes), the bucket (4 bytes), the key (length, bytes); at the end a crc32c.

use bytes::{BufMut, Bytes};

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, Hlc, Partition};
use holm_protocol::limits::KEY_LEN_MAX;
use holm_protocol::message::{dot as read_dot, put_dot};
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use crate::clock::PartitionClock;
use crate::keys::{checkpoint_key, log_key, log_sequence};
use crate::store::{Store, StoreError, Table};

/// Log rows read at a time when a clock is rebuilt. Arbitrary: some hundred kilobytes.
const REBUILD_ROWS: usize = 256;

/// A dot seen with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The dot.
    pub dot: Dot,
    /// The write's clock reading; 0 where only a context named the dot.
    pub hlc: Hlc,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
}

/// One partition in a shard's memory.
#[derive(Debug)]
pub struct PartitionState {
    partition: Partition,
    clock: PartitionClock,
    /// The last counter this run has assigned here.
    own_counter: u64,
    /// The sequence of the last log record.
    sequence: u64,
    records_since_checkpoint: u32,
    pending: Vec<LogEntry>,
}

impl PartitionState {
    /// Rebuilds a partition's clock from the store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if checkpoint or log are damaged, or what the store reports.
    pub fn load<S: Store>(partition: Partition, store: &mut S) -> Result<Self, StoreError> {
        let mut state = PartitionState {
            partition,
            clock: PartitionClock::default(),
            own_counter: 0,
            sequence: 0,
            records_since_checkpoint: 0,
            pending: Vec::new(),
        };
        if let Some(bytes) = store.get(Table::Meta, &checkpoint_key(partition))? {
            let (clock, sequence) = decode_checkpoint(&bytes).map_err(|e| {
                StoreError::Corrupt(format!("clock checkpoint of {partition}: {e}"))
            })?;
            (state.clock, state.sequence) = (clock, sequence);
        }
        let end = log_key(partition, u64::MAX);
        loop {
            let from = log_key(partition, state.sequence + 1);
            let rows = store.scan(Table::Log, &from, &end, REBUILD_ROWS)?;
            for (key, record) in &rows {
                let entries = decode_record(record)
                    .map_err(|e| StoreError::Corrupt(format!("log record of {partition}: {e}")))?;
                entries.iter().for_each(|entry| {
                    state.clock.insert(entry.dot);
                });
                state.sequence = log_sequence(key).unwrap_or(state.sequence + 1);
                state.records_since_checkpoint += 1;
            }
            if rows.len() < REBUILD_ROWS {
                return Ok(state);
            }
        }
    }

    /// What this replica has seen, what the open batch adds included.
    #[must_use]
    pub fn clock(&self) -> &PartitionClock {
        &self.clock
    }

    /// The last counter that this run has assigned.
    #[must_use]
    pub fn own_counter(&self) -> u64 {
        self.own_counter
    }

    /// Draws the next dot of this run. Counters are contiguous from 1.
    pub fn next_dot(&mut self, actor: Actor) -> Dot {
        self.own_counter += 1;
        Dot { actor, counter: self.own_counter }
    }

    /// Starts counting for a new run.
    pub fn start_run(&mut self) {
        self.own_counter = 0;
    }

    /// Whether the open batch adds to the log.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Marks a dot as seen with a key. Says whether it was new.
    pub fn see(&mut self, entry: LogEntry) -> bool {
        let new = self.clock.insert(entry.dot);
        if new {
            self.pending.push(entry);
        }
        new
    }

    /// Stages the batch's log record, and a checkpoint when one is due.
    pub fn stage<S: Store>(&mut self, checkpoint_every: u32, store: &mut S) {
        if self.pending.is_empty() {
            return;
        }
        self.sequence += 1;
        let record = encode_record(&self.pending);
        self.pending.clear();
        store.stage_put(Table::Log, &log_key(self.partition, self.sequence), &record);
        self.records_since_checkpoint += 1;
        if self.records_since_checkpoint >= checkpoint_every {
            self.stage_checkpoint(store);
        }
    }

    /// Stages a checkpoint of the clock: the log before it need not be read at the next start.
    pub fn stage_checkpoint<S: Store>(&mut self, store: &mut S) {
        self.records_since_checkpoint = 0;
        let bytes = encode_checkpoint(&self.clock, self.sequence);
        store.stage_put(Table::Meta, &checkpoint_key(self.partition), &bytes);
    }
}

fn encode_checkpoint(clock: &PartitionClock, sequence: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64(sequence);
    clock.encode(&mut out);
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn decode_checkpoint(bytes: &[u8]) -> Result<(PartitionClock, u64), WireError> {
    let mut reader = Reader::new(checked(bytes, "clock checkpoint")?);
    let sequence = reader.u64()?;
    let clock = PartitionClock::decode(&mut reader)?;
    reader.finish()?;
    Ok((clock, sequence))
}

fn encode_record(entries: &[LogEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.iter().map(|e| 40 + e.key.len()).sum());
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        put_dot(&mut out, entry.dot);
        out.put_u64(entry.hlc.0);
        out.put_u32(entry.bucket.0);
        put_slice(&mut out, &entry.key);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

/// Reads a log record.
///
/// # Errors
/// [`WireError`] if it is damaged.
pub fn decode_record(bytes: &[u8]) -> Result<Vec<LogEntry>, WireError> {
    let mut reader = Reader::new(checked(bytes, "log record")?);
    let count = reader.varint("log entries")?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let dot = read_dot(&mut reader)?;
        let hlc = Hlc(reader.u64()?);
        let bucket = BucketId(reader.u32()?);
        let key = reader.bytes("key", KEY_LEN_MAX)?;
        entries.push(LogEntry { dot, hlc, bucket, key });
    }
    reader.finish()?;
    Ok(entries)
}

fn checked<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a [u8], WireError> {
    match bytes.split_last_chunk::<4>() {
        Some((body, crc)) if crc32c::crc32c(body) == u32::from_be_bytes(*crc) => Ok(body),
        _ => Err(WireError::Checksum { field }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a damaged record is told, never half read. Method: flip every byte of one.
    #[test]
    fn damaged_records_are_told() {
        let dot = Dot { actor: Actor(7), counter: 3 };
        let key = Bytes::from_static(b"k");
        let entries = vec![LogEntry { dot, hlc: Hlc(9), bucket: BucketId(1), key }];
        let record = encode_record(&entries);
        assert_eq!(decode_record(&record), Ok(entries));
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1;
            assert!(decode_record(&damaged).is_err());
        }
    }
}
