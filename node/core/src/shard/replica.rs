//! The replica's step: join what another node sends, and look up what it asks for.
//!
//! **Late messages** (I4): an incoming sibling whose dot is in the partition clock but is not alive
//! here was already overwritten or deleted here. It is taken out before the join, also when the
//! local object is gone altogether. That is right because clock and object change in one commit:
//! a dot in the clock means that the state which accounts for it was joined.
//!
//! **Seen** (I3): every dot that a joined object names, its siblings' and its context's entries, is
//! marked in the clock and logged in the same commit.
//!
//! Nothing a peer sends is trusted beyond what its certificate says (I8): objects are decoded with
//! all their checksums, keys must belong to the partition, and nobody else can have made dots of
//! this run that it has not made.

use bytes::Bytes;

use holm_protocol::admin::ReplicaState;
use holm_protocol::dot::Dot;
use holm_protocol::error::StoreFault;
use holm_protocol::ids::{BucketId, Hlc, NodeId, Partition};
use holm_protocol::limits::OBJECT_LEN_MAX;
use holm_protocol::version_vector::VersionVector;

use crate::clock::{ACTORS_MAX, RANGES_MAX};
use crate::object::{Object, ObjectKind, Sibling, State};
use crate::peer::{Found, OpId, PeerMessage, Refusal, Want};
use crate::shard::event::Effect;
use crate::shard::log::LogEntry;
use crate::shard::partition::PartitionState;
use crate::shard::stable::has_more;
use crate::shard::{Shard, Turn, object_kind};
use crate::store::{Store, StoreError};
use crate::time::Now;

/// The most actors of one partition that other nodes can make known here. What is left is for this
/// node's own runs: each start is one, and a node must be able to start and write.
const ACTORS_OF_PEERS_MAX: usize = ACTORS_MAX - ACTORS_MAX / 16;

/// An object from another node.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) partition: Partition,
    pub(super) bucket: BucketId,
    pub(super) key: Bytes,
    pub(super) object: Bytes,
}

/// A decoded object, and its bytes if another node sent them like that.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) object: Object,
    pub(super) encoded: Option<Bytes>,
    /// Whether it is joined although every dot that it names has been seen here: the state here may have
    /// been damaged.
    pub(super) is_evidence: bool,
}

/// A question from another node.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) partition: Partition,
    pub(super) bucket: BucketId,
    pub(super) key: Bytes,
    pub(super) want: Want,
}

