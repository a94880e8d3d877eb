//! Hints for replicas that a new layout has taken out: they go to who is a replica now.
//!
//! Such a hint may be the only copy of a write that was acknowledged while none of its replicas could
//! be reached, and the one that it is for never comes back. So each is kept for another replica
//! instead, of this region if there is one; from there pulses and gap repair bring it to the rest. A
//! hint is moved in one commit, and what cannot be moved stays and is looked at again.

use bytes::Bytes;
use holm_protocol::ids::{NodeId, Partition};

use crate::keys::{HINT_KEY_HEAD_LEN, hint_key_parts};
use crate::object::Object;
use crate::shard::hints::object_of;
use crate::shard::replica::Incoming;
use crate::shard::{Shard, Turn};
use crate::store::{Store, Table};
use crate::time::Mono;

/// Hints read at a time. Arbitrary: few, because each can be as long as an object.
const ROWS: usize = 8;
/// Reads in one turn. Arbitrary.
const READS: usize = 32;

/// A look through all hints.
#[derive(Debug)]
pub(super) struct Search {
    /// The key at which it goes on.
    from: Vec<u8>,
    pub(super) at: Mono,
    /// Something could not be moved.
    is_to_repeat: bool,
}

impl Shard {
    /// A layout is in force: looks for hints that it makes orphans, and where to bring them.
    pub(super) fn look_for_orphans(&mut self, at: Mono) {
        if self.hints.rows() > 0 {
            self.handoff.search = Some(Search { from: Vec::new(), at, is_to_repeat: false });
        }
    }

    /// Goes on looking, if it is time.
    pub(super) fn place_orphans<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        let is_due = self.handoff.search.as_ref().is_some_and(|search| search.at <= now);
        let Some(mut search) = self.handoff.search.take().filter(|_| is_due) else { return };
        for _ in 0..READS {
            let may = !self.is_crowded() && self.writable(turn.store).is_ok();
            let end = [0xff; HINT_KEY_HEAD_LEN];
            let rows = may.then(|| turn.store.scan(Table::Hints, &search.from, &end, ROWS));
            let Some(Ok(rows)) = rows else {
                // After the commit, or when there is room again.
                search.at = now.plus_ms(self.config.resend_ms);
                self.handoff.search = Some(search);
                return;
            };
            let Some((last, _)) = rows.last() else {
                if search.is_to_repeat {
                    self.look_for_orphans(now.plus_ms(self.config.resend_ms));
                }
                return;
            };
            search.from = [last, &[0][..]].concat();
            for (key, _) in rows {
                search.is_to_repeat |= !self.place_orphan(key, turn);
            }
        }
        search.at = Mono(now.0 + 1);
        self.handoff.search = Some(search);
    }

    /// Moves a hint if it is for nobody, in the open batch. Says whether that was done, or needed not.
    fn place_orphan<S: Store>(&mut self, key: Vec<u8>, turn: &mut Turn<'_, S>) -> bool {
        let Some((replica, partition, bucket, name)) = hint_key_parts(&key) else { return true };
        let Some(heir) = self.heir(replica, partition) else { return true };
        let name = Bytes::copy_from_slice(name);
        // As the open batch has made it.
        let row = match self.hints.get(&key, turn.store) {
            Ok(Some(row)) => row,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let Ok(object) = Object::decode(&object_of(&row)) else {
            // It cannot be of use to anybody, and is no reason to look again and again.
            self.counters.corrupt_objects += 1;
            return true;
        };
        self.hints.set(key.clone(), Some(&row), None);
        let hint = Incoming { partition, bucket, key: name, object: Bytes::new() };
        let is_moved = self.store_hint(heir, &hint, object, turn).is_ok();
        self.counters.hints_moved += u64::from(is_moved);
        if !is_moved {
            self.hints.set(key, None, Some(row));
        }
        is_moved
    }

    /// For whom a hint of this shard is to be kept instead, if the one it is for is no replica.
    fn heir(&self, replica: NodeId, partition: Partition) -> Option<NodeId> {
        let layout = self.cluster.layout.as_ref()?;
        if !self.boot.owns(partition) || layout.is_replica(partition, replica) {
            return None;
        }
        let near = self.region.map_or(&[][..], |region| layout.replicas_in(partition, region));
        near.first().or(layout.replicas(partition).first()).copied()
    }
}
