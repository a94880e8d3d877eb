//! The store on RocksDB: what a node remembers, and what it knows about having forgotten.
//!
//! The problem: RocksDB's default recovery drops acknowledged writes in silence after one damaged
//! byte of its log, a deleted log opens as an empty one, and a failed fsync that is tried again
//! succeeds without having written anything. A replica that forgets in silence breaks every
//! quorum it takes part in (I2, I4).
//!
//! The rule: a store that cannot prove that it holds every write it acknowledged *declares
//! amnesia*. It still opens and serves what it has, but [`Opened::amnesia`] says so, at this and
//! every later start, until [`RocksStore::clear_amnesia`] is called when all was taken from others.
//! The proof is a high-water mark in a file of its own (`highwater`), a check of the logs before
//! RocksDB replays them (`wal`), and RocksDB's strict recovery (`rocks`).
//!
//! | what happened | what a start finds |
//! | --- | --- |
//! | the process was killed, even in the middle of a commit | everything acknowledged |
//! | power was cut, `sync = always` | everything acknowledged |
//! | power was cut, `sync = interval` | everything fsynced; newer commits may be gone, as the setting says |
//! | a log was deleted, cut short or damaged | amnesia |
//! | the mark was deleted or damaged | amnesia |
//! | the manifest was cut short | amnesia, or [`OpenError::Corrupt`] |
//! | the database was deleted | amnesia, an empty store |
//! | the whole directory was deleted | a fresh store: only the peers can tell |
//! | a table is damaged | [`StoreError::Corrupt`] on reading it, and the file among
//! |  | [`RocksStore::damaged_files`]; or [`OpenError::Corrupt`] |
//!
//! Each shard thread has a handle of its own with its own staged batch; they share one database, so
//! that commits of several shards share an fsync. A full disk refuses commits before anything is
//! written. Reads go on meanwhile, but wait while the database is reopened after a failure, and fail
//! if it could not be opened again (`engine`). Amnesia that a reopening finds is latched:
//! [`RocksStore::is_amnesic`].
//!
//! Keeps: I1 as far as the store goes (it never claims to be older or other than it is), I2, I10
//! (one cache, bounded memtables), I11.
//!
//! Leaves out: a directory restored whole from an older copy is consistent in itself; peers tell.

mod damaged;
mod engine;
mod error;
mod files;
mod highwater;
mod open;
mod rocks;
mod stats;
#[cfg(test)]
mod tests;
mod wal;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use holm_core::store::{Row, Store, StoreError, Table};
use holm_protocol::ids::NodeId;
use rocksdb::{DB, ReadOptions, WriteBatch, WriteOptions};

use engine::{Engine, Owner};
pub use error::OpenError;
pub use stats::StoreStats;

/// Whose store it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The cluster's name; no line breaks.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
}

/// When a commit is fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before it is acknowledged.
    Always,
    /// At least this often. An acknowledged commit survives a kill of the process, but not a power
    /// cut within this time.
    Interval(Duration),
}

/// Where the store is and what it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The data directory; made if it is absent.
    pub dir: PathBuf,
    /// When commits are fsynced.
    pub sync: SyncPolicy,
    /// Memory for blocks, filters and memtables together, in bytes; at least twice
    /// `write_buffer_bytes`.
    pub cache_bytes: usize,
    /// The part of it for memtables, in bytes. Flushing starts when it is used up.
    pub write_buffer_bytes: usize,
    /// Commits are refused when less than this is free on the disk, in bytes.
    pub min_free_bytes: u64,
    /// The most files RocksDB keeps open.
    pub max_open_files: u32,
    /// Whether a store that may have lost writes is opened, with amnesia declared, or refused.
    pub allow_amnesia: bool,
}

impl StoreOptions {
    /// The defaults: durable, and small enough for many nodes on one machine.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions {
            dir: dir.into(),
            sync: SyncPolicy::Always,
            cache_bytes: 128 * 1024 * 1024,
            // Half a minute of a busy node's writes would be too much to replay at a start; this is
            // less than a second's reading.
            write_buffer_bytes: 48 * 1024 * 1024,
            // Room for RocksDB to flush and compact its way out.
            min_free_bytes: 512 * 1024 * 1024,
            max_open_files: 512,
            allow_amnesia: true,
        }
    }
}

/// Why the store cannot vouch for holding every write it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmnesiaReason {
    /// The store ends before its high-water mark: commits are gone.
    #[error("store ends at {store}, its high-water mark is {mark}")]
    BehindMark {
        /// Sequence number the store reaches.
        store: u64,
        /// Sequence number it must reach.
        mark: u64,
    },
    /// The high-water mark is gone or damaged, so nothing says how far the store had got.
    #[error("the high-water mark is missing or damaged")]
    MarkLost,
    /// There was a database and it is gone.
    #[error("the database is gone")]
    StoreLost,
    /// Part of the write-ahead log could not be read and was left out.
    #[error("the write-ahead log was damaged and opened leniently: {detail}")]
    OpenedLeniently {
        /// The file and the damage.
        detail: String,
    },
    /// Tables that the last start had made are gone: the manifest has lost its end.
    #[error("the manifest is damaged: tables that the last start had made are missing")]
    TablesLost,
    /// Amnesia is on record, but not legibly why.
    #[error("amnesia was declared, the record of why is damaged")]
    Unknown,
}

