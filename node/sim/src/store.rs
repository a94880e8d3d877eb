//! A disk that can be told to misbehave.
//!
//! Commits are atomic, as RocksDB's write batches are. What a commit wrote is at first *volatile*
//! (in the page cache); [`SimStore::sync`] makes it safe, which `sync = always` does within the
//! commit. A process that is killed loses nothing that was committed; a power cut loses the
//! volatile batches, newest first, all or some of them. After an I/O error nobody knows whether
//! the batch is on the disk: that shows after the next [`SimStore::reopen`]. Until then the batch may
//! be read or not, depending on which step of the commit failed.
//!
//! A batch that power interrupts is *torn*: half of it is on the disk. A store that checks its log as
//! strictly as the node's does finds that and leaves the batch out, whole, when it is reopened.
//!
//! A disk can be copied, and replaced by a copy, older or another's.
//!
//! Full disks are refused twice, as real ones are: usually at [`Store::writable`], and when a batch
//! turns out too large, at its commit.

mod tampered;

use std::collections::{BTreeMap, BTreeSet};

use holm_core::store::{Row, Store, StoreError, Table};

use crate::tamper::Tamper;

/// Free bytes under which nothing new is taken on. Small, so that some batches are found too large
/// only at their commit.
const RESERVE_BYTES: usize = 256;

/// When a commit is safe from a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Before it is acknowledged.
    Always,
    /// Up to this many milliseconds later.
    Interval {
        /// Between two syncs.
        ms: u64,
    },
}

/// What is wrong with the disk right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreFaults {
    /// Commits fail with an I/O error. The batch may turn out to be on the disk after all.
    pub commits_fail: bool,
    /// What fails shows at once: all but the last step of the commit succeeded, such as noting it in
    /// the second place. Whether it is on the disk is as uncertain.
    pub failed_shows: bool,
    /// Reads and scans fail with an I/O error.
    pub reads_fail: bool,
    /// Scans do, and reads of single rows do not: what is read often is in memory.
    pub scans_fail: bool,
    /// A sync reports success and does nothing: the disk that lies.
    pub syncs_lie: bool,
    /// Power fails in the middle of the next commit, of which nobody will hear.
    pub tears: bool,
    /// Half of a torn batch shows after reopening: a store that does not check its log.
    pub torn_shows: bool,
}

/// One row that a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value before.
    pub before: Option<Vec<u8>>,
    /// Its value after.
    pub after: Option<Vec<u8>>,
    /// Whether its value before could not be read any more.
    pub was_damaged: bool,
}

/// A row that a batch writes, or removes.
type Staged = (Table, Vec<u8>, Option<Vec<u8>>);

/// How often each misbehaviour was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreTally {
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits or questions refused because the disk was full.
    pub full: u64,
    /// Commits that failed with an I/O error.
    pub commits_failed: u64,
    /// Those of them whose batch showed all the same.
    pub failed_shown: u64,
    /// Reads that failed with an I/O error.
    pub reads_failed: u64,
    /// Damaged values that were read.
    pub damaged_reads: u64,
}

type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What was on a disk at some time.
#[derive(Debug, Clone)]
pub struct DiskCopy(Tables);

/// See the [module](self).
#[derive(Debug)]
pub struct SimStore {
    tables: Tables,
    staged: Vec<Staged>,
    mode: SyncMode,
    /// The last commit.
    last: Vec<Changed>,
    /// The commits before it that nobody has looked at: a shard may commit several batches in one go.
    earlier: Vec<Changed>,
    /// Committed and not synced, oldest first.
    volatile: Vec<Vec<Changed>>,
    /// A batch whose commit failed and which may be on the disk.
    uncertain: Option<Vec<Staged>>,
    /// Batches whose commits failed, which show, and which may not be on the disk; oldest first.
    shown: Vec<Vec<Changed>>,
    /// A batch of which half is on the disk.
    torn: Option<Vec<Staged>>,
    damaged: BTreeSet<(Table, Vec<u8>)>,
    bytes: usize,
    capacity_bytes: Option<usize>,
    faults: StoreFaults,
    tally: StoreTally,
    /// A bug put back into the disk's driver.
    tamper: Option<Tamper>,
    /// So many of the oldest volatile batches were reported as safe.
    promised: usize,
    /// The newest batch failed and is reported as done.
    is_hiding: bool,
    /// The newest batch, where a bug wants it.
    newest: Vec<Changed>,
    /// Batches written, found ones too; and how many of them were there at the last sync.
    written: u64,
    synced: u64,
}

