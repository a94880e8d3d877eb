//! What the referee looks up on the nodes themselves: disks and clocks.

use std::collections::BTreeSet;

use bytes::Bytes;
use holm_core::clock::{IntervalSet, PartitionClock};
use holm_core::keys::{ENDS_BEGIN, end_key, end_key_parts, hint_key_parts};
use holm_core::object::Object;
use holm_core::peer::PeerMessage;
use holm_core::shard::account::Account;
use holm_core::shard::config::{Standing, shard_of};
use holm_core::shard::ends::End;
use holm_core::shard::hints::object_of;
use holm_core::store::Table;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::message::{Reply, Request};
use holm_protocol::version_vector::VersionVector;

use super::node::{Node, Slot};
use super::{Call, CallResult, Cluster};
use crate::check::durable::{self, Copy};
use crate::check::{Verdict, bounds, claims, closed, converged, equal_clocks, logged, replica};
use crate::history::KeyId;
use crate::store::{Changed, SyncMode};
use crate::trace::whole_frame;

/// Who looks this seldom for what is stable forgets nothing in a run, as some plans want it, milliseconds.
const NEVER_MS: u64 = 3_600_000;

/// Partitions whose replicas are compared at a time: all, in the plans that seeds make.
const PARTITIONS_CHECKED: usize = 4;

impl Cluster {
    /// A client hears an answer: if its write is acknowledged, it is on the disks of which the
    /// receipt speaks.
    pub(super) fn audit_receipt(&mut self, call: &Call, result: &CallResult) {
        let CallResult::Reply(Reply::Written(written)) = result else { return };
        let request = whole_frame(&call.frame).and_then(|frame| Request::decode(&frame).ok());
        let (bucket, key, value) = match request {
            Some(Request::Put(put)) => (put.bucket, put.key, Some(put.value)),
            Some(Request::Delete(delete)) => (delete.bucket, delete.key, None),
            _ => return,
        };
        let history = self.referee.history();
        let Some(id) = history.key_id(bucket, &key) else { return };
        let by_value = value.and_then(|value| history.by_value(id, &value));
        let event = history.by_dot(history.key(id).partition, written.dot).or(by_value);
        // A delete that nobody has seen yet has no event to be found by: any of its key will do to
        // say where it happened.
        let Some(event) = event.or(history.key(id).events.last().copied()) else { return };
        let of = |fallback| {
            let entries = written.receipt.replicas.iter();
            entries.filter(move |entry| entry.fallback == fallback).map(|entry| entry.node)
        };
        let (named, fallbacks): (Vec<NodeId>, Vec<NodeId>) =
            (of(false).collect(), of(true).collect());
        let at = (bucket, &key[..]);
        let mut copies = self.fallback_copies((&fallbacks, &named), at, written.dot);
        copies.extend(named.iter().map(|&node| (node, self.copy(node, at, written.dot))));
        let verdict = durable::check(history, event, &copies);
        self.referee.judge(verdict);
    }

    /// What is on a node's disk of a write.
    pub(super) fn copy(&self, node: NodeId, (bucket, key): (BucketId, &[u8]), dot: Dot) -> Copy {
        let Some(partition) = self.partition(bucket, key) else { return Copy::Missing };
        let forgotten = self.forgotten(bucket, key);
        let is_there = forgotten.covers(dot) || self.covered(node, bucket, key).covers(dot);
        if !is_there {
            let is_lost = self.referee.history().is_lost(node, partition, dot);
            return if is_lost { Copy::LostSince } else { Copy::Missing };
        }
        let mut row = Vec::new();
        holm_core::keys::object_key(&mut row, partition, bucket, key);
        let store = self.nodes.get(&node).map(|node| &node.store);
        let is_safe = self.setup.sync != SyncMode::Always
            || forgotten.covers(dot)
            || store
                .and_then(|store| store.safe_row(Table::Objects, &row))
                .and_then(|row| Object::decode(row).ok())
                .is_some_and(|object| object.context.covers(dot));
        if is_safe { Copy::Kept } else { Copy::Unsynced }
    }

