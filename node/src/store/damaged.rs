//! Which files were found damaged while the database was read: told once each, and to operators.
//!
//! Opening checks logs, manifest and the sizes of tables, but not every block of every table: that
//! would take as long as reading the whole disk. So a damaged block is met by whoever reads it, who is
//! given an error. Here is what the operator is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::error;

use super::error::file_named;

/// Files remembered, and lines logged. A disk with more damaged ones needs no longer list.
const FILES_MAX: usize = 16;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Damaged(Mutex<BTreeSet<PathBuf>>);

impl Damaged {
    /// Takes in RocksDB's words on a damage that was met in the database `db`.
    pub(super) fn note(&self, db: &Path, detail: &str) {
        let file = file_named(db, detail).unwrap_or_else(|| db.to_path_buf());
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() < FILES_MAX && files.insert(file.clone()) {
            error!(file = %file.display(), detail, "damaged: reads of what it holds fail here");
        }
    }

    /// The files so far.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
