//! Pages of a partition, for another replica that takes it whole.

use holm_protocol::ids::{NodeId, Partition};
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::version_vector::VersionVector;

use super::{Cursor, end_row, first_row, place_of};
use crate::clock::DotSet;
use crate::keys::object_key;
use crate::peer::{CompareMessage, OpId, PageObject, PeerMessage, Position, Standing};
use crate::shard::Shard;
use crate::store::{Store, Table};

/// Bytes of objects in one page, whatever is asked for, unless it is one object; and how many.
const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_OBJECTS_MAX: usize = 256;

/// What an actor or a range of a clock takes in a page, at most, bytes.
const RANGE_BYTES: usize = 24;

/// Rows read at a time.
const ROWS: usize = 64;

/// A question of another replica.
#[derive(Debug)]
pub(super) struct PageAsked {
    pub(super) from: NodeId,
    pub(super) op: OpId,
    pub(super) partition: Partition,
    pub(super) after: Cursor,
    pub(super) know: VersionVector,
    pub(super) gathers: bool,
    pub(super) bytes_max: u32,
}

impl Shard {
    /// A page, or why this replica gives none.
    pub(super) fn page_or_standing<S: Store>(
        &mut self,
        asked: &PageAsked,
        store: &mut S,
    ) -> Option<PeerMessage> {
        let &PageAsked { op, partition, from, ref know, gathers, .. } = asked;
        let is_replica = self.cluster.layout.as_ref()?.is_replica(partition, from);
        if !is_replica || !self.is_sound() {
            return None;
        }
        if asked.after.is_none() {
            // The asking replica wants the partition whole: it vouches for nothing.
            let standing = if gathers { Standing::Behind } else { Standing::Doubt };
            let theirs = Position { standing, know: know.clone() };
            self.compare(partition, from, &theirs)?;
        }
        let standing = self.standing(partition);
        let gives = if gathers { Standing::Behind } else { Standing::Serves };
        if standing == gives {
            return self.page(asked, store);
        }
        let know = self.partitions.get(&partition)?.all_known();
        let positions = vec![(partition, Position { standing, know })];
        Some(PeerMessage::Compare(CompareMessage::Compared { op, positions }))
    }

    fn page<S: Store>(&mut self, asked: &PageAsked, store: &mut S) -> Option<PeerMessage> {
        let &PageAsked { op, partition, ref after, bytes_max, .. } = asked;
        let state = self.partitions.get(&partition)?;
        let (mut clock, mut know, mut ends) = (DotSet::new(), VersionVector::new(), Vec::new());
        if after.is_none() {
            (clock, know) = (state.clock().clone(), state.account().know.clone());
            ends.extend(self.ends.of(partition).map(|(actor, end)| (actor, end.clone())));
        }
        let mut from = Vec::new();
        match after {
            Some((bucket, key)) => {
                object_key(&mut from, partition, *bucket, key);
                from.push(0);
            }
            None => from = first_row(partition),
        }
        let to = end_row(partition);
        let bytes_max = (bytes_max as usize).min(PAGE_BYTES_MAX);
        let dots = ends.iter().filter_map(|(_, end)| end.dots());
        let weight = ends.len() + dots.map(|dots| dots.ranges().len()).sum::<usize>();
        let clock_bytes = (clock.weight() + know.len() + weight) * RANGE_BYTES;
        let (mut objects, mut bytes) = (Vec::new(), 0);
        let is_last = 'rows: loop {
            let rows = store.scan(Table::Objects, &from, &to, ROWS).ok()?;
            let is_end = rows.len() < ROWS;
            for (row, object) in rows {
                let (bucket, key) = place_of(&row)?;
                bytes += row.len() + object.len();
                let is_full = bytes > bytes_max || objects.len() >= PAGE_OBJECTS_MAX;
                if is_full && !objects.is_empty() {
                    break 'rows false;
                }
                if clock_bytes + bytes > FRAME_LEN_MAX {
                    return None;
                }
                objects.push(PageObject { bucket, key, object: object.into() });
                from = row;
                from.push(0);
            }
            if is_end {
                break true;
            }
        };
        Some(PeerMessage::PageAnswer { op, partition, clock, know, ends, objects, is_last })
    }
}
