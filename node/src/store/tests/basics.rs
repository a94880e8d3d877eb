//! Reading, writing, closing, and refusing what is not ours.

use std::fs;
use std::time::{Duration, Instant};

use holm_core::store::{Store, StoreError, Table};
use holm_protocol::ids::NodeId;

use super::super::highwater::{self, HighWater, Mark, MarkFound};
use super::*;

/// Goal: every table keeps its own keys; scans are ordered, bounded and limited.
#[test]
fn tables_are_separate_and_scans_are_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, opened) = open(dir.path());
    assert!(opened.fresh);
    assert_eq!(opened.amnesia, None);
    for (index, table) in Table::ALL.into_iter().enumerate() {
        store.stage_put(table, b"same key", &[index as u8]);
    }
    for number in [5, 1, 300, 2] {
        store.stage_put(Table::Hints, &key(number), &value(number));
    }
    store.commit().unwrap();
    for (index, table) in Table::ALL.into_iter().enumerate() {
        assert_eq!(store.get(table, b"same key").unwrap(), Some(vec![index as u8]));
    }
    let rows = store.scan(Table::Hints, &key(1), &key(300), 10).unwrap();
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, [key(1).to_vec(), key(2).to_vec(), key(5).to_vec()]);
    assert_eq!(store.scan(Table::Hints, &key(0), &key(9), 2).unwrap().len(), 2);
    assert!(store.scan(Table::Hints, &key(9), &key(1), 10).unwrap().is_empty());
    assert!(store.scan(Table::Hints, &key(1), &key(1), 10).unwrap().is_empty());
    store.stage_delete(Table::Hints, &key(2));
    store.commit().unwrap();
    assert_eq!(store.get(Table::Hints, &key(2)).unwrap(), None);
}

/// Goal: what is staged is nobody's business before the commit, not even another shard's.
#[test]
fn staged_is_invisible_until_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let mut other = store.for_shard();
    store.stage_put(Table::Objects, b"k", b"v");
    assert_eq!(store.get(Table::Objects, b"k").unwrap(), None);
    other.stage_put(Table::Objects, b"other", b"w");
    other.commit().unwrap();
    assert_eq!(store.get(Table::Objects, b"k").unwrap(), None);
    assert_eq!(store.get(Table::Objects, b"other").unwrap(), Some(b"w".to_vec()));
    store.commit().unwrap();
    assert_eq!(other.get(Table::Objects, b"k").unwrap(), Some(b"v".to_vec()));
    assert!(store.last_commit() > other.last_commit());
}

/// Goal: a clean close and a kill both keep every commit and the identity, without amnesia.
#[test]
fn close_and_kill_keep_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, first) = open(dir.path());
    commit(&mut store, 0..500);
    let killed = image(dir.path());
    store.close().unwrap();
    assert!(matches!(store.get(Table::Objects, b"k"), Err(StoreError::Io(_))));
    store.stage_put(Table::Objects, b"k", b"v");
    assert!(matches!(store.commit(), Err(StoreError::Io(_))));
    drop(store);
    for dir in [dir.path(), killed.path()] {
        for _ in 0..3 {
            let (mut store, opened) = open(dir);
            assert_eq!(opened, Opened { fresh: false, ..first.clone() });
            assert_eq!(count(&mut store, 0..500), 500);
        }
    }
}

/// Goal: with an interval a kill loses nothing, and what is fsynced is known.
#[test]
fn interval_syncs_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = RocksStore::open(interval_options(dir.path()), who()).unwrap();
    commit(&mut store, 0..100);
    assert!(store.durable().written >= store.last_commit());
    let killed = image(dir.path());
    let (mut again, opened) = RocksStore::open(interval_options(killed.path()), who()).unwrap();
    assert_eq!(opened.amnesia, None);
    assert_eq!(count(&mut again, 0..100), 100);
    let started = Instant::now();
    while store.durable().synced < store.last_commit() {
        assert!(started.elapsed() < Duration::from_secs(10), "the fsync thread does not run");
        std::thread::sleep(Duration::from_millis(5));
    }
    commit(&mut store, 100..101);
    store.sync().unwrap();
    assert_eq!(store.durable().synced, store.last_commit());
}

/// Goal: shards commit at once and none of it is lost or mixed up, through flushes too.
#[test]
fn shards_commit_together() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = RocksStore::open(interval_options(dir.path()), who()).unwrap();
    std::thread::scope(|scope| {
        for shard in 0..4 {
            let mut store = store.for_shard();
            scope.spawn(move || commit(&mut store, shard * 10_000..shard * 10_000 + 5_000));
        }
    });
    {
        let guard = store.owner.engine.db.read().unwrap();
        guard.as_ref().unwrap().wait_for_compact(&Default::default()).unwrap();
    }
    let killed = image(dir.path());
    drop(store);
    for dir in [dir.path(), killed.path()] {
        let (mut store, opened) = open(dir);
        assert_eq!(opened.amnesia, None);
        assert_eq!(count(&mut store, 0..40_000), 20_000);
    }
}

