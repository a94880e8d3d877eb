//! `holm-sim`: plays seeds and says which break a rule.
//!
//! ```text
//! holm-sim [--seeds N] [--from S]   N runs (default 200), from seed S (default 0)
//! holm-sim --seed S [--trace]       one run; --trace prints every step
//! holm-sim --self-test              puts bugs back one at a time, and counts the seeds that
//!                                   catch each
//! ```
//! Exit code 0 if no rule was broken, 1 if one was, 2 for wrong arguments.

use std::process::ExitCode;
use std::time::Instant;

use holm_sim::cluster::FaultTally;
use holm_sim::plan::Plan;
use holm_sim::sim::{Report, Sim};
use holm_sim::tamper::Tamper;

/// Seeds played with each bug.
const SELF_TEST_SEEDS: u64 = 1_000;

const USAGE: &str = "usage: holm-sim [--seeds N] [--from S] | --seed S [--trace] | --self-test";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Many { from: u64, count: u64 },
    One { seed: u64, trace: bool },
    SelfTest,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match parse(&args) {
        Ok(Task::Many { from, count }) => many(from, count),
        Ok(Task::One { seed, trace }) => one(seed, trace),
        Ok(Task::SelfTest) => self_test(),
        Err(wrong) => {
            eprintln!("holm-sim: {wrong}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(args: &[String]) -> Result<Task, String> {
    let (mut from, mut count, mut seed, mut trace, mut self_test) = (0, 200, None, false, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or(format!("{arg} needs a number"))?;
            value.parse().map_err(|_| format!("`{value}` is no number"))
        };
        match arg.as_str() {
            "--seeds" => count = number()?,
            "--from" => from = number()?,
            "--seed" => seed = Some(number()?),
            "--trace" => trace = true,
            "--self-test" => self_test = true,
            other => return Err(format!("what is `{other}`?")),
        }
    }
    Ok(match seed {
        _ if self_test => Task::SelfTest,
        Some(seed) => Task::One { seed, trace },
        None => Task::Many { from, count },
    })
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let plan = Plan::from_seed(seed);
    println!("{plan:#?}");
    let report = Sim::new(plan, trace).run();
    println!("{report}");
    println!("digest {:016x}, {:?}", report.digest, report.outcomes);
    if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::disallowed_methods, reason = "times the run; nothing in it sees the clock")]
fn now() -> Instant {
    Instant::now()
}

fn many(from: u64, count: u64) -> ExitCode {
    let began = now();
    let mut faults = FaultTally::default();
    let (mut steps, mut simulated_us, mut bad, mut few) = (0, 0, 0, 0);
    let (mut acknowledged, mut unknown, mut not_done, mut reads, mut unread) = (0, 0, 0, 0, 0);
    for seed in from..from.saturating_add(count) {
        let report = Sim::run_seed(seed);
        if report.violation.is_some() {
            bad += 1;
            println!("{report}\n");
        }
        steps += report.steps;
        simulated_us += report.simulated_us;
        few += u64::from(!counts(&report));
        faults.add(&report.faults);
        acknowledged += report.outcomes.acknowledged;
        unknown += report.outcomes.unknown;
        not_done += report.outcomes.not_done;
        reads += report.outcomes.reads;
        unread += report.outcomes.reads_failed;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("writes: {acknowledged} acknowledged, {unknown} unknown, {not_done} not done");
    println!("reads: {reads} answered, {unread} not; {few} runs with under half of their calls ok");
    let entries = faults.entries();
    let words: Vec<String> =
        entries.iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!("faults: {}", words.join(", "));
    println!(
        "{count} seeds from {from}, {bad} bad; {steps} steps; {:.0} seeds and {:.2} simulated hours a minute",
        count as f64 / minutes,
        simulated_us as f64 / 3.6e9 / minutes
    );
    if bad > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A run in which hardly anything worked shows nothing.
fn counts(report: &Report) -> bool {
    let outcomes = report.outcomes;
    let ok = outcomes.acknowledged + outcomes.reads;
    ok >= outcomes.not_done + outcomes.unknown + outcomes.reads_failed
}

fn self_test() -> ExitCode {
    let mut missed = 0;
    for tamper in Tamper::ALL {
        let (mut caught, mut first) = (0, None);
        for seed in 0..SELF_TEST_SEEDS {
            let plan = Plan { tamper: Some(tamper), ..Plan::from_seed(seed) };
            if let Some(violation) = Sim::new(plan, false).run().violation {
                caught += 1;
                first.get_or_insert((seed, violation.property.name));
            }
        }
        match first {
            Some((seed, rule)) => println!(
                "{tamper:?}: caught by {caught} of {SELF_TEST_SEEDS} seeds, first by seed {seed} ({rule})"
            ),
            None => {
                missed += 1;
                println!("{tamper:?}: NOT caught within {SELF_TEST_SEEDS} seeds");
            }
        }
    }
    if missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    /// Goal: arguments are understood or refused, never guessed.
    #[test]
    fn arguments() {
        assert_eq!(parsed(""), Ok(Task::Many { from: 0, count: 200 }));
        assert_eq!(parsed("--seeds 5 --from 7"), Ok(Task::Many { from: 7, count: 5 }));
        assert_eq!(parsed("--seed 3 --trace"), Ok(Task::One { seed: 3, trace: true }));
        assert_eq!(parsed("--self-test"), Ok(Task::SelfTest));
        assert!(parsed("--seed").is_err() && parsed("--seed x").is_err() && parsed("-x").is_err());
    }
}
