//! Why a benchmark did not end with a result, and the exit code that says so.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use holm_client::{AdminError, BucketError, ConnectError};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The command line asks for what cannot be. Exit code 2, as clap's.
    #[error("{0}")]
    Usage(String),
    /// A file, directory, socket or process.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The cluster cannot be reached.
    #[error("{0}")]
    Connect(#[from] Box<ConnectError>),
    /// The bucket cannot be had.
    #[error("{0}")]
    Bucket(#[from] BucketError),
    /// The cluster cannot be set up.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// Loading a record failed again and again.
    #[error("cannot load record {index}: {why}; look at the nodes' logs")]
    Load {
        /// The record.
        index: u64,
        /// What the last attempt was answered.
        why: String,
    },
    /// A node that this process started has ended.
    #[error("node {id} ended ({status}); its log ends with:\n{log}")]
    NodeEnded {
        /// The node.
        id: u64,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The nodes that this process started did not become ready.
    #[error("the cluster was not ready within {waited_s} s; last: {last}")]
    NotReady {
        /// How long it was waited for, seconds.
        waited_s: u64,
        /// What was still missing.
        last: String,
    },
    /// `holmd` is not beside this program.
    #[error("no holmd at {}: build it with `cargo build --release --workspace --bins`, or name it with --holmd", .0.display())]
    NoHolmd(PathBuf),
    /// RocksDB.
    #[error("rocksdb: {0}")]
    Rocks(#[from] rocksdb::Error),
    /// The QUIC echo.
    #[error("quic echo: {0}")]
    Quic(String),
    /// Certificates for the run cannot be made.
    #[error("cannot make certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// Somebody ended the run. Exit code 130, as a shell's.
    #[error("interrupted")]
    Interrupted,
    /// `--enforce` and a bar was missed.
    #[error("missed: {}", .0.join(", "))]
    BarsMissed(Vec<String>),
}

impl Failure {
    /// An I/O failure; `doing` says of what.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        let doing = doing.into();
        move |source| Failure::Io { doing, source }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Usage(_) => 2,
            Failure::Interrupted => 130,
            _ => 1,
        })
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        Failure::Connect(Box::new(error))
    }
}
