//! A set of counters, as the prefix `1..=prefix` and ranges beyond it.
//!
//! Invariants, by which equal sets have equal representations:
//! 1. ranges ascend, and between two of them, and between the prefix and the first, at least one
//!    counter is missing;
//! 2. a range's ends are both in the set, and the first is not above the last;
//! 3. 0 is not a counter.

use bytes::BufMut;
use holm_protocol::wire::{Reader, WireError, put_varint};

/// The most ranges of one set that a decoder takes. A set this ragged means that a million-write
/// stretch arrived with every sixteenth write missing; arbitrary beyond that.
pub const RANGES_MAX: usize = 1 << 16;

/// A range takes at least this many encoded bytes.
const RANGE_BYTES_MIN: usize = 2;

/// Counters, from 1 up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntervalSet {
    prefix: u64,
    /// First and last counter of each range, both included.
    ranges: Vec<(u64, u64)>,
}

impl FromIterator<u64> for IntervalSet {
    /// The set of these counters.
    fn from_iter<T: IntoIterator<Item = u64>>(counters: T) -> IntervalSet {
        let mut set = IntervalSet::new();
        counters.into_iter().for_each(|counter| _ = set.insert(counter));
        set
    }
}

impl IntervalSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> IntervalSet {
        IntervalSet { prefix: 0, ranges: Vec::new() }
    }

    /// The counters `1..=prefix`.
    #[must_use]
    pub const fn from_prefix(prefix: u64) -> IntervalSet {
        IntervalSet { prefix, ranges: Vec::new() }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefix == 0 && self.ranges.is_empty()
    }

    /// Up to where everything is in it; 0 if 1 is not.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// The highest counter in it; 0 if it is empty.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.ranges.last().map_or(self.prefix, |range| range.1)
    }

    /// The ranges beyond the prefix, ascending, both ends included.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// How many counters are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().fold(self.prefix, |sum, (first, last)| sum + (last - first + 1))
    }

    /// Whether the counter is in it.
    #[must_use]
    pub fn contains(&self, counter: u64) -> bool {
        counter != 0 && self.contains_range(counter, counter)
    }

    /// Adds a counter; true if it was not there. 0 is not a counter.
    pub fn insert(&mut self, counter: u64) -> bool {
        if counter.checked_sub(1) == Some(self.prefix) {
            // In order, as nearly always.
            self.prefix = counter;
            self.absorb();
            return true;
        }
        if counter == 0 || self.contains(counter) {
            return false;
        }
        self.insert_range(counter, counter);
        true
    }

    /// Adds the counters `first..=last`; none if `first` is above `last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        let first = first.max(1);
        if first > last {
            return;
        }
        if first - 1 <= self.prefix {
            self.prefix = self.prefix.max(last);
            self.absorb();
            return;
        }
        // Ranges from `start` to before `end` overlap or touch the new one.
        let start = self.ranges.partition_point(|range| range.1 < first - 1);
        let end = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        if start == end {
            self.ranges.insert(start, (first, last));
            return;
        }
        let joined = (first.min(self.ranges[start].0), last.max(self.ranges[end - 1].1));
        self.ranges[start] = joined;
        self.ranges.drain(start + 1..end);
    }

    /// Adds what is in `other`. About linear in the ranges of both.
    pub fn merge(&mut self, other: &IntervalSet) {
        self.insert_range(1, other.prefix);
        // Two ascending runs: the sort finds them and merges in linear time. Each range then joins
        // the last one or follows it.
        let mut both = std::mem::take(&mut self.ranges);
        both.extend_from_slice(&other.ranges);
        both.sort();
        for (first, last) in both {
            self.insert_range(first, last);
        }
    }

    /// What is in this set and not in `other`: ranges, both ends included, ascending, with a
    /// counter missing between any two.
    #[must_use]
    pub fn difference(&self, other: &IntervalSet) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut theirs = other.spans().peekable();
        for (first, last) in self.spans() {
            // The first counter of this span that is not dealt with; none after the highest.
            let mut rest = Some(first);
            while let Some(from) = rest {
                while theirs.next_if(|their| their.1 < from).is_some() {}
                match theirs.peek() {
                    Some(&(their_first, their_last)) if their_first <= last => {
                        if from < their_first {
                            out.push((from, their_first - 1));
                        }
                        rest = their_last.checked_add(1).filter(|next| *next <= last);
                    }
                    _ => {
                        out.push((from, last));
                        rest = None;
                    }
                }
            }
        }
        out
    }

    /// Whether everything in `other` is in this set.
    #[must_use]
    pub fn covers(&self, other: &IntervalSet) -> bool {
        other.spans().all(|(first, last)| self.contains_range(first, last))
    }

    /// Appends the encoding: prefix and range count (varints), then per range how many counters
    /// more than one are missing before it, and how many more than one are in it (varints). Any
    /// such numbers name one set, and one set has one encoding.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_varint(out, self.prefix);
        put_varint(out, self.ranges.len() as u64);
        let mut end = self.prefix;
        for &(first, last) in &self.ranges {
            put_varint(out, first - end - 2);
            put_varint(out, last - first);
            end = last;
        }
    }

    /// Reads what [`IntervalSet::encode`] wrote.
    ///
    /// # Errors
    /// The input is never trusted; nothing is built if
    /// - [`WireError::TooLong`]: more than [`RANGES_MAX`] ranges (checked before allocating),
    /// - [`WireError::Truncated`]: bytes are missing,
    /// - [`WireError::Invalid`]: a range would end past the highest counter.
    pub fn decode(reader: &mut Reader<'_>) -> Result<IntervalSet, WireError> {
        let prefix = reader.varint("clock prefix")?;
        let count = reader.length("clock ranges", RANGES_MAX)?;
        let missing = count.saturating_mul(RANGE_BYTES_MIN).saturating_sub(reader.left().len());
        if missing > 0 {
            return Err(WireError::Truncated { missing });
        }
        let mut ranges = Vec::with_capacity(count);
        let mut end = prefix;
        for _ in 0..count {
            let gap = reader.varint("clock gap")?;
            let length = reader.varint("clock range")?;
            let first = end.checked_add(2).and_then(|first| first.checked_add(gap));
            let last = first.and_then(|first| first.checked_add(length));
            let (Some(first), Some(last)) = (first, last) else {
                return Err(WireError::Invalid { field: "clock range", got: length });
            };
            ranges.push((first, last));
            end = last;
        }
        Ok(IntervalSet { prefix, ranges })
    }

    /// The prefix, if there is one, and the ranges: first and last counter of each, both included,
    /// ascending.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let prefix = (self.prefix > 0).then_some((1, self.prefix));
        prefix.into_iter().chain(self.ranges.iter().copied())
    }

    /// Whether all of `first..=last` is in the set: then it lies within one span, since between
    /// two a counter is missing.
    fn contains_range(&self, first: u64, last: u64) -> bool {
        if last <= self.prefix {
            return true;
        }
        let after = self.ranges.partition_point(|range| range.0 <= first);
        after > 0 && last <= self.ranges[after - 1].1
    }

    /// Draws into the prefix the ranges that it has reached.
    fn absorb(&mut self) {
        let reached = |prefix: u64, range: &(u64, u64)| range.0 <= prefix.saturating_add(1);
        let mut count = 0;
        while let Some(range) = self.ranges.get(count).filter(|r| reached(self.prefix, r)) {
            self.prefix = self.prefix.max(range.1);
            count += 1;
        }
        self.ranges.drain(..count);
    }
}
