//! What a replica has seen of one partition, write by write.
//!
//! A [`PartitionClock`] holds, per actor, exactly the counters of the writes whose effect this
//! replica's state includes. Counters of one actor are contiguous, so nearly all of it is one
//! number per actor, the prefix; what arrived out of order is a few ranges beyond it, and the gaps
//! between are what gap repair asks for. Unlike a version vector it never claims a dot that has
//! not been seen.
//!
//! Invariant: no actor's set is empty. Equal clocks have equal representations and encodings (I3
//! compares them), but for what is folded away ([`PartitionClock::has_seen_the_same`]).
//!
//! **Retired actors**: a run that ended gets no further dots, and once every replica has all of them,
//! its entry is folded away: what stays is the actor and its last counter ([`PartitionClock::retire`]).
//! Up to there everything counts as seen, and clocks are compared as if it were written out. What is
//! sent and stored as a clock names no retired actors; they are kept elsewhere, exactly and for good.
//!
//! The **stable clock** is the minimum of prefixes over all replicas ([`PartitionClock::minimum`]).
//! Of prefixes, not of maxima: a context covers dots it does not name, and a dot inside a gap can
//! still arrive (I4).
//!
//! Source: server-wide logical clocks, Gonçalves, Almeida, Baquero, Fonte, "DottedDB:
//! anti-entropy without Merkle trees, deletes without tombstones", SRDS 2017. Ranges instead of
//! bitmaps are ours.

mod interval_set;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::BufMut;
use holm_protocol::dot::Dot;
use holm_protocol::ids::Actor;
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError, put_varint};

pub use self::interval_set::{IntervalSet, RANGES_MAX};

/// The most actors a decoder takes. Every start of every replica is one until it is folded away:
/// room for a hundred nodes that restarted hundreds of times each.
pub const ACTORS_MAX: usize = 1 << 16;

/// A set of dots of one partition: what a clock is, without saying whose.
pub type DotSet = PartitionClock;

/// The dots seen on one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionClock {
    actors: BTreeMap<Actor, IntervalSet>,
    /// Actors that were folded away, and up to where they had written. None is in `actors`.
    retired: BTreeMap<Actor, u64>,
}

impl PartitionClock {
    /// A clock that has seen nothing.
    #[must_use]
    pub const fn new() -> PartitionClock {
        PartitionClock { actors: BTreeMap::new(), retired: BTreeMap::new() }
    }

