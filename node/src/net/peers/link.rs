//! The link to one other node: its outboxes, and the one connection that feeds from them.
//!
//! Which of two connections stays, when both ends may dial and either may have restarted:
//! 1. Another run of the other node: the newer connection. The old run is gone.
//! 2. Both dialled by the same side: the newer. That side has given up the older.
//! 3. Dialled by both sides within [`CROSSING_MAX`]: the one dialled by the smaller id, at both ends
//!    alike, so that they never each close what the other one keeps.
//! 4. Otherwise the newer: whoever dialled has lost the older.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holm_protocol::handshake::Lane;
use holm_protocol::ids::{Actor, NodeId};
use quinn::{Connection, PathStats, VarInt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::counters::NetCounters;
use super::super::outbox::{NotSent, Outbox};

/// How far apart two dials can be and still have crossed: several round trips round the world.
pub const CROSSING_MAX: Duration = Duration::from_secs(2);

/// See the module's head.
#[derive(Debug)]
pub struct PeerLink {
    node: NodeId,
    me: NodeId,
    requests: Outbox,
    bulk: Outbox,
    current: Mutex<Option<Current>>,
    /// Which connection may hand frames on: [`Admitted::generation`]. 0: none.
    generation: AtomicU64,
    connected: AtomicBool,
    rtt_us: AtomicU64,
    up: watch::Sender<bool>,
    hurry: Notify,
    counters: Arc<NetCounters>,
}

#[derive(Debug)]
struct Current {
    facts: Facts,
    generation: u64,
    connection: Connection,
}

/// What decides between two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The other node's run.
    pub run: Actor,
    /// Who dialled.
    pub dialler: NodeId,
    /// When it was made.
    pub since: Instant,
}

/// A connection that has become the link's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Numbers the link's connections.
    pub generation: u64,
    /// Epoch of the requests lane's outbox.
    pub requests: u64,
    /// Epoch of the bulk lane's outbox.
    pub bulk: u64,
    /// Whether it took the place of another.
    pub replaced: bool,
}

impl PeerLink {
    /// A link without a connection.
    pub(super) fn new(
        me: NodeId,
        node: NodeId,
        queue_bytes_max: usize,
        counters: Arc<NetCounters>,
    ) -> PeerLink {
        PeerLink {
            node,
            me,
            requests: Outbox::new(queue_bytes_max, None),
            bulk: Outbox::new(queue_bytes_max, None),
            current: Mutex::default(),
            generation: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            rtt_us: AtomicU64::new(0),
            up: watch::Sender::new(false),
            hurry: Notify::new(),
            counters,
        }
    }

    /// The other node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Queues whole encoded frames. The same bytes can be sent to several nodes.
    ///
    /// # Errors
    /// [`NotSent`], counted; nothing of `frames` will be sent.
    pub fn send(&self, lane: Lane, frames: &[u8]) -> Result<(), NotSent> {
        self.append(lane, |out| out.extend_from_slice(frames))
    }

    /// Queues the whole frames that `write` encodes. One call for a batch is one wake-up.
    ///
    /// # Errors
    /// As [`PeerLink::send`].
    pub fn append(&self, lane: Lane, write: impl FnOnce(&mut BytesMut)) -> Result<(), NotSent> {
        let result = self.outbox(lane).append(write);
        match result {
            Ok(()) => {}
            Err(NotSent::NotConnected) => self.counters.peer_frames_unconnected.increment(),
            Err(NotSent::Full) => self.counters.peer_frames_full.increment(),
        }
        result
    }

    /// Sends a datagram now or never. Whether the connection took it.
    pub(super) fn send_datagram(&self, datagram: Bytes) -> bool {
        self.lock().as_ref().is_some_and(|now| now.connection.send_datagram(datagram).is_ok())
    }

