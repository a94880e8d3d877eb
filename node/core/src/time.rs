//! Time as an argument. The core never asks for it.

/// A reading of both clocks, taken by the shell once per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and intervals: never goes back.
    pub mono: Mono,
    /// For the hybrid logical clock: may jump.
    pub wall: WallMs,
}

/// Microseconds since the node started, by a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Milliseconds since 1970, by a clock that people and daemons set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMs(pub u64);

impl Mono {
    /// This much later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Milliseconds from `self` until `later`; 0 if it is past.
    #[must_use]
    pub fn ms_until(self, later: Mono) -> u64 {
        later.0.saturating_sub(self.0) / 1000
    }
}