    /// Whether it has seen nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty() && self.retired.is_empty()
    }

    /// Whether the dot was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        match self.actors.get(&dot.actor) {
            Some(seen) => seen.contains(dot.counter),
            None => dot.counter != 0 && dot.counter <= self.end_of(dot.actor),
        }
    }

    /// Marks a dot as seen; true if it was not before. A counter of 0 names no write, and a retired
    /// actor makes none.
    pub fn insert(&mut self, dot: Dot) -> bool {
        dot.counter != 0
            && !self.retired.contains_key(&dot.actor)
            && self.actors.entry(dot.actor).or_default().insert(dot.counter)
    }

    /// Marks an actor's counters `first..=last` as seen; nothing of a retired one.
    pub fn insert_range(&mut self, actor: Actor, first: u64, last: u64) {
        if first.max(1) <= last && !self.retired.contains_key(&actor) {
            self.actors.entry(actor).or_default().insert_range(first, last);
        }
    }

    /// Marks as seen what `other` has seen: the effects of all of it must be in the state. Actors
    /// that are retired in either are so afterwards.
    pub fn merge(&mut self, other: &PartitionClock) {
        for (&actor, theirs) in &other.actors {
            self.merge_actor(actor, theirs);
        }
        other.retired.iter().for_each(|(&actor, &end)| self.retire(actor, end));
    }

    /// Marks as seen what somebody has seen of one actor; nothing of a retired one.
    pub fn merge_actor(&mut self, actor: Actor, theirs: &IntervalSet) {
        if !theirs.is_empty() && !self.retired.contains_key(&actor) {
            self.actors.entry(actor).or_default().merge(theirs);
        }
    }

    /// Folds an actor away that ended with this counter. All up to there counts as seen from then on,
    /// and nothing beyond it.
    pub fn retire(&mut self, actor: Actor, end: u64) {
        self.actors.remove(&actor);
        self.retired.insert(actor, end);
    }

    /// The actors that were folded away, with their last counters, ascending.
    pub fn retired(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.retired.iter().map(|(actor, end)| (*actor, *end))
    }

    /// Every actor of which something was seen, retired or not.
    pub fn known_actors(&self) -> impl Iterator<Item = Actor> + '_ {
        self.actors.keys().chain(self.retired.keys()).copied()
    }

    /// The last counter of a retired actor; 0 of any other.
    #[must_use]
    pub fn end_of(&self, actor: Actor) -> u64 {
        self.retired.get(&actor).copied().unwrap_or(0)
    }

    /// What was seen of one actor, retired or not; nothing of one that nothing is known of.
    #[must_use]
    pub fn seen_of(&self, actor: Actor) -> Cow<'_, IntervalSet> {
        match self.actors.get(&actor) {
            Some(seen) => Cow::Borrowed(seen),
            None => Cow::Owned(IntervalSet::from_prefix(self.end_of(actor))),
        }
    }

    /// Takes an actor's dots out.
    pub fn remove_actor(&mut self, actor: Actor) {
        self.actors.remove(&actor);
    }

    /// What is in this set of dots and not in `other`.
    #[must_use]
    pub fn without(&self, other: &PartitionClock) -> PartitionClock {
        let mut left = PartitionClock::new();
        for (actor, ranges) in self.difference(other) {
            for (first, last) in ranges {
                left.insert_range(actor, first, last);
            }
        }
        left
    }

    /// The dots as ranges of one actor each, in order.
    pub fn spans(&self) -> impl Iterator<Item = (Actor, u64, u64)> + '_ {
        let of =
            |(&actor, seen): (&Actor, &'_ IntervalSet)| (actor, seen.spans().collect::<Vec<_>>());
        self.actors.iter().map(of).flat_map(|(actor, spans)| {
            spans.into_iter().map(move |(first, last)| (actor, first, last))
        })
    }

    /// How much memory the set takes, in entries and ranges.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.actors.len() + self.ranges()
    }

    /// What this clock has seen and `other` has not: per actor, ranges of counters (both ends
    /// included), ascending.
    #[must_use]
    pub fn difference(&self, other: &PartitionClock) -> Vec<(Actor, Vec<(u64, u64)>)> {
        let mut left: Vec<(Actor, Vec<(u64, u64)>)> = self
            .actors
            .iter()
            .map(|(actor, own)| (*actor, own.difference(&other.seen_of(*actor))))
            .filter(|(_, ranges)| !ranges.is_empty())
            .collect();
        // Mostly the same are retired on both sides, or none.
        let folded = self.retired.iter().filter(|(actor, end)| other.end_of(**actor) != **end);
        let folded = folded.map(|(actor, end)| {
            (*actor, IntervalSet::from_prefix(*end).difference(&other.seen_of(*actor)))
        });
        let before = left.len();
        left.extend(folded.filter(|(_, ranges)| !ranges.is_empty()));
        if left.len() > before {
            left.sort_unstable_by_key(|(actor, _)| *actor);
        }
        left
    }

    /// Whether it has seen everything that `other` has.
    #[must_use]
    pub fn covers(&self, other: &PartitionClock) -> bool {
        let folded = |(actor, end): (&Actor, &u64)| {
            self.end_of(*actor) == *end
                || self.seen_of(*actor).covers(&IntervalSet::from_prefix(*end))
        };
        other.actors.iter().all(|(actor, theirs)| self.seen_of(*actor).covers(theirs))
            && other.retired.iter().all(folded)
    }

    /// Whether both have seen the same, whatever is folded away.
    #[must_use]
    pub fn has_seen_the_same(&self, other: &PartitionClock) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// What was seen of one actor that is not retired.
    #[must_use]
    pub fn get(&self, actor: Actor) -> Option<&IntervalSet> {
        self.actors.get(&actor)
    }

    /// Every actor of which something was seen, ascending, and what; retired ones are left out.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, &IntervalSet)> {
        self.actors.iter().map(|(actor, seen)| (*actor, seen))
    }

    /// Of how many actors that are not retired something was seen.
    #[must_use]
    pub fn actors(&self) -> usize {
        self.actors.len()
    }

    /// How many dots were seen; saturates.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.actors.values().fold(0, |sum, seen| sum.saturating_add(seen.count()))
    }

    /// How many ranges lie beyond the prefixes: how much has arrived out of order.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.actors.values().map(|seen| seen.ranges().len()).sum()
    }

    /// Per actor, up to where everything was seen.
    #[must_use]
    pub fn prefixes(&self) -> VersionVector {
        self.iter().map(|(actor, seen)| Dot { actor, counter: seen.prefix() }).collect()
    }

    /// Per actor, retired or not, up to where every one of the clocks has seen everything; an actor that one of
    /// them does not name counts as 0. Of no clocks, nothing.
    #[must_use]
    pub fn minimum<'a>(clocks: impl IntoIterator<Item = &'a PartitionClock>) -> VersionVector {
        let mut clocks = clocks.into_iter();
        let Some(first) = clocks.next() else {
            return VersionVector::new();
        };
        let prefix = |actor| Dot { actor, counter: first.seen_of(actor).prefix() };
        let mut minimum: Vec<Dot> = first.known_actors().map(prefix).collect();
        for clock in clocks {
            for dot in &mut minimum {
                dot.counter = dot.counter.min(clock.seen_of(dot.actor).prefix());
            }
        }
        // Those of whom nothing is left, counter 0, are not taken over.
        minimum.into_iter().collect()
    }

    /// Appends the encoding of all but retired actors: actor count (varint), then per actor its number (8 bytes,
    /// big-endian) and what was seen of it (as [`IntervalSet::encode`]), actors ascending.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_varint(out, self.actors.len() as u64);
        for (actor, seen) in &self.actors {
            out.put_u64(actor.0);
            seen.encode(out);
        }
    }

    /// Reads what [`PartitionClock::encode`] wrote. One clock has one encoding.
    ///
    /// # Errors
    /// The input is never trusted; nothing is built if
    /// - [`WireError::TooLong`]: more than [`ACTORS_MAX`] actors, or more than [`RANGES_MAX`]
    ///   ranges of one (checked before allocating),
    /// - [`WireError::Truncated`]: bytes are missing,
    /// - [`WireError::Invalid`]: actors do not ascend, one has seen nothing, or a range ends past
    ///   the highest counter.
    pub fn decode(reader: &mut Reader<'_>) -> Result<PartitionClock, WireError> {
        let count = reader.length("clock actors", ACTORS_MAX)?;
        // Grows as it is read: the count alone is a promise.
        let mut actors = BTreeMap::new();
        for _ in 0..count {
            let actor = Actor(reader.u64()?);
            if actors.last_key_value().is_some_and(|(last, _)| *last >= actor) {
                return Err(WireError::Invalid { field: "clock actor", got: actor.0 });
            }
            let seen = IntervalSet::decode(reader)?;
            if seen.is_empty() {
                return Err(WireError::Invalid { field: "clock ranges", got: 0 });
            }
            actors.insert(actor, seen);
        }
        Ok(PartitionClock { actors, retired: BTreeMap::new() })
    }
}
