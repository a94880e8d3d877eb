//! Where a client's random numbers come from: the system, or a seed in a simulated network.
//!
//! They spread pauses and make the client's id; nothing depends on their being secret.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Chance(Option<Mutex<StdRng>>);

impl Chance {
    /// Numbers of this seed, or the system's.
    pub(crate) fn new(seed: Option<u64>) -> Chance {
        Chance(seed.map(|seed| Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Whether the numbers are those of a seed.
    pub(crate) fn is_seeded(&self) -> bool {
        self.0.is_some()
    }

    /// Any 64 bits.
    pub(crate) fn number(&self) -> u64 {
        match &self.0 {
            None => rand::random(),
            Some(seeded) => seeded.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }

    /// A pause of half to all of `pause`, so that clients that failed together do not return
    /// together.
    pub(crate) fn jittered(&self, pause: Duration) -> Duration {
        // The upper 53 bits are what an f64 holds exactly.
        let fraction = (self.number() >> 11) as f64 / (1u64 << 53) as f64;
        pause.mul_f64(0.5 + fraction / 2.0)
    }
}
