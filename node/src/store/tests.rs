//! What a store must keep, notice and refuse, each on a real directory.

mod amnesia;
mod basics;
mod disk_full;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_core::store::{Store, Table};
use holm_protocol::ids::NodeId;
use tempfile::TempDir;

use super::{OpenError, Opened, RocksStore, StoreIdentity, StoreOptions, SyncPolicy};

fn who() -> StoreIdentity {
    StoreIdentity { cluster: "test".to_owned(), node: NodeId(7) }
}

/// Small enough that limits bite, without a reserve that a test machine might not have.
fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        cache_bytes: 32 << 20,
        write_buffer_bytes: 8 << 20,
        min_free_bytes: 1 << 20,
        max_open_files: 64,
        ..StoreOptions::new(dir)
    }
}

fn interval_options(dir: &Path) -> StoreOptions {
    StoreOptions { sync: SyncPolicy::Interval(Duration::from_millis(20)), ..options(dir) }
}

fn open(dir: &Path) -> (RocksStore, Opened) {
    RocksStore::open(options(dir), who()).unwrap()
}

fn refusal(options: StoreOptions) -> OpenError {
    RocksStore::open(options, who()).unwrap_err()
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// Distinct, incompressible enough, and checkable from the key alone.
fn value(number: u32) -> Vec<u8> {
    (0..100u32).map(|i| (number.wrapping_mul(2_654_435_761).rotate_left(i) >> 8) as u8).collect()
}

/// One commit per number, an object and a log record in each.
fn commit(store: &mut RocksStore, numbers: std::ops::Range<u32>) {
    for number in numbers {
        store.stage_put(Table::Objects, &key(number), &value(number));
        store.stage_put(Table::Log, &key(number), b"dots");
        store.commit().unwrap();
    }
}

/// How many of the numbers are there, each with its right value and log record.
fn count(store: &mut RocksStore, numbers: std::ops::Range<u32>) -> usize {
    numbers
        .filter(|number| {
            let object = store.get(Table::Objects, &key(*number)).unwrap();
            let log = store.get(Table::Log, &key(*number)).unwrap();
            assert_eq!(object.is_some(), log.is_some(), "commit {number} is there in half");
            object.is_some_and(|object| {
                assert_eq!(object, value(*number), "commit {number} has another value");
                true
            })
        })
        .count()
}

/// What the disk holds at this moment: what a killed process would leave, as long as nothing is
/// being flushed.
fn image(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir, copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // Obsolete.
                copied => _ = copied.unwrap(),
            }
        }
    }
}

/// The database's files with this extension that hold something, oldest first.
fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    found.sort();
    found
}

fn flip(file: &Path, offset: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// A directory with one store of `count` commits in its log, as a kill leaves it.
fn killed_with(count: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = RocksStore::open(interval_options(dir.path()), who()).unwrap();
    commit(&mut store, 0..count);
    image(dir.path())
}
