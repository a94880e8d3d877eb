//! What disks lose.

use bytes::Bytes;
use holm_core::keys::{hint_key_parts, object_key};
use holm_core::object::Object;
use holm_core::shard::log::LogEntry;
use holm_core::store::Table;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use super::Referee;
use super::rows::log_entries;
use crate::cluster::covered;
use crate::history::KeyId;
use crate::store::{Changed, SimStore};

impl Referee {
    /// A node's disk, on which this is left, lost these rows, by a fault that may do that: the dots
    /// that it logged, and what its objects covered without a log entry of its own.
    pub fn lost(&mut self, node: NodeId, rows: &[Changed], left: &SimStore) {
        for row in rows {
            match row.table {
                Table::Log => {
                    let entries = row.after.as_deref().map(|bytes| log_entries(&row.key, bytes));
                    for LogEntry { partition, dot, bucket, key, .. } in entries.unwrap_or_default()
                    {
                        // What moved from record to segment since is not lost with the segment.
                        let mut row = Vec::new();
                        object_key(&mut row, partition, bucket, &key);
                        let object = left.row(Table::Objects, &row);
                        let object = object.and_then(|row| Object::decode(row).ok());
                        let id = self.history.key_id(bucket, &key);
                        let covers = object.map(|object| object.context).unwrap_or_default();
                        let covers = id
                            .map_or(covers.clone(), |id| self.history.with_forgotten(id, &covers));
                        if !covers.covers(dot) {
                            self.history.lose(node, partition, dot);
                        }
                    }
                }
                Table::Objects => self.lost_object(node, row),
                Table::Hints => self.lost_hint(node, row),
                _ => {}
            }
        }
    }

    fn lost_hint(&mut self, node: NodeId, row: &Changed) {
        let Some((_, partition, bucket, name)) = hint_key_parts(&row.key) else { return };
        let Some(key) = self.history.key_id(bucket, &Bytes::copy_from_slice(name)) else { return };
        let (had, has) = (covered(row.after.as_deref()), covered(row.before.as_deref()));
        self.lost_dots((node, partition, key), &had, &has);
    }

    /// A context had more entries. They are dots of its key, also of a delete that nobody has been told
    /// of and of which a log that was cut says nothing.
    fn lost_dots(
        &mut self,
        (node, partition, key): (NodeId, Partition, KeyId),
        had: &VersionVector,
        has: &VersionVector,
    ) {
        let dots = self.history.events_of(key).filter_map(|(_, event)| event.dot);
        let named = had.iter().chain(dots).filter(|&dot| had.covers(dot) && !has.covers(dot));
        let gone: Vec<Dot> = named.collect();
        gone.into_iter().for_each(|dot| self.history.lose(node, partition, dot));
    }

    fn lost_object(&mut self, node: NodeId, row: &Changed) {
        let Some((partition, key)) = self.row_key(&row.key) else { return };
        let context = |bytes: &Option<Vec<u8>>| {
            let object = bytes.as_ref().and_then(|bytes| Object::decode(bytes).ok());
            object.map(|object| object.context).unwrap_or_default()
        };
        self.lost_dots((node, partition, key), &context(&row.after), &context(&row.before));
    }
}
