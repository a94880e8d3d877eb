//! Fallback coordinators: a region whose replicas of a partition are all out of reach stays
//! writable (DESIGN 6).
//!
//! At the levels `one` and `local_quorum` the first node of the preference list that can be reached
//! takes the write itself. It keeps the object as a hint for the region's first replica, which is its
//! own vote; other fallbacks stand in for the other replicas, remote regions get their copy as ever.
//! Buckets whose policy is `strict` have none of this.
//!
//! **What it writes on** is the join of all that it keeps of the key. **Its dots** are of an actor of
//! its own: an entry of a version vector also covers all smaller counters of its actor, so a
//! coordinator must know all that its actor ever wrote to a key. A replica has that in its object. A
//! fallback has it as long as its hints are here, so its actor ends when one that names it goes home, and
//! the next write begins another. Actors are derived from the run's random one, and are nobody
//! else's; a new run has others. Such a write marks nothing as seen here and is not in the log: a
//! fallback is no replica, and what it has of a dot is the hint itself, which names it.
//!
//! **Reads** at level `one` are answered from hints when no replica anywhere can be reached and there
//! is something to show. The receipt says so: what was written before the replicas went is not in it.
//!
//! Source: Dynamo (SOSP 2007) 4.6.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use holm_protocol::dot::Dot;
use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, ReceiptEntry, Reply};

use crate::keys::hint_key;
use crate::object::Object;
use crate::peer::Refusal;
use crate::shard::hints::object_of;
use crate::shard::replica::Incoming;
use crate::shard::stand_in::{fallbacks, is_sloppy};
use crate::shard::{Origin, Route, Shard, Turn, answer};
use crate::store::{Store, StoreError, Table};

/// What a shard knows of a partition that it writes to and does not hold.
#[derive(Debug)]
pub(super) struct Guest {
    /// Counts its actors.
    number: u64,
    actor: Actor,
    /// The last counter that the actor has assigned. Counters are contiguous from 1.
    counter: u64,
    /// Something that names the actor is not here any more: it assigns nothing else.
    is_spent: bool,
}

impl Guest {
    fn new(run: Actor, partition: Partition, number: u64) -> Guest {
        let name = [&partition.to_u32().to_be_bytes()[..], &number.to_be_bytes()].concat();
        let actor = Actor(xxh3_64_with_seed(&name, run.0));
        Guest { number, actor, counter: 0, is_spent: false }
    }

    /// The actor, if it may still assign dots.
    pub(super) fn alive(&self) -> Option<Actor> {
        (!self.is_spent).then_some(self.actor)
    }
}

impl Shard {
    /// Whether this node is to coordinate a write of a partition that it does not hold.
    pub(super) fn is_fallback_coordinator(
        &self,
        origin: Origin,
        route: &Route,
        level: Level,
    ) -> bool {
        let near = route.layout.replicas_in(route.partition, route.region);
        let may = !route.replica && is_sloppy(route, level);
        if !may || near.is_empty() || near.iter().any(|&node| self.peers.is_up(node)) {
            return false;
        }
        // Who was asked by another node is the first that this one can reach.
        let mut list = fallbacks(&route.layout, route.partition, route.region);
        let first = list.find(|&node| node == self.boot.node || self.peers.is_up(node));
        matches!(origin, Origin::Peer(..)) || first == Some(self.boot.node)
    }

    /// The replica for which a fallback coordinator keeps what it writes itself.
    pub(super) fn own_charge(&self, route: &Route) -> Option<NodeId> {
        let near = route.layout.replicas_in(route.partition, route.region);
        near.first().copied().filter(|_| !route.replica)
    }

    /// The dot that the next write of a partition that this node does not hold will have.
    pub(super) fn next_guest_dot(&mut self, partition: Partition) -> Dot {
        let run = self.boot.actor;
        let guest = self.guests.entry(partition).or_insert_with(|| Guest::new(run, partition, 1));
        if guest.is_spent {
            *guest = Guest::new(run, partition, guest.number + 1);
        }
        Dot { actor: guest.actor, counter: guest.counter + 1 }
    }

