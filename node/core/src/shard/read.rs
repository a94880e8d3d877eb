//! The coordinator's side of gets.
//!
//! It takes its own object and asks as few others as the level needs, for digests; see
//! [`GetCoordinator`] for how answers merge. An answer that is later than its replica's usual time
//! makes it ask the others too (a hedge). After the answer, replicas that were found stale are sent
//! the merged object (read repair): nobody waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use holm_protocol::dot::Dot;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, NodeId, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Reply, Request, Sibling, Values};

use crate::get::{GetCoordinator, Next};
use crate::object::{Object, ObjectKind};
use crate::peer::{Found, OpId, PeerMessage, Refusal, Want};
use crate::quorum::{Quorum, Tally};
use crate::shard::event::Effect;
use crate::shard::proxy::Passed;
use crate::shard::replica::{Sent, drop_late};
use crate::shard::{Op, Origin, OwnVote, Route, Shard, Turn, answer};
use crate::store::Store;
use crate::time::{Mono, Now};

/// Cost of asking a node that cannot be reached.
const UNREACHABLE: u64 = u64::MAX;

/// What is added for a node that others are to be asked before: more than any round trip, less than
/// [`UNREACHABLE`].
const LAST: u64 = 1 << 60;

/// What the last look at a merge says.
enum Last {
    /// It can be answered.
    Answer,
    /// Not before the open batch is durable.
    Wait,
    /// What was overwritten cannot be told.
    Unknown,
}

/// A read on its way.
#[derive(Debug)]
pub(super) struct ReadOp {
    coordinator: GetCoordinator,
    origin: Origin,
    partition: Partition,
    bucket: BucketId,
    key: Bytes,
    kind: ObjectKind,
    /// Whom, and when.
    asked: BTreeMap<NodeId, Mono>,
    /// Whether an answer was late, and others were asked for it.
    hedged: bool,
    deadline: Mono,
    wake: Mono,
}

impl ReadOp {
    /// Whether a replica has been asked and has not answered.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.asked.contains_key(&node) && self.coordinator.waits_for(node)
    }
}

impl Shard {
    /// A client's get.
    pub(super) fn on_get<S: Store>(
        &mut self,
        origin: Origin,
        get: Get,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let route = self.route(get.bucket, &get.key)?;
        route.check_region(get.level.unwrap_or(route.policy.read_level))?;
        if !route.replica || self.boot.amnesia {
            if self.read_hints(origin, (&route, &get), turn) {
                return Ok(());
            }
            let passed = Passed { request: Request::Get(get), fingerprint: 0, only: None };
            return self.proxy(origin, &route, passed, turn);
        }
        let quorum = self.quorum(&route, get.level.unwrap_or(route.policy.read_level))?;
        self.admit()?;
        self.counters.reads_coordinated += 1;
        let mut own = self.own_object(&route, &get, turn.store);
        if quorum.level() == Level::One {
            own = match own {
                // What is not durable yet is not shown: it goes the long way, and waits for the
                // commit.
                Ok((object, false)) => {
                    let members = std::iter::once(self.boot.node);
                    let values = self.values(&get.key, get.bucket, &object, Level::One, members);
                    answer(origin, Reply::Values(values), turn.out);
                    return Ok(());
                }
                other => other,
            };
        }
        let id = self.new_op();
        let deadline = self.deadline(turn.now, get.timeout_ms);
        let mut op = Box::new(ReadOp {
            coordinator: GetCoordinator::new(quorum.clone(), Object::new(route.kind())),
            origin,
            partition: route.partition,
            bucket: get.bucket,
            key: get.key,
            kind: route.kind(),
            asked: BTreeMap::new(),
            hedged: false,
            deadline,
            wake: deadline,
        });
        self.ask_first(id, &mut op, (&quorum, &route), own, turn)?;
        self.in_flight += 1;
        self.step_read(id, op, turn);
        Ok(())
    }

