//! What a state accounts for, as one counter per actor.
//!
//! A [`VersionVector`] covers a [`Dot`] if its counter for that actor is at least the dot's. As an
//! object's causal context it covers every dot of the key that the object accounts for, alive or
//! overwritten, and each of its entries is itself such a dot. It also covers dots it does not
//! name: writes of the same actor to other keys, and earlier ones to this key. Which dots have
//! arrived is therefore the partition clock's business, not a version vector's.
//!
//! Invariants: actors strictly ascending, no counter is 0. One vector has one representation and
//! one encoding.
//!
//! Source: Parker et al., "Detection of mutual inconsistency in distributed systems", IEEE TSE
//! 1983; their use as contexts of dots: Preguiça, Baquero, Almeida, Fonte, Gonçalves, PODC 2012.

use std::cmp::Ordering;

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::dot::Dot;
use crate::ids::Actor;
use crate::wire::{Reader, WireError, put_varint};

/// An entry takes at least this many encoded bytes: the actor and a one-byte counter.
const ENTRY_BYTES_MIN: usize = 9;

/// How two histories stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Both cover the same dots.
    Equal,
    /// The first covers less than the second.
    Before,
    /// The first covers more than the second.
    After,
    /// Each covers a dot that the other does not.
    Concurrent,
}

/// Per actor, the highest counter accounted for. An actor that is not named has counter 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Actor, u64)>", into = "Vec<(Actor, u64)>")]
pub struct VersionVector {
    entries: Vec<(Actor, u64)>,
}

impl VersionVector {
    /// A vector that covers nothing.
    #[must_use]
    pub const fn new() -> VersionVector {
        VersionVector { entries: Vec::new() }
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many actors it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The highest counter of `actor`; 0 if it is not named.
    #[must_use]
    pub fn get(&self, actor: Actor) -> u64 {
        self.position(actor).map_or(0, |at| self.entries[at].1)
    }

    /// Whether the dot is accounted for.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Covers `dot` and what its actor wrote before it. A counter of 0 adds nothing.
    pub fn insert(&mut self, dot: Dot) {
        if dot.counter == 0 {
            return;
        }
        match self.position(dot.actor) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(dot.counter),
            Err(at) => self.entries.insert(at, (dot.actor, dot.counter)),
        }
    }

    /// Covers what either covers: the maximum per actor.
    pub fn merge(&mut self, other: &VersionVector) {
        let mut missing = 0;
        let mut at = 0;
        for &(actor, counter) in &other.entries {
            while self.entries.get(at).is_some_and(|own| own.0 < actor) {
                at += 1;
            }
            match self.entries.get_mut(at) {
                Some(own) if own.0 == actor => own.1 = own.1.max(counter),
                _ => missing += 1,
            }
        }
        if missing > 0 {
            self.adopt_missing(other, missing);
        }
    }

    /// Adds the `missing` entries of `other` whose actors are not named here, in linear time:
    /// a peer's longest vector must not cost a shard milliseconds.
    fn adopt_missing(&mut self, other: &VersionVector, missing: usize) {
        let merged = Vec::with_capacity(self.entries.len() + missing);
        let own = std::mem::replace(&mut self.entries, merged);
        let mut theirs = other.entries.iter().copied().peekable();
        for entry in own {
            while let Some(new) = theirs.next_if(|new| new.0 < entry.0) {
                self.entries.push(new);
            }
            theirs.next_if(|known| known.0 == entry.0);
            self.entries.push(entry);
        }
        self.entries.extend(theirs);
    }

    /// How what this vector covers stands to what `other` covers.
    #[must_use]
    pub fn relation(&self, other: &VersionVector) -> Relation {
        let (mut ours, mut theirs) = (self.entries.as_slice(), other.entries.as_slice());
        let (mut more, mut less) = (false, false);
        loop {
            match (ours, theirs) {
                ([], []) => break,
                ([], _) => {
                    less = true;
                    break;
                }
                (_, []) => {
                    more = true;
                    break;
                }
                ([own, own_rest @ ..], [their, their_rest @ ..]) => match own.0.cmp(&their.0) {
                    Ordering::Less => {
                        more = true;
                        ours = own_rest;
                    }
                    Ordering::Greater => {
                        less = true;
                        theirs = their_rest;
                    }
                    Ordering::Equal => {
                        more |= own.1 > their.1;
                        less |= own.1 < their.1;
                        (ours, theirs) = (own_rest, their_rest);
                    }
                },
            }
        }
        match (more, less) {
            (false, false) => Relation::Equal,
            (false, true) => Relation::Before,
            (true, false) => Relation::After,
            (true, true) => Relation::Concurrent,
        }
    }