impl SimStore {
    /// An empty disk.
    #[must_use]
    pub fn new(mode: SyncMode) -> SimStore {
        SimStore {
            tables: empty_tables(),
            staged: Vec::new(),
            mode,
            last: Vec::new(),
            earlier: Vec::new(),
            volatile: Vec::new(),
            uncertain: None,
            shown: Vec::new(),
            torn: None,
            damaged: BTreeSet::new(),
            bytes: 0,
            capacity_bytes: None,
            faults: StoreFaults::default(),
            tally: StoreTally::default(),
            tamper: None,
            promised: 0,
            is_hiding: false,
            newest: Vec::new(),
            written: 0,
            synced: 0,
        }
    }

    /// When commits become safe.
    #[must_use]
    pub fn mode(&self) -> SyncMode {
        self.mode
    }

    /// Changes what is wrong with the disk.
    pub fn set_faults(&mut self, faults: StoreFaults) {
        self.faults = faults;
    }

    /// What is wrong with the disk.
    #[must_use]
    pub fn faults(&self) -> StoreFaults {
        self.faults
    }

    /// Leaves room for this many more bytes, or for all there will be.
    pub fn set_free(&mut self, free_bytes: Option<usize>) {
        self.capacity_bytes = free_bytes.map(|free| self.bytes + free);
    }

