//! What lies on a stopped node's disk, read without the node and without changing anything.

use std::collections::BTreeMap;
use std::path::Path;

use holm_core::keys::{hint_key_parts, object_key};
use holm_core::object::Object;
use holm_core::shard::hints::object_of;
use holm_core::store::Table;
use holm_protocol::version_vector::VersionVector;
use holm_sim::history::KeyId;
use rocksdb::{DB, IteratorMode, Options};

use super::world::Place;

/// What a disk accounts for, by key: the contexts of its objects and of its hints.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) objects: BTreeMap<KeyId, VersionVector>,
    pub(crate) hints: BTreeMap<KeyId, VersionVector>,
}

/// What a data directory holds under these keys: tables and write-ahead log together, as a start would
/// find them.
pub(crate) fn read(data: &Path, places: &[Place]) -> Held {
    // Even a database that is only read gets an information log.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.set_db_log_dir(elsewhere.path());
    let families =
        [rocksdb::DEFAULT_COLUMN_FAMILY_NAME, Table::Objects.name(), Table::Hints.name()];
    let db = DB::open_cf_for_read_only(&options, data.join("db"), families, false)
        .unwrap_or_else(|error| panic!("{}: {error}", data.display()));
    let objects = db.cf_handle(Table::Objects.name()).unwrap();
    let mut held = Held::default();
    for place in places {
        let mut key = Vec::new();
        object_key(&mut key, place.partition, place.bucket, &place.name);
        if let Some(row) = db.get_cf(&objects, &key).unwrap() {
            let object = Object::decode(&row).expect("a sound object");
            held.objects.insert(place.id, object.context);
        }
    }
    let hints = db.cf_handle(Table::Hints.name()).unwrap();
    for row in db.iterator_cf(&hints, IteratorMode::Start) {
        let (key, hint) = row.unwrap();
        let Some((_, partition, bucket, name)) = hint_key_parts(&key) else { continue };
        let is_it =
            |it: &&Place| (it.partition, it.bucket, &it.name[..]) == (partition, bucket, name);
        let Some(place) = places.iter().find(is_it) else { continue };
        let object = Object::decode(&object_of(&hint.into_vec().into())).expect("a sound hint");
        held.hints.entry(place.id).or_default().merge(&object.context);
    }
    held
}
