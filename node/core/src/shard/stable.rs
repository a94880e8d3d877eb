//! Stability: what every replica has, and when it may be forgotten (DESIGN 7).
//!
//! The problem: a deleted key leaves a tombstone, and a context grows with every actor that writes
//! the key. Both are needed as long as some replica, message or disk may still bring back what they
//! cover. Forgetting by time brings deleted values back (`Stability-timer-gc`).
//!
//! Two rounds. Replicas claim what they have *durably seen* ([`claims`](super::claims)); what lies in
//! the contiguous prefix of **every** replica of the layout, up or down, is *stable*, and goes to
//! `know` in the partition's [account](super::account). When that is durable it is claimed too; what
//! every replica durably knows to be stable is **forgettable**. With one round, a node that returns
//! with an older disk could find nobody who can tell it so (`Stability-one-round`). Claims count for
//! the run that made them and under the layout under which they were made; who has claimed nothing
//! has seen nothing.
//!
//! What happens then:
//! - The log's entries of forgettable dots go, most of them from memory alone, before they were ever
//!   sorted into segments. An entry says whether the object had something to forget when it was
//!   written; only then is the object looked at. So a plain write costs nothing here.
//! - An object of which all is forgettable and nothing is alive is deleted.
//! - A context of which **all** entries are forgettable is cut down to the live dots: when its object
//!   is written anyway, or at once if it has grown too long. To cut a part of a context would be
//!   wrong: what covers a value must not go before what overwrote it is everywhere.
//! - A last-writer-wins tombstone stays, with nothing but its dot: an older value that was written
//!   meanwhile may still come, and would have nothing to lose against.
//!
//! What is forgotten is in every replica's clock, and whatever brings it back late is dropped by that
//! (I4). An object all of whose dots have been seen changes nothing where it arrives, so contexts do
//! not grow back.
//!
//! Bounded (I10): per partition and replica, an entry per actor; per turn so many entries and objects.
//!
//! Source: watermarks of DottedDB (Gonçalves, Almeida, Baquero, Fonte, SRDS 2017); the second round
//! is ours, see tla/Stability.tla.

mod sweep;

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use crate::clock::ACTORS_MAX;
use crate::object::{Object, ObjectKind};
use crate::peer::{Claimed, Standing};
use crate::shard::log::segment::Place;
use crate::shard::{Shard, Turn, object_kind};
use crate::store::Store;
use crate::time::Mono;

use sweep::Sweep;

/// Entries let go in one turn, at most, and objects looked at: some hundred microseconds.
const ENTRIES_MAX: usize = 4096;
const OBJECTS_MAX: usize = 128;

/// What could not be read is looked at again after so long, milliseconds; doubles as long as it fails.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 3_600_000;

/// Between two turns while there is more to do, microseconds: others have their turn.
const PAUSE_US: u64 = 1_000;

/// What a replica has claimed: prefixes.
#[derive(Debug, Default)]
struct Heard {
    seen: VersionVector,
    know: VersionVector,
}

/// How far a partition's log has been walked, in this run.
#[derive(Debug, Default)]
struct Walk {
    /// Up to where the entries in memory are dealt with.
    upto: VersionVector,
    /// Entries in memory whose objects have something to forget that waits for another dot.
    stuck: BTreeMap<Dot, Vec<Dot>>,
    /// Actors whose first segment waits for another dot.
    blocked: BTreeMap<Actor, Dot>,
}

/// How an entry's object was dealt with.
enum Looked {
    /// Nothing is left to forget, or it is not to be had.
    Done,
    /// Another dot must become forgettable first.
    Waits(Dot),
}

/// What one turn may still do.
struct Budget {
    entries: usize,
    objects: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.entries == 0 || self.objects == 0
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Stable {
    heard: BTreeMap<Partition, BTreeMap<NodeId, Heard>>,
    /// Partitions of which more was heard.
    news: BTreeSet<Partition>,
    /// What every replica durably knows to be stable.
    forgettable: BTreeMap<Partition, VersionVector>,
    walks: BTreeMap<Partition, Walk>,
    /// Partitions whose rows are looked at, one after the other.
    sweeps: BTreeMap<Partition, Sweep>,
    /// Partitions with something that could not be read: all their rows are looked at again after a while.
    failed: BTreeSet<Partition>,
    retry_at: Mono,
    retry_ms: u64,
    /// Partitions that may have something to forget.
    busy: BTreeSet<Partition>,
    /// The partition that was walked last.
    last: Option<Partition>,
    /// What the open batch adds to accounts.
    learned: Vec<(Partition, Actor)>,
    /// Partitions whose objects the open batch forgets.
    touched: BTreeSet<Partition>,
    /// No turn before this.
    not_before: Mono,
    due: Option<Mono>,
}

impl Stable {
    /// What a replica claims. Says whether there was room for it.
    pub(super) fn hear(&mut self, partition: Partition, node: NodeId, claimed: &Claimed) -> bool {
        let heard = self.heard.entry(partition).or_default().entry(node).or_default();
        if heard.seen.len() + claimed.seen.actors() > ACTORS_MAX
            || heard.know.len() + claimed.know.len() > ACTORS_MAX
        {
            return false;
        }
        for (actor, seen) in claimed.seen.iter() {
            heard.seen.insert(Dot { actor, counter: seen.prefix() });
        }
        heard.know.merge(&claimed.know);
        self.news.insert(partition);
        self.look_at(self.not_before);
        true
    }

