//! The demo's data directory: who owns it, what runs in it, what is left of an earlier demo.
//!
//! `demo.lock` is locked for as long as a supervisor lives; the kernel lets go of it however the
//! supervisor dies. `demo.json` says what the demo consists of, which processes run, and where the
//! supervisor listens. A state whose supervisor is dead is *stale*: its nodes are killed, and the
//! directory is wiped, or, if it was named by `--data-dir`, taken up again.

use std::fs::{self, DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use holm_protocol::ids::NodeId;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::processes::ProcessId;
use crate::failure::Failure;
use crate::files;

const LOCK: &str = "demo.lock";
const STATE: &str = "demo.json";
/// The form of the state file. Another one is of another version of `holm`.
const STATE_FORMAT: u32 = 1;

/// What the state file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// The supervisor.
    pub(super) supervisor: ProcessId,
    /// Where it takes orders, once it does.
    pub(super) control: Option<Control>,
    /// What the demo consists of.
    pub(super) plan: Plan,
    /// The nodes that run.
    pub(super) nodes: Vec<(NodeId, ProcessId)>,
}

/// Where a supervisor takes orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Control {
    /// Its loopback port.
    pub(super) addr: SocketAddr,
    /// What an order must carry: only who can read the state file may give one.
    pub(super) token: String,
}

impl State {
    /// The state of a demo that starts.
    pub(super) fn new(supervisor: ProcessId, plan: Plan) -> State {
        State { format: STATE_FORMAT, supervisor, control: None, plan, nodes: Vec::new() }
    }
}

/// A data directory that this process owns.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    is_named: bool,
    /// Holds the lock by being open.
    _lock: File,
}

impl Home {
    /// Takes a data directory: the one named, or the user's own. Returns the plan of the demo whose
    /// data is in it, if there is any to be taken up again. Nodes that an earlier supervisor left
    /// running are killed; `note` is told.
    ///
    /// # Errors
    /// A demo lives there, the directory holds something else, or cannot be made.
    pub(super) fn take(
        named: Option<&Path>,
        note: impl Fn(&str),
    ) -> Result<(Home, Option<Plan>), Failure> {
        let dir = named.map_or_else(default_dir, Path::to_owned);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .and_then(|()| dir.canonicalize())
            .map_err(|error| Failure::file("create", &dir, &error))
            .and_then(|dir| Home::take_existing(dir, named.is_some(), note))
    }

