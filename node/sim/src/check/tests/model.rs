//! A database that cannot fail, and a case: all that the checks could be told of a run of it.
//!
//! Slow and obvious: a replica is a set of events; what is alive is what no event in the set saw.
//! Objects, contexts and clocks are written down from such sets, not by the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use holm_core::clock::{IntervalSet, PartitionClock};
use holm_core::layout::Layout;
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::shard::config::Standing;
use holm_core::shard::event::{Counters, Violation as Found};
use holm_core::shard::log::LogEntry;
use holm_protocol::dot::Dot;
use holm_protocol::error::{ContextFault, RequestError};
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::message::{Receipt, ReceiptEntry, Reply, Values};
use holm_protocol::version_vector::VersionVector;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::check::durable::Copy;
use crate::check::elements;
use crate::check::ends::Progress;
use crate::check::equal_clocks::LiveDots;
use crate::check::quorum_reads::Read;
use crate::cluster::CallResult;
use crate::history::{Answer, EventId, EventSet, History, KeyId, Learned, Outcome};
use crate::plan::{Shape, pick};
use crate::rng::stream;
use crate::sim::{Report, Sim};

/// Replicas of the one partition, nodes 1 to 3.
const REPLICAS: u64 = 3;
/// Things that happen in a case.
const STEPS: usize = 14;

/// One replica's change of an object.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) before: Object,
    pub(super) after: Object,
}

/// What is said of a node's standing.
#[derive(Debug, Clone)]
pub(super) struct Standings {
    /// It serves, and has asked another replica since it started.
    pub(super) has_asked: bool,
    /// It lacks what is known to be stable, and serves.
    pub(super) lacks_and_goes_on: bool,
    /// Who does not serve in the end.
    pub(super) left: Vec<(NodeId, Partition, Standing)>,
}

/// Everything that checks are told.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) layout: Arc<Layout>,
    pub(super) history: History,
    /// The key of siblings, which all are sets, and the one where the last writer wins.
    pub(super) key: KeyId,
    /// Nothing is deleted, so that the sets lose nothing.
    pub(super) only_adds: bool,
    pub(super) latest: KeyId,
    pub(super) learned: Vec<(EventId, Dot)>,
    pub(super) values: Vec<(KeyId, Bytes)>,
    pub(super) answers: Vec<Answer>,
    pub(super) writers: Vec<(EventId, VersionVector)>,
    pub(super) receipts: Vec<(Level, Receipt)>,
    pub(super) reads: Vec<(Read, Receipt)>,
    pub(super) forged: Vec<(EventId, CallResult)>,
    pub(super) copies: Vec<(EventId, Vec<(NodeId, Copy)>)>,
    /// Hints that went: what they covered, what is left of that, what was at home.
    pub(super) hints: Vec<(VersionVector, VersionVector, Copy)>,
    pub(super) hints_left: usize,
    pub(super) forgot: BTreeMap<NodeId, u64>,
    /// Asked, ended, allowed, microseconds.
    pub(super) calls: Vec<(u64, u64, u64)>,
    pub(super) changes: Vec<Changed>,
    pub(super) logs: Vec<(LogEntry, VersionVector)>,
    pub(super) clocks: Vec<(NodeId, PartitionClock, Object)>,
    pub(super) counters: Counters,
    /// The final states, by replica.
    pub(super) replicas: Vec<(NodeId, Object)>,
    /// The clocks of all replicas in the end.
    pub(super) final_clocks: Vec<(NodeId, PartitionClock)>,
    /// What nodes claimed to have, and what was safe there.
    pub(super) claims: Vec<(Dot, VersionVector)>,
    /// What verifications found.
    pub(super) found: Vec<(NodeId, Found)>,
    /// What nodes learned that actors of runs that ended have.
    pub(super) decisions: Vec<(Actor, IntervalSet)>,
    /// Where a node stood that started.
    pub(super) standings: Standings,
    /// Actors that have left all clocks.
    pub(super) ended: Vec<Actor>,
    /// What a node knows to be stable, what the others claimed to have seen, and what is stable in the
    /// end.
    pub(super) know: VersionVector,
    pub(super) claimed: Vec<(NodeId, VersionVector)>,
    pub(super) stable: VersionVector,
    pub(super) winner: Option<(Hlc, Option<Dot>)>,
    pub(super) progress: Progress,
    /// Answers to the reads after faults.
    pub(super) last_reads: Vec<Option<CallResult>>,
    pub(super) panic: Option<String>,
    pub(super) runs: (Report, Report),
}

/// An answer that a client holds: what it showed and what its context covers.
#[derive(Debug, Clone, Default)]
struct Held {
    shown: BTreeSet<EventId>,
    set: EventSet,
    covered: BTreeSet<EventId>,
}

