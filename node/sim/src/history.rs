//! What clients asked and were told: the referee's model of the database.
//!
//! A write is an *event*. It is *acknowledged*, *certainly not done*, or *unknown*; while it is
//! pending it is unknown too. Its dot is learned from the answer, or from wherever its value is
//! first seen.
//!
//! **Causality is kept as explicit sets of events**, without looking into a version vector. The
//! database hands out contexts, and a client hands one back with its next write; what that write's
//! *writer saw* is what the answer that gave the context had shown:
//!
//! - An answer to a read shows values. Values are unique, so each names its event. The answer's set
//!   is those events, and all that their writers saw.
//! - An answer to a write shows nothing new: its set is what the writer saw, and the write itself if
//!   the answer's context covers the write's dot. (The database may leave it out where it cannot
//!   name the write without covering others; the next write then stands beside it.)
//! - No context is the empty set. Answers that gave the same bytes have the union of their sets:
//!   whoever holds the bytes holds all that they stand for.
//!
//! A set holds only what somebody was shown. A context's vector covers more: also what had been
//! overwritten or deleted before the answer. The two are compared in both directions, by
//! [`crate::check::answers`]: what is in the set must be covered (else an overwritten value could
//! return), and what is covered must be in the set, or have been overwritten by a write that is
//! covered too and that saw it (else a value could vanish that nobody saw). From the second it
//! follows, write by write, that the sets explain every disappearance: when a write drops a value
//! that its writer was not shown, an earlier write, which the state then covers as well, had seen
//! it. So a value may be absent only if a write that may have happened *saw it by the sets*, and
//! must be absent beside such a write's effect.
//!
//! What is left out: a last-writer-wins key drops by clock reading, not by causality. Its events
//! have sets too, and no rule uses them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holm_core::clock::IntervalSet;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::version_vector::VersionVector;

/// A write, in the order in which they were first asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(pub usize);

/// A key that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub usize);

/// What a client knows of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer yet.
    Pending,
    /// It was acknowledged at its level.
    Acknowledged,
    /// It certainly did not happen.
    NotDone,
    /// It may have happened.
    Unknown,
}

/// A put or a delete.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which key.
    pub key: KeyId,
    /// The value; `None` for a delete.
    pub value: Option<Bytes>,
    /// What its writer saw: events of the same key.
    pub saw: EventSet,
    /// Its place among the key's events, which is its number in event sets.
    pub place: usize,
    /// The level asked for.
    pub level: Level,
    /// When it was first asked for, simulated microseconds.
    pub asked_us: u64,
    /// What its client knows.
    pub outcome: Outcome,
    /// Its dot, once known.
    pub dot: Option<Dot>,
    /// Its clock reading, once known.
    pub hlc: Option<Hlc>,
    /// When it was first acknowledged.
    pub acknowledged_us: Option<u64>,
    /// The region of its coordinator, once acknowledged.
    pub region: Option<RegionId>,
    /// The replicas that said they had it on disk when it was acknowledged.
    pub durable: BTreeSet<NodeId>,
    /// The fallbacks that said so, and keep it for a replica that does not have it yet.
    pub hinted: BTreeSet<NodeId>,
    /// Whether fallbacks were needed to acknowledge it.
    pub is_sloppy: bool,
    /// Those of them, and others, whose disks have lost it since, by faults that may do that.
    pub lost: BTreeSet<NodeId>,
    /// Nodes whose disks had lost it and have it again, and since when, simulated microseconds.
    pub regained: BTreeMap<NodeId, u64>,
    /// The write that this one is a try of elsewhere, where it may be done once more, as a write of
    /// its own with the same value.
    pub again: Option<EventId>,
}

impl Event {
    /// Whether the database must still have it: it was acknowledged, and a disk that had it then
    /// has not lost it.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        let mut holders = self.durable.iter().chain(&self.hinted);
        self.outcome == Outcome::Acknowledged && holders.any(|node| !self.lost.contains(node))
    }

    /// The replicas that have had it on disk without a break since a moment, or since it was
    /// acknowledged.
    pub fn had_since(&self, since_us: u64) -> impl Iterator<Item = NodeId> + '_ {
        let back_late = move |node| self.regained.get(node).is_some_and(|&at| at >= since_us);
        self.durable.difference(&self.lost).filter(move |node| !back_late(node)).copied()
    }

    /// Whether it may have had an effect.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.outcome != Outcome::NotDone
    }
}

