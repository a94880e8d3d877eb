//! Segments: the log's entries of one partition and one actor, sorted out of the records.
//!
//! A record holds what one commit added, for all partitions together, which is the cheapest way to
//! write; whoever asks for the keys of some dots needs them by dot. A segment is one row: some dots
//! of one actor in order, under the key [`segment_key`] of the last. Segments of different times
//! never have a dot in common; which counters they span may overlap, because dots arrive out of
//! order. Invariant: a segment spans fewer than [`SPAN_MAX`] counters, so that a dot is found by
//! looking from its own key on to so much further, and what is not found there is not in the log.
//!
//! A segment: count (varint), then per entry how much its counter is above the last one's (varint;
//! the first: the counter), the clock reading (8 bytes), the bucket (4 bytes), whether there is
//! more to forget (1 byte), the key (length, bytes); at the end a crc32c.

use bytes::{BufMut, Bytes};

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, Hlc, Partition};
use holm_protocol::limits::KEY_LEN_MAX;
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use super::{checked, read_flag, seal};
use crate::clock::{DotSet, PartitionClock};
use crate::keys::segment_key;
use crate::store::{Store, StoreError, Table};

/// Counters that one segment spans, at most: bounds how far must be looked for a dot. Dots come
/// nearly in order, so that a segment is full of bytes before it spans so many.
const SPAN_MAX: u64 = 4096;

/// Bytes of a segment, about: some hundred entries, so that a row's own cost does not count.
const SEGMENT_BYTES: usize = 16 << 10;

/// Actors whose segments are compared when the oldest is to go. Of more, some others go first.
const ACTORS_CUT: usize = 64;

/// Segments read at a time. Arbitrary: what is asked for is mostly in one or two.
const ROWS: usize = 4;

/// Which key a dot was to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The write's clock reading; 0 where only a context named the dot.
    pub hlc: Hlc,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// As [`LogEntry::has_more`](super::LogEntry::has_more).
    pub has_more: bool,
}

impl Place {
    /// What an entry takes, about, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + 24
    }
}

/// Stages the segments of these entries, which ascend. Says how many bytes they are.
pub(super) fn stage<S: Store>(
    partition: Partition,
    entries: &[(Dot, &Place)],
    store: &mut S,
) -> u64 {
    let mut staged = 0;
    let mut rest = entries;
    while let Some(&(first, _)) = rest.first() {
        let mut bytes = 0;
        let fits = |(dot, place): &&(Dot, &Place)| {
            bytes += place.bytes();
            dot.actor == first.actor
                && dot.counter - first.counter < SPAN_MAX
                && (bytes <= SEGMENT_BYTES || *dot == first)
        };
        let (segment, others) = rest.split_at(rest.iter().take_while(fits).count());
        if let Some(&(last, _)) = segment.last() {
            let row = encode(segment);
            staged += row.len() as u64;
            store.stage_put(Table::Log, &segment_key(partition, last), &row);
        }
        rest = others;
    }
    staged
}

/// Stages the removal of some of a partition's oldest segments: the first ones of the actor whose
/// first is the oldest. Says how many bytes they were; 0 if there are none.
///
/// # Errors
/// What the store reports. A damaged segment is removed like any other.
pub(super) fn stage_cut<S: Store>(
    partition: Partition,
    clock: &PartitionClock,
    bytes: u64,
    store: &mut S,
) -> Result<u64, StoreError> {
    let mut oldest = None;
    for (actor, _) in clock.iter().take(ACTORS_CUT) {
        let row =
            store.scan(Table::Log, &first_key(partition, actor), &end_key(partition, actor), 1)?;
        let Some((_, row)) = row.first() else { continue };
        let entries = decode(actor, row).unwrap_or_default();
        let age = entries.first().map_or(Hlc(0), |(_, place)| place.hlc);
        if oldest.is_none_or(|(least, _)| age < least) {
            oldest = Some((age, actor));
        }
    }
    let Some((_, actor)) = oldest else { return Ok(0) };
    let (from, to) = (first_key(partition, actor), end_key(partition, actor));
    let mut cut = 0;
    for (key, row) in store.scan(Table::Log, &from, &to, ROWS)? {
        if cut >= bytes {
            break;
        }
        cut += row.len() as u64;
        store.stage_delete(Table::Log, &key);
    }
    Ok(cut)
}

fn first_key(partition: Partition, actor: Actor) -> [u8; 24] {
    segment_key(partition, Dot { actor, counter: 0 })
}

