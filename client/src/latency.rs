//! Smoothed latencies: when to ask a second replica, and which one is near.
//!
//! Mean and mean deviation as exponentially weighted averages, in the manner of TCP's
//! retransmission timer (Jacobson and Karels, SIGCOMM 1988). Kept apart for levels that wait for
//! one region and those that wait for several: their answers take different times by nature.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holm_protocol::level::Level;

/// Never hedge sooner than this: closer to the sweep's grain and to scheduling noise than to
/// anything a second replica could save.
const HEDGE_DELAY_MIN: Duration = Duration::from_millis(4);

/// Whose answers a level waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Replicas of one region.
    Local = 0,
    /// Replicas of several regions.
    Wide = 1,
}

impl Reach {
    pub(crate) fn of(level: Level) -> Reach {
        match level {
            Level::One | Level::LocalQuorum => Reach::Local,
            _ => Reach::Wide,
        }
    }
}

/// One node's latencies by reach. Zero: not measured yet.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Mean in the upper 32 bits and mean deviation in the lower ones, microseconds each, so that
    /// both change together.
    packed: [AtomicU64; 2],
}

impl Latency {
    /// Takes in one measurement. Two at the same time may count as one: this is an estimate.
    pub(crate) fn observe(&self, reach: Reach, took: Duration) {
        let cell = &self.packed[reach as usize];
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let (mean, deviation) = unpack(cell.load(Ordering::Relaxed));
        let (mean, deviation) = if mean == 0 {
            (took, took / 2)
        } else {
            let error = took.abs_diff(mean);
            // Weights of 1/8 and 1/4, as in TCP.
            (mean - mean / 8 + took / 8, deviation - deviation / 4 + error / 4)
        };
        cell.store(u64::from(mean.max(1)) << 32 | u64::from(deviation), Ordering::Relaxed);
    }

    /// The smoothed mean, microseconds; 0 if not measured.
    pub(crate) fn mean_us(&self, reach: Reach) -> u32 {
        unpack(self.packed[reach as usize].load(Ordering::Relaxed)).0
    }

    /// After how long an answer is late; `None` if nothing was measured.
    pub(crate) fn late_after(&self, reach: Reach) -> Option<Duration> {
        let (mean, deviation) = unpack(self.packed[reach as usize].load(Ordering::Relaxed));
        if mean == 0 {
            return None;
        }
        let micros = u64::from(mean) + 4 * u64::from(deviation);
        Some(Duration::from_micros(micros).max(HEDGE_DELAY_MIN))
    }
}

fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the estimate follows a change, and reaches stay apart.
    #[test]
    fn estimates_follow() {
        let latency = Latency::default();
        assert_eq!(latency.late_after(Reach::Local), None);
        for _ in 0..100 {
            latency.observe(Reach::Local, Duration::from_millis(10));
        }
        let mean = latency.mean_us(Reach::Local);
        assert!((9_000..=11_000).contains(&mean), "{mean}");
        let late = latency.late_after(Reach::Local).unwrap();
        assert!(late < Duration::from_millis(12), "{late:?}");
        latency.observe(Reach::Local, Duration::from_millis(100));
        assert!(latency.late_after(Reach::Local).unwrap() > Duration::from_millis(50));
        assert_eq!(latency.mean_us(Reach::Wide), 0);
    }
}
