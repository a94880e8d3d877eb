//! What nodes commit: rows of objects, logs and accounts, each against what it may become.

use bytes::Bytes;
use holm_core::clock::PartitionClock;
use holm_core::keys::{OBJECT_KEY_HEAD_LEN, SEGMENTS_BEGIN};
use holm_core::layout::Layout;
use holm_core::object::Object;
use holm_core::shard::account::Account;
use holm_core::shard::log::segment::{self, Place};
use holm_core::shard::log::{LogEntry, decode_record};
use holm_core::store::Table;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use super::{Referee, least};
use crate::check::{Verdict, claims, logged, replica};
use crate::history::KeyId;
use crate::store::Changed;

impl Referee {
    /// A node committed these rows. `clock` gives its partition clocks, `stored` its objects'
    /// contexts, `account` what it knows of a partition.
    pub fn committed<'a>(
        &mut self,
        (node, now_us): (NodeId, u64),
        rows: &[Changed],
        clock: impl Fn(Partition) -> Option<&'a PartitionClock>,
        (stored, account): (
            impl Fn(Partition, BucketId, &[u8]) -> Option<VersionVector>,
            impl Fn(Partition) -> Account,
        ),
    ) {
        let place = node.to_string();
        for row in rows {
            let verdict = match row.table {
                Table::Objects => {
                    let Some((partition, key)) = self.row_key(&row.key) else { continue };
                    let known = self.known(node, partition, &account);
                    let at = (node, &place[..], now_us);
                    let verdict = self.check_row(key, row, (at, &known), clock(partition));
                    if let Some(object) = row.after.as_ref().and_then(|b| Object::decode(b).ok()) {
                        self.history.regain(node, key, &object.context, now_us);
                    }
                    verdict
                }
                Table::Log => self.check_log(row, &place, &stored),
                Table::Meta => self.check_account(node, row),
                _ => Ok(()),
            };
            self.judge(verdict);
        }
    }

    fn check_row(
        &mut self,
        key: KeyId,
        row: &Changed,
        ((node, place, now_us), known): ((NodeId, &str, u64), &VersionVector),
        clock: Option<&PartitionClock>,
    ) -> Verdict {
        let decode = |bytes: &Option<Vec<u8>>| bytes.as_ref().and_then(|b| Object::decode(b).ok());
        let (before, after) = match (decode(&row.before), decode(&row.after)) {
            (None, None) => return Ok(()),
            // A removed row is an object without a context.
            (Some(before), None) => {
                let after = Object::new(before.kind());
                (before, after)
            }
            (before, Some(after)) => (before.unwrap_or_else(|| Object::new(after.kind())), after),
        };
        self.saw_object(key, &after, place)?;
        // What could not be read any more was not there.
        let nothing = row.was_damaged.then(|| Object::new(after.kind()));
        let was = nothing.as_ref().unwrap_or(&before);
        let change = replica::Change { key, before: was, after: &after, known, place };
        replica::check(&self.history, change)?;
        self.note_forgotten((node, key), (&before, &after), now_us);
        clock.map_or(Ok(()), |clock| replica::check_clock(clock, &after, place))
    }

    /// Checks that what a log row says was seen is stored.
    fn check_log(
        &self,
        row: &Changed,
        place: &str,
        stored: &impl Fn(Partition, BucketId, &[u8]) -> Option<VersionVector>,
    ) -> Verdict {
        let entries =
            row.after.as_deref().map(|bytes| log_entries(&row.key, bytes)).unwrap_or_default();
        for entry in &entries {
            let covers = stored(entry.partition, entry.bucket, &entry.key);
            let key = self.history.key_id(entry.bucket, &entry.key);
            let covers = covers.into_iter().chain(key.map(|key| self.history.forgotten(key)));
            let covers = covers.reduce(|mut one, other| {
                one.merge(&other);
                one
            });
            logged::check(entry, covers.as_ref(), place)?;
        }
        Ok(())
    }

    /// What a node may forget of a partition: by what it knows, or has claimed to know before its disk was
    /// replaced by an older one. A node to which the layout has just given the partition has to know
    /// nothing: what its disk has of it, as a copy of another's may, it gives up for what others have.
    fn known(
        &self,
        node: NodeId,
        partition: Partition,
        account: &impl Fn(Partition) -> Account,
    ) -> VersionVector {
        let mut own = account(partition).know;
        if let Some((_, claimed)) = self.claimed.get(&(node, partition)) {
            own.merge(claimed);
        }
        let is_replica = |layout: &Layout| layout.is_replica(partition, node);
        let is_new = self.layout_before.as_deref().is_some_and(|before| !is_replica(before));
        let mut known = VersionVector::default();
        for layout in self.layouts() {
            match self.claimed_by_others(node, (layout, partition)).1 {
                Some(others) if is_new => known.merge(&others),
                Some(others) => known.merge(&least(&own, &others)),
                None => return own,
            }
        }
        known
    }

    /// A context was cut: what it does not name any more is forgotten.
    fn note_forgotten(
        &mut self,
        (_, key): (NodeId, KeyId),
        (before, after): (&Object, &Object),
        now_us: u64,
    ) {
        let is_gone = |dot: &Dot| before.context.covers(*dot) && !after.context.covers(*dot);
        let events = self.history.events_of(key).filter_map(|(_, event)| event.dot);
        let gone: Vec<Dot> = before.context.iter().chain(events).filter(is_gone).collect();
        if !gone.is_empty() {
            self.history.forget(key, gone, now_us);
        }
    }

    /// A partition's account changed.
    fn check_account(&mut self, node: NodeId, row: &Changed) -> Verdict {
        let partition = row.key.strip_prefix(b"account/").and_then(|key| key.try_into().ok());
        let partition = partition.map(|key| Partition::from_u32(u32::from_be_bytes(key)));
        let account = row.after.as_ref().and_then(|row| Account::decode(row).ok());
        let (Some(partition), Some(account)) = (partition, account) else { return Ok(()) };
        let claimed = |layout| self.claimed_by_others(node, (layout, partition)).0;
        let claimed: Vec<_> = self.layouts().map(claimed).collect();
        if claimed.iter().any(Vec::is_empty) {
            // There is nobody to claim it to.
            let own = self.claimed.entry((node, partition)).or_default();
            own.1.merge(&account.know);
        }
        let verdicts = claimed.iter().map(|by| claims::check_known(node, &account.know, by));
        // By one layout or the other.
        verdicts.reduce(Verdict::or).unwrap_or(Ok(()))
    }

    pub(super) fn row_key(&self, row: &[u8]) -> Option<(Partition, KeyId)> {
        let (head, name) = row.split_at_checked(OBJECT_KEY_HEAD_LEN)?;
        let partition = u32::from_be_bytes(head[..4].try_into().ok()?);
        let bucket = BucketId(u32::from_be_bytes(head[4..].try_into().ok()?));
        let key = self.history.key_id(bucket, &Bytes::copy_from_slice(name))?;
        Some((Partition::from_u32(partition), key))
    }
}

/// The entries of a record, or of a segment.
pub(super) fn log_entries(key: &[u8], bytes: &[u8]) -> Vec<LogEntry> {
    let Some(segment) = key.strip_prefix(&SEGMENTS_BEGIN) else {
        return decode_record(bytes).unwrap_or_default();
    };
    let (Some(partition), Some(actor)) = (segment.first_chunk(), segment[4..].first_chunk()) else {
        return Vec::new();
    };
    let partition = Partition::from_u32(u32::from_be_bytes(*partition));
    let entries = segment::decode(Actor(u64::from_be_bytes(*actor)), bytes).unwrap_or_default();
    let entry = |(dot, place)| {
        let Place { hlc, bucket, key, has_more } = place;
        LogEntry { partition, dot, hlc, bucket, key, has_more }
    };
    entries.into_iter().map(entry).collect()
}