    /// Takes the own object and asks the nearest others.
    fn ask_first<S: Store>(
        &mut self,
        id: OpId,
        op: &mut ReadOp,
        (quorum, route): (&Arc<Quorum>, &Route),
        own: Result<(Object, bool), Refusal>,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let me = self.boot.node;
        let own_usable = own.is_ok();
        let cost = |node: NodeId| {
            if node == me {
                return if own_usable { 0 } else { UNREACHABLE };
            }
            if !self.peers.is_up(node) {
                return UNREACHABLE;
            }
            let last = if self.peers.is_last(node, turn.now.mono) { LAST } else { 0 };
            let near = route.layout.region_of(node) == Some(route.region);
            // Near nodes take turns, so that none answers all digests; far ones by distance.
            let place = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(node.0 as u32);
            last + if near { 1 + (place & 0xff) } else { 1_000 + self.peers.srtt_us(node) }
        };
        let chosen = quorum.first_choice(cost);
        if let Some(answered) = too_few(&chosen, cost) {
            return Err(RequestError::ReadUnavailable { needed: quorum.needed(), answered });
        }
        // A replica is a member of every quorum that is asked from here, and its own object costs
        // least: where it can be had it is among the chosen.
        let mut want = if own_usable { Want::Digest } else { Want::Full };
        match own {
            Ok((object, false)) => {
                op.asked.insert(me, turn.now.mono);
                // Both are of the bucket's kind.
                let _ = op.coordinator.whole(me, object);
            }
            Ok((object, true)) => {
                op.asked.insert(me, turn.now.mono);
                op.coordinator.ask_whole(me);
                let mut encoded = Vec::new();
                object.encode(&mut encoded);
                self.own_votes.push(OwnVote::Found(id, Found::Object(encoded.into())));
            }
            Err(_) => op.coordinator.refused(me),
        }
        for node in chosen.into_iter().filter(|&node| node != me) {
            self.ask(id, op, &[node], want, turn);
            want = Want::Digest;
        }
        Ok(())
    }

    fn ask<S: Store>(
        &mut self,
        id: OpId,
        op: &mut ReadOp,
        nodes: &[NodeId],
        want: Want,
        turn: &mut Turn<'_, S>,
    ) {
        for &node in nodes {
            op.asked.insert(node, turn.now.mono);
            self.peers.asked(node, turn.now.mono);
            if want == Want::Full {
                op.coordinator.ask_whole(node);
            }
        }
        let (partition, bucket, key) = (op.partition, op.bucket, op.key.clone());
        let message = PeerMessage::Read { op: id, partition, bucket, key, want };
        turn.out.push(Effect::Send { to: nodes.to_vec(), message });
    }