/// The database while a case is made.
struct Model {
    case: Case,
    rng: ChaCha8Rng,
    /// What each replica includes of the siblings key.
    states: BTreeMap<u64, BTreeSet<EventId>>,
    counters: BTreeMap<u64, u64>,
    held: Vec<Held>,
    now_us: u64,
}

/// A case without a fault in it.
pub(super) fn good(seed: u64) -> Case {
    let mut model = Model {
        case: empty(),
        rng: stream(seed, "case"),
        states: (1..=REPLICAS).map(|node| (node, BTreeSet::new())).collect(),
        counters: BTreeMap::new(),
        held: vec![Held::default()],
        now_us: 0,
    };
    model.case.only_adds = seed.is_multiple_of(2);
    for _ in 0..STEPS {
        model.now_us += 1_000;
        match model.rng.random_range(0..10) {
            0..=3 => model.write(),
            4..=5 => model.spread(),
            6 => model.write_latest(),
            _ => model.read(),
        }
    }
    model.finish()
}

fn empty() -> Case {
    static ONCE: OnceLock<(Arc<Layout>, Report)> = OnceLock::new();
    let (layout, report) = ONCE.get_or_init(|| {
        let shape = Shape { regions: vec![(3, 3)], zones: 0, bits: 0, shards: 1 };
        (Arc::new(shape.layout()), Sim::run_seed(1))
    });
    let mut history = History::new();
    let name = |name| (BucketId(1), Bytes::from_static(name));
    let key = history.add_key(name(b"set"), Partition::from_u32(0), false);
    let latest = history.add_key(name(b"latest"), Partition::from_u32(0), true);
    Case {
        layout: layout.clone(),
        history,
        key,
        only_adds: false,
        latest,
        learned: vec![],
        values: vec![],
        answers: vec![],
        writers: vec![],
        receipts: vec![],
        reads: vec![],
        forged: vec![],
        copies: vec![],
        hints: vec![],
        hints_left: 0,
        forgot: BTreeMap::new(),
        calls: vec![],
        changes: vec![],
        logs: vec![],
        clocks: vec![],
        counters: Counters::default(),
        replicas: vec![],
        final_clocks: vec![],
        claims: vec![],
        found: vec![],
        decisions: vec![],
        standings: Standings { has_asked: true, lacks_and_goes_on: false, left: vec![] },
        ended: vec![],
        know: VersionVector::new(),
        claimed: vec![],
        stable: VersionVector::new(),
        winner: None,
        progress: Progress { steps: report.steps, steps_max: 3_000_000, busy: 0 },
        last_reads: vec![],
        panic: None,
        runs: (report.clone(), report.clone()),
    }
}

impl Case {
    /// What is alive of a set of events.
    fn live(&self, of: &BTreeSet<EventId>) -> BTreeSet<EventId> {
        let has_value = |id: &&EventId| self.history.event(**id).value.is_some();
        let is_seen = |id: &EventId| of.iter().any(|&by| self.history.saw(by, *id));
        of.iter().filter(has_value).copied().filter(|id| !is_seen(id)).collect()
    }

    fn vector(&self, of: &BTreeSet<EventId>) -> VersionVector {
        of.iter().filter_map(|&id| self.history.event(id).dot).collect()
    }

    fn clock(&self, of: &BTreeSet<EventId>) -> PartitionClock {
        let mut clock = PartitionClock::new();
        let dots = of.iter().filter_map(|&id| self.history.event(id).dot);
        dots.for_each(|dot| _ = clock.insert(dot));
        clock
    }

    fn object(&self, of: &BTreeSet<EventId>) -> Object {
        let mut object = Object::new(ObjectKind::Siblings);
        let live = self.live(of);
        let mut live: Vec<_> = live.iter().map(|&id| self.history.event(id)).collect();
        live.sort_by_key(|event| event.dot);
        for event in live {
            let (Some(dot), Some(value)) = (event.dot, &event.value) else { continue };
            object.put(&VersionVector::new(), Sibling::new(dot, Hlc(1), value.clone()));
        }
        object.context.merge(&self.vector(of));
        object
    }

    fn receipt(&self, level: Level, nodes: &[NodeId]) -> Receipt {
        let entry = |&node: &NodeId| ReceiptEntry { node, region: RegionId(0), fallback: false };
        Receipt { coordinator: nodes[0], level, replicas: nodes.iter().map(entry).collect() }
    }
}

impl Model {
    fn node(&mut self) -> u64 {
        self.rng.random_range(1..=REPLICAS)
    }

    fn next_dot(&mut self, node: u64) -> Dot {
        let counter = self.counters.entry(node).or_default();
        *counter += 1;
        Dot { actor: Actor(node), counter: *counter }
    }

