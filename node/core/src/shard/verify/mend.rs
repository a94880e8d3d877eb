//! Taking in what the other replica has under keys that differ.

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Hlc, NodeId, Partition};

use crate::clock::PartitionClock;
use crate::object::Object;
use crate::peer::Refusal;
use crate::peer::verify::{KeyState, Place};
use crate::shard::event::{Effect, Violation};
use crate::shard::replica::Incoming;
use crate::shard::stable::has_more;
use crate::shard::{Shard, Turn, object_kind};
use crate::store::{Store, StoreError};

impl Shard {
    /// Takes in another replica's objects, which it sent with its clock.
    pub(super) fn mend<S: Store>(
        &mut self,
        partition: Partition,
        from: NodeId,
        (clock, states): (&PartitionClock, Vec<KeyState>),
        turn: &mut Turn<'_, S>,
    ) {
        for KeyState { at: (bucket, key), object } in states {
            let Some(object) = object else { continue };
            let write = Incoming { partition, bucket, key, object };
            if self.mend_one(from, &write, clock, turn).is_err() {
                self.counters.peer_rejections += 1;
            }
        }
    }

    fn mend_one<S: Store>(
        &mut self,
        from: NodeId,
        write: &Incoming,
        clock: &PartitionClock,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        let Incoming { partition, bucket, ref key, object: ref encoded } = *write;
        self.check_place(partition, bucket, key)?;
        let theirs = Object::decode(encoded).map_err(|_| Refusal::Malformed)?;
        let info = self.cluster.buckets.get(&bucket).ok_or(Refusal::UnknownBucket)?;
        let kind = object_kind(info.policy.kind);
        if kind != theirs.kind() {
            return Err(Refusal::WrongKind);
        }
        self.check_dots(partition, &theirs)?;
        self.check_ends(partition, &theirs)?;
        self.check_room(partition, &theirs)?;
        self.check_standing(partition)?;
        theirs.check_limits().map_err(|_| Refusal::TooLarge)?;
        // Before anything is put in a damaged object's place: it would be read as nothing.
        self.writable(turn.store)?;
        let object_key = self.object_key(partition, bucket, key);
        let loaded = self.cache.load(&object_key, kind, turn.store);
        let is_damaged = matches!(loaded, Err(StoreError::Corrupt(_)));
        let agrees = self.partitions.get(&partition).is_some_and(|own| clock.covers(own.clock()));
        let outcome = match loaded {
            Ok(place) => {
                let own = self.cache.object(place);
                let lost = lost(own, &theirs, self.partitions.get(&partition).map(|it| it.clock()));
                if lost.is_empty() || !agrees { None } else { Some((place, own.clone(), lost)) }
            }
            Err(_) if is_damaged && agrees => {
                let place = self.cache.replace_damaged(&object_key, kind);
                Some((place, Object::new(kind), theirs.live_dots().collect()))
            }
            Err(error) => {
                self.scratch = object_key;
                return Err(self.store_refusal(&error));
            }
        };
        self.scratch = object_key;
        let Some((place, own, lost)) = outcome else { return self.join_checked(write, true, turn) };
        let mut next = own.clone();
        next.join(theirs.clone()).map_err(|_| Refusal::WrongKind)?;
        next.check_limits().map_err(|_| Refusal::TooLarge)?;
        let named: Vec<Dot> = next.named_dots().collect();
        let readings: Vec<(Dot, Hlc)> = next.siblings().iter().map(|s| (s.dot, s.hlc)).collect();
        let object_key = self.cache.key(place);
        let has_more = has_more(&next, self.config.context_slack);
        self.mark_seen((partition, bucket), &object_key, named, (&readings, has_more));
        let mut bytes = Vec::new();
        next.encode(&mut bytes);
        self.cache.change(place, next, bytes.into());
        let at: Place = (bucket, key.clone());
        if is_damaged {
            self.counters.objects_refetched += 1;
        } else {
            self.counters.consistency_violations += 1;
        }
        let now_ms = turn.now.wall.0;
        self.found.note(partition, &at, now_ms, (from, is_damaged, lost.clone()));
        let violation = Violation { partition, at, peer: from, is_damaged, lost, own, theirs };
        turn.out.push(Effect::Violation(Box::new(violation)));
        Ok(())
    }
}

/// What lives there, was seen here, and is gone here without a trace in the context.
fn lost(own: &Object, theirs: &Object, clock: Option<&PartitionClock>) -> Vec<Dot> {
    let is_lost =
        |dot: &Dot| clock.is_some_and(|clock| clock.contains(*dot)) && !own.context.covers(*dot);
    theirs.live_dots().filter(is_lost).collect()
}