    /// The entries as dots, actors ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Dot> + Clone + '_ {
        self.entries.iter().map(|&(actor, counter)| Dot { actor, counter })
    }

    /// The place of an actor's entry among [`VersionVector::iter`]'s, if it is named.
    #[must_use]
    pub fn index_of(&self, actor: Actor) -> Option<usize> {
        self.position(actor).ok()
    }

    /// The entry at a place, as a dot.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<Dot> {
        self.entries.get(index).map(|&(actor, counter)| Dot { actor, counter })
    }

    /// Appends the encoding: entry count (varint), then per entry the actor (8 bytes, big-endian)
    /// and its counter (varint), actors ascending.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_varint(out, self.entries.len() as u64);
        for &(actor, counter) in &self.entries {
            out.put_u64(actor.0);
            put_varint(out, counter);
        }
    }

    /// Reads what [`VersionVector::encode`] wrote. One vector has one encoding.
    ///
    /// # Errors
    /// The input is never trusted; nothing is built if
    /// - [`WireError::TooLong`]: more than `entries_max` entries (checked before allocating),
    /// - [`WireError::Truncated`]: bytes are missing,
    /// - [`WireError::Invalid`]: a counter is 0, or actors do not strictly ascend.
    pub fn decode(reader: &mut Reader<'_>, entries_max: usize) -> Result<Self, WireError> {
        let count = reader.length("version vector entries", entries_max)?;
        let missing = count.saturating_mul(ENTRY_BYTES_MIN).saturating_sub(reader.left().len());
        if missing > 0 {
            return Err(WireError::Truncated { missing });
        }
        let mut entries: Vec<(Actor, u64)> = Vec::with_capacity(count);
        for _ in 0..count {
            let actor = Actor(reader.u64()?);
            let counter = reader.varint("version vector counter")?;
            push_entry(&mut entries, actor, counter)?;
        }
        Ok(VersionVector { entries })
    }

    fn position(&self, actor: Actor) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&actor, |entry| entry.0)
    }
}

/// Appends an entry that keeps the invariants, or says which one it would break.
fn push_entry(
    entries: &mut Vec<(Actor, u64)>,
    actor: Actor,
    counter: u64,
) -> Result<(), WireError> {
    if counter == 0 {
        return Err(WireError::Invalid { field: "version vector counter", got: 0 });
    }
    if entries.last().is_some_and(|last| last.0 >= actor) {
        return Err(WireError::Invalid { field: "version vector actor", got: actor.0 });
    }
    entries.push((actor, counter));
    Ok(())
}

impl TryFrom<Vec<(Actor, u64)>> for VersionVector {
    type Error = WireError;

    fn try_from(raw: Vec<(Actor, u64)>) -> Result<Self, WireError> {
        let mut entries = Vec::with_capacity(raw.len());
        for (actor, counter) in raw {
            push_entry(&mut entries, actor, counter)?;
        }
        Ok(VersionVector { entries })
    }
}