    /// A node tells others what it has: the newest of it is safe on its disk.
    pub(super) fn audit_claims(&mut self, node: NodeId, message: &PeerMessage) {
        let newest: Vec<(Partition, Dot)> = match message {
            PeerMessage::Pulse { actor, counters, .. } => {
                let dot = |&(at, counter): &(Partition, u64)| (at, Dot { actor: *actor, counter });
                counters.iter().map(dot).collect()
            }
            PeerMessage::Seen { clocks, .. } => {
                let spans =
                    clocks.iter().flat_map(|(at, it)| it.seen.spans().map(move |s| (*at, s)));
                spans.map(|(at, (actor, _, counter))| (at, Dot { actor, counter })).collect()
            }
            PeerMessage::PageAnswer { partition, know, .. } => {
                // All replicas have seen that, so it has.
                return self.referee.vouches(node, *partition, know);
            }
            _ => return,
        };
        let verdict = newest.into_iter().try_for_each(|(at, dot)| self.check_claim(node, at, dot));
        self.referee.judge(verdict);
        if let PeerMessage::Seen { clocks, .. } = message {
            for (partition, claimed) in clocks {
                let verdict = self.check_known_safe(node, *partition, &claimed.know);
                self.referee.judge(verdict);
                self.referee.claims(node, *partition, claimed);
            }
        }
    }

    fn check_claim(&self, id: NodeId, partition: Partition, dot: Dot) -> Verdict {
        let history = self.referee.history();
        let Some(event) = history.by_dot(partition, dot) else { return Ok(()) };
        if history.is_void(partition, dot) {
            return Ok(());
        }
        let key = history.key(history.event(event).key);
        let mut row = Vec::new();
        holm_core::keys::object_key(&mut row, partition, key.bucket, &key.name);
        let safe = self.nodes.get(&id).and_then(|node| node.store.safe_row(Table::Objects, &row));
        let safe = safe.and_then(|row| Object::decode(row).ok());
        let safe = safe.map(|object| object.context).unwrap_or_default();
        let id_of_key = history.event(event).key;
        claims::check(id, dot, &history.with_forgotten(id_of_key, &safe))
    }

    /// What a node claims to know is safe on its disk.
    fn check_known_safe(&self, id: NodeId, partition: Partition, know: &VersionVector) -> Verdict {
        let row = holm_core::keys::account_key(partition);
        let safe = self.nodes.get(&id).and_then(|node| node.store.safe_row(Table::Meta, &row));
        let safe = safe.and_then(|row| Account::decode(row).ok()).unwrap_or_default();
        // What is folded away is known, and is not in the account.
        let is_folded = |dot: &Dot| {
            let row = end_key(partition, dot.actor);
            let end = self.nodes.get(&id).and_then(|node| node.store.safe_row(Table::Meta, &row));
            let end = end.and_then(|row| End::decode(row).ok());
            matches!(end, Some(End::Folded(dots)) if dots.max() >= dot.counter)
        };
        let open = know.iter().filter(|dot| !is_folded(dot));
        open.into_iter().try_for_each(|dot| claims::check(id, dot, &safe.know))
    }

    /// What no state of a key need name any more.
    fn forgotten(&self, bucket: BucketId, key: &[u8]) -> VersionVector {
        let history = self.referee.history();
        let id = history.key_id(bucket, &bytes::Bytes::copy_from_slice(key));
        id.map(|id| history.forgotten(id)).unwrap_or_default()
    }

    /// Whether the replicas of a partition that remember have seen the same.
    ///
    /// # Errors
    /// They have not.
    pub fn check_clocks_converged(&self, partition: Partition) -> Verdict {
        let shard = shard_of(partition, self.setup.shape.shards);
        let clock = |&id: &NodeId| {
            let slot = self.nodes.get(&id)?.slots.get(shard)?;
            Some((id, slot.shard.partition(partition)?.clock().clone()))
        };
        let whole = self.layout.replicas(partition).iter().filter(|&&id| self.is_whole(id));
        let clocks: Vec<_> = whole.filter_map(clock).collect();
        converged::check_clocks(partition, &clocks)
    }

