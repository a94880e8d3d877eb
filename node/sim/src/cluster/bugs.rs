//! Where a bug that was put back meets the cluster: see [`crate::tamper`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use holm_core::peer::{Found, HintMessage, OpId, PeerMessage};
use holm_core::shard::config::ShardConfig;
use holm_core::shard::event::Input;
use holm_core::store::Table;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Reply, Request};

use super::queue::Event;
use super::{CallId, Cluster};
use crate::store::Changed;
use crate::tamper::Tamper;
use crate::tamper::answers::Leaving;
use crate::tamper::messages::Passing;
use crate::trace::whole_frame;

/// What bugs remember.
#[derive(Debug, Default)]
pub(super) struct Bugs {
    /// Objects that a relay was asked to pass on, where a bug keeps it from doing so.
    not_passed_on: BTreeSet<(NodeId, Bytes)>,
    /// The keys of reads between nodes.
    asked: BTreeMap<OpId, (BucketId, Bytes)>,
    /// The last answer of one node to another's reads of a partition.
    answered: BTreeMap<(NodeId, NodeId, Partition), Found>,
    /// Objects before their last change, by node and row.
    outdated: BTreeMap<(NodeId, Vec<u8>), Bytes>,
    /// The levels that clients asked for.
    levels: BTreeMap<CallId, Level>,
    /// The context of the last answer.
    earlier: Option<Bytes>,
    /// Hints that were handed over: by whom, to whom, of which key.
    handed_over: BTreeSet<(NodeId, NodeId, Bytes)>,
    /// Those on their way.
    handing_over: BTreeMap<OpId, (NodeId, NodeId, Bytes)>,
    /// The replicas for which fallbacks were asked to keep something, where a bug names another.
    stands_for: BTreeMap<OpId, Vec<(NodeId, NodeId)>>,
}

impl Cluster {
    /// The limits of a node's shards.
    pub(super) fn limits(&self) -> ShardConfig {
        let mut limits = self.setup.shard.clone();
        if self.setup.tamper == Some(Tamper::LimitsNotKept) {
            limits.in_flight_max = usize::MAX;
        }
        limits
    }

    /// Whether a starting node knows that it has lost its memory, if it has.
    pub(super) fn notices_amnesia(&self) -> bool {
        let unnoticed = [
            Tamper::AmnesiaUnnoticed,
            Tamper::CounterReusedAfterAmnesia,
            Tamper::RestoredDiskKeepsActor,
        ];
        !self.setup.tamper.is_some_and(|tamper| unnoticed.contains(&tamper))
    }

    /// The actor under which a starting node wrongly goes on.
    pub(super) fn kept_actor(&mut self, id: NodeId) -> Option<Actor> {
        let node = self.nodes.get_mut(&id)?;
        let of_disk = node.disk_actor.take();
        let last = Some(node.actor).filter(|actor| actor.0 != 0);
        match self.setup.tamper? {
            Tamper::ActorReused => last,
            Tamper::CounterReusedAfterAmnesia => last.filter(|_| node.amnesia),
            Tamper::RestoredDiskKeepsActor => of_disk,
            _ => None,
        }
    }

    /// A client's request, on its way in.
    pub(super) fn tampered_request(&mut self, call: CallId, request: &mut Request, repeated: u32) {
        let Some(tamper) = self.setup.tamper else { return };
        let (level, bucket, key) = match &*request {
            Request::Put(put) => (put.level, put.bucket, &put.key),
            Request::Get(get) => (get.level, get.bucket, &get.key),
            Request::Delete(delete) => (delete.level, delete.bucket, &delete.key),
            Request::Admin(_) => return,
        };
        if let Some(level) = level {
            self.bugs.levels.insert(call, level);
        }
        let partition = self.partition(bucket, key);
        let replicas = partition.map_or(0, |partition| self.layout.replicas(partition).len());
        if let Some(secrets) = &self.state.secrets {
            tamper.request(request, (repeated, replicas), secrets);
        }
    }

