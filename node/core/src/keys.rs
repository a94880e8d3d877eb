//! Keys in the store's tables. Big-endian, so that byte order is the order of partitions.

use bytes::{BufMut, Bytes};

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};

/// Bytes before the user's key in an object's key.
pub const OBJECT_KEY_HEAD_LEN: usize = 8;

/// Writes `partition (4) | bucket (4) | key` into `out`, which is cleared first: the key of an
/// object in the table `objects`.
pub fn object_key(out: &mut Vec<u8>, partition: Partition, bucket: BucketId, key: &[u8]) {
    out.clear();
    out.put_u32(partition.to_u32());
    out.put_u32(bucket.0);
    out.put_slice(key);
}

/// The user's key within an object's key, sharing its memory.
#[must_use]
pub fn user_key(object_key: &Bytes) -> Bytes {
    object_key.slice(OBJECT_KEY_HEAD_LEN.min(object_key.len())..)
}

/// Bytes before the user's key in a hint's key.
pub const HINT_KEY_HEAD_LEN: usize = 8 + OBJECT_KEY_HEAD_LEN;

/// `replica (8) | partition (4) | bucket (4) | key`: the key in the table `hints` of what is kept
/// for a replica.
#[must_use]
pub fn hint_key(replica: NodeId, partition: Partition, bucket: BucketId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HINT_KEY_HEAD_LEN + key.len());
    out.put_u64(replica.0);
    out.put_u32(partition.to_u32());
    out.put_u32(bucket.0);
    out.put_slice(key);
    out
}

/// Replica, partition, bucket and the user's key in a hint's key; `None` if it is not one.
#[must_use]
pub fn hint_key_parts(key: &[u8]) -> Option<(NodeId, Partition, BucketId, &[u8])> {
    let (replica, rest) = key.split_first_chunk()?;
    let (partition, rest) = rest.split_first_chunk()?;
    let (bucket, key) = rest.split_first_chunk()?;
    let partition = Partition::from_u32(u32::from_be_bytes(*partition));
    let bucket = BucketId(u32::from_be_bytes(*bucket));
    Some((NodeId(u64::from_be_bytes(*replica)), partition, bucket, key))
}

/// `stream (4) | sequence (8)`: the key of a record in the table `log`.
#[must_use]
pub fn log_key(stream: u32, sequence: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&stream.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Stream and sequence in a log record's key; `None` if it is not one.
#[must_use]
pub fn log_key_parts(key: &[u8]) -> Option<(u32, u64)> {
    let (stream, sequence) = key.split_first_chunk()?;
    let sequence = sequence.try_into().ok()?;
    Some((u32::from_be_bytes(*stream), u64::from_be_bytes(sequence)))
}

/// Where the log's streams end and its segments begin: no node has so many shards.
pub const SEGMENTS_BEGIN: [u8; 4] = [0xff; 4];

/// `ff ff ff ff | partition (4) | actor (8) | last counter (8)`: the key of a log segment in the
/// table `log`. By its last counter, so that the first segment from a dot's key on is where it can be.
#[must_use]
pub fn segment_key(partition: Partition, last: Dot) -> [u8; 24] {
    let mut key = [0; 24];
    key[..4].copy_from_slice(&SEGMENTS_BEGIN);
    key[4..8].copy_from_slice(&partition.to_u32().to_be_bytes());
    key[8..16].copy_from_slice(&last.actor.0.to_be_bytes());
    key[16..].copy_from_slice(&last.counter.to_be_bytes());
    key
}

/// `log/ | stream (4)`: the key of a log stream's mark in the table `meta`.
#[must_use]
pub fn log_mark_key(stream: u32) -> [u8; 8] {
    let mut key = *b"log/0000";
    key[4..].copy_from_slice(&stream.to_be_bytes());
    key
}

/// `segments/ | partition (4)`: the key of what a partition's log segments take, in the table `meta`.
#[must_use]
pub fn segments_size_key(partition: Partition) -> [u8; 13] {
    let mut key = *b"segments/0000";
    key[9..].copy_from_slice(&partition.to_u32().to_be_bytes());
    key
}

/// `clock/ | partition (4)`: the key of a partition's clock checkpoint in the table `meta`.
#[must_use]
pub fn checkpoint_key(partition: Partition) -> [u8; 10] {
    let mut key = *b"clock/0000";
    key[6..].copy_from_slice(&partition.to_u32().to_be_bytes());
    key
}

/// `account/ | partition (4)`: the key of what a replica knows of a partition, in the table `meta`.
#[must_use]
pub fn account_key(partition: Partition) -> [u8; 12] {
    let mut key = *b"account/0000";
    key[8..].copy_from_slice(&partition.to_u32().to_be_bytes());
    key
}

/// Where the rows about actors that ended begin in the table `meta`, and after them.
pub const ENDS_BEGIN: [u8; 5] = *b"ends/";
/// See there.
pub const ENDS_END: [u8; 5] = *b"ends0";

/// `ends/ | partition (4) | actor (8)`: the key of what became of an actor that ended, in the table
/// `meta`.
#[must_use]
pub fn end_key(partition: Partition, actor: Actor) -> [u8; 17] {
    let mut key = [0; 17];
    key[..5].copy_from_slice(&ENDS_BEGIN);
    key[5..9].copy_from_slice(&partition.to_u32().to_be_bytes());
    key[9..].copy_from_slice(&actor.0.to_be_bytes());
    key
}

/// Partition and actor in such a key; `None` if it is not one.
#[must_use]
pub fn end_key_parts(key: &[u8]) -> Option<(Partition, Actor)> {
    let rest = key.strip_prefix(&ENDS_BEGIN)?;
    let (partition, actor) = rest.split_first_chunk()?;
    let actor = Actor(u64::from_be_bytes(actor.try_into().ok()?));
    Some((Partition::from_u32(u32::from_be_bytes(*partition)), actor))
}