    /// Whether every tombstone that no replica needs is gone: where all replicas remember.
    ///
    /// # Errors
    /// One is left.
    pub fn check_all_forgotten(&self) -> Verdict {
        if self.setup.shard.stable_ms >= NEVER_MS {
            return Ok(());
        }
        let history = self.referee.history();
        for (_, key) in history.keys().filter(|(_, key)| !key.is_lww) {
            let replicas = self.layout.replicas(key.partition);
            if !replicas.iter().all(|&id| self.is_whole(id)) {
                continue;
            }
            let shard = shard_of(key.partition, self.setup.shape.shards);
            let clock = |id: &NodeId| {
                let state = self.nodes.get(id)?.slots.get(shard)?.shard.partition(key.partition)?;
                Some(state.clock())
            };
            let stable = PartitionClock::minimum(replicas.iter().filter_map(clock));
            for &node in replicas {
                let Some(object) = self.stored(node, key.bucket, &key.name) else { continue };
                let name = String::from_utf8_lossy(&key.name);
                converged::check_forgotten((node, &name), &object, &stable)?;
            }
        }
        Ok(())
    }

    /// What a node's object of a key covers.
    fn covered(&self, node: NodeId, bucket: BucketId, key: &[u8]) -> VersionVector {
        self.stored(node, bucket, key).map(|object| object.context).unwrap_or_default()
    }

    /// A node has committed these rows: what they say of runs that ended is what everybody says, and
    /// what they call void nobody has.
    fn audit_ends(&mut self, node: NodeId, rows: &[Changed]) {
        for row in rows.iter().filter(|row| row.table == Table::Meta) {
            let end = row.after.as_deref().and_then(|row| End::decode(row).ok());
            let (Some((partition, actor)), Some(end)) = (end_key_parts(&row.key), end) else {
                continue;
            };
            let Some(dots) = end.dots() else { continue };
            let known = self.referee.history().closed(partition, actor);
            let is_new = known.is_none();
            let verdict = closed::check(actor, known, dots, &node.to_string());
            self.referee.judge(verdict);
            if is_new {
                self.referee.closed((partition, actor), dots);
                let verdict = self.check_void((partition, actor), dots);
                self.referee.judge(verdict);
            }
        }
    }

    /// Whether no clock has an entry of a run that ended: where all nodes remember, and look for such
    /// runs. Actors of fallbacks are left out: who knows when they end?
    ///
    /// # Errors
    /// One has.
    pub fn check_all_folded(&self) -> Verdict {
        let all_remember = self.node_ids().all(|id| self.is_whole(id) || self.buried.contains(&id));
        if self.setup.shard.retire_ms == 0 || !all_remember {
            return Ok(());
        }
        let slots = || self.nodes.values().flat_map(|node| &node.slots);
        let alive: BTreeSet<Actor> = slots().map(|slot| slot.shard.actor()).collect();
        for partition in self.setup.shape.partitions() {
            let shard = shard_of(partition, self.setup.shape.shards);
            for &id in self.layout.replicas(partition) {
                let slot = self.nodes.get(&id).and_then(|node| node.slots.get(shard));
                let state = slot.and_then(|slot| slot.shard.partition(partition));
                let Some(state) = state else { continue };
                let ended = |actor| {
                    self.actors.contains(&actor)
                        && !alive.contains(&actor)
                        && !self.has_lost_some(partition, actor)
                };
                closed::check_folded(state.clock(), ended, &format!("{id}, {partition}"))?;
            }
        }
        Ok(())
    }

    /// Whether a dot that an actor has, as was decided, is on no replica's disk any more.
    fn has_lost_some(&self, partition: Partition, actor: Actor) -> bool {
        let shard = shard_of(partition, self.setup.shape.shards);
        let mut left = IntervalSet::new();
        for id in self.layout.replicas(partition) {
            let slot = self.nodes.get(id).and_then(|node| node.slots.get(shard));
            if let Some(state) = slot.and_then(|slot| slot.shard.partition(partition)) {
                left.merge(&state.clock().seen_of(actor));
            }
        }
        let dots = self.referee.history().closed(partition, actor);
        dots.is_some_and(|dots| !left.covers(dots))
    }

    /// Nothing that is void is anywhere.
    pub fn check_voids(&mut self) {
        let closed: Vec<_> = self.referee.history().all_closed().collect();
        let verdict = closed.iter().try_for_each(|(place, dots)| self.check_void(*place, dots));
        self.referee.judge(verdict);
    }