    /// An answer of a node, on its way out.
    pub(super) fn tampered_reply(
        &mut self,
        tamper: Tamper,
        (node, call): (NodeId, CallId),
        reply: Reply,
    ) -> Option<Reply> {
        let frame = self.calls.get(&call).map(|call| call.frame.clone());
        let request = frame.as_ref().and_then(whole_frame);
        let request = request.and_then(|frame| Request::decode(&frame).ok());
        let (bucket, key) = match &request {
            Some(Request::Put(put)) => (put.bucket, &put.key),
            Some(Request::Get(get)) => (get.bucket, &get.key),
            Some(Request::Delete(delete)) => (delete.bucket, &delete.key),
            _ => return Some(reply),
        };
        let (Some(partition), Some(secrets)) = (self.partition(bucket, key), &self.state.secrets)
        else {
            return Some(reply);
        };
        let leaving = Leaving {
            bucket,
            key,
            partition,
            level: self.bugs.levels.get(&call).copied(),
            layout: &self.layout,
            secrets,
            covers: self.stored(node, bucket, key).map(|object| object.context),
            earlier: self.bugs.earlier.clone(),
        };
        let genuine = match &reply {
            Reply::Values(values) => Some(values.context.clone()),
            Reply::Written(written) => Some(written.context.clone()),
            _ => None,
        };
        let reply = tamper.reply(reply, &leaving);
        self.bugs.earlier = genuine.or(self.bugs.earlier.take());
        reply
    }

    /// The frame that a bug makes of a message, if it sends one.
    pub(super) fn tampered(
        &mut self,
        tamper: Tamper,
        (from, to): (NodeId, NodeId),
        message: &PeerMessage,
    ) -> Option<Bytes> {
        if let PeerMessage::Hint(message) = message {
            let changed = self.tampered_hint(tamper, (from, to), message)?;
            return Some(framed(&PeerMessage::Hint(changed)));
        }
        let partition = message.partition();
        let asked = match message {
            PeerMessage::Write { object, .. }
                if self.bugs.not_passed_on.contains(&(from, object.clone())) =>
            {
                return None;
            }
            PeerMessage::Write { bucket, key, .. } | PeerMessage::Repair { bucket, key, .. } => {
                Some((*bucket, key.clone()))
            }
            PeerMessage::Read { op, bucket, key, .. } => {
                self.bugs.asked.insert(*op, (*bucket, key.clone()));
                None
            }
            PeerMessage::ReadReply { op, .. } => self.bugs.asked.get(op).cloned(),
            _ => None,
        };
        let region = self.layout.region_of(from)?;
        let row = asked.as_ref().map(|(bucket, key)| {
            let mut row = Vec::new();
            holm_core::keys::object_key(&mut row, partition, *bucket, key);
            row
        });
        let passing = Passing {
            replicas: self.layout.replicas(partition),
            region: self.layout.replicas_in(partition, region),
            actor: self.nodes.get(&to)?.actor,
            sender: self.nodes.get(&from)?.actor,
            held: asked.and_then(|(bucket, key)| self.stored(to, bucket, &key)),
            outdated: row.and_then(|row| self.bugs.outdated.get(&(from, row)).cloned()),
            answered: self.bugs.answered.get(&(from, to, partition)).cloned(),
        };
        let changed = tamper.message(message.clone(), &passing)?;
        if let PeerMessage::ReadReply { found: found @ Found::Object(_), .. } = message {
            self.bugs.answered.insert((from, to, partition), found.clone());
        }
        Some(framed(&changed))
    }

    /// Sends a client's write to a second coordinator.
    pub(super) fn pass_on_again(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        let PeerMessage::Proxy { partition, request, .. } = message else { return };
        let is_write = matches!(request, Request::Put(_) | Request::Delete(_));
        let replicas = self.layout.replicas(*partition).iter().copied();
        let other = replicas.filter(|&node| node != from && node != to).find(|&n| self.is_up(n));
        if let (true, Some(other)) = (is_write, other) {
            self.inject(from, other, framed(message));
        }
    }

