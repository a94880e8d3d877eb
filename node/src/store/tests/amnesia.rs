//! Damage while the node was down: noticed every time, never served.
//!
//! Each test damages what a kill would leave, then starts. Whatever is lost, the store either
//! declares amnesia or refuses to open; whatever is read is right.

use std::fs::{self, OpenOptions};

use holm_core::store::{Store, StoreError, Table};
use proptest::prelude::*;

use super::super::AmnesiaReason;
use super::super::highwater::{self, HighWater, Mark, MarkFound, SLOT_LEN, SLOT_STRIDE, SLOTS};
use super::*;

const COMMITS: u32 = 300;

fn reason(dir: &Path) -> Option<AmnesiaReason> {
    open(dir).1.amnesia
}

/// Goal: no flipped byte of the log goes unnoticed. The story: in RocksDB's default mode one bit
/// made 200 acknowledged rows 23, with no error and no line in the log.
#[test]
fn a_flipped_log_byte_is_amnesia() {
    let killed = killed_with(COMMITS);
    let log = files_of(killed.path(), "log").pop().unwrap();
    let length = fs::metadata(&log).unwrap().len() as usize;
    for step in 0..40 {
        let damaged = image(killed.path());
        let log = damaged.path().join("db").join(log.file_name().unwrap());
        flip(&log, (length - 1) * step / 39);
        let (mut store, opened) = open(damaged.path());
        let amnesia = opened.amnesia.expect("a flipped byte went unnoticed");
        assert!(amnesia.to_string().contains(log.to_str().unwrap()), "{amnesia}");
        assert!(count(&mut store, 0..COMMITS) < COMMITS as usize);
    }
}

/// Goal: a hole of zeros, which even strict recovery skips in silence, is noticed.
#[test]
fn a_hole_in_the_log_is_amnesia() {
    let killed = killed_with(COMMITS);
    let log = files_of(killed.path(), "log").pop().unwrap();
    let mut bytes = fs::read(&log).unwrap();
    assert!(bytes.len() > 40_000, "the log must have two blocks");
    bytes[4096..8192].fill(0);
    fs::write(&log, bytes).unwrap();
    assert!(matches!(reason(killed.path()), Some(AmnesiaReason::OpenedLeniently { .. })));
}

/// Goal: a log that is gone, or cut anywhere, is noticed if a commit went with it.
#[test]
fn a_lost_or_cut_log_is_amnesia() {
    let killed = killed_with(COMMITS);
    let log = files_of(killed.path(), "log").pop().unwrap();
    let length = fs::metadata(&log).unwrap().len();
    for keep in [0, 1, 50, length / 3, length / 2, length - 160, length - 1] {
        let damaged = image(killed.path());
        let log = damaged.path().join("db").join(log.file_name().unwrap());
        OpenOptions::new().write(true).open(&log).unwrap().set_len(keep).unwrap();
        let (mut store, opened) = open(damaged.path());
        assert!(opened.amnesia.is_some(), "cut at {keep} of {length} unnoticed");
        assert!(count(&mut store, 0..COMMITS) < COMMITS as usize);
    }
    fs::remove_file(&log).unwrap();
    assert!(reason(killed.path()).is_some());
}

/// Goal: half a commit at the log's end, as a kill in the middle of a write leaves it, is dropped
/// without a fuss: it was never acknowledged.
#[test]
fn half_a_commit_is_not_amnesia() {
    let before = killed_with(COMMITS);
    let log = files_of(before.path(), "log").pop().unwrap();
    let dir = image(before.path());
    let sound = fs::read(&log).unwrap();
    for junk in [&[0x55; 3][..], &[0x55; 40], &[0; 600]] {
        let killed = image(dir.path());
        let log = killed.path().join("db").join(log.file_name().unwrap());
        fs::write(&log, [&sound, junk].concat()).unwrap();
        let (mut store, opened) = open(killed.path());
        assert_eq!(opened.amnesia, None);
        assert_eq!(count(&mut store, 0..COMMITS), COMMITS as usize);
        assert!(!killed.path().join("AMNESIA").exists());
        drop(store);
        assert_eq!(reason(killed.path()), None, "at the start after");
    }
}

