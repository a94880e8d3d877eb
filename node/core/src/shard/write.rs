//! The coordinator's side of puts and deletes.
//!
//! The coordinator is a replica: it joins the write locally, gives it the next dot, and sends the
//! resulting object (not the request) to the other replicas of its region and to one relay in each
//! other region. A replica's work is then one join. It answers when the votes meet the level, and
//! goes on sending to who has not acknowledged until the deadline.
//!
//! **Outcomes have three values**: what is refused before a dot was drawn certainly did not happen;
//! what misses its level after that is *unknown*, because replicas that hold it keep and spread it.
//!
//! **The context that a writer gets back** covers what it had read and its own write, and nothing
//! else (I5): a version vector's entry covers all smaller counters of its actor, so where this run
//! has given this key other dots that are alive and that the writer has not read, the answer
//! carries only the context the writer came with.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use holm_protocol::bucket::BucketKind;
use holm_protocol::dot::Dot;
use holm_protocol::error::{ContextFault, RequestError, StoreFault};
use holm_protocol::ids::{BucketId, Hlc, NodeId, Partition, RegionId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::limits::PUT_OBJECT_LEN_MAX;
use holm_protocol::message::Request;
use holm_protocol::message::{Delete, Put, Receipt, ReceiptEntry, Reply, Written};
use holm_protocol::version_vector::VersionVector;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::context::{ContextError, ContextSecrets};
use crate::object::{Object, Sibling};
use crate::peer::{OpId, PeerMessage, Refusal};
use crate::put::PutCoordinator;
use crate::quorum::{Quorum, Tally};
use crate::shard::event::{Effect, Effects};
use crate::shard::proxy::Passed;
use crate::shard::relay::Votes;
use crate::shard::window::Fate;
use crate::shard::{Op, Origin, OwnVote, Route, Shard, Turn, answer};
use crate::store::Store;
use crate::time::Mono;

/// Callers that may wait for one write at a time: retries of a client that lost patience.
const ORIGINS_MAX: usize = 8;

/// Answered writes whose other replicas are still awaited, the oldest first. The order may name
/// some that have ended since.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    order: VecDeque<OpId>,
    count: usize,
}

impl Lingering {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

/// A put or a delete, taken apart.
#[derive(Debug)]
struct Write {
    bucket: BucketId,
    key: Bytes,
    /// `None` for a delete.
    value: Option<Bytes>,
    context: Bytes,
    level: Option<Level>,
    request: RequestId,
    timeout_ms: u32,
}

/// A write that has its dot.
#[derive(Debug)]
struct Change {
    request: RequestId,
    bucket: BucketId,
    key: Bytes,
    /// The encoded object after the write.
    object: Bytes,
    /// What the answer's context covers.
    covers: VersionVector,
    dot: Dot,
    hlc: Hlc,
}

/// A write on its way to its replicas.
#[derive(Debug)]
pub(super) struct WriteOp {
    coordinator: PutCoordinator,
    origins: Vec<Origin>,
    partition: Partition,
    change: Change,
    /// All replicas, this node among them.
    everyone: Vec<NodeId>,
    answered: bool,
    deadline: Mono,
    wake: Mono,
    resend_ms: u64,
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

impl Shard {
    /// A client's put.
    pub(super) fn on_put<S: Store>(
        &mut self,
        origin: Origin,
        put: Put,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let Put { bucket, key, value, context, level, request, timeout_ms } = put;
        let value = Some(value);
        let write = Write { bucket, key, value, context, level, request, timeout_ms };
        self.coordinate_write(origin, write, turn)
    }

    /// A client's delete.
    pub(super) fn on_delete<S: Store>(
        &mut self,
        origin: Origin,
        delete: Delete,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let Delete { bucket, key, context, level, request, timeout_ms } = delete;
        let write = Write { bucket, key, value: None, context, level, request, timeout_ms };
        self.coordinate_write(origin, write, turn)
    }

