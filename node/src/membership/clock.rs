//! How far another node's clock is from this one's, as NTP reckons it (RFC 5905, section 8).
//!
//! The other node's time, told in answer to a question, is taken to be of the middle of the round
//! trip. It can be wrong by half the round trip at most: the error that goes with every figure. Of the
//! last few measurements the newest counts that is not much worse than the best: a long round trip
//! says little, and an old measurement says nothing of a clock that was set since.

use std::collections::VecDeque;

use holm_core::time::Mono;
use holm_protocol::admin::ClockOffset;

/// Measurements kept. As many as NTP's clock filter.
const KEPT: usize = 8;

/// A measurement counts if its error is at most this many times the best one's.
const WORSE_MAX: u64 = 2;

/// Jitter that is always forgiven, microseconds: on a loopback path twice the best is nothing.
const JITTER_US: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Sample {
    offset_us: i64,
    error_us: u64,
    at: Mono,
}

/// The measurements of one other node's clock.
#[derive(Debug, Default)]
pub struct ClockFilter {
    samples: VecDeque<Sample>,
}

impl ClockFilter {
    /// Takes in one round trip: when it began and ended, what this node's clock said when it began,
    /// and what the other node's said in between, microseconds since 1970.
    pub fn measured(&mut self, (asked, answered): (Mono, Mono), ours_us: u64, theirs_us: u64) {
        let round_trip_us = answered.0.saturating_sub(asked.0);
        let middle_us = ours_us.saturating_add(round_trip_us / 2);
        let offset_us = i64::try_from(i128::from(theirs_us) - i128::from(middle_us));
        // Beyond 290,000 years.
        let Ok(offset_us) = offset_us else { return };
        self.samples.truncate(KEPT - 1);
        self.samples.push_front(Sample { offset_us, error_us: round_trip_us / 2, at: answered });
    }

    /// What is known now.
    #[must_use]
    pub fn offset(&self, now: Mono) -> Option<ClockOffset> {
        let best = self.samples.iter().map(|sample| sample.error_us).min()?;
        let worst = best.saturating_mul(WORSE_MAX).max(best + JITTER_US);
        let sample = self.samples.iter().find(|sample| sample.error_us <= worst)?;
        let Sample { offset_us, error_us, at } = *sample;
        Some(ClockOffset { offset_us, error_us, age_ms: at.ms_until(now) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_700_000_000_000_000;

    fn after(filter: &mut ClockFilter, at_ms: u64, round_trip_ms: u64, theirs_us: u64) {
        let (asked, answered) = (Mono(at_ms * 1000), Mono((at_ms + round_trip_ms) * 1000));
        filter.measured((asked, answered), NOON + at_ms * 1000, theirs_us);
    }

    /// Goal: the offset is exact if both ways take as long, and off by no more than the error if one
    /// takes all of it. Method: a clock 5 s ahead, 80 ms of round trip, split in three ways.
    #[test]
    fn the_error_bounds_the_offset() {
        for there_ms in [0, 40, 80] {
            let mut filter = ClockFilter::default();
            after(&mut filter, 0, 80, NOON + 5_000_000 + there_ms * 1000);
            let found = filter.offset(Mono(1_080_000)).unwrap();
            assert_eq!((found.error_us, found.age_ms), (40_000, 1000));
            assert!(found.offset_us.abs_diff(5_000_000) <= 40_000, "{found:?}");
        }
    }

    /// Goal: a good measurement outlasts bad ones, and a new good one replaces it at once, also when
    /// the clock was set. Method: good, three bad, then good with another offset.
    #[test]
    fn the_newest_good_measurement_counts() {
        let mut filter = ClockFilter::default();
        assert_eq!(filter.offset(Mono(0)), None);
        after(&mut filter, 0, 10, NOON + 5_000);
        for at in [100, 200, 300] {
            after(&mut filter, at, 500, NOON);
        }
        assert_eq!(filter.offset(Mono(0)).unwrap().offset_us, 0);
        after(&mut filter, 400, 12, NOON + 406_000 - 9_000_000);
        assert_eq!(filter.offset(Mono(0)).unwrap().offset_us, -9_000_000);
    }

    /// Goal: a path that has become slow is believed in the end. Method: as many slow ones as are kept.
    #[test]
    fn old_measurements_are_forgotten() {
        let mut filter = ClockFilter::default();
        after(&mut filter, 0, 2, NOON);
        for at in 1..=KEPT as u64 {
            after(&mut filter, at * 1000, 300, NOON + at * 1_000_000 + 150_000 + 7);
        }
        let found = filter.offset(Mono(0)).unwrap();
        assert_eq!((found.offset_us, found.error_us), (7, 150_000));
    }
}