impl AmnesiaReason {
    fn encode(&self) -> String {
        match self {
            AmnesiaReason::BehindMark { store, mark } => format!("behind-mark {store} {mark}\n"),
            AmnesiaReason::MarkLost => "mark-lost\n".to_owned(),
            AmnesiaReason::StoreLost => "store-lost\n".to_owned(),
            AmnesiaReason::OpenedLeniently { detail } => format!("opened-leniently {detail}\n"),
            AmnesiaReason::TablesLost => "tables-lost\n".to_owned(),
            AmnesiaReason::Unknown => "unknown\n".to_owned(),
        }
    }

    /// Total: a damaged record of amnesia is still one.
    fn decode(text: &str) -> AmnesiaReason {
        let text = text.trim_end();
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        let numbers = rest.split_once(' ').map(|(a, b)| (a.parse(), b.parse()));
        match (kind, numbers) {
            ("behind-mark", Some((Ok(store), Ok(mark)))) => {
                AmnesiaReason::BehindMark { store, mark }
            }
            ("mark-lost", _) => AmnesiaReason::MarkLost,
            ("store-lost", _) => AmnesiaReason::StoreLost,
            ("tables-lost", _) => AmnesiaReason::TablesLost,
            ("opened-leniently", _) => AmnesiaReason::OpenedLeniently { detail: rest.to_owned() },
            _ => AmnesiaReason::Unknown,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// A random number, drawn when the store was made: a replaced disk has another.
    pub store_id: u128,
    /// Set while the store may lack writes it acknowledged.
    pub amnesia: Option<AmnesiaReason>,
    /// Whether the store was made just now.
    pub fresh: bool,
}

/// Room on the disk, as of the last look (at most a tenth of a second ago).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free for this process, in bytes.
    pub free_bytes: u64,
    /// Whether commits are refused for want of room.
    pub full: bool,
}

/// How far the store has got, in sequence numbers as [`RocksStore::last_commit`] gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// The last acknowledged commit: survives a kill of the process.
    pub written: u64,
    /// The last commit known to be fsynced: survives a power cut. Never beyond `written`.
    pub synced: u64,
}

/// One shard's handle to the store.
pub struct RocksStore {
    owner: Arc<Owner>,
    batch: WriteBatch,
    write_options: WriteOptions,
    read_options: ReadOptions,
    last_commit: u64,
    /// Something was staged while the store was closed: the commit must not claim to have it.
    staged_in_vain: bool,
}

impl RocksStore {
    /// Opens or makes the store in `options.dir`.
    ///
    /// # Errors
    /// [`OpenError`]; each names the file and what to do. A store that may have lost writes is not
    /// an error unless the options say so.
    pub fn open(
        options: StoreOptions,
        identity: StoreIdentity,
    ) -> Result<(RocksStore, Opened), OpenError> {
        let (engine, opened) = Engine::open(options, identity)?;
        let owner = Owner::start(engine)?;
        Ok((RocksStore::handle(Arc::new(owner)), opened))
    }

    fn handle(owner: Arc<Owner>) -> RocksStore {
        let mut write_options = WriteOptions::default();
        write_options.set_sync(owner.engine.options.sync == SyncPolicy::Always);
        RocksStore {
            last_commit: 0,
            owner,
            batch: WriteBatch::default(),
            write_options,
            read_options: ReadOptions::default(),
            staged_in_vain: false,
        }
    }

    /// Another handle to the same database, with nothing staged.
    #[must_use]
    pub fn for_shard(&self) -> RocksStore {
        RocksStore::handle(Arc::clone(&self.owner))
    }