    fn coordinate_write<S: Store>(
        &mut self,
        origin: Origin,
        write: Write,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let route = self.route(write.bucket, &write.key)?;
        check_value(&route, &write)?;
        if !route.replica || self.boot.amnesia {
            return self.pass_on(origin, &route, write, turn);
        }
        let quorum = self.quorum(&route, write.level.unwrap_or(route.policy.write_level))?;
        if self.repeated(origin, (&route, &write, &quorum), turn)? {
            return Ok(());
        }
        let context = self.open_context(&write)?;
        if write.value.is_none() && write.context.is_empty() && !is_lww(&route) {
            return Err(RequestError::ContextRequired);
        }
        self.admit()?;
        self.writable(turn.store)
            .map_err(|refusal| RequestError::Store { fault: fault_of(refusal) })?;
        self.check_reachable(&quorum)?;

        let (hlc, next) = self.next_state(&route, &write, &context, turn)?;
        let Some(state) = self.partitions.get_mut(&route.partition) else {
            return Err(RequestError::Store { fault: StoreFault::Io });
        };
        // From here on the write has happened: the dot is taken.
        let dot = state.next_dot(self.boot.actor);
        let covers = covered_for_writer(&context, &next, dot);
        let object_key = self.object_key(route.partition, write.bucket, &write.key);
        let shared_key = Bytes::copy_from_slice(&object_key);
        self.scratch = object_key;
        let mut encoded = Vec::new();
        next.encode(&mut encoded);
        let object = Bytes::from(encoded);
        self.mark_seen(route.partition, write.bucket, &shared_key, &next, &[(dot, hlc)]);
        self.cache.change(&shared_key, next, object.clone());
        self.counters.writes_coordinated += 1;

        let id = self.new_op();
        let Write { request, bucket, .. } = write;
        self.window.begin(turn.now.mono, request, fingerprint(&write), Fate::InFlight(id));
        let key = crate::keys::user_key(&shared_key);
        let change = Change { request, bucket, key, object, covers, dot, hlc };
        let deadline = self.deadline(turn.now, write.timeout_ms);
        self.start_write(id, (origin, change), (&route, quorum), (deadline, turn));
        Ok(())
    }

    /// Passes a write on to a coordinator: a repeated one to the same, or to none.
    fn pass_on<S: Store>(
        &mut self,
        origin: Origin,
        route: &Route,
        write: Write,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let (request, print) = (write.request, fingerprint(&write));
        let only = match self.window.get(request) {
            None => None,
            Some(known) if known.fingerprint != print => {
                let RequestId { client, sequence } = request;
                return Err(RequestError::RequestIdReused { client, sequence });
            }
            Some(known) => match known.fate {
                Fate::PassedOn { to, losses } if losses == self.peers.losses(to) => Some(to),
                _ => return Err(RequestError::CoordinatorLost),
            },
        };
        let passed = Passed { request: write.into_request(), fingerprint: print, only };
        self.proxy(origin, route, passed, turn)
    }

    /// The state after the write, and its clock reading; nothing is changed yet.
    fn next_state<S: Store>(
        &mut self,
        route: &Route,
        write: &Write,
        context: &VersionVector,
        turn: &mut Turn<'_, S>,
    ) -> Result<(Hlc, Object), RequestError> {
        let counter = self.partitions.get(&route.partition).map_or(0, |p| p.own_counter());
        let dot = Dot { actor: self.boot.actor, counter: counter + 1 };
        let object_key = self.object_key(route.partition, write.bucket, &write.key);
        let loaded =
            self.cache.load(&object_key, route.kind(), turn.store).map(|c| c.object.clone());
        self.scratch = object_key;
        let mut next = loaded
            .map_err(|error| RequestError::Store { fault: fault_of(self.store_refusal(&error)) })?;
        let before = next.siblings().len();
        if let crate::object::State::Latest(latest) = &next.state
            && let Some(latest) = latest.hlc()
        {
            // What is stored here must lose against what is written now, also after a restart.
            let _ = self.hlc.observe(latest, turn.now.wall.0, u64::MAX);
        }
        let hlc = self.hlc.now(turn.now.wall.0);
        match &write.value {
            Some(value) => next.put(context, Sibling::new(dot, hlc, value.clone())),
            None => next.delete(context, dot, hlc),
        }
        let after = next.siblings().len();
        let limit = usize::from(route.policy.max_siblings);
        if after > limit && after > before {
            let (siblings, limit) = (before as u32, limit as u32);
            return Err(RequestError::TooManySiblings { siblings, limit });
        }
        let bytes: usize = next.siblings().iter().map(|sibling| sibling.value.len() + 64).sum();
        if after > 1 && after > before && bytes > PUT_OBJECT_LEN_MAX {
            let (len, limit) = (bytes as u64, PUT_OBJECT_LEN_MAX as u64);
            return Err(RequestError::ObjectTooLarge { len, limit });
        }
        if next.check_limits().is_err() {
            return Err(RequestError::Context { fault: ContextFault::TooLong });
        }
        Ok((hlc, next))
    }

