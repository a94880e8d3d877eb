//! From records to segments: what is old is sorted by dot, and what is too much is cut.

use std::collections::BTreeMap;

use holm_protocol::dot::Dot;
use holm_protocol::ids::Partition;

use super::rows::encode_checkpoint;
use super::segment::{self, Place};
use super::{LogEntry, SORTED_BYTES, ShardLog, Sorted};
use crate::keys::{checkpoint_key, segments_size_key};
use crate::shard::partition::PartitionState;
use crate::store::{Store, Table};

impl ShardLog {
    /// Stages segments: of up to so many partitions, those with records before `before` and, as long
    /// as there are `excess` bytes too many, others; the oldest first.
    pub(super) fn sort<S: Store>(
        &mut self,
        (before, mut excess, count): (u64, usize, usize),
        partitions: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) {
        let pending: usize = self.pending.iter().map(|entry| entry.key.len() + 24).sum();
        let mut budget = SORTED_BYTES.max(2 * pending);
        let mut sorted = Vec::new();
        // An adopted clock has dots that no record has: it is checkpointed at once, and what that has
        // seen must be in segments.
        for &partition in &self.adopted {
            let Some(state) = partitions.get(&partition) else { continue };
            let (part, _) = self.sort_partition(partition, usize::MAX, store);
            let row = encode_checkpoint(state.clock());
            store.stage_put(Table::Meta, &checkpoint_key(partition), &row);
            sorted.push(part);
        }
        let others = self.recent.by_age().filter(|(_, p)| !self.adopted.contains(p));
        for (oldest, partition) in others.take(count) {
            if budget == 0 || (oldest > before && excess == 0) {
                break;
            }
            let clock = partitions.get(&partition).map(PartitionState::clock);
            let Some(clock) = clock.or_else(|| self.others.get(&partition)) else { continue };
            let (part, bytes) = self.sort_partition(partition, budget, store);
            if part.whole {
                store.stage_put(Table::Meta, &checkpoint_key(partition), &encode_checkpoint(clock));
            }
            budget = budget.saturating_sub(bytes);
            excess = excess.saturating_sub(bytes);
            sorted.push(part);
        }
        self.staged.sorted = sorted;
    }

    /// Stages segments of a partition's entries, up to about so many bytes.
    fn sort_partition<S: Store>(
        &self,
        partition: Partition,
        budget: usize,
        store: &mut S,
    ) -> (Sorted, usize) {
        let mut entries: Vec<(Dot, &Place)> = Vec::new();
        let mut bytes = 0;
        let mut whole = true;
        for (dot, place) in self.recent.entries(partition) {
            if bytes >= budget {
                whole = false;
                break;
            }
            bytes += place.bytes();
            entries.push((dot, place));
        }
        let dots = entries.iter().map(|(dot, _)| *dot).collect();
        let open: Vec<(Dot, Place)> = match whole {
            true => self.pending.iter().filter(|e| e.partition == partition).map(placed).collect(),
            false => Vec::new(),
        };
        entries.extend(open.iter().map(|(dot, place)| (*dot, place)));
        entries.sort_unstable_by_key(|(dot, _)| *dot);
        let staged = segment::stage(partition, &entries, store);
        let size = self.sizes.get(&partition).map_or(0, |size| *size) + staged;
        store.stage_put(Table::Meta, &segments_size_key(partition), &size.to_be_bytes());
        (Sorted { partition, whole, dots, size }, bytes)
    }

    pub(super) fn resize(&mut self, partition: Partition, size: u64) {
        let before = self.sizes.insert(partition, size).unwrap_or(0);
        self.size = self.size - before + size;
    }

    /// Stages the removal of the oldest segments of the partition that has the most of them, if all
    /// take more than this.
    pub(super) fn stage_cut<S: Store>(
        &mut self,
        segments: u64,
        partitions: &BTreeMap<Partition, PartitionState>,
        store: &mut S,
    ) {
        let is_untouched = |p: &Partition| {
            !self.trimmed.contains_key(p) && self.staged.sorted.iter().all(|it| it.partition != *p)
        };
        let excess = self.size.saturating_sub(segments);
        let sizes = self.sizes.iter().filter(|(partition, _)| is_untouched(partition));
        let largest = sizes.max_by_key(|(_, size)| **size).filter(|_| excess > 0);
        let Some((&partition, &size)) = largest else { return };
        let Some(state) = partitions.get(&partition) else { return };
        // A disk that cannot be read now is cut later.
        let Ok(cut) = segment::stage_cut(partition, state.clock(), excess, store) else { return };
        // Where there is none, the size was wrong.
        let size = if cut == 0 { 0 } else { size.saturating_sub(cut) };
        store.stage_put(Table::Meta, &segments_size_key(partition), &size.to_be_bytes());
        self.staged.cut = Some((partition, size));
    }
}

fn placed(entry: &LogEntry) -> (Dot, Place) {
    let LogEntry { dot, hlc, bucket, key, has_more, .. } = entry;
    (*dot, Place { hlc: *hlc, bucket: *bucket, key: key.clone(), has_more: *has_more })
}
