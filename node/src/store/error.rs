//! Why a store does not open. Every variant names the file or directory and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::AmnesiaReason;

/// Why a store did not open. Nothing that was stored is lost by the refusal itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory open.
    #[error(
        "data directory {} is already in use by another process: stop that one, or give this node \
         a directory of its own", dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory was written by a later version.
    #[error(
        "{} says format {found}, this program knows up to {known}: run the version that wrote it, \
         or a later one", file.display()
    )]
    FormatNewer {
        /// The format marker.
        file: PathBuf,
        /// What it says.
        found: u32,
        /// The latest format this program reads.
        known: u32,
    },
    /// The directory holds something, but not this program's format marker.
    #[error(
        "{} is missing or not a format marker of holm: check that data_dir is the right \
         directory; if only this file was damaged, restore it with the one line `holm-store 2`",
        file.display()
    )]
    FormatUnknown {
        /// The format marker.
        file: PathBuf,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {found:?}, this node is configured for {expected:?}: correct \
         cluster.id or data_dir", file.display()
    )]
    ForeignCluster {
        /// The identity file.
        file: PathBuf,
        /// The cluster the store belongs to.
        found: String,
        /// The cluster this node is configured for.
        expected: String,
    },
    /// The directory belongs to another node.
    #[error(
        "{} belongs to node {found}, this node is configured as {expected}: correct node.id or \
         data_dir", file.display()
    )]
    ForeignNode {
        /// The identity file.
        file: PathBuf,
        /// The node the store belongs to.
        found: u64,
        /// The node this one is configured to be.
        expected: u64,
    },
    /// It cannot be told whose directory this is.
    #[error(
        "{} is damaged and the database holds no copy of it: restore it from a backup, or move \
         the data directory away and let the node start empty and resynchronise", file.display()
    )]
    IdentityDamaged {
        /// The identity file.
        file: PathBuf,
    },
    /// The store may have lost acknowledged writes and the options forbid opening such a one.
    #[error(
        "data directory {} may have lost acknowledged writes ({reason}) and allow_amnesia is \
         off: restore it from a backup, or allow amnesia and let the node resynchronise",
        dir.display()
    )]
    Amnesia {
        /// The data directory.
        dir: PathBuf,
        /// What was found.
        reason: AmnesiaReason,
    },
    /// The database is damaged beyond opening.
    #[error(
        "{} is damaged: {detail}. Move the data directory away and let the node start empty and \
         resynchronise, or restore the file from a backup", file.display()
    )]
    Corrupt {
        /// The damaged file, or the database's directory if RocksDB did not say.
        file: PathBuf,
        /// RocksDB's words.
        detail: String,
    },
    /// There is no room to open the store.
    #[error("no space left to open the store in {}: free some, then start again", dir.display())]
    NoSpace {
        /// The data directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {detail}: check that it exists, its permissions and the disk", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// The system's words.
        detail: String,
    },
}

impl OpenError {
    pub(super) fn io(file: &Path, error: &io::Error) -> OpenError {
        OpenError::Io { file: file.to_path_buf(), detail: error.to_string() }
    }

    /// What RocksDB's refusal means. `db` is its directory, `dir` ours.
    pub(super) fn rocks(dir: &Path, db: &Path, error: &rocksdb::Error) -> OpenError {
        let detail = error.as_ref().to_owned();
        if no_space(&detail) {
            return OpenError::NoSpace { dir: dir.to_path_buf() };
        }
        if detail.contains("/LOCK") && error.kind() == rocksdb::ErrorKind::IOError {
            return OpenError::InUse { dir: dir.to_path_buf() };
        }
        let named = file_named(db, &detail);
        // A table or manifest that is not there is damage, not a passing trouble of the disk.
        let missing = named.is_some() && detail.contains("No such file");
        let file = named.unwrap_or_else(|| db.to_path_buf());
        if error.kind() == rocksdb::ErrorKind::IOError && !missing {
            return OpenError::Io { file, detail };
        }
        OpenError::Corrupt { file, detail }
    }
}

/// Whether RocksDB says that the disk is full.
pub(super) fn no_space(message: &str) -> bool {
    message.contains("No space left on device") || message.contains("Disk quota exceeded")
}

/// The first file of the database that RocksDB names in a message.
pub(super) fn file_named(db: &Path, message: &str) -> Option<PathBuf> {
    let dir = db.to_str()?;
    let at = message.find(&format!("{dir}/"))?;
    let name: String = message[at + dir.len() + 1..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '-')
        .collect();
    let name = name.trim_end_matches('.');
    (!name.is_empty()).then(|| db.join(name))
}
