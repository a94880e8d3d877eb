//! A histogram that several threads write without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts whole numbers in buckets. An observation is a binary search and two relaxed additions.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds, included, ascending.
    bounds: &'static [u64],
    /// One more than there are bounds: the last takes what exceeds them all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Snapshot {
    /// Of all observations.
    pub(super) sum: u64,
    /// How many there were.
    pub(super) count: u64,
    /// Upper bound and number of observations in each bucket alone; the last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Histogram {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The observations so far, with bounds divided by `per_unit`. The count is taken from the
    /// buckets, so that the two always agree; the sum may lag by what is being written.
    pub(super) fn snapshot(&self, per_unit: f64) -> Snapshot {
        let bounds = self.bounds.iter().map(|&bound| bound as f64 / per_unit);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> =
            bounds.chain(std::iter::once(f64::INFINITY)).zip(counts).collect();
        Snapshot {
            sum: self.sum.load(Ordering::Relaxed),
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a value is counted in the first bucket that can hold it, and beyond all bounds in the
    /// last; nothing is lost when threads write at once.
    #[test]
    fn values_find_their_buckets() {
        let histogram = Histogram::new(&[0, 10, 20]);
        for value in [0, 1, 10, 11, 20, 21, u64::from(u32::MAX)] {
            histogram.observe(value);
        }
        let snapshot = histogram.snapshot(10.0);
        assert_eq!(snapshot.buckets, [(0.0, 1), (1.0, 2), (2.0, 2), (f64::INFINITY, 2)]);
        assert_eq!((snapshot.count, snapshot.sum), (7, 63 + u64::from(u32::MAX)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| histogram.observe(15)));
            }
        });
        assert_eq!(histogram.snapshot(1.0).count, 4007);
    }
}