    /// Sequence number that covers this handle's last commit; 0 before the first. The commit is
    /// fsynced when [`Durable::synced`] has reached it.
    #[must_use]
    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// How far the store has got, all shards together.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.owner.engine.durable()
    }

    /// Room on the disk.
    #[must_use]
    pub fn space(&self) -> Space {
        self.owner.engine.space()
    }

    /// Why commits are refused until [`RocksStore::reopen`], if they are. A full disk is not such a
    /// reason: it ends by itself.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.owner.engine.failure()
    }

    /// The files of the database that were found damaged by reads since it was opened, a few of them
    /// if they are many. What they hold cannot be read here.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<PathBuf> {
        self.owner.engine.damaged.files()
    }

    /// Whether the store may lack writes it acknowledged, as the last opening or reopening found. One
    /// atomic load: ask often, because a full disk has the store reopened without being told to.
    #[must_use]
    pub fn is_amnesic(&self) -> bool {
        self.owner.engine.is_amnesic()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        StoreStats::read(&self.owner.engine)
    }

    /// Fsyncs everything that was acknowledged before the call.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the store then refuses commits until it is reopened.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.owner.engine.sync()
    }

    /// After [`RocksStore::failure`]: closes the database and opens it anew, for all handles. What
    /// they staged stays staged. The answer is the amnesia that was found, if any; then the node must
    /// behave as after a start with amnesia.
    ///
    /// # Errors
    /// As [`RocksStore::open`]; reads fail too until a reopening succeeds.
    pub fn reopen(&self) -> Result<Option<AmnesiaReason>, OpenError> {
        self.owner.engine.reopen()
    }

    /// Forgets the amnesia, once the store has been resynchronised.
    ///
    /// # Errors
    /// [`OpenError::Io`] and the like; the amnesia then stays on record.
    pub fn clear_amnesia(&self) -> Result<(), OpenError> {
        self.owner.engine.clear_amnesia()
    }

    /// Fsyncs and closes the database, for all handles. Dropping the last handle does the same
    /// without telling of errors.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the last fsync failed; the database is closed all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        self.owner.close()
    }

    fn with_db<T>(&self, read: impl FnOnce(&DB) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let guard = self.owner.engine.db.read().unwrap_or_else(PoisonError::into_inner);
        let result = read(guard.as_ref().ok_or_else(engine::closed)?);
        if let Err(StoreError::Corrupt(detail)) = &result {
            self.owner.engine.damaged.note(&self.owner.engine.paths.db, detail);
        }
        result
    }

    /// The bounds make every scan end where it must, whatever tombstones lie behind.
    fn scan_rows(
        db: &DB,
        table: Table,
        bounds: (&[u8], &[u8]),
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (from, to) = bounds;
        let family = db.cf_handle(table.name()).ok_or_else(|| no_family(table))?;
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut rows = Vec::new();
        let mut iterator = db.raw_iterator_cf_opt(&family, options);
        iterator.seek(from);
        while rows.len() < limit {
            let Some((key, value)) = iterator.item() else { break };
            rows.push((key.to_vec(), value.to_vec()));
            iterator.next();
        }
        let what = || format!("scan from {}", rocks::key_text(table, from));
        iterator.status().map_err(|error| rocks::read_error(&what(), &error))?;
        Ok(rows)
    }

    fn stage(&mut self, table: Table, write: impl FnOnce(&mut WriteBatch, Family<'_>)) {
        let guard = self.owner.engine.db.read().unwrap_or_else(PoisonError::into_inner);
        match guard.as_ref().and_then(|db| db.cf_handle(table.name())) {
            Some(family) => write(&mut self.batch, &family),
            None => self.staged_in_vain = true,
        }
    }
}

type Family<'a> = &'a Arc<rocksdb::BoundColumnFamily<'a>>;

/// Cannot be: all families are opened with the database.
fn no_family(table: Table) -> StoreError {
    StoreError::Io(format!("column family {} is not open", table.name()))
}

impl Store for RocksStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_db(|db| {
            let family = db.cf_handle(table.name()).ok_or_else(|| no_family(table))?;
            let found = db.get_cf_opt(&family, key, &self.read_options);
            found.map_err(|error| rocks::read_error(&rocks::key_text(table, key), &error))
        })
    }

    fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        self.with_db(|db| RocksStore::scan_rows(db, table, (from, to), limit))
    }

    fn writable(&mut self) -> Result<(), StoreError> {
        self.owner.engine.writable()
    }

    fn stage_put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.stage(table, |batch, family| batch.put_cf(family, key, value));
    }

    fn stage_delete(&mut self, table: Table, key: &[u8]) {
        self.stage(table, |batch, family| batch.delete_cf(family, key));
    }

    fn committed(&self) -> u64 {
        self.owner.engine.durable().written
    }

    fn durable(&self) -> u64 {
        self.owner.engine.durable().synced
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        // The next batch will be about as large as this one.
        let room = self.batch.size_in_bytes();
        let empty = self.batch.is_empty();
        let batch = std::mem::replace(&mut self.batch, WriteBatch::with_capacity_bytes(room));
        if std::mem::take(&mut self.staged_in_vain) {
            return Err(engine::closed());
        }
        if empty {
            return Ok(());
        }
        self.last_commit = self.owner.engine.commit(batch, &self.write_options)?;
        Ok(())
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksStore")
            .field("dir", &self.owner.engine.paths.dir)
            .field("staged", &self.batch.len())
            .field("last_commit", &self.last_commit)
            .finish_non_exhaustive()
    }
}
