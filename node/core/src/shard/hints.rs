//! Hints: what this node keeps for replicas of its region that could not take it themselves.
//!
//! A hint is an object under `replica | partition | bucket | key`, joined with what is kept there
//! already, with the time since when anything is. It counts as a copy of the replica's as soon as
//! it is durable, so its vote goes out with the commit, and it stays, over restarts too, until the
//! replica has it (`handoff`). A fallback is no replica: a hint marks nothing as seen.
//!
//! **Bounded** (I10): past [`hint_bytes_max`](super::config::ShardConfig::hint_bytes_max) a hint is
//! refused, and the write needs real replicas. Nothing is lost by that: a replica's clock knows what
//! it is missing.
//!
//! Nothing a peer sends is trusted: only replicas of the own region have hints here, and only objects
//! that their partition and bucket can hold.
//!
//! Where a new layout takes the replica out, another gets it (`orphans`).
//!
//! Source: Dynamo (SOSP 2007) 4.6.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::{BufMut, Bytes};

use holm_protocol::admin::HintState;
use holm_protocol::ids::{BucketId, NodeId, Partition};
use holm_protocol::limits::OBJECT_LEN_MAX;

use crate::keys::{HINT_KEY_HEAD_LEN, hint_key, hint_key_parts};
use crate::object::Object;
use crate::peer::{HintMessage, OpId, PeerMessage, Refusal};
use crate::shard::config::Boot;
use crate::shard::event::Effect;
use crate::shard::replica::Incoming;
use crate::shard::{Shard, Turn, object_kind};
use crate::store::{Store, StoreError, Table};

/// Rows read at a time when hints are counted at a start. Arbitrary: a few megabytes at most.
const COUNT_ROWS: usize = 256;

/// Bytes before the object in a hint's row: the time since when it is kept.
const ROW_HEAD_LEN: usize = 8;

/// What is kept for one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Total {
    pub(super) rows: u64,
    pub(super) bytes: usize,
    /// Nothing is older than this, wall milliseconds.
    pub(super) since_ms: u64,
}

/// A row that the open batch changes.
#[derive(Debug)]
struct Open {
    before: Option<usize>,
    after: Option<Bytes>,
}

/// What this shard keeps for others. The rows are on the disk; here is how much there is, and what
/// the open batch changes.
#[derive(Debug, Default)]
pub(super) struct Hints {
    is_loaded: bool,
    totals: BTreeMap<NodeId, Total>,
    /// How many rows each partition has.
    partitions: BTreeMap<Partition, u64>,
    bytes: usize,
    open: BTreeMap<Vec<u8>, Open>,
    open_bytes: usize,
}

