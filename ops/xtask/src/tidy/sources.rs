//! Rules for the sources: heads and sizes of files, unfinished work, what the core and the
//! simulator must not name, integration tests in one binary per crate.

use std::collections::BTreeMap;

use super::Finding;
use super::code::{code_only, std_paths};
use super::tree::Tree;

/// One main type per file; beyond this a file holds several.
const LINES_MAX: usize = 800;
/// From here on, look for what could move out.
const LINES_WARN: usize = 500;

// Split, so that this file does not break its own rule.
const UNFINISHED_WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const UNFINISHED_CALLS: [&str; 2] = [concat!("todo", "!"), concat!("unimplemented", "!")];

/// What the core may name of `std`. All of it is pure: no clock, file, socket, thread, environment
/// or source of random numbers can be reached from here. (`core` and `alloc` have none of these.)
const CORE_MAY_NAME: [&str; 45] = [
    "std::any",
    "std::array",
    "std::borrow",
    "std::boxed",
    "std::cell",
    "std::char",
    "std::cmp",
    "std::collections::BTreeMap",
    "std::collections::BTreeSet",
    "std::collections::BinaryHeap",
    "std::collections::VecDeque",
    "std::collections::btree_map",
    "std::collections::btree_set",
    "std::collections::vec_deque",
    "std::convert",
    "std::default",
    "std::error",
    "std::f64",
    "std::fmt",
    "std::hash::BuildHasher",
    "std::hash::BuildHasherDefault",
    "std::hash::Hash",
    "std::hash::Hasher",
    "std::iter",
    "std::marker",
    "std::mem",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::num",
    "std::ops",
    "std::option",
    "std::ptr",
    "std::rc",
    "std::result",
    "std::slice",
    "std::str",
    "std::string",
    "std::sync::Arc",
    "std::time::Duration",
    "std::u16",
    "std::u32",
    "std::u64",
    "std::vec",
];
/// The one file that may name a hash table: it gives it a fixed hasher.
const CORE_HASH_TABLE: &str = "node/core/src/map.rs";
const PRINTING: [&str; 5] = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];

/// The simulator's program: it has a clock, threads and files.
const SIM_DRIVER: &str = "node/sim/src/bin/";
/// What the simulator must not name outside its driver.
const SIM_MUST_NOT_NAME: [&str; 14] = [
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::fs",
    "std::hash::RandomState",
    "std::net::Tcp",
    "std::net::ToSocketAddrs",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::*",
];
/// Random numbers that no seed decides.
const UNSEEDED: [&str; 6] =
    ["rand::rng(", "rand::random", "ThreadRng", "SysRng", "make_rng", "getrandom"];

/// Crates that must refuse `unsafe` so that nobody can allow it again.
const NO_UNSAFE: [&str; 2] = ["client/protocol/src/lib.rs", "node/core/src/lib.rs"];

/// Checks every Rust source.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        shape(path, text, &mut findings);
        unfinished(path, text, &mut findings);
        if is_program(path, "node/core/src/") {
            core(path, text, &mut findings);
        }
        if is_program(path, "node/sim/src/") && !path.starts_with(SIM_DRIVER) {
            sim(path, text, &mut findings);
        }
    }
    for path in NO_UNSAFE {
        let refuses = tree.text(path).is_some_and(|text| text.contains("#![forbid(unsafe_code)]"));
        if !refuses {
            findings.push(Finding::new(path, None, "needs `#![forbid(unsafe_code)]`"));
        }
    }
    test_binaries(tree, &mut findings);
    findings
}

/// Whether a file below `directory` is part of the program: files of tests are not.
fn is_program(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| !rest.split('/').any(|part| part == "tests" || part == "tests.rs"))
}

fn shape(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.starts_with("//!") {
        let what = "begins without a head: `//!` with what it is for and the rules it keeps";
        findings.push(Finding::new(path, 1, what));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        let what = format!("{lines} lines, at most {LINES_MAX}: one main type per file");
        findings.push(Finding::new(path, None, what));
    } else if lines > LINES_WARN {
        findings.push(Finding::warning(path, format!("{lines} lines, aim for {LINES_WARN}")));
    }
}