/// A key, and all that was asked of it.
#[derive(Debug, Clone)]
pub struct Key {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub name: Bytes,
    /// Its partition.
    pub partition: Partition,
    /// Whether the last writer wins.
    pub is_lww: bool,
    /// Its writes.
    pub events: Vec<EventId>,
    /// Writes by value, the first try of each: values are unique among a key's writes.
    by_value: BTreeMap<Bytes, EventId>,
}

/// Events of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventSet {
    /// A bit for each of the key's events, in the order in which they were asked for.
    words: Vec<u64>,
}

impl EventSet {
    /// Whether the key's event at this place is in it.
    #[must_use]
    pub fn contains(&self, place: usize) -> bool {
        self.words.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Adds the key's event at this place.
    pub fn insert(&mut self, place: usize) {
        let word = place / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (place % 64);
    }

    /// Adds another set of the same key.
    pub fn extend(&mut self, other: &EventSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(own, theirs)| *own |= theirs);
    }

    /// The places in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let bits = |(at, &word): (usize, &u64)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}

/// An answer to a read.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The key.
    pub key: KeyId,
    /// The dots of the values that were shown.
    pub shown: Vec<Dot>,
    /// What its context covers.
    pub covers: VersionVector,
    /// When it was asked for, simulated microseconds.
    pub asked_us: u64,
}

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct History {
    keys: Vec<Key>,
    key_ids: BTreeMap<(BucketId, Bytes), KeyId>,
    events: Vec<Event>,
    by_dot: BTreeMap<(Partition, Dot), EventId>,
    /// Dots that objects stopped naming because every replica has them, per key, and when the first did,
    /// simulated microseconds.
    forgotten: BTreeMap<KeyId, BTreeMap<Dot, u64>>,
    /// Whether nobody can see what disks forget: then all that is dead may be forgotten.
    is_blind: bool,
    /// Contexts that were given out, with what those who got them were shown.
    given: BTreeMap<(KeyId, Bytes), EventSet>,
    lost: BTreeMap<(Partition, Dot), BTreeSet<NodeId>>,
    homes: Vec<Home>,
    /// What actors of runs that ended have, as nodes learned it.
    closed: BTreeMap<(Partition, Actor), IntervalSet>,
}

/// A hint that went home.
#[derive(Debug, Clone)]
struct Home {
    key: KeyId,
    fallback: NodeId,
    replica: NodeId,
    covers: VersionVector,
    at_us: u64,
}