    /// Takes in what a replica found.
    pub(super) fn on_found<S: Store>(
        &mut self,
        id: OpId,
        from: NodeId,
        found: Found,
        turn: &mut Turn<'_, S>,
    ) {
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Read(op)) => op,
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            // Too late for the read, but an answer.
            None => return self.peers.close(from),
        };
        self.timers.clear(op.wake, id);
        match op.asked.get(&from) {
            Some(&asked) if from != self.boot.node => {
                self.peers.answered(from, asked, turn.now.mono);
            }
            Some(_) => {}
            None => self.counters.peer_rejections += 1,
        }
        if op.asked.contains_key(&from) {
            self.merge_found(&mut op, from, found, turn);
        }
        self.step_read(id, op, turn);
    }

    fn merge_found<S: Store>(
        &mut self,
        op: &mut ReadOp,
        from: NodeId,
        found: Found,
        turn: &mut Turn<'_, S>,
    ) {
        match found {
            Found::Digest(digest) => op.coordinator.digest(from, digest),
            Found::Absent => {
                // Of the same kind, so it joins.
                let _ = op.coordinator.whole(from, Object::new(op.kind));
            }
            Found::Refused(_) => op.coordinator.refused(from),
            Found::Object(encoded) => match Object::decode(&encoded) {
                Ok(mut object) => {
                    // Dots that this run never made would swallow those that it will make; a value
                    // from a clock far ahead would win for ever.
                    let dots = self.check_dots(op.partition, &object);
                    if dots.and_then(|()| self.check_clocks(turn.now, &object)).is_err() {
                        self.counters.peer_rejections += 1;
                        op.coordinator.refused(from);
                        return;
                    }
                    self.drop_late_found(op, &mut object, turn.store);
                    if op.coordinator.whole(from, object).is_err() {
                        self.counters.peer_rejections += 1;
                        op.coordinator.refused(from);
                    }
                }
                Err(_) => {
                    self.counters.peer_rejections += 1;
                    op.coordinator.refused(from);
                }
            },
        }
    }

    /// What was overwritten here must not come back into an answer either (I4). What overwrote it
    /// goes into the answer in its place: it may have come after this read took its own object,
    /// and an answer with neither of the two would say that the key is empty (I5).
    fn drop_late_found<S: Store>(&mut self, op: &mut ReadOp, object: &mut Object, store: &mut S) {
        // The clock may claim what the disk has lost since: a value that is not alive here need not
        // have been overwritten. What the others sent stands for itself.
        if self.boot.amnesia {
            return;
        }
        let object_key = self.object_key(op.partition, op.bucket, &op.key);
        if let (Some(state), Ok(place)) =
            (self.partitions.get(&op.partition), self.cache.load(&object_key, op.kind, store))
            // What the open batch has changed is not durable and must not be shown: the read then
            // sees the key as it was before.
            && !self.cache.is_open(place)
        {
            let local = self.cache.object(place);
            let dropped = drop_late(object, local, state);
            self.counters.late_siblings_dropped += dropped;
            if dropped > 0 {
                // Of the bucket's kind, so it joins.
                let _ = op.coordinator.merge(local.clone());
            }
        }
        self.scratch = object_key;
    }

    /// Does what the answers so far call for.
    fn step_read<S: Store>(&mut self, id: OpId, mut op: Box<ReadOp>, turn: &mut Turn<'_, S>) {
        loop {
            match op.coordinator.step() {
                Next::Answer => match self.check_last(&mut op, turn.store) {
                    Last::Answer => return self.finish_read(*op, turn),
                    Last::Unknown => return self.fail_read(*op, turn),
                    Last::Wait => {
                        self.own_votes.push(OwnVote::Answer(id));
                        break;
                    }
                },
                Next::Impossible => return self.fail_read(*op, turn),
                Next::AskWhole(nodes) => self.ask(id, &mut op, &nodes, Want::Full, turn),
                Next::Wait => {
                    let waits = op.asked.keys().any(|&node| op.coordinator.waits_for(node));
                    if waits && self.has_enough_asked(&op) {
                        break;
                    }
                    if self.ask_more(id, &mut op, turn) {
                        break;
                    }
                    if !waits {
                        return self.fail_read(*op, turn);
                    }
                    break;
                }
            }
        }
        op.wake = op.deadline.min(self.hedge_at(&op, turn.now));
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Read(op));
    }

    /// Takes out of the merge what was overwritten here, at the moment of the answer: an older answer
    /// may show what a newer one, whose context was cut, does not cover any more (`Causality-reduced-answers`).
    /// What overwrote it goes into the answer in its place.
    fn check_last<S: Store>(&mut self, op: &mut ReadOp, store: &mut S) -> Last {
        if !op.coordinator.is_mixed() {
            return Last::Answer;
        }
        if self.boot.amnesia {
            return Last::Unknown;
        }
        let object_key = self.object_key(op.partition, op.bucket, &op.key);
        let loaded = self.cache.load(&object_key, op.kind, store);
        self.scratch = object_key;
        let (Some(state), Ok(place)) = (self.partitions.get(&op.partition), loaded) else {
            return Last::Unknown;
        };
        let local = self.cache.object(place);
        let is_late =
            |dot: Dot| state.clock().contains(dot) && !local.live_dots().any(|live| live == dot);
        if !op.coordinator.merged().live_dots().any(is_late) {
            return Last::Answer;
        }
        // What is not durable yet is not shown.
        if self.cache.is_open(place) {
            return Last::Wait;
        }
        op.coordinator.retain_dots(|dot| !is_late(dot));
        match op.coordinator.merge(local.clone()) {
            Ok(()) => Last::Answer,
            Err(_) => Last::Unknown,
        }
    }

    /// A read that has all its answers has waited for the commit.
    pub(super) fn answer_again<S: Store>(&mut self, id: OpId, turn: &mut Turn<'_, S>) {
        match self.ops.remove(&id.0) {
            Some(Op::Read(op)) => {
                self.timers.clear(op.wake, id);
                self.step_read(id, op, turn);
            }
            Some(other) => _ = self.ops.insert(id.0, other),
            None => {}
        }
    }

    /// Whether those who have answered or still may are enough.
    fn has_enough_asked(&self, op: &ReadOp) -> bool {
        let quorum = op.coordinator.quorum();
        let included = op.coordinator.included();
        let hopeful = |node: &NodeId| included.contains(node) || op.coordinator.waits_for(*node);
        let votes: BTreeSet<NodeId> = op.asked.keys().copied().filter(hopeful).collect();
        quorum.tally(&votes, &BTreeSet::new()) == Tally::Met
    }

    /// Asks everyone else who can be reached. Says whether there was anyone.
    fn ask_more<S: Store>(&mut self, id: OpId, op: &mut ReadOp, turn: &mut Turn<'_, S>) -> bool {
        let fresh = |node: &NodeId| !op.asked.contains_key(node) && self.peers.is_up(*node);
        let mut nodes: Vec<NodeId> = op.coordinator.quorum().members().filter(fresh).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() {
            return false;
        }
        // Whole objects: whoever was to send one is late or has refused.
        self.ask(id, op, &nodes, Want::Full, turn);
        true
    }

    /// When an answer counts as late.
    fn hedge_at(&self, op: &ReadOp, now: Now) -> Mono {
        let quorum = op.coordinator.quorum();
        let more = |node: NodeId| !op.asked.contains_key(&node) && self.peers.is_up(node);
        if !quorum.members().any(more) {
            return op.deadline;
        }
        let (min, max) = (self.config.hedge_ms_min * 1000, self.config.hedge_ms_max * 1000);
        let waited = op.asked.iter().filter(|&(&node, _)| op.coordinator.waits_for(node));
        let late = waited
            .map(|(&node, asked)| {
                let late_us = match self.peers.late_after_us(node) {
                    0 => max,
                    known => known.clamp(min, max),
                };
                Mono(asked.0.saturating_add(late_us))
            })
            .min();
        // Never at once again: a timer in the past would spin.
        late.unwrap_or(op.deadline).max(Mono(now.mono.0 + 1))
    }

    /// A read has waited long enough for someone.
    pub(super) fn wake_read<S: Store>(
        &mut self,
        id: OpId,
        mut op: Box<ReadOp>,
        turn: &mut Turn<'_, S>,
    ) {
        if turn.now.mono >= op.deadline {
            self.count_misses(&op, turn.now);
            return self.fail_read(*op, turn);
        }
        op.hedged = true;
        if self.ask_more(id, &mut op, turn) {
            self.counters.reads_hedged += 1;
        }
        op.wake = op.deadline;
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Read(op));
    }

    /// Holds it against the replicas that have not answered.
    fn count_misses(&mut self, op: &ReadOp, now: Now) {
        let silent = op.asked.keys().filter(|&&node| op.coordinator.waits_for(node));
        for &node in silent.filter(|&&node| node != self.boot.node) {
            self.peers.missed(node, now.mono);
        }
    }

    fn fail_read<S: Store>(&mut self, op: ReadOp, turn: &mut Turn<'_, S>) {
        self.in_flight -= 1;
        let quorum = op.coordinator.quorum();
        let answered = quorum.counted(&op.coordinator.included());
        let error = RequestError::ReadUnavailable { needed: quorum.needed(), answered };
        answer(op.origin, Reply::Error(error), turn.out);
    }

    fn finish_read<S: Store>(&mut self, op: ReadOp, turn: &mut Turn<'_, S>) {
        self.in_flight -= 1;
        if op.hedged {
            self.count_misses(&op, turn.now);
        }
        let level = op.coordinator.quorum().level();
        let included = op.coordinator.included();
        let merged = op.coordinator.merged();
        let values = self.values(&op.key, op.bucket, merged, level, included.into_iter());
        answer(op.origin, Reply::Values(values), turn.out);
        self.repair_stale(&op, turn);
    }

    /// Sends the merged object to the replicas that were found to have less.
    fn repair_stale<S: Store>(&mut self, op: &ReadOp, turn: &mut Turn<'_, S>) {
        let mut stale = op.coordinator.stale();
        if stale.is_empty() {
            return;
        }
        self.counters.read_repairs += stale.len() as u64;
        let merged = op.coordinator.merged();
        if stale.contains(&self.boot.node) {
            stale.retain(|&node| node != self.boot.node);
            let (partition, bucket) = (op.partition, op.bucket);
            // A store that cannot take it now is repaired by a later read.
            let sent = Sent { object: merged.clone(), encoded: None, is_evidence: false };
            let _ = self.join_object(partition, bucket, &op.key, sent, turn.store);
        }
        if !stale.is_empty() {
            let mut encoded = Vec::new();
            merged.encode(&mut encoded);
            let (partition, bucket, key) = (op.partition, op.bucket, op.key.clone());
            let object = encoded.into();
            let message = PeerMessage::Repair { partition, bucket, key, object };
            turn.out.push(Effect::Send { to: stale, message });
        }
    }

    /// The own object, and whether the open batch has changed it.
    fn own_object<S: Store>(
        &mut self,
        route: &Route,
        get: &Get,
        store: &mut S,
    ) -> Result<(Object, bool), Refusal> {
        let object_key = self.object_key(route.partition, get.bucket, &get.key);
        let loaded = self.cache.load(&object_key, route.kind(), store);
        self.scratch = object_key;
        let place = loaded.map_err(|error| self.store_refusal(&error))?;
        Ok((self.cache.object(place).clone(), self.cache.is_open(place)))
    }

    pub(super) fn values(
        &mut self,
        key: &[u8],
        bucket: BucketId,
        object: &Object,
        level: Level,
        replicas: impl Iterator<Item = NodeId>,
    ) -> Values {
        let shown = object.siblings().iter();
        let siblings: Vec<Sibling> =
            shown.map(|s| Sibling { value: s.value.clone(), hlc: s.hlc, dot: s.dot }).collect();
        self.counters.siblings_max = self.counters.siblings_max.max(siblings.len() as u64);
        let secrets = self.cluster.secrets.as_ref();
        let context = secrets.map(|secrets| secrets.seal(bucket, key, &object.context));
        let receipt = self.receipt(level, replicas);
        Values { siblings, context: context.unwrap_or_default(), receipt }
    }
}

/// How many of the chosen can be reached, if that is too few.
fn too_few(chosen: &[NodeId], cost: impl Fn(NodeId) -> u64) -> Option<u32> {
    let reachable = chosen.iter().filter(|&&node| cost(node) != UNREACHABLE).count();
    (reachable < chosen.len()).then_some(reachable as u32)
}
