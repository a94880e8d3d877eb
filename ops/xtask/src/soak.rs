//! `cargo xtask soak`: real processes under the axe, for as long as asked.
//!
//! The work is an ignored test of `holm-node`; here its settings are read from the command line and
//! handed over in the environment. It is built with the whole workspace, as all that links RocksDB.

use crate::place::Place;
use crate::run::{self, Failure};
use crate::setup;

const TEST: [&str; 11] = [
    "test",
    "--locked",
    "--release",
    "--workspace",
    "--test",
    "it",
    "--",
    "axe::soak::soak",
    "--exact",
    "--ignored",
    "--nocapture",
];

/// Flags, and the variables that the test reads.
const SETTINGS: [(&str, &str); 4] = [
    ("--minutes", "HOLM_SOAK_MINUTES"),
    ("--rounds", "HOLM_SOAK_ROUNDS"),
    ("--only", "HOLM_SOAK_ONLY"),
    ("--seed", "HOLM_SOAK_SEED"),
];

/// Builds the test and runs it.
///
/// # Errors
/// A flag that there is not, or a round that failed: its output says how to repeat it.
pub(crate) fn run(place: &Place, args: &[String]) -> Result<(), Failure> {
    let settings = settings(args)?;
    setup::machine()?;
    setup::test_tools();
    let mut test = setup::require_tools(run::cargo(place, &TEST));
    for (variable, value) in settings {
        test = test.env(variable, value);
    }
    test.run("the failed round says above how it is repeated and where the nodes' files are")
}

fn settings(args: &[String]) -> Result<Vec<(&'static str, &str)>, Failure> {
    let todo = "see `cargo xtask help`";
    let mut settings = Vec::new();
    for pair in args.chunks(2) {
        let flag = &pair[0];
        let known = SETTINGS.iter().find(|(name, _)| name == flag);
        let Some(&(name, variable)) = known else {
            return Err(Failure::new(format!("`soak` has no `{flag}`"), todo));
        };
        let Some(value) = pair.get(1) else {
            return Err(Failure::new(format!("`{name}` without a value"), todo));
        };
        let number = value.parse::<u64>().ok();
        if name != "--only" && number.is_none() {
            return Err(Failure::new(format!("`{name}` takes a number, not `{value}`"), todo));
        }
        if ["--minutes", "--rounds"].contains(&name) && number == Some(0) {
            return Err(Failure::new(format!("`{name} 0` plays nothing"), todo));
        }
        settings.push((variable, value.as_str()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is asked for is handed over, and what makes no sense is refused.
    #[test]
    fn flags_become_settings() {
        let args = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let good = args("--minutes 5 --only power");
        let found = settings(&good).unwrap_or_default();
        assert_eq!(found, [("HOLM_SOAK_MINUTES", "5"), ("HOLM_SOAK_ONLY", "power")]);
        for bad in ["--minutes", "--minutes many", "--what 1", "5", "--rounds 0"] {
            assert!(settings(&args(bad)).is_err(), "{bad}");
        }
    }
}