    /// One replica or a majority, and the level that is met.
    fn quorum(&mut self, first: u64) -> (Level, Vec<u64>) {
        match self.rng.random() {
            true => (Level::One, vec![first]),
            false => (Level::Quorum, vec![first, first % REPLICAS + 1]),
        }
    }

    /// A put, blind or after an earlier answer, or a delete. It may be acknowledged, not be done, or
    /// stay unknown, with or without an effect.
    fn write(&mut self) {
        let at = self.rng.random_range(0..self.held.len());
        let held = self.held[at].clone();
        let coordinator = self.node();
        let (level, nodes) = self.quorum(coordinator);
        let may_delete = !self.case.only_adds && !held.shown.is_empty();
        let is_delete = may_delete && self.rng.random_range(0..4) == 0;
        let (case, asked_us) = (&mut self.case, self.now_us);
        let id = EventId(case.history.len());
        let value = (!is_delete).then(|| {
            let shown = held.shown.iter().filter_map(|&id| case.history.event(id).value.as_ref());
            let mut elements: BTreeSet<usize> = shown.flat_map(|v| elements::decode(v)).collect();
            elements.insert(id.0);
            elements::encode(id, &elements)
        });
        case.values.extend(value.clone().map(|value| (case.key, value)));
        case.history.begin(case.key, value, held.set.clone(), (level, asked_us));
        let fate = self.rng.random_range(0..10);
        if fate < 2 {
            let outcome = if fate == 0 { Outcome::NotDone } else { Outcome::Unknown };
            self.case.history.event_mut(id).outcome = outcome;
            return;
        }
        let dot = self.next_dot(coordinator);
        assert_eq!(self.case.history.learn(id, dot), Learned::Fits);
        self.case.learned.push((id, dot));
        let covered: BTreeSet<EventId> = held.covered.iter().copied().chain([id]).collect();
        self.include(coordinator, &covered);
        if fate == 2 {
            self.case.history.event_mut(id).outcome = Outcome::Unknown;
            return;
        }
        let state = self.states[&coordinator].clone();
        nodes.iter().for_each(|&node| self.include(node, &state));
        self.acknowledge(id, (level, &nodes), held, covered);
    }

    fn acknowledge(
        &mut self,
        id: EventId,
        (level, nodes): (Level, &[u64]),
        held: Held,
        covered: BTreeSet<EventId>,
    ) {
        let nodes: Vec<NodeId> = nodes.iter().map(|&node| NodeId(node)).collect();
        let now_us = self.now_us;
        let event = self.case.history.event_mut(id);
        event.outcome = Outcome::Acknowledged;
        event.acknowledged_us = Some(now_us + 10);
        event.region = Some(RegionId(0));
        event.durable = nodes.iter().copied().collect();
        self.case.receipts.push((level, self.case.receipt(level, &nodes)));
        self.case.copies.push((id, nodes.iter().map(|&node| (node, Copy::Kept)).collect()));
        self.case.calls.push((now_us, now_us + 10, 1_000));
        // Its own earlier dots may be unseen: then the context is that which it was written with.
        let covers = self.case.vector(&covered);
        let named = self.case.history.events_of(self.case.key);
        let hidden = named.filter(|(other, event)| {
            event.dot.is_some_and(|dot| covers.covers(dot)) && !covered.contains(other)
        });
        if hidden.count() > 0 {
            self.case.writers.push((id, self.case.vector(&held.covered)));
            return;
        }
        self.case.writers.push((id, covers));
        let mut set = held.set;
        set.insert(self.case.history.event(id).place);
        self.held.push(Held { shown: [id].into(), set, covered });
    }

    /// A write to the key where the last writer wins.
    fn write_latest(&mut self) {
        let node = self.node();
        let (case, now_us) = (&mut self.case, self.now_us);
        let id = EventId(case.history.len());
        let value = Some(Bytes::from(format!("latest {}", id.0)));
        case.history.begin(case.latest, value, EventSet::default(), (Level::One, now_us));
        let dot = self.next_dot(node);
        let reading = self.rng.random_range(1..100);
        let case = &mut self.case;
        assert_eq!(case.history.learn(id, dot), Learned::Fits);
        let event = case.history.event_mut(id);
        event.hlc = Some(Hlc(reading));
        event.outcome = Outcome::Acknowledged;
        event.durable = [NodeId(node)].into();
        case.winner = case.winner.max(Some((Hlc(reading), Some(dot))));
    }

    /// One replica takes in all that another has.
    fn spread(&mut self) {
        let (from, to) = (self.node(), self.node());
        let state = self.states[&from].clone();
        self.include(to, &state);
    }

