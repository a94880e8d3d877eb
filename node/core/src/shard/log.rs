//! The dot log: which dots were seen with which key, in the order of commits.
//!
//! A clock says which writes a replica has seen; the log says which keys they were to, and is what
//! a clock is rebuilt from after a crash: its last checkpoint, and every record after that. It is
//! written in the same commit as the objects. Invariant (I3): a dot is in the clock if and only if
//! the state that accounts for it is in the same or an earlier commit.
//!
//! **One record per group commit**, for all partitions of the shard together, because a row costs as
//! much as an object's, and with hundreds of partitions nearly every write of a batch falls into
//! another one. Records lie in a *stream* per shard, named after the number of shards too: with
//! another number, partitions belong to other shards, which must not mix their records.
//!
//! **Segments and checkpoints**: when the records that a start would read grow old, partitions are
//! dealt with one after the other, a few in each commit, so that none becomes long: a partition's
//! entries go into [segments](segment), sorted by dot, and its clock is checkpointed in the same commit.
//! Invariant: what a checkpoint has seen is in segments, so a start reads the records for the rest.
//! Behind the stream's *mark* every record has been dealt with for every partition that it speaks
//! of, and is deleted. Records may speak of partitions that this shard does not hold any more, and
//! may hold again: their clocks are kept and checkpointed in the same way.
//!
//! **Questions**: [`ShardLog::find`] says which keys some dots were to, from memory for the records
//! after the mark and from segments for the rest. That is what gap repair asks for.
//!
//! A record: count (varint), then per entry the partition (4 bytes), the dot (actor 8 bytes, counter
//! varint), the clock reading (8 bytes), the bucket (4 bytes), whether there is more to forget (1 byte:
//! 0 or 1), the key (length, bytes); at the end a crc32c.
//!
//! **Forgetting**: entries of dots that every replica has go (`stable`): from memory at once, and
//! from segments when all of one may go. So what is stable soon is never sorted.

mod forget;
mod recent;
mod rows;
pub mod segment;
mod sort;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{BucketId, Hlc, Partition};

use crate::clock::{DotSet, PartitionClock};
use crate::keys::{SEGMENTS_BEGIN, log_key, log_mark_key};
use crate::shard::account::Account;
use crate::shard::partition::PartitionState;
use crate::store::{Store, StoreError, Table};

use recent::Recent;
pub use rows::decode_record;
pub(super) use rows::{checked, read_flag, seal};
use rows::{encode_record, key_parts, next_key, read_checkpoint, read_mark, read_size};
use segment::Place;

/// Log rows read at a time when clocks are rebuilt. Arbitrary: about a megabyte.
const REBUILD_ROWS: usize = 256;

/// Bytes of entries that one commit sorts into segments, about, and partitions that it deals with:
/// a few milliseconds' work, and more than a commit adds.
const SORTED_BYTES: usize = 128 << 10;
const SORTED_PARTITIONS: usize = 4;

/// The highest sequence that a record can have: a million commits a second take half a million years
/// to get there. Above it is damage, and counting on from it would overflow.
const SEQUENCE_MAX: u64 = 1 << 63;

/// A dot seen with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The key's partition.
    pub partition: Partition,
    /// The dot.
    pub dot: Dot,
    /// The write's clock reading; 0 where only a context named the dot.
    pub hlc: Hlc,
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: Bytes,
    /// Whether the key's object had something to forget then, beside what was alive: it is looked at
    /// when the dot is stable.
    pub has_more: bool,
}

/// When records are sorted into segments.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// So many records, the open batch's included, are left at most to be read at a start, about.
    pub records: u32,
    /// Records are dealt with early when their entries take more memory than this.
    pub bytes: usize,
    /// Segments are cut, the oldest first, when all of them take more than this.
    pub segments: u64,
}

/// Which keys some dots were to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The keys, in the order of the dots, each with those of the dots that were to it.
    pub keys: Vec<(BucketId, Bytes, DotSet)>,
    /// Dots that the log does not know any more.
    pub cut: DotSet,
}

/// What the open batch does to one partition's entries.
#[derive(Debug)]
struct Sorted {
    partition: Partition,
    /// All of them go into segments, those of the open batch too, and the clock is checkpointed.
    whole: bool,
    dots: Vec<Dot>,
    /// What the partition's segments take then.
    size: u64,
}