/// Goal: a store is opened by its own cluster and node, in a format that is known, and once.
#[test]
fn foreign_newer_and_open_stores_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    commit(&mut store, 0..3);
    let refused = refusal(options(dir.path()));
    assert_eq!(refused, OpenError::InUse { dir: dir.path().to_path_buf() });
    assert!(refused.to_string().contains("already in use"), "{refused}");
    drop(store);
    let cluster = StoreIdentity { cluster: "other".to_owned(), ..who() };
    let refused = RocksStore::open(options(dir.path()), cluster).unwrap_err();
    assert!(matches!(refused, OpenError::ForeignCluster { .. }), "{refused}");
    let node = StoreIdentity { node: NodeId(8), ..who() };
    let refused = RocksStore::open(options(dir.path()), node).unwrap_err();
    assert!(matches!(refused, OpenError::ForeignNode { found: 7, expected: 8, .. }), "{refused}");
    fs::write(dir.path().join("FORMAT"), "holm-store 3\n").unwrap();
    let refused = refusal(options(dir.path()));
    assert!(matches!(refused, OpenError::FormatNewer { found: 3, known: 2, .. }), "{refused}");
    for bad in ["", "holm-store", "holm-store 0", "holm-store x", "something else"] {
        fs::write(dir.path().join("FORMAT"), bad).unwrap();
        assert!(matches!(refusal(options(dir.path())), OpenError::FormatUnknown { .. }));
    }
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    assert!(matches!(refusal(options(dir.path())), OpenError::FormatUnknown { .. }));
    fs::write(dir.path().join("FORMAT"), "holm-store 2\n").unwrap();
    let (mut store, opened) = open(dir.path());
    assert_eq!(opened.amnesia, None);
    assert_eq!(count(&mut store, 0..3), 3);
}

/// Goal: a store of format 1 is opened, and raised before its mark gets the name of an opening, which
/// a program of that format takes for damage: such a program refuses format 2 by its number.
/// Method: take the names out of the table and of the mark.
#[test]
fn a_store_of_format_1_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    commit(&mut store, 0..3);
    store.owner.engine.db.read().unwrap().as_ref().unwrap().delete(b"opening").unwrap();
    drop(store);
    let mark = dir.path().join("HIGHWATER");
    let MarkFound::Sound { mark: named, .. } = highwater::read(&mark).unwrap() else {
        panic!("no mark");
    };
    assert_ne!(named.opening, 0);
    HighWater::create(&mark, Mark { opening: 0, ..named }).unwrap();
    let format = dir.path().join("FORMAT");
    fs::write(&format, "holm-store 1\n").unwrap();
    for _ in 0..2 {
        let (mut store, opened) = open(dir.path());
        assert_eq!(opened.amnesia, None);
        assert_eq!(count(&mut store, 0..3), 3);
        assert_eq!(fs::read_to_string(&format).unwrap(), "holm-store 2\n");
    }
}

/// Goal: the identity file and its copy in the database repair each other; foreign ones are
/// refused also when only the copy is left.
#[test]
fn identity_survives_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, first) = open(dir.path());
    drop(store);
    let file = dir.path().join("IDENTITY");
    let sound = fs::read(&file).unwrap();
    for offset in 0..sound.len() {
        flip(&file, offset);
        if offset % 16 == 0 {
            let (_, opened) = open(dir.path());
            assert_eq!((opened.store_id, opened.amnesia), (first.store_id, None));
        } else {
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            assert_eq!(super::super::files::StoredIdentity::decode(&text), None);
            fs::write(&file, &sound).unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), sound);
    }
    fs::remove_file(&file).unwrap();
    let node = StoreIdentity { node: NodeId(8), ..who() };
    let refused = RocksStore::open(options(dir.path()), node).unwrap_err();
    assert!(matches!(refused, OpenError::ForeignNode { .. }), "{refused}");
    assert_eq!(open(dir.path()).1.store_id, first.store_id);
}

/// Goal: figures for metrics move, and an empty commit costs nothing.
#[test]
fn stats_count_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    commit(&mut store, 0..10);
    store.commit().unwrap();
    let stats = store.stats();
    assert_eq!(stats.commits, 10);
    assert!(stats.commit_bytes > 1_000 && stats.commit_nanos > 0 && stats.memtable_bytes > 0);
    assert!(stats.table_bytes > 0, "the identity is in a table");
    assert!(store.space().free_bytes > 0 && !store.space().full);
    assert_eq!(store.failure(), None);
}

/// Goal: after a reopening all handles go on, and what they staged is committed.
#[test]
fn reopen_serves_all_handles() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let mut other = store.for_shard();
    commit(&mut store, 0..10);
    other.stage_put(Table::Objects, b"staged", b"v");
    assert_eq!(store.reopen().unwrap(), None);
    other.commit().unwrap();
    assert_eq!(count(&mut other, 0..10), 10);
    assert_eq!(store.get(Table::Objects, b"staged").unwrap(), Some(b"v".to_vec()));
}

/// Goal: a handle can move to its shard's thread.
#[test]
fn handles_are_send() {
    fn send<T: Send>() {}
    send::<RocksStore>();
}