/// Goal: a log that is shorter than the manifest says is no amnesia if what it lacks was never
/// acknowledged. The story: a write met a full disk; the log's size, the failed write's bytes
/// included, was on record, and the node that made room again for itself refused to read.
#[test]
fn a_log_short_of_a_failed_write_is_not_amnesia() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    commit(&mut store, 0..COMMITS);
    let acknowledged = fs::read(dir.path().join("HIGHWATER")).unwrap();
    let log = files_of(dir.path(), "log").pop().unwrap();
    let length = fs::metadata(&log).unwrap().len();
    commit(&mut store, COMMITS..COMMITS + 1);
    // Another log begins, and the size of this one, which is still needed, goes on record.
    {
        let guard = store.owner.engine.db.read().unwrap();
        let db = guard.as_ref().unwrap();
        let hints = db.cf_handle("hints").unwrap();
        db.put_cf(&hints, b"k", b"v").unwrap();
        db.flush_cf(&hints).unwrap();
    }
    let killed = image(dir.path());
    let log = killed.path().join("db").join(log.file_name().unwrap());
    OpenOptions::new().write(true).open(&log).unwrap().set_len(length).unwrap();
    let gone = reason(image(killed.path()).path()).expect("an acknowledged write is gone");
    assert!(gone.to_string().contains("Mismatched"), "{gone}");
    fs::write(killed.path().join("HIGHWATER"), acknowledged).unwrap();
    let (mut store, opened) = open(killed.path());
    assert_eq!(opened.amnesia, None);
    assert_eq!(count(&mut store, 0..COMMITS), COMMITS as usize);
}

/// Goal: amnesia stays until it is cleared, through starts, new commits and a lost record of it.
#[test]
fn amnesia_is_remembered_until_cleared() {
    let killed = killed_with(COMMITS);
    let dir = killed.path();
    fs::remove_file(dir.join("HIGHWATER")).unwrap();
    assert_eq!(reason(dir), Some(AmnesiaReason::MarkLost));
    let (mut store, opened) = open(dir);
    assert_eq!(opened.amnesia, Some(AmnesiaReason::MarkLost));
    commit(&mut store, COMMITS..COMMITS + 10);
    drop(store);
    fs::remove_file(dir.join("AMNESIA")).unwrap();
    assert_eq!(reason(dir), Some(AmnesiaReason::MarkLost), "the database knows too");
    fs::write(dir.join("AMNESIA"), [0xff; 9]).unwrap();
    assert_eq!(reason(dir), Some(AmnesiaReason::Unknown), "an illegible record is one");
    let (mut store, _) = open(dir);
    store.clear_amnesia().unwrap();
    assert_eq!(count(&mut store, 0..COMMITS + 10), COMMITS as usize + 10);
    drop(store);
    assert_eq!(reason(dir), None);
}

/// Goal: a database that is gone is noticed by the files beside it; a store made in its place has
/// another id.
#[test]
fn a_lost_database_is_amnesia() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, first) = open(dir.path());
    commit(&mut store, 0..10);
    drop(store);
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let (mut store, opened) = open(dir.path());
    assert_eq!(opened.amnesia, Some(AmnesiaReason::StoreLost));
    assert!(opened.fresh && opened.store_id != first.store_id);
    assert_eq!(count(&mut store, 0..10), 0);
    drop(store);
    assert_eq!(reason(dir.path()), Some(AmnesiaReason::StoreLost));
}

/// Goal: where amnesia is not allowed the store refuses and changes nothing.
#[test]
fn amnesia_can_be_refused() {
    let killed = killed_with(COMMITS);
    let log = files_of(killed.path(), "log").pop().unwrap();
    flip(&log, 1_000);
    let strict = StoreOptions { allow_amnesia: false, ..options(killed.path()) };
    let before = fs::read(&log).unwrap();
    for _ in 0..2 {
        let refused = refusal(strict.clone());
        assert!(matches!(refused, OpenError::Amnesia { .. }), "{refused}");
    }
    assert_eq!(fs::read(&log).unwrap(), before);
    assert!(!killed.path().join("AMNESIA").exists());
}