    /// Cuts a pause before the next dial short, if there is one.
    pub(super) fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// Waits for [`PeerLink::hurry`].
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Smoothed round-trip time, if there is a connection.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.is_up().then(|| Duration::from_micros(self.rtt_us.load(Ordering::Relaxed)))
    }

    /// What QUIC knows of the path, if there is a connection. Takes a lock: for metrics.
    #[must_use]
    pub fn path(&self) -> Option<PathStats> {
        self.lock().as_ref().map(|current| current.connection.stats().path)
    }

    /// Bytes waiting on both lanes.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.requests.held() + self.bulk.held()
    }

    /// Tells when the link goes up or down.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub(super) fn outbox(&self, lane: Lane) -> &Outbox {
        match lane {
            Lane::Bulk => &self.bulk,
            _ => &self.requests,
        }
    }

    pub(super) fn set_rtt(&self, rtt: Duration) {
        self.rtt_us.store(rtt.as_micros() as u64, Ordering::Relaxed);
    }

    /// Whether frames of this connection may be handed on.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    /// Makes a connection the link's, closing the one it replaces with `code`; `None` if the one
    /// there is stays.
    pub(super) fn admit(
        &self,
        facts: Facts,
        connection: &Connection,
        code: VarInt,
    ) -> Option<Admitted> {
        let mut current = self.lock();
        let smaller = self.me.min(self.node);
        if current.as_ref().is_some_and(|old| keeps_old(&old.facts, &facts, smaller)) {
            return None;
        }
        let old = current.take();
        if let Some(old) = &old {
            old.connection.close(code, b"replaced by a newer connection");
        }
        let (requests, bulk) = (self.requests.open(), self.bulk.open());
        // Epochs count a link's connections from 1, so one of them can number the connection too.
        let generation = requests;
        self.set_rtt(connection.rtt());
        *current = Some(Current { facts, generation, connection: connection.clone() });
        self.generation.store(generation, Ordering::Relaxed);
        self.connected.store(true, Ordering::Relaxed);
        drop(current);
        self.up.send_replace(true);
        Some(Admitted { generation, requests, bulk, replaced: old.is_some() })
    }

    /// Ends a connection. `false` if it was no longer the link's.
    pub(super) fn retire(&self, admitted: &Admitted) -> bool {
        let mut current = self.lock();
        if current.as_ref().is_none_or(|old| old.generation != admitted.generation) {
            return false;
        }
        *current = None;
        self.generation.store(0, Ordering::Relaxed);
        self.connected.store(false, Ordering::Relaxed);
        self.requests.close(admitted.requests);
        self.bulk.close(admitted.bulk);
        drop(current);
        self.up.send_replace(false);
        true
    }

    /// Closes the connection, if there is one. Its task then retires it.
    pub(super) fn disconnect(&self, code: VarInt, why: &[u8]) {
        if let Some(current) = &*self.lock() {
            current.connection.close(code, why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules of the module's head.
fn keeps_old(old: &Facts, new: &Facts, smaller: NodeId) -> bool {
    let crossed = new.since.saturating_duration_since(old.since) < CROSSING_MAX;
    old.run == new.run && old.dialler != new.dialler && old.dialler == smaller && crossed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both ends keep the same one of two connections that crossed, in whichever order each of
    /// them saw the two; and none survives a restart. Method: all orders.
    #[test]
    fn both_ends_keep_the_same_connection() {
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        let facts =
            |dialler, run, since| Facts { dialler: NodeId(dialler), run: Actor(run), since };
        let small = NodeId(1);
        let (a, b) = (facts(1, 9, now), facts(2, 9, later(5)));
        assert!(keeps_old(&a, &b, small), "the smaller id's dial stays");
        assert!(!keeps_old(&b, &facts(1, 9, later(9)), small), "and replaces the other's");
        assert!(!keeps_old(&a, &facts(1, 9, later(5)), small), "same side: the newer");
        assert!(!keeps_old(&a, &facts(2, 10, later(5)), small), "another run: the newer");
        assert!(!keeps_old(&a, &facts(2, 9, now + CROSSING_MAX), small), "not crossed: the newer");
    }
}
