//! What disks lose.

use bytes::Bytes;
use holm_core::keys::hint_key_parts;
use holm_core::object::Object;
use holm_core::shard::log::decode_record;
use holm_core::store::Table;
use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;

use super::Referee;
use crate::cluster::covered;
use crate::store::Changed;

impl Referee {
    /// A node's disk lost these rows, by a fault that may do that: the dots that it logged, and what
    /// its objects covered without a log entry of its own.
    pub fn lost(&mut self, node: NodeId, rows: &[Changed]) {
        for row in rows {
            match row.table {
                Table::Log => {
                    let record = row.after.as_deref().map(decode_record);
                    for entry in record.and_then(Result::ok).unwrap_or_default() {
                        self.history.lose(node, entry.partition, entry.dot);
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
        let (had, has) = (context(&row.after), context(&row.before));
        let dots = self.history.events_of(key).filter_map(|(_, event)| event.dot);
        let gone: Vec<Dot> = dots.filter(|&dot| had.covers(dot) && !has.covers(dot)).collect();
        gone.into_iter().for_each(|dot| self.history.lose(node, partition, dot));
    }
}