fn unfinished(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        for word in UNFINISHED_WORDS {
            if has_word(line, word) {
                findings.push(Finding::new(path, index + 1, format!("{word} is not a decision")));
            }
        }
    }
    for (index, line) in code_only(text).lines().enumerate() {
        for call in UNFINISHED_CALLS {
            if has_word(line, call) {
                findings.push(Finding::new(path, index + 1, format!("`{call}` is left")));
            }
        }
    }
}

/// Whether `word` stands in `line` without being the end or the beginning of another word.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |it: char| it.is_alphanumeric() || it == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_name) && !line[at + word.len()..].starts_with(is_name)
    })
}

/// The core has no way to read a clock, a file, a socket or a random number: not by what it names
/// of `std` here, not by what it links ([`super::closure`]), not by what it calls (clippy).
fn core(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let code = code_only(text);
    for (line, name) in std_paths(&code) {
        let may = CORE_MAY_NAME.iter().any(|&allowed| is_below(&name, allowed))
            || (path == CORE_HASH_TABLE && name == "std::collections::HashMap");
        if !may {
            findings.push(Finding::new(path, line, format!("the core must not name `{name}`")));
        }
    }
    for (index, line) in code.lines().enumerate() {
        let printed = PRINTING.iter().find(|call| has_word(line, call));
        let hashed = ["HashMap", "HashSet"].iter().find(|name| has_word(line, name));
        let hashed = hashed.filter(|_| path != CORE_HASH_TABLE);
        for name in printed.into_iter().chain(hashed) {
            let what = format!("the core must not use `{name}`");
            findings.push(Finding::new(path, index + 1, what));
        }
    }
}

fn sim(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let code = code_only(text);
    for (line, name) in std_paths(&code) {
        if SIM_MUST_NOT_NAME.iter().any(|banned| name.starts_with(banned)) {
            let what = format!("one seed decides everything: `{name}` does not follow it");
            findings.push(Finding::new(path, line, what));
        }
    }
    for (index, line) in code.lines().enumerate() {
        for name in UNSEEDED.iter().filter(|name| line.contains(**name)) {
            let what = format!("one seed decides everything: `{name}` does not follow it");
            findings.push(Finding::new(path, index + 1, what));
        }
    }
}

/// Whether `path` is `parent`, an item of it, or `parent` with `as NAME` run into it.
fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with("as"))
}

