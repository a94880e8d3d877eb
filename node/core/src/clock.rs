//! What a replica has seen of one partition, write by write.
//!
//! A [`PartitionClock`] holds, per actor, exactly the counters of the writes whose effect this
//! replica's state includes. Counters of one actor are contiguous, so nearly all of it is one
//! number per actor, the prefix; what arrived out of order is a few ranges beyond it, and the gaps
//! between are what gap repair asks for. Unlike a version vector it never claims a dot that has
//! not been seen.
//!
//! Invariant: no actor's set is empty. Equal clocks have equal representations and encodings (I3
//! compares them).
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
}

impl PartitionClock {
    /// A clock that has seen nothing.
    #[must_use]
    pub const fn new() -> PartitionClock {
        PartitionClock { actors: BTreeMap::new() }
    }

    /// Whether it has seen nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }

    /// Whether the dot was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.actors.get(&dot.actor).is_some_and(|seen| seen.contains(dot.counter))
    }

    /// Marks a dot as seen; true if it was not before. A counter of 0 names no write.
    pub fn insert(&mut self, dot: Dot) -> bool {
        dot.counter != 0 && self.actors.entry(dot.actor).or_default().insert(dot.counter)
    }

    /// Marks an actor's counters `first..=last` as seen.
    pub fn insert_range(&mut self, actor: Actor, first: u64, last: u64) {
        if first.max(1) <= last {
            self.actors.entry(actor).or_default().insert_range(first, last);
        }
    }

    /// Marks as seen what `other` has seen: the effects of all of it must be in the state.
    pub fn merge(&mut self, other: &PartitionClock) {
        for (&actor, theirs) in &other.actors {
            self.actors.entry(actor).or_default().merge(theirs);
        }
    }

    /// Marks as seen what somebody has seen of one actor.
    pub fn merge_actor(&mut self, actor: Actor, theirs: &IntervalSet) {
        if !theirs.is_empty() {
            self.actors.entry(actor).or_default().merge(theirs);
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
        let nothing = IntervalSet::new();
        self.actors
            .iter()
            .map(|(actor, own)| {
                (*actor, own.difference(other.actors.get(actor).unwrap_or(&nothing)))
            })
            .filter(|(_, ranges)| !ranges.is_empty())
            .collect()
    }

    /// Whether it has seen everything that `other` has.
    #[must_use]
    pub fn covers(&self, other: &PartitionClock) -> bool {
        other
            .actors
            .iter()
            .all(|(actor, theirs)| self.actors.get(actor).is_some_and(|own| own.covers(theirs)))
    }

    /// What was seen of one actor.
    #[must_use]
    pub fn get(&self, actor: Actor) -> Option<&IntervalSet> {
        self.actors.get(&actor)
    }

    /// Every actor of which something was seen, ascending, and what.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, &IntervalSet)> {
        self.actors.iter().map(|(actor, seen)| (*actor, seen))
    }

    /// Of how many actors something was seen.
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

    /// Per actor, up to where every one of the clocks has seen everything; an actor that one of
    /// them does not name counts as 0. Of no clocks, nothing.
    #[must_use]
    pub fn minimum<'a>(clocks: impl IntoIterator<Item = &'a PartitionClock>) -> VersionVector {
        let mut clocks = clocks.into_iter();
        let Some(first) = clocks.next() else {
            return VersionVector::new();
        };
        let mut minimum: Vec<Dot> = first.prefixes().iter().collect();
        for clock in clocks {
            for dot in &mut minimum {
                let prefix = clock.get(dot.actor).map_or(0, IntervalSet::prefix);
                dot.counter = dot.counter.min(prefix);
            }
        }
        // Those of whom nothing is left, counter 0, are not taken over.
        minimum.into_iter().collect()
    }

    /// Appends the encoding: actor count (varint), then per actor its number (8 bytes,
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
        Ok(PartitionClock { actors })
    }
}
