//! Gap repair: a replica asks for the writes that it lacks, and gets the current objects of their
//! keys.
//!
//! 1. A pulse or a claim names dots that are not in the clock here: they are noticed ([`gaps`]).
//! 2. What is still lacking when a message on the way would have come is asked for: the nearest
//!    peer that has it is sent the dots, and how many bytes it may answer with.
//! 3. The peer finds the dots' keys in its log and sends these keys' *current* objects, each
//!    with the dots that it stands for.
//! 4. Each object is joined as any replicated object is, late siblings dropped; and the dots are
//!    marked as seen **in the same commit, if the join succeeded** (I3): a dot that is marked and not
//!    accounted for is never asked for again. Then the rest is asked for.
//!
//! An object stands for a dot if its context covers it, so one that does not is refused. Dots
//! that nobody asked for are not marked.
//!
//! If nobody who has a dot knows its key any more, the partition is taken whole ([`resync`]).
//!
//! A peer answers from objects that the open batch has changed only after its commit. It says
//! which dots it has not seen, and which it has seen and has no key for any more (`cut`); of what it
//! leaves out it can be asked again. A replica that does not serve asks for nothing, and says that it has seen
//! nothing.
//!
//! [`gaps`]: super::gaps
//! [`resync`]: super::resync

use bytes::Bytes;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use crate::clock::{DotSet, PartitionClock};
use crate::object::Object;
use crate::peer::{Claimed, GapObject, OpId, PeerMessage, Standing};
use crate::shard::event::Effect;
use crate::shard::gaps::Ask;
use crate::shard::replica::Incoming;
use crate::shard::{Shard, Turn};
use crate::store::{Store, StoreError, Table};
use crate::time::Mono;

/// Dots in one question, and in one answer: what a log is searched for at once.
const DOTS_MAX: u64 = 4096;

/// Ranges in one question: some kilobytes.
const RANGES_ASKED_MAX: usize = 512;

/// Objects in one answer: reading them takes a millisecond or two, which others wait.
const OBJECTS_MAX: usize = 256;

/// Bytes of objects in one answer, whatever is asked for, unless it is one object.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long a peer may take to answer at least, milliseconds: it reads, and may be busy.
const ANSWER_MS: u64 = 1_000;

/// Between two looks at what is lacking at least, milliseconds.
const LOOK_MS: u64 = 10;

/// The longest time that a message on the way explains why a dot is lacking, milliseconds; and what
/// is assumed of peers that have not answered anything yet: the longest round trip on earth.
const PATIENCE_MS_MAX: u64 = 2_000;
const ROUND_TRIP_MS: u64 = 300;

/// What the log knows of an object's key.
type Key = (BucketId, Bytes, DotSet);

impl Shard {
    /// How far another run has written.
    pub(super) fn on_pulse(
        &mut self,
        from: NodeId,
        actor: Actor,
        counters: &[(Partition, u64)],
        now: Mono,
    ) {
        self.lag.runs(from, actor);
        // Without room the next claim says it again.
        if !self.may_have_news(from) || !self.gaps.has_room(from) {
            return;
        }
        let ripens_at = now.plus_ms(self.patience_ms());
        for &(partition, counter) in counters {
            let Some(state) = self.partitions.get(&partition) else { continue };
            let seen = state.clock().seen_of(actor).prefix();
            if seen >= counter || actor == self.boot.actor {
                continue;
            }
            let mut written = DotSet::new();
            written.insert_range(actor, seen + 1, counter);
            let lacked = written.without(state.clock());
            self.gaps.notice((partition, from), &lacked, (now, ripens_at));
        }
    }