impl From<VersionVector> for Vec<(Actor, u64)> {
    fn from(vector: VersionVector) -> Self {
        vector.entries
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::new();
        for dot in dots {
            vector.insert(dot);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The model: every covered dot, one by one.
    type Covered = BTreeSet<Dot>;

    fn dots() -> impl Strategy<Value = Vec<Dot>> {
        let dot = (1u64..7, 0u64..6).prop_map(|(actor, counter)| Dot::new(Actor(actor), counter));
        prop::collection::vec(dot, 0..10)
    }

    fn covered(dots: &[Dot]) -> Covered {
        dots.iter().flat_map(|d| (1..=d.counter).map(|c| Dot::new(d.actor, c))).collect()
    }

    fn relation(a: &Covered, b: &Covered) -> Relation {
        match (a.is_superset(b), b.is_superset(a)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::After,
            (false, true) => Relation::Before,
            (false, false) => Relation::Concurrent,
        }
    }

    proptest! {
        /// Goal: a vector is the set of dots it covers. Method: build both from the same dots,
        /// compare every question with the set's answer.
        #[test]
        fn vectors_agree_with_dot_sets(a in dots(), b in dots()) {
            let (set_a, set_b) = (covered(&a), covered(&b));
            let vector_a: VersionVector = a.iter().copied().collect();
            let vector_b: VersionVector = b.iter().copied().collect();
            prop_assert_eq!(vector_a.is_empty(), set_a.is_empty());
            prop_assert_eq!(vector_a.relation(&vector_b), relation(&set_a, &set_b));
            let mut merged = vector_a.clone();
            merged.merge(&vector_b);
            let union: Covered = set_a.union(&set_b).copied().collect();
            let entries: Vec<Dot> = merged.iter().collect();
            prop_assert_eq!(covered(&entries), union.clone());
            prop_assert!(entries.is_sorted_by(|x, y| x.actor < y.actor));
            for actor in 1..7 {
                for counter in 1..7 {
                    let dot = Dot::new(Actor(actor), counter);
                    prop_assert_eq!(merged.covers(dot), union.contains(&dot));
                }
            }
        }

        /// Goal: one vector, one encoding. Method: write, read back.
        #[test]
        fn encoding_reads_back(a in dots()) {
            let vector: VersionVector = a.into_iter().collect();
            let mut out = Vec::new();
            vector.encode(&mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(VersionVector::decode(&mut reader, vector.len()), Ok(vector.clone()));
            prop_assert_eq!(reader.finish(), Ok(()));
            if !vector.is_empty() {
                let refused = VersionVector::decode(&mut Reader::new(&out), vector.len() - 1);
                let too_long = matches!(refused, Err(WireError::TooLong { .. }));
                prop_assert!(too_long, "{:?}", refused);
            }
        }

        /// Goal: the decoder is total and accepts nothing but what the encoder writes. Method:
        /// damage an encoding; whatever still reads must encode to the bytes it was read from.
        #[test]
        fn decoder_is_total(a in dots(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let vector: VersionVector = a.into_iter().collect();
            let mut bytes = Vec::new();
            vector.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(1 + cut.index(bytes.len()));
            let mut reader = Reader::new(&bytes);
            if let Ok(read) = VersionVector::decode(&mut reader, 64) {
                let mut again = Vec::new();
                read.encode(&mut again);
                prop_assert_eq!(&bytes[..bytes.len() - reader.left().len()], &again[..]);
            }
        }
    }

    /// Goal: the encoding is a contract between releases. Method: pinned bytes.
    #[test]
    fn encoding_is_pinned() {
        let vector: VersionVector =
            [Dot::new(Actor(0x0102), 300), Dot::new(Actor(1), 1)].into_iter().collect();
        let mut out = Vec::new();
        vector.encode(&mut out);
        assert_eq!(out, [2, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0xac, 2]);
    }

    /// Goal: a vector inside another message comes back whole, and is trusted as little as by itself.
    /// Method: through serde, a good one and one with a counter of 0.
    #[test]
    fn serde_keeps_every_entry() {
        let dots = [Dot::new(Actor(1), 300), Dot::new(Actor(2), 1)];
        let vector: VersionVector = dots.into_iter().collect();
        let bytes = postcard::to_allocvec(&vector).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(vector));
        let bad = postcard::to_allocvec(&vec![(Actor(1), 0u64)]).unwrap();
        assert!(postcard::from_bytes::<VersionVector>(&bad).is_err());
    }

    /// Goal: a count is a promise, for which no room is made before its bytes are there; what is
    /// missing is told. Method: nine bytes for each entry that the count promises.
    #[test]
    fn a_count_alone_is_truncated() {
        let refused = VersionVector::decode(&mut Reader::new(&[100, 1, 2]), 1024);
        assert_eq!(refused, Err(WireError::Truncated { missing: 900 - 2 }));
    }

    /// Goal: neither order nor counters are trusted. Method: each rule broken once.
    #[test]
    fn bad_entries_are_refused() {
        let bad = [vec![(Actor(1), 0)], vec![(Actor(2), 1), (Actor(1), 1)], vec![(Actor(1), 1); 2]];
        for entries in bad {
            assert!(VersionVector::try_from(entries).is_err());
        }
    }
}