impl Hints {
    /// Counts what the disk has, once.
    ///
    /// # Errors
    /// What the store reports, or [`StoreError::Corrupt`] for a row that is no hint.
    pub(super) fn load<S: Store>(&mut self, boot: &Boot, store: &mut S) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_loaded, true) {
            return Ok(());
        }
        let mut from = Vec::new();
        loop {
            let rows = store.scan(Table::Hints, &from, &[0xff; HINT_KEY_HEAD_LEN], COUNT_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, row) in &rows {
                let parts = hint_key_parts(key);
                let (Some((replica, partition, ..)), Some(since_ms)) = (parts, since(row)) else {
                    let len = key.len();
                    return Err(StoreError::Corrupt(format!("hints: a key of {len} bytes")));
                };
                if boot.owns(partition) {
                    self.count((replica, partition), None, Some(key.len() + row.len()));
                    self.note_age(replica, since_ms);
                }
            }
        }
    }

    fn count(
        &mut self,
        (replica, partition): (NodeId, Partition),
        before: Option<usize>,
        after: Option<usize>,
    ) {
        let rows = self.partitions.entry(partition).or_default();
        *rows = *rows + u64::from(after.is_some()) - u64::from(before.is_some());
        if *rows == 0 {
            self.partitions.remove(&partition);
        }
        let total = self.totals.entry(replica).or_default();
        total.rows = total.rows + u64::from(after.is_some()) - u64::from(before.is_some());
        let (less, more) = (before.unwrap_or(0), after.unwrap_or(0));
        total.bytes = total.bytes + more - less;
        self.bytes = self.bytes + more - less;
        if total.rows == 0 {
            self.totals.remove(&replica);
        }
    }

    fn note_age(&mut self, replica: NodeId, since_ms: u64) {
        let Some(total) = self.totals.get_mut(&replica) else { return };
        total.since_ms = match total.since_ms {
            0 => since_ms.max(1),
            known => known.min(since_ms.max(1)),
        };
    }

    /// What is kept for a replica.
    pub(super) fn total(&self, replica: NodeId) -> Total {
        self.totals.get(&replica).copied().unwrap_or_default()
    }

    /// How many rows there are of a partition.
    pub(super) fn of(&self, partition: Partition) -> u64 {
        self.partitions.get(&partition).copied().unwrap_or(0)
    }

    /// Replicas for which something is kept.
    pub(super) fn replicas(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.totals.keys().copied()
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> u64 {
        self.totals.values().map(|total| total.rows).sum()
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing is older than this, wall milliseconds; 0 if there is nothing.
    pub(super) fn since_ms(&self) -> u64 {
        self.totals.values().map(|total| total.since_ms).min().unwrap_or(0)
    }

    /// A row as the open batch has made it.
    pub(super) fn get<S: Store>(
        &self,
        key: &[u8],
        store: &mut S,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.open.get(key) {
            Some(open) => Ok(open.after.clone()),
            None => Ok(store.get(Table::Hints, key)?.map(Bytes::from)),
        }
    }

    /// Changes a row in the open batch. `before` is what is there.
    pub(super) fn set(&mut self, key: Vec<u8>, before: Option<&Bytes>, after: Option<Bytes>) {
        let Some((replica, partition, ..)) = hint_key_parts(&key) else { return };
        let len = |row: &Bytes| key.len() + row.len();
        let (before, more) = (before.map(len), after.as_ref().map(len));
        self.count((replica, partition), before, more);
        self.open_bytes += more.unwrap_or(0);
        match self.open.entry(key) {
            Entry::Occupied(mut open) => open.get_mut().after = after,
            Entry::Vacant(new) => {
                new.insert(Open { before, after });
            }
        }
    }

    /// Whether the open batch changes anything.
    pub(super) fn has_changes(&self) -> bool {
        !self.open.is_empty()
    }

    /// Bytes that the open batch holds.
    pub(super) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// Stages what the open batch changes.
    pub(super) fn stage<S: Store>(&self, store: &mut S) {
        for (key, open) in &self.open {
            match &open.after {
                Some(row) => store.stage_put(Table::Hints, key, row),
                None if open.before.is_some() => store.stage_delete(Table::Hints, key),
                None => {}
            }
        }
    }

    /// After a commit.
    pub(super) fn committed(&mut self) {
        self.open.clear();
        self.open_bytes = 0;
    }

    /// After a failed commit: counts what is on the disk again.
    pub(super) fn roll_back(&mut self) {
        self.open_bytes = 0;
        for (key, open) in std::mem::take(&mut self.open) {
            if let Some((replica, partition, ..)) = hint_key_parts(&key) {
                let after = open.after.map(|row| key.len() + row.len());
                self.count((replica, partition), after, open.before);
            }
        }
    }
}

/// A hint's row.
fn row(since_ms: u64, object: &Object) -> Bytes {
    let mut row = Vec::new();
    row.put_u64(since_ms);
    object.encode(&mut row);
    row.into()
}

/// Since when a row is kept, wall milliseconds.
fn since(row: &[u8]) -> Option<u64> {
    row.first_chunk().map(|head| u64::from_be_bytes(*head))
}

/// The encoded object in a row.
pub fn object_of(row: &Bytes) -> Bytes {
    row.slice(ROW_HEAD_LEN.min(row.len())..)
}

impl Shard {
    /// Describes what is kept of a key, for an operator.
    pub(super) fn hint_states<S: Store>(
        &mut self,
        partition: Partition,
        bucket: BucketId,
        key: &[u8],
        store: &mut S,
    ) -> Vec<HintState> {
        let layout = self.cluster.layout.clone();
        let region = layout.as_ref().zip(self.region);
        let near = region.as_ref().map_or(&[][..], |(l, r)| l.replicas_in(partition, *r));
        let state = |&replica: &NodeId| {
            let row = hint_key(replica, partition, bucket, key);
            let row = self.hints.get(&row, store).ok()??;
            let (bytes, since_ms) = (object_of(&row).len() as u32, since(&row)?);
            Some(HintState { replica, bytes, since_ms })
        };
        near.iter().filter_map(state).collect()
    }

    /// Keeps an object for a replica that cannot be reached, and says so once it is durable.
    pub(super) fn on_keep<S: Store>(
        &mut self,
        (from, op): (NodeId, OpId),
        (replica, hint): (NodeId, Incoming),
        turn: &mut Turn<'_, S>,
    ) {
        let partition = hint.partition;
        let refused = self.keep_hint(replica, &hint, turn).err();
        let message = PeerMessage::Hint(HintMessage::Kept { op, partition, replica, refused });
        let effect = Effect::Send { to: vec![from], message };
        match refused {
            Some(refusal) => {
                self.counters.hints_refused += 1;
                self.counters.peer_rejections += u64::from(!refusal.is_of_the_node());
                turn.out.push(effect);
            }
            // Also of one that was here already: that may be part of the open batch.
            None => self.held.push(effect),
        }
    }

    fn keep_hint<S: Store>(
        &mut self,
        replica: NodeId,
        hint: &Incoming,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        self.check_hint_place(replica, hint.partition, hint.bucket, &hint.key)?;
        let incoming = Object::decode(&hint.object).map_err(|_| Refusal::Malformed)?;
        let bucket = self.cluster.buckets.get(&hint.bucket).ok_or(Refusal::UnknownBucket)?;
        if object_kind(bucket.policy.kind) != incoming.kind() {
            return Err(Refusal::WrongKind);
        }
        self.check_dots(hint.partition, &incoming)?;
        self.check_ends(hint.partition, &incoming)?;
        self.check_clocks(turn.now, &incoming)?;
        self.writable(turn.store)?;
        self.store_hint(replica, hint, incoming, turn)
    }

    /// Joins an object into a hint, in the open batch; everything about it has been checked.
    pub(super) fn store_hint<S: Store>(
        &mut self,
        replica: NodeId,
        hint: &Incoming,
        incoming: Object,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), Refusal> {
        let key = hint_key(replica, hint.partition, hint.bucket, &hint.key);
        let before = self.hints.get(&key, turn.store).map_err(|e| self.store_refusal(&e))?;
        let now_ms = turn.now.wall.0;
        let (next, since_ms) = match &before {
            None => (incoming, now_ms),
            Some(before) => {
                let since_ms = since(before).unwrap_or(now_ms);
                let mut next = Object::decode(&object_of(before)).map_err(|_| {
                    self.counters.corrupt_objects += 1;
                    Refusal::Corrupt
                })?;
                let here = next.clone();
                next.join(incoming).map_err(|_| Refusal::WrongKind)?;
                next.check_limits().map_err(|_| Refusal::TooLarge)?;
                if next == here {
                    return Ok(());
                }
                (next, since_ms)
            }
        };
        let after = row(since_ms, &next);
        if after.len() > OBJECT_LEN_MAX {
            return Err(Refusal::TooLarge);
        }
        let had = before.as_ref().map_or(0, |before| key.len() + before.len());
        if self.hints.bytes() - had + key.len() + after.len() > self.config.hint_bytes_max {
            return Err(Refusal::HintsFull);
        }
        self.hints.set(key, before.as_ref(), Some(after));
        self.hints.note_age(replica, since_ms);
        self.counters.hints_kept += 1;
        self.expect_handoff(replica, turn.now.mono.plus_ms(self.config.resend_ms));
        Ok(())
    }

    /// Whether this node is one that may keep a key for a replica.
    fn check_hint_place(
        &self,
        replica: NodeId,
        partition: Partition,
        bucket: BucketId,
        key: &[u8],
    ) -> Result<(), Refusal> {
        let (Some(layout), Some(region)) = (&self.cluster.layout, self.region) else {
            return Err(Refusal::NotReplica);
        };
        // A node of a newer layout may think otherwise, and finds another fallback.
        let is_fallback = !layout.is_replica(partition, self.boot.node)
            && layout.replicas_in(partition, region).contains(&replica);
        if !is_fallback {
            return Err(Refusal::NotReplica);
        }
        let right = layout.partition(partition.placement, bucket, key);
        if right != Some(partition) || !self.boot.owns(partition) {
            return Err(Refusal::Malformed);
        }
        Ok(())
    }
}

/// The least key of the hints for a replica.
pub(super) fn first_key(replica: NodeId) -> Vec<u8> {
    replica.0.to_be_bytes().to_vec()
}

/// The first key after all hints for a replica; above every one if it is the last that can be.
pub(super) fn end_key(replica: NodeId) -> Vec<u8> {
    match replica.0.checked_add(1) {
        Some(next) => next.to_be_bytes().to_vec(),
        None => vec![0xff; HINT_KEY_HEAD_LEN],
    }
}
