//! The names of things that both ends of a connection must agree on.
//!
//! Every id is a newtype: an actor can never be passed where a node is meant. Numbers, not names,
//! travel; names live in the [`ClusterView`](crate::admin::ClusterView).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::KEY_LEN_MAX;

/// A node, for as long as it is in the layout. Chosen by the operator, never reused for another
/// machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// One run of one node: a fresh random number at every start, so that no crash, restored backup
/// or cloned disk can reuse a dot (I1). Zero is never an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor(pub u64);

/// A region, as an index into the layout's list of region names (sorted, so equal on all nodes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionId(pub u16);

/// A bucket: a named set of keys with one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId(pub u32);

/// A named choice of regions with a replication factor for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlacementId(pub u16);

/// A fixed range of one placement's hash ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The placement whose ring this is a part of.
    pub placement: PlacementId,
    /// The range: the top bits of the key's hash.
    pub index: u16,
}

impl Partition {
    /// The most hash bits that name a partition: 65,536 partitions a placement.
    pub const BITS_MAX: u8 = 16;

    /// The partition of a key: the top `bits` bits of xxh3-64 over the bucket id (4 bytes,
    /// big-endian) and the key.
    ///
    /// `bits` above [`Partition::BITS_MAX`] count as that; of a key beyond [`KEY_LEN_MAX`], which no
    /// node takes, the rest is ignored.
    #[must_use]
    pub fn of(placement: PlacementId, bits: u8, bucket: BucketId, key: &[u8]) -> Partition {
        // Hashed in one piece on the stack: a streaming hasher costs ten times as much to set up.
        let mut piece = [0; 4 + KEY_LEN_MAX];
        let key = &key[..key.len().min(KEY_LEN_MAX)];
        piece[..4].copy_from_slice(&bucket.0.to_be_bytes());
        piece[4..4 + key.len()].copy_from_slice(key);
        let hash = xxhash_rust::xxh3::xxh3_64(&piece[..4 + key.len()]);
        let bits = u32::from(bits.min(Self::BITS_MAX));
        // A shift by 64 would overflow: with no bits there is one partition.
        let index = hash.checked_shr(64 - bits).unwrap_or(0);
        // At most 16 bits are left after the shift, so the cast loses nothing.
        Partition { placement, index: index as u16 }
    }

    /// Both parts in one number, in the order of partitions.
    #[must_use]
    pub fn to_u32(self) -> u32 {
        u32::from(self.placement.0) << 16 | u32::from(self.index)
    }

    /// The reverse of [`Partition::to_u32`].
    #[must_use]
    pub fn from_u32(number: u32) -> Partition {
        Partition { placement: PlacementId((number >> 16) as u16), index: number as u16 }
    }
}

/// A client's name for one write, so that repeating it within the idempotence window is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The client: a random number drawn when it connects.
    pub client: u64,
    /// The write: counted up by the client.
    pub sequence: u64,
}

/// A hybrid logical clock's reading: milliseconds since 1970 in the upper 48 bits, a counter in
/// the lower 16. Orders last-writer-wins values and measures lag; never decides safety elsewhere.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The reading for a wall clock's milliseconds and a counter.
    #[must_use]
    pub fn new(wall_ms: u64, logical: u16) -> Hlc {
        Hlc(wall_ms << 16 | u64::from(logical))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    #[must_use]
    pub fn logical(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}.{}", self.placement.0, self.index)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.client, self.sequence)
    }
}
