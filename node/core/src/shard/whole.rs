//! Joining an object with that of a replica whose clock is known: both sides are looked at.
//!
//! A join goes by the two objects' contexts. Contexts of what is long past are cut down or gone with
//! their objects, so the clocks have to speak too: a sibling that one side has and the other has not
//! goes, if that other has seen it. [`Shard::join_object`] looks at what comes like that; here, at what
//! is there as well (I4).

use bytes::Bytes;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{BucketId, Hlc, Partition};
use holm_protocol::limits::OBJECT_LEN_MAX;

use crate::clock::DotSet;
use crate::object::Object;
use crate::peer::Refusal;
use crate::shard::cache::Place;
use crate::shard::replica::{Incoming, drop_late};
use crate::shard::stable::has_more;
use crate::shard::{Shard, Turn};
use crate::store::{Store, StoreError};

impl Shard {
    /// Joins another replica's object of a key, where that replica has seen `clock`.
    pub(super) fn join_whole<S: Store>(
        &mut self,
        write: &Incoming,
        clock: &DotSet,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        let mut incoming = self.check_incoming(write, turn.now)?;
        self.check_void(write.partition, &incoming)?;
        incoming.check_limits().map_err(|_| Refusal::TooLarge)?;
        self.writable(turn.store)?;
        let Incoming { partition, bucket, .. } = *write;
        let row = self.object_key(partition, bucket, &write.key);
        let loaded = self.cache.load(&row, incoming.kind(), turn.store);
        let (place, is_damaged) = match loaded {
            Ok(place) => (place, false),
            Err(StoreError::Corrupt(_)) => {
                self.counters.corrupt_objects += 1;
                (self.cache.replace_damaged(&row, incoming.kind()), true)
            }
            Err(error) => {
                self.scratch = row;
                return Err(self.store_refusal(&error));
            }
        };
        self.scratch = row;
        let Some(state) = self.partitions.get(&write.partition) else {
            return Err(Refusal::NotReplica);
        };
        let local = self.cache.object(place);
        let named: Vec<Dot> = incoming.named_dots().collect();
        let mut readings = readings_of(&incoming);
        let alive: Vec<Dot> = incoming.live_dots().collect();
        // What was here and cannot be read was not overwritten by that.
        if !is_damaged {
            self.counters.late_siblings_dropped += drop_late(&mut incoming, local, state);
        }
        // Of what the other has seen its state accounts, and its context may have been cut: then it is all
        // there is to know.
        let is_known = local.named_dots().all(|dot| clock.contains(dot));
        let next = if is_known {
            incoming
        } else {
            let mut next = local.clone();
            next.retain_dots(|dot| alive.contains(&dot) || !clock.contains(dot));
            next.join(incoming).map_err(|_| Refusal::WrongKind)?;
            next
        };
        next.check_limits().map_err(|_| Refusal::TooLarge)?;
        readings.extend(readings_of(&next));
        let object_key = self.cache.key(place);
        let named: Vec<Dot> = named.into_iter().chain(next.named_dots()).collect();
        let has_more = has_more(&next, self.config.context_slack);
        if next != *self.cache.object(place) || is_damaged {
            self.counters.objects_joined += 1;
            self.change_whole(place, next)?;
        }
        self.mark_seen((partition, bucket), &object_key, named, (&readings, has_more));
        Ok(())
    }

    /// Drops from an own object what another replica has seen and has no object of any more.
    pub(super) fn drop_dead<S: Store>(
        &mut self,
        partition: Partition,
        (bucket, key): (BucketId, Bytes),
        clock: &DotSet,
        store: &mut S,
    ) -> Result<(), Refusal> {
        let Some(info) = self.cluster.buckets.get(&bucket) else { return Ok(()) };
        let kind = crate::shard::object_kind(info.policy.kind);
        let row = self.object_key(partition, bucket, &key);
        let loaded = self.cache.load(&row, kind, store);
        self.scratch = row;
        let place = match loaded {
            Ok(place) => place,
            // There is nothing to put in its place. Whoever reads it is told.
            Err(StoreError::Corrupt(_)) => return Ok(()),
            Err(error) => return Err(self.store_refusal(&error)),
        };
        let local = self.cache.object(place);
        let mut next = local.clone();
        next.retain_dots(|dot| !clock.contains(dot));
        if next.named_dots().all(|dot| clock.contains(dot)) {
            // The other has forgotten all of it.
            next = Object::new(local.kind());
        }
        let readings = readings_of(&next);
        let named: Vec<Dot> = local.named_dots().collect();
        let object_key = self.cache.key(place);
        let has_more = has_more(&next, self.config.context_slack);
        if next != *local {
            self.counters.dead_siblings_dropped += 1;
            self.change_whole(place, next)?;
        }
        // Where the clock was not believed, this is how it comes to know what is here.
        self.mark_seen((partition, bucket), &object_key, named, (&readings, has_more));
        Ok(())
    }

    fn change_whole(&mut self, place: Place, next: Object) -> Result<(), Refusal> {
        let mut encoded = Vec::new();
        if !next.context.is_empty() {
            next.encode(&mut encoded);
        }
        if encoded.len() > OBJECT_LEN_MAX {
            return Err(Refusal::TooLarge);
        }
        self.cache.change(place, next, encoded.into());
        Ok(())
    }
}

fn readings_of(object: &Object) -> Vec<(Dot, Hlc)> {
    object.siblings().iter().map(|sibling| (sibling.dot, sibling.hlc)).collect()
}