impl Shard {
    /// Joins and acknowledges a write, and passes it on if this node is to relay it.
    pub(super) fn on_write<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        write: Incoming,
        fan_out: &[NodeId],
        turn: &mut Turn<'_, S>,
    ) {
        let node = self.boot.node;
        let partition = write.partition;
        let crowded = self.relays >= self.config.relays_max;
        self.counters.overloads += u64::from(crowded && !fan_out.is_empty());
        let fan_out = if crowded { &[] } else { fan_out };
        let joined = self.join_incoming(&write, turn);
        if let Err(refusal) = joined {
            self.counters.peer_rejections += 1;
            let senseless = matches!(refusal, Refusal::Malformed | Refusal::NotReplica);
            // A relay that cannot store the object itself still passes it on.
            if fan_out.is_empty() || senseless {
                let refused = vec![(node, refusal)];
                let message = PeerMessage::WriteReply { op, partition, durable: vec![], refused };
                turn.out.push(Effect::Send { to: vec![from], message });
                return;
            }
        }
        if fan_out.is_empty() {
            let (durable, refused) = (vec![node], vec![]);
            let message = PeerMessage::WriteReply { op, partition, durable, refused };
            self.held.push(Effect::Send { to: vec![from], message });
        } else {
            self.relay((from, op), write, fan_out, joined, turn);
        }
    }

    /// Joins an object into the local one, in the open batch.
    pub(super) fn join_incoming<S: Store>(
        &mut self,
        write: &Incoming,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        self.join_checked(write, false, turn)
    }

    /// As [`Shard::join_incoming`]; as evidence, if the state here may be damaged.
    pub(super) fn join_checked<S: Store>(
        &mut self,
        write: &Incoming,
        is_evidence: bool,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        let incoming = self.check_incoming(write, turn.now)?;
        let sent = Sent { object: incoming, encoded: Some(write.object.clone()), is_evidence };
        self.join_object(write.partition, write.bucket, &write.key, sent, turn.store)
    }

    /// Decodes what another node sent, and looks whether it can be.
    pub(super) fn check_incoming(&mut self, write: &Incoming, now: Now) -> Result<Object, Refusal> {
        self.check_place(write.partition, write.bucket, &write.key)?;
        let incoming = Object::decode(&write.object).map_err(|_| Refusal::Malformed)?;
        let bucket_kind = self.cluster.buckets.get(&write.bucket).map(|b| b.policy.kind);
        if bucket_kind.is_some_and(|kind| object_kind(kind) != incoming.kind()) {
            return Err(Refusal::WrongKind);
        }
        self.check_dots(write.partition, &incoming)?;
        self.check_room(write.partition, &incoming)?;
        self.check_clocks(now, &incoming)?;
        Ok(incoming)
    }

    /// Joins a decoded object; everything about it has been checked.
    pub(super) fn join_object<S: Store>(
        &mut self,
        partition: Partition,
        bucket: BucketId,
        key: &[u8],
        sent: Sent,
        store: &mut S,
    ) -> Result<(), Refusal> {
        let Sent { object: mut incoming, encoded, is_evidence } = sent;
        self.check_standing(partition)?;
        self.writable(store)?;
        self.check_ends(partition, &incoming)?;
        let Some(state) = self.partitions.get(&partition) else {
            return Err(Refusal::NotReplica);
        };
        let mut object_key = std::mem::take(&mut self.scratch);
        crate::keys::object_key(&mut object_key, partition, bucket, key);
        let loaded = self.cache.load(&object_key, incoming.kind(), store);
        self.scratch = object_key;
        let place = match loaded {
            Ok(place) => place,
            Err(error) => return Err(self.store_refusal(&error)),
        };
        let local = self.cache.object(place);
        // Also those whose siblings are dropped as late, or that change nothing: their effect is
        // part of what is here.
        let named: Vec<Dot> = incoming.named_dots().collect();
        let readings: Vec<(Dot, Hlc)> =
            incoming.siblings().iter().map(|s| (s.dot, s.hlc)).collect();
        let dropped = drop_late(&mut incoming, local, state);
        self.counters.late_siblings_dropped += dropped;
        // Whose every dot has been seen is part of what is here, also where that is forgotten: a context
        // does not grow back.
        let is_old = named.iter().all(|dot| state.clock().contains(*dot));
        if is_old && !is_evidence {
            return Ok(());
        }
        let object_key = self.cache.key(place);
        let forgettable = self.stable.forgettable(partition);
        let slack = self.config.context_slack;
        let replaces = dropped == 0 && replaces(&incoming, local, forgettable);
        let (next, encoded) = match encoded.filter(|_| replaces) {
            Some(encoded) => (incoming, encoded),
            None => {
                let mut here = local.clone();
                if let Some(forgettable) = forgettable {
                    here.forget(forgettable);
                }
                let mut next = here.clone();
                next.join(incoming).map_err(|_| Refusal::WrongKind)?;
                next.check_limits().map_err(|_| Refusal::TooLarge)?;
                if let Some(forgettable) = forgettable.filter(|_| is_old) {
                    // No entry of the log comes to have it forgotten.
                    next.forget(forgettable);
                }
                if next == here {
                    let has_more = has_more(&here, slack);
                    self.mark_seen((partition, bucket), &object_key, named, (&readings, has_more));
                    return Ok(());
                }
                let mut encoded = Vec::new();
                if !next.context.is_empty() {
                    next.encode(&mut encoded);
                }
                (next, encoded.into())
            }
        };
        if encoded.len() > OBJECT_LEN_MAX {
            return Err(Refusal::TooLarge);
        }
        self.counters.objects_joined += 1;
        self.lag.joined(encoded.len());
        let has_more = has_more(&next, slack);
        self.mark_seen((partition, bucket), &object_key, named, (&readings, has_more));
        self.cache.change(place, next, encoded);
        Ok(())
    }

    /// Marks dots that an object names as seen with its key, in the open batch; `has_more` says whether
    /// that object has something to forget.
    pub(super) fn mark_seen(
        &mut self,
        (partition, bucket): (Partition, BucketId),
        object_key: &Bytes,
        named: impl IntoIterator<Item = Dot>,
        (readings, has_more): (&[(Dot, Hlc)], bool),
    ) {
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        for dot in named {
            if state.see(dot) {
                let hlc = readings.iter().find(|(d, _)| *d == dot).map_or(Hlc(0), |(_, hlc)| *hlc);
                if dot.actor != self.boot.actor {
                    self.lag.saw(dot.actor, hlc);
                }
                let key = crate::keys::user_key(object_key);
                self.log.push(LogEntry { partition, dot, hlc, bucket, key, has_more });
            }
        }
    }

    /// Answers another node's question.
    pub(super) fn on_read<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        read: &Lookup,
        turn: &mut Turn<'_, S>,
    ) {
        let (found, open) = self.look_up(read, turn.store);
        let message = PeerMessage::ReadReply { op, partition: read.partition, found };
        let effect = Effect::Send { to: vec![from], message };
        if open { self.held.push(effect) } else { turn.out.push(effect) }
    }

    /// What this replica holds, and whether that is part of the open batch.
    pub(super) fn look_up<S: Store>(&mut self, read: &Lookup, store: &mut S) -> (Found, bool) {
        let checked = self
            .check_place(read.partition, read.bucket, &read.key)
            .and_then(|()| self.check_standing(read.partition));
        if let Err(refusal) = checked {
            return (Found::Refused(refusal), false);
        }
        // Without the bucket's kind an absent key would be remembered as the wrong kind of absent.
        let Some(info) = self.cluster.buckets.get(&read.bucket) else {
            return (Found::Refused(Refusal::UnknownBucket), false);
        };
        let kind = object_kind(info.policy.kind);
        let object_key = self.object_key(read.partition, read.bucket, &read.key);
        let loaded = self.cache.load(&object_key, kind, store);
        self.scratch = object_key;
        let place = match loaded {
            Ok(place) => place,
            Err(error) => return (Found::Refused(self.store_refusal(&error)), false),
        };
        let object = self.cache.object(place);
        let found = match read.want {
            _ if object.context.is_empty() => Found::Absent,
            Want::Digest => Found::Digest(object.digest()),
            Want::Full => {
                let mut encoded = Vec::new();
                object.encode(&mut encoded);
                Found::Object(encoded.into())
            }
        };
        (found, self.cache.is_open(place))
    }

    /// Describes what this replica holds, for an operator.
    pub(super) fn inspect<S: Store>(
        &mut self,
        partition: Partition,
        bucket: BucketId,
        key: &Bytes,
        store: &mut S,
    ) -> ReplicaState {
        let read = Lookup { partition, bucket, key: key.clone(), want: Want::Full };
        let mut state = ReplicaState::default();
        match self.look_up(&read, store).0 {
            Found::Object(encoded) => match Object::decode(&encoded) {
                Ok(object) => {
                    let describe = |s: &Sibling| (s.dot, s.hlc, s.value.len() as u32);
                    state.digest = object.digest();
                    state.siblings = object.siblings().iter().map(describe).collect();
                    state.context = object.context.iter().collect();
                }
                Err(error) => state.fault = Some(error.to_string()),
            },
            // A fallback has hints to show, and nothing else.
            Found::Refused(Refusal::NotReplica) => {}
            Found::Refused(refusal) => state.fault = Some(format!("{refusal:?}")),
            Found::Absent | Found::Digest(_) => {}
        }
        if let Some(partition) = self.partitions.get(&partition) {
            let entry = |(actor, seen): (_, &crate::clock::IntervalSet)| {
                (Dot { actor, counter: seen.prefix() }, seen.count() - seen.prefix())
            };
            state.clock = partition.clock().iter().map(entry).collect();
        }
        state.violations = self.found.of(read.partition, (bucket, key));
        state.hints = self.hint_states(read.partition, bucket, key, store);
        state
    }

    /// Whether a key belongs to a partition that this replica holds.
    pub(super) fn check_place(
        &self,
        partition: Partition,
        bucket: BucketId,
        key: &[u8],
    ) -> Result<(), Refusal> {
        if !self.partitions.contains_key(&partition) {
            return Err(Refusal::NotReplica);
        }
        let layout = self.cluster.layout.as_ref().ok_or(Refusal::NotReplica)?;
        match layout.partition(partition.placement, bucket, key) {
            Some(right) if right == partition => Ok(()),
            _ => Err(Refusal::Malformed),
        }
    }

    /// Only this run can have made this run's dots.
    pub(super) fn check_dots(&self, partition: Partition, object: &Object) -> Result<(), Refusal> {
        let impossible =
            |dot: Dot| self.made_by(partition, dot.actor).is_some_and(|made| dot.counter > made);
        if object.named_dots().any(impossible) {
            return Err(Refusal::Malformed);
        }
        Ok(())
    }

    /// A clock that has seen too much could not be read back at the next start: whoever names dots
    /// of ever new actors, or ever more dots without those between, is refused in time.
    pub(super) fn check_room(&self, partition: Partition, object: &Object) -> Result<(), Refusal> {
        let Some(state) = self.partitions.get(&partition) else { return Ok(()) };
        let clock = state.clock();
        // The least work for what nearly always comes.
        if clock.actors() + object.context.len() > ACTORS_OF_PEERS_MAX {
            let is_new = |dot: &Dot| clock.get(dot.actor).is_none();
            let new = object.context.iter().filter(is_new).count();
            let is_own_new = |dot: &Dot| dot.actor == self.boot.actor && is_new(dot);
            let of_peers = new - object.context.iter().filter(is_own_new).count();
            let crowded = of_peers > 0 && clock.actors() + of_peers > ACTORS_OF_PEERS_MAX;
            if crowded || clock.actors() + new > ACTORS_MAX {
                return Err(Refusal::TooLarge);
            }
        }
        let more = object.siblings().len() + 1;
        let is_ragged = |dot: Dot| {
            let seen = clock.get(dot.actor);
            seen.is_some_and(|it| {
                it.ranges().len() + more > RANGES_MAX && !it.contains(dot.counter)
            })
        };
        if object.named_dots().any(is_ragged) { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// Last-writer-wins values from clocks too far ahead would win for ever. In other objects
    /// clocks decide nothing, and a far one is just not followed.
    pub(super) fn check_clocks(&mut self, now: Now, object: &Object) -> Result<(), Refusal> {
        let skew_ms = self.config.max_clock_skew_ms;
        let latest = match &object.state {
            State::Latest(latest) => latest.hlc(),
            State::Siblings(_) => object.siblings().iter().map(|s| s.hlc).max(),
        };
        let Some(latest) = latest else { return Ok(()) };
        match self.hlc.observe(latest, now.wall.0, skew_ms) {
            Err(_) if object.kind() == ObjectKind::Lww => Err(Refusal::ClockSkew),
            _ => Ok(()),
        }
    }

    /// Whether anything can be written now.
    pub(super) fn writable<S: Store>(&self, store: &mut S) -> Result<(), Refusal> {
        match self.stopped {
            Some(StoreFault::Full) => return Err(Refusal::StoreFull),
            Some(_) => return Err(Refusal::StoreIo),
            None => {}
        }
        match store.writable() {
            Ok(()) => Ok(()),
            Err(StoreError::Full) => Err(Refusal::StoreFull),
            Err(_) => Err(Refusal::StoreIo),
        }
    }

    pub(super) fn store_refusal(&mut self, error: &StoreError) -> Refusal {
        match error {
            StoreError::Corrupt(_) => {
                self.counters.corrupt_objects += 1;
                Refusal::Corrupt
            }
            StoreError::Full => Refusal::StoreFull,
            StoreError::Io(_) => Refusal::StoreIo,
        }
    }
}

/// Whether joining `incoming` into `local` gives just `incoming`: then its bytes can be stored as
/// they came. That is the usual case, of a write that has seen what is here.
fn replaces(incoming: &Object, local: &Object, forgettable: Option<&VersionVector>) -> bool {
    let (State::Siblings(_), State::Siblings(_)) = (&incoming.state, &local.state) else {
        return false;
    };
    let new_or_here =
        |dot: Dot| !local.context.covers(dot) || local.live_dots().any(|alive| alive == dot);
    let known = |dot: Dot| incoming.context.covers(dot);
    // What may be forgotten here need not be in what comes.
    let is_forgettable =
        |forgettable: &VersionVector| local.context.iter().all(|dot| forgettable.covers(dot));
    let covers = local.context.iter().all(known)
        || (local.live_dots().all(known) && forgettable.is_some_and(is_forgettable));
    covers && local.context != incoming.context && incoming.live_dots().all(new_or_here)
}

/// Takes out the siblings that were overwritten or deleted here before they came. Says how many.
pub(super) fn drop_late(incoming: &mut Object, local: &Object, state: &PartitionState) -> u64 {
    let mut dropped = 0;
    let clock = state.clock();
    if incoming.live_dots().any(|dot| clock.contains(dot)) {
        let alive: Vec<Dot> = local.live_dots().collect();
        incoming.retain_dots(|dot| {
            let late = clock.contains(dot) && !alive.contains(&dot);
            dropped += u64::from(late);
            !late
        });
    }
    dropped
}

#[cfg(test)]
mod tests {
    use holm_protocol::ids::Actor;
    use proptest::prelude::*;

    use super::*;

    /// States of one key that real coordinators made: each step is a write at one of three actors'
    /// objects with what that object holds as context, a blind write, a delete, or a join.
    fn states(steps: &[(usize, usize, u8)]) -> Vec<Object> {
        let mut objects: Vec<Object> = (0..3).map(|_| Object::new(ObjectKind::Siblings)).collect();
        let mut counters = [0u64; 3];
        let mut all = Vec::new();
        for &(at, other, what) in steps {
            let mut dot = || {
                counters[at] += 1;
                Dot { actor: Actor(at as u64 + 1), counter: counters[at] }
            };
            let context = objects[at].context.clone();
            match what % 4 {
                0 => {
                    let sibling = Sibling::new(dot(), Hlc(1), Bytes::from_static(b"v"));
                    objects[at].put(&context, sibling);
                }
                1 => {
                    let sibling = Sibling::new(dot(), Hlc(1), Bytes::from_static(b"v"));
                    objects[at].put(&VersionVector::new(), sibling);
                }
                2 => objects[at].delete(&context, dot(), Hlc(1)),
                _ => {
                    let theirs = objects[other].clone();
                    objects[at].join(theirs).unwrap();
                }
            }
            all.push(objects[at].clone());
        }
        all
    }

    /// Goal: a faulty node brings nothing back by the short way either (I4, I8). Method: an object
    /// that claims to cover all that is here, and still has a value that is overwritten here; no
    /// history makes it.
    #[test]
    fn what_is_dead_here_replaces_nothing() {
        let dot = |actor, counter| Dot { actor: Actor(actor), counter };
        let object = |alive: Dot| {
            let mut object = Object::new(ObjectKind::Siblings);
            let sibling = Sibling::new(alive, Hlc(1), Bytes::from_static(b"v"));
            object.put(&VersionVector::new(), sibling);
            object
        };
        let local = object(dot(1, 2));
        let mut faulty = object(dot(1, 1));
        faulty.context.insert(dot(1, 2));
        faulty.context.insert(dot(2, 1));
        assert!(!replaces(&faulty, &local, None));
        let mut good = object(dot(2, 1));
        good.context.insert(dot(1, 2));
        assert!(replaces(&good, &local, None));
    }

    proptest! {
        /// Goal: the short way gives what the join gives. Method: all pairs of states of random
        /// histories; where one replaces the other, compare with the join.
        #[test]
        fn what_replaces_is_the_join(
            steps in prop::collection::vec((0usize..3, 0usize..3, any::<u8>()), 1..24),
        ) {
            let states = states(&steps);
            for local in &states {
                for incoming in &states {
                    if replaces(incoming, local, None) {
                        let mut joined = local.clone();
                        joined.join(incoming.clone()).unwrap();
                        prop_assert_eq!(&joined, incoming);
                    }
                }
            }
        }
    }
}
