//! One thread that puts into a RocksDB, one key at a time and in batches.
//!
//! The log is written to the kernel by every put or batch and never fsynced: what a node with
//! `sync = interval` does, without everything else it does. Keys are those of the load, in random
//! order, in one column family; settings are RocksDB's own but for LZ4.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use crate::cli::RocksArgs;
use crate::failure::Failure;
use crate::keyspace::{Keyspace, Lane};
use crate::measured::{Measured, Recorder, Window};

/// Puts in a batch: what a group commit holds at 64 operations in flight, roughly.
const BATCH: usize = 16;
/// Puts between two looks at the clock's end: a look costs little, but not nothing.
const PUTS_PER_LOOK: usize = 64;
/// How long to run before measuring: until the first memtable has grown its caches.
const WARMUP: Duration = Duration::from_millis(500);

/// Both loops' figures. Operations are puts in both; a batched put's latency is its batch's.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// One put at a time.
    pub(crate) single: Measured,
    /// Batches of 16.
    pub(crate) batched: Measured,
}

/// Runs both loops, each in a database of its own.
///
/// # Errors
/// RocksDB or the directory; [`Failure::Interrupted`] when told to stop.
pub(crate) fn measure(args: &RocksArgs, stop: &AtomicBool) -> Result<Found, Failure> {
    Ok(Found { single: measure_one(args, 1, stop)?, batched: measure_one(args, BATCH, stop)? })
}

fn measure_one(args: &RocksArgs, batch: usize, stop: &AtomicBool) -> Result<Measured, Failure> {
    let dir = temporary(args.data_dir.as_deref())?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Lz4);
    let db = DB::open(&options, dir.path())?;
    let space = Keyspace::new(args.records, args.value_size, 1);
    let mut putter = Putter {
        db: &db,
        write: WriteOptions::default(),
        lane: space.lane(0, 1),
        space: &space,
        recorder: Recorder::new(),
    };
    putter.put_until(Instant::now() + WARMUP, batch, stop)?;
    putter.recorder.reset();
    let window = Window::open(&[]);
    putter.put_until(Instant::now() + Duration::from_secs(args.duration), batch, stop)?;
    Ok(window.close(&putter.recorder))
}

/// A directory that goes with its handle.
///
/// # Errors
/// It cannot be made.
pub(crate) fn temporary(parent: Option<&Path>) -> Result<tempfile::TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("holm-bench-");
    let made = match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    };
    made.map_err(Failure::io("make a temporary directory"))
}

struct Putter<'a> {
    db: &'a DB,
    write: WriteOptions,
    space: &'a Keyspace,
    lane: Lane,
    recorder: Recorder,
}

impl Putter<'_> {
    fn put_until(&mut self, end: Instant, batch: usize, stop: &AtomicBool) -> Result<(), Failure> {
        while Instant::now() < end {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            for _ in 0..PUTS_PER_LOOK / batch {
                if batch == 1 { self.put_one()? } else { self.put_batch(batch)? }
            }
        }
        Ok(())
    }

    fn put_one(&mut self) -> Result<(), Failure> {
        let (key, value) = self.next();
        let begun = Instant::now();
        self.db.put_opt(key, value, &self.write)?;
        self.recorder.success(begun.elapsed());
        Ok(())
    }

    fn put_batch(&mut self, batch: usize) -> Result<(), Failure> {
        let mut writes = WriteBatch::default();
        let begun = Instant::now();
        for _ in 0..batch {
            let (key, value) = self.next();
            writes.put(key, value);
        }
        self.db.write_opt(writes, &self.write)?;
        let took = begun.elapsed();
        (0..batch).for_each(|_| self.recorder.success(took));
        Ok(())
    }

    fn next(&mut self) -> ([u8; crate::keyspace::KEY_BYTES], Vec<u8>) {
        let index = self.lane.pick();
        (Keyspace::key(index), self.space.value(index, &mut self.lane.random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both loops put, and an interrupted one leaves nothing. Method: the shortest run, then
    /// one that is told to stop.
    #[test]
    fn both_loops_put_and_stop() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = Some(parent.path().to_owned());
        let args = RocksArgs { records: 100, value_size: 100, duration: 1, data_dir };
        let found = measure(&args, &AtomicBool::new(false)).unwrap();
        assert!(found.single.operations > 0 && found.batched.operations.is_multiple_of(16));
        let stopped = measure(&args, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Failure::Interrupted)));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