    /// Takes that dot: the write has happened.
    pub(super) fn take_guest_dot(&mut self, partition: Partition, dot: Dot) {
        if let Some(guest) = self.guests.get_mut(&partition) {
            debug_assert_eq!((guest.actor, guest.counter + 1), (dot.actor, dot.counter));
            guest.counter = dot.counter;
        }
    }

    /// The last counter that an actor of this run has assigned in a partition; `None` if it is none.
    pub(super) fn made_by(&self, partition: Partition, actor: Actor) -> Option<u64> {
        if actor == self.boot.actor {
            return Some(self.partitions.get(&partition).map_or(0, |state| state.own_counter()));
        }
        let guest = self.guests.get(&partition)?;
        (guest.actor == actor).then_some(guest.counter)
    }

    /// A hint goes: if it names the partition's actor, this ends.
    pub(super) fn note_hint_gone(&mut self, partition: Partition, row: &Bytes) {
        if let Some(guest) = self.guests.get_mut(&partition)
            && !guest.is_spent
        {
            let object = Object::decode(&object_of(row));
            guest.is_spent = object.map_or(true, |object| object.context.get(guest.actor) > 0);
        }
    }

    /// All that is kept here of a key, for whomever; with `is_open` as the open batch has made it.
    ///
    /// # Errors
    /// Something of it cannot be read: what is left would not account for this node's own writes.
    pub(super) fn hinted_object<S: Store>(
        &mut self,
        route: &Route,
        (bucket, key): (BucketId, &[u8]),
        is_open: bool,
        store: &mut S,
    ) -> Result<Object, Refusal> {
        let mut all = Object::new(route.kind());
        for &replica in route.layout.replicas_in(route.partition, route.region) {
            let row = hint_key(replica, route.partition, bucket, key);
            let row = match is_open {
                true => self.hints.get(&row, store),
                false => store.get(Table::Hints, &row).map(|row| row.map(Bytes::from)),
            };
            let Some(row) = row.map_err(|error| self.store_refusal(&error))? else { continue };
            let joined = Object::decode(&object_of(&row)).map(|object| all.join(object));
            if !matches!(joined, Ok(Ok(()))) {
                let damage = StoreError::Corrupt("hint".to_owned());
                return Err(self.store_refusal(&damage));
            }
        }
        Ok(all)
    }

    /// Keeps what this node has written, or writes again, for the replica that it stands for.
    pub(super) fn keep_own<S: Store>(
        &mut self,
        route: &Route,
        (bucket, key): (BucketId, &Bytes),
        object: Object,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let replica = self.own_charge(route).ok_or(RequestError::CoordinatorLost)?;
        let (partition, key) = (route.partition, key.clone());
        let hint = Incoming { partition, bucket, key, object: Bytes::new() };
        self.store_hint(replica, &hint, object, turn).map_err(|refusal| match refusal {
            Refusal::HintsFull => RequestError::Store { fault: StoreFault::HintsFull },
            Refusal::Corrupt => RequestError::Store { fault: StoreFault::Corrupt },
            _ => RequestError::Store { fault: StoreFault::Io },
        })
    }

    /// Answers a read from hints, where nobody else can. Says whether it did.
    pub(super) fn read_hints<S: Store>(
        &mut self,
        origin: Origin,
        (route, get): (&Route, &Get),
        turn: &mut Turn<'_, S>,
    ) -> bool {
        let level = get.level.unwrap_or(route.policy.read_level);
        let replicas = route.layout.replicas(route.partition);
        let may = level == Level::One && is_sloppy(route, level) && !route.replica;
        if !may || replicas.iter().any(|&node| self.peers.is_up(node)) {
            return false;
        }
        // What is not durable is not shown.
        let kept = self.hinted_object(route, (get.bucket, &get.key), false, turn.store);
        let Some(object) = kept.ok().filter(|object| !object.context.is_empty()) else {
            return false;
        };
        self.counters.reads_coordinated += 1;
        self.counters.reads_from_hints += 1;
        let mut values = self.values(&get.key, get.bucket, &object, level, std::iter::empty());
        let (node, region) = (self.boot.node, route.region);
        values.receipt.replicas.push(ReceiptEntry { node, region, fallback: true });
        answer(origin, Reply::Values(values), turn.out);
        true
    }
}