    /// What another replica has seen.
    pub(super) fn on_seen<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        (run, layout): (Actor, u64),
        clocks: &[(Partition, Claimed)],
        turn: &mut Turn<'_, S>,
    ) {
        let Some(&(partition, _)) = clocks.first() else { return };
        // Of another run than this is connected to, or under another layout, it is told again when
        // both agree.
        if self.peers.run(from) != Some(run) || self.layout_version() != layout {
            return;
        }
        let is_news = self.may_have_news(from);
        if is_news && !self.notice_claims(from, clocks, turn.now.mono) {
            // Not noted, it will be repeated.
            self.counters.overloads += 1;
            return;
        }
        let (shard, shards) = (self.boot.shard as u16, self.boot.shards as u16);
        let message = PeerMessage::Noted { op, partition, shard, shards };
        turn.out.push(Effect::Send { to: vec![from], message });
    }

    /// Only who is in the layout can be asked.
    fn may_have_news(&self, from: NodeId) -> bool {
        self.cluster.layout.as_ref().is_some_and(|layout| layout.node(from).is_some())
    }

    /// Says whether there was room for all of it.
    fn notice_claims(&mut self, from: NodeId, clocks: &[(Partition, Claimed)], now: Mono) -> bool {
        let ripens_at = now.plus_ms(self.patience_ms());
        let has_room = self.gaps.has_room(from);
        for (partition, claimed) in clocks {
            let Some(state) = self.partitions.get(partition) else { continue };
            let mut lacked = claimed.seen.without(state.clock());
            // What this run has written it has, or has given up and noticed then.
            lacked.remove_actor(self.boot.actor);
            if !lacked.is_empty() && !has_room {
                return false;
            }
            self.gaps.notice((*partition, from), &lacked, (now, ripens_at));
            if !self.stable.hear(*partition, from, claimed) {
                return false;
            }
        }
        true
    }

    /// How long a message on the way can explain that a write is lacking: from the slowest peer, by a
    /// relay, and until its commit.
    fn patience_ms(&self) -> u64 {
        let slowest_ms = match self.peers.slowest_us() {
            0 => ROUND_TRIP_MS,
            known => known / 1000,
        };
        (slowest_ms + self.config.pulse_ms).min(PATIENCE_MS_MAX)
    }

    /// Dots that this node had and gave up with a failed batch. Whoever has claimed them before
    /// does not do so again: everybody may have them.
    pub(super) fn notice_given_up(&mut self, partition: Partition, dots: &DotSet, now: Mono) {
        let Some(layout) = self.cluster.layout.clone() else { return };
        let ripens_at = now.plus_ms(self.patience_ms());
        for &node in layout.replicas(partition).iter().filter(|&&node| node != self.boot.node) {
            self.gaps.notice((partition, node), dots, (now, ripens_at));
        }
    }

    /// Between two batches: asks for what is ripe.
    pub(super) fn ask_for_gaps<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.gaps.due().is_none_or(|due| due > now) {
            return;
        }
        let earliest = now.plus_ms(LOOK_MS);
        if self.writable(turn.store).is_err() {
            let later = earliest.plus_ms(ANSWER_MS);
            self.gaps.looked((later, later), |_| true, |_| true);
            return;
        }
        let patience_ms = self.patience_ms();
        let mut partitions = self.gaps.partitions();
        // Each has its turn: those behind are not to wait until nothing is lacking before them.
        let first = partitions.partition_point(|&partition| partition <= self.last_asked);
        partitions.rotate_left(first);
        for partition in partitions {
            let Some(state) = self.partitions.get(&partition).filter(|_| self.serves(partition))
            else {
                continue;
            };
            let peers = self.gaps.askable(partition, state.clock(), (now, patience_ms));
            if self.gaps.asks() < self.config.gap_asks_max {
                self.ask_nearest(partition, peers, turn);
            }
        }
        self.start_resyncs(turn);
        let (peers, doubts) = (&self.peers, &self.doubts);
        let serves = |partition| doubts.standing(partition) == Standing::Serves;
        let at = (earliest, self.resyncs.free_at());
        self.gaps.looked(at, |node| peers.is_up(node), serves);
    }

    fn ask_nearest<S: Store>(
        &mut self,
        partition: Partition,
        peers: Vec<(NodeId, DotSet)>,
        turn: &mut Turn<'_, S>,
    ) {
        let Some(layout) = &self.cluster.layout else { return };
        let cost = |(node, _): &(NodeId, DotSet)| {
            let far = layout.region_of(*node) != self.region;
            // Partitions spread over near peers that answer equally fast.
            let turn = (u64::from(partition.to_u32()) ^ node.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (far, if far { self.peers.srtt_us(*node) } else { 0 }, turn)
        };
        let up = peers.into_iter().filter(|(node, _)| self.peers.is_up(*node));
        let Some((peer, has)) = up.min_by_key(cost) else { return };
        let missing = first_dots(&has);
        let op = self.new_op();
        let now = turn.now.mono;
        let answer_ms = ANSWER_MS.max(2 * self.peers.late_after_us(peer) / 1000);
        let deadline = now.plus_ms(answer_ms);
        let bytes_max = self.config.gap_bytes_max as u32;
        let ask = Ask { op, peer, missing: missing.clone(), sent: now, deadline };
        self.gaps.asked(partition, ask);
        self.last_asked = partition;
        self.counters.gap_asks += 1;
        let message = PeerMessage::GapAsk { op, partition, missing, bytes_max };
        turn.out.push(Effect::Send { to: vec![peer], message });
    }

    /// The dots of a partition that the log has with their keys, those of the open batch left out. For
    /// who watches the protocol from outside.
    ///
    /// # Errors
    /// What the store reports.
    pub fn in_log<S: Store>(
        &self,
        partition: Partition,
        store: &mut S,
    ) -> Result<DotSet, StoreError> {
        let Some(state) = self.partitions.get(&partition) else { return Ok(DotSet::new()) };
        let keys = self.log.find(partition, (state.clock(), u64::MAX), store)?;
        let mut found = DotSet::new();
        keys.keys.iter().for_each(|(_, _, dots)| found.merge(dots));
        Ok(found)
    }

    /// Another replica lacks something.
    pub(super) fn on_gap_ask<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        partition: Partition,
        (missing, bytes_max): (&DotSet, u32),
        turn: &mut Turn<'_, S>,
    ) {
        let Some(state) = self.partitions.get(&partition) else { return };
        if !self.is_sound() || !self.serves(partition) {
            // What it claimed before, it does not vouch for now. Its next run claims anew.
            let (objects, cut, unknown) = (Vec::new(), DotSet::new(), missing.clone());
            let message = PeerMessage::GapAnswer { op, partition, objects, cut, unknown };
            turn.out.push(Effect::Send { to: vec![from], message });
            return;
        }
        let mut unknown = missing.without(state.clock());
        // What is void nobody has.
        unknown.merge(&self.void_of(partition, missing, from));
        let seen = missing.without(&unknown);
        let Ok(keys) = self.log.find(partition, (&seen, DOTS_MAX), turn.store) else {
            self.counters.corrupt_objects += 1;
            return;
        };
        let bytes_max = (bytes_max as usize).min(ANSWER_BYTES_MAX);
        let (keys, mut cut) = (keys.keys, keys.cut);
        let (objects, open) = self.objects_of(partition, (keys, &mut cut), bytes_max, turn.store);
        self.counters.gap_objects_sent += objects.len() as u64;
        let message = PeerMessage::GapAnswer { op, partition, objects, cut, unknown };
        let effect = Effect::Send { to: vec![from], message };
        if open { self.held.push(effect) } else { turn.out.push(effect) }
    }

    /// The current objects of some keys, as many as fit, and whether one is part of the open batch. What
    /// was forgotten here counts as cut: who lacks it is no replica that stability has counted, and must
    /// take the partition whole.
    fn objects_of<S: Store>(
        &mut self,
        partition: Partition,
        (keys, cut): (Vec<Key>, &mut DotSet),
        bytes_max: usize,
        store: &mut S,
    ) -> (Vec<GapObject>, bool) {
        let mut objects = Vec::new();
        let (mut bytes, mut open) = (0, false);
        for (bucket, key, done) in keys {
            let row = self.object_key(partition, bucket, &key);
            let found = match self.cache.peek(&row) {
                Some(object) => {
                    let mut encoded = Vec::new();
                    object.encode(&mut encoded);
                    open |= self.cache.is_changed(&row);
                    Ok(Some((object.context.clone(), encoded)))
                }
                None => sound_row(&row, store),
            };
            self.scratch = row;
            let object = match found {
                Ok(Some((context, object))) if dots_of(&done).all(|dot| context.covers(dot)) => {
                    Bytes::from(object)
                }
                Ok(_) => {
                    cut.merge(&done);
                    continue;
                }
                Err(error) => {
                    // Somebody else may have it whole.
                    self.store_refusal(&error);
                    continue;
                }
            };
            bytes += object.len() + key.len();
            if !objects.is_empty() && (bytes > bytes_max || objects.len() >= OBJECTS_MAX) {
                break;
            }
            let done = if done.weight() > RANGES_ASKED_MAX { first_dots(&done) } else { done };
            objects.push(GapObject { bucket, key, object, done });
        }
        (objects, open)
    }

    /// Some of what was asked for.
    pub(super) fn on_gap_answer<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        partition: Partition,
        objects: Vec<GapObject>,
        (cut, unknown): (&DotSet, &DotSet),
        turn: &mut Turn<'_, S>,
    ) {
        let now = turn.now.mono;
        let Some(ask) = self.gaps.answered(partition, from, op) else { return };
        self.peers.answered(from, ask.sent, now);
        let mut helped = false;
        let mut oldest = None;
        for object in objects {
            let done = object.done.clone();
            match self.close_gap(partition, &ask.missing, object, turn) {
                Ok(of) => {
                    helped = true;
                    oldest = [oldest, of].into_iter().flatten().min();
                }
                Err(()) => {
                    self.counters.peer_rejections += 1;
                    if ask.missing.covers(&done) {
                        self.gaps.put_off(partition, from, &done, now);
                    }
                }
            }
        }
        if let Some(oldest) = oldest {
            self.gaps.brought(partition, from, oldest);
        }
        for not_there in [cut, unknown] {
            helped |= !not_there.is_empty();
            self.gaps.has_not(partition, from, not_there);
        }
        self.gaps.has_cut(partition, from, cut);
        self.counters.gap_dots_cut += cut.count().min(DOTS_MAX);
        if !helped {
            self.gaps.hold(partition, from, now);
        }
    }

    /// Joins an object, and marks what it stands for. Gives the oldest of its clock readings.
    fn close_gap<S: Store>(
        &mut self,
        partition: Partition,
        asked: &DotSet,
        GapObject { bucket, key, object, done }: GapObject,
        turn: &mut Turn<'_, S>,
    ) -> Result<Option<Hlc>, ()> {
        if !asked.covers(&done) || done.count() > DOTS_MAX {
            return Err(());
        }
        let dots: Vec<Dot> = dots_of(&done).collect();
        let bytes = object.len();
        let write = Incoming { partition, bucket, key, object };
        let sent = Object::decode(&write.object).map_err(|_| ())?;
        let oldest = sent.siblings().iter().map(|sibling| sibling.hlc).min();
        if !dots.iter().all(|&dot| sent.context.covers(dot) && self.may_be_seen(partition, dot)) {
            return Err(());
        }
        self.join_incoming(&write, turn).map_err(|_| ())?;
        let mut row = self.object_key(partition, bucket, &write.key);
        let row_key = Bytes::copy_from_slice(&row);
        row.clear();
        self.scratch = row;
        self.mark_seen((partition, bucket), &row_key, dots, (&[], false));
        self.counters.gap_objects_joined += 1;
        self.counters.gap_bytes_joined += bytes as u64;
        Ok(oldest)
    }

    /// Whether a dot can exist, as far as this node knows: its own run's are its own to make.
    fn may_be_seen(&self, partition: Partition, dot: Dot) -> bool {
        let made = self.partitions.get(&partition).map_or(0, |state| state.own_counter());
        dot.actor != self.boot.actor || dot.counter <= made
    }
}

/// An object's context and row, if it is there and sound.
fn sound_row<S: Store>(
    row: &[u8],
    store: &mut S,
) -> Result<Option<(VersionVector, Vec<u8>)>, StoreError> {
    let Some(found) = store.get(Table::Objects, row)? else { return Ok(None) };
    let object =
        Object::decode(&found).map_err(|damage| StoreError::Corrupt(damage.to_string()))?;
    Ok(Some((object.context, found)))
}

/// As much of a set as one question asks for.
fn first_dots(all: &PartitionClock) -> DotSet {
    let mut first_dots = DotSet::new();
    let mut left = DOTS_MAX;
    for (actor, first, last) in all.spans().take(RANGES_ASKED_MAX) {
        if left == 0 {
            break;
        }
        let last = last.min(first.saturating_add(left - 1));
        left -= last - first + 1;
        first_dots.insert_range(actor, first, last);
    }
    first_dots
}

fn dots_of(dots: &DotSet) -> impl Iterator<Item = Dot> + '_ {
    dots.spans()
        .flat_map(|(actor, first, last)| (first..=last).map(move |counter| Dot { actor, counter }))
}
