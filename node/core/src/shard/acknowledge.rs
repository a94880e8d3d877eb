//! From a write's dot to its acknowledgement: votes, answers, repetition.
//!
//! A write is answered when its votes meet the level, when they no longer can, or at its deadline.
//! After the answer it *lingers*: replicas that have not acknowledged get it again, directly, until
//! the deadline. Lingering writes are bounded, and the oldest are let go first.
//!
//! A vote about a node counts if the node gives it itself, if a replica of its region gives it (a
//! relay), or if this node finds that it cannot be reached. All other votes are ignored and counted.
//! Fallbacks vote for replicas of this region: [`super::stand_in`].

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
use crate::shard::stand_in::StandIns;
use crate::shard::window::Fate;
use crate::shard::{Op, Origin, Shard, Turn, answer};
use crate::store::Store;
use crate::time::Mono;

/// Ended writes that the order of lingering ones may name before it is swept. Arbitrary.
const ORDER_SLACK: usize = 64;
/// Each so many bytes of an object put off its being sent again. Arbitrary.
pub(super) const RESEND_STEP: usize = 64 << 10;

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
    /// When it is sent again to who has not acknowledged it.
    pub(super) resend_at: Mono,
    pub(super) resend_ms: u64,
    /// Who may stand in for replicas of this region.
    pub(super) stand_ins: Option<StandIns>,
    /// When fallbacks are asked to stand in for who has not acknowledged it.
    pub(super) hint_at: Option<Mono>,
}

impl WriteOp {
    /// Whether a replica has not answered.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.everyone.contains(&node) && self.coordinator.waits_for(node)
    }

    /// Whether a fallback was asked and has not answered.
    pub(super) fn waits_for_fallback(&self, node: NodeId) -> bool {
        self.stand_ins.as_ref().is_some_and(|stand_ins| stand_ins.waits_for(node))
    }

    /// When something is to be done about it.
    pub(super) fn next_wake(&self) -> Mono {
        let soonest = self.deadline.min(self.resend_at);
        self.hint_at.map_or(soonest, |hint_at| hint_at.min(soonest))
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
        for &(node, refusal) in votes.refused {
            if self.may_speak_for(from, node, &op.everyone) {
                self.replica_gone(id, &mut op, (node, refusal), turn.out);
            }
        }
        self.go_on_with_write(id, op, turn);
    }

    /// Answers a write if it is decided, and lets it go if nobody is waited for any more.
    pub(super) fn go_on_with_write<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<WriteOp>,
        turn: &mut Turn<'_, S>,
    ) {
        let lingered = op.answered;
        self.answer_write_if_decided(&mut op, false, turn.out);
        if op.answered && op.is_settled() {
            self.timers.clear(op.wake, id);
            self.lingering.count -= usize::from(lingered);
            self.held_bytes -= op.change.object.len();
            self.note_unhinted(&op);
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
                let needed = op.coordinator.quorum().needed();
                let durable = op.coordinator.counted();
                let error = match &op.stand_ins {
                    Some(stand_ins) if stand_ins.is_full => {
                        RequestError::HintsFull { needed, durable }
                    }
                    _ => RequestError::WriteUnknown { needed, durable },
                };
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
        let mut receipt = self.receipt(op.coordinator.quorum().level(), nodes);
        let fallbacks = op.coordinator.fallbacks();
        let fallbacks = fallbacks.zip(self.region.into_iter().cycle());
        let entry = |(node, region)| ReceiptEntry { node, region, fallback: true };
        receipt.replicas.extend(fallbacks.map(entry));
        let Change { bucket, key, covers, .. } = &op.change;
        let seal = |secrets: &ContextSecrets| secrets.seal(*bucket, key, covers);
        Written {
            dot: op.change.dot,
            hlc: op.change.hlc,
            context: self.cluster.secrets.as_ref().map(seal).unwrap_or_default(),
            receipt,
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
            self.note_unhinted(&op);
            return;
        }
        if op.hint_at.is_some_and(|hint_at| turn.now.mono >= hint_at) {
            op.hint_at = None;
            self.stand_in_for_late(id, &mut op, turn.out);
        }
        if turn.now.mono >= op.resend_at {
            self.send_again(id, &mut op, turn);
        }
        op.wake = op.next_wake();
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Write(op));
    }

    /// Until a write of so many bytes is sent again for the first time. What is long is given the time
    /// to get through a bad link: a copy behind the first would be what keeps it from that.
    pub(super) fn first_resend_ms(&self, len: usize) -> u64 {
        self.config.resend_ms.saturating_mul(1 + (len / RESEND_STEP) as u64)
    }

    /// Sends a write again to the replicas that lack it and have nobody in their place.
    fn send_again<S: Store>(&mut self, id: OpId, op: &mut WriteOp, turn: &mut Turn<'_, S>) {
        let node = self.boot.node;
        let awaited = |n: &NodeId| *n != node && !op.coordinator.has_vote_of(*n);
        let to: Vec<NodeId> = op.everyone.iter().copied().filter(awaited).collect();
        let to: Vec<NodeId> = to.into_iter().filter(|&n| self.peers.is_up(n)).collect();
        // Before the first resend some were asked through a relay only.
        if op.resend_ms > self.first_resend_ms(op.change.object.len()) {
            to.iter().for_each(|&node| self.peers.missed(node, turn.now.mono));
        }
        if !to.is_empty() {
            self.counters.writes_resent += to.len() as u64;
            turn.out.push(Effect::Send { to, message: write_message(id, op, vec![]) });
        }
        op.resend_ms = op.resend_ms.saturating_mul(2);
        op.resend_at = turn.now.mono.plus_ms(op.resend_ms);
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
