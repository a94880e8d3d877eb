//! The coordinator's side of sloppy quorums: fallbacks that stand in for replicas.
//!
//! At the levels `one` and `local_quorum` a replica of the coordinator's own region that is down,
//! refuses for a reason of its own, or has not acknowledged after a while, is replaced by the next
//! node of the preference list that can be reached. That node keeps the object as a hint
//! ([`super::hints`]) and its vote counts for the replica it stands for, once. A fallback stands for
//! one replica in one write, so that votes are as many disks (I2); one that refuses, or is lost before
//! it has answered, is followed by the next. Buckets whose policy is `strict` have no fallbacks.
//!
//! Source: Dynamo (SOSP 2007) 4.6.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holm_protocol::ids::{NodeId, Partition, RegionId};
use holm_protocol::level::Level;

use crate::layout::Layout;
use crate::peer::{HintMessage, OpId, PeerMessage, Refusal};
use crate::quorum::{Quorum, Tally};
use crate::shard::acknowledge::WriteOp;
use crate::shard::event::{Effect, Effects};
use crate::shard::{Op, Route, Shard, Turn};
use crate::store::Store;

/// The fallbacks of one write.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    /// Those that were not asked yet, the most preferred first. Looked up when one is needed.
    left: Option<VecDeque<NodeId>>,
    /// Those that were asked and have not answered, each with the replica that it is to stand for.
    asked: BTreeMap<NodeId, NodeId>,
    /// Replicas that will not vote themselves unless they are sent the write again.
    gone: BTreeSet<NodeId>,
    /// Whether a fallback had no room.
    pub(super) is_full: bool,
}

impl StandIns {
    /// A fallback is to stand for a replica.
    pub(super) fn ask(&mut self, fallback: NodeId, replica: NodeId) {
        self.asked.insert(fallback, replica);
    }

    /// Whether a fallback was asked and has not answered.
    pub(super) fn waits_for(&self, fallback: NodeId) -> bool {
        self.asked.contains_key(&fallback)
    }
}

/// Whether fallbacks may stand in for replicas at this level.
pub(super) fn is_sloppy(route: &Route, level: Level) -> bool {
    !route.policy.strict && matches!(level, Level::One | Level::LocalQuorum)
}

/// The fallbacks of a write, if it may have any.
pub(super) fn stand_ins(route: &Route, level: Level) -> Option<StandIns> {
    let replicas = route.layout.replicas_in(route.partition, route.region).len();
    let has_others = replicas > 0 && route.layout.nodes_in(route.region).len() > replicas;
    (has_others && is_sloppy(route, level)).then(StandIns::default)
}

/// The nodes of a region that may stand in for its replicas, the most preferred first.
pub(super) fn fallbacks(
    layout: &Layout,
    partition: Partition,
    region: RegionId,
) -> impl Iterator<Item = NodeId> {
    let replicas = layout.replicas_in(partition, region).len();
    layout.preference_list(partition, region).into_iter().skip(replicas)
}

impl Shard {
    /// A replica will not vote itself: asks a fallback to stand in for it, or takes the refusal.
    pub(super) fn replica_gone(
        &self,
        id: OpId,
        op: &mut WriteOp,
        (replica, refusal): (NodeId, Refusal),
        out: &mut Effects,
    ) {
        let local = |node| self.cluster.layout.as_ref().and_then(|l| l.region_of(node));
        let is_covered = match &mut op.stand_ins {
            Some(stand_ins) if refusal.is_of_the_node() && local(replica) == self.region => {
                stand_ins.gone.insert(replica);
                self.stand_in(id, op, replica, out)
            }
            _ => false,
        };
        if !is_covered {
            op.coordinator.refused(replica);
        }
    }