    /// Sends a write to its region's other replicas and to one relay in each other region. The own
    /// vote comes with the commit.
    fn start_write<S: Store>(
        &mut self,
        id: OpId,
        (origin, change): (Origin, Change),
        (route, quorum): (&Route, Arc<Quorum>),
        (deadline, turn): (Mono, &mut Turn<'_, S>),
    ) {
        let resend_ms = self.config.resend_ms;
        let mut op = WriteOp {
            coordinator: PutCoordinator::new(quorum),
            origins: vec![origin],
            partition: route.partition,
            change,
            everyone: route.layout.replicas(route.partition).to_vec(),
            answered: false,
            deadline,
            wake: deadline.min(turn.now.mono.plus_ms(resend_ms)),
            resend_ms,
        };
        let out = &mut *turn.out;
        for index in 0..route.layout.regions().len() {
            let region = RegionId(index as u16);
            let replicas = route.layout.replicas_in(route.partition, region);
            let others = replicas.iter().copied().filter(|&node| node != self.boot.node);
            let (up, down): (Vec<NodeId>, Vec<NodeId>) =
                others.partition(|&node| self.peers.is_up(node));
            if region == route.region || up.is_empty() {
                down.iter().for_each(|&node| op.coordinator.refused(node));
                if !up.is_empty() {
                    out.push(Effect::Send { to: up, message: write_message(id, &op, vec![]) });
                }
                continue;
            }
            // Another relay for each write, so that none carries them all.
            let relay = up[(op.change.dot.counter % up.len() as u64) as usize];
            let fan_out = replicas.iter().copied().filter(|&node| node != relay).collect();
            out.push(Effect::Send { to: vec![relay], message: write_message(id, &op, fan_out) });
        }
        self.own_votes.push(OwnVote::Durable(id));
        self.in_flight += 1;
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Write(Box::new(op)));
    }

    /// Takes in who made a write durable and who refused. `from` speaks for itself, and a relay
    /// for the replicas of its region; this node, which notices what it cannot reach, for all.
    pub(super) fn on_write_votes<S: Store>(
        &mut self,
        id: OpId,
        from: NodeId,
        votes: Votes<'_>,
        turn: &mut Turn<'_, S>,
    ) {
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
            if here && self.lingering.count <= self.config.lingering_max {
                return;
            }
            self.lingering.order.pop_front();
            if here && let Some(Op::Write(op)) = self.ops.remove(&oldest.0) {
                self.timers.clear(op.wake, oldest);
                self.lingering.count -= 1;
                self.counters.lingering_dropped += 1;
            }
        }
    }

    fn may_speak_for(&mut self, from: NodeId, node: NodeId, everyone: &[NodeId]) -> bool {
        let region = |node| self.cluster.layout.as_ref().and_then(|l| l.region_of(node));
        let entitled = from == node
            || from == self.boot.node
            || (everyone.contains(&from) && region(from) == region(node));
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
                (Reply::Written(written.clone()), Fate::Done(Box::new(written)))
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
        for origin in op.origins.drain(..) {
            answer(origin, reply.clone(), out);
        }
    }

