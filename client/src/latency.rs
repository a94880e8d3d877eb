//! Smoothed latencies: when to ask a second replica, and which one is near.
//!
//! Mean and mean deviation as exponentially weighted averages, in the manner of TCP's
//! retransmission timer (Jacobson and Karels, SIGCOMM 1988). Kept apart for levels that wait for
//! one region and those that wait for several: their answers take different times by nature.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use holm_protocol::level::Level;

/// Never hedge sooner than this: closer to the sweep's grain and to scheduling noise than to
/// anything a second replica could save.
const HEDGE_DELAY_MIN: Duration = Duration::from_millis(4);

/// When an answer is late of a node that was not measured, by reach: above what a healthy region or
/// a healthy world takes, and far below anybody's deadline.
const HEDGE_DELAY_UNMEASURED: [Duration; 2] =
    [Duration::from_millis(50), Duration::from_millis(400)];

/// Measurements before a node may be called slow. The first ones are taken while connections are
/// still being made, and a node that is passed over is hardly measured again: a judgement on them
/// would stand for a long time. After 16 the first one weighs an eighth.
const SAMPLES_MIN: u32 = 16;

/// A mean above twice the other plus this, microseconds, is slow. Differences below it are zones
/// of one region and scheduling noise (one spike of 50 ms moves a mean by 6 ms), and not worth
/// giving a key another coordinator.
const SLOWER_US: u32 = 10_000;

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
    samples: [AtomicU32; 2],
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
        let samples = self.samples[reach as usize].load(Ordering::Relaxed);
        self.samples[reach as usize].store(samples.saturating_add(1), Ordering::Relaxed);
        cell.store(u64::from(mean.max(1)) << 32 | u64::from(deviation), Ordering::Relaxed);
    }

    /// The smoothed mean, microseconds; 0 if not measured.
    pub(crate) fn mean_us(&self, reach: Reach) -> u32 {
        unpack(self.packed[reach as usize].load(Ordering::Relaxed)).0
    }

    /// Whether it is known to answer much slower than `other`.
    pub(crate) fn is_much_slower(&self, other: &Latency, reach: Reach) -> bool {
        let known = |l: &Latency| l.samples[reach as usize].load(Ordering::Relaxed) >= SAMPLES_MIN;
        let limit = other.mean_us(reach).saturating_mul(2).saturating_add(SLOWER_US);
        known(self) && known(other) && self.mean_us(reach) > limit
    }

    /// After how long an answer is late.
    pub(crate) fn late_after(&self, reach: Reach) -> Duration {
        let (mean, deviation) = unpack(self.packed[reach as usize].load(Ordering::Relaxed));
        if mean == 0 {
            return HEDGE_DELAY_UNMEASURED[reach as usize];
        }
        let micros = u64::from(mean) + 4 * u64::from(deviation);
        Duration::from_micros(micros).max(HEDGE_DELAY_MIN)
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
        assert_eq!(latency.late_after(Reach::Local), Duration::from_millis(50));
        for _ in 0..100 {
            latency.observe(Reach::Local, Duration::from_millis(10));
        }
        let mean = latency.mean_us(Reach::Local);
        assert!((9_000..=11_000).contains(&mean), "{mean}");
        let late = latency.late_after(Reach::Local);
        assert!(late < Duration::from_millis(12), "{late:?}");
        latency.observe(Reach::Local, Duration::from_millis(100));
        assert!(latency.late_after(Reach::Local) > Duration::from_millis(50));
        assert_eq!(latency.mean_us(Reach::Wide), 0);
    }

    /// Goal: a node is slow if it always is, not because its first answer, or one later, was. A bad
    /// first sample used to be the whole estimate: the node was passed over, and so hardly ever
    /// measured again. Method: a steady node beside one with single bad samples.
    #[test]
    fn single_bad_samples_make_no_slow_node() {
        let (steady, other) = (Latency::default(), Latency::default());
        other.observe(Reach::Local, Duration::from_millis(50));
        for _ in 0..100 {
            steady.observe(Reach::Local, Duration::from_micros(300));
            other.observe(Reach::Local, Duration::from_micros(300));
            assert!(!other.is_much_slower(&steady, Reach::Local));
        }
        other.observe(Reach::Local, Duration::from_millis(50));
        assert!(!other.is_much_slower(&steady, Reach::Local));
        for _ in 0..20 {
            other.observe(Reach::Local, Duration::from_millis(50));
        }
        assert!(other.is_much_slower(&steady, Reach::Local));
        assert!(!steady.is_much_slower(&other, Reach::Local));
        assert!(!other.is_much_slower(&steady, Reach::Wide), "not measured");
    }
}
