//! The referee: gathers what clients are told and what replicas hold, and calls the rules.
//!
//! The first violation is kept; the run then ends.

mod disks;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use holm_core::clock::IntervalSet;
use holm_core::context::ContextSecrets;
use holm_core::layout::Layout;
use holm_core::object::{Object, State};
use holm_core::peer::{Claimed, GapObject, HintMessage, PageObject, PeerMessage};
use holm_protocol::dot::Dot;
use holm_protocol::error::Outcome as Told;
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Reply, Values, Written};
use holm_protocol::version_vector::VersionVector;

use crate::check::{
    Verdict, Violation, answers, converged, dots, elements, forged, gone, kept, latest, names,
    quarantine, quorum_reads, receipts, values,
};
use crate::cluster::CallResult;
use crate::history::{Answer, Event, EventId, EventSet, History, KeyId, Outcome};

/// How calls ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutcomeTally {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that certainly did not happen.
    pub not_done: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that were not.
    pub reads_failed: u64,
    /// Most siblings in one answer.
    pub siblings_max: u64,
    /// Writes repeated under their request id.
    pub repeats: u64,
    /// Those of them that were repeated at another node, or at another run of one.
    pub repeats_elsewhere: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Referee {
    history: History,
    layout: Arc<Layout>,
    /// The layout before, which some nodes may still act on.
    layout_before: Option<Arc<Layout>>,
    /// Whether buckets have no fallbacks.
    strict: bool,
    secrets: ContextSecrets,
    answers: Vec<Answer>,
    /// The contexts that writers got back.
    writers: Vec<(EventId, VersionVector)>,
    /// What nodes have claimed, over all their runs: prefixes of what they have seen, and what they know
    /// to be stable.
    claimed: BTreeMap<(NodeId, Partition), (VersionVector, VersionVector)>,
    /// Nodes that lost their memory, when, microseconds, and of what they have it again.
    forgot: BTreeMap<NodeId, (u64, BTreeSet<Partition>)>,
    violation: Option<Violation>,
    tally: OutcomeTally,
}

impl Referee {
    /// Before anything has happened.
    #[must_use]
    pub fn new(layout: Arc<Layout>, secrets: ContextSecrets) -> Referee {
        Referee {
            history: History::new(),
            layout,
            layout_before: None,
            strict: false,
            secrets,
            answers: Vec::new(),
            writers: Vec::new(),
            claimed: BTreeMap::new(),
            forgot: BTreeMap::new(),
            violation: None,
            tally: OutcomeTally::default(),
        }
    }

    /// A referee of processes whose disks it cannot look at.
    #[must_use]
    pub fn of_processes(layout: Arc<Layout>, secrets: ContextSecrets) -> Referee {
        let mut referee = Referee::new(layout, secrets);
        referee.history.see_no_disks();
        referee
    }

    /// Whether buckets have no fallbacks.
    pub fn set_strict(&mut self, strict: bool) {
        self.strict = strict;
    }

    /// A node claims this of a partition.
    pub fn claims(&mut self, node: NodeId, partition: Partition, claimed: &Claimed) {
        let (seen, know) = self.claimed.entry((node, partition)).or_default();
        seen.merge(&claimed.seen.prefixes());
        know.merge(&claimed.know);
    }

    /// Another layout is in force.
    pub fn set_layout(&mut self, layout: Arc<Layout>) {
        self.layout_before = Some(std::mem::replace(&mut self.layout, layout));
    }

    /// The layouts that nodes may act on.
    fn layouts(&self) -> impl Iterator<Item = &Layout> {
        std::iter::once(&*self.layout).chain(self.layout_before.as_deref())
    }

    /// A node hands over what it knows to be stable, with the partition, and claims nothing. So it has seen
    /// that: its own seen counted when it was concluded, maybe before it was told to anybody.
    pub fn vouches(&mut self, node: NodeId, partition: Partition, seen: &VersionVector) {
        self.claimed.entry((node, partition)).or_default().0.merge(seen);
    }

