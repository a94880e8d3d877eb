//! Rows of the log as bytes: see [the layout](super).

use bytes::BufMut;

use holm_protocol::ids::{BucketId, Hlc, Partition};
use holm_protocol::limits::KEY_LEN_MAX;
use holm_protocol::message::{dot as read_dot, put_dot};
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use super::LogEntry;
use crate::clock::PartitionClock;
use crate::keys::{checkpoint_key, log_key, log_key_parts, log_mark_key, segments_size_key};
use crate::store::{Store, StoreError, Table};

/// Stream and sequence of a record that was found.
pub(super) fn key_parts(key: &[u8]) -> Result<(u32, u64), StoreError> {
    let corrupt = || StoreError::Corrupt(format!("dot log: a key of {} bytes", key.len()));
    log_key_parts(key).ok_or_else(corrupt)
}

/// The least key above a record's.
pub(super) fn next_key(stream: u32, sequence: u64) -> [u8; 12] {
    match sequence.checked_add(1) {
        Some(next) => log_key(stream, next),
        None => log_key(stream.saturating_add(1), 0),
    }
}

pub(super) fn read_mark<S: Store>(stream: u32, store: &mut S) -> Result<u64, StoreError> {
    let bytes = store.get(Table::Meta, &log_mark_key(stream))?;
    match bytes.map(<[u8; 8]>::try_from) {
        None => Ok(0),
        Some(Ok(mark)) => Ok(u64::from_be_bytes(mark)),
        Some(Err(_)) => Err(StoreError::Corrupt(format!("mark of dot log stream {stream}"))),
    }
}

/// What a partition's segments take; of one that has none, 0.
pub(super) fn read_size<S: Store>(partition: Partition, store: &mut S) -> Result<u64, StoreError> {
    let bytes = store.get(Table::Meta, &segments_size_key(partition))?;
    match bytes.map(<[u8; 8]>::try_from) {
        None => Ok(0),
        // Room for the sum of all partitions' sizes: damage is not to stop the node.
        Some(Ok(size)) => Ok(u64::from_be_bytes(size).min(1 << 40)),
        Some(Err(_)) => Err(StoreError::Corrupt(format!("segments' size of {partition}"))),
    }
}

pub(super) fn read_checkpoint<S: Store>(
    partition: Partition,
    store: &mut S,
) -> Result<PartitionClock, StoreError> {
    let Some(bytes) = store.get(Table::Meta, &checkpoint_key(partition))? else {
        return Ok(PartitionClock::default());
    };
    decode_checkpoint(&bytes)
        .map_err(|error| StoreError::Corrupt(format!("clock checkpoint of {partition}: {error}")))
}

pub(super) fn encode_checkpoint(clock: &PartitionClock) -> Vec<u8> {
    let mut out = Vec::new();
    clock.encode(&mut out);
    seal(out)
}

pub(super) fn decode_checkpoint(bytes: &[u8]) -> Result<PartitionClock, WireError> {
    let mut reader = Reader::new(checked(bytes, "clock checkpoint")?);
    let clock = PartitionClock::decode(&mut reader)?;
    reader.finish()?;
    Ok(clock)
}

pub(super) fn encode_record(entries: &[LogEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + entries.iter().map(|e| 40 + e.key.len()).sum::<usize>());
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        out.put_u32(entry.partition.to_u32());
        put_dot(&mut out, entry.dot);
        out.put_u64(entry.hlc.0);
        out.put_u32(entry.bucket.0);
        out.put_u8(entry.has_more.into());
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
        let has_more = read_flag(&mut reader)?;
        let key = reader.bytes("key", KEY_LEN_MAX)?;
        entries.push(LogEntry { partition, dot, hlc, bucket, key, has_more });
    }
    reader.finish()?;
    Ok(entries)
}

/// A byte that says no or yes.
pub(in crate::shard) fn read_flag(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(WireError::Invalid { field: "log flag", got: got.into() }),
    }
}

pub(in crate::shard) fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

pub(in crate::shard) fn checked<'a>(
    bytes: &'a [u8],
    field: &'static str,
) -> Result<&'a [u8], WireError> {
    match bytes.split_last_chunk::<4>() {
        Some((body, crc)) if crc32c::crc32c(body) == u32::from_be_bytes(*crc) => Ok(body),
        _ => Err(WireError::Checksum { field }),
    }
}
