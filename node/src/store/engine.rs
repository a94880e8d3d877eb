//! The database that all shards share: commits, fsyncs, free space, and refusing when in doubt.
//!
//! States of the engine towards writes:
//! - *open*: commits are taken;
//! - *short of space*: the reserve is touched. Commits are refused before anything is written, and
//!   taken again as soon as there is room;
//! - *out of space*: RocksDB itself ran into a full disk. As before, but the database is reopened
//!   once there is room, because its log may end in half a record;
//! - *failed*: a write, an fsync or a flush failed. What of it is on disk is unknown, and a second
//!   fsync that succeeds would prove nothing about the first one's pages. Commits are refused until
//!   [`Engine::reopen`] has recovered from the disk what is really there.
//!
//! Reads go on in every state, but for the moments in which the database is reopened: they wait for
//! that, and fail if it could not be opened, until a later attempt succeeds. One background thread fsyncs (`sync = interval`), syncs the mark,
//! looks at free space and RocksDB's background errors, and reopens after a full disk. On a
//! background error it also stops RocksDB's background work: left alone, RocksDB would let a commit
//! wait for a flush that cannot succeed, and the shard with it.
//!
//! Order within a commit: database (and its fsync, if `sync = always`), then the mark, then the
//! acknowledgement; so the store never opens behind a mark that it could not have reached.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holm_core::store::StoreError;
use rocksdb::{DB, ErrorKind, WriteBatch, WriteOptions, properties};
use tracing::{error, info};

use super::damaged::Damaged;
use super::error::{OpenError, no_space};
use super::files::{self, Paths};
use super::highwater::HighWater;
use super::{AmnesiaReason, Durable, Opened, Space, StoreIdentity, StoreOptions, SyncPolicy, open};

/// How often the mark is fsynced and the disk looked at: rare enough to cost nothing, and how far
/// the mark may lag behind after a power cut.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Free space is looked at again after so much was committed, however short the time: a tenth of a
/// second of writing must not use up a small reserve.
const SPACE_CHECK_BYTES: u64 = 4 * 1024 * 1024;
/// But not for every commit, however small the reserve.
const SPACE_CHECK_BYTES_MIN: u64 = 64 * 1024;
/// The shortest fsync interval: below it `sync = always` is cheaper.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Commits are taken again once this part (one sixteenth) of the reserve is free beyond it, so that
/// the state does not flap.
const RESUME_SHIFT: u32 = 4;

/// Why commits are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    OutOfSpace,
    Failed(String),
}

/// What the shards share.
pub(super) struct Engine {
    pub(super) paths: Paths,
    pub(super) options: StoreOptions,
    who: StoreIdentity,
    /// `None` once closed, or after a reopening that failed.
    pub(super) db: RwLock<Option<DB>>,
    mark: Mutex<HighWater>,
    /// Sequence number of the last acknowledged commit.
    written: AtomicU64,
    /// Sequence number of the last commit known to be fsynced.
    synced: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
    /// Whether `refusal` holds something, for the fast path.
    refusing: AtomicBool,
    short_of_space: AtomicBool,
    /// Whether acknowledged writes may be missing, as the last opening found.
    amnesia: AtomicBool,
    pub(super) damaged: Damaged,
    free_bytes: AtomicU64,
    unchecked_bytes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) commit_nanos: AtomicU64,
    pub(super) commit_bytes: AtomicU64,
    stopping: Mutex<bool>,
    wake: Condvar,
    /// Held for as long as the directory is ours.
    _lock: File,
}

