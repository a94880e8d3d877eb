//! The disk by itself.

use super::*;

fn put(store: &mut SimStore, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    store.stage_put(Table::Objects, key, value);
    store.commit()
}

/// Goal: a kill loses nothing committed, a power cut exactly what was not synced. Method: one
/// synced and two volatile commits, one of which is kept.
#[test]
fn only_a_power_cut_loses_the_volatile_tail() {
    let mut store = SimStore::new(SyncMode::Interval { ms: 10 });
    put(&mut store, b"a", b"1").unwrap();
    store.take_changes();
    store.sync();
    put(&mut store, b"a", b"2").unwrap();
    put(&mut store, b"b", b"3").unwrap();
    store.reopen(true);
    assert_eq!(store.get(Table::Objects, b"b"), Ok(Some(b"3".to_vec())));
    let lost = store.power_cut(1);
    assert_eq!(lost.len(), 1);
    assert_eq!(store.get(Table::Objects, b"a"), Ok(Some(b"2".to_vec())));
    assert_eq!(store.get(Table::Objects, b"b"), Ok(None));
}

/// Goal: with `sync = always` a power cut loses nothing, unless the disk lies.
#[test]
fn a_disk_that_lies_loses_what_it_acknowledged() {
    for lies in [false, true] {
        let mut store = SimStore::new(SyncMode::Always);
        store.set_faults(StoreFaults { syncs_lie: lies, ..StoreFaults::default() });
        put(&mut store, b"a", b"1").unwrap();
        store.sync();
        assert_eq!(store.power_cut(0).len(), usize::from(lies));
        assert_eq!(store.get(Table::Objects, b"a").unwrap().is_none(), lies);
    }
}

/// Goal: a failed commit changes nothing now, and what it did shows at the next opening.
#[test]
fn a_failed_commit_shows_after_reopening_or_never() {
    for there in [false, true] {
        let mut store = SimStore::new(SyncMode::Always);
        store.set_faults(StoreFaults { commits_fail: true, ..StoreFaults::default() });
        assert!(put(&mut store, b"a", b"1").is_err());
        assert_eq!(store.get(Table::Objects, b"a"), Ok(None));
        store.heal();
        store.reopen(there);
        assert_eq!(store.get(Table::Objects, b"a").unwrap().is_some(), there);
    }
}

/// Goal: a commit that failed at its last step can be read until the next opening, which finds it or
/// does not; no power cut leaves it, and what came after it stays. Method: a failed commit that
/// shows, then a sound one to another key.
#[test]
fn a_failed_commit_may_show_and_vanish() {
    for (there, power) in [(true, false), (false, false), (true, true)] {
        let mut store = SimStore::new(SyncMode::Always);
        put(&mut store, b"a", b"0").unwrap();
        store.set_faults(StoreFaults {
            commits_fail: true,
            failed_shows: true,
            ..StoreFaults::default()
        });
        assert!(put(&mut store, b"a", b"1").is_err());
        assert_eq!(store.get(Table::Objects, b"a"), Ok(Some(b"1".to_vec())));
        assert_eq!(store.safe_row(Table::Objects, b"a"), Some(&b"0"[..]));
        store.heal();
        put(&mut store, b"b", b"2").unwrap();
        if power {
            store.power_cut(0);
        }
        store.reopen(there);
        let left = if there && !power { b"1" } else { b"0" };
        assert_eq!(store.get(Table::Objects, b"a"), Ok(Some(left.to_vec())));
        assert_eq!(store.get(Table::Objects, b"b"), Ok(Some(b"2".to_vec())));
    }
}

/// Goal: a full disk refuses before and at the commit, keeps nothing of the batch, and takes
/// writes again when there is room.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut store = SimStore::new(SyncMode::Always);
    store.set_free(Some(RESERVE_BYTES));
    assert_eq!(store.writable(), Ok(()));
    assert_eq!(put(&mut store, b"a", &[0; 2 * RESERVE_BYTES]), Err(StoreError::Full));
    assert_eq!(store.rows(Table::Objects).count(), 0);
    assert_eq!(put(&mut store, b"a", b"1"), Ok(()));
    assert_eq!(store.writable(), Err(StoreError::Full));
    store.heal();
    assert_eq!(store.writable(), Ok(()));
}

/// Goal: damage is seen by reads only, and gone when the row is written anew.
#[test]
fn damage_lasts_until_the_next_write() {
    let mut store = SimStore::new(SyncMode::Always);
    put(&mut store, b"a", b"1").unwrap();
    store.damage(Table::Objects, b"a");
    assert_ne!(store.get(Table::Objects, b"a"), Ok(Some(b"1".to_vec())));
    put(&mut store, b"a", b"2").unwrap();
    assert_eq!(store.get(Table::Objects, b"a"), Ok(Some(b"2".to_vec())));
}

/// Goal: nothing of a torn batch is there after reopening, and half of it where the log is not
/// checked. Method: a batch of two rows after a whole one.
#[test]
fn a_torn_batch_is_left_out() {
    for shows in [false, true] {
        let mut store = SimStore::new(SyncMode::Always);
        put(&mut store, b"a", b"1").unwrap();
        store.set_faults(StoreFaults { tears: true, torn_shows: shows, ..StoreFaults::default() });
        store.stage_put(Table::Objects, b"b", b"2");
        store.stage_put(Table::Objects, b"c", b"3");
        store.commit().unwrap();
        assert!(store.is_torn());
        store.reopen(true);
        assert!(!store.is_torn() && !store.faults().tears);
        let there = |key: &[u8]| store.row(Table::Objects, key).is_some();
        assert_eq!((there(b"a"), there(b"b"), there(b"c")), (true, shows, false));
    }
}

/// Goal: a disk replaced by a copy has what the copy has, and says what it lost. Method: a row that
/// is on both, one that changed since, one that is new, one that was removed.
#[test]
fn a_replaced_disk_says_what_it_lost() {
    let mut store = SimStore::new(SyncMode::Always);
    for key in [b"same", b"chan", b"gone"] {
        put(&mut store, key, b"1").unwrap();
    }
    let copy = store.copy();
    put(&mut store, b"chan", b"22").unwrap();
    put(&mut store, b"new", b"3").unwrap();
    store.stage_delete(Table::Objects, b"gone");
    store.commit().unwrap();

    let mut lost: Vec<Vec<u8>> =
        store.replace(Some(&copy)).into_iter().map(|row| row.key).collect();
    lost.sort();
    assert_eq!(lost, [b"chan".to_vec(), b"new".to_vec()]);
    assert_eq!(store.row(Table::Objects, b"chan"), Some(b"1".as_slice()));
    assert_eq!(store.row(Table::Objects, b"gone"), Some(b"1".as_slice()));
    assert_eq!(store.replace(None).len(), 3);
    assert_eq!(store.rows(Table::Objects).count(), 0);
}
