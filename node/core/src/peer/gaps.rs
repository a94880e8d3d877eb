//! Pulses, claims, and the objects that close gaps: their parts and encodings.

use bytes::{BufMut, Bytes, BytesMut};

use holm_protocol::ids::{Actor, BucketId, Hlc, Partition};
use holm_protocol::limits::OBJECT_LEN_MAX;
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError, put_slice, put_varint};

use super::codec::{put_target, target};
use super::{OpId, PeerMessage};
use crate::clock::{ACTORS_MAX, DotSet};
use crate::shard::config::shard_of;
use crate::shard::ends::End;

/// The most partitions that one message speaks of: those of all placements that a node can have.
const PARTITIONS_MAX: usize = 1 << 20;

/// The most objects in one answer: above what anybody sends.
const OBJECTS_MAX: usize = 1 << 16;

/// The most actors that ended in one page: what a partition comes to in a hundred thousand starts.
const ENDS_MAX: usize = 1 << 20;

/// What a replica claims of a partition, of the actors of whom something has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// All that it has seen of each.
    pub seen: DotSet,
    /// Up to where it knows every replica to have seen everything.
    pub know: VersionVector,
}

/// The current object of a key to which missing writes were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapObject {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The encoded object.
    pub object: Bytes,
    /// The missing dots that were to this key: the object accounts for them.
    pub done: DotSet,
}

/// An object of a partition that is sent whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageObject {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// The encoded object.
    pub object: Bytes,
}

impl PeerMessage {
    /// The message cut into those for each of the receiver's so many shards. Only what speaks of
    /// several partitions is cut; the sender's shards need not be as many.
    #[must_use]
    pub fn split(self, shards: usize) -> Vec<(usize, PeerMessage)> {
        match self {
            PeerMessage::Pulse { actor, hlc, counters } => {
                let message = |counters| PeerMessage::Pulse { actor, hlc, counters };
                by_shard(counters, shards, message)
            }
            PeerMessage::Seen { op, run, layout, clocks } => {
                by_shard(clocks, shards, |clocks| PeerMessage::Seen { op, run, layout, clocks })
            }
            PeerMessage::Compare(message) => {
                let (positions, message) = message.split();
                by_shard(positions, shards, message)
            }
            PeerMessage::Close(message) => message.split(shards),
            message => vec![(shard_of(message.partition(), shards), message)],
        }
    }
}

pub(super) fn by_shard<T>(
    parts: Vec<(Partition, T)>,
    shards: usize,
    message: impl Fn(Vec<(Partition, T)>) -> PeerMessage,
) -> Vec<(usize, PeerMessage)> {
    let mut cut: std::collections::BTreeMap<usize, Vec<(Partition, T)>> = Default::default();
    for part in parts {
        cut.entry(shard_of(part.0, shards)).or_default().push(part);
    }
    cut.into_iter().map(|(shard, parts)| (shard, message(parts))).collect()
}

/// The partition by which a message about several is found: the first; that of nothing is any.
pub(super) fn first_of<T>(parts: &[(Partition, T)]) -> Partition {
    parts.first().map_or(Partition::from_u32(0), |(partition, _)| *partition)
}

pub(super) fn put_pulse(
    out: &mut BytesMut,
    (actor, hlc): (Actor, Hlc),
    counters: &[(Partition, u64)],
) {
    out.put_u64(actor.0);
    out.put_u64(hlc.0);
    put_parts(out, counters, |out, counter| put_varint(out, *counter));
}

pub(super) fn pulse(first: Partition, reader: &mut Reader<'_>) -> Result<PeerMessage, WireError> {
    let actor = Actor(reader.u64()?);
    let hlc = Hlc(reader.u64()?);
    let counters = parts(first, reader, |reader| reader.varint("pulse counter"))?;
    Ok(PeerMessage::Pulse { actor, hlc, counters })
}

