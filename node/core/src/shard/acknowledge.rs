//! From a write's dot to its acknowledgement: votes, answers, repetition.
//!
//! A write is answered when its votes meet the level, when they no longer can, or at its deadline.
//! After the answer it *lingers*: replicas that have not acknowledged get it again, directly, until
//! the deadline. Lingering writes are bounded, and the oldest are let go first.
//!
//! A vote about a node counts if the node gives it itself, if a replica of its region gives it (a
//! relay), or if this node finds that it cannot be reached. All other votes are ignored and counted.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use holm_protocol::dot::Dot;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, Hlc, NodeId, Partition, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Receipt, ReceiptEntry, Reply, Written};
use holm_protocol::version_vector::VersionVector;

use crate::context::ContextSecrets;
use crate::peer::{OpId, PeerMessage};
use crate::put::PutCoordinator;
use crate::quorum::Tally;
use crate::shard::event::{Effect, Effects};
use crate::shard::relay::Votes;
use crate::shard::window::Fate;
use crate::shard::{Op, Origin, Shard, Turn, answer};
use crate::store::Store;
use crate::time::Mono;

/// Ended writes that the order of lingering ones may name before it is swept. Arbitrary.
const ORDER_SLACK: usize = 64;

/// A write that has its dot.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) request: RequestId,
    pub(super) bucket: BucketId,
    pub(super) key: Bytes,
    /// The encoded object after the write.
    pub(super) object: Bytes,
    /// What the answer's context covers.
    pub(super) covers: VersionVector,
    pub(super) dot: Dot,
    pub(super) hlc: Hlc,
}

/// A write on its way to its replicas.
#[derive(Debug)]
pub(super) struct WriteOp {
    pub(super) coordinator: PutCoordinator,
    pub(super) origins: Vec<Origin>,
    pub(super) partition: Partition,
    pub(super) change: Change,
    /// All replicas, this node among them.
    pub(super) everyone: Vec<NodeId>,
    pub(super) answered: bool,
    pub(super) deadline: Mono,
    pub(super) wake: Mono,
    pub(super) resend_ms: u64,
}

impl WriteOp {
    /// Whether a replica has not answered.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.everyone.contains(&node) && self.coordinator.waits_for(node)
    }

    fn is_settled(&self) -> bool {
        !self.everyone.iter().any(|&node| self.coordinator.waits_for(node))
    }
}

/// Answered writes whose other replicas are still awaited, the oldest first. The order may name
/// some that have ended since.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    pub(super) order: VecDeque<OpId>,
    count: usize,
}