    fn include(&mut self, node: u64, events: &BTreeSet<EventId>) {
        let before = self.states[&node].clone();
        let after: BTreeSet<EventId> = before.union(events).copied().collect();
        if before == after {
            return;
        }
        let case = &mut self.case;
        let change = Changed { before: case.object(&before), after: case.object(&after) };
        for &id in after.difference(&before) {
            let Some(dot) = case.history.event(id).dot else { continue };
            let facts = case.history.key(case.key);
            let (partition, bucket, key) = (facts.partition, facts.bucket, facts.name.clone());
            let entry = LogEntry { partition, dot, hlc: Hlc(1), bucket, key, has_more: false };
            case.logs.push((entry, change.after.context.clone()));
        }
        case.clocks.push((NodeId(node), case.clock(&after), change.after.clone()));
        case.changes.push(change);
        self.states.insert(node, after);
    }

    fn read(&mut self) {
        let first = self.node();
        let (level, nodes) = self.quorum(first);
        let covered: BTreeSet<EventId> =
            nodes.iter().flat_map(|node| self.states[node].iter().copied()).collect();
        let case = &mut self.case;
        let shown = case.live(&covered);
        let set = case.history.shown_by(shown.iter().copied());
        let covers = case.vector(&covered);
        let dots = shown.iter().filter_map(|&id| case.history.event(id).dot).collect();
        let (dots, asked_us): (Vec<Dot>, u64) = (dots, self.now_us);
        let answer =
            Answer { key: case.key, shown: dots.clone(), covers: covers.clone(), asked_us };
        case.answers.push(answer);
        let nodes: Vec<NodeId> = nodes.into_iter().map(NodeId).collect();
        let receipt = case.receipt(level, &nodes);
        let (asked_us, region) = (self.now_us, RegionId(0));
        let included = nodes.into_iter().collect();
        let read = Read { key: case.key, asked_us, level, region, included, shown: dots, covers };
        case.receipts.push((level, receipt.clone()));
        case.reads.push((read, receipt));
        case.calls.push((asked_us, asked_us + 900, 1_000));
        self.held.push(Held { shown, set, covered });
    }

    /// Everything spreads; a node that nobody asks any more forgets; somebody is refused.
    fn finish(mut self) -> Case {
        let all: BTreeSet<EventId> = self.states.values().flatten().copied().collect();
        (1..=REPLICAS).for_each(|node| self.include(node, &all));
        let (now_us, node) = (self.now_us, self.node());
        let mut case = self.case;
        let object = case.object(&all);
        let gone = |&(_, dot): &(EventId, Dot)| {
            (VersionVector::from_iter([dot]), VersionVector::new(), Copy::Kept)
        };
        case.hints = case.learned.iter().map(gone).collect();
        case.replicas = (1..=REPLICAS).map(|node| (NodeId(node), object.clone())).collect();
        let clock = case.clock(&all);
        case.know = clock.prefixes();
        case.claimed = (2..=REPLICAS).map(|node| (NodeId(node), clock.prefixes())).collect();
        case.final_clocks = (1..=REPLICAS).map(|node| (NodeId(node), clock.clone())).collect();
        case.claims = case.logs.iter().map(|(entry, covers)| (entry.dot, covers.clone())).collect();
        // Where a row was damaged, all of it is news.
        let damaged = |(node, object): &(NodeId, Object)| {
            let lost = object.live_dots().collect();
            let at = (BucketId(1), Bytes::from_static(b"k"));
            let own = Object::new(ObjectKind::Siblings);
            let (partition, theirs) = (Partition::from_u32(0), object.clone());
            let peer = NodeId(node.0 % REPLICAS + 1);
            let found = Found { partition, at, peer, is_damaged: true, lost, own, theirs };
            (*node, found)
        };
        case.found = case.replicas.iter().map(damaged).collect();
        let whole = |(&actor, &last): (&u64, &u64)| (Actor(actor), IntervalSet::from_prefix(last));
        case.decisions = self.counters.iter().map(whole).collect();
        case.forgot.insert(NodeId(node), now_us + 1);
        let receipt = case.receipt(Level::All, &[NodeId(1), NodeId(2), NodeId(3)]);
        let values = Values { siblings: vec![], context: Bytes::new(), receipt };
        case.last_reads.push(Some(CallResult::Reply(Reply::Values(values))));
        let value = Some(Bytes::from_static(b"forged"));
        let at = (Level::One, now_us);
        let forged = case.history.begin(case.key, value, EventSet::default(), at);
        case.history.event_mut(forged).outcome = Outcome::NotDone;
        let fault = pick(&mut self.rng, &[ContextFault::Forged, ContextFault::Malformed]);
        let refused = RequestError::Context { fault };
        case.forged.push((forged, CallResult::Reply(Reply::Error(refused))));
        case
    }
}

/// The live dots of a replica's one object.
pub(super) fn live_dots(object: &Object) -> LiveDots {
    let live: Vec<Dot> = object.live_dots().collect();
    if live.is_empty() { LiveDots::new() } else { [(b"k".to_vec(), live)].into() }
}
