//! A wall clock of a node's own; its monotonic clock stays true.
//!
//! By a small library of ours that is preloaded (`clock.c`) and compiled when it is needed, by the
//! compiler that the build needs anyway. libfaketime cannot be used: jemalloc looks at the clock while
//! it starts and holds its lock; libfaketime then looks for functions that this libc does not have,
//! and allocates memory to say so. The process hangs before its `main`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::holmd::Holmd;
use super::skip;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/harness/clock.c");

/// What a node's clock is off by: set at any time, seen at once.
#[derive(Debug)]
pub(crate) struct FakeClock(PathBuf);

impl FakeClock {
    /// Gives a node such a clock from its next start on; it is right until it is set. `None`, with the
    /// reason on standard error, where it cannot be compiled.
    pub(crate) fn give(node: &mut Holmd) -> Option<FakeClock> {
        let library = node.file("clock.so");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(SOURCE);
        match compile.output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{SOURCE} does not compile: {said}");
            }
            Err(error) => {
                skip(&format!("a C compiler is needed: {error}"));
                return None;
            }
        }
        let clock = FakeClock(node.file("clock"));
        clock.set(0);
        node.env.push(("LD_PRELOAD", library.into_os_string()));
        node.env.push(("WALL_CLOCK_FILE", clock.0.clone().into_os_string()));
        Some(clock)
    }

    /// From now on the clock is so many seconds ahead; behind if negative.
    pub(crate) fn set(&self, ahead_s: i64) {
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, format!("{ahead_s}\n")).unwrap();
        fs::rename(&fresh, &self.0).unwrap();
    }
}