    /// What every replica of a partition has claimed to know to be stable.
    fn stable(&self, partition: Partition) -> VersionVector {
        let know = |&node: &NodeId| {
            let claimed = self.claimed.get(&(node, partition));
            claimed.map(|(_, know)| know.clone()).unwrap_or_default()
        };
        let mut stable = VersionVector::default();
        for layout in self.layouts() {
            let known = layout.replicas(partition).iter().map(know);
            stable.merge(&known.reduce(|one, other| least(&one, &other)).unwrap_or_default());
        }
        stable
    }

    /// What all other replicas of a partition have claimed: to have seen, each; to know, all.
    fn claimed_by_others(
        &self,
        node: NodeId,
        (layout, partition): (&Layout, Partition),
    ) -> (Vec<(NodeId, VersionVector)>, Option<VersionVector>) {
        let others = layout.replicas(partition).iter().filter(|&&other| other != node);
        let of = |&other: &NodeId| {
            (other, self.claimed.get(&(other, partition)).cloned().unwrap_or_default())
        };
        let claimed: Vec<_> = others.map(of).collect();
        let known = claimed
            .iter()
            .map(|(_, (_, know))| know.clone())
            .reduce(|one, other| least(&one, &other));
        (claimed.into_iter().map(|(other, (seen, _))| (other, seen)).collect(), known)
    }