/// One integration-test binary per crate: each one links everything again.
fn test_binaries(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut binaries: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, _) in tree.ending(".rs") {
        let Some((package, test)) = path.split_once("/tests/") else {
            continue;
        };
        let is_source = package.ends_with("/src") || package.contains("/src/");
        let is_binary =
            !test.contains('/') || test.matches('/').count() == 1 && test.ends_with("/main.rs");
        if !is_source && is_binary && tree.text(&format!("{package}/Cargo.toml")).is_some() {
            *binaries.entry(package).or_default() += 1;
        }
    }
    for (package, count) in binaries.into_iter().filter(|(_, count)| *count > 1) {
        let what = format!("{count} integration-test binaries: make them modules of one");
        findings.push(Finding::new(&format!("{package}/tests"), None, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: &str = "//! Head.\n#![forbid(unsafe_code)]\n";

    /// What is found in one file of an otherwise clean tree.
    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut files = vec![(NO_UNSAFE[0], SAFE), (NO_UNSAFE[1], SAFE)];
        files.retain(|(it, _)| *it != path);
        files.push((path, text));
        check(&Tree::sample(&files)).iter().map(ToString::to_string).collect()
    }

    /// Goal: a file needs a head, and long ones are named: first softly, then not.
    #[test]
    fn heads_and_sizes() {
        assert_eq!(findings("node/src/a.rs", "use x;\n").len(), 1);
        let long = format!("//! Head.\n{}", "\n".repeat(LINES_WARN));
        assert!(findings("node/src/a.rs", &long)[0].starts_with("warning"));
        let longer = format!("//! Head.\n{}", "\n".repeat(LINES_MAX));
        assert!(findings("node/src/a.rs", &longer)[0].starts_with("error"));
    }

    /// Goal: unfinished work is found in comments and in code; a word that contains it is not.
    #[test]
    fn unfinished_work() {
        for word in UNFINISHED_WORDS {
            assert_eq!(findings("a/src/a.rs", &format!("//! Head.\n// {word}: later\n")).len(), 1);
            assert!(findings("a/src/a.rs", &format!("//! Head.\n// {word}LIST\n")).is_empty());
        }
        for call in UNFINISHED_CALLS {
            assert_eq!(
                findings("a/src/a.rs", &format!("//! H.\nfn f() {{ {call}() }}\n")).len(),
                1
            );
        }
    }

    /// Goal: each way to a clock, a file, a socket, the environment, a thread, a random number or
    /// random order is found in the core, and pure code is left alone.
    #[test]
    fn the_core_reaches_nothing() {
        for bad in [
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::{fs, fmt};",
            "use std::io::Read;",
            "let s = std::net::UdpSocket::bind(a);",
            "use std::thread;",
            "let v = std::env::var(\"X\");",
            "use std::collections::HashMap;",
            "use std::collections::*;",
            "use std as s;",
            "extern crate std;",
            "use std::hash::RandomState;",
            "use std::os::unix::net::UnixStream;",
            "fn f() { eprintln!(\"x\"); }",
        ] {
            let text = format!("//! Head.\n{bad}\n");
            assert!(!findings("node/core/src/a.rs", &text).is_empty(), "{bad}");
            assert!(findings("node/src/a.rs", &text).is_empty(), "{bad}");
            assert!(findings("node/core/src/a/tests.rs", &text).is_empty(), "{bad}");
        }
        let good = "//! No `std::fs`.\nuse std::{fmt, collections::BTreeMap, time::Duration};\n\
                    // std::thread\nuse std::net::SocketAddr;\nuse std::fmt::Write as _;\n";
        assert_eq!(findings("node/core/src/a.rs", good), [""; 0]);
        let map = "//! Head.\nuse std::collections::HashMap;\n";
        assert_eq!(findings(CORE_HASH_TABLE, map), [""; 0]);
    }

    /// Goal: the simulator cannot draw from anything but its seed; its driver may read a clock.
    #[test]
    fn the_simulator_follows_its_seed() {
        for bad in ["use std::time::Instant;", "let r = rand::rng();", "use std::thread::spawn;"] {
            let text = format!("//! Head.\n{bad}\n");
            assert_eq!(findings("node/sim/src/a.rs", &text).len(), 1, "{bad}");
            assert!(findings("node/sim/src/bin/holm-sim/many.rs", &text).is_empty(), "{bad}");
        }
    }

    /// Goal: the crates that refuse `unsafe` keep refusing it.
    #[test]
    fn unsafe_is_refused() {
        assert_eq!(findings("node/core/src/lib.rs", "//! Head.\n").len(), 1);
    }

    /// Goal: a second integration-test binary is found, in both layouts; modules are not.
    #[test]
    fn one_test_binary() {
        let count = |tests: &[&str]| {
            let mut files =
                vec![("node/Cargo.toml", ""), (NO_UNSAFE[0], SAFE), (NO_UNSAFE[1], SAFE)];
            files.extend(tests.iter().map(|path| (*path, "//! Head.\n")));
            check(&Tree::sample(&files)).len()
        };
        assert_eq!(count(&["node/tests/it/main.rs", "node/tests/it/a.rs"]), 0);
        assert_eq!(count(&["node/tests/it/main.rs", "node/tests/other.rs"]), 1);
        assert_eq!(count(&["node/tests/a.rs", "node/tests/b.rs"]), 1);
        assert_eq!(count(&["node/src/tests/a.rs", "node/src/tests/b.rs"]), 0);
    }
}
