//! Mutation testing: would a test notice if this line were wrong?
//!
//! cargo-mutants changes one operator, return value or match arm at a time in the modules that
//! `.cargo/mutants.toml` names, and runs tests on each. Two passes, because the first is cheap: the
//! unit tests of the core see every mutant, the simulator only those that they let through.
//! A mutant counts as caught if a test fails. One whose tests did not end in time is counted by
//! itself and not as caught: it may hang, or the machine may be busy.
//!
//! The survivors that are known, and why they survive: `node/core/MUTANTS.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::place::Place;
use crate::run::{self, Child, Failure};
use crate::tool::Tool;

/// The version whose configuration `.cargo/mutants.toml` is written for.
const TOOL: Tool = Tool {
    name: "cargo-mutants",
    version: "27.1.0",
    version_args: &["mutants", "--version"],
    compatible: "cargo-mutants 27.",
};

/// Mutants, in percent, that tests must catch.
const CAUGHT_PERCENT_MIN: usize = 95;

/// The tool's exit codes when it did its work: all caught, some missed, some timed out.
const WORKED: [i32; 3] = [0, 2, 3];

/// The unit tests of the two crates that have mutants. Without those of layout and metadata, which
/// take long and use nothing that is mutated.
const UNIT_TESTS: [&str; 10] = [
    "--test-package=holm-protocol,holm-core",
    "--cargo-arg=--lib",
    "--profile=mutants",
    "--minimum-test-timeout=120",
    "--",
    "--",
    "--skip",
    "layout::",
    "--skip",
    "metadata::",
];

/// The simulator's stories and seeds. Not the bugs that are put back on purpose: they test the
/// referee, not the core. The tool would look for these tests in the crate of the mutant to see
/// whether they pass without one, so that is seen to beforehand.
const SIMULATOR: [&str; 11] = [
    "--baseline=skip",
    "--timeout=600",
    "--test-package=holm-sim",
    "--cargo-arg=--test=it",
    "--profile=mutants",
    "--",
    "--",
    "--skip",
    "put_back",
    "--skip",
    "every_fault",
];
const SIMULATOR_WITHOUT_MUTANTS: [&str; 11] = [
    "test",
    "--locked",
    "--profile=mutants",
    "--package=holm-sim",
    "--test=it",
    "--quiet",
    "--",
    "--skip",
    "put_back",
    "--skip",
    "every_fault",
];

/// Skips what an earlier run has caught.
const ITERATE: &str = "--iterate";

/// Runs both passes and prints what became of the mutants of each file. `args` go to both: `--re`
/// and `--shard` choose among the mutants; `--iterate` takes up an earlier run, as long as no line
/// of the mutated code has moved since.
///
/// # Errors
/// The tool or the tests do not work without mutants, or too few mutants were caught.
pub(crate) fn run(place: &Place, args: &[String]) -> Result<(), Failure> {
    let tool = TOOL.install(place)?;
    let output = place.target.join("mutants-report");
    fs::create_dir_all(&output)
        .map_err(|error| Failure::new(format!("{}: {error}", output.display()), "see above"))?;
    let report = output.join("mutants.out");
    let ends = output.join("ends.txt");
    let mut table = Table::default();
    if args.iter().any(|arg| arg == ITERATE) {
        table.load(&ends);
    }
    pass(place, &tool, (&output, args, &UNIT_TESTS))?;
    table.count("unviable", &report.join("unviable.txt"));
    table.count("by unit tests", &report.join("caught.txt"));
    let left = ["missed", "timed out"].into_iter().zip(["missed.txt", "timeout.txt"]);
    let left: Vec<_> = left.map(|(end, file)| (end, names(&report.join(file)))).collect();
    let mut args: Vec<String> = args.iter().filter(|arg| *arg != ITERATE).cloned().collect();
    args.push(ITERATE.to_owned());
    run::cargo(place, &SIMULATOR_WITHOUT_MUTANTS).run("the simulator fails without any mutant")?;
    pass(place, &tool, (&output, &args, &SIMULATOR))?;
    table.count("unviable", &report.join("unviable.txt"));
    table.count("by the simulator", &report.join("caught.txt"));
    table.count("missed", &report.join("missed.txt"));
    table.count("timed out", &report.join("timeout.txt"));
    // Whatever the simulator was not asked about is what it was before.
    for (end, names) in left {
        names.lines().for_each(|name| table.add(end, name));
    }
    fs::write(&ends, table.save())
        .map_err(|error| Failure::new(format!("{}: {error}", ends.display()), "see above"))?;
    print!("\n{table}");
    println!("survivors: {}", report.join("missed.txt").display());
    if table.caught() * 100 >= table.viable() * CAUGHT_PERCENT_MIN {
        return Ok(());
    }
    Err(Failure::new(
        format!("fewer than {CAUGHT_PERCENT_MIN} percent of the mutants were caught"),
        "write the tests that would have noticed, see node/core/MUTANTS.md",
    ))
}