pub(super) fn put_seen(
    out: &mut BytesMut,
    (run, layout): (Actor, u64),
    clocks: &[(Partition, Claimed)],
) {
    out.put_u64(run.0);
    put_varint(out, layout);
    put_parts(out, clocks, |out, claimed| {
        claimed.seen.encode(out);
        claimed.know.encode(out);
    });
}

pub(super) fn seen(
    op: OpId,
    first: Partition,
    reader: &mut Reader<'_>,
) -> Result<PeerMessage, WireError> {
    let run = Actor(reader.u64()?);
    let layout = reader.varint("layout version")?;
    let clocks = parts(first, reader, |reader| {
        let seen = DotSet::decode(reader)?;
        Ok(Claimed { seen, know: VersionVector::decode(reader, ACTORS_MAX)? })
    })?;
    Ok(PeerMessage::Seen { op, run, layout, clocks })
}

pub(super) fn put_objects(out: &mut BytesMut, objects: &[GapObject]) {
    put_varint(out, objects.len() as u64);
    for GapObject { bucket, key, object, done } in objects {
        put_target(out, *bucket, key);
        put_slice(out, object);
        done.encode(out);
    }
}

pub(super) fn objects(reader: &mut Reader<'_>) -> Result<Vec<GapObject>, WireError> {
    let count = reader.length("gap objects", OBJECTS_MAX)?;
    // Grows as it is read: the count alone is a promise.
    let mut objects = Vec::new();
    for _ in 0..count {
        let (bucket, key) = target(reader)?;
        let object = reader.bytes("object", OBJECT_LEN_MAX)?;
        objects.push(GapObject { bucket, key, object, done: DotSet::decode(reader)? });
    }
    Ok(objects)
}

pub(super) fn put_page(out: &mut BytesMut, objects: &[PageObject]) {
    put_varint(out, objects.len() as u64);
    for PageObject { bucket, key, object } in objects {
        put_target(out, *bucket, key);
        put_slice(out, object);
    }
}

pub(super) fn page(reader: &mut Reader<'_>) -> Result<Vec<PageObject>, WireError> {
    let count = reader.length("page objects", OBJECTS_MAX)?;
    let mut objects = Vec::new();
    for _ in 0..count {
        let (bucket, key) = target(reader)?;
        let object = reader.bytes("object", OBJECT_LEN_MAX)?;
        objects.push(PageObject { bucket, key, object });
    }
    Ok(objects)
}

/// Count (varint), then per actor its number (8 bytes) and its end.
pub(super) fn put_ends(out: &mut BytesMut, ends: &[(Actor, End)]) {
    put_varint(out, ends.len() as u64);
    for (actor, end) in ends {
        out.put_u64(actor.0);
        end.put(out);
    }
}

pub(super) fn ends(reader: &mut Reader<'_>) -> Result<Vec<(Actor, End)>, WireError> {
    let count = reader.length("ends", ENDS_MAX)?;
    let mut ends = Vec::new();
    for _ in 0..count {
        ends.push((Actor(reader.u64()?), End::read(reader)?));
    }
    Ok(ends)
}

/// Count (varint, at least 1), then per partition its number (4 bytes), but for the first, with
/// which every message begins, and what is said of it.
pub(super) fn put_parts<T>(
    out: &mut BytesMut,
    parts: &[(Partition, T)],
    put: impl Fn(&mut BytesMut, &T),
) {
    put_varint(out, parts.len() as u64);
    for (at, (partition, part)) in parts.iter().enumerate() {
        if at > 0 {
            out.put_u32(partition.to_u32());
        }
        put(out, part);
    }
}

pub(super) fn parts<T>(
    first: Partition,
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<(Partition, T)>, WireError> {
    let count = reader.length("partitions", PARTITIONS_MAX)?;
    if count == 0 {
        return Err(WireError::Invalid { field: "partitions", got: 0 });
    }
    let mut parts = vec![(first, read(reader)?)];
    for _ in 1..count {
        let partition = Partition::from_u32(reader.u32()?);
        parts.push((partition, read(reader)?));
    }
    Ok(parts)
}
