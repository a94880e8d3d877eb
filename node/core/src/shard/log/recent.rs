//! The entries of the log that no segment has yet: those of the records that a start would read.
//!
//! Per partition, so that one partition's entries can be sorted out of the records and its clock
//! be checkpointed together, and by age, because a record can go when every partition that it
//! speaks of has come so far.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use holm_protocol::dot::Dot;
use holm_protocol::ids::Partition;

use super::LogEntry;
use super::segment::Place;

/// What an entry takes in memory besides its key, bytes. Measured generously.
const ENTRY_OVERHEAD_BYTES: usize = 72;

/// One partition's entries.
#[derive(Debug, Default)]
struct Part {
    /// The first record that speaks of the partition and is needed for it.
    oldest: u64,
    entries: BTreeMap<Dot, Place>,
    bytes: usize,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Recent {
    parts: BTreeMap<Partition, Part>,
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
            Part { oldest: record, entries: BTreeMap::new(), bytes: 0 }
        });
        if record < part.oldest {
            self.by_age.remove(&(part.oldest, partition));
            self.by_age.insert((record, partition));
            part.oldest = record;
        }
        let place = Place { hlc, bucket, key, has_more };
        let more = cost(&place);
        let less = part.entries.insert(dot, place).map_or(0, |before| cost(&before));
        part.bytes = part.bytes + more - less;
        self.bytes = self.bytes + more - less;
    }

    /// Partitions with the first record that is needed for each, oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (u64, Partition)> + '_ {
        self.by_age.iter().copied()
    }

    /// A partition's entries, by dot.
    pub(super) fn entries(&self, partition: Partition) -> impl Iterator<Item = (Dot, &Place)> {
        let part = self.parts.get(&partition).into_iter();
        part.flat_map(|part| &part.entries).map(|(dot, place)| (*dot, place))
    }

    /// A partition's entries of these dots.
    pub(super) fn range(
        &self,
        partition: Partition,
        dots: RangeInclusive<Dot>,
    ) -> impl Iterator<Item = (Dot, &Place)> {
        let part = self.parts.get(&partition).into_iter();
        part.flat_map(move |part| part.entries.range(dots.clone()))
            .map(|(dot, place)| (*dot, place))
    }

    /// A partition's entry of a dot.
    pub(super) fn get(&self, partition: Partition, dot: Dot) -> Option<&Place> {
        self.parts.get(&partition)?.entries.get(&dot)
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
            let less = part.entries.remove(dot).map_or(0, |place| cost(&place));
            part.bytes -= less;
            self.bytes -= less;
        }
    }
}

fn cost(place: &Place) -> usize {
    place.key.len() + ENTRY_OVERHEAD_BYTES
}