impl Lingering {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

impl Shard {
    /// Takes in who made a write durable and who refused. `from` speaks for itself, and a relay
    /// for the replicas of its region; this node, which notices what it cannot reach, for all.
    pub(super) fn on_write_votes<S: Store>(
        &mut self,
        id: OpId,
        from: NodeId,
        votes: Votes<'_>,
        turn: &mut Turn<'_, S>,
    ) {
        self.peers.close(from);
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Write(op)) => op,
            Some(Op::Relay(op)) => return self.on_relay_votes(id, op, from, votes, turn.out),
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            None => return,
        };
        for &node in votes.durable {
            if self.may_speak_for(from, node, &op.everyone) {
                op.coordinator.durable(node);
            }
        }
        for &(node, _) in votes.refused {
            if self.may_speak_for(from, node, &op.everyone) {
                op.coordinator.refused(node);
            }
        }
        let lingered = op.answered;
        self.answer_write_if_decided(&mut op, false, turn.out);
        if op.answered && op.is_settled() {
            self.timers.clear(op.wake, id);
            self.lingering.count -= usize::from(lingered);
            self.held_bytes -= op.change.object.len();
            return;
        }
        if op.answered && !lingered {
            self.lingering.order.push_back(id);
            self.lingering.count += 1;
        }
        self.ops.insert(id.0, Op::Write(op));
        self.trim_lingering();
    }

    /// Lets the oldest answered writes go when too many linger.
    fn trim_lingering(&mut self) {
        while let Some(&oldest) = self.lingering.order.front() {
            let here = matches!(self.ops.get(&oldest.0), Some(Op::Write(_)));
            let crowded = self.lingering.count > self.config.lingering_max
                || self.held_bytes > self.config.held_bytes_max / 2;
            if here && !crowded {
                break;
            }
            self.lingering.order.pop_front();
            if here && let Some(Op::Write(op)) = self.ops.remove(&oldest.0) {
                self.timers.clear(op.wake, oldest);
                self.lingering.count -= 1;
                self.held_bytes -= op.change.object.len();
                self.counters.lingering_dropped += 1;
            }
        }
        // Those that ended behind one that goes on.
        if self.lingering.order.len() > 2 * self.lingering.count + ORDER_SLACK {
            let ops = &self.ops;
            self.lingering.order.retain(|id| ops.contains_key(&id.0));
        }
    }

    fn may_speak_for(&mut self, from: NodeId, node: NodeId, everyone: &[NodeId]) -> bool {
        let region = |node| self.cluster.layout.as_ref().and_then(|l| l.region_of(node));
        // In the own region there are no relays: everyone there is asked, and answers, directly.
        let may_relay = everyone.contains(&from) && region(from) != self.region;
        let entitled =
            from == node || from == self.boot.node || (may_relay && region(from) == region(node));
        let speaks = everyone.contains(&node) && entitled;
        self.counters.peer_rejections += u64::from(!speaks);
        speaks
    }

    fn answer_write_if_decided(&mut self, op: &mut WriteOp, expired: bool, out: &mut Effects) {
        if op.answered {
            return;
        }
        let (reply, fate) = match op.coordinator.tally() {
            Tally::Met => {
                let written = self.written(op);
                let mut encoded = BytesMut::new();
                written.encode(&mut encoded);
                (Reply::Written(written), Fate::Done(encoded.freeze()))
            }
            Tally::Open if !expired => return,
            Tally::Open | Tally::Impossible => {
                let quorum = op.coordinator.quorum();
                let needed = quorum.needed();
                let durable = quorum.counted(op.coordinator.durable_nodes());
                let error = RequestError::WriteUnknown { needed, durable };
                (Reply::Error(error), Fate::Unknown { dot: op.change.dot, hlc: op.change.hlc })
            }
        };
        op.answered = true;
        self.in_flight -= 1;
        self.window.settle(op.change.request, fate);
        let last = op.origins.pop();
        for origin in op.origins.drain(..) {
            answer(origin, reply.clone(), out);
        }
        if let Some(origin) = last {
            answer(origin, reply, out);
        }
    }

    fn written(&self, op: &WriteOp) -> Written {
        let nodes = op.coordinator.durable_nodes().iter().copied();
        let Change { bucket, key, covers, .. } = &op.change;
        let seal = |secrets: &ContextSecrets| secrets.seal(*bucket, key, covers);
        Written {
            dot: op.change.dot,
            hlc: op.change.hlc,
            context: self.cluster.secrets.as_ref().map(seal).unwrap_or_default(),
            receipt: self.receipt(op.coordinator.quorum().level(), nodes),
        }
    }

    /// Names the replicas behind an answer.
    pub(super) fn receipt(&self, level: Level, nodes: impl Iterator<Item = NodeId>) -> Receipt {
        let region = |node| self.cluster.layout.as_ref().and_then(|l| l.region_of(node));
        let entry =
            |node| region(node).map(|region| ReceiptEntry { node, region, fallback: false });
        Receipt { coordinator: self.boot.node, level, replicas: nodes.filter_map(entry).collect() }
    }

    /// Sends a write again to who has not acknowledged it, or ends it.
    pub(super) fn wake_write<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<WriteOp>,
        turn: &mut Turn<'_, S>,
    ) {
        if turn.now.mono >= op.deadline {
            self.lingering.count -= usize::from(op.answered);
            self.held_bytes -= op.change.object.len();
            self.answer_write_if_decided(&mut op, true, turn.out);
            return;
        }
        let node = self.boot.node;
        let awaited = |n: &NodeId| *n != node && !op.coordinator.durable_nodes().contains(n);
        let to: Vec<NodeId> = op.everyone.iter().copied().filter(awaited).collect();
        let to: Vec<NodeId> = to.into_iter().filter(|&n| self.peers.is_up(n)).collect();
        // Before the first resend some were asked through a relay only.
        if op.resend_ms > self.config.resend_ms {
            to.iter().for_each(|&node| self.peers.missed(node, turn.now.mono));
        }
        if !to.is_empty() {
            self.counters.writes_resent += to.len() as u64;
            turn.out.push(Effect::Send { to, message: write_message(id, &op, vec![]) });
        }
        op.resend_ms = op.resend_ms.saturating_mul(2);
        op.wake = op.deadline.min(turn.now.mono.plus_ms(op.resend_ms));
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Write(op));
    }
}

pub(super) fn write_message(op: OpId, write: &WriteOp, fan_out: Vec<NodeId>) -> PeerMessage {
    PeerMessage::Write {
        op,
        partition: write.partition,
        bucket: write.change.bucket,
        key: write.change.key.clone(),
        object: write.change.object.clone(),
        fan_out,
    }
}
