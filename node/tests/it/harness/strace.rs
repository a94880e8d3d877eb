//! Faults of the system calls of a running process, by `strace`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::holmd::Holmd;
use super::{skip, until};

/// A process under a tracer that tampers with its system calls, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Strace {
    child: Child,
    trace: PathBuf,
}

impl Strace {
    /// Attaches to a node. `None`, with the reason on standard error, where tracing is not possible:
    /// strace is missing, or this user may not trace.
    pub(crate) async fn attach(node: &Holmd, args: &[&str]) -> Option<Strace> {
        let (said, trace) = (node.file("strace.says"), node.file("strace.trace"));
        let says = File::create(&said).unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-o"]).arg(&trace).args(args).arg("-p");
        command.arg(node.pid().as_raw_nonzero().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(says);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("strace cannot be run: {error}"));
                return None;
            }
        };
        let mut strace = Strace { child, trace };
        let mut ended = false;
        until("strace is attached", async || {
            ended = strace.child.try_wait().unwrap().is_some();
            ended || fs::read_to_string(&said).unwrap().contains("attached")
        })
        .await;
        if ended {
            let why = fs::read_to_string(&said).unwrap();
            skip(&format!("strace cannot trace here: {}", why.trim()));
            return None;
        }
        Some(strace)
    }

    /// How many calls were tampered with so far.
    pub(crate) fn hits(&self) -> usize {
        let trace = fs::read_to_string(&self.trace).unwrap_or_default();
        trace.matches("(INJECTED)").count() + trace.matches("(DELAYED)").count()
    }

    /// Lets go of the process. How many calls were tampered with.
    pub(crate) fn detach(mut self) -> usize {
        self.let_go();
        self.hits()
    }

    fn let_go(&mut self) {
        // A tracer that is asked to end lets the process go on; if it has ended, so much the better.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.let_go();
    }
}
