//! What lies on a stopped node's disk, read without the node and without changing anything.

use std::collections::BTreeMap;
use std::path::Path;

use holm_core::keys::object_key;
use holm_core::object::Object;
use holm_core::store::Table;
use holm_sim::history::KeyId;
use rocksdb::{DB, Options};

use super::world::Place;

/// The objects that a data directory holds under these keys: tables and write-ahead log together,
/// as a start would find them.
pub(crate) fn read(data: &Path, places: &[Place]) -> BTreeMap<KeyId, Object> {
    // Even a database that is only read gets an information log.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.set_db_log_dir(elsewhere.path());
    let families = [rocksdb::DEFAULT_COLUMN_FAMILY_NAME, Table::Objects.name()];
    let db = DB::open_cf_for_read_only(&options, data.join("db"), families, false)
        .unwrap_or_else(|error| panic!("{}: {error}", data.display()));
    let objects = db.cf_handle(Table::Objects.name()).unwrap();
    let mut held = BTreeMap::new();
    for place in places {
        let mut key = Vec::new();
        object_key(&mut key, place.partition, place.bucket, &place.name);
        if let Some(row) = db.get_cf(&objects, &key).unwrap() {
            held.insert(place.id, Object::decode(&row).expect("a sound object"));
        }
    }
    held
}