    fn take_existing(
        dir: PathBuf,
        is_named: bool,
        note: impl Fn(&str),
    ) -> Result<(Home, Option<Plan>), Failure> {
        if dir.to_str().is_none() {
            return Err(Failure::usage(
                format!("{} is not UTF-8", dir.display()),
                "choose another `--data-dir`",
            ));
        }
        let path = dir.join(LOCK);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(|error| Failure::file("open", &path, &error))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(already_running(&dir));
        }
        let home = Home { dir, is_named, _lock: lock };
        let state = read_state(&home.dir);
        if let Some(state) = &state {
            if state.supervisor.is_alive() {
                return Err(already_running(&home.dir));
            }
            let left = state.nodes.iter().filter(|(_, process)| process.kill()).count();
            if left > 0 {
                note(&format!("an earlier demo died and left {left} nodes running: killed them"));
            }
        }
        match state {
            Some(state) if is_named => Ok((home, Some(state.plan))),
            None if is_named && !home.entries()?.is_empty() => Err(Failure::usage(
                format!("{} holds something that is no demo", home.dir.display()),
                "name an empty or new directory with `--data-dir`",
            )),
            _ => {
                home.wipe()?;
                Ok((home, None))
            }
        }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces the state file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&self, state: &State) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(state).map_err(|error| {
            Failure::failed(
                format!("cannot write the state as JSON: {error}"),
                "this is a bug in holm",
            )
        })?;
        files::replace_private(&self.dir.join(STATE), &text)
    }

    /// Whether the data stays when the demo ends.
    pub(super) fn is_named(&self) -> bool {
        self.is_named
    }

    /// Removes the directory and everything in it.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub(super) fn remove(self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.dir).map_err(|error| Failure::file("remove", &self.dir, &error))
    }

    /// Removes everything but the lock.
    fn wipe(&self) -> Result<(), Failure> {
        for path in self.entries()? {
            let is_dir = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| Failure::file("remove", &path, &error))?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, Failure> {
        let read = |error| Failure::file("read", &self.dir, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let entry = entry.map_err(read)?;
            if entry.file_name() != LOCK {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

/// The directory and state of the demo that runs there.
///
/// # Errors
/// None does.
pub(super) fn running(named: Option<&Path>) -> Result<(PathBuf, State), Failure> {
    let dir = named.map_or_else(default_dir, Path::to_owned);
    let dir = dir.canonicalize().unwrap_or(dir);
    match read_state(&dir).filter(|state| state.supervisor.is_alive()) {
        Some(state) => Ok((dir, state)),
        None => Err(Failure::failed(
            format!("no demo is running in {}", dir.display()),
            "start one with `holm demo`; if it was started with `--data-dir`, name it here too",
        )),
    }
}

/// A directory of the user's own, so that the sub-commands find the demo without a flag.
fn default_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    match cache {
        Some(cache) => cache.join("holm").join("demo"),
        None => {
            let user = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("holm-demo-{user}"))
        }
    }
}

/// A state that cannot be read, or is of another form, is none.
fn read_state(dir: &Path) -> Option<State> {
    let text = fs::read_to_string(dir.join(STATE)).ok()?;
    let state: State = serde_json::from_str(&text).ok()?;
    (state.format == STATE_FORMAT).then_some(state)
}

fn already_running(dir: &Path) -> Failure {
    let who = read_state(dir)
        .map_or_else(String::new, |state| format!(" (process {})", state.supervisor.pid()));
    Failure::failed(
        format!("a demo is already running in {}{who}", dir.display()),
        "stop it with Ctrl-C where it runs, or start another one with `--data-dir D`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::tests::plan;

    fn take(dir: &Path) -> Result<(Home, Option<Plan>), Failure> {
        Home::take(Some(dir), |_| {})
    }

    /// A process that is dead, and was not this one.
    fn dead() -> ProcessId {
        let mut json = serde_json::to_value(ProcessId::own().unwrap()).unwrap();
        json["started"] = 1.into();
        serde_json::from_value(json).unwrap()
    }

    /// Goal: one demo per directory. Method: take it twice, then again after letting go.
    #[test]
    fn second_demo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (home, none) = take(dir.path()).unwrap();
        assert_eq!(none, None);
        assert!(take(dir.path()).unwrap_err().what.contains("already running"));
        drop(home);
        take(dir.path()).unwrap();
    }

    /// Goal: a living demo is found and a stale one is not; its plan is taken up again. Method: a
    /// state of this process, then one of a dead process with the same id.
    #[test]
    fn stale_state_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let (home, _) = take(dir.path()).unwrap();
        let mut state = State::new(ProcessId::own().unwrap(), plan(&["us", "eu"], 1));
        home.save(&state).unwrap();
        assert_eq!(running(Some(dir.path())).unwrap().1, state);
        state.supervisor = dead();
        state.nodes = vec![(NodeId(1), dead())];
        home.save(&state).unwrap();
        assert!(running(Some(dir.path())).is_err());
        drop(home);
        let (_, kept) = take(dir.path()).unwrap();
        assert_eq!(kept, Some(state.plan));
    }

    /// Goal: nobody's files are touched. Method: a directory with something else in it.
    #[test]
    fn foreign_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let thesis = dir.path().join("thesis.txt");
        fs::write(&thesis, "years of work").unwrap();
        assert!(take(dir.path()).is_err());
        assert!(thesis.exists());
    }

    /// Goal: removing removes all of it. Method: a directory with files and directories.
    #[test]
    fn removing_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("demo");
        let (home, _) = take(&inner).unwrap();
        files::create_dir(&home.dir().join("node-1").join("data")).unwrap();
        home.remove().unwrap();
        assert!(!inner.exists());
    }
}
