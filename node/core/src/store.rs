//! What the core needs of a disk.
//!
//! The core stages writes while it handles a batch of inputs, then commits them all at once: they
//! become durable together or not at all. Reads see what was committed, never what is only staged;
//! the shard keeps what it staged in memory until the commit.
//!
//! Implemented by RocksDB in the node and by a map in the simulator, which can lose what was not
//! synced, fill up, fail and corrupt.

use std::fmt;

/// A family of keys with one purpose. Each is a column family of RocksDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `partition | bucket | key` to an encoded object.
    Objects,
    /// `stream | sequence` to the dots that one group commit of one shard added, and
    /// `partition | actor | counter` to those of one actor that were sorted out of such records.
    Log,
    /// Hints for other nodes.
    Hints,
    /// Clock checkpoints, cluster metadata, identity.
    Meta,
    /// Past values, where a bucket keeps them.
    History,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 5] =
        [Table::Objects, Table::Log, Table::Hints, Table::Meta, Table::History];

    /// The name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Objects => "objects",
            Table::Log => "log",
            Table::Hints => "hints",
            Table::Meta => "meta",
            Table::History => "history",
        }
    }
}

/// Why the store could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space left. Nothing of the commit is kept.
    #[error("store is full")]
    Full,
    /// An I/O error. What of the commit is on disk is unknown: the process must not write again
    /// before it has reopened the store.
    #[error("store I/O error: {0}")]
    Io(String),
    /// Bytes that do not match their checksum.
    #[error("store is corrupt: {0}")]
    Corrupt(String),
}

/// One row of a scan: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A disk.
pub trait Store: fmt::Debug {
    /// The committed value of a key.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Corrupt`]; never a wrong value.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` committed rows with `from <= key < to`, in key order.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// Whether a commit would be taken now. Asked before anything is changed, so that a full disk
    /// is refused while nothing has happened yet. Must cost next to nothing.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    fn writable(&mut self) -> Result<(), StoreError>;

    /// Stages a write.
    fn stage_put(&mut self, table: Table, key: &[u8], value: &[u8]);

    /// Stages a removal.
    fn stage_delete(&mut self, table: Table, key: &[u8]);

    /// Makes everything staged durable, as far as the node's `sync` setting promises, all or
    /// nothing. Nothing is staged afterwards, also after an error. After an [`StoreError::Io`] what
    /// was staged may be read or not, and may be there or not after a restart: whoever reads it must
    /// not vouch for it.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`].
    fn commit(&mut self) -> Result<(), StoreError>;

    /// A number that covers everything committed so far, by this handle or before it was opened. Only
    /// grows.
    fn committed(&self) -> u64;

    /// What is covered by this number survives a power cut. It reaches every
    /// [`Store::committed`] sooner or later, as the node's `sync` setting says.
    fn durable(&self) -> u64;
}
