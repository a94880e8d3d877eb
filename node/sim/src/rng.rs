//! Random numbers: one seed, several streams.
//!
//! Each part of a run (the plan, each link, each disk, each client) draws from a stream of its own,
//! and what happens rarely from one that is named after the moment. Taking a client or a fault out
//! of a plan thus leaves the numbers of all parts that it did not touch as they were, and the
//! smaller plan has a chance to fail as the larger one did ([`crate::shrink`]).

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
