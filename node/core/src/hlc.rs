//! The hybrid logical clock of one node.
//!
//! Readings follow the wall clock as long as it moves forward, never go back when it does, and are
//! greater than every reading this node has seen, its own or a peer's. They order the values of a
//! last-writer-wins bucket and measure lag; nothing else depends on them, so a wrong wall clock
//! costs lww order and lag figures, never a sibling.
//!
//! A peer whose clock runs far ahead would drag everybody's readings with it and win every lww
//! write until real time has caught up: readings further ahead than a limit are refused.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical physical clocks", OPODIS 2014. The
//! packing into one number, with the logical part carrying into the milliseconds, is ours.

use holm_protocol::ids::Hlc;

/// The highest wall time that fits the 48 bits of a reading: the year 10889.
const WALL_MS_MAX: u64 = (1 << 48) - 1;

/// A reading from a peer is too far in the future. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("clock reading is {ahead_ms} ms ahead of this node, limit {limit_ms} ms")]
pub struct SkewError {
    /// How far ahead of this node's wall clock, in milliseconds.
    pub ahead_ms: u64,
    /// The most that is accepted, in milliseconds.
    pub limit_ms: u64,
}

/// Issues readings and takes in those of peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A clock that has seen nothing.
    #[must_use]
    pub fn new() -> HlcClock {
        HlcClock::default()
    }

    /// A clock that goes on after `last`, such as the highest reading found on disk.
    #[must_use]
    pub fn after(last: Hlc) -> HlcClock {
        HlcClock { last }
    }

    /// The highest reading issued or observed.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// The next reading: greater than all issued or observed before, and not behind the wall
    /// clock. More than 65,536 within one millisecond carry into the next.
    pub fn now(&mut self, wall_ms: u64) -> Hlc {
        // The addition cannot saturate before the year 10889: `observe` bounds what peers can add.
        let next = Hlc(self.last.0.saturating_add(1));
        self.last = next.max(Hlc::new(wall_ms.min(WALL_MS_MAX), 0));
        self.last
    }

    /// Takes in a peer's reading, so that later readings of this node are greater.
    ///
    /// # Errors
    /// [`SkewError`] if it is more than `max_skew_ms` ahead of this node's wall clock; it then
    /// has no effect.
    pub fn observe(
        &mut self,
        remote: Hlc,
        wall_ms: u64,
        max_skew_ms: u64,
    ) -> Result<(), SkewError> {
        let ahead_ms = remote.wall_ms().saturating_sub(wall_ms);
        if ahead_ms > max_skew_ms {
            return Err(SkewError { ahead_ms, limit_ms: max_skew_ms });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: readings strictly increase, stay above everything observed, and never run ahead
        /// of the highest wall time by more than the skew. Method: any wall clock, jumping both
        /// ways, with peers' readings in between.
        #[test]
        fn readings_increase(steps in prop::collection::vec((0u64..50, 0u64..80, any::<u16>()), 1..60)) {
            const SKEW_MS: u64 = 20;
            let mut clock = HlcClock::new();
            let mut highest = Hlc(0);
            let mut wall_max = 0;
            for (wall_ms, remote_ms, logical) in steps {
                wall_max = wall_max.max(wall_ms);
                let remote = Hlc::new(remote_ms, logical);
                match clock.observe(remote, wall_ms, SKEW_MS) {
                    Ok(()) => highest = highest.max(remote),
                    Err(skew) => {
                        prop_assert_eq!(skew.ahead_ms, remote_ms - wall_ms);
                        prop_assert!(remote_ms > wall_ms + SKEW_MS);
                        prop_assert_eq!(clock.last(), highest);
                    }
                }
                let now = clock.now(wall_ms);
                prop_assert!(now > highest);
                prop_assert!(now.wall_ms() >= wall_ms);
                prop_assert!(now.wall_ms() <= wall_max + SKEW_MS + 1);
                highest = now;
            }
        }
    }

    /// Goal: a wall clock beyond what fits gives the highest reading of that size, not a small one.
    #[test]
    fn far_wall_clocks_do_not_wrap() {
        let highest = Hlc::new((1 << 48) - 1, 0);
        assert_eq!(HlcClock::new().now(u64::MAX), highest);
        assert_eq!(HlcClock::new().now(1 << 48), highest);
        assert_eq!(highest.wall_ms(), (1 << 48) - 1);
    }

    /// Goal: a burst within one millisecond keeps increasing. Method: overflow the counter.
    #[test]
    fn logical_overflow_carries_into_milliseconds() {
        let mut clock = HlcClock::after(Hlc::new(7, u16::MAX));
        assert_eq!(clock.now(7), Hlc::new(8, 0));
        assert_eq!(clock.now(7), Hlc::new(8, 1));
        assert_eq!(clock.now(9), Hlc::new(9, 0));
    }
}
