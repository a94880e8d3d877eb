//! The relay: one replica of a remote region that passes a write on to the others there, so that
//! each write crosses the ocean once per region.
//!
//! It tells the coordinator who made the write durable, each by name and never more than has said
//! so: once when a majority of its region has, and once more when everyone has answered or too
//! much time has passed. What is lost on the way the coordinator sends again, directly; so it does
//! with what is not passed on because too much is being relayed already (I10).

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::ids::{NodeId, Partition};

use crate::peer::{OpId, PeerMessage, Refusal};
use crate::shard::event::{Effect, Effects};
use crate::shard::replica::Incoming;
use crate::shard::{Op, OwnVote, Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

/// One write being relayed.
#[derive(Debug)]
pub(super) struct RelayOp {
    upstream: NodeId,
    upstream_op: OpId,
    partition: Partition,
    /// This node and those it passes the write on to.
    members: BTreeSet<NodeId>,
    durable: BTreeSet<NodeId>,
    refused: BTreeMap<NodeId, Refusal>,
    /// What the coordinator has been told.
    told: BTreeSet<NodeId>,
    wake: Mono,
}

impl RelayOp {
    fn is_settled(&self) -> bool {
        let answered = |node| self.durable.contains(node) || self.refused.contains_key(node);
        self.members.iter().all(answered)
    }

    fn has_majority(&self) -> bool {
        self.durable.len() > self.members.len() / 2
    }

    /// What the coordinator does not know yet.
    fn report(&mut self, with_refusals: bool) -> Option<Effect> {
        let durable: Vec<NodeId> = self.durable.difference(&self.told).copied().collect();
        let refused: Vec<(NodeId, Refusal)> = match with_refusals {
            true => self.refused.iter().map(|(&node, &refusal)| (node, refusal)).collect(),
            false => vec![],
        };
        if durable.is_empty() && refused.is_empty() {
            return None;
        }
        self.told.extend(&durable);
        let (op, partition) = (self.upstream_op, self.partition);
        let message = PeerMessage::WriteReply { op, partition, durable, refused };
        Some(Effect::Send { to: vec![self.upstream], message })
    }
}

impl Shard {
    /// Passes a write on to the region's other replicas.
    pub(super) fn relay<S: Store>(
        &mut self,
        (from, upstream_op): (NodeId, OpId),
        write: Incoming,
        fan_out: &[NodeId],
        joined: Result<(), Refusal>,
        turn: &mut Turn<'_, S>,
    ) {
        let Incoming { partition, bucket, key, object } = write;
        let local: Vec<NodeId> = match (&self.cluster.layout, self.region) {
            (Some(layout), Some(region)) => layout.replicas_in(partition, region).to_vec(),
            _ => vec![],
        };
        // Only this region's replicas: a relay is no way to write anywhere else.
        let mut members: BTreeSet<NodeId> =
            fan_out.iter().copied().filter(|node| local.contains(node)).collect();
        let strangers = fan_out.iter().filter(|node| !local.contains(node)).count();
        self.counters.peer_rejections += strangers as u64;
        members.insert(self.boot.node);

        let id = self.new_op();
        let wake = turn.now.mono.plus_ms(self.config.resend_ms);
        let mut op = RelayOp {
            upstream: from,
            upstream_op,
            partition,
            members,
            durable: BTreeSet::new(),
            refused: BTreeMap::new(),
            told: BTreeSet::new(),
            wake,
        };
        match joined {
            Ok(()) => self.own_votes.push(OwnVote::Durable(id)),
            Err(refusal) => {
                op.refused.insert(self.boot.node, refusal);
            }
        }
        let mut to = Vec::with_capacity(op.members.len());
        for &member in op.members.iter().filter(|&&member| member != self.boot.node) {
            if self.peers.is_up(member) {
                to.push(member);
            } else {
                op.refused.insert(member, Refusal::Unreachable);
            }
        }
        if !to.is_empty() {
            let fan_out = vec![];
            let message = PeerMessage::Write { op: id, partition, bucket, key, object, fan_out };
            turn.out.push(Effect::Send { to, message });
        }
        if op.is_settled() {
            turn.out.extend(op.report(true));
            return;
        }
        self.timers.set(wake, id);
        self.relays += 1;
        self.ops.insert(id.0, Op::Relay(Box::new(op)));
    }

    /// Takes in votes for a relayed write. Members speak for themselves only.
    pub(super) fn on_relay_votes(
        &mut self,
        id: OpId,
        mut op: Box<RelayOp>,
        from: NodeId,
        votes: Votes<'_>,
        out: &mut Effects,
    ) {
        if op.members.contains(&from) {
            if votes.durable.contains(&from) {
                op.refused.remove(&from);
                op.durable.insert(from);
            }
            let refusal = votes.refused.iter().find(|(node, _)| *node == from);
            if let Some(&(_, refusal)) = refusal
                && !op.durable.contains(&from)
            {
                op.refused.insert(from, refusal);
            }
        } else {
            self.counters.peer_rejections += 1;
        }
        if op.is_settled() {
            self.timers.clear(op.wake, id);
            self.relays -= 1;
            out.extend(op.report(true));
            return;
        }
        if op.has_majority() && op.told.is_empty() {
            out.extend(op.report(false));
        }
        self.ops.insert(id.0, Op::Relay(op));
    }

    /// Too much time has passed: tells what is known, and lets the write go.
    pub(super) fn wake_relay(&mut self, mut op: RelayOp, out: &mut Effects) {
        self.relays -= 1;
        out.extend(op.report(true));
    }
}

/// What one message says about a write's copies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Votes<'a> {
    pub(super) durable: &'a [NodeId],
    pub(super) refused: &'a [(NodeId, Refusal)],
}
