//! Which keys a load touches, what it writes there, and what it remembers of it.
//!
//! Keys are 16 bytes, `bench-0000000042`. Values are pseudo-random bytes (so that nothing compresses
//! away) that start with the record's number, by which a read is checked. The same seed gives the
//! same keys and values in the same order for each task.
//!
//! Each key belongs to one task ([`Keyspace::lane`]), and its last context is kept. So a write
//! overwrites what was there, as an application's would, and never makes siblings by itself.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use holm_client::Context;

/// Length of every key, bytes.
pub(crate) const KEY_BYTES: usize = 16;
/// Bytes at the start of a value that name its record.
const TAG_BYTES: usize = 8;

/// The keys of a load.
#[derive(Debug)]
pub(crate) struct Keyspace {
    records: u64,
    value_size: usize,
    seed: u64,
    /// The context of the last write to each key, if known.
    contexts: Mutex<Vec<Option<Context>>>,
}

impl Keyspace {
    /// Keys of which nothing is known yet.
    pub(crate) fn new(records: u64, value_size: u32, seed: u64) -> Keyspace {
        // Both are bounded by the command line to what fits a `usize` of 32 bits.
        let contexts = Mutex::new(vec![None; records as usize]);
        Keyspace { records, value_size: value_size as usize, seed, contexts }
    }

    /// How many keys there are.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The keys and choices of one of `lanes` tasks. There is a key for it only if `lane` is less
    /// than [`Keyspace::records`].
    pub(crate) fn lane(&self, lane: u64, lanes: u64) -> Lane {
        let count = (self.records + lanes - 1 - lane) / lanes;
        Lane { first: lane, step: lanes, count, random: SplitMix(self.seed ^ mix(lane + 1)) }
    }

    /// A record's key.
    pub(crate) fn key(index: u64) -> [u8; KEY_BYTES] {
        let mut key = *b"bench-0000000000";
        let mut rest = index;
        for digit in key[6..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key
    }

    /// A value for a record.
    pub(crate) fn value(&self, index: u64, random: &mut SplitMix) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.value_size + TAG_BYTES);
        value.extend_from_slice(&index.to_be_bytes());
        while value.len() < self.value_size {
            value.extend_from_slice(&random.next().to_le_bytes());
        }
        value.truncate(self.value_size);
        value
    }

    /// Whether bytes can be a value of this record.
    pub(crate) fn is_value_of(&self, index: u64, value: &[u8]) -> bool {
        let tag = self.value_size.min(TAG_BYTES);
        value.len() == self.value_size && value[..tag] == index.to_be_bytes()[..tag]
    }

    /// The context to overwrite a record with, if known.
    pub(crate) fn context(&self, index: u64) -> Option<Context> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)[index as usize].clone()
    }

    /// Remembers a record's context, in memory of its own: the one at hand may be a slice of a
    /// large receive buffer.
    pub(crate) fn keep(&self, index: u64, context: &Context) {
        let context = Context::from_bytes(Bytes::copy_from_slice(context.as_bytes()));
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)[index as usize] =
            Some(context);
    }

    /// Forgets a record's context: what became of the last write is not known.
    pub(crate) fn forget(&self, index: u64) {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)[index as usize] = None;
    }
}

/// One task's keys and pseudo-random choices.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    first: u64,
    step: u64,
    count: u64,
    /// For values.
    pub(crate) random: SplitMix,
}

impl Lane {
    /// All its records, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> + use<> {
        let Lane { first, step, count, .. } = *self;
        (0..count).map(move |n| first + n * step)
    }

    /// Any of its records.
    pub(crate) fn pick(&mut self) -> u64 {
        // The high half of the product is uniform enough, without a division.
        let n = (u128::from(self.random.next()) * u128::from(self.count)) >> 64;
        self.first + n as u64 * self.step
    }
}

/// A small pseudo-random generator: Steele, Lea, Flood, OOPSLA 2014.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: every key belongs to exactly one task, and a task picks only its own. Method: all lane
    /// counts up to more than there are keys.
    #[test]
    fn lanes_divide_the_keys() {
        for lanes in 1..=12 {
            let space = Keyspace::new(10, 100, 1);
            let mut seen = Vec::new();
            for lane in 0..lanes.min(10) {
                let mut lane = space.lane(lane, lanes);
                let own: BTreeSet<u64> = lane.all().collect();
                assert!((0..100).all(|_| own.contains(&lane.pick())), "{lanes} lanes");
                seen.extend(own);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>(), "{lanes} lanes");
        }
    }

    /// Goal: keys and values are what they say, and the same for the same seed.
    #[test]
    fn keys_and_values_are_deterministic() {
        assert_eq!(&Keyspace::key(42), b"bench-0000000042");
        for value_size in [0, 3, 8, 100] {
            let space = Keyspace::new(50, value_size, 7);
            let value = space.value(42, &mut SplitMix(1));
            assert_eq!(value, space.value(42, &mut SplitMix(1)));
            assert_eq!(value.len(), value_size as usize);
            assert!(space.is_value_of(42, &value));
            assert!(value_size < 8 || !space.is_value_of(43, &value));
        }
    }
}