    /// What a node that has not learned an actor's end has seen beyond it: one of each range.
    fn seen_untold(
        &self,
        node: &Node,
        (partition, actor): (Partition, Actor),
        dots: &IntervalSet,
    ) -> Vec<Dot> {
        let row = node.store.row(Table::Meta, &end_key(partition, actor));
        let end = row.and_then(|row| End::decode(row).ok());
        let slot = node.slots.get(shard_of(partition, node.slots.len().max(1)));
        let state = slot.and_then(|slot| slot.shard.partition(partition));
        match state.filter(|_| end.is_none_or(|end| end.dots().is_none())) {
            Some(state) => {
                let beyond = state.clock().seen_of(actor).difference(dots);
                beyond.into_iter().map(|(counter, _)| Dot { actor, counter }).collect()
            }
            None => Vec::new(),
        }
    }

    fn check_void(&self, (partition, actor): (Partition, Actor), dots: &IntervalSet) -> Verdict {
        let prefix = partition.to_u32().to_be_bytes();
        for node in self.nodes.values().filter(|node| node.is_up && !node.amnesia) {
            let place = node.id.to_string();
            // Who got a copy of a replica's disk and is none itself does not serve from it.
            let is_replica = self.layout.is_replica(partition, node.id);
            let objects = node.store.rows_below(Table::Objects, &prefix).filter(|_| is_replica);
            let objects = objects.map(|(_, row)| row.to_vec());
            let hints = node.store.rows(Table::Hints).filter_map(|(key, row)| {
                let is_it = hint_key_parts(key).is_some_and(|parts| parts.1 == partition);
                is_it.then(|| object_of(&Bytes::copy_from_slice(row)).to_vec())
            });
            closed::check_held(
                actor,
                dots,
                self.seen_untold(node, (partition, actor), dots),
                &place,
            )?;
            for object in objects.chain(hints).filter_map(|row| Object::decode(&row).ok()) {
                closed::check_held(actor, dots, object.named_dots(), &place)?;
            }
        }
        Ok(())
    }

    /// A node has committed these rows, or finds at its start that it had.
    pub(super) fn audit_rows(&mut self, id: NodeId, rows: &[Changed]) {
        self.audit_hints(id, rows);
        self.audit_ends(id, rows);
        // What only a damaged row had, is lost when something else is put in its place.
        let replaced = |row: &Changed| {
            let (before, after) = (row.after.clone(), row.before.clone());
            row.was_damaged.then(|| Changed { before, after, ..row.clone() })
        };
        let replaced: Vec<Changed> = rows.iter().filter_map(replaced).collect();
        self.referee.lost(id, &replaced, &self.nodes[&id].store);
        let (slots, store) = (&self.nodes[&id].slots, &self.nodes[&id].store);
        let clock = |partition| {
            let slot = slots.get(shard_of(partition, slots.len()))?;
            slot.shard.partition(partition).map(|state| state.clock())
        };
        let stored = |partition, bucket, key: &[u8]| {
            let mut row = Vec::new();
            holm_core::keys::object_key(&mut row, partition, bucket, key);
            let object = Object::decode(store.row(Table::Objects, &row)?).ok()?;
            Some(object.context)
        };
        let account = |partition| {
            let row = store.row(Table::Meta, &holm_core::keys::account_key(partition));
            let account = row.and_then(|row| Account::decode(row).ok());
            let mut account = account.unwrap_or_default();
            // What is folded away is known, and is not in the account.
            for (key, row) in store.rows_below(Table::Meta, &ENDS_BEGIN) {
                let end = End::decode(row).ok();
                if let (Some((at, actor)), Some(End::Folded(dots))) = (end_key_parts(key), end)
                    && at == partition
                {
                    account.know.insert(Dot { actor, counter: dots.max() });
                }
            }
            account
        };
        self.referee.committed((id, self.now_us), rows, clock, (stored, account));
    }

    /// A node has started: its disk has what it acknowledged, and its clocks claim nothing else.
    pub(super) fn audit_restart(&mut self, node: NodeId) {
        let verdict = self
            .check_restart(node)
            .and_then(|()| self.check_hints_after_restart(node))
            .and_then(|()| self.check_clocks_of(node));
        self.referee.judge(verdict);
    }

    fn check_restart(&self, node: NodeId) -> Verdict {
        let history = self.referee.history();
        for (id, key) in history.keys() {
            let covers = self.covered(node, key.bucket, &key.name);
            let covers = history.with_forgotten(id, &covers);
            durable::check_restart(history, id, node, &covers)?;
        }
        Ok(())
    }

    /// Compares every node's clocks with its objects.
    pub fn check_clocks(&mut self) {
        let nodes: Vec<NodeId> = self.node_ids().collect();
        let verdict = nodes.into_iter().try_for_each(|node| self.check_clocks_of(node));
        self.referee.judge(verdict);
    }

