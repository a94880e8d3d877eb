//! Random numbers: one seed, several streams.
//!
//! Each part of a run (plan, network, disks, clients) draws from a stream of its own, so that
//! taking a client or a fault out of a plan leaves the other parts' numbers as they were.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// The stream of one part of a run.
#[must_use]
pub fn stream(seed: u64, part: &str) -> ChaCha8Rng {
    let mut digest = crate::trace::Digest::new();
    digest.word(seed);
    digest.bytes(part.as_bytes());
    ChaCha8Rng::seed_from_u64(digest.value())
}