/// One run of the tool over all mutants, with one choice of tests.
fn pass(
    place: &Place,
    tool: &Path,
    (output, args, tests): (&Path, &[String], &[&str]),
) -> Result<(), Failure> {
    let output = output.to_string_lossy();
    let mut line = vec!["mutants", "--workspace", "--no-shuffle", "--output", &output];
    line.extend(args.iter().map(String::as_str));
    line.extend(tests);
    let child = Child::new(tool, &line)
        .directory(&place.root)
        // It builds in a copy of the tree, which must not share a target directory with the tree.
        .without_env("CARGO_TARGET_DIR")
        // What a property's failure under one mutant leaves behind must not help to catch others.
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        // Nobody reads the thousands of stacks, and each takes longer than a test.
        .env("RUST_BACKTRACE", "0");
    println!("\n==> {}", child.line());
    let code = child.code()?;
    if WORKED.contains(&code) {
        return Ok(());
    }
    Err(Failure::new(
        format!("cargo-mutants ended with code {code}"),
        "do the tests pass without mutants? see its output above",
    ))
}

/// The mutants that a file of the tool's names, one a line. A file that is not there names none.
fn names(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Per file, how many mutants came to which end.
#[derive(Debug, Default)]
struct Table {
    files: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// The mutants counted so far, and their ends.
    known: BTreeMap<String, &'static str>,
}

const ENDS: [&str; 5] = ["by unit tests", "by the simulator", "missed", "timed out", "unviable"];

impl Table {
    /// Counts the mutants that a file of the tool's names.
    fn count(&mut self, end: &'static str, file: &Path) {
        names(file).lines().for_each(|name| self.add(end, name));
    }

    fn add(&mut self, end: &'static str, name: &str) {
        let Some((file, _)) = name.split_once(':') else { return };
        if self.known.insert(name.to_owned(), end).is_none() {
            *self.files.entry(file.to_owned()).or_default().entry(end).or_default() += 1;
        }
    }

    /// What an earlier run need not be asked again, as [`Table::save`] wrote it.
    fn load(&mut self, saved: &Path) {
        let saved = names(saved);
        for (end, name) in saved.lines().filter_map(|line| line.split_once('\t')) {
            let settled = [ENDS[0], ENDS[1], ENDS[4]].into_iter().find(|known| *known == end);
            settled.into_iter().for_each(|end| self.add(end, name));
        }
    }

    /// Every mutant and its end, one a line.
    fn save(&self) -> String {
        self.known.iter().map(|(name, end)| format!("{end}\t{name}\n")).collect()
    }

    fn total(&self, ends: &[&str]) -> usize {
        self.files.values().flatten().filter(|(end, _)| ends.contains(end)).map(|(_, n)| n).sum()
    }

    fn caught(&self) -> usize {
        self.total(&ENDS[..2])
    }

    fn viable(&self) -> usize {
        self.total(&ENDS[..4])
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| file | {} |", ENDS.join(" | "))?;
        writeln!(f, "| --- | {}", "---: | ".repeat(ENDS.len()).trim_end())?;
        for (file, ends) in &self.files {
            let numbers = ENDS.map(|end| ends.get(end).copied().unwrap_or(0).to_string());
            writeln!(f, "| `{file}` | {} |", numbers.join(" | "))?;
        }
        let (caught, viable) = (self.caught(), self.viable());
        // In tenths, rounded down: 94.96 percent is not 95.
        let tenths = (caught * 1000).checked_div(viable).unwrap_or(1000);
        writeln!(f, "\n{caught} of {viable} caught: {}.{} percent", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    /// Goal: a mutant counts once, under its file, and neither timeouts nor survivors are taken
    /// for caught. Method: one of each end, one told twice, and a line that names none.
    #[test]
    fn ends_add_up() {
        let mut table = Table::default();
        table.add("by unit tests", "a.rs:1:2: replace + with -");
        table.add("by unit tests", "a.rs:1:2: replace + with -");
        table.add("by the simulator", "a.rs:2:2: replace < with >");
        table.add("missed", "b.rs:1:1: delete !");
        table.add("timed out", "b.rs:9:1: replace f with ()");
        table.add("unviable", "b.rs:3:1: replace g with None");
        table.add("missed", "");
        assert_eq!((table.caught(), table.viable()), (2, 4));
        let text = table.to_string();
        assert!(text.contains("| `a.rs` | 1 | 1 | 0 | 0 | 0 |"), "{text}");
        assert!(text.contains("| `b.rs` | 0 | 0 | 1 | 1 | 1 |"), "{text}");
        assert!(text.ends_with("2 of 4 caught: 50.0 percent\n"), "{text}");
    }
}
