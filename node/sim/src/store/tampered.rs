//! Bugs of a disk's driver: see [`crate::tamper`].

use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::store::Table;
use holm_protocol::version_vector::VersionVector;

use super::{SimStore, Staged, SyncMode};
use crate::tamper::Tamper;
use crate::tamper::messages::keep;

/// One commit in this many is struck by a bug that would be seen at once if it struck all.
const EVERY: u64 = 7;

impl SimStore {
    /// Puts a bug back.
    pub fn play(&mut self, tamper: Option<Tamper>) {
        self.tamper = tamper;
    }

    /// What a power cut now would leave of a row, if it left as little as it can.
    #[must_use]
    pub fn safe_row(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        let unsynced = self.volatile.iter().flatten();
        let open = self.last.iter().filter(|_| self.is_volatile());
        let mut changes = unsynced.chain(self.shown.iter().flatten()).chain(open);
        match changes.find(|change| change.table == table && change.key == key) {
            Some(first) => first.before.as_deref(),
            None => self.row(table, key),
        }
    }

    /// Whether the commit that is under way fails and is reported as done.
    pub(super) fn hides_failures(&mut self) -> bool {
        let hides =
            self.tamper == Some(Tamper::FailedFsyncRetried) && self.mode == SyncMode::Always;
        self.is_hiding |= hides;
        hides
    }

    /// Notes what a commit reported as safe and is not.
    pub(super) fn settle_hidden(&mut self) {
        if std::mem::take(&mut self.is_hiding) {
            self.promised = self.volatile.len();
        }
    }

    /// Whether a sync leaves something behind that it reports as safe.
    pub(super) fn leaves_unsynced(&mut self) -> bool {
        if self.tamper != Some(Tamper::SyncsLastBatchOnly) {
            return false;
        }
        self.volatile.pop();
        self.promised = self.volatile.len();
        true
    }

    /// What becomes of a batch on its way to the disk.
    pub(super) fn tampered(&mut self, mut batch: Vec<Staged>) -> Vec<Staged> {
        match self.tamper {
            Some(Tamper::LogWithoutObject) if self.tally.commits % EVERY == EVERY - 1 => {
                batch.retain(|(table, ..)| *table != Table::Objects);
            }
            Some(Tamper::ObjectWithoutLog) if self.tally.commits % EVERY == EVERY - 1 => {
                batch.retain(|(table, ..)| *table != Table::Log);
            }
            Some(Tamper::PrunedByClock | Tamper::JoinKeepsCovered | Tamper::DeleteKeepsValue) => {
                for (table, key, value) in &mut batch {
                    let before = self.tables.get(table).and_then(|rows| rows.get(key));
                    if let (Table::Objects, Some(value)) = (*table, value) {
                        let before = before.and_then(|bytes| Object::decode(bytes).ok());
                        self.tamper.iter().for_each(|tamper| stored(*tamper, value, &before));
                    }
                }
            }
            Some(Tamper::TombstoneRemovedAtOnce) => {
                for (table, _, value) in &mut batch {
                    if *table == Table::Objects && value.as_deref().is_some_and(is_tombstone) {
                        *value = None;
                    }
                }
            }
            _ => {}
        }
        batch
    }

    /// What an opening disk has forgotten.
    pub(super) fn forget_rows(&mut self) {
        match self.tamper {
            Some(Tamper::TombstonesForgotten) => {
                let rows = self.rows(Table::Objects).filter(|(_, row)| is_tombstone(row));
                let keys: Vec<Vec<u8>> = rows.map(|(key, _)| key.to_vec()).collect();
                for key in keys {
                    self.write(Table::Objects, key, None);
                }
            }
            Some(Tamper::HintsForgotten) => {
                let keys: Vec<Vec<u8>> =
                    self.rows(Table::Hints).map(|(key, _)| key.to_vec()).collect();
                for key in keys {
                    self.write(Table::Hints, key, None);
                }
            }
            Some(Tamper::BatchNotAtomic) => {
                for row in std::mem::take(&mut self.newest) {
                    if row.table == Table::Objects {
                        self.write(row.table, row.key, row.before);
                    }
                }
            }
            _ => {}
        }
    }
}

fn is_tombstone(row: &[u8]) -> bool {
    Object::decode(row).is_ok_and(|object| object.is_deleted())
}

/// Changes an object on its way to the disk, `before` being what is there.
fn stored(tamper: Tamper, row: &mut Vec<u8>, before: &Option<Object>) {
    let Ok(object) = Object::decode(row) else { return };
    if object.kind() != ObjectKind::Siblings {
        return;
    }
    let object = match tamper {
        Tamper::PrunedByClock => {
            let newest = object.siblings().iter().map(|s| (s.hlc, s.dot)).max();
            keep(object, |sibling| Some((sibling.hlc, sibling.dot)) == newest)
        }
        Tamper::DeleteKeepsValue if !object.is_deleted() => object,
        _ => with_siblings_of(object, before),
    };
    row.clear();
    object.encode(row);
}

/// The object with what was alive before alive again.
fn with_siblings_of(object: Object, before: &Option<Object>) -> Object {
    let mut all: Vec<Sibling> = object.siblings().to_vec();
    let before = before.iter().flat_map(Object::siblings);
    let returned: Vec<Sibling> =
        before.filter(|s| all.iter().all(|own| own.dot != s.dot)).cloned().collect();
    all.extend(returned);
    all.sort_by_key(|sibling| sibling.dot);
    let mut joined = Object::new(ObjectKind::Siblings);
    let nothing = VersionVector::new();
    // Ascending, so that no dot is covered before it is put.
    all.into_iter().for_each(|sibling| joined.put(&nothing, sibling));
    joined.context.merge(&object.context);
    joined
}
