//! What went wrong, for people and for scripts.
//!
//! A failure says what happened and what to do about it. Its [`Status`] is the exit code, and keeps
//! apart what a script must treat differently: a write that *did not happen* (repeat at will) and
//! one that *may have happened* (read before repeating).

mod sdk;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use holm_protocol::error::{NotReady, Outcome, RequestError, StoreFault};

/// The exit codes, in words, for `--help` and the manual.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or refused (certificate, role, wrong cluster); nothing happened
  2  wrong usage
  3  not found: the key is absent, or there is no such bucket
  4  unknown: the write was not acknowledged and may or may not appear
  5  unavailable: no node, or not enough of them, answered in time; nothing happened";

/// The exit code of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing happened.
    Failed = 1,
    /// The command line is wrong. Clap exits with the same number.
    Usage = 2,
    /// The key or bucket is not there.
    NotFound = 3,
    /// A write may or may not appear.
    Unknown = 4,
    /// Too few nodes answered. Nothing happened.
    Unavailable = 5,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) status: Status,
    /// What happened, one sentence.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) hint: String,
}

impl Failure {
    /// Any failure.
    pub(crate) fn new(status: Status, what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { status, what: what.into(), hint: hint.into() }
    }

    /// Nothing happened.
    pub(crate) fn failed(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::new(Status::Failed, what, hint)
    }

    /// The command line, or a file it names, asks for what cannot be.
    pub(crate) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::new(Status::Usage, what, hint)
    }

    /// Nodes did not answer.
    pub(crate) fn unavailable(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::new(Status::Unavailable, what, hint)
    }

    /// A file could not be read, written, made or removed; `doing` says which of them.
    pub(crate) fn file(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
        Failure::failed(
            format!("cannot {doing} {}: {error}", path.display()),
            "check the path, its permissions and the space left on the disk",
        )
    }
}

fn refusal_status(error: &RequestError) -> Status {
    match error {
        _ if error.outcome() == Outcome::MayHaveHappened => Status::Unknown,
        RequestError::UnknownBucket { .. } => Status::NotFound,
        RequestError::ReadUnavailable { .. }
        | RequestError::Overloaded { .. }
        | RequestError::NotReady { .. } => Status::Unavailable,
        _ => Status::Failed,
    }
}

/// What to do about a refusal. The error's own sentence says what and where.
fn refusal_hint(error: &RequestError) -> &'static str {
    match error {
        RequestError::Unauthorized { .. } => {
            "use a certificate with that role: `holm cert client NAME --roles read,write,admin`"
        }
        RequestError::WrongCluster { .. } => {
            "check which cluster file is used (`--cluster`, HOLM_CLUSTER) and its `cluster` line"
        }
        RequestError::UnknownBucket { .. } => {
            "see `holm bucket list`, or `holm bucket create NAME`"
        }
        RequestError::Context { .. } => "read the key again with `holm get` and use its context",
        RequestError::TooManySiblings { .. } => {
            "read the key, then put once with `--context` to replace its siblings"
        }
        RequestError::LevelUnreachable { .. } => {
            "choose a lower `--consistency`, or see `holm layout show` for the replication factors"
        }
        RequestError::HintsFull { .. } => {
            "bring the replicas back (`holm status`) or raise limits.hint_bytes_max, then repeat it"
        }
        RequestError::WriteUnknown { .. } | RequestError::CoordinatorLost => {
            "read the key to see whether the write arrived, then repeat it if needed"
        }
        RequestError::ReadUnavailable { .. } => {
            "see `holm status` for nodes that are down, or read with a lower `--consistency`"
        }
        RequestError::Overloaded { .. } => "wait a moment and repeat",
        RequestError::NotReady { reason: NotReady::NoLayout } => {
            "give the cluster a layout with `holm layout apply FILE`"
        }
        RequestError::NotReady { reason: NotReady::NotInLayout } => {
            "the node is not part of the layout; name another one in the cluster file"
        }
        RequestError::NotReady { reason: NotReady::InDoubt } => {
            "the node waits for another replica of the key; see `holm status` for nodes that are down"
        }
        RequestError::NotReady { reason: NotReady::Behind } => {
            "the node takes what it lacks from other replicas; repeat the request a little later"
        }
        RequestError::Store { fault: StoreFault::HintsFull } => {
            "bring the region's replicas back (`holm status`), or raise limits.hint_bytes_max"
        }
        RequestError::Store { fault: StoreFault::Full } => {
            "free disk space on the node; reads go on, writes resume by themselves"
        }
        RequestError::BucketRefused { .. } => "see `holm bucket list` and `holm bucket show NAME`",
        RequestError::LayoutRefused { .. } => {
            "see the layout in force with `holm layout show`, and try yours with `holm layout plan`"
        }
        RequestError::NotDevelopment => "set `enabled = true` under `[dev]` in that node's config",
        RequestError::ClockSkew { .. } => "check time synchronisation (NTP) on that node",
        _ => "see `holm status` and the node's log",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n hint: {}", self.what, self.hint)
    }
}

#[cfg(test)]
mod tests {
    use holm_protocol::error::Role;
    use holm_protocol::ids::BucketId;

    use super::*;

    /// Goal: scripts can tell "did not happen" from "may have happened". Method: one refusal of
    /// each class, its exit code.
    #[test]
    fn refusals_have_the_documented_exit_codes() {
        let cases = [
            (RequestError::Unauthorized { needed: Role::Admin }, Status::Failed),
            (RequestError::UnknownBucket { bucket: BucketId(3) }, Status::NotFound),
            (RequestError::WriteUnknown { needed: 2, durable: 1 }, Status::Unknown),
            (RequestError::CoordinatorLost, Status::Unknown),
            (RequestError::ReadUnavailable { needed: 2, answered: 1 }, Status::Unavailable),
        ];
        for (error, status) in cases {
            assert_eq!(refusal_status(&error), status, "{error}");
            assert!(!refusal_hint(&error).is_empty());
        }
        for (line, code) in EXIT_CODES.lines().skip(1).zip(0..) {
            assert!(line.trim_start().starts_with(&format!("{code} ")), "{line}");
        }
    }
}