    /// Forgets what a node has claimed: it is another run now.
    pub(super) fn forget_claims_of(&mut self, node: NodeId) {
        for (partition, heard) in &mut self.heard {
            if heard.remove(&node).is_some() {
                self.forgettable.remove(partition);
                self.news.insert(*partition);
            }
        }
    }

    /// Forgets all claims: the layout has changed.
    pub(super) fn forget_claims(&mut self) {
        self.heard.clear();
        self.forgettable.clear();
    }

    /// Whether a replica has claimed to have seen this dot and all before it.
    pub(super) fn has_claimed(&self, partition: Partition, node: NodeId, dot: Dot) -> bool {
        let heard = self.heard.get(&partition).and_then(|heard| heard.get(&node));
        heard.is_some_and(|heard| heard.seen.covers(dot))
    }

    /// What may be forgotten of a partition.
    pub(super) fn forgettable(&self, partition: Partition) -> Option<&VersionVector> {
        self.forgettable.get(&partition)
    }

    /// What the committed batch has added to accounts.
    pub(super) fn committed(&mut self) -> Vec<(Partition, Actor)> {
        self.touched.clear();
        std::mem::take(&mut self.learned)
    }

    /// Gives up the open batch: partitions whose objects it has forgotten.
    pub(super) fn roll_back(&mut self) -> BTreeSet<Partition> {
        self.learned.clear();
        std::mem::take(&mut self.touched)
    }

    /// The log of a partition was read anew: it is walked from its beginning.
    pub(super) fn walk_again(&mut self, partition: Partition) {
        self.walks.remove(&partition);
        self.busy.insert(partition);
        self.news.insert(partition);
        self.look_at(self.not_before);
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Mono> {
        self.due
    }

    /// Something of a partition could not be read.
    fn fail(&mut self, partition: Partition) {
        if self.failed.insert(partition) && self.failed.len() == 1 {
            self.retry_ms = (2 * self.retry_ms).clamp(RETRY_MS, RETRY_MS_MAX);
        }
    }

    fn look_at(&mut self, at: Mono) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// What every one of these replicas has claimed to have seen, and to know; nothing if one has
    /// claimed nothing.
    fn conclude(
        &self,
        partition: Partition,
        replicas: &[NodeId],
    ) -> (VersionVector, VersionVector) {
        let heard = self.heard.get(&partition);
        let all: Option<Vec<&Heard>> =
            replicas.iter().map(|node| heard.and_then(|heard| heard.get(node))).collect();
        let all = all.unwrap_or_default();
        (least(all.iter().map(|it| &it.seen)), least(all.iter().map(|it| &it.know)))
    }

    /// The next partition that may have something to forget, after the last one.
    fn next_busy(&mut self) -> Option<Partition> {
        let after = self.last.and_then(|last| {
            self.busy.range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded)).next()
        });
        let next = after.or_else(|| self.busy.first()).copied();
        self.last = next;
        next
    }
}

/// Per actor the least counter; one that is not named everywhere is left out.
fn least<'a>(mut vectors: impl Iterator<Item = &'a VersionVector> + Clone) -> VersionVector {
    let Some(first) = vectors.next() else { return VersionVector::new() };
    let least = |dot: Dot| {
        let others = vectors.clone().map(|vector| vector.get(dot.actor));
        Dot { counter: others.fold(dot.counter, u64::min), ..dot }
    };
    first.iter().map(least).collect()
}

