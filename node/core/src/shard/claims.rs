//! What a shard tells other nodes of what it has seen: pulses and claims.
//!
//! The problem: a replica that was down, or to which a message was lost, cannot know by itself what
//! it is missing. So every replica says what it has. A **pulse** says how far this run has
//! written, soon and often: nothing waits for it and it may be lost. A **claim** says what has
//! been seen of all actors, also dead ones; it is repeated until it is noted.
//!
//! The rule: both speak only of what is durable, fsynced also under `sync = interval`. They are
//! made between two batches, and if the disk has not come so far yet, kept until it has. A claim also
//! says what is known to be [stable](super::stable). It counts for the run and the layout that it names,
//! and this node's own claims count here as any other's.
//!
//! Only changes are told. Every change of what was seen of one actor of a partition gets a number; a
//! peer was told everything up to one such number. So a peer costs two numbers, however many
//! partitions there are, silence means that nothing has changed, and an idle cluster says nothing.
//!
//! States of a peer: down; up and told everything; up with changes to tell, at its next time; up
//! with a claim on its way, which ends when each part is noted, or is repeated. A peer that comes
//! up may be another run: it is told everything anew.
//!
//! Source: pulses and clocks as messages, DottedDB (SRDS 2017). Numbers of changes instead of a
//! copy of every peer's clock are ours.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::dot::Dot;
use holm_protocol::error::StoreFault;
use holm_protocol::ids::{Actor, Hlc, NodeId, Partition};

use crate::peer::{Claimed, OpId, PeerMessage, Standing};
use crate::shard::config::shard_of;
use crate::shard::doubt::Doubts;
use crate::shard::event::Effect;
use crate::shard::log::LogEntry;
use crate::shard::partition::PartitionState;
use crate::shard::{Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

/// Bytes of one claim, about: what a peer notes at once, and repeats if it is lost.
const CLAIM_BYTES: usize = 32 << 10;

/// Partitions in one pulse: some ten kilobytes.
const PULSE_PARTITIONS: usize = 2048;

/// Changes between two looks, before what is the same is put together.
const FRESH_MAX: usize = 4096;

/// A claim is repeated when it was not noted for this long at least, milliseconds, and twice what
/// the peer usually takes.
const REPEAT_MS: u64 = 500;

/// Things that change, numbered by their last change. Between two looks each is counted once: at tens of
/// thousands of writes a second there are many more changes than things.
#[derive(Debug)]
struct Changes<K> {
    numbers: BTreeMap<K, u64>,
    order: BTreeMap<u64, K>,
    last: u64,
    /// Changes that have no number yet.
    fresh: Vec<K>,
}

impl<K: Ord + Copy> Changes<K> {
    const fn new() -> Self {
        Changes { numbers: BTreeMap::new(), order: BTreeMap::new(), last: 0, fresh: Vec::new() }
    }

    fn note(&mut self, key: K) {
        if self.fresh.last() != Some(&key) {
            self.fresh.push(key);
        }
        if self.fresh.len() >= FRESH_MAX {
            self.settle();
        }
    }

    /// Gives numbers to what has changed since the last time: before anybody asks for them.
    fn settle(&mut self) {
        self.fresh.sort_unstable();
        self.fresh.dedup();
        for key in self.fresh.drain(..) {
            self.last += 1;
            if let Some(before) = self.numbers.insert(key, self.last) {
                self.order.remove(&before);
            }
            self.order.insert(self.last, key);
        }
    }

    /// Whether anything has changed after a number.
    fn has_after(&self, number: u64) -> bool {
        self.last > number || !self.fresh.is_empty()
    }

    /// What has changed after a number.
    fn after(&self, number: u64) -> impl Iterator<Item = (u64, K)> + '_ {
        self.order.range(number.saturating_add(1)..).map(|(number, key)| (*number, *key))
    }
}

/// A claim on its way.
#[derive(Debug)]
struct Claim {
    op: OpId,
    /// Everything up to this change is told when it is noted.
    upto: u64,
    /// Whose part was not noted yet.
    partitions: BTreeSet<Partition>,
    sent: Mono,
}

/// A node with which this shard shares partitions.
#[derive(Debug)]
struct Listener {
    near: bool,
    partitions: BTreeSet<Partition>,
    /// The last change of an own counter that it was told.
    pulsed: u64,
    pulse_at: Mono,
    /// The last change of a clock that it has noted.
    told: u64,
    claim: Option<Claim>,
    claim_at: Mono,
}

/// What was made to be told: to others, and to this node itself, which counts like any replica.
#[derive(Debug, Default)]
struct Told {
    effects: Vec<Effect>,
    own: Vec<(Partition, Claimed)>,
}