/// A lock whose holder panicked still guards sound data: every field is set in one step.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub(super) fn open(
        options: StoreOptions,
        who: StoreIdentity,
    ) -> Result<(Engine, Opened), OpenError> {
        let paths = Paths::new(&options.dir);
        let lock = files::lock(&paths)?;
        let parts = open::open(&paths, &options, &who)?;
        let engine = Engine {
            paths,
            options,
            who,
            db: RwLock::new(Some(parts.db)),
            mark: Mutex::new(parts.mark),
            written: AtomicU64::new(parts.sequence),
            synced: AtomicU64::new(parts.sequence),
            refusal: Mutex::new(None),
            refusing: AtomicBool::new(false),
            short_of_space: AtomicBool::new(false),
            amnesia: AtomicBool::new(parts.opened.amnesia.is_some()),
            damaged: Damaged::default(),
            free_bytes: AtomicU64::new(0),
            unchecked_bytes: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            commit_nanos: AtomicU64::new(0),
            commit_bytes: AtomicU64::new(0),
            stopping: Mutex::new(false),
            wake: Condvar::new(),
            _lock: lock,
        };
        engine.check_space();
        Ok((engine, parts.opened))
    }

    /// Commits a batch; its sequence number is the answer.
    pub(super) fn commit(
        &self,
        batch: WriteBatch,
        options: &WriteOptions,
    ) -> Result<u64, StoreError> {
        let bytes = batch.size_in_bytes() as u64;
        self.refuse_if_needed(bytes)?;
        let started = Instant::now();
        let sequence = {
            let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
            let db = guard.as_ref().ok_or_else(closed)?;
            db.write_opt(batch, options).map_err(|error| self.write_failed(&error))?;
            db.latest_sequence_number()
        };
        self.written.fetch_max(sequence, Ordering::AcqRel);
        if self.options.sync == SyncPolicy::Always {
            self.synced.fetch_max(sequence, Ordering::AcqRel);
        }
        let noted = held(&self.mark).note_written(sequence);
        noted.map_err(|error| self.fail(format!("{}: {error}", self.paths.mark.display())))?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_bytes.fetch_add(bytes, Ordering::Relaxed);
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
        Ok(sequence)
    }

    /// Whether a commit would be taken now: two atomic loads, usually.
    pub(super) fn writable(&self) -> Result<(), StoreError> {
        if self.refusing.load(Ordering::Acquire) {
            match &*held(&self.refusal) {
                Some(Refusal::Failed(why)) => return Err(StoreError::Io(why.clone())),
                Some(Refusal::OutOfSpace) => return Err(StoreError::Full),
                None => {}
            }
        }
        if self.short_of_space.load(Ordering::Acquire) {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    fn refuse_if_needed(&self, bytes: u64) -> Result<(), StoreError> {
        let unchecked = self.unchecked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let often = SPACE_CHECK_BYTES.min(self.options.min_free_bytes / 4);
        if unchecked >= often.max(SPACE_CHECK_BYTES_MIN) {
            self.check_space();
        }
        self.writable()
    }

    /// Looks at the disk.
    fn check_space(&self) {
        self.unchecked_bytes.store(0, Ordering::Relaxed);
        // A disk that cannot be asked will soon fail in a way that says more.
        let Ok(disk) = rustix::fs::statvfs(&self.paths.dir) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.free_bytes.store(free, Ordering::Relaxed);
        let reserve = self.options.min_free_bytes;
        let was = self.short_of_space.load(Ordering::Acquire);
        let enough = if was { reserve.saturating_add(reserve >> RESUME_SHIFT) } else { reserve };
        let short = free < enough;
        self.short_of_space.store(short, Ordering::Release);
        if short && !was {
            error!(free, reserve, dir = %self.paths.dir.display(), "disk is full: writes refused");
        } else if was && !short {
            info!(free, reserve, "disk has room again: writes taken");
        }
    }

    pub(super) fn space(&self) -> Space {
        let out = *held(&self.refusal) == Some(Refusal::OutOfSpace);
        let full = out || self.short_of_space.load(Ordering::Acquire);
        Space { free_bytes: self.free_bytes.load(Ordering::Relaxed), full }
    }

    /// Why the engine takes no commits until it is reopened.
    pub(super) fn failure(&self) -> Option<String> {
        match &*held(&self.refusal) {
            Some(Refusal::Failed(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// What a failed write means, and from now on.
    fn write_failed(&self, error: &rocksdb::Error) -> StoreError {
        let message = error.as_ref();
        // A commit that waited for a flush when background work was stopped: nothing was written.
        if error.kind() == ErrorKind::ShutdownInProgress
            && let Err(refused) = self.writable()
        {
            return refused;
        }
        // The log's writer takes nothing after a failure that nobody was told of, such as one of the
        // background. Opening the store anew, once there is room, finds out what that has taken.
        if message.contains("previous error") {
            self.out_of_space(message);
            return StoreError::Full;
        }
        // A record that could not be appended whole is never replayed. If the fsync failed it may
        // be, so a full disk found there is a failure like any other.
        let appending = !message.contains("sync");
        if no_space(message) && appending {
            self.out_of_space(message);
            return StoreError::Full;
        }
        self.fail(message.to_owned())
    }

    fn out_of_space(&self, why: &str) {
        held(&self.refusal).get_or_insert(Refusal::OutOfSpace);
        self.refusing.store(true, Ordering::Release);
        error!(why, "disk is full: writes refused until it has room");
    }

    /// Looks for flushes and compactions that failed.
    fn check_background(&self) {
        if self.refusing.load(Ordering::Acquire) {
            return;
        }
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = guard.as_ref() else { return };
        let errors = db.property_int_value(properties::BACKGROUND_ERRORS);
        if errors.ok().flatten().unwrap_or_default() == 0 {
            return;
        }
        // RocksDB does not say which error it was; a disk without room for a flush explains it.
        if self.free_bytes.load(Ordering::Relaxed) < self.room_needed() {
            self.out_of_space("a flush or compaction failed");
        } else {
            let log = self.paths.db.join("LOG");
            self.fail(format!("a flush or compaction failed, see {}", log.display()));
        }
        db.cancel_all_background_work(false);
    }

    /// Below this, RocksDB cannot be expected to recover: it flushes what it replays.
    fn room_needed(&self) -> u64 {
        self.options.min_free_bytes.max(2 * self.options.write_buffer_bytes as u64)
    }

    fn fail(&self, why: String) -> StoreError {
        error!(%why, "the store failed: writes refused until it is reopened");
        *held(&self.refusal) = Some(Refusal::Failed(why.clone()));
        self.refusing.store(true, Ordering::Release);
        StoreError::Io(why)
    }

    /// Fsyncs everything acknowledged before the call.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        if let Some(why) = self.failure() {
            return Err(StoreError::Io(why));
        }
        let written = self.written.load(Ordering::Acquire);
        if written > self.synced.load(Ordering::Acquire) {
            let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
            let db = guard.as_ref().ok_or_else(closed)?;
            db.flush_wal(true).map_err(|error| self.fail(error.into_string()))?;
            self.synced.fetch_max(written, Ordering::AcqRel);
        }
        let noted = held(&self.mark).note_synced(written);
        noted.map_err(|error| self.fail(format!("{}: {error}", self.paths.mark.display())))
    }

    fn sync_mark(&self) -> Result<(), StoreError> {
        let file = held(&self.mark).start_sync();
        let synced = file.map_or(Ok(()), |file| file.sync_data());
        synced.map_err(|error| self.fail(format!("{}: {error}", self.paths.mark.display())))
    }

    pub(super) fn durable(&self) -> Durable {
        // In this order: what is synced was written before.
        let synced = self.synced.load(Ordering::Acquire);
        Durable { synced, written: self.written.load(Ordering::Acquire) }
    }

    /// Closes the database and opens it anew, with all checks of a start.
    pub(super) fn reopen(&self) -> Result<Option<AmnesiaReason>, OpenError> {
        let mut guard = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        let parts = match open::open(&self.paths, &self.options, &self.who) {
            Ok(parts) => parts,
            Err(error) => {
                self.fail(error.to_string());
                return Err(error);
            }
        };
        if let Some(reason) = &parts.opened.amnesia {
            error!(%reason, "amnesia: the reopened store may lack acknowledged writes");
            // Before anyone can read from it.
            self.amnesia.store(true, Ordering::Release);
        }
        *guard = Some(parts.db);
        *held(&self.mark) = parts.mark;
        self.written.store(parts.sequence, Ordering::Release);
        self.synced.store(parts.sequence, Ordering::Release);
        *held(&self.refusal) = None;
        self.refusing.store(false, Ordering::Release);
        info!(dir = %self.paths.dir.display(), "store reopened");
        Ok(parts.opened.amnesia)
    }

    /// After RocksDB met a full disk: starts afresh once there is room.
    fn resume_after_full(&self) {
        let out = *held(&self.refusal) == Some(Refusal::OutOfSpace);
        let short = self.short_of_space.load(Ordering::Acquire);
        if !out || short || self.free_bytes.load(Ordering::Relaxed) < self.room_needed() {
            return;
        }
        match self.reopen() {
            Ok(None) => {}
            // Readers learn of it from the latch; writers must begin anew, by a restart.
            Ok(Some(reason)) => {
                self.fail(format!("amnesia after a full disk ({reason}): restart the node"));
            }
            Err(error) => error!(%error, "the store could not be reopened after a full disk"),
        }
    }

    pub(super) fn is_amnesic(&self) -> bool {
        self.amnesia.load(Ordering::Acquire)
    }

    pub(super) fn clear_amnesia(&self) -> Result<(), OpenError> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or_else(|| OpenError::Io {
            file: self.paths.db.clone(),
            detail: "the store is closed".to_owned(),
        })?;
        open::clear_amnesia(&self.paths, db)?;
        self.amnesia.store(false, Ordering::Release);
        Ok(())
    }

    /// Fsyncs and closes. Reads and commits fail afterwards.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let synced = self.sync().and_then(|()| self.sync_mark());
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
        synced
    }

    fn run_upkeep(&self) {
        let wal_interval = match self.options.sync {
            SyncPolicy::Always => UPKEEP_INTERVAL,
            SyncPolicy::Interval(interval) => interval.max(SYNC_INTERVAL_MIN),
        };
        let mut upkeep_due = Instant::now() + UPKEEP_INTERVAL;
        let mut stopping = held(&self.stopping);
        loop {
            let waited = self.wake.wait_timeout(stopping, wal_interval.min(UPKEEP_INTERVAL));
            stopping = waited.unwrap_or_else(PoisonError::into_inner).0;
            if *stopping {
                return;
            }
            drop(stopping);
            self.upkeep(&mut upkeep_due);
            stopping = held(&self.stopping);
        }
    }

    /// One round. Failures are latched where they happen, so there is nobody to tell here.
    fn upkeep(&self, upkeep_due: &mut Instant) {
        if self.failure().is_none() {
            let _ = self.sync();
        }
        let now = Instant::now();
        if now < *upkeep_due {
            return;
        }
        *upkeep_due = now + UPKEEP_INTERVAL;
        self.check_space();
        self.check_background();
        self.resume_after_full();
        let _ = self.sync_mark();
    }
}

pub(super) fn closed() -> StoreError {
    StoreError::Io("the store is closed".to_owned())
}

/// The engine and its thread; the last handle to go closes both.
pub(super) struct Owner {
    pub(super) engine: Arc<Engine>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl Owner {
    pub(super) fn start(engine: Engine) -> Result<Owner, OpenError> {
        let engine = Arc::new(engine);
        let shared = Arc::clone(&engine);
        let upkeep = std::thread::Builder::new()
            .name("store-upkeep".to_owned())
            .spawn(move || shared.run_upkeep())
            .map_err(|error| OpenError::io(&engine.paths.dir, &error))?;
        Ok(Owner { engine, upkeep: Mutex::new(Some(upkeep)) })
    }

    /// Stops the thread, fsyncs and closes; a second call does nothing more.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        *held(&self.engine.stopping) = true;
        self.engine.wake.notify_all();
        let Some(upkeep) = held(&self.upkeep).take() else { return Ok(()) };
        // A panic there was printed; closing goes on.
        let _ = upkeep.join();
        self.engine.close()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            error!(%error, "the store was not closed cleanly");
        }
    }
}
