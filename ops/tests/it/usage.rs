//! What `holm` does before it talks to anybody: exit codes, where errors go, files it makes.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `holm` in a directory, with nothing of this machine's configuration.
pub(crate) fn holm(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holm"));
    command.args(args).current_dir(dir).env_remove("HOLM_CLUSTER").env_remove("HOLM_REGION");
    command.env("HOME", dir).env("XDG_CONFIG_HOME", dir).env("XDG_CACHE_HOME", dir);
    command.output().expect("holm runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Goal: the documented exit codes, errors on standard error with a hint, nothing on standard
/// output. Method: a mistake of each kind that needs no cluster.
#[test]
fn mistakes_have_exit_codes_and_hints() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.toml");
    let absent = absent.to_str().unwrap();
    let cases: [(&[&str], i32); 5] = [
        (&["get", "carts"], 2),
        (&["get", "carts", "alice"], 2),
        (&["--cluster", absent, "status"], 2),
        (&["put", "carts", "alice", "x", "--context", "xyz"], 2),
        (&["demo", "heal"], 1),
    ];
    for (args, code) in cases {
        let output = holm(dir.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(stderr(&output).starts_with("error: "), "{args:?}: {}", stderr(&output));
    }
    let json = holm(dir.path(), &["-o", "json", "demo", "heal"]);
    let line: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(line["exit_code"], 1);
    assert!(line["hint"].as_str().is_some_and(|hint| hint.contains("holm demo")));
}

/// Goal: a cluster that is not there is told apart from a mistake. Method: certificates from `holm
/// cert`, a cluster file that points at a port where nobody listens.
#[test]
fn unreachable_clusters_exit_with_5() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["cert", "ca"][..], &["cert", "client", "alice"]] {
        assert!(holm(dir.path(), args).status.success());
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = format!(
        "cluster = \"demo\"\nca = \"ca.pem\"\ncert = \"alice.pem\"\nkey = \"alice.key\"\n\
         [[node]]\nid = 1\naddr = \"{}\"\n",
        socket.local_addr().unwrap()
    );
    std::fs::write(dir.path().join("holm-cluster.toml"), file).unwrap();
    let output = holm(dir.path(), &["--timeout-ms", "300", "get", "carts", "alice"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: "));
}

/// Goal: completions and manual pages come out whole. Method: all shells, all pages.
#[test]
fn completions_and_manual_are_made() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = holm(dir.path(), &["completions", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("explain"), "{shell}");
    }
    assert!(holm(dir.path(), &["man", "--out", "pages"]).status.success());
    let page = std::fs::read_to_string(dir.path().join("pages/holm-demo-cut.1")).unwrap();
    assert!(page.contains("Cut region A off"));
    let top = holm(dir.path(), &["man"]);
    assert!(String::from_utf8_lossy(&top.stdout).contains("Exit codes"));
}

/// Goal: `holm config` is `holmd config`. Method: the annotated file.
#[test]
fn config_is_holmds() {
    let dir = tempfile::tempdir().unwrap();
    let output = holm(dir.path(), &["config", "init"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("data_dir"));
}