/// What is to be told to whom.
#[derive(Debug)]
pub(super) struct Claims {
    seen: Changes<(Partition, Actor)>,
    own: Changes<Partition>,
    listeners: BTreeMap<NodeId, Listener>,
    /// Messages that wait until the disk has come to this number.
    waiting: Option<(u64, Told)>,
    due: Option<Mono>,
}

impl Claims {
    pub(super) const fn new() -> Claims {
        Claims {
            seen: Changes::new(),
            own: Changes::new(),
            listeners: BTreeMap::new(),
            waiting: None,
            due: None,
        }
    }

    /// A batch is committed.
    pub(super) fn committed(&mut self, entries: &[LogEntry], actor: Actor) {
        for entry in entries {
            self.seen.note((entry.partition, entry.dot.actor));
            if entry.dot.actor == actor {
                self.own.note(entry.partition);
            }
        }
        if !entries.is_empty() {
            self.due = Some(Mono(0));
        }
    }

    /// Accounts have changed.
    pub(super) fn learned(&mut self, changed: Vec<(Partition, Actor)>) {
        if !changed.is_empty() {
            changed.into_iter().for_each(|change| self.seen.note(change));
            self.due = Some(Mono(0));
        }
    }

    /// Claims count under one layout: all is told anew.
    pub(super) fn start_layout(&mut self) {
        self.listeners.values_mut().for_each(|it| (it.told, it.claim) = (0, None));
        self.waiting = None;
        self.due = Some(Mono(0));
    }

    /// Clocks were loaded, or are vouched for from now on: all of it is to be told.
    pub(super) fn loaded(&mut self, partition: Partition, actors: impl Iterator<Item = Actor>) {
        actors.for_each(|actor| self.seen.note((partition, actor)));
        self.own.settle();
        if self.own.numbers.contains_key(&partition) {
            self.own.note(partition);
        }
        self.due = Some(Mono(0));
    }

    /// A new run begins to count from 1.
    pub(super) fn start_run(&mut self) {
        self.own = Changes::new();
        self.listeners.values_mut().for_each(|listener| listener.pulsed = 0);
    }

    /// A node can be reached: it may be another run, and is told everything.
    pub(super) fn up(&mut self, node: NodeId) {
        if let Some(listener) = self.listeners.get_mut(&node) {
            (listener.pulsed, listener.told, listener.claim) = (0, 0, None);
            (listener.pulse_at, listener.claim_at) = (Mono(0), Mono(0));
            self.due = Some(Mono(0));
        }
    }

    /// When something is to be told.
    pub(super) fn due(&self) -> Option<Mono> {
        self.due
    }

    /// Gives the time after which a part of a claim was noted, the first time.
    fn noted(&mut self, from: NodeId, op: OpId, (shard, shards): (u16, u16)) -> Option<Mono> {
        let listener = self.listeners.get_mut(&from)?;
        let claim = listener.claim.as_mut().filter(|claim| claim.op == op)?;
        let before = claim.partitions.len();
        claim.partitions.retain(|p| shard_of(*p, shards.into()) != usize::from(shard));
        let sent = claim.sent;
        let is_new = claim.partitions.len() < before;
        if claim.partitions.is_empty() {
            listener.told = claim.upto;
            listener.claim = None;
            if self.seen.has_after(listener.told) {
                self.due = Some(Mono(0));
            }
        }
        is_new.then_some(sent)
    }
}

impl Shard {
    /// Which nodes hold the same partitions, as the layout has it now.
    pub(super) fn find_listeners(&mut self) {
        let Some(layout) = &self.cluster.layout else { return };
        let mut shared: BTreeMap<NodeId, BTreeSet<Partition>> = BTreeMap::new();
        for &partition in self.partitions.keys() {
            // This node is one of them.
            let replicas = layout.replicas(partition).iter();
            replicas.for_each(|&node| _ = shared.entry(node).or_default().insert(partition));
        }
        let listener = |(node, partitions): (NodeId, BTreeSet<Partition>)| {
            let near = layout.region_of(node) == self.region;
            let (pulse_at, claim_at) = (Mono(0), Mono(0));
            let listener =
                Listener { near, partitions, pulsed: 0, pulse_at, told: 0, claim: None, claim_at };
            (node, listener)
        };
        let mut before = std::mem::take(&mut self.claims.listeners);
        let same = |(node, new): (NodeId, Listener)| match before.remove(&node) {
            Some(old) if old.partitions == new.partitions && old.near == new.near => (node, old),
            _ => (node, new),
        };
        self.claims.listeners = shared.into_iter().map(listener).map(same).collect();
        self.claims.due = Some(Mono(0));
    }

