//! Digests of a partition, by which two replicas find what differs without sending what is equal.
//!
//! Keys fall into [`SEGMENTS`] segments by their hash. A segment's digest is the sum of its keys'
//! digests, so it can be made in any order and in one scan; a key's digest is of the values that a
//! reader sees: their dots and their coordinators' checksums. A key without values adds nothing,
//! so a tombstone and a key that was never written, or was forgotten, look the same: when which
//! replica forgets is its own affair (DESIGN 7).
//!
//! Over the segments stands a Merkle tree, of which replicas compare the root, then one level in
//! the middle, then leaves. `rs_merkle` builds it, from leaves that are hashed apart from inner
//! nodes, so that none can be taken for the other.
//!
//! The sums withstand accidents, not an adversary who picks keys: peers are authenticated, and one
//! that lies can say that nothing differs anyway.
//!
//! Source: Merkle, CRYPTO 1987; Dynamo (SOSP 2007) 4.7 for its use between replicas.

use holm_protocol::ids::BucketId;
use rs_merkle::{Hasher, PartialTree};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::object::Object;

/// How many segments a partition's keys fall into. A power of two.
pub const SEGMENTS: usize = 1024;

/// The level that is compared between root and leaves: 32 nodes, each over 32 leaves.
pub const MIDDLE: usize = 5;

/// Nodes of the level in the middle.
pub const MIDDLE_NODES: usize = SEGMENTS >> MIDDLE;

/// A node of the tree.
pub type Hash = [u8; 32];

/// The segment of a key.
#[must_use]
pub fn segment_of(bucket: BucketId, key: &[u8]) -> u16 {
    let mut piece = Vec::with_capacity(4 + key.len());
    piece.extend_from_slice(&bucket.0.to_be_bytes());
    piece.extend_from_slice(key);
    // The low bits: the high ones choose the partition and are alike in all its keys.
    (xxh3_64(&piece) % SEGMENTS as u64) as u16
}

/// The digest of a key with what is alive under it; 0 if nothing is.
#[must_use]
pub fn key_digest(bucket: BucketId, key: &[u8], object: &Object) -> u128 {
    if object.is_deleted() {
        return 0;
    }
    let mut named = Vec::with_capacity(16 + key.len() + 20 * object.siblings().len());
    named.extend_from_slice(&bucket.0.to_be_bytes());
    named.extend_from_slice(&(key.len() as u64).to_be_bytes());
    named.extend_from_slice(key);
    named.push(object.kind().tag());
    for sibling in object.siblings() {
        named.extend_from_slice(&sibling.dot.actor.0.to_be_bytes());
        named.extend_from_slice(&sibling.dot.counter.to_be_bytes());
        named.extend_from_slice(&sibling.checksum.to_be_bytes());
    }
    xxh3_128(&named)
}

/// The segments' digests of one partition, as one scan makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    sums: Vec<u128>,
    keys: u64,
}

impl Default for Segments {
    fn default() -> Self {
        Segments { sums: vec![0; SEGMENTS], keys: 0 }
    }
}

impl Segments {
    /// Takes in one key.
    pub fn add(&mut self, bucket: BucketId, key: &[u8], object: &Object) {
        let sum = &mut self.sums[usize::from(segment_of(bucket, key))];
        *sum = sum.wrapping_add(key_digest(bucket, key, object));
        self.keys += 1;
    }

    /// Makes a segment differ from every other replica's: what is in it could not be read. `by`
    /// tells replicas apart that cannot read the same segment.
    pub fn spoil(&mut self, segment: u16, by: u64) {
        let mark = xxh3_128(&by.to_be_bytes());
        let sum = &mut self.sums[usize::from(segment) % SEGMENTS];
        *sum = sum.wrapping_add(mark | 1);
    }

    /// As [`Segments::spoil`], of all segments.
    pub fn spoil_all(&mut self, by: u64) {
        (0..SEGMENTS as u16).for_each(|segment| self.spoil(segment, by));
    }

    /// How many keys were taken in, those without values too.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The tree over the segments.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let leaves: Vec<Hash> = self.sums.iter().map(|sum| leaf(&sum.to_be_bytes())).collect();
        let nodes = leaves.into_iter().enumerate().collect();
        // Only a set of nodes with gaps, or none at all, has no tree.
        let built = PartialTree::<Blake3>::build(vec![nodes], SEGMENTS.ilog2() as usize);
        let mut levels = Vec::new();
        if let Ok(tree) = built {
            levels.extend(
                tree.layers().iter().map(|nodes| nodes.iter().map(|(_, hash)| *hash).collect()),
            );
        }
        Tree { levels }
    }
}

/// A tree's nodes, level by level from the leaves to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|nodes| nodes.first()).copied().unwrap_or_default()
    }

    /// The nodes of the level in the middle.
    #[must_use]
    pub fn middle(&self) -> &[Hash] {
        self.levels.get(MIDDLE).map_or(&[], Vec::as_slice)
    }

    /// The leaves under one node of the level in the middle; none if there is no such node.
    #[must_use]
    pub fn leaves_under(&self, middle: u16) -> &[Hash] {
        let first = usize::from(middle) << MIDDLE;
        let leaves = self.levels.first().map_or(&[][..], Vec::as_slice);
        leaves.get(first..first + (1 << MIDDLE)).unwrap_or_default()
    }
}

/// BLAKE3 with a byte before what is hashed, by which leaves and inner nodes differ.
#[derive(Debug, Clone)]
struct Blake3;

fn leaf(data: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0]).update(data);
    hasher.finalize().into()
}

impl Hasher for Blake3 {
    type Hash = Hash;

    fn hash(data: &[u8]) -> Hash {
        leaf(data)
    }

    fn concat_and_hash(left: &Hash, right: Option<&Hash>) -> Hash {
        // The library asks for the parent of a node without a sibling above the root: it is the root.
        let Some(right) = right else { return *left };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[1]).update(left).update(right);
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests;