    /// A message arrives. True if a bug lets nobody see it.
    pub(super) fn bug_at_delivery(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &PeerMessage,
    ) -> bool {
        if let PeerMessage::Hint(HintMessage::HandOff { op, partition, .. }) = message
            && self.setup.tamper == Some(Tamper::HintDroppedEarly)
        {
            self.answer_hint((to, from), *op, *partition);
        }
        if let PeerMessage::Seen { op, layout, clocks, .. } = message
            && self.setup.tamper == Some(Tamper::DownReplicaForgotten)
        {
            // Who is away is taken to have all that the others have.
            let down = self.nodes.values().filter(|node| !node.is_up && node.id != from);
            let down: Vec<(NodeId, Actor)> = down.map(|node| (node.id, node.run_actor)).collect();
            let (op, layout) = (*op, *layout);
            for (node, run) in down {
                let claim = PeerMessage::Seen { op, run, layout, clocks: clocks.clone() };
                self.push_claim(node, to, &claim);
            }
            return false;
        }
        let PeerMessage::Write { op, partition, object, fan_out, .. } = message else {
            return false;
        };
        match self.setup.tamper {
            Some(Tamper::RelayForgesVotes) if !fan_out.is_empty() => {
                self.bugs.not_passed_on.insert((to, object.clone()));
                false
            }
            Some(tamper @ (Tamper::AcknowledgedBeforeCommit | Tamper::AcknowledgedAndDropped)) => {
                let (op, partition) = (*op, *partition);
                let durable = vec![to];
                let reply = PeerMessage::WriteReply { op, partition, durable, refused: vec![] };
                let frame = framed(&reply);
                for at_us in self.net.send(self.now_us, to, from).into_iter().flatten() {
                    let (from, to, frame) = (to, from, frame.clone());
                    self.queue.plan(at_us, Event::Peer { from, to, run: None, frame });
                }
                tamper == Tamper::AcknowledgedAndDropped
            }
            _ => false,
        }
    }

    /// A node takes in what another is wrongly taken to claim.
    fn push_claim(&mut self, from: NodeId, to: NodeId, claim: &PeerMessage) {
        for (shard, message) in claim.clone().split(self.setup.shape.shards) {
            self.push_input(to, shard, Input::Peer { from, message });
        }
    }

    /// A replica, or whoever takes an answer for its, says that a hint is home.
    fn answer_hint(&mut self, (replica, node): (NodeId, NodeId), op: OpId, partition: Partition) {
        let window_bytes = 1_000;
        let home = HintMessage::HandedOff { op, partition, refused: None, window_bytes };
        self.inject(replica, node, framed(&PeerMessage::Hint(home)));
    }

    /// What becomes of a message about a hint; `None` if it is not sent.
    fn tampered_hint(
        &mut self,
        tamper: Tamper,
        (from, to): (NodeId, NodeId),
        message: &HintMessage,
    ) -> Option<HintMessage> {
        let mut changed = message.clone();
        match (tamper, &mut changed) {
            (Tamper::HintsStay, HintMessage::HandOff { .. }) => return None,
            (Tamper::HintDroppedByOldAnswer, HintMessage::HandOff { op, partition, key, .. }) => {
                let hint = (from, to, key.clone());
                if self.bugs.handed_over.contains(&hint) {
                    self.answer_hint((to, from), *op, *partition);
                    return None;
                }
                self.bugs.handing_over.insert(*op, hint);
            }
            (Tamper::HintDroppedByOldAnswer, HintMessage::HandedOff { op, refused: None, .. }) => {
                self.bugs.handed_over.extend(self.bugs.handing_over.remove(op));
            }
            // The fallback keeps it for the coordinator, which votes itself.
            (Tamper::FallbackCountedBesideReplica, HintMessage::Keep { op, replica, .. }) => {
                self.bugs.stands_for.entry(*op).or_default().push((to, *replica));
                *replica = from;
            }
            (Tamper::FallbackCountedBesideReplica, HintMessage::Kept { op, replica, .. }) => {
                let asked = self.bugs.stands_for.get(op).into_iter().flatten();
                *replica =
                    asked.rev().find(|(asked, _)| *asked == from).map_or(*replica, |it| it.1);
            }
            _ => {}
        }
        Some(changed)
    }

    /// A node changed these rows.
    pub(super) fn bug_at_commit(&mut self, node: NodeId, rows: &[Changed]) {
        if self.setup.tamper != Some(Tamper::CacheNotUpdated) {
            return;
        }
        for row in rows.iter().filter(|row| row.table == Table::Objects) {
            if let Some(before) = &row.before {
                let before = Bytes::from(before.clone());
                self.bugs.outdated.insert((node, row.key.clone()), before);
            }
        }
    }
}

fn framed(message: &PeerMessage) -> Bytes {
    let mut frame = BytesMut::new();
    message.encode(&mut frame);
    frame.freeze()
}
