//! Where the network's random numbers come from: the system, or a seed in a simulated network.
//!
//! They spread pauses and feed QUIC. Connection ids and keys are not among them: those must not be
//! guessed, and no behaviour depends on their value.

use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// See the module's head.
#[derive(Debug)]
pub struct Chance(Option<Mutex<StdRng>>);

impl Chance {
    /// The system's numbers.
    #[must_use]
    pub fn system() -> Chance {
        Chance(None)
    }

    /// The numbers of a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Chance {
        Chance(Some(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Uniform in 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        match &self.0 {
            None => rand::random(),
            Some(seeded) => seeded.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }

    /// A seed for QUIC's own generator; `None` has it ask the system.
    #[must_use]
    pub fn quic_seed(&self) -> Option<[u8; 32]> {
        let mut seed = [0; 32];
        let mut seeded = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        seeded.fill_bytes(&mut seed);
        Some(seed)
    }
}
