//! How often all links together may try to connect.
//!
//! A token bucket: bursts are free up to a point, and then attempts are spread, so that a region
//! that comes back is not met by a storm. Pauses of one link double and are jittered besides.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Attempts that may be made at once. Arbitrary: a mid-sized cluster's worth.
const BURST: f64 = 64.0;

/// Attempts a second after that. Arbitrary: a TLS handshake costs about a millisecond of CPU, so
/// this is a few percent of one core.
const RATE: f64 = 32.0;

/// The shortest wait: the grain of the runtime's timer. Rounding can leave a token short of whole by
/// less than a nanosecond, and a wait of nothing would look again, and again, without end.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// See the module's head.
#[derive(Debug)]
pub struct ReconnectBudget {
    state: Mutex<(f64, Instant)>,
}

impl ReconnectBudget {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant) -> ReconnectBudget {
        ReconnectBudget { state: Mutex::new((BURST, now)) }
    }

    /// Takes a token, or says how long until there is one.
    fn try_take(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = *state;
        let tokens = (tokens + now.duration_since(last).as_secs_f64() * RATE).min(BURST);
        if tokens >= 1.0 {
            *state = (tokens - 1.0, now);
            return Ok(());
        }
        *state = (tokens, now);
        Err(Duration::from_secs_f64((1.0 - tokens) / RATE).max(PAUSE_MIN))
    }

    /// Waits for a token. Whether it had to wait.
    pub async fn take(&self) -> bool {
        let mut waited = false;
        while let Err(pause) = self.try_take(Instant::now()) {
            waited = true;
            sleep(pause).await;
        }
        waited
    }
}

/// The pause before attempt number `attempt` (from 0): doubled each time up to `max`, of which a
/// random half is taken off. `random` is uniform in 0 to 1.
#[must_use]
pub fn backoff(attempt: u32, min: Duration, max: Duration, random: f64) -> Duration {
    // 2^20 times any minimum is beyond any maximum.
    let whole = min.saturating_mul(1 << attempt.min(20)).min(max);
    whole.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a burst, then the rate. Method: take tokens at made-up times.
    #[test]
    fn the_bucket_empties_and_fills() {
        let start = Instant::now();
        let budget = ReconnectBudget::new(start);
        for _ in 0..BURST as u32 {
            assert_eq!(budget.try_take(start), Ok(()));
        }
        let pause = budget.try_take(start).unwrap_err();
        assert!(pause > Duration::ZERO && pause <= Duration::from_secs_f64(1.0 / RATE));
        assert_eq!(budget.try_take(start + pause + Duration::from_millis(1)), Ok(()));
        assert!(budget.try_take(start + pause + Duration::from_millis(1)).is_err());
    }

    /// Goal: who has to wait does wait. A token that was short by a rounding error (simulated network,
    /// dials that keep to the budget, seed 14) gave a pause of 0, and taking it never ended.
    /// Method: a bucket that is short by next to nothing.
    #[test]
    fn a_wait_is_never_nothing() {
        let start = Instant::now();
        let budget = ReconnectBudget { state: Mutex::new((1.0 - f64::EPSILON, start)) };
        assert_eq!(budget.try_take(start), Err(PAUSE_MIN));
        assert_eq!(budget.try_take(start + PAUSE_MIN), Ok(()));
    }

    /// Goal: pauses grow to the maximum and not beyond, and jitter takes off at most half.
    #[test]
    fn pauses_are_bounded() {
        let (min, max) = (Duration::from_millis(50), Duration::from_millis(2000));
        assert_eq!(backoff(0, min, max, 0.0), min);
        assert_eq!(backoff(0, min, max, 1.0), min / 2);
        assert_eq!(backoff(3, min, max, 0.0), Duration::from_millis(400));
        for attempt in [10, 31, 32, u32::MAX] {
            assert_eq!(backoff(attempt, min, max, 0.0), max);
        }
    }
}