    /// Asks the next fallback to stand in for a replica. Says whether somebody does, or may.
    fn stand_in(&self, id: OpId, op: &mut WriteOp, replica: NodeId, out: &mut Effects) -> bool {
        if op.coordinator.has_vote_of(replica) {
            return true;
        }
        let (Some(layout), Some(region)) = (&self.cluster.layout, self.region) else {
            return false;
        };
        let Some(stand_ins) = &mut op.stand_ins else { return false };
        if stand_ins.asked.values().any(|&asked_for| asked_for == replica) {
            return true;
        }
        let (partition, me) = (op.partition, self.boot.node);
        let list = || fallbacks(layout, partition, region).filter(|&node| node != me).collect();
        let left = stand_ins.left.get_or_insert_with(list);
        let next = left.iter().position(|&node| self.peers.is_up(node));
        let Some(fallback) = next.and_then(|at| left.remove(at)) else { return false };
        stand_ins.asked.insert(fallback, replica);
        let message = PeerMessage::Hint(HintMessage::Keep {
            op: id,
            partition: op.partition,
            replica,
            bucket: op.change.bucket,
            key: op.change.key.clone(),
            object: op.change.object.clone(),
        });
        out.push(Effect::Send { to: vec![fallback], message });
        true
    }

    /// Asks fallbacks to stand in for the replicas of this region that have said nothing for long.
    pub(super) fn stand_in_for_late(&self, id: OpId, op: &mut WriteOp, out: &mut Effects) {
        let late: Vec<NodeId> = match (&self.cluster.layout, self.region) {
            (Some(layout), Some(region)) => {
                let local = layout.replicas_in(op.partition, region).iter().copied();
                local.filter(|&node| op.waits_for(node)).collect()
            }
            _ => return,
        };
        for replica in late {
            self.stand_in(id, op, replica, out);
        }
    }

    /// A fallback has answered whether it keeps a write for a replica, or was lost before.
    pub(super) fn on_kept<S: Store>(
        &mut self,
        id: OpId,
        (fallback, replica): (NodeId, Option<NodeId>),
        refused: Option<Refusal>,
        turn: &mut Turn<'_, S>,
    ) {
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Write(op)) => op,
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            None => return,
        };
        let asked = op.stand_ins.as_mut().and_then(|it| it.asked.get(&fallback).copied());
        match asked.filter(|&asked| replica.is_none_or(|replica| replica == asked)) {
            None => self.counters.peer_rejections += 1,
            Some(asked) => {
                if let Some(stand_ins) = &mut op.stand_ins {
                    stand_ins.asked.remove(&fallback);
                    stand_ins.is_full |= refused == Some(Refusal::HintsFull);
                }
                match refused {
                    None => op.coordinator.stands_in(fallback, asked),
                    Some(_) => {
                        let is_gone =
                            op.stand_ins.as_ref().is_some_and(|s| s.gone.contains(&asked));
                        if !self.stand_in(id, &mut op, asked, turn.out) && is_gone {
                            op.coordinator.refused(asked);
                        }
                    }
                }
            }
        }
        self.go_on_with_write(id, op, turn);
    }

    /// Those who can be reached for a write: replicas, and for as many of the others as there are
    /// fallbacks within reach, these in their place.
    pub(super) fn within_reach(&self, route: &Route, quorum: &Quorum) -> BTreeSet<NodeId> {
        let reachable = |node: &NodeId| *node == self.boot.node || self.peers.is_up(*node);
        let mut votes: BTreeSet<NodeId> = quorum.members().filter(reachable).collect();
        if quorum.tally(&votes, &BTreeSet::new()) != Tally::Met && is_sloppy(route, quorum.level())
        {
            let fallbacks = fallbacks(&route.layout, route.partition, route.region);
            let me = self.boot.node;
            let fallbacks = fallbacks.filter(|&n| n == me || self.peers.is_up(n)).count();
            let local = route.layout.replicas_in(route.partition, route.region).iter().copied();
            let down: Vec<NodeId> =
                local.filter(|node| !votes.contains(node)).take(fallbacks).collect();
            votes.extend(down);
        }
        votes
    }

    /// Counts a write that was acknowledged, and that a replica of this region lacks without anybody
    /// keeping it for it: the replica's clock knows what it is missing.
    pub(super) fn note_unhinted(&mut self, op: &WriteOp) {
        let region = |node| self.cluster.layout.as_ref().and_then(|l| l.region_of(node));
        let is_missing =
            |&node: &NodeId| !op.coordinator.has_vote_of(node) && region(node) == self.region;
        if op.coordinator.tally() == Tally::Met && op.everyone.iter().any(is_missing) {
            self.counters.writes_unhinted += 1;
        }
    }
}
