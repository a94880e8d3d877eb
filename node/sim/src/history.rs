//! What clients asked and were told: the referee's model of the database.
//!
//! A write is an *event*. It is *acknowledged*, *certainly not done*, or *unknown*; while it is
//! pending it is unknown too. Its dot is learned from the answer, or from wherever its value is
//! first seen. What it *saw* is the context it was sent with, which came from an earlier answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{BucketId, Hlc, NodeId, Partition, RegionId};
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
    /// What its writer had seen.
    pub saw: VersionVector,
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
    /// Those of them, and others, whose disks have lost it since, by faults that may do that.
    pub lost: BTreeSet<NodeId>,
    /// The write that this one is a try of, elsewhere: a request repeated at another node, or at
    /// another run of one, may be done once more, as a write of its own with the same value.
    pub again: Option<EventId>,
}

impl Event {
    /// Whether the database must still have it: it was acknowledged, and a disk that had it then
    /// has not lost it.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.outcome == Outcome::Acknowledged && !self.durable.is_subset(&self.lost)
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
    /// Writes by value: values are unique among a key's writes.
    by_value: BTreeMap<Bytes, EventId>,
}

/// An answer to a read, or a write's answer read as one.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The key.
    pub key: KeyId,
    /// The dots of the values that were shown.
    pub shown: Vec<Dot>,
    /// What its context covers.
    pub covers: VersionVector,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct History {
    keys: Vec<Key>,
    key_ids: BTreeMap<(BucketId, Bytes), KeyId>,
    events: Vec<Event>,
    by_dot: BTreeMap<(Partition, Dot), EventId>,
    lost: BTreeMap<(Partition, Dot), BTreeSet<NodeId>>,
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

    /// A write is asked for.
    pub fn begin(
        &mut self,
        key: KeyId,
        value: Option<Bytes>,
        saw: VersionVector,
        (level, asked_us): (Level, u64),
    ) -> EventId {
        let id = EventId(self.events.len());
        if let Some(value) = &value {
            // A value stands for the first try of its write.
            self.keys[key.0].by_value.entry(value.clone()).or_insert(id);
        }
        self.keys[key.0].events.push(id);
        self.events.push(Event {
            key,
            value,
            saw,
            level,
            asked_us,
            outcome: Outcome::Pending,
            dot: None,
            hlc: None,
            acknowledged_us: None,
            region: None,
            durable: BTreeSet::new(),
            lost: BTreeSet::new(),
            again: None,
        });
        id
    }

    /// A write is asked for once more, elsewhere.
    pub fn begin_again(&mut self, first: EventId, now_us: u64) {
        let first = self.first_try(first);
        let Event { key, value, saw, level, .. } = self.event(first).clone();
        let id = self.begin(key, value, saw, (level, now_us));
        self.events[id.0].again = Some(first);
    }

    /// The first try of a write.
    #[must_use]
    pub fn first_try(&self, id: EventId) -> EventId {
        self.event(id).again.unwrap_or(id)
    }

    /// All tries of a write that may be writes of their own, the first one first.
    pub fn tries(&self, id: EventId) -> impl Iterator<Item = (EventId, &Event)> {
        let first = self.first_try(id);
        let again = self.events_of(self.event(first).key);
        let again = again.filter(move |(_, event)| event.again == Some(first));
        std::iter::once((first, self.event(first))).chain(again)
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

    /// Disks lost a dot: faults that may do that struck a node.
    pub fn lose(&mut self, node: NodeId, partition: Partition, dot: Dot) {
        self.lost.entry((partition, dot)).or_default().insert(node);
        if let Some(id) = self.by_dot(partition, dot) {
            self.events[id.0].lost.insert(node);
        }
    }

    /// Whether a write's disappearance from a state whose context is `covers` has a reason: a
    /// write that saw it, and that the state accounts for. An event whose dot nobody has seen may
    /// be in any state.
    #[must_use]
    pub fn is_overwritten(&self, id: EventId, covers: &VersionVector) -> bool {
        let event = self.event(id);
        let Some(dot) = event.dot else { return false };
        self.events_of(event.key).any(|(other, by)| {
            other != id
                && by.may_have_happened()
                && by.saw.covers(dot)
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
        format!("write {} ({what}, {dot}, {:?})", id.0, event.outcome)
    }
}