/// What the open batch does besides adding entries.
#[derive(Debug, Default)]
struct Staged {
    sorted: Vec<Sorted>,
    /// What a partition's segments take after some were cut.
    cut: Option<(Partition, u64)>,
    mark: u64,
    /// Whether the batch has a record.
    recorded: bool,
}

/// One shard's stream of the log.
#[derive(Debug)]
pub struct ShardLog {
    stream: u32,
    /// The sequence of the last record.
    sequence: u64,
    /// Nothing up to this record is needed.
    mark: u64,
    /// The records after the mark.
    records: BTreeSet<u64>,
    /// What they say and segments do not.
    recent: Recent,
    /// Clocks of partitions that records of this stream speak of and that this shard did not hold
    /// when it was read: kept until their next checkpoint.
    others: BTreeMap<Partition, PartitionClock>,
    /// What the open batch adds.
    pending: Vec<LogEntry>,
    /// Partitions that have adopted a clock in the open batch.
    adopted: BTreeSet<Partition>,
    /// Partitions whose accounts the open batch changes.
    accounted: BTreeSet<Partition>,
    /// Partitions of which the disk has lost something.
    doubted: BTreeSet<Partition>,
    /// Segments that the open batch deletes.
    trimmed: BTreeMap<Partition, Vec<Vec<u8>>>,
    /// What the segments of each partition take, bytes, and all of them.
    sizes: BTreeMap<Partition, u64>,
    size: u64,
    staged: Staged,
}

impl ShardLog {
    /// The log of one shard of so many, before anything has been loaded.
    #[must_use]
    pub fn new(shard: usize, shards: usize) -> ShardLog {
        ShardLog {
            // Both are small: a node has at most some hundred threads.
            stream: (shards as u32) << 16 | shard as u32 & 0xffff,
            sequence: 0,
            mark: 0,
            records: BTreeSet::new(),
            recent: Recent::default(),
            others: BTreeMap::new(),
            pending: Vec::new(),
            adopted: BTreeSet::new(),
            accounted: BTreeSet::new(),
            doubted: BTreeSet::new(),
            trimmed: BTreeMap::new(),
            sizes: BTreeMap::new(),
            size: 0,
            staged: Staged::default(),
        }
    }

    /// The disk has lost something of this partition: what it says has been seen may be gone. Of its
    /// records nothing is believed from now on, but the objects that are there.
    pub fn doubt(&mut self, partition: Partition) {
        self.doubted.insert(partition);
    }

    /// The partition was taken whole from another replica.
    pub fn trust(&mut self, partition: Partition) {
        self.doubted.remove(&partition);
    }

    /// Rebuilds the clocks of these partitions: checkpoints, then all streams' records after their
    /// marks. What the records say of others that are `held` is known already.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a checkpoint or a record is damaged, or what the store reports.
    pub fn load<S: Store>(
        &mut self,
        partitions: &BTreeSet<Partition>,
        held: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) -> Result<BTreeMap<Partition, PartitionState>, StoreError> {
        let (mut clocks, mut accounts) = (BTreeMap::new(), BTreeMap::new());
        for &partition in partitions {
            if self.doubted.contains(&partition) {
                clocks.insert(partition, PartitionClock::default());
                accounts.insert(partition, Some(Account::default()));
            } else {
                clocks.insert(partition, read_checkpoint(partition, store)?);
                accounts.insert(partition, Account::read(partition, store)?);
            }
            self.resize(partition, read_size(partition, store)?);
        }
        let end = SEGMENTS_BEGIN;
        let mut from = log_key(0, 0);
        let mut stream = None;
        loop {
            let rows = store.scan(Table::Log, &from, &end, REBUILD_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            let (of, sequence) = key_parts(last)?;
            from = next_key(of, sequence);
            for (key, record) in &rows {
                let (of, sequence) = key_parts(key)?;
                if stream != Some(of) {
                    // A stream begins: go on after its mark, leaving the rest of these rows.
                    stream = Some(of);
                    let mark = read_mark(of, store)?;
                    if mark >= sequence {
                        from = next_key(of, mark);
                        break;
                    }
                }
                if of == self.stream {
                    self.sequence = self.sequence.max(sequence);
                    self.records.insert(sequence);
                }
                self.replay(record, (&mut clocks, held), ((of, sequence), store))?;
            }
        }
        // Also where all records before the mark are gone: a sequence is never used again.
        self.mark = self.mark.max(read_mark(self.stream, store)?);
        self.sequence = self.sequence.max(self.mark);
        if self.sequence > SEQUENCE_MAX {
            let (stream, sequence) = (self.stream, self.sequence);
            return Err(StoreError::Corrupt(format!("dot log stream {stream}: record {sequence}")));
        }
        self.others.retain(|partition, _| !clocks.contains_key(partition));
        let mut state = |(partition, clock)| {
            let account = accounts.remove(&partition).flatten();
            (partition, PartitionState::new(clock, account))
        };
        Ok(clocks.into_iter().map(&mut state).collect())
    }

    fn replay<S: Store>(
        &mut self,
        record: &[u8],
        (clocks, held): (
            &mut BTreeMap<Partition, PartitionClock>,
            &BTreeMap<Partition, PartitionState>,
        ),
        ((stream, sequence), store): ((u32, u64), &mut S),
    ) -> Result<(), StoreError> {
        let is_own = stream == self.stream;
        let entries = decode_record(record)
            .map_err(|error| StoreError::Corrupt(format!("dot log record: {error}")))?;
        for entry in entries {
            if self.doubted.contains(&entry.partition) {
                continue;
            }
            let clock = if let Some(clock) = clocks.get_mut(&entry.partition) {
                clock
            } else if is_own && !held.contains_key(&entry.partition) {
                match self.others.entry(entry.partition) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(read_checkpoint(entry.partition, store)?),
                }
            } else {
                continue;
            };
            // What a checkpoint has seen is in segments. Another stream's records are left as they
            // are: for their entries it is always time.
            if clock.insert(entry.dot) {
                self.recent.add(if is_own { sequence } else { 0 }, entry);
            }
        }
        Ok(())
    }

