//! What a shard knows of other nodes: whether there is a connection, how fast they answer, and
//! whether they answer at all.
//!
//! Smoothed round trips as TCP keeps them (RFC 6298): a read is hedged when an answer is later than
//! the mean plus four deviations.
//!
//! A breaker for each node: a connection can be up for seconds after its other end has died, and each
//! request that counts on it costs its client a hedge. After [`TRIP_AFTER`] requests in a row without
//! an answer the node is asked last for a while; then one request tries it, and either an answer
//! closes the breaker or the next pause is longer. Any answer closes it, however late: a slow node is not
//! a dead one. The same goes for a node whose membership is in doubt, for as long as it is.
//!
//! Last is not never: whoever is needed to meet a level is asked. Writes go to all replicas anyway.

use std::collections::BTreeMap;

use holm_protocol::admin::BreakerState;
use holm_protocol::ids::{Actor, NodeId};

use crate::time::Mono;

/// Requests in a row without an answer that trip a breaker. One or two are what a lost packet costs.
const TRIP_AFTER: u32 = 5;

/// The first pause of a breaker, milliseconds: some round trips round the world. Doubles each time.
const PAUSE_MS_MIN: u64 = 500;

/// The longest pause, milliseconds. By then the connection is gone, or the node is back.
const PAUSE_MS_MAX: u64 = 30_000;

/// A breaker. Closed while `trips` is 0.
#[derive(Debug, Clone, Copy, Default)]
struct Breaker {
    /// Requests in a row without an answer.
    misses: u32,
    /// Pauses since it was last closed.
    trips: u32,
    /// When the node is to be tried, or tried again.
    until: Mono,
    /// Whether a request is trying it.
    probing: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    up: bool,
    /// Which run of it.
    run: Option<Actor>,
    doubted: bool,
    losses: u64,
    srtt_us: u64,
    deviation_us: u64,
    breaker: Breaker,
}

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    /// Times that a breaker opened, or stayed open after a request had tried the node.
    pub(super) trips: u64,
    /// Requests that tried a node.
    pub(super) probes: u64,
    /// Breakers that are not closed.
    pub(super) open: u64,
}

impl Peers {
    /// Whether there is a connection.
    #[must_use]
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.up)
    }

    /// Takes in that there is a connection, or none.
    pub(super) fn set_up(&mut self, node: NodeId, up: bool) {
        let peer = self.peers.entry(node).or_default();
        peer.losses += u64::from(peer.up && !up);
        peer.up = up;
        // Another connection, another chance.
        self.close(node);
    }

    /// Takes in which run of a node there is a connection to. Says whether it is another one than before.
    pub(super) fn set_run(&mut self, node: NodeId, run: Actor) -> bool {
        self.peers.entry(node).or_default().run.replace(run) != Some(run)
    }

    /// The run of a node that there is a connection to, or was last.
    #[must_use]
    pub(super) fn run(&self, node: NodeId) -> Option<Actor> {
        self.peers.get(&node)?.run
    }

    /// Takes in whether membership doubts that the node can be reached.
    pub(super) fn set_doubted(&mut self, node: NodeId, doubted: bool) {
        self.peers.entry(node).or_default().doubted = doubted;
    }

    /// Whether others are to be asked before this node.
    #[must_use]
    pub(super) fn is_last(&self, node: NodeId, now: Mono) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        peer.doubted || (peer.breaker.trips > 0 && now < peer.breaker.until)
    }

    /// Takes in that a request goes to the node and counts on its answer.
    pub(super) fn asked(&mut self, node: NodeId, now: Mono) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let breaker = &mut peer.breaker;
        if breaker.trips > 0 && now >= breaker.until {
            breaker.probing = true;
            // Others leave it alone meanwhile; if nothing is heard of the answer, the next one tries.
            breaker.until = now.plus_ms(pause_ms(node, breaker.trips, now));
            self.probes += 1;
        }
    }

    /// Takes in that a request had to do without the node's answer.
    pub(super) fn missed(&mut self, node: NodeId, now: Mono) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.up) else { return };
        let breaker = &mut peer.breaker;
        breaker.misses = breaker.misses.saturating_add(1);
        let opens = breaker.trips == 0 && breaker.misses >= TRIP_AFTER;
        if opens || breaker.probing {
            self.open += u64::from(opens);
            self.trips += 1;
            breaker.trips = breaker.trips.saturating_add(1);
            breaker.probing = false;
            breaker.until = now.plus_ms(pause_ms(node, breaker.trips, now));
        }
    }

    /// Takes in that the node has answered something.
    pub(super) fn close(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            self.open -= u64::from(peer.breaker.trips > 0);
            peer.breaker = Breaker::default();
        }
    }

    /// The breakers that are not closed.
    pub(super) fn breakers(&self) -> impl Iterator<Item = (NodeId, BreakerState)> {
        let open = self.peers.iter().filter(|(_, peer)| peer.breaker.trips > 0);
        open.map(|(&node, peer)| match peer.breaker.probing {
            true => (node, BreakerState::Probing),
            false => (node, BreakerState::Open),
        })
    }

    /// How many connections to it have been lost: while that is the same, it is the same run.
    pub(super) fn losses(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.losses)
    }

    /// Takes in how long an answer took.
    pub(super) fn answered(&mut self, node: NodeId, asked: Mono, now: Mono) {
        self.close(node);
        let took_us = now.0.saturating_sub(asked.0);
        let peer = self.peers.entry(node).or_default();
        if peer.srtt_us == 0 {
            (peer.srtt_us, peer.deviation_us) = (took_us, took_us / 2);
        } else {
            peer.deviation_us = (peer.deviation_us * 3 + peer.srtt_us.abs_diff(took_us)) / 4;
            peer.srtt_us = (peer.srtt_us * 7 + took_us) / 8;
        }
    }

    /// The usual time of an answer, microseconds; 0 if none is known.
    #[must_use]
    pub(super) fn srtt_us(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.srtt_us)
    }

    /// The time after which an answer of whoever is slowest is late, microseconds; 0 if nothing is
    /// known of one that there is a connection to.
    #[must_use]
    pub(super) fn slowest_us(&self) -> u64 {
        let up = self.peers.values().filter(|peer| peer.up);
        let late = up.map(|peer| match peer.srtt_us {
            0 => None,
            known => Some(known + 4 * peer.deviation_us),
        });
        late.collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max()).unwrap_or(0)
    }

    /// The time after which an answer is late, microseconds; 0 if nothing is known.
    #[must_use]
    pub(super) fn late_after_us(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.srtt_us + 4 * peer.deviation_us)
    }
}

/// The pause after so many trips: doubled each time, of which up to half is taken off, so that the
/// shards and nodes that miss one node do not try it all at once. The time is as good as a die here.
fn pause_ms(node: NodeId, trips: u32, now: Mono) -> u64 {
    let whole = PAUSE_MS_MIN.saturating_mul(1 << trips.saturating_sub(1).min(16)).min(PAUSE_MS_MAX);
    let mixed = (now.0 ^ node.0.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    whole - mixed % (whole / 2 + 1)
}
