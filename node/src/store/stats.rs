//! Figures for metrics.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use holm_core::store::Table;
use rocksdb::{DB, properties};

use super::engine::Engine;
use super::rocks::OWN_FAMILY;

/// A moment's figures. Zero for RocksDB's own while the store is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Memory of all memtables, also those being flushed, in bytes.
    pub memtable_bytes: u64,
    /// The shared cache's contents, memtables' charge included, in bytes.
    pub cache_bytes: u64,
    /// Tables that hold live data, in bytes on disk.
    pub table_bytes: u64,
    /// What compaction has to rewrite, estimated, in bytes.
    pub compaction_pending_bytes: u64,
    /// Whether RocksDB holds writes back entirely.
    pub write_stopped: bool,
    /// The rate to which RocksDB slows writes down, in bytes a second; 0 means not slowed.
    pub write_delayed_rate: u64,
    /// Background errors since the store was opened.
    pub background_errors: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// Bytes of these commits' batches.
    pub commit_bytes: u64,
    /// Time spent in these commits, all shards together, in nanoseconds.
    pub commit_nanos: u64,
}

impl StoreStats {
    pub(super) fn read(engine: &Engine) -> StoreStats {
        let guard = engine.db.read().unwrap_or_else(PoisonError::into_inner);
        let mut stats = guard.as_ref().map(StoreStats::of_database).unwrap_or_default();
        stats.commits = engine.commits.load(Ordering::Relaxed);
        stats.commit_bytes = engine.commit_bytes.load(Ordering::Relaxed);
        stats.commit_nanos = engine.commit_nanos.load(Ordering::Relaxed);
        stats
    }

    fn of_database(db: &DB) -> StoreStats {
        let one = |name| db.property_int_value(name).ok().flatten().unwrap_or_default();
        let sum = |name: &rocksdb::properties::PropName| {
            Table::ALL
                .iter()
                .map(|table| table.name())
                .chain([OWN_FAMILY])
                .filter_map(|family| db.cf_handle(family))
                .filter_map(|family| db.property_int_value_cf(&family, name).ok().flatten())
                .sum()
        };
        StoreStats {
            memtable_bytes: sum(properties::SIZE_ALL_MEM_TABLES),
            cache_bytes: one(properties::BLOCK_CACHE_USAGE),
            table_bytes: sum(properties::LIVE_SST_FILES_SIZE),
            compaction_pending_bytes: sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            write_stopped: one(properties::IS_WRITE_STOPPED) != 0,
            write_delayed_rate: one(properties::ACTUAL_DELAYED_WRITE_RATE),
            background_errors: one(properties::BACKGROUND_ERRORS),
            ..StoreStats::default()
        }
    }
}