/// What learning a dot revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It fits.
    Fits,
    /// Another write has this dot.
    DotTaken(EventId),
    /// The write has another dot.
    SecondDot(Dot),
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Names a key.
    pub fn add_key(
        &mut self,
        (bucket, name): (BucketId, Bytes),
        partition: Partition,
        is_lww: bool,
    ) -> KeyId {
        if let Some(&known) = self.key_ids.get(&(bucket, name.clone())) {
            return known;
        }
        let id = KeyId(self.keys.len());
        self.key_ids.insert((bucket, name.clone()), id);
        let (events, by_value) = (Vec::new(), BTreeMap::new());
        self.keys.push(Key { bucket, name, partition, is_lww, events, by_value });
        id
    }

    /// Finds a key.
    #[must_use]
    pub fn key_id(&self, bucket: BucketId, name: &Bytes) -> Option<KeyId> {
        self.key_ids.get(&(bucket, name.clone())).copied()
    }

    /// A key.
    #[must_use]
    pub fn key(&self, id: KeyId) -> &Key {
        &self.keys[id.0]
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, &Key)> {
        self.keys.iter().enumerate().map(|(at, key)| (KeyId(at), key))
    }

    /// A write is asked for, by somebody who saw this.
    pub fn begin(
        &mut self,
        key: KeyId,
        value: Option<Bytes>,
        saw: EventSet,
        (level, asked_us): (Level, u64),
    ) -> EventId {
        let id = EventId(self.events.len());
        if let Some(value) = &value {
            self.keys[key.0].by_value.entry(value.clone()).or_insert(id);
        }
        let place = self.keys[key.0].events.len();
        self.keys[key.0].events.push(id);
        self.events.push(Event {
            key,
            value,
            saw,
            place,
            level,
            asked_us,
            outcome: Outcome::Pending,
            dot: None,
            hlc: None,
            acknowledged_us: None,
            region: None,
            durable: BTreeSet::new(),
            hinted: BTreeSet::new(),
            is_sloppy: false,
            lost: BTreeSet::new(),
            regained: BTreeMap::new(),
            again: None,
        });
        id
    }

    /// A write is asked for once more, elsewhere.
    pub fn begin_again(&mut self, id: EventId, now_us: u64) {
        let Event { key, value, saw, level, again, .. } = self.event(id).clone();
        let other = self.begin(key, value, saw, (level, now_us));
        self.events[other.0].again = Some(again.unwrap_or(id));
    }

    /// The first try of a write.
    #[must_use]
    pub fn first_try(&self, id: EventId) -> EventId {
        self.event(id).again.unwrap_or(id)
    }

    /// All tries of a write that may be writes of their own, the first one first.
    pub fn tries(&self, id: EventId) -> impl Iterator<Item = (EventId, &Event)> {
        let first = self.first_try(id);
        let is_try =
            move |(id, event): &(EventId, &Event)| *id == first || event.again == Some(first);
        self.events_of(self.event(first).key).filter(is_try)
    }

    /// How many writes were asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// A write.
    #[must_use]
    pub fn event(&self, id: EventId) -> &Event {
        &self.events[id.0]
    }

    /// A write, to be changed.
    pub fn event_mut(&mut self, id: EventId) -> &mut Event {
        &mut self.events[id.0]
    }

    /// All writes.
    pub fn events(&self) -> impl Iterator<Item = (EventId, &Event)> {
        self.events.iter().enumerate().map(|(at, event)| (EventId(at), event))
    }

    /// The writes to a key.
    pub fn events_of(&self, key: KeyId) -> impl Iterator<Item = (EventId, &Event)> {
        self.keys[key.0].events.iter().map(|&id| (id, self.event(id)))
    }

    /// The write of this value.
    #[must_use]
    pub fn by_value(&self, key: KeyId, value: &Bytes) -> Option<EventId> {
        self.keys[key.0].by_value.get(value).copied()
    }

    /// The write with this dot, if it is known.
    #[must_use]
    pub fn by_dot(&self, partition: Partition, dot: Dot) -> Option<EventId> {
        self.by_dot.get(&(partition, dot)).copied()
    }

    /// Takes in that a write has a dot: this one, or another try of it that has none yet. Two tries
    /// never have dots of one actor, because a run does a request once.
    pub fn learn(&mut self, id: EventId, dot: Dot) -> Learned {
        let partition = self.keys[self.events[id.0].key.0].partition;
        match self.by_dot.get(&(partition, dot)) {
            Some(&other) if self.first_try(other) != self.first_try(id) => {
                return Learned::DotTaken(other);
            }
            Some(_) => return Learned::Fits,
            None if self.is_void(partition, dot) => return Learned::Fits,
            None => {}
        }
        let dots = || self.tries(id).filter_map(|(_, event)| event.dot);
        let same_run = dots().find(|known| known.actor == dot.actor);
        let free = self.tries(id).find(|(_, event)| event.dot.is_none()).map(|(id, _)| id);
        let (None, Some(id)) = (same_run, free) else {
            return Learned::SecondDot(same_run.or(self.event(id).dot).unwrap_or(dot));
        };
        self.by_dot.insert((partition, dot), id);
        self.events[id.0].dot = Some(dot);
        if let Some(nodes) = self.lost.get(&(partition, dot)) {
            self.events[id.0].lost.extend(nodes);
        }
        Learned::Fits
    }

    /// What an actor of a run that ended has, as far as nodes have learned it.
    #[must_use]
    pub fn closed(&self, partition: Partition, actor: Actor) -> Option<&IntervalSet> {
        self.closed.get(&(partition, actor))
    }

    /// All that is known of that.
    pub fn all_closed(&self) -> impl Iterator<Item = ((Partition, Actor), IntervalSet)> + '_ {
        self.closed.iter().map(|(place, dots)| (*place, dots.clone()))
    }

    /// Whether a dot is decided to be void: nobody names it any more. What it had overwritten may be
    /// gone with it.
    #[must_use]
    pub fn is_void(&self, partition: Partition, dot: Dot) -> bool {
        self.closed(partition, dot.actor).is_some_and(|dots| !dots.contains(dot.counter))
    }

    /// It is decided that an actor has just these dots.
    pub fn close(&mut self, partition: Partition, actor: Actor, dots: &IntervalSet) {
        self.closed.entry((partition, actor)).or_insert_with(|| dots.clone());
    }

    /// What an answer that shows these events shows: them, and what their writers saw.
    #[must_use]
    pub fn shown_by(&self, shown: impl IntoIterator<Item = EventId>) -> EventSet {
        let mut set = EventSet::default();
        for id in shown {
            let event = self.event(id);
            set.extend(&event.saw);
            set.insert(event.place);
        }
        set
    }

    /// An answer gave this context to somebody who was shown this.
    pub fn give(&mut self, key: KeyId, context: &Bytes, shown: &EventSet) {
        if !context.is_empty() {
            self.given.entry((key, context.clone())).or_default().extend(shown);
        }
    }

    /// What whoever holds this context was shown.
    #[must_use]
    pub fn shown_with(&self, key: KeyId, context: &Bytes) -> EventSet {
        self.given.get(&(key, context.clone())).cloned().unwrap_or_default()
    }

    /// The contexts that were given out.
    pub fn contexts(&self) -> impl ExactSizeIterator<Item = (KeyId, &Bytes)> {
        self.given.keys().map(|(key, context)| (*key, context))
    }

    /// Whether the writer of one event saw another of the same key.
    #[must_use]
    pub fn saw(&self, by: EventId, id: EventId) -> bool {
        self.event(by).saw.contains(self.event(id).place)
    }

    /// The events that a write's writer saw.
    pub fn seen_by(&self, id: EventId) -> impl Iterator<Item = EventId> + '_ {
        let event = self.event(id);
        event.saw.iter().map(|place| self.keys[event.key.0].events[place])
    }

    /// Whether a disk lost a dot, by a fault that may do that.
    #[must_use]
    pub fn is_lost(&self, node: NodeId, partition: Partition, dot: Dot) -> bool {
        self.lost.get(&(partition, dot)).is_some_and(|nodes| nodes.contains(&node))
    }

    /// Disks lost a dot: faults that may do that struck a node.
    pub fn lose(&mut self, node: NodeId, partition: Partition, dot: Dot) {
        self.lost.entry((partition, dot)).or_default().insert(node);
        if let Some(id) = self.by_dot(partition, dot) {
            self.events[id.0].lost.insert(node);
        }
    }

    /// A node's object of a key covers this: what its disk had lost of it, it has again and owes
    /// again.
    pub fn regain(&mut self, node: NodeId, key: KeyId, covers: &VersionVector, now_us: u64) {
        if self.lost.is_empty() {
            return;
        }
        let partition = self.keys[key.0].partition;
        for &id in &self.keys[key.0].events {
            let event = &mut self.events[id.0];
            let Some(dot) = event.dot.filter(|&dot| covers.covers(dot)) else { continue };
            if event.lost.remove(&node) {
                event.regained.insert(node, now_us);
                self.lost.entry((partition, dot)).or_default().remove(&node);
            }
        }
    }

    /// A fallback was named when a write was acknowledged: it keeps it for a replica, or that replica
    /// has it since.
    pub fn acknowledged_by_fallback(&mut self, id: EventId, fallback: NodeId) {
        let event = &mut self.events[id.0];
        event.is_sloppy = true;
        let is_it = |home: &&Home| {
            let covers = event.dot.is_some_and(|dot| home.covers.covers(dot));
            home.key == event.key && home.fallback == fallback && covers
        };
        match self.homes.iter().find(is_it) {
            Some(&Home { replica, at_us, .. }) => owes_from(event, replica, at_us),
            None => {
                event.hinted.insert(fallback);
            }
        }
    }

    /// A hint went home: its replica has what it covered, and `kept` is what the fallback keeps of
    /// the key for others.
    pub fn went_home(
        &mut self,
        (fallback, replica): (NodeId, NodeId),
        key: KeyId,
        (covers, kept): (&VersionVector, &[VersionVector]),
        at_us: u64,
    ) {
        for &id in &self.keys[key.0].events {
            let event = &mut self.events[id.0];
            let Some(dot) = event.dot.filter(|&dot| covers.covers(dot)) else { continue };
            if event.hinted.contains(&fallback) {
                owes_from(event, replica, at_us);
                if !kept.iter().any(|covers| covers.covers(dot)) {
                    event.hinted.remove(&fallback);
                }
            }
        }
        self.homes.push(Home { key, fallback, replica, covers: covers.clone(), at_us });
    }

    /// The replicas to which a fallback has handed a write.
    pub fn homes(
        &self,
        key: KeyId,
        fallback: NodeId,
        dot: Dot,
    ) -> impl Iterator<Item = NodeId> + '_ {
        let is_it = move |home: &&Home| {
            home.key == key && home.fallback == fallback && home.covers.covers(dot)
        };
        self.homes.iter().filter(is_it).map(|home| home.replica)
    }

    /// Nobody can see what disks forget: all that is dead may be.
    pub fn see_no_disks(&mut self) {
        self.is_blind = true;
    }

    /// An object stops naming these dots, because every replica has them.
    pub fn forget(&mut self, key: KeyId, dots: impl IntoIterator<Item = Dot>, now_us: u64) {
        let forgotten = self.forgotten.entry(key).or_default();
        dots.into_iter().for_each(|dot| _ = forgotten.entry(dot).or_insert(now_us));
    }

    /// What no state of a key need name any more.
    #[must_use]
    pub fn forgotten(&self, key: KeyId) -> VersionVector {
        self.forgotten_before(key, u64::MAX)
    }

    /// What none needed to name before a moment, simulated microseconds.
    #[must_use]
    pub fn forgotten_before(&self, key: KeyId, us: u64) -> VersionVector {
        if self.is_blind {
            return if us == u64::MAX { self.dead(key) } else { VersionVector::new() };
        }
        let dots = self.forgotten.get(&key).into_iter().flatten();
        dots.filter(|&(_, &at_us)| at_us < us).map(|(&dot, _)| dot).collect()
    }

    /// Whether an object stopped naming this very dot, because every replica has it.
    #[must_use]
    pub fn is_forgotten(&self, key: KeyId, dot: Dot) -> bool {
        match self.is_blind {
            true => self.dead(key).covers(dot),
            false => self.forgotten.get(&key).is_some_and(|dots| dots.contains_key(&dot)),
        }
    }

    /// The deletes of a key, and what somebody who wrote it had seen.
    fn dead(&self, key: KeyId) -> VersionVector {
        let mut seen = EventSet::default();
        self.events_of(key).for_each(|(_, event)| seen.extend(&event.saw));
        let is_dead = |event: &&Event| event.value.is_none() || seen.contains(event.place);
        let events = self.events_of(key).map(|(_, event)| event);
        events.filter(is_dead).filter_map(|event| event.dot).collect()
    }

    /// A context, and what it need not name any more.
    #[must_use]
    pub fn with_forgotten(&self, key: KeyId, covers: &VersionVector) -> VersionVector {
        let mut all = self.forgotten(key);
        all.merge(covers);
        all
    }

    /// Whether a write's disappearance from a state whose context is `covers` has a reason: a
    /// write that saw it, and that the state accounts for. An event whose dot nobody has seen may
    /// be in any state.
    #[must_use]
    pub fn is_overwritten(&self, id: EventId, covers: &VersionVector) -> bool {
        let event = self.event(id);
        self.events_of(event.key).any(|(_, by)| {
            by.saw.contains(event.place)
                && by.may_have_happened()
                && by.dot.is_none_or(|by| covers.covers(by))
        })
    }

    /// In words: key, value, dot of a write.
    #[must_use]
    pub fn describe(&self, id: EventId) -> String {
        let event = self.event(id);
        let key = String::from_utf8_lossy(&self.key(event.key).name).into_owned();
        let what = match &event.value {
            Some(value) => {
                let text = String::from_utf8_lossy(value);
                format!("put {key}={:?}", text.chars().take(24).collect::<String>())
            }
            None => format!("delete {key}"),
        };
        let dot = event.dot.map_or("no known dot".to_owned(), |dot| dot.to_string());
        let list = |nodes: &BTreeSet<NodeId>| {
            nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
        };
        let mut text = format!("write {} ({what}, {dot}, {:?}", id.0, event.outcome);
        for (word, nodes) in
            [("by", &event.durable), ("for others by", &event.hinted), ("lost by", &event.lost)]
        {
            if !nodes.is_empty() {
                text += &format!(", {word} {}", list(nodes));
            }
        }
        text + ")"
    }
}

/// A replica has a write from now on, unless it had it before.
fn owes_from(event: &mut Event, replica: NodeId, at_us: u64) {
    if event.durable.insert(replica) {
        event.regained.insert(replica, at_us);
    }
}

#[cfg(test)]
mod tests;