    /// Whether there is room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.capacity_bytes.is_none_or(|capacity| self.bytes + RESERVE_BYTES <= capacity)
    }

    /// Flips a bit in what reads of this row see, until it is written again or healed.
    pub fn damage(&mut self, table: Table, key: &[u8]) {
        self.damaged.insert((table, key.to_vec()));
    }

    /// Whether a read of this row sees damage.
    #[must_use]
    pub fn is_damaged(&self, table: Table, key: &[u8]) -> bool {
        !self.damaged.is_empty() && self.damaged.contains(&(table, key.to_vec()))
    }

    /// Takes every fault away.
    pub fn heal(&mut self) {
        let StoreFaults { syncs_lie, torn_shows, .. } = self.faults;
        self.faults = StoreFaults { syncs_lie, torn_shows, ..StoreFaults::default() };
        self.capacity_bytes = None;
        self.damaged.clear();
    }

    /// How often each misbehaviour was met.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        self.tally
    }

    /// The committed rows of a table, whatever the faults: for the referee.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.tables.get(&table).into_iter().flatten().map(|(k, v)| (k.as_slice(), v.as_slice()))
    }

    /// The committed rows of a table whose keys start with `prefix`, whatever the faults.
    pub fn rows_below<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let rows = self.tables.get(&table).into_iter();
        rows.flat_map(move |rows| rows.range(prefix.to_vec()..))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// One committed row, whatever the faults: for the referee.
    #[must_use]
    pub fn row(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tables.get(&table)?.get(key).map(Vec::as_slice)
    }

    /// What commits have changed since this was asked last, in their order.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        self.settle();
        std::mem::take(&mut self.earlier)
    }

    /// The last commit is over.
    fn settle(&mut self) {
        let mut last = std::mem::take(&mut self.last);
        if self.is_volatile() && !last.is_empty() {
            self.volatile.push(last.clone());
        }
        self.earlier.append(&mut last);
        self.settle_hidden();
    }

    /// Whether what was just committed is not synced.
    fn is_volatile(&self) -> bool {
        self.mode != SyncMode::Always || self.faults.syncs_lie || self.is_hiding
    }

    /// Makes everything committed safe from power cuts.
    pub fn sync(&mut self) {
        self.synced = self.written;
        if !self.faults.syncs_lie && !self.leaves_unsynced() {
            self.volatile.clear();
        }
    }

    /// Batches that a power cut would lose.
    #[must_use]
    pub fn volatile(&self) -> usize {
        self.volatile.len()
    }

    /// The power fails: all but the oldest `keep` volatile batches are gone. Gives what was lost,
    /// newest first.
    pub fn power_cut(&mut self, keep: usize) -> Vec<Changed> {
        self.take_changed();
        self.uncertain = None;
        self.unshow();
        let mut lost = Vec::new();
        let keep = keep.min(self.volatile.len());
        let batches = self.volatile.split_off(keep).into_iter().enumerate();
        for (at, batch) in batches.rev() {
            for row in batch.into_iter().rev() {
                self.undo(&row);
                // What was reported as safe may not be lost.
                if keep + at >= self.promised {
                    lost.push(row);
                }
            }
        }
        self.volatile.clear();
        self.promised = 0;
        self.synced = self.written;
        lost
    }

    /// Takes back what a batch wrote to a row. What a later batch wrote there stays, if that batch
    /// is safe.
    fn undo(&mut self, row: &Changed) {
        if self.row(row.table, &row.key) == row.after.as_deref() {
            self.write(row.table, row.key.clone(), row.before.clone());
        }
    }

    /// Takes back what showed although its commit had failed: it is not on the disk.
    fn unshow(&mut self) {
        for row in std::mem::take(&mut self.shown).into_iter().flatten().rev() {
            self.undo(&row);
        }
    }

    /// What is on the disk now.
    #[must_use]
    pub fn copy(&self) -> DiskCopy {
        DiskCopy(self.tables.clone())
    }

    /// The disk is replaced by a copy, or by an empty one. Gives what was on it and is not any more.
    pub fn replace(&mut self, copy: Option<&DiskCopy>) -> Vec<Changed> {
        let fresh = copy.map_or_else(empty_tables, |copy| copy.0.clone());
        let mut lost = Vec::new();
        for (table, rows) in std::mem::replace(&mut self.tables, fresh) {
            for (key, value) in rows {
                let after = self.row(table, &key).map(<[u8]>::to_vec);
                if after.as_ref() != Some(&value) {
                    let was_damaged = false;
                    lost.push(Changed {
                        table,
                        key,
                        before: after,
                        after: Some(value),
                        was_damaged,
                    });
                }
            }
        }
        let rows = self.tables.values().flatten();
        self.bytes = rows.map(|(key, value)| key.len() + value.len()).sum();
        self.volatile.clear();
        self.promised = 0;
        self.last.clear();
        self.earlier.clear();
        self.uncertain = None;
        self.shown.clear();
        self.torn = None;
        self.damaged.clear();
        lost
    }

    /// Whether a batch is torn.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn.is_some()
    }

    /// A process opens the disk anew. A batch whose commit had failed shows now, or never; a torn one
    /// is left out. Gives what turned out to be there.
    pub fn reopen(&mut self, uncertain_is_there: bool) -> Vec<Changed> {
        self.staged.clear();
        self.take_changed();
        self.faults.tears = false;
        let mut there = Vec::new();
        if uncertain_is_there {
            there = std::mem::take(&mut self.shown).into_iter().flatten().collect();
        }
        self.unshow();
        let mut found = self.uncertain.take().filter(|_| uncertain_is_there).unwrap_or_default();
        if let Some(mut torn) = self.torn.take().filter(|_| self.faults.torn_shows) {
            torn.truncate(torn.len().div_ceil(2));
            found.append(&mut torn);
        }
        self.written += u64::from(!found.is_empty());
        self.apply(found);
        there.extend(self.take_changed());
        self.forget_rows();
        there
    }

    fn apply(&mut self, batch: Vec<Staged>) {
        for (table, key, after) in batch {
            let was_damaged = self.is_damaged(table, &key);
            let before = self.write(table, key.clone(), after.clone());
            self.last.push(Changed { table, key, before, after, was_damaged });
        }
    }

    fn write(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let rows = self.tables.entry(table).or_default();
        if !self.damaged.is_empty() {
            self.damaged.remove(&(table, key.clone()));
        }
        let key_bytes = key.len();
        let before = match value {
            Some(value) => {
                self.bytes += key_bytes + value.len();
                rows.insert(key, value)
            }
            None => rows.remove(&key),
        };
        self.bytes -= before.as_ref().map_or(0, |value| key_bytes + value.len());
        before
    }

    fn check_read(&mut self) -> Result<(), StoreError> {
        if self.faults.reads_fail {
            self.tally.reads_failed += 1;
            return Err(StoreError::Io("simulated read error".to_owned()));
        }
        Ok(())
    }
}

