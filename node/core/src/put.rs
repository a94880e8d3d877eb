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

#[cfg(test)]
mod tests {
    use holm_protocol::ids::{Partition, PlacementId, RegionId};
    use holm_protocol::level::Level;

    use super::*;
    use crate::layout::{Layout, LayoutNode, LayoutSpec, PlacementSpec};

    fn quorum_of_three() -> Arc<Quorum> {
        let node = |id: u64| LayoutNode {
            id: NodeId(id),
            addr: ([127, 0, 0, 1], 7000 + id as u16).into(),
            region: "eu".to_owned(),
            zone: "z".to_owned(),
            capacity: 1,
        };
        let replication = [("eu".to_owned(), 3)].into();
        let placement =
            PlacementSpec { id: PlacementId(0), name: "d".to_owned(), bits: 0, replication };
        let nodes = (1..=3).map(node).collect();
        let spec = LayoutSpec { version: 1, nodes, placements: vec![placement] };
        let layout = Layout::compute(spec, None).unwrap();
        let partition = Partition { placement: PlacementId(0), index: 0 };
        Arc::new(Quorum::new(Level::Quorum, &layout, partition, RegionId(0)).unwrap())
    }

    /// Goal: a repeated or foreign vote never makes a quorum. Method: the same node twice, a
    /// stranger, then a second member.
    #[test]
    fn repeated_and_foreign_votes_do_not_count() {
        let mut put = PutCoordinator::new(quorum_of_three());
        put.durable(NodeId(1));
        put.durable(NodeId(1));
        put.durable(NodeId(77));
        assert_eq!(put.tally(), Tally::Open);
        put.durable(NodeId(3));
        assert_eq!(put.tally(), Tally::Met);
    }

    /// Goal: a refusal can turn into a vote, a vote never into a refusal.
    #[test]
    fn votes_outweigh_refusals() {
        let mut put = PutCoordinator::new(quorum_of_three());
        put.refused(NodeId(1));
        put.refused(NodeId(2));
        assert_eq!(put.tally(), Tally::Impossible);
        put.durable(NodeId(1));
        put.refused(NodeId(1));
        assert_eq!(put.tally(), Tally::Open);
        assert!(put.waits_for(NodeId(3)) && !put.waits_for(NodeId(1)));
        put.durable(NodeId(2));
        assert_eq!(put.tally(), Tally::Met);
    }
}