    /// Whether the open batch adds anything.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
            || !self.adopted.is_empty()
            || !self.accounted.is_empty()
            || !self.trimmed.is_empty()
    }

    /// The open batch changes a partition's account.
    pub fn account(&mut self, partition: Partition) {
        self.accounted.insert(partition);
    }

    /// The open batch adopts another replica's clock, of which the log knows nothing.
    pub fn adopt(&mut self, partition: Partition) {
        self.adopted.insert(partition);
    }

    /// The partitions that have adopted a clock in the open batch.
    #[must_use]
    pub fn adopted(&self) -> &BTreeSet<Partition> {
        &self.adopted
    }

    /// The partition of which the open batch cuts segments.
    #[must_use]
    pub fn cut(&self) -> Option<Partition> {
        self.staged.cut.map(|(partition, _)| partition)
    }

    /// What all segments take, bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.size
    }

    /// Adds an entry to the open batch.
    pub fn push(&mut self, entry: LogEntry) {
        self.pending.push(entry);
    }

    /// What the open batch adds.
    #[must_use]
    pub fn pending(&self) -> &[LogEntry] {
        &self.pending
    }

    /// What the entries take in memory, about, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.recent.bytes()
    }

    /// What one partition's entries take of that.
    #[must_use]
    pub fn bytes_of(&self, partition: Partition) -> usize {
        self.recent.bytes_of(partition)
    }

    /// Gives up the open batch: the partitions it concerned.
    pub fn roll_back(&mut self) -> BTreeSet<Partition> {
        self.staged = Staged::default();
        let mut concerned = std::mem::take(&mut self.adopted);
        concerned.append(&mut self.accounted);
        concerned.extend(std::mem::take(&mut self.trimmed).into_keys());
        concerned.extend(self.pending.drain(..).map(|entry| entry.partition));
        concerned
    }

    /// Stages the batch's record, and sorts into segments what is due.
    pub fn stage<S: Store>(
        &mut self,
        limits: LogLimits,
        partitions: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) {
        if !self.has_pending() {
            return;
        }
        self.sequence += u64::from(!self.pending.is_empty());
        self.stage_trimmed(store);
        let before = (self.sequence + 1).saturating_sub(limits.records.into());
        let excess = self.recent.bytes().saturating_sub(limits.bytes);
        self.sort((before, excess, SORTED_PARTITIONS), partitions, store);
        let is_sorted = |entry: &LogEntry| self.is_sorted(entry.partition);
        self.staged.recorded = !self.pending.iter().all(is_sorted);
        if self.staged.recorded {
            let record = encode_record(&self.pending);
            store.stage_put(Table::Log, &log_key(self.stream, self.sequence), &record);
        }
        for &partition in &self.accounted {
            if let Some(state) = partitions.get(&partition) {
                state.account().stage(partition, store);
            }
        }
        self.stage_cut(limits.segments, partitions, store);
        self.stage_mark(store);
    }

    /// Stages some of what is not in segments yet, for a clean stop. Says whether that was all.
    pub fn stage_rest<S: Store>(
        &mut self,
        partitions: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) -> bool {
        self.sort((u64::MAX, usize::MAX, usize::MAX), partitions, store);
        self.stage_mark(store);
        let is_done = |(_, partition)| self.is_sorted(partition);
        self.recent.by_age().all(is_done)
    }

    /// After a commit: what was pending is in the log.
    pub fn committed(&mut self) {
        let staged = std::mem::take(&mut self.staged);
        let mut whole = BTreeSet::new();
        for Sorted { partition, whole: is_whole, dots, size } in staged.sorted {
            self.resize(partition, size);
            if is_whole {
                self.recent.remove(partition);
                self.others.remove(&partition);
                whole.insert(partition);
            } else {
                self.recent.remove_dots(partition, &dots);
            }
        }
        for entry in self.pending.drain(..) {
            if !whole.contains(&entry.partition) {
                self.recent.add(self.sequence, entry);
            }
        }
        if let Some((partition, size)) = staged.cut {
            self.resize(partition, size);
        }
        self.adopted.clear();
        self.accounted.clear();
        self.trimmed.clear();
        if staged.recorded {
            self.records.insert(self.sequence);
        }
        if staged.mark > self.mark {
            self.mark = staged.mark;
            self.records = self.records.split_off(&(self.mark + 1));
        }
    }

    /// Says which keys these dots, of a partition's clock, were to: up to `dots_max` of them, the
    /// first ones. Those of the open batch are left out.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a segment is damaged, or what the store reports.
    pub fn find<S: Store>(
        &self,
        partition: Partition,
        (wanted, dots_max): (&DotSet, u64),
        store: &mut S,
    ) -> Result<Keys, StoreError> {
        let mut found = Finding::default();
        let of_partition = self.pending.iter().filter(|entry| entry.partition == partition);
        let mut open = DotSet::new();
        of_partition.for_each(|entry| _ = open.insert(entry.dot));
        let mut left = dots_max;
        for (actor, first, last) in wanted.spans() {
            if left == 0 {
                break;
            }
            let last = last.min(first.saturating_add(left - 1));
            left -= last - first + 1;
            let mut span = DotSet::new();
            span.insert_range(actor, first, last);
            let mut here = DotSet::new();
            for (dot, place) in self.recent.range(partition, actor, first..=last) {
                here.insert(dot);
                found.add(dot, place.clone());
            }
            let mut missing = span.without(&here).without(&open);
            let what = (actor, first, last);
            segment::find(partition, what, &mut missing, store, |dot, place| {
                found.add(dot, place);
            })?;
            found.keys.cut.merge(&missing);
        }
        Ok(found.keys)
    }

    fn is_sorted(&self, partition: Partition) -> bool {
        self.staged.sorted.iter().any(|sorted| sorted.whole && sorted.partition == partition)
    }

    /// Stages how far the log is dealt with, and the removal of the records behind that.
    fn stage_mark<S: Store>(&mut self, store: &mut S) {
        let needed = self.recent.by_age().find(|&(_, partition)| !self.is_sorted(partition));
        let open = self.staged.recorded.then_some(self.sequence);
        let first = needed.map(|(oldest, _)| oldest).into_iter().chain(open).min();
        let mark = first.map_or(self.sequence, |first| first.saturating_sub(1));
        if mark <= self.mark {
            return;
        }
        self.staged.mark = mark;
        store.stage_put(Table::Meta, &log_mark_key(self.stream), &mark.to_be_bytes());
        for &record in self.records.range(..=mark) {
            store.stage_delete(Table::Log, &log_key(self.stream, record));
        }
    }
}

/// An answer in the making.
#[derive(Debug, Default)]
struct Finding {
    keys: Keys,
    at: BTreeMap<(BucketId, Bytes), usize>,
}

impl Finding {
    fn add(&mut self, dot: Dot, place: Place) {
        let keys = &mut self.keys.keys;
        let key = (place.bucket, place.key);
        let at = *self.at.entry(key).or_insert_with_key(|(bucket, key)| {
            keys.push((*bucket, key.clone(), DotSet::new()));
            keys.len() - 1
        });
        keys[at].2.insert(dot);
    }
}

#[cfg(test)]
mod tests;
