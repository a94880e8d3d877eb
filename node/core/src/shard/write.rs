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
//! **The context that a writer gets back** covers its write and what it had read, never a value it
//! has not seen (I5), and never a write without that write's own effects (I3): an entry of a version
//! vector also covers all smaller counters of its actor. So: if the write is all that is alive, the
//! object's whole context; else the writer's context, void entries too, and the new dot, unless this run has given the
//! key other dots that the writer has not read; then the writer's context alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use holm_protocol::bucket::BucketKind;
use holm_protocol::dot::Dot;
use holm_protocol::error::{ContextFault, RequestError, StoreFault};
use holm_protocol::ids::{BucketId, Hlc, NodeId, RegionId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::limits::PUT_OBJECT_LEN_MAX;
use holm_protocol::message::Request;
use holm_protocol::message::{Delete, Put, Reply, Written};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::Reader;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::PartitionClock;
use crate::context::ContextError;
use crate::object::{Object, Sibling};
use crate::peer::{OpId, Refusal};
use crate::put::PutCoordinator;
use crate::quorum::{Quorum, Tally};
use crate::shard::acknowledge::{Change, WriteOp, write_message};
use crate::shard::event::Effect;
use crate::shard::proxy::Passed;
use crate::shard::relay::Votes;
use crate::shard::stable::has_more;
use crate::shard::stand_in::stand_ins;
use crate::shard::window::Fate;
use crate::shard::{Op, Origin, OwnVote, Route, Shard, Turn, answer};
use crate::store::Store;
use crate::time::{Mono, Now};

/// Callers that may wait for one write at a time: retries of a client that lost patience.
const ORIGINS_MAX: usize = 8;

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
        route.check_region(write.level.unwrap_or(route.policy.write_level))?;
        let level = write.level.unwrap_or(route.policy.write_level);
        let takes = route.replica && self.serves(route.partition);
        if !takes && !self.coordinates(origin, &route, &write, level) {
            return self.pass_on(origin, &route, write, turn);
        }
        let quorum = self.quorum(&route, level)?;
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
        self.check_reachable(&route, &quorum)?;

        // From here on the write has happened: the dot is taken.
        let change = match route.replica {
            true => self.take_write(&route, &write, &context, turn)?,
            false => self.take_write_for_another(&route, &write, &context, turn)?,
        };
        self.counters.writes_coordinated += 1;
        let id = self.new_op();
        let request = write.request;
        self.window.begin(turn.now.mono, request, fingerprint(&write), Fate::InFlight(id));
        let deadline = self.deadline(turn.now, write.timeout_ms);
        self.start_write(id, (origin, change), (&route, quorum), (deadline, turn));
        Ok(())
    }

    /// Whether this node, which is no replica that serves, coordinates a write all the same.
    fn coordinates(&self, origin: Origin, route: &Route, write: &Write, level: Level) -> bool {
        match self.window.get(write.request).map(|known| &known.fate) {
            None => self.is_fallback_coordinator(origin, route, level),
            Some(Fate::PassedOn { .. }) => false,
            // It did so before.
            Some(_) => !route.replica,
        }
    }

    /// Writes as a replica: the write is in the open batch, and in the clock.
    fn take_write<S: Store>(
        &mut self,
        route: &Route,
        write: &Write,
        context: &VersionVector,
        turn: &mut Turn<'_, S>,
    ) -> Result<Change, RequestError> {
        let object_key = self.object_key(route.partition, write.bucket, &write.key);
        let loaded = self.cache.load(&object_key, route.kind(), turn.store);
        self.scratch = object_key;
        let place = loaded
            .map_err(|error| RequestError::Store { fault: fault_of(self.store_refusal(&error)) })?;
        let counter = self.partitions.get(&route.partition).map_or(0, |p| p.own_counter());
        let dot = Dot { actor: self.boot.actor, counter: counter + 1 };
        let mut before = self.cache.object(place).clone();
        if let Some(forgettable) = self.stable.forgettable(route.partition) {
            before.forget(forgettable);
        }
        let known = before.context.get(dot.actor);
        let lowered = self.lower_context(route, context, &before)?;
        let (next, hlc) = self.next_state((route, write, &lowered), (before, dot), turn.now)?;
        let Some(state) = self.partitions.get_mut(&route.partition) else {
            return Err(RequestError::Store { fault: StoreFault::Io });
        };
        let dot = state.next_dot(self.boot.actor);
        let covers = covered_for_writer(context, known, &next, dot);
        let object_key = self.cache.key(place);
        let object = encoded(&next);
        let has_more = has_more(&next, self.config.context_slack);
        let at = (route.partition, write.bucket);
        self.mark_seen(at, &object_key, next.named_dots(), (&[(dot, hlc)], has_more));
        self.cache.change(place, next, object.clone());
        let (request, bucket) = (write.request, write.bucket);
        let key = crate::keys::user_key(&object_key);
        Ok(Change { request, bucket, key, object, covers, dot, hlc })
    }

    /// Writes as a fallback: the write is in the open batch, as a hint.
    fn take_write_for_another<S: Store>(
        &mut self,
        route: &Route,
        write: &Write,
        context: &VersionVector,
        turn: &mut Turn<'_, S>,
    ) -> Result<Change, RequestError> {
        let Write { request, bucket, ref key, .. } = *write;
        let before = self
            .hinted_object(route, (bucket, key), true, turn.store)
            .map_err(|refusal| RequestError::Store { fault: fault_of(refusal) })?;
        let dot = self.next_guest_dot(route.partition);
        let known = before.context.get(dot.actor);
        let lowered = self.lower_context(route, context, &before)?;
        let (next, hlc) = self.next_state((route, write, &lowered), (before, dot), turn.now)?;
        let covers = covered_for_writer(context, known, &next, dot);
        let object = encoded(&next);
        self.keep_own(route, (bucket, key), next, turn)?;
        self.take_guest_dot(route.partition, dot);
        self.counters.writes_as_fallback += 1;
        Ok(Change { request, bucket, key: key.clone(), object, covers, dot, hlc })
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
    fn next_state(
        &mut self,
        (route, write, context): (&Route, &Write, &VersionVector),
        (mut next, dot): (Object, Dot),
        now: Now,
    ) -> Result<(Object, Hlc), RequestError> {
        let before = next.siblings().len();
        if let crate::object::State::Latest(latest) = &next.state
            && let Some(latest) = latest.hlc()
        {
            // What is stored here must lose against what is written now, also after a restart. A
            // reading too far ahead is not followed: it would spoil all later ones.
            let limit_ms = self.config.max_clock_skew_ms;
            let skew = self.hlc.observe(latest, now.wall.0, limit_ms);
            skew.map_err(|e| RequestError::ClockSkew { ahead_ms: e.ahead_ms, limit_ms })?;
        }
        let hlc = self.hlc.now(now.wall.0);
        // Of what has been seen here the state accounts already: a context that a client has kept for long
        // must not bring back what is forgotten.
        let clock = self.partitions.get(&route.partition).map(|state| state.clock());
        let is_seen = |clock: &PartitionClock| context.iter().all(|dot| clock.contains(dot));
        let before_it = clock.is_some_and(is_seen).then(|| next.context.clone());
        match &write.value {
            Some(value) => next.put(context, Sibling::new(dot, hlc, value.clone())),
            None => next.delete(context, dot, hlc),
        }
        if let Some(mut context) = before_it {
            context.insert(dot);
            next.context = context;
        }
        let after = next.siblings().len();
        let limit = usize::from(route.policy.max_siblings);
        if after > limit && after > before {
            let (siblings, limit) = (before as u32, limit as u32);
            return Err(RequestError::TooManySiblings { siblings, limit });
        }
        let bytes: usize = next.siblings().iter().map(|sibling| sibling.value.len() + 64).sum();
        // One value alone is always short enough.
        if after > before && bytes > PUT_OBJECT_LEN_MAX {
            let (len, limit) = (bytes as u64, PUT_OBJECT_LEN_MAX as u64);
            return Err(RequestError::ObjectTooLarge { len, limit });
        }
        // A client's context may name what was seen elsewhere only.
        let fits = next.check_limits().is_ok() && self.check_room(route.partition, &next).is_ok();
        if !fits {
            return Err(RequestError::Context { fault: ContextFault::TooLong });
        }
        Ok((next, hlc))
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
        let resend_ms = self.first_resend_ms(change.object.len());
        let resend_at = turn.now.mono.plus_ms(resend_ms);
        let stand_ins = stand_ins(route, quorum.level());
        let hint_at = stand_ins.is_some().then(|| turn.now.mono.plus_ms(self.config.hint_after_ms));
        let mut op = WriteOp {
            coordinator: PutCoordinator::new(quorum),
            origins: vec![origin],
            partition: route.partition,
            change,
            everyone: route.layout.replicas(route.partition).to_vec(),
            answered: false,
            deadline,
            wake: deadline,
            resend_at,
            resend_ms,
            stand_ins,
            hint_at,
        };
        op.wake = op.next_wake();
        let own_charge = self.own_charge(route);
        if let (Some(replica), Some(stand_ins)) = (own_charge, &mut op.stand_ins) {
            stand_ins.ask(self.boot.node, replica);
        }
        let out = &mut *turn.out;
        for index in 0..route.layout.regions().len() {
            let region = RegionId(index as u16);
            let replicas = route.layout.replicas_in(route.partition, region);
            let others = replicas.iter().copied().filter(|&node| node != self.boot.node);
            let (up, down): (Vec<NodeId>, Vec<NodeId>) =
                others.partition(|&node| self.peers.is_up(node));
            if region == route.region || up.is_empty() {
                for node in down {
                    self.replica_gone(id, &mut op, (node, Refusal::Unreachable), out);
                }
                if !up.is_empty() {
                    out.push(Effect::Send { to: up, message: write_message(id, &op, vec![]) });
                }
                continue;
            }
            // Another relay for each write, so that none carries them all.
            let (last, usual): (Vec<NodeId>, Vec<NodeId>) =
                up.into_iter().partition(|&node| self.peers.is_last(node, turn.now.mono));
            let relays = if usual.is_empty() { last } else { usual };
            let relay = relays[(op.change.dot.counter % relays.len() as u64) as usize];
            self.peers.asked(relay, turn.now.mono);
            let fan_out = replicas.iter().copied().filter(|&node| node != relay).collect();
            out.push(Effect::Send { to: vec![relay], message: write_message(id, &op, fan_out) });
        }
        self.in_flight += 1;
        self.held_bytes += op.change.object.len();
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Write(Box::new(op)));
        match self.stopped {
            _ if own_charge.is_some() => self.own_votes.push(OwnVote::Kept(id)),
            None => self.own_votes.push(OwnVote::Durable(id)),
            // What is read here may be of the batch whose commit failed, and gone after a restart:
            // this disk vouches for nothing any more (I2).
            Some(_) => {
                let me = self.boot.node;
                let refused = [(me, Refusal::StoreIo)];
                self.on_write_votes(id, me, Votes { durable: &[], refused: &refused }, turn);
            }
        }
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
            Fate::Done(encoded) => {
                let mut reader = Reader::new(&encoded);
                // It is this node's own encoding.
                let written =
                    Written::decode(&mut reader).map_err(|_| RequestError::CoordinatorLost)?;
                answer(origin, Reply::Written(written), turn.out);
            }
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
        let object = match route.replica {
            true => {
                let object_key = self.object_key(route.partition, write.bucket, &write.key);
                let loaded = self.cache.load(&object_key, route.kind(), turn.store);
                self.scratch = object_key;
                loaded.ok().map(|place| self.cache.object(place).clone())
            }
            false => {
                let key = (write.bucket, &write.key[..]);
                self.hinted_object(route, key, true, turn.store).ok()
            }
        };
        let object = object.filter(|object| object.context.covers(dot));
        // Lost with its batch, or handed over: nothing more can be said about it.
        let Some(object) = object else { return Err(RequestError::CoordinatorLost) };
        if !route.replica {
            let stopped = self.writable(turn.store).is_err();
            let kept = self.keep_own(route, (write.bucket, &write.key), object.clone(), turn);
            if stopped || kept.is_err() {
                return Err(RequestError::CoordinatorLost);
            }
        }
        let context = self.open_context(write)?;
        let Write { request, bucket, ref key, .. } = *write;
        // What the run had given the key before is not known any more.
        let covers = covered_for_writer(&context, u64::MAX, &object, dot);
        let object = encoded(&object);
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
    fn check_reachable(&self, route: &Route, quorum: &Quorum) -> Result<(), RequestError> {
        let votes = self.within_reach(route, quorum);
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

fn encoded(object: &Object) -> Bytes {
    let mut encoded = Vec::new();
    object.encode(&mut encoded);
    encoded.into()
}

fn check_value(route: &Route, write: &Write) -> Result<(), RequestError> {
    let len = write.value.as_ref().map_or(0, Bytes::len) as u64;
    let limit = u64::from(route.policy.max_value);
    if len > limit { Err(RequestError::ValueTooLarge { len, limit }) } else { Ok(()) }
}

fn is_lww(route: &Route) -> bool {
    route.policy.kind == BucketKind::Lww
}

/// What the answer's context covers; see the module's head. `before` is the counter that the key's
/// context had for this run's actor before the write.
fn covered_for_writer(
    context: &VersionVector,
    before: u64,
    object: &Object,
    dot: Dot,
) -> VersionVector {
    if object.live_dots().eq([dot]) {
        return object.context.clone();
    }
    let mut covers = context.clone();
    if before <= context.get(dot.actor) {
        covers.insert(dot);
    }
    covers
}

/// A hash of everything that makes two writes the same write.
fn fingerprint(write: &Write) -> u64 {
    let value = write.value.as_deref().unwrap_or_default();
    let level = u64::from(Level::to_byte(write.level)) << 40;
    let kind = level | u64::from(write.value.is_some()) << 32 | u64::from(write.bucket.0);
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