fn end_key(partition: Partition, actor: Actor) -> [u8; 24] {
    segment_key(partition, Dot { actor, counter: u64::MAX })
}

/// A segment as it was found.
#[derive(Debug)]
pub struct Segment {
    /// Its key in the table.
    pub key: Vec<u8>,
    /// What it takes, bytes.
    pub bytes: u64,
    /// What it says.
    pub entries: Vec<(Dot, Place)>,
}

/// An actor's first segment, if it ends with this dot or an earlier one.
///
/// # Errors
/// [`StoreError::Corrupt`] if it is damaged, or what the store reports.
pub(super) fn first<S: Store>(
    partition: Partition,
    last: Dot,
    store: &mut S,
) -> Result<Option<Segment>, StoreError> {
    let to = segment_key(partition, Dot { counter: last.counter.saturating_add(1), ..last });
    let rows = store.scan(Table::Log, &first_key(partition, last.actor), &to, 1)?;
    let Some((key, row)) = rows.into_iter().next() else { return Ok(None) };
    let entries = decode(last.actor, &row).map_err(|error| {
        StoreError::Corrupt(format!("segment of {partition}, actor {}: {error}", last.actor))
    })?;
    Ok(Some(Segment { key, bytes: row.len() as u64, entries }))
}

/// Looks for dots of one actor, which are taken out of `missing` when they are found.
///
/// # Errors
/// [`StoreError::Corrupt`] if a segment is damaged, or what the store reports.
pub(super) fn find<S: Store>(
    partition: Partition,
    (actor, first, last): (Actor, u64, u64),
    missing: &mut DotSet,
    store: &mut S,
    mut found: impl FnMut(Dot, Place),
) -> Result<(), StoreError> {
    let mut from = segment_key(partition, Dot { actor, counter: first });
    let end = Dot { actor, counter: last.saturating_add(SPAN_MAX) };
    let to = segment_key(partition, end);
    while !missing.is_empty() {
        let rows = store.scan(Table::Log, &from, &to, ROWS)?;
        let Some((key, _)) = rows.last() else { break };
        let counter = key.last_chunk().map_or(u64::MAX, |counter| u64::from_be_bytes(*counter));
        let Some(next) = counter.checked_add(1) else { break };
        from = segment_key(partition, Dot { actor, counter: next });
        let mut here = DotSet::new();
        for (_, row) in &rows {
            let entries = decode(actor, row).map_err(|error| {
                StoreError::Corrupt(format!("segment of {partition}, actor {actor}: {error}"))
            })?;
            for (dot, place) in entries {
                if missing.contains(dot) && here.insert(dot) {
                    found(dot, place);
                }
            }
        }
        *missing = missing.without(&here);
    }
    Ok(())
}

fn encode(entries: &[(Dot, &Place)]) -> Vec<u8> {
    let bytes: usize = entries.iter().map(|(_, place)| place.bytes()).sum();
    let mut out = Vec::with_capacity(bytes + 16);
    put_varint(&mut out, entries.len() as u64);
    let mut before = 0;
    for (dot, place) in entries {
        put_varint(&mut out, dot.counter - before);
        before = dot.counter;
        out.put_u64(place.hlc.0);
        out.put_u32(place.bucket.0);
        out.put_u8(place.has_more.into());
        put_slice(&mut out, &place.key);
    }
    seal(out)
}

/// Reads a segment of an actor's dots.
///
/// # Errors
/// [`WireError`] if it is damaged.
pub fn decode(actor: Actor, bytes: &[u8]) -> Result<Vec<(Dot, Place)>, WireError> {
    let mut reader = Reader::new(checked(bytes, "log segment")?);
    let count = reader.varint("segment entries")?;
    let mut entries = Vec::new();
    let mut counter: u64 = 0;
    for _ in 0..count {
        let more = reader.varint("segment counter")?;
        let next = counter.checked_add(more).filter(|_| more > 0);
        counter = next.ok_or(WireError::Invalid { field: "segment counter", got: more })?;
        let hlc = Hlc(reader.u64()?);
        let bucket = BucketId(reader.u32()?);
        let has_more = read_flag(&mut reader)?;
        let key = reader.bytes("key", KEY_LEN_MAX)?;
        entries.push((Dot { actor, counter }, Place { hlc, bucket, key, has_more }));
    }
    reader.finish()?;
    Ok(entries)
}