    /// Between two batches: tells what is due, if it is durable.
    pub(super) fn tell<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.claims.due.is_none_or(|due| due > now) || !self.is_sound() {
            return;
        }
        if let Some((number, _)) = &self.claims.waiting {
            if turn.store.durable() < *number {
                self.claims.due = Some(now.plus_ms(self.config.pulse_ms));
                return;
            }
            if let Some((_, told)) = self.claims.waiting.take() {
                self.tell_now(told, turn);
            }
        }
        let mut told = Told::default();
        let mut next = None;
        let nodes = self.claims.listeners.keys().copied();
        let me = self.boot.node;
        let up: Vec<NodeId> = nodes.filter(|&n| n == me || self.peers.is_up(n)).collect();
        for node in up {
            if node == me {
                next = [next, self.claim_to_self(now, &mut told)].into_iter().flatten().min();
                continue;
            }
            let pulse = self.pulse_if_due(node, turn, &mut told.effects);
            let claim = self.claim_if_due(node, turn, &mut told.effects);
            next = [next, pulse, claim].into_iter().flatten().min();
        }
        self.claims.due = next;
        let number = turn.store.committed();
        let is_all = told.effects.is_empty() && told.own.is_empty();
        if is_all || turn.store.durable() >= number {
            self.tell_now(told, turn);
        } else {
            self.claims.waiting = Some((number, told));
            self.claims.due = Some(now.plus_ms(self.config.pulse_ms));
        }
    }

    fn tell_now<S: Store>(&mut self, mut told: Told, turn: &mut Turn<'_, S>) {
        turn.out.append(&mut told.effects);
        for (partition, claimed) in told.own {
            self.stable.hear(partition, self.boot.node, &claimed);
        }
    }

    /// Whether what is in memory between two batches is what the disk has.
    pub(super) fn is_sound(&self) -> bool {
        matches!(self.stopped, None | Some(StoreFault::Full))
    }

    /// Says when to come back.
    fn pulse_if_due<S: Store>(
        &mut self,
        node: NodeId,
        turn: &mut Turn<'_, S>,
        effects: &mut Vec<Effect>,
    ) -> Option<Mono> {
        let now = turn.now.mono;
        let listener = self.claims.listeners.get_mut(&node)?;
        if !self.claims.own.has_after(listener.pulsed) {
            return None;
        }
        if listener.pulse_at > now {
            return Some(listener.pulse_at);
        }
        self.claims.own.settle();
        let mut counters = Vec::new();
        for (number, partition) in self.claims.own.after(listener.pulsed).take(PULSE_PARTITIONS) {
            listener.pulsed = number;
            let state = self.partitions.get(&partition);
            let serves = self.doubts.standing(partition) == Standing::Serves;
            let is_told = serves && listener.partitions.contains(&partition);
            if let Some(state) = state.filter(|_| is_told) {
                let own = state.clock().get(self.boot.actor);
                counters.push((partition, own.map_or(0, |own| own.prefix())));
            }
        }
        let every_ms = if listener.near { self.config.pulse_ms } else { self.config.pulse_wan_ms };
        listener.pulse_at = now.plus_ms(every_ms);
        let more = (self.claims.own.last > listener.pulsed).then_some(listener.pulse_at);
        if !counters.is_empty() {
            self.counters.pulses_sent += 1;
            // Between two batches nothing is open: what was written until now is told, if this is
            // the last of the pulses that tell it.
            let hlc = if more.is_none() { self.hlc.now(turn.now.wall.0) } else { Hlc(0) };
            let actor = self.boot.actor;
            let message = PeerMessage::Pulse { actor, hlc, counters };
            effects.push(Effect::Send { to: vec![node], message });
        }
        more
    }

    /// Says when to come back.
    fn claim_if_due<S: Store>(
        &mut self,
        node: NodeId,
        turn: &mut Turn<'_, S>,
        effects: &mut Vec<Effect>,
    ) -> Option<Mono> {
        let now = turn.now.mono;
        let late_ms = REPEAT_MS.max(2 * self.peers.late_after_us(node) / 1000);
        let listener = self.claims.listeners.get_mut(&node)?;
        if let Some(claim) = &listener.claim {
            let late = claim.sent.plus_ms(late_ms);
            if late > now {
                return Some(late);
            }
            listener.claim = None;
        }
        if !self.claims.seen.has_after(listener.told) {
            return None;
        }
        if listener.claim_at > now {
            return Some(listener.claim_at);
        }
        self.claims.seen.settle();
        let serving = (&self.partitions, &self.doubts);
        let (clocks, upto) = changes(&self.claims.seen, listener, serving, CLAIM_BYTES);
        if clocks.is_empty() {
            listener.told = upto;
            return (self.claims.seen.last > upto).then_some(now);
        }
        let is_all = upto == self.claims.seen.last;
        listener.claim_at = if is_all { now.plus_ms(self.config.seen_ms) } else { now };
        let partitions = clocks.keys().copied().collect();
        let op = self.new_op();
        let claim = Claim { op, upto, partitions, sent: now };
        self.claims.listeners.get_mut(&node)?.claim = Some(claim);
        self.counters.claims_sent += 1;
        let (run, layout) = (self.run, self.layout_version());
        let message = PeerMessage::Seen { op, run, layout, clocks: clocks.into_iter().collect() };
        effects.push(Effect::Send { to: vec![node], message });
        Some(now.plus_ms(late_ms))
    }

    /// What this node claims counts here when it is durable, as others' claims do. Says when to come
    /// back.
    fn claim_to_self(&mut self, now: Mono, told: &mut Told) -> Option<Mono> {
        let listener = self.claims.listeners.get_mut(&self.boot.node)?;
        if !self.claims.seen.has_after(listener.told) {
            return None;
        }
        if listener.claim_at > now {
            return Some(listener.claim_at);
        }
        self.claims.seen.settle();
        let serving = (&self.partitions, &self.doubts);
        let (clocks, upto) = changes(&self.claims.seen, listener, serving, usize::MAX);
        listener.told = upto;
        listener.claim_at = now.plus_ms(self.config.seen_ms);
        told.own.extend(clocks);
        None
    }

    /// A peer has taken in its part of a claim.
    pub(super) fn on_noted(&mut self, from: NodeId, op: OpId, part: (u16, u16), now: Mono) {
        if let Some(sent) = self.claims.noted(from, op, part) {
            self.peers.answered(from, sent, now);
        }
    }
}

