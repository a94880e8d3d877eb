//! Everything a developer runs: `cargo xtask COMMAND`.
//!
//! The problem: building holm needs a C++ compiler and libclang, RocksDB takes many minutes, and the
//! rules of the code base have to be checked the same way by everybody. The rule: one program with
//! no dependencies, so that it builds in seconds on a machine that has nothing but cargo.
//!
//! It keeps these invariants:
//! - Children build into a cache outside the clone ([`place`]), so a second clone finds RocksDB
//!   built. Everything that links RocksDB is built in release, with `--workspace`: another profile
//!   or selection of packages would build it again.
//! - Nothing is installed without saying so, and nothing outside the cache except Debian packages,
//!   which need root or a `sudo` without a password ([`setup`]).
//! - `test` stops at the first step that fails and says what to do ([`suite`]).

mod deny;
mod fuzz;
mod mutants;
mod place;
mod run;
mod setup;
mod soak;
mod suite;
mod tally;
mod tidy;
mod tla;
mod tool;

use std::process::ExitCode;

use place::Place;
use run::{Failure, replace_process};

const HELP: &str = "\
cargo xtask COMMAND [ARGS...]

  demo [ARGS]    build, then start a cluster of three regions on this machine (`holm demo ARGS`)
  test           format, tidy, clippy, deny, docs, simulator seeds, specifications, all tests
  sim [ARGS]     run the simulator: --seed S --trace repeats one run, --seeds N plays N,
                 --replay FILE plays a schedule, --self-test puts bugs back, --help tells all
  soak [ARGS]    real processes under the axe: --minutes N, --rounds N of each fault, --only FAULT,
                 --seed S of the first round
  fuzz [TARGET]  run libFuzzer over all targets or one: --seconds N for each, --keep to renew the
                 kept inputs; `fuzz TARGET FILE` repeats one input
  mutants [ARGS] change the core line by line and see whether tests notice (hours; ARGS to cargo-mutants)
  tla [NAME]     check the specifications with TLC, all or one specification or model: --long adds
                 the long models, --mutations breaks each property instead, --show MODEL tells the
                 counterexample of a model, --record writes figures into tla/README.md
  bench [ARGS]   build, then measure a local cluster and the baselines (`holm-bench local ARGS`)
  bin-dir        print where the built programs are
  setup          check what a build and the tests need and install what is missing
  tidy           check the rules of the source tree only
  help           this text

Environment:
  CARGO_TARGET_DIR   where to build; default: holm/target in $XDG_CACHE_HOME or ~/.cache
  HOLM_SIM_MINUTES   how long `test` plays seeds; default: 5
  HOLM_ADVISORY_DB   a copy of the RustSec advisory database for `test` to check against
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = args.collect();
    match dispatch(&command, &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command to its end. `demo`, `sim` and `bench` return only when they could not start:
/// they become the program they start.
fn dispatch(command: &str, rest: &[String]) -> Result<(), Failure> {
    let place = Place::find()?;
    let takes_arguments =
        matches!(command, "demo" | "sim" | "soak" | "bench" | "fuzz" | "mutants" | "tla");
    if let Some(extra) = rest.first().filter(|_| !takes_arguments) {
        return Err(Failure::new(
            format!("`{command}` takes no arguments, got `{extra}`"),
            "see `cargo xtask help`",
        ));
    }
    match command {
        "demo" => {
            build(&place)?;
            replace_process(place.release_binary("holm"), &["demo"], rest)
        }
        "bench" => {
            build(&place)?;
            replace_process(place.release_binary("holm-bench"), &["local"], rest)
        }
        "sim" => {
            run::cargo(&place, &suite::SIM_BUILD).run("fix the errors above")?;
            let schedules = place.schedules().display().to_string();
            replace_process(place.sim_binary(), &["--schedules", &schedules], rest)
        }
        "soak" => soak::run(&place, rest),
        "fuzz" => {
            setup::machine()?;
            fuzz::run(&place, rest)
        }
        "tla" => tla::run(&place, rest),
        "mutants" => mutants::run(&place, rest),
        "test" => suite::run(&place),
        "setup" => {
            setup::machine()?;
            println!("setup: everything a build needs is here");
            setup::test_tools();
            Ok(())
        }
        "bin-dir" => {
            println!("{}", place.release_binary("").display());
            Ok(())
        }
        "tidy" => tidy::run(&place),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        unknown => Err(Failure::new(
            format!("there is no command `{unknown}`"),
            "see `cargo xtask help` for those there are",
        )),
    }
}

/// Builds every program in release, after a look at whether this machine can.
fn build(place: &Place) -> Result<(), Failure> {
    setup::machine()?;
    if !place.has_rocksdb() {
        println!("building RocksDB once into {}: 10 to 30 minutes", place.target.display());
    }
    run::cargo(place, &suite::BUILD).run("fix the errors above")
}
