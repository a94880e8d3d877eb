//! A full disk: writes refused, reads go on, service resumes. On a small file system of its own,
//! so it needs the right to mount one; without it the tests say so and pass.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use holm_core::store::{Store, StoreError, Table};

use super::*;

const DISK_BYTES: u64 = 64 << 20;
const RESERVE_BYTES: u64 = 16 << 20;

/// A small file system, unmounted at the end.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk { dir }),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Takes all but `left` bytes.
    fn fill(&self, left: u64) {
        let disk = rustix::fs::statvfs(self.dir.path()).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        let filler = vec![7; usize::try_from(free.saturating_sub(left)).unwrap()];
        fs::write(self.dir.path().join("filler"), filler).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.dir.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Goal: below the reserve commits are refused before anything is written; reads go on; with room
/// again commits do too. Several rounds.
#[test]
fn the_reserve_refuses_and_resumes() {
    let Some(disk) = SmallDisk::mount() else { return };
    let full = StoreOptions { min_free_bytes: RESERVE_BYTES, ..options(&disk.data()) };
    let (mut store, _) = RocksStore::open(full.clone(), who()).unwrap();
    for round in 0..3 {
        let first = round * 100;
        commit(&mut store, first..first + 100);
        disk.fill(RESERVE_BYTES / 2);
        eventually("full", || store.space().full);
        assert_eq!(store.writable(), Err(StoreError::Full));
        let before = store.durable();
        store.stage_put(Table::Objects, b"refused", b"v");
        assert_eq!(store.commit(), Err(StoreError::Full));
        store.commit().unwrap(); // Nothing is staged after a refusal.
        assert_eq!(store.durable().written, before.written);
        assert_eq!(count(&mut store, 0..first + 100), first as usize + 100);
        assert_eq!(store.get(Table::Objects, b"refused").unwrap(), None);
        disk.empty();
        eventually("room", || !store.space().full);
    }
    drop(store);
    let (mut store, opened) = RocksStore::open(full, who()).unwrap();
    assert_eq!(opened.amnesia, None);
    assert_eq!(count(&mut store, 0..400), 300);
}

/// Goal: when the disk fills up under RocksDB itself, what was acknowledged stays, what was refused
/// never appears, and the store reopens by itself once there is room.
#[test]
fn a_really_full_disk_recovers() {
    let Some(disk) = SmallDisk::mount() else { return };
    let bare = StoreOptions { min_free_bytes: 0, ..interval_options(&disk.data()) };
    let (mut store, _) = RocksStore::open(bare.clone(), who()).unwrap();
    commit(&mut store, 0..100);
    let mut acknowledged = 100;
    // Once the log runs out of room, once a flush, once both are close.
    for left in [64 << 10, 1 << 20, 8 << 20] {
        disk.fill(left);
        let refused = loop {
            store.stage_put(Table::Objects, &key(acknowledged), &value(acknowledged));
            store.stage_put(Table::Log, &key(acknowledged), b"dots");
            match store.commit() {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, StoreError::Full);
        assert_eq!(count(&mut store, 0..acknowledged + 1), acknowledged as usize);
        disk.empty();
        // What failed in the background may show at the first commit only, and take one more start.
        eventually("a commit", || {
            store.stage_put(Table::Objects, b"resumed", b"v");
            store.commit().is_ok()
        });
        assert_eq!(store.failure(), None);
        assert_eq!(count(&mut store, 0..acknowledged + 1), acknowledged as usize);
        commit(&mut store, acknowledged..acknowledged + 50);
        acknowledged += 50;
    }
    drop(store);
    let (mut store, opened) = RocksStore::open(bare, who()).unwrap();
    assert_eq!(opened.amnesia, None);
    assert_eq!(count(&mut store, 0..acknowledged), acknowledged as usize);
}
