//! What a change of layout moves, and how even the load is: what an operator sees before applying.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::ids::{NodeId, Partition, PlacementId};
use serde::{Deserialize, Serialize};

use super::Layout;
use super::region::Region;
use super::targets::{NEARLY_ONE, ONE, quotas};

/// One partition that changes hands in one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The partition.
    pub partition: Partition,
    /// The region, by name: its id may differ between the two layouts.
    pub region: String,
    /// The nodes that give their replica up, ascending. Empty if replicas are added.
    pub from: Vec<NodeId>,
    /// The nodes that get a replica, ascending: so many copies travel. Empty if none is replaced.
    pub to: Vec<NodeId>,
}

/// How even a layout's load is, and what reaching it moved.
///
/// A node's *ideal* load is proportional to its capacity among the nodes of its region, after the
/// limits that zones and replication factor set (a node holds a partition at most once). In each
/// placement the load is the ideal rounded down or up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Imbalance {
    /// The node whose load is highest in proportion to its ideal.
    pub fullest: NodeId,
    /// How many partitions it holds, all placements together.
    pub load: u64,
    /// How many it would hold if partitions could be divided.
    pub ideal: f64,
    /// Its load divided by its ideal: 1 is perfect, 1.05 is five percent too much. 1 if there are
    /// no placements.
    pub load_over_ideal_max: f64,
    /// The lowest load in proportion to its ideal, of any node that should hold something.
    pub load_over_ideal_min: f64,
    /// Copies of partitions that travel from the previous layout to this one.
    pub moves: u64,
    /// The fewest with which any layout could be reached whose nodes hold their ideal load rounded
    /// down or up. A change of zones can make more necessary.
    pub moves_min: u64,
}

impl Layout {
    /// What changes from this layout to `next`: partitions in ascending order, regions by name.
    #[must_use]
    pub fn moves(&self, next: &Layout) -> Vec<Move> {
        let ids: BTreeSet<PlacementId> =
            self.placements().iter().chain(next.placements()).map(|spec| spec.id).collect();
        let regions: BTreeSet<&String> = self.regions().iter().chain(next.regions()).collect();
        let mut moves = Vec::new();
        for id in ids {
            let partitions = |layout: &Layout| layout.placement(id).map_or(0, |p| p.partitions());
            for index in 0..partitions(self).max(partitions(next)) {
                // At most 2^16 partitions: the cast loses nothing.
                let partition = Partition { placement: id, index: index as u16 };
                for &region in &regions {
                    let before = self.replicas_by_name(partition, region);
                    let after = next.replicas_by_name(partition, region);
                    let (from, to) = (missing(before, after), missing(after, before));
                    if !from.is_empty() || !to.is_empty() {
                        moves.push(Move { partition, region: region.clone(), from, to });
                    }
                }
            }
        }
        moves
    }

    /// How even this layout's load is, and how much it moved from `previous` (from nothing, if
    /// there is none: every replica is then a move).
    #[must_use]
    pub fn imbalance(&self, previous: Option<&Layout>) -> Imbalance {
        let mut ideals = vec![0_u64; self.nodes().len()];
        let mut moves_min = 0;
        for placement in self.placements() {
            for name in placement.replication.keys() {
                let region = Region::new(self.spec(), placement, name);
                let mut held = vec![0_u64; region.nodes()];
                if let Some(previous) = previous {
                    let rows = previous.previous_rows(&region, placement, name);
                    rows.iter().flatten().for_each(|&node| held[usize::from(node)] += 1);
                }
                let (mut lacking, mut kept) = (0, 0);
                for (node, quota) in quotas(&region).nodes.into_iter().enumerate() {
                    ideals[usize::from(region.global(node as u16))] += quota;
                    // As loads are rounded: only a quota that lost units in a division counts as whole.
                    // One that is just below a whole number may be rounded down.
                    let (up, down) = (quota.div_ceil(ONE), (quota + (ONE - NEARLY_ONE)) / ONE);
                    lacking += down.saturating_sub(held[node]);
                    kept += held[node].min(up);
                }
                let replicas = (region.partitions * region.replicas) as u64;
                moves_min += lacking.max(replicas.saturating_sub(kept));
            }
        }
        let moves = match previous {
            Some(previous) => previous.moves(self).iter().map(|one| one.to.len() as u64).sum(),
            None => self.held.iter().map(|held| held.len() as u64).sum(),
        };
        let mut report = Imbalance {
            fullest: self.nodes().first().map_or(NodeId(0), |node| node.id),
            load: 0,
            ideal: 0.0,
            load_over_ideal_max: 1.0,
            load_over_ideal_min: 1.0,
            moves,
            moves_min,
        };
        let mut fullest = 0.0;
        for (at, &quota) in ideals.iter().enumerate().filter(|&(_, &quota)| quota > 0) {
            let load = self.held[at].len() as u64;
            let ideal = quota as f64 / ONE as f64;
            let ratio = load as f64 / ideal;
            report.load_over_ideal_min = report.load_over_ideal_min.min(ratio);
            if ratio > fullest {
                fullest = ratio;
                let load_over_ideal_max = ratio.max(1.0);
                report = Imbalance {
                    fullest: self.nodes()[at].id,
                    load,
                    ideal,
                    load_over_ideal_max,
                    ..report
                };
            }
        }
        report
    }

    /// How many partitions each node holds, all placements together.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<NodeId, usize> {
        self.nodes().iter().map(|node| node.id).zip(self.held.iter().map(Vec::len)).collect()
    }

    fn replicas_by_name(&self, partition: Partition, region: &str) -> &[NodeId] {
        self.region_id(region).map_or(&[], |id| self.replicas_in(partition, id))
    }
}

/// The nodes of one list that the other lacks, ascending.
fn missing(these: &[NodeId], others: &[NodeId]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> =
        these.iter().copied().filter(|node| !others.contains(node)).collect();
    nodes.sort();
    nodes
}