    /// What clients asked and were told.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How calls ended.
    #[must_use]
    pub fn tally(&self) -> OutcomeTally {
        self.tally
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Takes in what a check says.
    pub fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    /// Names a key.
    pub fn add_key(&mut self, bucket: BucketId, name: Bytes, is_lww: bool) -> KeyId {
        let placement = holm_protocol::ids::PlacementId(0);
        let partition = self.layout.partition(placement, bucket, &name);
        let partition = partition.unwrap_or(Partition::from_u32(0));
        self.history.add_key((bucket, name), partition, is_lww)
    }

    /// A client is about to write, with the context of an earlier answer. The value is made from
    /// the write's number, so that it is unique.
    pub fn begin_write(
        &mut self,
        key: KeyId,
        value: impl FnOnce(EventId) -> Option<Bytes>,
        context: &Bytes,
        (level, now_us): (Level, u64),
    ) -> (EventId, Option<Bytes>) {
        let saw = self.history.shown_with(key, context);
        let value = value(EventId(self.history.len()));
        (self.history.begin(key, value.clone(), saw, (level, now_us)), value)
    }

    /// Somebody is about to write with a context that was not given out for this key. Nothing of it
    /// may ever be seen.
    pub fn begin_forged(
        &mut self,
        key: KeyId,
        value: impl FnOnce(EventId) -> Bytes,
        (level, now_us): (Level, u64),
    ) -> (EventId, Bytes) {
        let value = value(EventId(self.history.len()));
        let saw = EventSet::default();
        let id = self.history.begin(key, Some(value.clone()), saw, (level, now_us));
        self.history.event_mut(id).outcome = Outcome::NotDone;
        (id, value)
    }

    /// What became of such a write.
    pub fn forged_told(&mut self, id: EventId, result: &CallResult) {
        let verdict = forged::check(&self.history, id, result);
        self.judge(verdict);
    }

    /// A node has lost its memory, and must not answer for it from now on.
    pub fn forgets(&mut self, node: NodeId, now_us: u64) {
        self.forgot.entry(node).or_insert((now_us, BTreeSet::new()));
    }

    /// Such a node has taken a partition from others.
    pub fn recovers(&mut self, node: NodeId, partition: Partition) {
        if let Some((_, has)) = self.forgot.get_mut(&node) {
            has.insert(partition);
        }
    }

    /// Which nodes must not answer for a partition, and since when. A fallback may: it vouches for
    /// nothing but its hints, and its receipts say so.
    fn without(&self, partition: Partition) -> BTreeMap<NodeId, u64> {
        let lacks = self.forgot.iter().filter(|(node, (_, has))| {
            self.layout.is_replica(partition, **node) && !has.contains(&partition)
        });
        lacks.map(|(&node, &(at_us, _))| (node, at_us)).collect()
    }

    /// A node got another disk, or has taken what it lost from others: whether it has lost its memory now.
    pub fn comes_back(&mut self, node: NodeId, has_forgotten: bool, now_us: u64) {
        self.forgot.remove(&node);
        if has_forgotten {
            self.forgets(node, now_us);
        }
    }

    /// A client repeats a write.
    pub fn repeats(&mut self) {
        self.tally.repeats += 1;
    }

    /// A client repeats a write elsewhere, where nobody may know of it: it may be done once more.
    pub fn repeats_elsewhere(&mut self, id: EventId, now_us: u64) {
        self.tally.repeats_elsewhere += 1;
        self.history.begin_again(id, now_us);
    }

    /// A client was told what became of one try of its write.
    pub fn write_told(&mut self, id: EventId, now_us: u64, result: &CallResult) {
        if let CallResult::Reply(Reply::Written(written)) = result {
            self.acknowledged(id, now_us, written);
        }
    }

    /// A client is done with a write. `is_undone` if each try certainly did nothing.
    pub fn end_write(&mut self, id: EventId, is_undone: bool) {
        let tries: Vec<EventId> = self.history.tries(id).map(|(id, _)| id).collect();
        let is_acknowledged =
            |&id: &EventId| self.history.event(id).outcome == Outcome::Acknowledged;
        match tries.iter().any(is_acknowledged) {
            true => self.tally.acknowledged += 1,
            false if is_undone => self.tally.not_done += 1,
            false => self.tally.unknown += 1,
        }
        for id in tries {
            let event = self.history.event_mut(id);
            match event.outcome {
                Outcome::Acknowledged => {}
                _ if is_undone => {
                    event.outcome = Outcome::NotDone;
                    // Its effect may have been seen before its writer was told.
                    if event.dot.is_some() {
                        let place = "a replica or a message";
                        let verdict = values::may_be_seen(&self.history, id, place);
                        self.judge(verdict);
                    }
                }
                _ => event.outcome = Outcome::Unknown,
            }
        }
    }

    fn acknowledged(&mut self, id: EventId, now_us: u64, written: &Written) {
        let verdict = dots::learn(&mut self.history, id, written.dot);
        self.judge(verdict);
        let id = self.try_with(id, written.dot);
        let region = self.layout.region_of(written.receipt.coordinator);
        let event = self.history.event_mut(id);
        event.outcome = Outcome::Acknowledged;
        event.hlc = Some(written.hlc);
        event.region = region;
        if event.acknowledged_us.is_none() {
            event.acknowledged_us = Some(now_us);
        }
        let named = written.receipt.replicas.iter();
        event.durable.extend(named.filter(|entry| !entry.fallback).map(|entry| entry.node));
        let (key, level, asked_us) = (event.key, event.level, event.asked_us);
        let mut shown = event.saw.clone();
        let place = event.place;
        for entry in written.receipt.replicas.iter().filter(|entry| entry.fallback) {
            self.history.acknowledged_by_fallback(id, entry.node);
        }
        let partition = self.history.key(key).partition;
        let asked = (level, self.strict);
        let verdict = receipts::check(&self.layout, partition, asked, &written.receipt);
        self.judge(verdict);
        let without = self.without(partition);
        self.judge(quarantine::check(&without, asked_us, &written.receipt, false));
        // What a writer may overwrite next: its own write, and what it had seen.
        let covers = self.open(key, &written.context);
        if covers.covers(written.dot) {
            shown.insert(place);
        }
        self.history.give(key, &written.context, &shown);
        let stable = self.stable(partition);
        let verdict = answers::check_writer(&self.history, id, &covers, &stable);
        self.judge(verdict);
        self.writers.push((id, covers));
    }

    /// A client was told what a key holds, or that it cannot be read.
    pub fn read_told(&mut self, key: KeyId, level: Level, asked_us: u64, result: &CallResult) {
        let CallResult::Reply(Reply::Values(values)) = result else {
            self.tally.reads_failed += 1;
            return;
        };
        self.tally.reads += 1;
        self.tally.siblings_max = self.tally.siblings_max.max(values.siblings.len() as u64);
        let covers = self.open(key, &values.context);
        let verdict = self.check_read(key, level, values);
        self.judge(verdict);
        let partition = self.history.key(key).partition;
        let without = self.without(partition);
        self.judge(quarantine::check(&without, asked_us, &values.receipt, true));
        let shown = values.siblings.iter();
        let ids = shown.filter_map(|sibling| self.history.by_dot(partition, sibling.dot));
        let set = self.history.shown_by(ids);
        self.history.give(key, &values.context, &set);
        let shown = values.siblings.iter().map(|sibling| sibling.dot).collect();
        let answer = Answer { key, shown, covers: covers.clone(), asked_us };
        let verdict = answers::check(&self.history, &answer);
        self.judge(verdict);
        let shown = answer.shown.clone();
        self.answers.push(answer);
        // It says itself that it was answered from hints: it met nobody's quorum.
        if values.receipt.replicas.iter().any(|entry| entry.fallback) {
            return;
        }
        let Some(region) = self.layout.region_of(values.receipt.coordinator) else { return };
        let included = values.receipt.replicas.iter().map(|entry| entry.node).collect();
        let read = quorum_reads::Read { key, asked_us, level, region, included, shown, covers };
        let verdict = quorum_reads::check(&self.history, &self.layout, &read);
        self.judge(verdict);
    }

    fn check_read(&mut self, key: KeyId, level: Level, values: &Values) -> Verdict {
        let partition = self.history.key(key).partition;
        receipts::check(&self.layout, partition, (level, self.strict), &values.receipt)?;
        let seen = values.siblings.iter().map(|s| (s.dot, s.hlc, &s.value));
        for (dot, hlc, value) in seen {
            self.learn_value(key, (dot, hlc), value, "an answer")?;
        }
        Ok(())
    }

    fn learn_value(
        &mut self,
        key: KeyId,
        (dot, hlc): (Dot, Hlc),
        value: &Bytes,
        place: &str,
    ) -> Verdict {
        let id = values::writer_of(&self.history, key, value, place)?;
        dots::learn(&mut self.history, id, dot)?;
        let id = self.try_with(id, dot);
        self.history.event_mut(id).hlc = Some(hlc);
        Ok(())
    }

    /// The try of a write that has this dot.
    fn try_with(&self, id: EventId, dot: Dot) -> EventId {
        let has = |(_, event): &(EventId, &Event)| event.dot == Some(dot);
        self.history.tries(id).find(has).map_or(id, |(id, _)| id)
    }

    /// What a client's context covers.
    fn open(&mut self, key: KeyId, context: &Bytes) -> VersionVector {
        let Key { bucket, name } = self.key_of(key);
        match self.secrets.open(bucket, &name, context) {
            Ok(covers) => covers,
            Err(error) => {
                let how = format!("context of {}: {error}", String::from_utf8_lossy(&name));
                self.judge(Err(Violation::new(&answers::CONTEXT_GENUINE, how)));
                VersionVector::new()
            }
        }
    }

    fn key_of(&self, key: KeyId) -> Key {
        let key = self.history.key(key);
        Key { bucket: key.bucket, name: key.name.clone() }
    }

    /// A message arrived: learns the dots of the values in it.
    pub fn delivered(&mut self, message: &PeerMessage) {
        match message {
            PeerMessage::Write { bucket, key, object, .. }
            | PeerMessage::Repair { bucket, key, object, .. }
            | PeerMessage::Hint(
                HintMessage::Keep { bucket, key, object, .. }
                | HintMessage::HandOff { bucket, key, object, .. },
            ) => {
                self.delivered_object(*bucket, key, object);
            }
            PeerMessage::GapAnswer { objects, .. } => {
                for GapObject { bucket, key, object, .. } in objects {
                    self.delivered_object(*bucket, key, object);
                }
            }
            PeerMessage::PageAnswer { objects, .. } => {
                for PageObject { bucket, key, object } in objects {
                    self.delivered_object(*bucket, key, object);
                }
            }
            _ => {}
        }
    }

    fn delivered_object(&mut self, bucket: BucketId, key: &Bytes, object: &Bytes) {
        let Some(key) = self.history.key_id(bucket, key) else { return };
        if let Ok(object) = Object::decode(object) {
            let verdict = self.saw_object(key, &object, "a message");
            self.judge(verdict);
        }
    }

    /// A node's hint for a replica changed. `kept` is what the node keeps of the key now, for anyone.
    pub fn hint_changed(
        &mut self,
        (node, replica): (NodeId, NodeId),
        key: KeyId,
        (before, after): (&VersionVector, &VersionVector),
        kept: &[VersionVector],
        now_us: u64,
    ) {
        self.history.regain(node, key, after, now_us);
        if after.is_empty() {
            self.history.went_home((node, replica), key, (before, kept), now_us);
        }
    }

    fn saw_object(&mut self, key: KeyId, object: &Object, place: &str) -> Verdict {
        for sibling in object.siblings() {
            self.learn_value(key, (sibling.dot, sibling.hlc), &sibling.value, place)?;
        }
        Ok(())
    }

    /// Nodes have learned which dots an actor of a run that ended has.
    pub fn closed(&mut self, (partition, actor): (Partition, Actor), dots: &IntervalSet) {
        self.history.close(partition, actor, dots);
    }

    /// These nodes have a write and cannot be read.
    pub fn set_aside(&mut self, id: EventId, nodes: &[NodeId]) {
        self.history.event_mut(id).lost.extend(nodes);
    }

    /// Checks that the replicas of a key are equal.
    pub fn check_converged(&mut self, key: KeyId, replicas: &[(NodeId, Object)]) {
        let name = String::from_utf8_lossy(&self.history.key(key).name).into_owned();
        self.judge(converged::check(&name, replicas));
    }

    /// Checks a key at the end, on all its replicas that hold what they promised.
    pub fn check_final(&mut self, key: KeyId, replicas: &[(NodeId, Object)]) {
        let verdict = self.final_verdict(key, replicas);
        self.judge(verdict);
    }

    fn final_verdict(&mut self, key: KeyId, replicas: &[(NodeId, Object)]) -> Verdict {
        let name = String::from_utf8_lossy(&self.history.key(key).name).into_owned();
        converged::check(&name, replicas)?;
        let Some((node, object)) = replicas.first() else { return Ok(()) };
        self.saw_object(key, object, &node.to_string())?;
        let live: Vec<Dot> = object.siblings().iter().map(|sibling| sibling.dot).collect();
        let covers = self.history.with_forgotten(key, &object.context);
        kept::check(&self.history, key, &live, &covers)?;
        gone::check(&self.history, key, &live)?;
        if let State::Latest(entry) = &object.state {
            let dot = object.live_dots().next();
            latest::check(&self.history, key, entry.hlc().map(|hlc| (hlc, dot)))?;
        }
        let siblings: Vec<Bytes> = object.siblings().iter().map(|s| s.value.clone()).collect();
        elements::check(&self.history, key, &siblings)
    }

    /// Checks everything that was said, with all that is known at the end.
    pub fn check_history(&mut self) {
        let mut verdict = values::nothing_undone_was_seen(&self.history);
        for answer in &self.answers {
            verdict = verdict
                .and_then(|()| answers::check(&self.history, answer))
                .and_then(|()| names::check(&self.history, answer.key, &answer.covers));
        }
        for (id, covers) in &self.writers {
            let key = self.history.event(*id).key;
            verdict = verdict
                .and_then(|()| {
                    let stable = self.stable(self.history.key(key).partition);
                    answers::check_writer(&self.history, *id, covers, &stable)
                })
                .and_then(|()| names::check(&self.history, key, covers));
        }
        self.judge(verdict);
    }
}

/// Per actor the lesser counter.
fn least(one: &VersionVector, other: &VersionVector) -> VersionVector {
    let both = |dot: Dot| Dot { counter: dot.counter.min(other.get(dot.actor)), ..dot };
    one.iter().map(both).collect()
}

/// A key's name, by value.
#[derive(Debug)]
struct Key {
    bucket: BucketId,
    name: Bytes,
}

/// Whether a result says that this try of a write certainly did nothing.
#[must_use]
pub fn is_undone(result: &CallResult) -> bool {
    match result {
        CallResult::Reply(Reply::Error(error)) => error.outcome() == Told::NothingHappened,
        CallResult::NotSent => true,
        CallResult::Reply(_) | CallResult::Disconnected => false,
    }
}