    fn check_clocks_of(&self, id: NodeId) -> Verdict {
        let Some(node) = self.nodes.get(&id).filter(|node| !node.is_doubtful) else {
            return Ok(());
        };
        let history = self.referee.history();
        let keys: Vec<KeyId> = history.keys().map(|(key, _)| key).collect();
        for key in keys {
            let facts = history.key(key);
            // A clock runs ahead of the disk while a batch is open, and is behind it where it was
            // not believed.
            let slot = node.slots.get(shard_of(facts.partition, node.slots.len().max(1)));
            let is_settled = |slot: &&Slot| {
                !slot.is_busy && slot.shard.standing(facts.partition) != Standing::Behind
            };
            let Some(slot) = slot.filter(is_settled) else { continue };
            let Some(state) = slot.shard.partition(facts.partition) else { continue };
            let object = self.stored(id, facts.bucket, &facts.name);
            if let Some(object) = &object {
                replica::check_clock(state.clock(), object, &id.to_string())?;
            }
            let covers = object.map(|object| object.context).unwrap_or_default();
            let covers = history.with_forgotten(key, &covers);
            logged::check_clock(history, key, (id, state.clock()), &covers)?;
        }
        Ok(())
    }

    /// Compares replicas with equal clocks, a few partitions in turn, and every shard's counters with
    /// their limits.
    pub fn check_replicas(&mut self) {
        let mut verdict = Ok(());
        for node in self.nodes.values() {
            for slot in &node.slots {
                let place = node.id.to_string();
                let counters = slot.shard.counters();
                verdict =
                    verdict.and_then(|()| bounds::check(&self.setup.shard, &counters, &place));
            }
        }
        let partitions = self.setup.shape.partitions();
        let turn = partitions.len().min(PARTITIONS_CHECKED);
        for &partition in partitions.iter().cycle().skip(self.next_checked).take(turn) {
            verdict = verdict.and_then(|()| self.check_partition(partition));
        }
        self.next_checked = (self.next_checked + turn) % partitions.len();
        self.referee.judge(verdict);
    }

    fn check_partition(&self, partition: Partition) -> Verdict {
        let shard = shard_of(partition, self.setup.shape.shards);
        let clock_of = |id: NodeId| {
            let node = self.nodes.get(&id)?;
            // A clock runs ahead of the disk while a batch is open.
            let slot = node.slots.get(shard).filter(|slot| !slot.is_busy && !node.is_doubtful)?;
            if slot.shard.standing(partition) == Standing::Behind {
                return None;
            }
            slot.shard.partition(partition).map(|state| (id, state.clock()))
        };
        let replicas: Vec<_> =
            self.layout.replicas(partition).iter().filter_map(|&id| clock_of(id)).collect();
        for (at, &other) in replicas.iter().enumerate() {
            // What equals the first of its kind equals the others too.
            let one = replicas[..at].iter().find(|one| one.1.has_seen_the_same(other.1));
            let Some(&one) = one.filter(|one| !self.has_equal_rows(one.0, other.0, partition))
            else {
                continue;
            };
            equal_clocks::check(partition, one, other, |id| self.live_dots(id, partition))?;
        }
        Ok(())
    }

    /// Whether two nodes hold the same bytes of a partition: then there is nothing to decode.
    fn has_equal_rows(&self, one: NodeId, other: NodeId, partition: Partition) -> bool {
        let prefix = partition.to_u32().to_be_bytes();
        let (Some(one), Some(other)) = (self.nodes.get(&one), self.nodes.get(&other)) else {
            return false;
        };
        let rows = one.store.rows_below(Table::Objects, &prefix);
        rows.eq(other.store.rows_below(Table::Objects, &prefix))
    }

    fn live_dots(&self, node: NodeId, partition: Partition) -> equal_clocks::LiveDots {
        let prefix = partition.to_u32().to_be_bytes();
        let Some(node) = self.nodes.get(&node) else { return equal_clocks::LiveDots::new() };
        let rows = node.store.rows_below(Table::Objects, &prefix);
        rows.filter_map(|(key, row)| {
            let live: Vec<_> = Object::decode(row).ok()?.live_dots().collect();
            (!live.is_empty()).then(|| (key.to_vec(), live))
        })
        .collect()
    }
}
