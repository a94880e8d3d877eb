//! Congestion control: quinn's Cubic, with a floor under its window.
//!
//! QUIC lets the window shrink to two packets (RFC 9002, section 7.2). Between nodes that is a trap: a
//! link that loses a third of its packets at random keeps it there, and quinn sends no acknowledgement
//! while the window is full, so that two nodes which both have much to send wait for each other's
//! probe timeouts. A packet every quarter of a second was seen, for a minute. Answers to clients have the
//! same floor: who is a node is known only when a connection has its settings already.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// The window shrinks no further, bytes: some forty packets, an eighth of a second on the narrowest
/// link that a node can do with, 4 Mbit/s.
const WINDOW_MIN: u64 = 64 << 10;

/// Makes [`Floored`] controllers.
#[derive(Debug, Default)]
pub(super) struct FlooredConfig {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for FlooredConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Floored { inner: Cubic::new(Arc::clone(&self.cubic), now, current_mtu) })
    }
}

/// Cubic that never waits with less than [`WINDOW_MIN`] on its way.
#[derive(Debug, Clone)]
struct Floored {
    inner: Cubic,
}

impl Controller for Floored {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().max(WINDOW_MIN)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window().max(WINDOW_MIN)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Goal: no run of losses takes the window below its floor.
    #[test]
    fn losses_stop_at_the_floor() {
        let start = Instant::now();
        let mut controller = Arc::new(FlooredConfig::default()).build(start, 1_452);
        for step in 1..100 {
            let now = start + Duration::from_millis(step * 10);
            controller.on_congestion_event(now, now, step % 10 == 0, 1_452);
            assert_eq!(controller.window(), WINDOW_MIN, "step {step}");
            assert_eq!(controller.metrics().congestion_window, WINDOW_MIN);
        }
    }
}
