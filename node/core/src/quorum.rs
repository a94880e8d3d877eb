//! Which replicas must answer: consistency levels applied to a partition's replicas.
//!
//! A quorum is one or more groups of replicas with a number that each group needs. Votes are
//! counted by identity: a set of nodes, restricted to the group's members. A repeated reply counts
//! once, a stranger's never (STYLE: vote by identity).
//!
//! Source: Dynamo (SOSP 2007) 4.5 for R, W and N; per-region majorities as in Cassandra's
//! `EACH_QUORUM`.

use std::collections::BTreeSet;

use holm_protocol::error::RequestError;
use holm_protocol::ids::{NodeId, Partition, RegionId};
use holm_protocol::level::Level;

use crate::layout::Layout;

/// Replicas of which some must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    members: Vec<NodeId>,
    needed: usize,
}

/// Who must answer for a level to be met on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    level: Level,
    groups: Vec<Group>,
}

/// Whether a level is met, can still be, or cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    /// Enough members have answered.
    Met,
    /// Not yet.
    Open,
    /// Too many members have refused.
    Impossible,
}

impl Quorum {
    /// The quorum that `level` means for a partition, seen from a coordinator's region.
    ///
    /// # Errors
    /// [`RequestError::LevelUnreachable`] if the replication factor can never meet it.
    pub fn new(
        level: Level,
        layout: &Layout,
        partition: Partition,
        region: RegionId,
    ) -> Result<Quorum, RequestError> {
        let all = layout.replicas(partition);
        let majority = |members: &[NodeId]| members.len() / 2 + 1;
        let group = |members: &[NodeId], needed| Group { members: members.to_vec(), needed };
        let groups = match level {
            Level::LocalQuorum => {
                let local = layout.replicas_in(partition, region);
                vec![group(local, majority(local))]
            }
            Level::EachQuorum => (0..layout.regions().len())
                .map(|index| layout.replicas_in(partition, RegionId(index as u16)))
                .filter(|members| !members.is_empty())
                .map(|members| group(members, majority(members)))
                .collect(),
            Level::Quorum => vec![group(all, majority(all))],
            Level::All => vec![group(all, all.len().max(1))],
            Level::Count(n) => vec![group(all, usize::from(n.max(1)))],
            // One, and what later protocol versions add before this node knows it.
            _ => vec![group(all, 1)],
        };
        let short = groups.iter().find(|group| group.needed > group.members.len());
        match short {
            None if !groups.is_empty() => Ok(Quorum { level, groups }),
            _ => Err(RequestError::LevelUnreachable {
                level,
                needed: short.map_or(1, |group| group.needed as u32),
                available: short.map_or(0, |group| group.members.len() as u32),
            }),
        }
    }

    /// The level this is a quorum of.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether a node's vote can count.
    #[must_use]
    pub fn has_member(&self, node: NodeId) -> bool {
        self.groups.iter().any(|group| group.members.contains(&node))
    }

    /// Counts votes.
    #[must_use]
    pub fn tally(&self, yes: &BTreeSet<NodeId>, no: &BTreeSet<NodeId>) -> Tally {
        let count = |group: &Group, votes: &BTreeSet<NodeId>| {
            group.members.iter().filter(|member| votes.contains(member)).count()
        };
        if self.groups.iter().all(|group| count(group, yes) >= group.needed) {
            return Tally::Met;
        }
        let lost = |group: &Group| group.members.len() - count(group, no) < group.needed;
        if self.groups.iter().any(lost) { Tally::Impossible } else { Tally::Open }
    }

    /// How many answers are needed in all.
    #[must_use]
    pub fn needed(&self) -> u32 {
        self.groups.iter().map(|group| group.needed as u32).sum()
    }

    /// How many of these votes count.
    #[must_use]
    pub fn counted(&self, votes: &BTreeSet<NodeId>) -> u32 {
        self.groups
            .iter()
            .map(|group| group.members.iter().filter(|m| votes.contains(m)).count())
            .map(|count| count as u32)
            .sum()
    }

