//! Counts one write's votes to a verdict. Pure: replies come in, a verdict goes out.
//!
//! Invariant: `durable` and `refused` are disjoint sets of nodes. They are sets, not counters, so a
//! repeated or reordered reply can never be counted twice; a node outside the quorum never counts.
//! A refusal can turn into a vote (a repeated request may succeed); a vote is never taken back,
//! because it says that the write is on that node's disk.
//!
//! Source: Dynamo (SOSP 2007) 4.5; the split of tally and process follows Riak's `put_core`.

use std::collections::BTreeSet;
use std::sync::Arc;

use holm_protocol::ids::NodeId;

use crate::quorum::{Quorum, Tally};

/// What is known of a write's copies.
#[derive(Debug, Clone)]
pub struct PutCoordinator {
    quorum: Arc<Quorum>,
    durable: BTreeSet<NodeId>,
    refused: BTreeSet<NodeId>,
}

impl PutCoordinator {
    /// No votes yet.
    #[must_use]
    pub fn new(quorum: Arc<Quorum>) -> Self {
        PutCoordinator { quorum, durable: BTreeSet::new(), refused: BTreeSet::new() }
    }

    /// A node has the write on its disk.
    pub fn durable(&mut self, node: NodeId) {
        self.refused.remove(&node);
        self.durable.insert(node);
    }

    /// A node did not take it.
    pub fn refused(&mut self, node: NodeId) {
        if !self.durable.contains(&node) {
            self.refused.insert(node);
        }
    }

    /// Whether the write is acknowledged, can still be, or cannot.
    #[must_use]
    pub fn tally(&self) -> Tally {
        debug_assert!(self.durable.is_disjoint(&self.refused));
        self.quorum.tally(&self.durable, &self.refused)
    }

    /// Whether a node has not answered.
    #[must_use]
    pub fn waits_for(&self, node: NodeId) -> bool {
        !self.durable.contains(&node) && !self.refused.contains(&node)
    }

    /// The quorum that is asked.
    #[must_use]
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// The nodes on whose disk the write is.
    #[must_use]
    pub fn durable_nodes(&self) -> &BTreeSet<NodeId> {
        &self.durable
    }
}
