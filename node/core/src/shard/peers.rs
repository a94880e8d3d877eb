//! What a shard knows of other nodes: whether there is a connection, and how fast they answer.
//!
//! Smoothed round trips as TCP keeps them (RFC 6298): a read is hedged when an answer is later than
//! the mean plus four deviations.

use std::collections::BTreeMap;

use holm_protocol::ids::NodeId;

use crate::time::Mono;

#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    up: bool,
    losses: u64,
    srtt_us: u64,
    deviation_us: u64,
}

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
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
    }

    /// How many connections to it have been lost: while that is the same, it is the same run.
    pub(super) fn losses(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.losses)
    }

    /// Takes in how long an answer took.
    pub(super) fn answered(&mut self, node: NodeId, asked: Mono, now: Mono) {
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
