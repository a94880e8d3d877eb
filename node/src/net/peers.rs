//! Connections between nodes: one per pair, kept up, with one lane for requests and one for bulk.
//!
//! The node with the smaller id dials. The other one waits a moment and then dials too, because
//! somebody has to begin: before the first layout reaches a node, it knows nobody. If two
//! connections of one pair meet, [`link`] says which one stays, the same at both ends.
//!
//! Sending never blocks: frames go into a bounded outbox per node and lane, or are refused and
//! counted. A frame accepted is not a frame delivered: when a connection ends, what waited is lost,
//! and the protocol above repeats what matters.

pub mod budget;
pub mod dial;
pub mod link;
pub mod run;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use holm_protocol::admin::PeerStatus;
use holm_protocol::handshake::Lane;
use holm_protocol::ids::NodeId;
use quinn::PathStats;
use tokio::sync::Notify;

use super::counters::NetCounters;
use super::outbox::NotSent;
use link::PeerLink;

/// The other nodes, as the rest of the node sees them. Cheap to clone; callable from any thread.
#[derive(Debug, Clone)]
pub struct PeerPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: NodeId,
    queue_bytes_max: usize,
    counters: Arc<NetCounters>,
    /// A link stays once it is made: at most as many as ids were ever in a layout or certificate.
    links: RwLock<BTreeMap<NodeId, Arc<PeerLink>>>,
    wanted: Mutex<Wanted>,
    changed: Notify,
}

/// Whom to be connected with, and who says so.
#[derive(Debug, Default)]
struct Wanted {
    layout: BTreeMap<NodeId, SocketAddr>,
    seeds: BTreeMap<NodeId, SocketAddr>,
}

impl PeerPool {
    /// A pool without connections. `me` is left out of whatever it is told to reach.
    #[must_use]
    pub fn new(me: NodeId, queue_bytes_max: usize, counters: Arc<NetCounters>) -> PeerPool {
        let inner = Inner {
            me,
            queue_bytes_max,
            counters,
            links: RwLock::default(),
            wanted: Mutex::default(),
            changed: Notify::new(),
        };
        PeerPool { inner: Arc::new(inner) }
    }

    /// Says which nodes to be connected with, and where they listen, by the layout. Connections to
    /// nodes that are no longer wanted, or elsewhere, are closed.
    pub fn set_peers(&self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        let nodes = nodes.into_iter().filter(|(node, _)| *node != self.inner.me).collect();
        self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner).layout = nodes;
        self.inner.changed.notify_one();
    }

    /// Says which nodes to be connected with whatever the layout, by the configuration. Of a node that
    /// is in both, the layout says where it listens.
    pub fn set_seeds(&self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        let nodes = nodes.into_iter().filter(|(node, _)| *node != self.inner.me).collect();
        self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner).seeds = nodes;
        self.inner.changed.notify_one();
    }

    /// The link to a node, connected or not. Keep it: looking it up costs more than sending.
    #[must_use]
    pub fn link(&self, node: NodeId) -> Arc<PeerLink> {
        if let Some(link) = self.find(node) {
            return link;
        }
        let mut links = self.inner.links.write().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let bytes_max = self.inner.queue_bytes_max;
            Arc::new(PeerLink::new(self.inner.me, node, bytes_max, self.inner.counters.clone()))
        };
        links.entry(node).or_insert_with(made).clone()
    }

    /// Queues whole encoded frames for a node.
    ///
    /// # Errors
    /// [`NotSent`], counted; nothing of `frames` will be sent.
    pub fn send(&self, node: NodeId, lane: Lane, frames: &[u8]) -> Result<(), NotSent> {
        match self.find(node) {
            Some(link) => link.send(lane, frames),
            None => {
                self.inner.counters.peer_frames_unconnected.increment();
                Err(NotSent::NotConnected)
            }
        }
    }

    /// Sends a datagram if there is a connection with room for it. Whether it was taken; it may still
    /// be lost.
    pub(super) fn send_datagram(&self, node: NodeId, datagram: Bytes) -> bool {
        self.find(node).is_some_and(|link| link.send_datagram(datagram))
    }

    /// Another node has met this one: whoever waits to dial it need not wait.
    pub(super) fn hurry(&self, node: NodeId) {
        if let Some(link) = self.find(node) {
            link.hurry();
        }
    }

    /// Whether there is a connection to a node.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.find(node).is_some_and(|link| link.is_up())
    }

    /// Smoothed round-trip time to a node, if there is a connection. At most a second old.
    #[must_use]
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.find(node)?.rtt()
    }

    /// Every wanted or connected node, in the order of ids.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let wanted = self.wanted();
        let links = self.inner.links.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeMap<NodeId, PeerStatus> = wanted
            .into_keys()
            .map(|node| (node, PeerStatus { node, connected: false, rtt_us: 0 }))
            .collect();
        for (node, link) in links.iter().filter(|(_, link)| link.is_up()) {
            let rtt_us = link.rtt().map_or(0, |rtt| rtt.as_micros() as u64);
            all.insert(*node, PeerStatus { node: *node, connected: true, rtt_us });
        }
        all.into_values().collect()
    }

    /// What QUIC knows of the path to each connected node, for metrics.
    #[must_use]
    pub fn paths(&self) -> Vec<(NodeId, PathStats)> {
        let links = self.inner.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(|(node, link)| Some((*node, link.path()?))).collect()
    }

    /// Bytes waiting for all nodes, for metrics.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let links = self.inner.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().map(|link| link.queued_bytes()).sum()
    }

    fn find(&self, node: NodeId) -> Option<Arc<PeerLink>> {
        let links = self.inner.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&node).cloned()
    }

    fn wanted(&self) -> BTreeMap<NodeId, SocketAddr> {
        let wanted = self.inner.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = wanted.seeds.clone();
        all.extend(&wanted.layout);
        all
    }
}