impl Shard {
    /// Between two batches: concludes what is stable, and forgets some of what may be forgotten. What
    /// that changes is part of the next commit.
    pub(super) fn turn_stable<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.stable.due.is_none_or(|due| due > now) {
            return;
        }
        self.stable.not_before = now.plus_ms(self.config.stable_ms);
        self.stable.due = None;
        if !self.is_sound() || self.writable(turn.store).is_err() {
            return self.stable.look_at(self.stable.not_before);
        }
        for partition in std::mem::take(&mut self.stable.news) {
            self.conclude_stable(partition);
        }
        if !self.stable.failed.is_empty() && self.stable.retry_at <= now {
            for partition in std::mem::take(&mut self.stable.failed) {
                // A segment that could not be read may be readable now, and others come after it.
                if let Some(walk) = self.stable.walks.get_mut(&partition) {
                    walk.blocked.retain(|_, by| by.counter != u64::MAX);
                }
                self.owe_sweep(partition);
            }
        }
        let mut budget = Budget { entries: ENTRIES_MAX, objects: OBJECTS_MAX };
        let mut rounds = self.stable.busy.len();
        while rounds > 0
            && !budget.is_spent()
            && let Some(partition) = self.stable.next_busy()
        {
            rounds -= 1;
            if self.walk(partition, &mut budget, turn.store) {
                self.stable.busy.remove(&partition);
            }
        }
        if !self.stable.busy.is_empty() {
            self.stable.look_at(Mono(now.0 + PAUSE_US));
        }
        if !self.stable.failed.is_empty() {
            if self.stable.retry_at <= now {
                self.stable.retry_at = now.plus_ms(self.stable.retry_ms);
            }
            self.stable.look_at(self.stable.retry_at);
        }
    }

    fn conclude_stable(&mut self, partition: Partition) {
        let Some(layout) = &self.cluster.layout else { return };
        let replicas = layout.replicas(partition);
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        // Who does not serve concludes nothing, and begins anew when it does.
        if !replicas.contains(&self.boot.node)
            || self.doubts.standing(partition) != Standing::Serves
        {
            self.stable.forgettable.remove(&partition);
            return;
        }
        let (stable, forgettable) = self.stable.conclude(partition, replicas);
        let is_new = |dot: &Dot| state.knows(dot.actor) < dot.counter;
        let new: Vec<Actor> = stable.iter().filter(is_new).map(|dot| dot.actor).collect();
        if !new.is_empty() {
            state.learn_stable(&stable);
            self.log.account(partition);
            self.stable.learned.extend(new.into_iter().map(|actor| (partition, actor)));
        }
        if self.stable.forgettable(partition) != Some(&forgettable) {
            if !forgettable.is_empty() {
                self.stable.busy.insert(partition);
                if self.owes_sweep(partition) {
                    self.stable.sweeps.entry(partition).or_default().look_again();
                }
            }
            self.stable.forgettable.insert(partition, forgettable);
        }
    }

    /// Walks the log's entries of what may be forgotten. Says whether all are dealt with.
    fn walk<S: Store>(&mut self, partition: Partition, budget: &mut Budget, store: &mut S) -> bool {
        if !self.serves(partition) {
            return true;
        }
        let Some(forgettable) = self.stable.forgettable.remove(&partition) else { return true };
        let mut walk = self.stable.walks.remove(&partition).unwrap_or_default();
        self.walk_stuck((partition, &forgettable), &mut walk, budget, store);
        let mut is_all = true;
        for dot in forgettable.iter() {
            is_all &= self.walk_recent((partition, dot), (&forgettable, &mut walk), budget, store);
            is_all &=
                self.walk_segments((partition, dot), (&forgettable, &mut walk), budget, store);
        }
        is_all &= match budget.is_spent() {
            true => !self.stable.sweeps.contains_key(&partition),
            false => self.sweep((partition, &forgettable), budget, store),
        };
        is_all &= walk.stuck.keys().all(|dot| !forgettable.covers(*dot));
        self.stable.walks.insert(partition, walk);
        self.stable.forgettable.insert(partition, forgettable);
        is_all
    }

    /// Looks again at what has waited for a dot that may be forgotten now.
    fn walk_stuck<S: Store>(
        &mut self,
        (partition, forgettable): (Partition, &VersionVector),
        walk: &mut Walk,
        budget: &mut Budget,
        store: &mut S,
    ) {
        let freed: Vec<Dot> =
            walk.stuck.keys().copied().filter(|dot| forgettable.covers(*dot)).collect();
        for by in freed {
            if budget.is_spent() {
                return;
            }
            for dot in walk.stuck.remove(&by).unwrap_or_default() {
                // Sorted into a segment meanwhile it is met there.
                let Some(place) = self.log.recent_place(partition, dot) else { continue };
                self.look_at_entry((partition, dot, &place), (forgettable, walk), budget, store);
            }
        }
    }

    fn walk_recent<S: Store>(
        &mut self,
        (partition, last): (Partition, Dot),
        (forgettable, walk): (&VersionVector, &mut Walk),
        budget: &mut Budget,
        store: &mut S,
    ) -> bool {
        let from = walk.upto.get(last.actor);
        if from >= last.counter {
            return true;
        }
        let dots = (last.actor, from + 1..=last.counter);
        let forgotten = self.log.forget(partition, dots, budget.entries);
        budget.entries -= forgotten.walked;
        self.counters.log_entries_forgotten += forgotten.removed as u64;
        for (dot, place) in &forgotten.with_more {
            if budget.objects == 0 {
                // From here on again.
                walk.upto.insert(Dot { counter: dot.counter - 1, ..*dot });
                return false;
            }
            self.look_at_entry((partition, *dot, place), (forgettable, walk), budget, store);
        }
        walk.upto.insert(Dot { counter: forgotten.upto, ..last });
        forgotten.upto >= last.counter
    }

    /// Looks at the object of an entry in memory, and lets the entry go if that was all.
    fn look_at_entry<S: Store>(
        &mut self,
        (partition, dot, place): (Partition, Dot, &Place),
        (forgettable, walk): (&VersionVector, &mut Walk),
        budget: &mut Budget,
        store: &mut S,
    ) {
        budget.objects = budget.objects.saturating_sub(1);
        match self.forget_in_object((partition, place), forgettable, store) {
            Looked::Done => {
                self.log.let_go(partition, dot);
                self.counters.log_entries_forgotten += 1;
            }
            Looked::Waits(by) => walk.stuck.entry(by).or_default().push(dot),
        }
    }

    /// Deals with the first segment of an actor, if all its dots may be forgotten.
    fn walk_segments<S: Store>(
        &mut self,
        (partition, last): (Partition, Dot),
        (forgettable, walk): (&VersionVector, &mut Walk),
        budget: &mut Budget,
        store: &mut S,
    ) -> bool {
        if walk.blocked.get(&last.actor).is_some_and(|by| !forgettable.covers(*by)) {
            return true;
        }
        walk.blocked.remove(&last.actor);
        if budget.is_spent() {
            return false;
        }
        let segment = match self.log.first_segment(partition, last, store) {
            Ok(None) => return true,
            Ok(Some(segment)) => segment,
            Err(error) => {
                // What it knows is found by looking at all rows; it is cut with others.
                self.store_refusal(&error);
                self.stable.fail(partition);
                let never = Dot { actor: last.actor, counter: u64::MAX };
                walk.blocked.insert(last.actor, never);
                return true;
            }
        };
        budget.entries = budget.entries.saturating_sub(segment.entries.len());
        let with_more = segment.entries.iter().filter(|(_, place)| place.has_more);
        for (_, place) in with_more {
            budget.objects = budget.objects.saturating_sub(1);
            if let Looked::Waits(by) = self.forget_in_object((partition, place), forgettable, store)
            {
                walk.blocked.insert(last.actor, by);
                return true;
            }
        }
        self.counters.log_entries_forgotten += segment.entries.len() as u64;
        self.stable.touched.insert(partition);
        self.log.trim(partition, segment);
        false
    }

    /// Forgets what an object has to forget.
    fn forget_in_object<S: Store>(
        &mut self,
        (partition, place): (Partition, &Place),
        forgettable: &VersionVector,
        store: &mut S,
    ) -> Looked {
        let bucket = self.cluster.buckets.get(&place.bucket);
        let kind = bucket.map_or(ObjectKind::Siblings, |it| object_kind(it.policy.kind));
        let object_key = self.object_key(partition, place.bucket, &place.key);
        let loaded = self.cache.load(&object_key, kind, store);
        self.scratch = object_key;
        let at = match loaded {
            Ok(at) => at,
            Err(error) => {
                self.store_refusal(&error);
                self.stable.fail(partition);
                return Looked::Done;
            }
        };
        let object = self.cache.object(at);
        if !has_more(object, self.config.context_slack) {
            return Looked::Done;
        }
        if let Some(by) = object.context.iter().find(|dot| !forgettable.covers(*dot)) {
            return Looked::Waits(by);
        }
        let mut next = object.clone();
        next.forget(forgettable);
        let mut encoded = Vec::new();
        if next.context.is_empty() {
            self.counters.tombstones_removed += 1;
        } else {
            self.counters.contexts_reduced += 1;
            next.encode(&mut encoded);
        }
        self.cache.change(at, next, encoded.into());
        self.stable.touched.insert(partition);
        Looked::Done
    }
}

/// Whether an object has something to forget that is worth a write of its own: it is a tombstone, or
/// its context names so many dots more than are alive.
pub(super) fn has_more(object: &Object, slack: usize) -> bool {
    let live = object.live_dots().count();
    let extra = object.context.len().saturating_sub(live);
    extra > slack || (live == 0 && extra > 0)
}
