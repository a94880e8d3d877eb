//! The end of entries: what every replica has is let go.

use std::ops::RangeInclusive;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Partition};

use super::ShardLog;
use super::segment::{self, Place, Segment};
use crate::keys::segments_size_key;
use crate::store::{Store, StoreError, Table};

/// What became of some entries in memory.
#[derive(Debug)]
pub struct Forgotten {
    /// Those whose objects have something to forget. They stay until [`ShardLog::let_go`].
    pub with_more: Vec<(Dot, Place)>,
    /// How many are gone.
    pub removed: usize,
    /// How many were looked at.
    pub walked: usize,
    /// Up to which counter that was.
    pub upto: u64,
}

impl ShardLog {
    /// Lets go of a partition's entries in memory of these dots of an actor: up to so many of them. The
    /// records that they came from stay until the partition's next checkpoint, but nothing is sorted.
    pub fn forget(
        &mut self,
        partition: Partition,
        (actor, counters): (Actor, RangeInclusive<u64>),
        entries_max: usize,
    ) -> Forgotten {
        let mut upto = *counters.end();
        let (mut with_more, mut gone) = (Vec::new(), Vec::new());
        for (dot, place) in self.recent.range(partition, actor, counters) {
            if with_more.len() + gone.len() >= entries_max {
                upto = dot.counter - 1;
                break;
            }
            match place.has_more {
                true => with_more.push((dot, place.clone())),
                false => gone.push(dot),
            }
        }
        self.recent.remove_dots(partition, &gone);
        let (removed, walked) = (gone.len(), gone.len() + with_more.len());
        Forgotten { with_more, removed, walked, upto }
    }

    /// A partition's entry in memory of a dot.
    #[must_use]
    pub fn recent_place(&self, partition: Partition, dot: Dot) -> Option<Place> {
        self.recent.get(partition, dot).cloned()
    }

    /// Lets go of an entry in memory.
    pub fn let_go(&mut self, partition: Partition, dot: Dot) {
        self.recent.remove_dots(partition, &[dot]);
    }

    /// The first segment of an actor, if all of it is among the dots up to this one. Between two commits
    /// one segment of an actor is dealt with.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is damaged, or what the store reports.
    pub fn first_segment<S: Store>(
        &self,
        partition: Partition,
        last: Dot,
        store: &mut S,
    ) -> Result<Option<Segment>, StoreError> {
        if self.sizes.get(&partition).is_none_or(|size| *size == 0) {
            return Ok(None);
        }
        let Some(found) = segment::first(partition, last, store)? else { return Ok(None) };
        let trimmed = self.trimmed.get(&partition);
        Ok(Some(found).filter(|it| trimmed.is_none_or(|trimmed| !trimmed.contains(&it.key))))
    }

    /// Deletes a segment, in the open batch.
    pub fn trim(&mut self, partition: Partition, segment: Segment) {
        let size = self.sizes.get(&partition).copied().unwrap_or(0);
        self.resize(partition, size.saturating_sub(segment.bytes));
        self.trimmed.entry(partition).or_default().push(segment.key);
    }

    /// Stages the removal of what is trimmed.
    pub(super) fn stage_trimmed<S: Store>(&self, store: &mut S) {
        for (&partition, keys) in &self.trimmed {
            keys.iter().for_each(|key| store.stage_delete(Table::Log, key));
            let size = self.sizes.get(&partition).copied().unwrap_or(0);
            store.stage_put(Table::Meta, &segments_size_key(partition), &size.to_be_bytes());
        }
    }
}
