//! `cargo xtask test`: everything that must hold before a change goes in, cheapest first.
//!
//! Each step prints a heading, its output and its time; the first that fails ends the run with what
//! to do. The end of the log is the end of the tests and one line with the sum of their results.
//!
//! Crates that do not link RocksDB are tested in `dev`, where debug assertions check the
//! invariants after every input. The others are built in release with `--workspace`, always: cargo
//! unites the features of what it builds together, and another selection builds RocksDB again.

use std::time::{Duration, Instant};

use crate::place::Place;
use crate::run::{self, Child, Failure, cargo};
use crate::tally::Tally;
use crate::{deny, setup, tidy, tla};

/// Builds every program.
pub(crate) const BUILD: [&str; 5] = ["build", "--locked", "--release", "--workspace", "--bins"];
/// Builds the simulator alone, without RocksDB.
pub(crate) const SIM_BUILD: [&str; 6] =
    ["build", "--locked", "--profile", "sim", "--package", "holm-sim"];

const CLIPPY: [&str; 8] =
    ["clippy", "--locked", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
const DOC: [&str; 6] =
    ["doc", "--locked", "--release", "--workspace", "--no-deps", "--document-private-items"];
const TEST_PURE: [&str; 11] = [
    "test",
    "--locked",
    "--no-fail-fast",
    "-p",
    "holm-protocol",
    "-p",
    "holm-core",
    "-p",
    "holm-sim",
    "-p",
    "holm-fuzz",
];
const TEST_ALL: [&str; 5] = ["test", "--locked", "--no-fail-fast", "--release", "--workspace"];
/// Minutes that the simulator gets in one run of the tests, from seed 0 on: enough for thousands of
/// seeds at every change. Seeds that were not played before are a matter of
/// `cargo xtask sim --seeds N --from S`.
const SIM_MINUTES: &str = "5";
/// Overrides [`SIM_MINUTES`].
const SIM_MINUTES_VARIABLE: &str = "HOLM_SIM_MINUTES";

/// Runs all steps.
///
/// # Errors
/// The first step that failed.
pub(crate) fn run(place: &Place) -> Result<(), Failure> {
    println!("building in {}", place.target.display());
    let mut suite = Suite { began: Instant::now(), times: Vec::new(), tally: Tally::default() };
    let outcome = suite.all(place);
    suite.summarize(outcome.is_ok());
    outcome
}

struct Suite {
    began: Instant,
    times: Vec<(&'static str, Duration)>,
    tally: Tally,
}

impl Suite {
    fn all(&mut self, place: &Place) -> Result<(), Failure> {
        self.step("setup", "what a build and the tests need", |_| {
            setup::machine()?;
            setup::test_tools();
            setup::components(place)
        })?;
        self.cargo("format", "run `cargo fmt --all`", || {
            cargo(place, &["fmt", "--all", "--", "--check"])
        })?;
        self.step("tidy", "the rules of the source tree", |_| tidy::run(place))?;
        self.cargo("clippy", "fix what it names", || cargo(place, &CLIPPY))?;
        self.step("deny", "dependencies against deny.toml", |_| deny::check(place))?;
        self.cargo("docs", "fix the documentation it names", || {
            cargo(place, &DOC).env("RUSTDOCFLAGS", "-D warnings")
        })?;
        self.cargo("tests of the core", "repeat one with `cargo test -p CRATE NAME`", || {
            cargo(place, &TEST_PURE)
        })?;
        self.cargo("build of the simulator", "fix the errors above", || cargo(place, &SIM_BUILD))?;
        self.cargo("simulator", "repeat a seed with the command it names", || {
            let minutes = std::env::var(SIM_MINUTES_VARIABLE);
            let minutes = minutes.unwrap_or_else(|_| SIM_MINUTES.to_owned());
            let schedules = place.schedules().display().to_string();
            let args = ["--minutes", &minutes, "--schedules", &schedules];
            Child::new(place.sim_binary(), &args).directory(&place.root)
        })?;
        self.step("specs", "the models and mutations of tla/", |tally| {
            tally.passed += tla::all_short(place)?;
            Ok(())
        })?;
        self.cargo("build", "fix the errors above", || cargo(place, &BUILD))?;
        self.cargo(
            "tests",
            "repeat one with `cargo test --release --workspace NAME`, built in the same directory",
            || setup::require_tools(cargo(place, &TEST_ALL)),
        )
    }

    /// A step that is one child process; results of tests in its output are counted.
    fn cargo(
        &mut self,
        name: &'static str,
        todo: &str,
        child: impl FnOnce() -> run::Child,
    ) -> Result<(), Failure> {
        let child = child();
        let line = child.line().to_owned();
        self.step(name, &line, |tally| child.watch(todo, |output| tally.take(output)))
    }

    fn step(
        &mut self,
        name: &'static str,
        what: &str,
        work: impl FnOnce(&mut Tally) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        println!("\n==> {name}: {what}");
        let began = Instant::now();
        let outcome = work(&mut self.tally);
        let took = began.elapsed();
        self.times.push((name, took));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("==> {name}: {verdict} in {:.1} s", took.as_secs_f64());
        outcome
    }

    fn summarize(&self, is_ok: bool) {
        let times: Vec<String> = self
            .times
            .iter()
            .map(|(name, took)| format!("{name} {:.0} s", took.as_secs_f64()))
            .collect();
        let verdict = if is_ok { "everything passed" } else { "FAILED" };
        println!("\n{}; {:.0} s in all", times.join(", "), self.began.elapsed().as_secs_f64());
        println!("{verdict}: {}", self.tally);
    }
}
