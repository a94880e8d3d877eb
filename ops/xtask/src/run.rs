//! Running other programs: always from the root of the clone, with the cache as target directory,
//! and with a failure that says what ran and what to do about it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;

/// How often a child with a time limit is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Why a command of xtask failed, for the person who ran it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    todo: String,
}

impl Failure {
    /// `what` happened, and what `todo` about it.
    pub(crate) fn new(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { what: what.into(), todo: todo.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}\n what to do: {}", self.what, self.todo)
    }
}

/// A child to be run, and its command line as a person would type it.
#[derive(Debug)]
pub(crate) struct Child {
    command: Command,
    line: String,
}

impl Child {
    /// A program with its arguments, in the directory this process is in.
    pub(crate) fn new<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Self {
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::null());
        let mut line = PathBuf::from(program.as_ref())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        for arg in args {
            line.push(' ');
            line.push_str(&arg.as_ref().to_string_lossy());
        }
        Self { command, line }
    }

    /// Adds a variable to the child's environment.
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable out of the child's environment.
    pub(crate) fn without_env(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Runs the child in `directory`.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// The command line, for headings.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Runs to the end with the terminal's output.
    ///
    /// # Errors
    /// The child could not be started or did not succeed; `todo` goes into the failure.
    pub(crate) fn run(mut self, todo: &str) -> Result<(), Failure> {
        let status = self.command.status().map_err(|error| self.not_started(&error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("`{}`: {status}", self.line), todo))
    }

    /// Runs to the end with the terminal's output, and returns the exit code: -1 for a signal.
    ///
    /// # Errors
    /// The child could not be started.
    pub(crate) fn code(mut self) -> Result<i32, Failure> {
        let status = self.command.status().map_err(|error| self.not_started(&error))?;
        Ok(status.code().unwrap_or(-1))
    }

    /// Runs to the end, handing each line of standard output to `each` and printing it.
    ///
    /// # Errors
    /// As [`Child::run`].
    pub(crate) fn watch(mut self, todo: &str, mut each: impl FnMut(&str)) -> Result<(), Failure> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                each(&line);
            }
        }
        let status = child.wait().map_err(|error| self.not_started(&error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("`{}`: {status}", self.line), todo))
    }

    /// Runs to the end and returns standard output.
    ///
    /// # Errors
    /// The child could not be started or did not succeed; the failure has its standard error.
    pub(crate) fn output(mut self) -> Result<String, Failure> {
        let output = self.command.output().map_err(|error| self.not_started(&error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(format!("`{}`: {}\n{said}", self.line, output.status), "see above"))
    }

    /// Runs to the end, all output going into a file. Returns whether it came to its end: after
    /// `limit` it is killed.
    ///
    /// # Errors
    /// The child could not be started, or the file not written.
    pub(crate) fn run_into(mut self, file: &Path, limit: Duration) -> Result<bool, Failure> {
        let log = File::create(file).and_then(|log| Ok((log.try_clone()?, log)));
        let (output, errors) = log.map_err(|error| {
            Failure::new(format!("cannot write {}: {error}", file.display()), "make room or access")
        })?;
        let spawned = self.command.stdout(output).stderr(errors).spawn();
        let mut child = spawned.map_err(|error| self.not_started(&error))?;
        let began = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(_)) => return Ok(true),
                Ok(None) if began.elapsed() < limit => std::thread::sleep(POLL),
                Ok(None) => {
                    // Gone by itself in between, if it cannot be killed.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(false);
                }
                Err(error) => return Err(self.not_started(&error)),
            }
        }
    }

    /// Whether the child can be started and succeeds. Its output is thrown away.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("cannot run `{}`: {error}", self.line), "is it installed?")
    }
}

/// A cargo command on this workspace: from its root, building into the cache.
pub(crate) fn cargo<S: AsRef<OsStr>>(place: &Place, args: &[S]) -> Child {
    Child::new("cargo", args).directory(&place.root).env("CARGO_TARGET_DIR", &place.target)
}

/// Becomes `program`: signals and the exit code are then its own. Returns only on failure.
///
/// # Errors
/// The program is not there or cannot be started.
pub(crate) fn replace_process(
    program: PathBuf,
    first: &[&str],
    rest: &[String],
) -> Result<(), Failure> {
    let error = Command::new(&program).args(first).args(rest).exec();
    Err(Failure::new(
        format!("cannot run {}: {error}", program.display()),
        "build it with `cargo build --release --workspace --bins`",
    ))
}
