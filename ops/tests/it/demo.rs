//! The demo, for real: nine processes, three regions, and the commands that a reader of the README
//! types.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::usage::holm;

/// Everyone has called a dead node down by then, on a busy machine.
const STATUS_WITHIN: Duration = Duration::from_secs(40);

/// A running demo, interrupted when dropped.
struct Demo {
    child: Child,
    description: Value,
}

impl Demo {
    fn start(dir: &Path, data: &str) -> Demo {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holm"))
            .args(["demo", "-o", "json", "--regions", "us-east,eu-west", "--rtt-ms"])
            .args(["us-east:eu-west=40", "--data-dir", data])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("holm demo starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output is piped");
        BufReader::new(out).read_line(&mut line).expect("it prints one line");
        let description = serde_json::from_str(&line).expect("the line is JSON");
        Demo { child, description }
    }

    /// Interrupts it and waits for its end.
    fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it still runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.stop();
        }
    }
}

/// Goal: the story that the README promises holds. Method: tell it, with nine nodes in three
/// regions, and look at each claim of the report.
#[test]
fn story_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let output = holm(dir.path(), &["demo", "--check", "-o", "json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["passed"], true);
    let claims = report["claims"].as_array().unwrap();
    assert!(claims.len() >= 12, "{report}");
    assert!(claims.iter().all(|claim| claim["held"] == true), "{report}");
    assert!(!dir.path().join("holm/demo").exists(), "the demo cleans up");
}

/// Asks for the status until it is as wanted, whatever its exit code.
fn until_status(home: &Path, cluster: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
    let args = ["-o", "json", "--cluster", cluster, "status", "--timeout-ms", "500"];
    let deadline = Instant::now() + STATUS_WITHIN;
    loop {
        let output = holm(home, &args);
        let status = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if status["members"].is_array() && wanted(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {what}: {status}");
    }
}

/// Goal: a reader of the README can follow the tour, and the demo obeys, refuses a second one, stops
/// on an interrupt and can be taken up again. Method: every command of it, by its exit code and
/// JSON.
#[test]
fn tour_can_be_followed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let mut demo = Demo::start(dir.path(), data);
    let cluster = demo.description["cluster_file"].as_str().unwrap().to_owned();
    let run = |args: &[&str], code: i32| -> Value {
        let mut all = vec!["-o", "json", "--cluster", &cluster];
        all.extend(args);
        let output = holm(dir.path(), &all);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    };
    run(&["demo", "--data-dir", data], 1);
    let named = run(&["demo", "cluster-file", "--data-dir", data], 0);
    assert_eq!(named["cluster_file"], cluster.as_str());
    let status = run(&["status"], 0);
    assert_eq!(status["members"].as_array().unwrap().len(), 6, "{status}");
    run(&["get", "carts", "alice"], 3);
    let first = run(&["put", "carts", "alice", "books", "--consistency", "all"], 0);
    run(&["put", "carts", "alice", "pens", "--consistency", "all"], 0);
    let got = run(&["get", "carts", "alice", "--region", "eu-west"], 0);
    assert_eq!(got["siblings"].as_array().unwrap().len(), 2);
    assert_eq!(got["receipt"]["replicas"][0]["region"], "eu-west");
    run(&["get", "carts", "alice", "--raw"], 1);
    let context = got["context"].as_str().unwrap();
    let all = ["--consistency", "all"];
    run(&[&["put", "carts", "alice", "both", "--context", context][..], &all].concat(), 0);
    run(&["put", "carts", "bob", "x", "--context", context], 1);
    let explained = run(&["explain", "carts", "alice"], 0);
    assert_eq!(explained["agree"], true, "{explained}");
    assert_ne!(first["dot"], Value::Null);
    run(&[&["del", "carts", "alice"][..], &all].concat(), 0);
    run(&["get", "carts", "alice"], 3);
    run(&["get", "nowhere", "alice"], 3);
    run(&["bucket", "create", "mine", "--kind", "lww"], 0);
    run(&["bucket", "create", "mine"], 1);
    let set = run(&["bucket", "set", "mine", "--read-consistency", "quorum"], 0);
    assert_eq!(set["read_consistency"], "quorum");
    assert_eq!(run(&["layout", "show"], 0)["version"], 1);

    run(&["demo", "kill", "2", "--data-dir", data], 0);
    run(&["demo", "kill", "2", "--data-dir", data], 2);
    run(&["status", "--timeout-ms", "500"], 1);
    until_status(dir.path(), &cluster, "node 2 is down for all others", |status| {
        status["members"][1]["seen_as"]["down"].as_array().is_some_and(|by| by.len() == 5)
    });
    run(&["demo", "start", "2", "--data-dir", data], 0);
    run(&["demo", "cut", "us-east", "--data-dir", data], 0);
    run(&["demo", "cut", "mars", "--data-dir", data], 2);
    run(&["get", "carts", "bob", "--consistency", "all", "--timeout-ms", "500"], 5);
    until_status(dir.path(), &cluster, "the cut off disagree with the others", |status| {
        let concerns = status["concerns"].as_array().unwrap().iter().filter_map(Value::as_str);
        let named = concerns.filter(|concern| concern.starts_with("nodes disagree about n"));
        status["members"][0]["disputed"] == true && named.count() > 0
    });
    run(&["demo", "heal", "--data-dir", data], 0);
    assert_eq!(demo.stop(), Some(0));
    run(&["status", "--timeout-ms", "500"], 5);

    let mut again = Demo::start(dir.path(), data);
    run(&["bucket", "show", "mine"], 0);
    assert_eq!(again.stop(), Some(0));
}