    fn written(&self, op: &WriteOp) -> Written {
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
            self.answer_write_if_decided(&mut op, true, turn.out);
            return;
        }
        let node = self.boot.node;
        let awaited = |n: &NodeId| *n != node && !op.coordinator.durable_nodes().contains(n);
        let to: Vec<NodeId> = op.everyone.iter().copied().filter(awaited).collect();
        let to: Vec<NodeId> = to.into_iter().filter(|&n| self.peers.is_up(n)).collect();
        if !to.is_empty() {
            self.counters.writes_resent += to.len() as u64;
            turn.out.push(Effect::Send { to, message: write_message(id, &op, vec![]) });
        }
        op.resend_ms = op.resend_ms.saturating_mul(2);
        op.wake = op.deadline.min(turn.now.mono.plus_ms(op.resend_ms));
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Write(op));
    }

    /// Answers a repeated request from the idempotence window. Says whether it was one.
    fn repeated<S: Store>(
        &mut self,
        origin: Origin,
        (route, write, quorum): (&Route, &Write, &Arc<Quorum>),
        turn: &mut Turn<'_, S>,
    ) -> Result<bool, RequestError> {
        let Some(remembered) = self.window.get(write.request) else { return Ok(false) };
        if remembered.fingerprint != fingerprint(write) {
            let RequestId { client, sequence } = write.request;
            return Err(RequestError::RequestIdReused { client, sequence });
        }
        self.counters.repeated_requests += 1;
        match remembered.fate.clone() {
            Fate::Done(written) => answer(origin, Reply::Written(*written), turn.out),
            Fate::InFlight(id) => match self.ops.get_mut(&id.0) {
                Some(Op::Write(op)) if op.origins.len() < ORIGINS_MAX => op.origins.push(origin),
                _ => return Err(RequestError::CoordinatorLost),
            },
            // Passed on before this node became a replica: only that coordinator knows.
            Fate::PassedOn { .. } => return Err(RequestError::CoordinatorLost),
            Fate::Unknown { dot, hlc } => {
                self.admit()?;
                self.drive_again(origin, (dot, hlc), (route, write, quorum), turn)?;
            }
        }
        Ok(true)
    }

    /// Takes up a write that missed its level: sends what the key holds now, which includes it or
    /// has overwritten it, and counts votes anew.
    fn drive_again<S: Store>(
        &mut self,
        origin: Origin,
        (dot, hlc): (Dot, Hlc),
        (route, write, quorum): (&Route, &Write, &Arc<Quorum>),
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let object_key = self.object_key(route.partition, write.bucket, &write.key);
        let loaded = self.cache.load(&object_key, route.kind(), turn.store);
        let object = loaded.ok().map(|c| c.object.clone()).filter(|o| o.context.covers(dot));
        self.scratch = object_key;
        // Lost with its batch: nothing more can be said about it.
        let Some(object) = object else { return Err(RequestError::CoordinatorLost) };
        let context = self.open_context(write)?;
        let mut encoded = Vec::new();
        object.encode(&mut encoded);
        let Write { request, bucket, ref key, .. } = *write;
        let covers = covered_for_writer(&context, &object, dot);
        let object = encoded.into();
        let change = Change { request, bucket, key: key.clone(), object, covers, dot, hlc };
        let deadline = self.deadline(turn.now, write.timeout_ms);
        let id = self.new_op();
        self.window.settle(request, Fate::InFlight(id));
        self.start_write(id, (origin, change), (route, quorum.clone()), (deadline, turn));
        Ok(())
    }

    fn open_context(&self, write: &Write) -> Result<VersionVector, RequestError> {
        let Some(secrets) = &self.cluster.secrets else {
            return Ok(VersionVector::new());
        };
        secrets.open(write.bucket, &write.key, &write.context).map_err(|error| {
            let fault = match error {
                ContextError::TooLong { .. } => ContextFault::TooLong,
                ContextError::Forged => ContextFault::Forged,
                ContextError::UnknownSecret { .. } => ContextFault::UnknownSecret,
                _ => ContextFault::Malformed,
            };
            RequestError::Context { fault }
        })
    }

    /// Refuses, before anything happens, what cannot be acknowledged by whom can be reached.
    fn check_reachable(&self, quorum: &Quorum) -> Result<(), RequestError> {
        let reachable = |node: &NodeId| *node == self.boot.node || self.peers.is_up(*node);
        let votes = quorum.members().filter(reachable).collect();
        match quorum.tally(&votes, &BTreeSet::new()) {
            Tally::Met => Ok(()),
            _ => Err(RequestError::WriteUnavailable {
                needed: quorum.needed(),
                reachable: quorum.counted(&votes),
            }),
        }
    }
}

impl Write {
    fn into_request(self) -> Request {
        let Write { bucket, key, value, context, level, request, timeout_ms } = self;
        match value {
            Some(value) => {
                Request::Put(Put { bucket, key, value, context, level, request, timeout_ms })
            }
            None => Request::Delete(Delete { bucket, key, context, level, request, timeout_ms }),
        }
    }
}

fn check_value(route: &Route, write: &Write) -> Result<(), RequestError> {
    let len = write.value.as_ref().map_or(0, Bytes::len) as u64;
    let limit = u64::from(route.policy.max_value);
    if len > limit { Err(RequestError::ValueTooLarge { len, limit }) } else { Ok(()) }
}

fn is_lww(route: &Route) -> bool {
    route.policy.kind == BucketKind::Lww
}

/// What the writer has seen: its context and its write. See the module's head.
fn covered_for_writer(context: &VersionVector, object: &Object, dot: Dot) -> VersionVector {
    let seen = context.get(dot.actor);
    let unseen = |live: Dot| live.actor == dot.actor && live != dot && live.counter > seen;
    let mut covers = context.clone();
    if !object.live_dots().any(unseen) {
        covers.insert(dot);
    }
    covers
}

fn write_message(op: OpId, write: &WriteOp, fan_out: Vec<NodeId>) -> PeerMessage {
    PeerMessage::Write {
        op,
        partition: write.partition,
        bucket: write.change.bucket,
        key: write.change.key.clone(),
        object: write.change.object.clone(),
        fan_out,
    }
}

/// A hash of everything that makes two writes the same write.
fn fingerprint(write: &Write) -> u64 {
    let value = write.value.as_deref().unwrap_or_default();
    let kind = u64::from(write.value.is_some()) << 32 | u64::from(write.bucket.0);
    let hash = xxh3_64_with_seed(&write.key, kind);
    xxh3_64_with_seed(&write.context, xxh3_64_with_seed(value, hash))
}

fn fault_of(refusal: Refusal) -> StoreFault {
    match refusal {
        Refusal::StoreFull => StoreFault::Full,
        Refusal::Corrupt => StoreFault::Corrupt,
        _ => StoreFault::Io,
    }
}
