//! One `holmd` process of a local cluster.
//!
//! It is always ended by its own process id: gracefully by [`Node::stop`], at once when dropped, so
//! also on errors and interrupts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;

/// How long a node may take to stop by itself.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How often to look whether it has.
const STOP_POLL: Duration = Duration::from_millis(20);
/// How much of a log goes into an error, lines.
const LOG_LINES: usize = 12;

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    id: u64,
    child: Child,
    log: PathBuf,
}

impl Node {
    /// Starts a node; its log goes to a file.
    ///
    /// # Errors
    /// The program or the log cannot be opened.
    pub(crate) fn start(
        id: u64,
        holmd: &Path,
        config: &Path,
        log: PathBuf,
    ) -> Result<Node, Failure> {
        let cannot = |what: &str, path: &Path| Failure::io(format!("{what} {}", path.display()));
        let file = File::create(&log).map_err(cannot("create", &log))?;
        let again = file.try_clone().map_err(cannot("create", &log))?;
        let child = Command::new(holmd)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(again)
            .stderr(file)
            .spawn()
            .map_err(cannot("start", holmd))?;
        Ok(Node { id, child, log })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// [`Failure::NodeEnded`], with the end of its log.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        let waited = self.child.try_wait().map_err(Failure::io("look after a node"))?;
        waited.map_or(Ok(()), |status| Err(self.ended(status)))
    }

    fn ended(&self, status: ExitStatus) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        Failure::NodeEnded { id: self.id, status: status.to_string(), log: last_lines(&log) }
    }

    /// Asks it to stop, and waits; kills it if that takes too long.
    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        if pid.is_none_or(|pid| kill_process(pid, Signal::TERM).is_err()) {
            return;
        }
        let end = Instant::now() + STOP_MAX;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            tokio::time::sleep(STOP_POLL).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A script that stands in for `holmd`.
    fn script(dir: &Path, body: &str) -> Node {
        let script = dir.join("holmd");
        std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
        Node::start(1, &script, Path::new("x.toml"), dir.join("log")).unwrap()
    }

    /// Goal: a node that ended is noticed, with what it said, and a running one is ended with its
    /// handle. Method: one that fails, one that runs.
    #[test]
    fn processes_are_watched_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut failing = script(dir.path(), "echo $1 $2; exit 3");
        failing.child.wait().unwrap();
        let Err(Failure::NodeEnded { id: 1, log, .. }) = failing.check() else { panic!("runs") };
        assert_eq!(log, "--config x.toml");
        let mut running = script(dir.path(), "exec sleep 60");
        let process = format!("/proc/{}", running.pid());
        running.check().unwrap();
        drop(running);
        assert!(!Path::new(&process).exists());
        assert_eq!(last_lines(&"x\n".repeat(40)).lines().count(), LOG_LINES);
    }

    /// Goal: a node is asked to stop before it is killed. Method: a script that says so.
    #[test]
    fn nodes_are_asked_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let node = script(dir.path(), "trap 'echo asked; exit' TERM; echo up; while :; do :; done");
        while std::fs::read_to_string(&log).unwrap() != "up\n" {
            std::thread::sleep(STOP_POLL);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(node.stop());
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "up\nasked\n");
    }
}
