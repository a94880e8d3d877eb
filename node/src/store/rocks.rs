//! How RocksDB is set up, and what its errors mean.
//!
//! Choices that are not a matter of taste:
//! - **Atomic flush**: all column families reach their tables together. Without it a flushed family
//!   can be ahead of a log that was lost for another one, and the recovered sequence number would
//!   hide the loss; with it that number says how far *everything* got, which is what the high-water
//!   mark is compared with. It excludes pipelined writes, which gain nothing where one or two shard
//!   threads commit whole batches.
//! - **Strict recovery** and no recycled logs (RocksDB excludes the two together).
//! - **One cache** for blocks, filters and memtables, so that one number bounds the memory.
//! - The log is written to the kernel by every commit, so a killed process loses nothing.

use std::path::Path;

use holm_core::store::{StoreError, Table};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    ErrorKind, LogLevel, Options, WriteBufferManager,
};

use super::StoreOptions;

/// The column family of the store's own records: RocksDB makes it in any case, and no [`Table`]
/// shares its keys.
pub(super) const OWN_FAMILY: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// Bloom filter size: one false positive in a hundred.
const BLOOM_BITS: f64 = 10.0;
/// Part of a memtable spent on a filter, so that the read before the first put of a key is cheap.
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;
/// Small enough that a point read unpacks little.
const BLOCK_BYTES: usize = 4 * 1024;
const TABLE_BYTES: u64 = 32 * 1024 * 1024;
/// Write back gradually instead of in one burst at each fsync.
const WRITEBACK_BYTES: u64 = 1024 * 1024;
/// One flush and one compaction: the machine's cores belong to the shards.
const BACKGROUND_JOBS: i32 = 2;
/// RocksDB's own log: a few files of a few MiB are enough to explain a bad day.
const INFO_LOG_BYTES: usize = 4 * 1024 * 1024;
const INFO_LOG_FILES: usize = 3;

/// How much damage of the write-ahead log to put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// None.
    Strict,
    /// Keep what lies before the first damage.
    Prefix,
    /// Keep every sound record.
    Salvage,
}

/// Opens the database with all its column families.
pub(super) fn open(
    db: &Path,
    options: &StoreOptions,
    recovery: Recovery,
    create: bool,
) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(options.cache_bytes);
    let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
        options.write_buffer_bytes,
        // Writers are held back by the number of memtables instead: a stall by this manager would
        // never end if flushing failed.
        false,
        cache.clone(),
    );
    let mut all = database_options(options, recovery)?;
    all.create_if_missing(create);
    all.set_write_buffer_manager(&memtables);
    let family = || family_options(options, &cache);
    let descriptors = Table::ALL
        .iter()
        .map(|table| table.name())
        .chain([OWN_FAMILY])
        .map(|name| ColumnFamilyDescriptor::new(name, family()));
    DB::open_cf_descriptors(&all, db, descriptors)
}

fn database_options(options: &StoreOptions, recovery: Recovery) -> Result<Options, rocksdb::Error> {
    // Each log also says which one came before it; the crate has no setter for this. It would
    // object to what a lenient recovery leaves, so it is off there.
    let verify = recovery == Recovery::Strict;
    let mut all =
        Options::default().get_options_from_string(format!("track_and_verify_wals={verify}"))?;
    all.set_wal_recovery_mode(match recovery {
        Recovery::Strict => DBRecoveryMode::AbsoluteConsistency,
        Recovery::Prefix => DBRecoveryMode::PointInTime,
        Recovery::Salvage => DBRecoveryMode::SkipAnyCorruptedRecord,
    });
    all.create_missing_column_families(true);
    all.set_paranoid_checks(true);
    all.set_atomic_flush(true);
    all.set_recycle_log_file_num(0);
    all.set_max_open_files(i32::try_from(options.max_open_files).unwrap_or(i32::MAX));
    all.set_max_background_jobs(BACKGROUND_JOBS);
    all.set_bytes_per_sync(WRITEBACK_BYTES);
    all.set_wal_bytes_per_sync(WRITEBACK_BYTES);
    all.set_stats_dump_period_sec(0);
    all.set_stats_persist_period_sec(0);
    all.set_log_level(LogLevel::Info);
    all.set_max_log_file_size(INFO_LOG_BYTES);
    all.set_keep_log_file_num(INFO_LOG_FILES);
    Ok(all)
}

fn family_options(options: &StoreOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BLOOM_BITS, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_optimize_filters_for_memory(true);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    // The manager flushes before this is reached unless one family takes nearly everything.
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(3);
    family.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
    family.set_memtable_whole_key_filtering(true);
    family.set_target_file_size_base(TABLE_BYTES);
    // What is flushed will soon be compacted: only what stays is worth compressing.
    let mut levels = [DBCompressionType::Lz4; 7];
    levels[0] = DBCompressionType::None;
    family.set_compression_per_level(&levels);
    family
}

/// What a failed read means. `what` names what was read.
pub(super) fn read_error(what: &str, error: &rocksdb::Error) -> StoreError {
    let detail = format!("{what}: {error}");
    match error.kind() {
        // A table that is not there, or not a table any more, is damage too.
        ErrorKind::IOError if !error.as_ref().contains("No such file") => StoreError::Io(detail),
        ErrorKind::TimedOut | ErrorKind::Aborted | ErrorKind::Busy | ErrorKind::TryAgain => {
            StoreError::Io(detail)
        }
        ErrorKind::ShutdownInProgress | ErrorKind::Incomplete => StoreError::Io(detail),
        _ => StoreError::Corrupt(detail),
    }
}

/// Whether a failed open may succeed if damage of the write-ahead log is put up with.
pub(super) fn may_be_lenient(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Corruption
}

/// A key for people: hexadecimal, shortened.
pub(super) fn key_text(table: Table, key: &[u8]) -> String {
    use std::fmt::Write;
    /// Enough to find the key, short enough for a log line.
    const SHOWN: usize = 64;
    let mut text = format!("{} key ", table.name());
    for byte in key.iter().take(SHOWN) {
        let _ = write!(text, "{byte:02x}"); // Writing to a string cannot fail.
    }
    if key.len() > SHOWN {
        text.push_str("...");
    }
    text
}