    /// The smallest set of members to ask first: in each group the most preferred ones, that is
    /// those for which `cost` is lowest.
    pub fn first_choice(&self, cost: impl Fn(NodeId) -> u64) -> Vec<NodeId> {
        let mut chosen = Vec::new();
        for group in &self.groups {
            let mut members = group.members.clone();
            members.sort_by_key(|&member| (cost(member), member));
            chosen.extend(members.into_iter().take(group.needed));
        }
        chosen
    }

    /// Every member.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.groups.iter().flat_map(|group| group.members.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use holm_protocol::ids::PlacementId;

    use super::*;
    use crate::layout::{LayoutNode, LayoutSpec, PlacementSpec};

    /// Three regions of three nodes, every node a replica of everything.
    fn layout() -> Layout {
        let regions = ["ap", "eu", "us"];
        let node = |id: u64| LayoutNode {
            id: NodeId(id),
            addr: ([127, 0, 0, 1], 7000 + id as u16).into(),
            region: regions[(id as usize - 1) / 3].to_owned(),
            zone: format!("z{}", id % 3),
            capacity: 1,
        };
        let replication = regions.iter().map(|region| ((*region).to_owned(), 3)).collect();
        let placement =
            PlacementSpec { id: PlacementId(0), name: "default".to_owned(), bits: 2, replication };
        let spec = LayoutSpec {
            version: 1,
            nodes: (1..=9).map(node).collect(),
            placements: vec![placement],
        };
        Layout::compute(spec, None).unwrap()
    }

    fn quorum(level: Level) -> Quorum {
        let partition = Partition { placement: PlacementId(0), index: 1 };
        Quorum::new(level, &layout(), partition, RegionId(1)).unwrap()
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Goal: each level needs what it says, seen from region `eu` (nodes 4 to 6). Method: the
    /// smallest vote that meets it, and the same without one node or from the wrong region.
    #[test]
    fn levels_need_what_they_say() {
        let none = BTreeSet::new();
        let cases: [(Level, &[u64], &[u64]); 6] = [
            (Level::One, &[9], &[]),
            (Level::LocalQuorum, &[4, 6], &[1, 2, 3, 4, 7, 8, 9]),
            (Level::Quorum, &[1, 2, 4, 7, 8], &[1, 2, 4, 7]),
            (Level::EachQuorum, &[1, 2, 4, 5, 8, 9], &[1, 2, 3, 4, 5, 6, 9]),
            (Level::All, &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[1, 2, 3, 4, 5, 6, 7, 8]),
            (Level::Count(4), &[1, 5, 8, 9], &[1, 5, 8]),
        ];
        for (level, enough, too_few) in cases {
            assert_eq!(quorum(level).tally(&nodes(enough), &none), Tally::Met, "{level}");
            assert_eq!(quorum(level).tally(&nodes(too_few), &none), Tally::Open, "{level}");
        }
    }

    /// Goal: votes count by identity. Method: strangers, and too many refusals.
    #[test]
    fn strangers_do_not_count_and_refusals_end_it() {
        let quorum = quorum(Level::LocalQuorum);
        assert_eq!(quorum.tally(&nodes(&[4, 100, 101]), &nodes(&[7, 8])), Tally::Open);
        assert_eq!(quorum.tally(&nodes(&[4]), &nodes(&[5, 6])), Tally::Impossible);
        assert!(!quorum.has_member(NodeId(7)) && quorum.has_member(NodeId(6)));
        assert_eq!((quorum.needed(), quorum.counted(&nodes(&[4, 7]))), (2, 1));
    }

    /// Goal: a level beyond the replication factor is told at once.
    #[test]
    fn impossible_levels_are_refused() {
        let partition = Partition { placement: PlacementId(0), index: 0 };
        let refused = Quorum::new(Level::Count(10), &layout(), partition, RegionId(0));
        let (level, needed, available) = (Level::Count(10), 10, 9);
        assert_eq!(refused, Err(RequestError::LevelUnreachable { level, needed, available }));
    }
}
