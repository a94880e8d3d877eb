//! Sweeps: where a part of the log was cut, nothing tells which objects have something to forget, so all
//! rows of the partition are looked at, a slice at a time.
//!
//! That a sweep is owed is in the partition's account, and ends when a whole pass has found nothing that
//! waits. A log is cut when a replica was away for long; as long as it is, nothing becomes forgettable, and
//! nothing is swept.

use bytes::Bytes;

use holm_protocol::ids::{BucketId, Hlc, Partition};
use holm_protocol::version_vector::VersionVector;

use super::{Budget, Looked, has_more};
use crate::keys::OBJECT_KEY_HEAD_LEN;
use crate::object::Object;
use crate::shard::Shard;
use crate::shard::log::segment::Place;
use crate::store::{Store, Table};

/// Rows looked at in one turn.
const ROWS: usize = 256;

/// A pass over a partition.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Where the next slice begins; nothing before the first.
    from: Option<Vec<u8>>,
    /// Whether something that was met waits for a dot.
    waits: bool,
    /// Whether more may be forgotten since the pass began.
    again: bool,
}

impl Sweep {
    /// More may be forgotten.
    pub(super) fn look_again(&mut self) {
        self.again = self.from.is_some();
    }
}

impl Shard {
    /// Whether segments of a partition were cut with what they knew of objects.
    pub(super) fn owes_sweep(&self, partition: Partition) -> bool {
        self.partitions.get(&partition).is_some_and(|state| state.account().is_cut)
    }

    /// Segments of a partition were cut: its rows are to be looked at.
    pub(in crate::shard) fn owe_sweep(&mut self, partition: Partition) {
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        if state.set_cut(true) {
            self.log.account(partition);
        }
        self.stable.sweeps.entry(partition).or_default().look_again();
        self.stable.busy.insert(partition);
        self.stable.look_at(self.stable.not_before);
    }

    /// Looks at the next rows of a partition. Says whether the pass is over.
    pub(super) fn sweep<S: Store>(
        &mut self,
        (partition, forgettable): (Partition, &VersionVector),
        budget: &mut Budget,
        store: &mut S,
    ) -> bool {
        let Some(mut sweep) = self.stable.sweeps.remove(&partition) else { return true };
        let first = partition.to_u32().to_be_bytes().to_vec();
        let end = partition.to_u32().checked_add(1);
        let end = end.map_or(vec![0xff; 5], |end| end.to_be_bytes().to_vec());
        let limit = ROWS.min(budget.entries).min(budget.objects).max(1);
        let from = sweep.from.take().unwrap_or(first);
        let Ok(rows) = store.scan(Table::Objects, &from, &end, limit) else {
            self.counters.scans_failed += 1;
            self.stable.fail(partition);
            return true;
        };
        let is_end = rows.len() < limit;
        budget.entries = budget.entries.saturating_sub(rows.len());
        for (row, object) in rows {
            if Object::decode(&object).is_err() {
                self.counters.corrupt_objects += 1;
                self.stable.fail(partition);
                sweep.waits = true;
            } else if let Some(place) = place_to_forget(&row, &object, self.config.context_slack) {
                budget.objects = budget.objects.saturating_sub(1);
                let looked = self.forget_in_object((partition, &place), forgettable, store);
                sweep.waits |= matches!(looked, Looked::Waits(_));
            }
            let mut next = row;
            next.push(0);
            sweep.from = Some(next);
        }
        if !is_end {
            self.stable.sweeps.insert(partition, sweep);
            return false;
        }
        if sweep.waits || sweep.again || self.stable.failed.contains(&partition) {
            let is_over = !sweep.again;
            self.stable.sweeps.insert(partition, Sweep::default());
            return is_over;
        }
        if self.partitions.get_mut(&partition).is_some_and(|state| state.set_cut(false)) {
            self.log.account(partition);
        }
        self.stable.retry_ms = 0;
        true
    }
}

/// Where an object is that has something to forget.
fn place_to_forget(row: &[u8], object: &[u8], slack: usize) -> Option<Place> {
    Object::decode(object).ok().filter(|object| has_more(object, slack))?;
    let bucket = row.get(4..OBJECT_KEY_HEAD_LEN)?.try_into().ok()?;
    let bucket = BucketId(u32::from_be_bytes(bucket));
    let key = Bytes::copy_from_slice(&row[OBJECT_KEY_HEAD_LEN..]);
    Some(Place { hlc: Hlc(0), bucket, key, has_more: true })
}
