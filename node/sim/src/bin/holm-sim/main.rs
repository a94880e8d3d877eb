//! `holm-sim`: plays seeds and says which break a rule.
//!
//! The library decides everything from a seed; this program is what has a clock, threads and files.
//! It plays seeds on all cores and tells their results in the order of seeds, so that its output
//! for `--seeds N` does not depend on how many cores there are.

mod args;
mod figures;
mod load;
mod many;
mod self_test;
mod specs;
mod tell;

use std::process::ExitCode;

use args::{Source, Task, USAGE};
use holm_sim::plan::Plan;
use holm_sim::report::InWords;
use holm_sim::schedule;
use holm_sim::sim::Sim;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No rule was broken.
    Clean,
    /// A rule was broken, or what was to be shown was not.
    Broken,
    /// The arguments or a file were wrong: nothing was played.
    Refused,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let verdict = match args::parse(&args) {
        Ok(task) => run(task).unwrap_or_else(|wrong| refuse(&wrong)),
        Err(wrong) => refuse(&format!("{wrong}\n{USAGE}")),
    };
    match verdict {
        Verdict::Clean => ExitCode::SUCCESS,
        Verdict::Broken => ExitCode::from(1),
        Verdict::Refused => ExitCode::from(2),
    }
}

fn refuse(wrong: &str) -> Verdict {
    eprintln!("holm-sim: {wrong}");
    Verdict::Refused
}

/// # Errors
/// Why nothing was played.
fn run(task: Task) -> Result<Verdict, String> {
    figures::keep_panics_short();
    match task {
        Task::Help => {
            println!("{USAGE}");
            Ok(Verdict::Clean)
        }
        Task::Many(task) => many::run(&task),
        Task::One(task) => one(&task),
        Task::SelfTest => Ok(self_test::run()),
        Task::Tla { directory, from, count } => specs::run(&directory, from, count),
        Task::Load { seconds } => Ok(load::run(seconds)),
    }
}

fn one(task: &args::One) -> Result<Verdict, String> {
    let plan = match &task.source {
        Source::Seed { seed, tamper } => Plan { tamper: *tamper, ..Plan::from_seed(*seed) },
        Source::File(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            schedule::decode(&text).map_err(|error| format!("{}: {error}", file.display()))?
        }
    };
    if let Some(file) = &task.record {
        tell::write(file, &schedule::encode(&plan))?;
        println!("recorded in {}", file.display());
    }
    let report = Sim::new(plan, task.trace).run();
    if task.trace {
        println!("{}", InWords(&report.plan));
        report.trace.iter().for_each(|line| println!("{line}"));
    }
    println!("{report}");
    println!("digest {:016x}, {:?}", report.digest, report.outcomes);
    if report.violation.is_none() {
        return Ok(Verdict::Clean);
    }
    // A file is most often a plan that was shrunk.
    if matches!(task.source, Source::Seed { .. }) {
        println!("{}", tell::shrunk(&report.plan, &task.schedules)?);
    }
    Ok(Verdict::Broken)
}
