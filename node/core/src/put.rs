//! Counts one write's votes to a verdict. Pure: replies come in, a verdict goes out.
//!
//! Invariant: `durable` and `refused` are disjoint sets of nodes. They are sets, not counters, so a
//! repeated or reordered reply can never be counted twice; a node outside the quorum never counts.
//! A refusal can turn into a vote (a repeated request may succeed); a vote is never taken back,
//! because it says that the write is on that node's disk. A fallback's vote counts for the replica
//! that it stands for, and never beside that replica's own.
//!
//! Source: Dynamo (SOSP 2007) 4.5; the split of tally and process follows Riak's `put_core`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holm_protocol::ids::NodeId;

use crate::quorum::{Quorum, Tally};

/// What is known of a write's copies.
#[derive(Debug, Clone)]
pub struct PutCoordinator {
    quorum: Arc<Quorum>,
    durable: BTreeSet<NodeId>,
    refused: BTreeSet<NodeId>,
    /// Replicas for which a fallback has it on its disk, each with the first that said so.
    stood_for: BTreeMap<NodeId, NodeId>,
}

impl PutCoordinator {
    /// No votes yet.
    #[must_use]
    pub fn new(quorum: Arc<Quorum>) -> Self {
        let (durable, refused) = (BTreeSet::new(), BTreeSet::new());
        PutCoordinator { quorum, durable, refused, stood_for: BTreeMap::new() }
    }

    /// A node has the write on its disk.
    pub fn durable(&mut self, node: NodeId) {
        self.refused.remove(&node);
        self.durable.insert(node);
    }

    /// A node did not take it.
    pub fn refused(&mut self, node: NodeId) {
        if !self.has_vote_of(node) {
            self.refused.insert(node);
        }
    }

    /// A fallback has it on its disk in the place of a replica.
    pub fn stands_in(&mut self, fallback: NodeId, replica: NodeId) {
        self.refused.remove(&replica);
        self.stood_for.entry(replica).or_insert(fallback);
    }

    /// Whether a replica, or a fallback in its place, has the write on its disk.
    #[must_use]
    pub fn has_vote_of(&self, replica: NodeId) -> bool {
        self.durable.contains(&replica) || self.stood_for.contains_key(&replica)
    }

    /// Whether the write is acknowledged, can still be, or cannot.
    #[must_use]
    pub fn tally(&self) -> Tally {
        debug_assert!(self.durable.is_disjoint(&self.refused));
        if self.stood_for.is_empty() {
            return self.quorum.tally(&self.durable, &self.refused);
        }
        self.quorum.tally(&self.votes(), &self.refused)
    }

    /// The replicas that count: each once, whether it has the write or a fallback in its place.
    fn votes(&self) -> BTreeSet<NodeId> {
        self.durable.iter().chain(self.stood_for.keys()).copied().collect()
    }

    /// How many votes count.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.quorum.counted(&self.votes())
    }

    /// Whether a node has not answered.
    #[must_use]
    pub fn waits_for(&self, node: NodeId) -> bool {
        !self.has_vote_of(node) && !self.refused.contains(&node)
    }

    /// The quorum that is asked.
    #[must_use]
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// The replicas on whose disk the write is.
    #[must_use]
    pub fn durable_nodes(&self) -> &BTreeSet<NodeId> {
        &self.durable
    }

    /// The fallbacks that count: those whose replica has not voted itself.
    pub fn fallbacks(&self) -> impl Iterator<Item = NodeId> + '_ {
        let stands = self.stood_for.iter().filter(|(replica, _)| !self.durable.contains(replica));
        stands.map(|(_, &fallback)| fallback)
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

    /// Goal: a replica and its fallback are one vote, in either order, and the receipt names the
    /// replica once it has voted itself.
    #[test]
    fn a_replica_and_its_fallback_are_one_vote() {
        let fallbacks = |put: &PutCoordinator| put.fallbacks().collect::<Vec<_>>();
        let mut put = PutCoordinator::new(quorum_of_three());
        put.refused(NodeId(1));
        put.stands_in(NodeId(8), NodeId(1));
        put.stands_in(NodeId(9), NodeId(1));
        assert_eq!((put.tally(), put.counted()), (Tally::Open, 1));
        assert_eq!(fallbacks(&put), [NodeId(8)]);
        put.refused(NodeId(1));
        assert!(!put.waits_for(NodeId(1)), "the fallback has it");
        put.durable(NodeId(1));
        assert_eq!((put.tally(), put.counted()), (Tally::Open, 1));
        assert!(fallbacks(&put).is_empty());
        put.stands_in(NodeId(9), NodeId(2));
        assert_eq!((put.tally(), put.counted()), (Tally::Met, 2));
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
