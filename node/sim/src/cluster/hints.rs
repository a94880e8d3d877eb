//! What nodes keep for each other, as it is on their disks.

use bytes::Bytes;
use holm_core::keys::{hint_key, hint_key_parts};
use holm_core::object::Object;
use holm_core::shard::hints::object_of;
use holm_core::store::Table;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{BucketId, NodeId};
use holm_protocol::version_vector::VersionVector;

use super::Cluster;
use crate::check::durable::{self, Copy};
use crate::check::{Verdict, hints};
use crate::history::KeyId;
use crate::store::{Changed, SyncMode};

/// What a hint's row covers; nothing if there is none.
pub(crate) fn covered(row: Option<&[u8]>) -> VersionVector {
    let object = row.map(|row| object_of(&Bytes::copy_from_slice(row)));
    let object = object.and_then(|object| Object::decode(&object).ok());
    object.map(|object| object.context).unwrap_or_default()
}

impl Cluster {
    /// A node has committed these rows: hints that are gone are at home.
    pub(super) fn audit_hints(&mut self, node: NodeId, rows: &[Changed]) {
        for row in rows.iter().filter(|row| row.table == Table::Hints) {
            let Some((replica, _, bucket, key)) = hint_key_parts(&row.key) else { continue };
            let (before, after) = (covered(row.before.as_deref()), covered(row.after.as_deref()));
            // What was for one of the dead may be kept for another replica instead.
            let is_moved = |dot| {
                let mut kept = self.hints_of(node, bucket, key);
                self.buried.contains(&replica)
                    && kept.any(|(heir, covers)| heir != replica && covers.covers(dot))
            };
            let home = |dot| match is_moved(dot) {
                true => Copy::Kept,
                false => self.copy(replica, (bucket, key), dot),
            };
            let verdict = hints::check_change((node, replica), (&before, &after), home);
            self.referee.judge(verdict);
            let id = self.referee.history().key_id(bucket, &Bytes::copy_from_slice(key));
            let Some(id) = id else { continue };
            let kept: Vec<VersionVector> =
                self.hints_of(node, bucket, key).map(|it| it.1).collect();
            let now_us = self.now_us;
            self.referee.hint_changed((node, replica), id, (&before, &after), &kept, now_us);
        }
    }

    /// What a node keeps of a key, for whom.
    pub(super) fn hints_of(
        &self,
        node: NodeId,
        bucket: BucketId,
        key: &[u8],
    ) -> impl Iterator<Item = (NodeId, VersionVector)> + '_ {
        let partition = self.partition(bucket, key);
        let key = key.to_vec();
        let replicas = partition.map_or(&[][..], |partition| self.layout.replicas(partition));
        replicas.iter().filter_map(move |&replica| {
            let row = hint_key(replica, partition?, bucket, &key);
            let row = self.nodes.get(&node)?.store.row(Table::Hints, &row)?;
            Some((replica, covered(Some(row))))
        })
    }

    /// What stands behind the fallbacks that a receipt names: of each, the copy of one replica that
    /// the receipt does not name and that no other fallback stands for; kept as a hint or home since.
    pub(super) fn fallback_copies(
        &self,
        (fallbacks, named): (&[NodeId], &[NodeId]),
        (bucket, key): (BucketId, &[u8]),
        dot: Dot,
    ) -> Vec<(NodeId, Copy)> {
        let mut choices: Vec<(NodeId, Vec<(NodeId, Copy)>)> = fallbacks
            .iter()
            .map(|&fallback| (fallback, self.stands_for(fallback, (bucket, key), dot)))
            .collect();
        for (_, copies) in &mut choices {
            copies.retain(|(replica, _)| !named.contains(replica));
        }
        // Who has the least choice, chooses first.
        choices.sort_by_key(|(_, copies)| copies.len());
        let mut taken: Vec<NodeId> = Vec::new();
        let copy = |(fallback, copies): (NodeId, Vec<(NodeId, Copy)>)| {
            let free = copies.into_iter().find(|(replica, _)| !taken.contains(replica));
            taken.extend(free.map(|(replica, _)| replica));
            let partition = self.partition(bucket, key);
            let history = self.referee.history();
            let is_lost = partition.is_some_and(|p| history.is_lost(fallback, p, dot));
            let none = if is_lost { Copy::LostSince } else { Copy::Missing };
            (fallback, free.map_or(none, |(_, copy)| copy))
        };
        choices.into_iter().map(copy).collect()
    }

    /// The replicas for which a fallback has, or had, a write, with the copy that there is now.
    fn stands_for(
        &self,
        fallback: NodeId,
        (bucket, key): (BucketId, &[u8]),
        dot: Dot,
    ) -> Vec<(NodeId, Copy)> {
        let kept = self.hints_of(fallback, bucket, key).filter(|(_, covers)| covers.covers(dot));
        let is_safe = |replica: NodeId| {
            let store = self.nodes.get(&fallback).map(|node| &node.store);
            let row = self.partition(bucket, key).map(|p| hint_key(replica, p, bucket, key));
            let safe = store.zip(row).is_some_and(|(store, row)| {
                covered(store.safe_row(Table::Hints, &row)).covers(dot)
            });
            safe || self.setup.sync != SyncMode::Always
        };
        let copy = |replica| if is_safe(replica) { Copy::Kept } else { Copy::Unsynced };
        let mut out: Vec<(NodeId, Copy)> =
            kept.map(|(replica, _)| (replica, copy(replica))).collect();
        let history = self.referee.history();
        let Some(id) = history.key_id(bucket, &Bytes::copy_from_slice(key)) else { return out };
        for replica in history.homes(id, fallback, dot) {
            out.push((replica, self.copy(replica, (bucket, key), dot)));
        }
        out
    }

    /// A node has started: what it kept for others is there.
    pub(super) fn check_hints_after_restart(&self, node: NodeId) -> Verdict {
        let history = self.referee.history();
        let keys: Vec<KeyId> = history.keys().map(|(id, _)| id).collect();
        for id in keys {
            let facts = history.key(id);
            let kept: Vec<VersionVector> =
                self.hints_of(node, facts.bucket, &facts.name).map(|it| it.1).collect();
            durable::check_hints_after_restart(history, id, node, &kept)?;
        }
        Ok(())
    }

    /// What is kept anywhere: by whom, for whom.
    #[must_use]
    pub fn hints_left(&self) -> Vec<(NodeId, NodeId)> {
        let of = |id: NodeId| {
            let rows = self.nodes.get(&id).map(|node| node.store.rows(Table::Hints));
            let rows = rows.into_iter().flatten();
            rows.filter_map(move |(key, _)| Some((id, hint_key_parts(key)?.0)))
        };
        self.node_ids().flat_map(of).collect()
    }

    /// Ends a run's wait for hints: what is left should have gone home.
    pub fn check_hints_left(&mut self) {
        let verdict = hints::check_left(&self.hints_left());
        self.referee.judge(verdict);
    }
}