/// Goal: an older database beside a newer mark is noticed: RocksDB alone finds nothing wrong.
#[test]
fn an_older_database_is_behind_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    commit(&mut store, 0..10);
    let older = image(dir.path());
    commit(&mut store, 10..20);
    drop(store);
    fs::copy(dir.path().join("HIGHWATER"), older.path().join("HIGHWATER")).unwrap();
    let (mut store, opened) = open(older.path());
    assert!(
        matches!(opened.amnesia, Some(AmnesiaReason::BehindMark { store, mark }) if store < mark)
    );
    assert_eq!(count(&mut store, 0..20), 10);
}

/// Goal: a damaged table, manifest or pointer is an error that names the file, or is harmless;
/// a value is right or not there to be had, never wrong and never missing in silence.
#[test]
fn damaged_tables_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    commit(&mut store, 0..COMMITS);
    flush(&store);
    drop(store);
    let (mut errors, mut refused) = (0, 0);
    for kind in ["sst", "manifest"] {
        let files = match kind {
            "sst" => files_of(dir.path(), "sst"),
            _ => vec![manifest(dir.path())],
        };
        for file in files {
            let length = fs::metadata(&file).unwrap().len() as usize;
            for step in 0..24 {
                let damaged = image(dir.path());
                flip(
                    &damaged.path().join("db").join(file.file_name().unwrap()),
                    length * step / 24,
                );
                match RocksStore::open(options(damaged.path()), who()) {
                    Ok((mut store, opened)) => {
                        let met = reads_right_or_errs(&mut store, opened.amnesia.is_some());
                        let damaged_file =
                            damaged.path().join("db").join(file.file_name().unwrap());
                        let told = store.damaged_files();
                        assert_eq!(told, if met { vec![damaged_file] } else { vec![] });
                        errors += usize::from(met);
                    }
                    Err(OpenError::Corrupt { file, .. }) => {
                        assert!(file.starts_with(damaged.path()), "{}", file.display());
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(errors > 10, "only {errors} flips were met by a read");
    assert!(refused > 5, "only {refused} flips were met by opening");
}

/// Moves everything from the log into tables.
fn flush(store: &RocksStore) {
    let guard = store.owner.engine.db.read().unwrap();
    let db = guard.as_ref().unwrap();
    for table in Table::ALL {
        let cf = db.cf_handle(table.name()).unwrap();
        // The tables stay that are there: with the fourth a compaction would begin, and might or might not
        // have removed them by the time the directory is copied.
        db.set_options_cf(&cf, &[("disable_auto_compactions", "true")]).unwrap();
        db.flush_cf(&cf).unwrap();
    }
}

fn manifest(dir: &Path) -> PathBuf {
    let current = fs::read_to_string(dir.join("db/CURRENT")).unwrap();
    dir.join("db").join(current.trim_end())
}

/// Reads everything; true if an error named the damage.
fn reads_right_or_errs(store: &mut RocksStore, amnesia: bool) -> bool {
    let mut met = false;
    for number in 0..COMMITS {
        match store.get(Table::Objects, &key(number)) {
            Ok(Some(found)) => assert_eq!(found, value(number)),
            Ok(None) => assert!(amnesia, "commit {number} vanished in silence"),
            Err(StoreError::Corrupt(detail)) => {
                assert!(detail.contains("objects key") && detail.contains(".sst"), "{detail}");
                met = true;
            }
            Err(error) => panic!("{error}"),
        }
    }
    match store.scan(Table::Objects, &[], &[0xff; 5], usize::MAX) {
        Ok(rows) => assert!(amnesia || rows.len() == COMMITS as usize),
        Err(StoreError::Corrupt(_)) => met = true,
        Err(error) => panic!("{error}"),
    }
    met
}

/// Goal: a manifest that has lost its end is noticed, although the log behind what it has lost is sound.
/// The story: a start moves the old log into tables and starts a new one; with the record of these
/// tables damaged, RocksDB took it for one that a crash had cut short, removed the tables, replayed the
/// new log, reached its mark, and served what had been overwritten (flip 1915).
/// Method: two starts and two flushes; the manifest cut behind each of its records, and within the
/// next.
#[test]
fn a_cut_manifest_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let all = 0..3 * COMMITS;
    for start in 0..3 {
        let (mut store, _) = RocksStore::open(interval_options(dir.path()), who()).unwrap();
        let first = start * COMMITS;
        commit(&mut store, first..first + COMMITS / 2);
        if start != 1 {
            flush(&store);
        }
        commit(&mut store, first + COMMITS / 2..first + COMMITS);
        if start == 2 {
            store.sync().unwrap();
            let killed = image(dir.path());
            drop(store);
            let records = record_ends(&fs::read(manifest(killed.path())).unwrap());
            let whole = *records.last().unwrap();
            let (mut refused, mut declared) = (0, 0);
            for cut in records.into_iter().flat_map(|end| [end, (end + 3).min(whole)]) {
                let damaged = image(killed.path());
                let file = manifest(damaged.path());
                OpenOptions::new().write(true).open(&file).unwrap().set_len(cut).unwrap();
                match RocksStore::open(options(damaged.path()), who()) {
                    Ok((_, Opened { amnesia: Some(_), .. })) => declared += 1,
                    Ok((mut store, _)) => {
                        let found = count(&mut store, all.clone());
                        assert_eq!(found, all.len(), "lost in silence, cut at {cut} of {whole}");
                    }
                    Err(OpenError::Corrupt { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(declared > 0 && refused > 0, "{declared} declared, {refused} refused");
        }
    }
}

/// Where the records of a manifest end that is shorter than a block: before each stand a checksum of
/// four bytes, a length of two and a type of one.
fn record_ends(manifest: &[u8]) -> Vec<u64> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while let Some(&[_, _, _, _, low, high, _]) = manifest.get(at..at + 7) {
        at += 7 + usize::from(u16::from_le_bytes([low, high]));
        assert!(at <= manifest.len() && at < 32 << 10, "a manifest of one block");
        ends.push(at as u64);
    }
    ends
}

fn a_mark() -> Mark {
    Mark { store_id: 42, boot: [3; 16], written: 1_000, synced: 990, always: false, opening: 7 }
}

/// Goal: the mark survives being written at any point between fsyncs, in each slot in turn.
#[test]
fn marks_rotate_through_their_slots() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("HIGHWATER");
    assert_eq!(highwater::read(&path).unwrap(), MarkFound::Missing);
    let mut open = HighWater::create(&path, a_mark()).unwrap();
    for round in 1..10 {
        open.note_written(1_000 + round).unwrap();
        open.note_written(1).unwrap(); // Never backwards.
        let expected = Mark { written: 1_000 + round, ..a_mark() };
        let found = highwater::read(&path).unwrap();
        assert_eq!(found, MarkFound::Sound { mark: expected, newest: true });
        open.start_sync().unwrap().sync_data().unwrap();
        assert!(open.start_sync().is_none(), "nothing new to sync");
    }
}

proptest! {
    /// Goal: damage of the mark is seen as damage or leaves an older mark that says it may not be
    /// the newest; it never makes a mark that was not written, and never panics.
    #[test]
    fn damaged_marks_never_lie(
        flips in proptest::collection::vec((0..SLOTS, 0..SLOT_LEN, 1u8..), 1..6),
        cut in proptest::option::of(0..SLOTS * SLOT_STRIDE),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("HIGHWATER");
        let mut open = HighWater::create(&path, a_mark()).unwrap();
        for written in 1_001..1_004 {
            open.note_written(written).unwrap();
            let _ = open.start_sync();
        }
        let sound = fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        for (slot, offset, mask) in flips {
            bytes[slot * SLOT_STRIDE + offset] ^= mask;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let same = bytes == sound;
        fs::write(&path, bytes).unwrap();
        match highwater::read(&path).unwrap() {
            MarkFound::Sound { mark, newest } => {
                prop_assert!((1_001..1_004).contains(&mark.written));
                prop_assert_eq!(Mark { written: 1_000, ..mark }, a_mark());
                prop_assert_eq!(newest, same);
            }
            MarkFound::Damaged => prop_assert!(!same),
            MarkFound::Missing => prop_assert!(false, "the file is there"),
        }
    }
}

/// Goal: a wholly damaged mark is amnesia.
#[test]
fn a_damaged_mark_is_amnesia() {
    let killed = killed_with(10);
    let file = killed.path().join("HIGHWATER");
    for slot in 0..SLOTS {
        flip(&file, slot * SLOT_STRIDE + 50);
    }
    assert_eq!(reason(killed.path()), Some(AmnesiaReason::MarkLost));
}

/// Goal: a first start that is cut short may be repeated, however often: a store that never held
/// anything is not one that has lost its mark. Bug: each start named itself in a table before there
/// was a mark, and after two of them the third found a row too many.
/// Method: a directory where the mark's new file should be, so that the mark cannot be made.
#[test]
fn first_starts_may_be_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let obstacle = dir.path().join("HIGHWATER.new");
    fs::create_dir_all(&obstacle).unwrap();
    for _ in 0..3 {
        let refused = refusal(options(dir.path()));
        assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
        assert_eq!(highwater::read(&dir.path().join("HIGHWATER")).unwrap(), MarkFound::Missing);
    }
    fs::remove_dir(&obstacle).unwrap();
    let (mut store, opened) = open(dir.path());
    assert_eq!(opened.amnesia, None);
    commit(&mut store, 0..3);
    drop(store);
    let (mut store, opened) = open(dir.path());
    assert_eq!((opened.amnesia, count(&mut store, 0..3)), (None, 3));
}

/// Goal: a start that is cut short between its first mark and its name is no loss either, before and
/// after the name is in a table. Method: the mark as it is then, without a name.
#[test]
fn a_start_may_be_cut_short_before_its_name() {
    for named in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        if !named {
            store.owner.engine.db.read().unwrap().as_ref().unwrap().delete(b"opening").unwrap();
        }
        drop(store);
        let file = dir.path().join("HIGHWATER");
        let MarkFound::Sound { mark, .. } = highwater::read(&file).unwrap() else {
            panic!("no mark");
        };
        HighWater::create(&file, Mark { opening: 0, written: 1, synced: 1, ..mark }).unwrap();
        fs::remove_file(dir.path().join("IDENTITY")).unwrap();
        assert_eq!(reason(dir.path()), None);
    }
}

/// Goal: after a reboot only what was fsynced is demanded with `sync = interval`, and a torn tail
/// is still told from damage with `sync = always`.
/// Method: the mark is rewritten as another boot would have left it.
#[test]
fn a_reboot_demands_what_was_synced() {
    let killed = killed_with(COMMITS);
    let log = files_of(killed.path(), "log").pop().unwrap();
    let length = fs::metadata(&log).unwrap().len();
    let file = killed.path().join("HIGHWATER");
    let MarkFound::Sound { mark, .. } = highwater::read(&file).unwrap() else {
        panic!("no mark");
    };
    let rebooted = |always, synced, cut| {
        let dir = image(killed.path());
        let mark = Mark { boot: [9; 16], always, synced, ..mark };
        HighWater::create(&dir.path().join("HIGHWATER"), mark).unwrap();
        let log = dir.path().join("db").join(log.file_name().unwrap());
        OpenOptions::new().write(true).open(log).unwrap().set_len(length - cut).unwrap();
        reason(dir.path())
    };
    assert_eq!(rebooted(false, mark.written, 0), None);
    assert_eq!(rebooted(false, mark.written / 2, 100), None, "the unsynced tail may be torn");
    assert!(rebooted(false, mark.written, 100).is_some(), "what was synced may not");
    assert_eq!(rebooted(true, mark.written - 2, 100), None, "half of the last commit");
    assert!(rebooted(true, mark.written, 100).is_some());
}