/// What has changed of a listener's partitions since it was told last, up to about so many bytes, and
/// up to which change that is.
fn changes(
    seen: &Changes<(Partition, Actor)>,
    listener: &Listener,
    (partitions, doubts): (&BTreeMap<Partition, PartitionState>, &Doubts),
    bytes_max: usize,
) -> (BTreeMap<Partition, Claimed>, u64) {
    let mut clocks: BTreeMap<Partition, Claimed> = BTreeMap::new();
    let (mut upto, mut bytes) = (listener.told, 0);
    for (number, (partition, actor)) in seen.after(listener.told) {
        if bytes >= bytes_max {
            break;
        }
        upto = number;
        let state = partitions.get(&partition);
        let serves = doubts.standing(partition) == Standing::Serves;
        let is_told = serves && listener.partitions.contains(&partition);
        let Some(state) = state.filter(|_| is_told) else {
            continue;
        };
        // Also of actors that are folded away: who has an older disk may lack something of them.
        let seen = state.clock().seen_of(actor);
        if !seen.is_empty() {
            bytes += 24 + 4 * seen.ranges().len();
            let claimed = clocks.entry(partition).or_default();
            claimed.seen.merge_actor(actor, &seen);
            claimed.know.insert(Dot { actor, counter: state.knows(actor) });
        }
    }
    (clocks, upto)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what has changed since is told once, behind what had changed before. Method: changes between
    /// looks, of the same thing and of others.
    #[test]
    fn changes_are_numbered_by_the_last() {
        let mut changes = Changes::new();
        let mut note = |keys: &str| {
            let before = changes.last;
            keys.chars().for_each(|key| changes.note(key));
            assert_eq!(changes.has_after(before), !keys.is_empty());
            changes.settle();
            (before, changes.after(0).map(|(_, key)| key).collect::<String>())
        };
        assert_eq!(note("ab"), (0, "ab".to_owned()));
        assert_eq!(note("acca"), (2, "bac".to_owned()));
        assert_eq!(note(""), (4, "bac".to_owned()));
        assert_eq!(note("b"), (4, "acb".to_owned()));
        assert_eq!(changes.after(4).map(|(_, key)| key).collect::<String>(), "b");
        (0..2 * FRESH_MAX).for_each(|at| changes.note(['d', 'e'][at % 2]));
        assert!(changes.fresh.len() < FRESH_MAX, "bounded");
        changes.settle();
        assert_eq!(changes.after(0).map(|(_, key)| key).collect::<String>(), "acbde");
    }
}