impl Store for SimStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check_read()?;
        let mut value = self.tables.get(&table).and_then(|rows| rows.get(key)).cloned();
        if let Some(value) = &mut value
            && self.is_damaged(table, key)
        {
            self.tally.damaged_reads += 1;
            let middle = value.len() / 2;
            if let Some(byte) = value.get_mut(middle) {
                *byte ^= 0x10;
            }
        }
        Ok(value)
    }

    fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.check_read()?;
        if self.faults.scans_fail {
            self.tally.reads_failed += 1;
            return Err(StoreError::Io("simulated read error".to_owned()));
        }
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.tables.get(&table).into_iter();
        let rows = rows.flat_map(|rows| rows.range(from.to_vec()..to.to_vec()));
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn writable(&mut self) -> Result<(), StoreError> {
        if self.has_room() {
            return Ok(());
        }
        self.tally.full += 1;
        Err(StoreError::Full)
    }

    fn stage_put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.staged.push((table, key.to_vec(), Some(value.to_vec())));
    }

    fn stage_delete(&mut self, table: Table, key: &[u8]) {
        self.staged.push((table, key.to_vec(), None));
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.settle();
        let batch = std::mem::take(&mut self.staged);
        let batch = self.tampered(batch);
        if self.faults.commits_fail && !self.hides_failures() {
            self.tally.commits_failed += 1;
            if self.faults.failed_shows {
                self.tally.failed_shown += 1;
                self.apply(batch);
                self.shown.push(std::mem::take(&mut self.last));
            } else {
                self.uncertain = Some(batch);
            }
            return Err(StoreError::Io("simulated write error".to_owned()));
        }
        if self.faults.tears && !batch.is_empty() {
            self.torn = Some(batch);
            return Ok(());
        }
        let added: usize =
            batch.iter().map(|(_, k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum();
        if self.capacity_bytes.is_some_and(|capacity| self.bytes + added > capacity) {
            self.tally.full += 1;
            return Err(StoreError::Full);
        }
        self.tally.commits += 1;
        self.written += 1;
        self.apply(batch);
        if self.tamper == Some(Tamper::BatchNotAtomic) {
            self.newest = self.last.clone();
        }
        Ok(())
    }

    fn committed(&self) -> u64 {
        self.written
    }

    fn durable(&self) -> u64 {
        match self.mode {
            SyncMode::Interval { .. } if self.tamper != Some(Tamper::ClaimsUnsynced) => self.synced,
            _ => self.written,
        }
    }
}

fn empty_tables() -> Tables {
    Table::ALL.iter().map(|&table| (table, BTreeMap::new())).collect()
}

#[cfg(test)]
mod tests;
