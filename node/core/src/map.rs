//! The one hash map of the core.
//!
//! The standard library's maps are banned here because their hasher draws random numbers. This one
//! hashes with xxh3 and no seed, so that a run repeats exactly (I12). Its order still means
//! nothing: use it only where order cannot be seen, and a `BTreeMap` elsewhere.

use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A hash map without randomness.
#[expect(clippy::disallowed_types, reason = "the hasher is fixed, which is what the ban is about")]
pub type FixedMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FixedHasher>>;

/// Hashes each piece with xxh3, seeded by the hash of the pieces before it.
#[derive(Debug, Default, Clone, Copy)]
pub struct FixedHasher {
    hash: u64,
}

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        self.hash = xxh3_64_with_seed(bytes, self.hash);
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_ne_bytes());
    }

    /// Lengths before slices add nothing here: each piece is hashed as a whole.
    fn write_usize(&mut self, _length: usize) {}
}
