//! The demo's `holmd` processes.
//!
//! Each is a child in a process group of its own, so that an interrupt typed at the terminal reaches
//! the supervisor only, which stops them in order. A process is named by id *and* start time: ids
//! are reused, and a stranger must never be signalled.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use holm_protocol::ids::NodeId;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::setup;
use crate::failure::Failure;

/// How long a node may take to stop when asked to; then it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a dead node's log that are shown.
const LOG_LINES_SHOWN: usize = 12;
/// Bytes from the end of a log that are looked at for those lines.
const LOG_TAIL_BYTES: usize = 16 << 10;

/// A process, so named that no later one can be mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    /// The kernel's id, reused after its death.
    pid: i32,
    /// When it started, clock ticks since boot.
    started: u64,
}

impl ProcessId {
    /// This process.
    pub(super) fn own() -> Option<ProcessId> {
        ProcessId::of(std::process::id())
    }

    /// The process that has this id now, unless it is already dead.
    fn of(pid: u32) -> Option<ProcessId> {
        let pid = i32::try_from(pid).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(ProcessId { pid, started: start_time(&stat)? })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(self) -> bool {
        u32::try_from(self.pid).ok().and_then(ProcessId::of) == Some(self)
    }

    /// The kernel's id, for people.
    pub(super) fn pid(self) -> i32 {
        self.pid
    }

    /// Kills it, if it still runs. Says whether it did.
    pub(super) fn kill(self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) else { return false };
        rustix::process::kill_process(pid, Signal::KILL).is_ok()
    }
}

/// The start time in `/proc/PID/stat`, unless the process is a zombie. The name, second field, may
/// hold blanks and brackets, so fields are counted from its last bracket.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    // Field 22; the state just taken was field 3.
    fields.nth(18)?.parse().ok()
}

/// The running nodes. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Processes {
    holmd: PathBuf,
    dir: PathBuf,
    running: BTreeMap<NodeId, Child>,
}

impl Processes {
    /// None yet; they will run `holmd` on the files below `dir`.
    pub(super) fn new(holmd: PathBuf, dir: &Path) -> Processes {
        Processes { holmd, dir: dir.to_owned(), running: BTreeMap::new() }
    }

    /// Starts a node. Its output is appended to its log.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub(super) fn start(&mut self, node: NodeId) -> Result<(), Failure> {
        self.reap();
        if self.running.contains_key(&node) {
            return Err(Failure::usage(
                format!("node {} is running", node.0),
                format!("kill it first: `holm demo kill {}`", node.0),
            ));
        }
        let log = setup::log_file(&self.dir, node);
        let opened = File::options().create(true).append(true).open(&log);
        let out = opened.map_err(|error| Failure::file("open", &log, &error))?;
        let err = out.try_clone().map_err(|error| Failure::file("open", &log, &error))?;
        let mut command = Command::new(&self.holmd);
        command.arg("--config").arg(setup::config_file(&self.dir, node));
        // The demo's own files decide; a setting left in this shell must not.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLM_") {
                command.env_remove(name);
            }
        }
        // Logs are read in editors and in failures, where colours are noise.
        command.env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(|error| Failure::file("run", &self.holmd, &error))?;
        self.running.insert(node, child);
        Ok(())
    }

    /// Kills a node at once and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub(super) async fn kill(&mut self, node: NodeId) -> Result<(), Failure> {
        self.reap();
        let Some(mut child) = self.running.remove(&node) else {
            return Err(Failure::usage(
                format!("node {} is not running", node.0),
                format!("start it first: `holm demo start {}`", node.0),
            ));
        };
        child.kill().await.map_err(|error| Failure::file("kill", &self.holmd, &error))
    }

    /// Stops all nodes: asks, waits, and kills those that do not.
    pub(super) async fn stop(&mut self) {
        for child in self.running.values() {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid {
                // A child that is not waited for keeps its id, so this reaches no stranger; one
                // that died meanwhile needs no signal.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
        }
        let deadline = tokio::time::Instant::now() + STOP_PATIENCE;
        for (_, mut child) in std::mem::take(&mut self.running) {
            if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    /// Which nodes run, by process.
    pub(super) fn ids(&self) -> Vec<(NodeId, ProcessId)> {
        let ids = self.running.iter().filter_map(|(node, child)| {
            child.id().and_then(ProcessId::of).map(|process| (*node, process))
        });
        ids.collect()
    }

    /// Forgets nodes that died by themselves, and says which and how.
    pub(super) fn reap(&mut self) -> Vec<(NodeId, String)> {
        let mut dead = Vec::new();
        self.running.retain(|node, child| match child.try_wait() {
            Ok(Some(status)) => {
                dead.push((*node, describe(status)));
                false
            }
            _ => true,
        });
        dead
    }

    /// What a node that died by itself said last, as a failure; `None` if none did.
    pub(super) fn obituary(&mut self) -> Option<Failure> {
        let (node, how) = self.reap().into_iter().next()?;
        let log = setup::log_file(&self.dir, node);
        let bytes = fs::read(&log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]);
        let lines: Vec<&str> = tail.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
        Some(Failure::failed(
            format!("node {} {how}; its last words:\n  {last}", node.0),
            format!("its whole log is {}", log.display()),
        ))
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "died".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a process is recognised, and a reused id is not taken for it. Method: this process,
    /// then the same id with another start time.
    #[test]
    fn processes_are_told_apart() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        let earlier = ProcessId { started: own.started - 1, ..own };
        assert!(!earlier.is_alive());
        assert!(!earlier.kill(), "a stranger must not be signalled");
        assert!(!ProcessId { pid: 0, started: 0 }.is_alive());
    }

    /// Goal: names with blanks and brackets do not shift the fields; zombies are dead. Method: such
    /// lines.
    #[test]
    fn start_time_is_field_22() {
        let line = |state| {
            format!("7 (a) b (c) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 0")
        };
        assert_eq!(start_time(&line("S")), Some(4711));
        assert_eq!(start_time(&line("Z")), None);
        assert_eq!(start_time("7 (a"), None);
    }
}
