//! The entries of the log that no segment has yet: those of the records that a start would read.
//!
//! Per partition, so that one partition's entries can be sorted out of the records and its clock
//! be checkpointed together, and by age, because a record can go when every partition that it
//! speaks of has come so far.
//!
//! Every write passes through here twice, on every replica: what an actor has written comes nearly in
//! order and is forgotten nearly in order, so each actor's entries are a queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Partition};

use super::LogEntry;
use super::segment::Place;
use crate::map::FixedMap;

/// What an entry takes in memory besides its key, bytes, about: 56 in a queue that is three quarters full,
/// as one that grows by doubling is on average, and its share of the rest.
const ENTRY_OVERHEAD_BYTES: usize = 88;

/// A queue gives memory back when less than a quarter of so many places, or more, is used.
const SPARE_PLACES: usize = 64;

/// An actor's entries, by counter.
type Run = VecDeque<(u64, Place)>;

/// One partition's entries.
#[derive(Debug, Default)]
struct Part {
    /// The first record that speaks of the partition and is needed for it.
    oldest: u64,
    /// None is empty.
    runs: BTreeMap<Actor, Run>,
    bytes: usize,
}

/// Where an actor's entry of a counter is, or belongs.
fn position(run: &Run, counter: u64) -> Result<usize, usize> {
    match run.front() {
        Some((first, _)) if *first == counter => Ok(0),
        _ => run.binary_search_by_key(&counter, |(counter, _)| *counter),
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Recent {
    parts: FixedMap<Partition, Part>,
    by_age: BTreeSet<(u64, Partition)>,
    bytes: usize,
}

impl Recent {
    /// What all of it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What one partition's entries take of that.
    pub(super) fn bytes_of(&self, partition: Partition) -> usize {
        self.parts.get(&partition).map_or(0, |part| part.bytes)
    }

    /// Adds an entry of a record.
    pub(super) fn add(&mut self, record: u64, entry: LogEntry) {
        let LogEntry { partition, dot, hlc, bucket, key, has_more } = entry;
        let part = self.parts.entry(partition).or_insert_with(|| {
            self.by_age.insert((record, partition));
            Part { oldest: record, runs: BTreeMap::new(), bytes: 0 }
        });
        if record < part.oldest {
            self.by_age.remove(&(part.oldest, partition));
            self.by_age.insert((record, partition));
            part.oldest = record;
        }
        let place = Place { hlc, bucket, key, has_more };
        let more = cost(&place);
        let run = part.runs.entry(dot.actor).or_default();
        if run.back().is_none_or(|(last, _)| *last < dot.counter) {
            run.push_back((dot.counter, place));
            part.bytes += more;
            self.bytes += more;
            return;
        }
        let less = match position(run, dot.counter) {
            Ok(at) => cost(&std::mem::replace(&mut run[at].1, place)),
            Err(at) => {
                run.insert(at, (dot.counter, place));
                0
            }
        };
        part.bytes = part.bytes + more - less;
        self.bytes = self.bytes + more - less;
    }

    /// Partitions with the first record that is needed for each, oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (u64, Partition)> + '_ {
        self.by_age.iter().copied()
    }

    /// A partition's entries, by dot.
    pub(super) fn entries(&self, partition: Partition) -> impl Iterator<Item = (Dot, &Place)> {
        let runs = self.parts.get(&partition).into_iter().flat_map(|part| &part.runs);
        runs.flat_map(|(&actor, run)| {
            run.iter().map(move |(counter, place)| (Dot { actor, counter: *counter }, place))
        })
    }

    /// A partition's entries of these dots of an actor.
    pub(super) fn range(
        &self,
        partition: Partition,
        actor: Actor,
        counters: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (Dot, &Place)> {
        let run = self.parts.get(&partition).and_then(|part| part.runs.get(&actor));
        let (first, last) = counters.into_inner();
        let entries = run.into_iter().flat_map(move |run| {
            let (Ok(from) | Err(from)) = position(run, first);
            run.range(from..).take_while(move |(counter, _)| *counter <= last)
        });
        entries.map(move |(counter, place)| (Dot { actor, counter: *counter }, place))
    }

    /// A partition's entry of a dot.
    pub(super) fn get(&self, partition: Partition, dot: Dot) -> Option<&Place> {
        let run = self.parts.get(&partition)?.runs.get(&dot.actor)?;
        position(run, dot.counter).ok().map(|at| &run[at].1)
    }

    /// Lets a partition's entries go: they are in segments.
    pub(super) fn remove(&mut self, partition: Partition) {
        if let Some(part) = self.parts.remove(&partition) {
            self.by_age.remove(&(part.oldest, partition));
            self.bytes -= part.bytes;
        }
    }

    /// Lets some of them go. The records they came from are still needed.
    pub(super) fn remove_dots(&mut self, partition: Partition, dots: &[Dot]) {
        let Some(part) = self.parts.get_mut(&partition) else { return };
        for dot in dots {
            let Some(run) = part.runs.get_mut(&dot.actor) else { continue };
            let removed = position(run, dot.counter).ok().and_then(|at| run.remove(at));
            let less = removed.map_or(0, |(_, place)| cost(&place));
            if run.is_empty() {
                part.runs.remove(&dot.actor);
            } else if run.capacity() >= SPARE_PLACES && run.len() < run.capacity() / 4 {
                run.shrink_to(run.capacity() / 2);
            }
            part.bytes -= less;
            self.bytes -= less;
        }
    }
}

fn cost(place: &Place) -> usize {
    place.key.len() + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use holm_protocol::ids::{BucketId, Hlc, PlacementId};
    use proptest::prelude::*;

    use super::*;

    const PARTITION: Partition = Partition { placement: PlacementId(0), index: 7 };

    fn dot((actor, counter): (u64, u64)) -> Dot {
        Dot { actor: Actor(actor), counter }
    }

    fn entry(dot: Dot, len: usize) -> LogEntry {
        let (key, partition) = (vec![b'k'; len].into(), PARTITION);
        LogEntry { partition, dot, hlc: Hlc(len as u64), bucket: BucketId(1), key, has_more: false }
    }

    proptest! {
        /// Goal: whatever comes and goes in whatever order is found by its dot, and weighed. Method: an
        /// ordered map beside it; each dot is added, added again or removed.
        #[test]
        fn queues_are_maps(
            steps in proptest::collection::vec((1_u64..3, 1_u64..40, 0_usize..20), 0..200),
            (first, last) in (0_u64..45, 0_u64..45),
        ) {
            let (mut recent, mut map) = (Recent::default(), BTreeMap::new());
            for (actor, counter, len) in steps {
                let dot = dot((actor, counter));
                if len < 8 {
                    recent.remove_dots(PARTITION, &[dot]);
                    map.remove(&dot);
                } else {
                    recent.add(len as u64, entry(dot, len));
                    map.insert(dot, len);
                }
            }
            let found: Vec<_> = recent.entries(PARTITION).map(|(dot, it)| (dot, it.key.len())).collect();
            prop_assert_eq!(found, map.iter().map(|(dot, len)| (*dot, *len)).collect::<Vec<_>>());
            let range = recent.range(PARTITION, Actor(1), first..=last).map(|(dot, _)| dot);
            let counters = |of: &&Dot| of.actor == Actor(1) && (first..=last).contains(&of.counter);
            let expected = map.keys().filter(counters).copied();
            prop_assert_eq!(range.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            for at in (0..4).flat_map(|actor| (0..42).map(move |counter| dot((actor, counter)))) {
                let len = recent.get(PARTITION, at).map(|place| place.key.len());
                prop_assert_eq!(len, map.get(&at).copied());
            }
            let bytes: usize = map.values().map(|len| len + ENTRY_OVERHEAD_BYTES).sum();
            prop_assert_eq!((recent.bytes(), recent.bytes_of(PARTITION)), (bytes, bytes));
            recent.remove(PARTITION);
            prop_assert_eq!((recent.bytes(), recent.by_age().count()), (0, 0));
        }
    }

    /// Goal: what a burst took is given back when it is gone.
    #[test]
    fn a_queue_gives_memory_back() {
        let mut recent = Recent::default();
        (1..5_000).for_each(|counter| recent.add(1, entry(dot((1, counter)), 8)));
        let capacity = |recent: &Recent| recent.parts[&PARTITION].runs[&Actor(1)].capacity();
        assert!(capacity(&recent) >= 4_999);
        (1..4_990).for_each(|counter| recent.remove_dots(PARTITION, &[dot((1, counter))]));
        assert!(capacity(&recent) <= SPARE_PLACES, "{}", capacity(&recent));
    }
}
