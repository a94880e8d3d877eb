//! Traces for the specifications: what the protocol did in short runs with faults, and the same with
//! a mistake in it, which must be refused.
//!
//! Six modules `TraceData`, each in a directory of its own: `causality`, `replication` and `stability`
//! are to be accepted, `bad-causality`, `bad-replication` and `bad-stability` refused, every trace of
//! them.

mod forgetting;

use std::path::Path;

use holm_sim::plan::Plan;
use holm_sim::sim::{Report, Sim, Standing};
use holm_sim::steps::alter::Alteration;
use holm_sim::steps::tla::{Records, Told, module};
use holm_sim::steps::{Step, Trace};
use holm_sim::tamper::Tamper;

use crate::Verdict;
use crate::figures::expecting_panics;
use crate::tell;

/// Bugs that are put back for each specification: those that a step of it would have to be.
const CAUSALITY_BUGS: [Tamper; 6] = [
    Tamper::WriteOverwrites,
    Tamper::PutDropsUnseen,
    Tamper::ActorReused,
    Tamper::WriteWithoutContext,
    Tamper::WritersContextCoversAll,
    Tamper::ContextCoversUnseen,
];
const REPLICATION_BUGS: [Tamper; 5] = [
    Tamper::AcknowledgedAndDropped,
    Tamper::AcknowledgedBeforeCommit,
    Tamper::VoteCountedTwice,
    Tamper::QuorumOffByOne,
    Tamper::AcknowledgedBeforeSync,
];
/// Traces of each bug.
const TRACES_OF_BUG: usize = 3;
/// Seeds that are tried for them: the bugs above show in a few.
const SEEDS_OF_BUG: u64 = 400;
/// Traces of which each alteration is made.
const ALTERED: usize = 40;

/// Runs of which traces are made.
struct Runs<T> {
    plan: fn(u64) -> Plan,
    play: fn(Sim) -> (Report, Option<T>),
    is_usable: fn(&T) -> bool,
}

/// Of the specifications that forget nothing.
const LASTING: Runs<Trace> =
    Runs { plan: Plan::short, play: Sim::run_recorded, is_usable: Trace::is_usable };

/// Plays seeds from `from` on until there are `count` traces of each kind of runs, and writes them.
///
/// # Errors
/// A file cannot be written, a rule is broken, or a bug does not show.
pub(crate) fn run(directory: &Path, from: u64, count: u64) -> Result<Verdict, String> {
    let Some(good) = good(&LASTING, from, count) else { return Ok(Verdict::Broken) };
    let of = |is: fn(&Step) -> bool| -> usize {
        good.iter().flat_map(|(_, trace)| &trace.steps).filter(|step| is(step)).count()
    };
    println!(
        "traces: {count} with {} steps: {} writes, {} joins, {} starts",
        of(|_| true),
        of(|step| matches!(step, Step::Write { .. })),
        of(|step| matches!(step, Step::Join { .. })),
        of(|step| matches!(step, Step::Start { .. })),
    );
    write(directory, "causality", &told(&good, Trace::causality))?;
    write(directory, "replication", &told(&good, Trace::replication))?;

    let alter = |kind: Alteration, trace: &Trace| kind.apply(trace);
    let mut bad_causality = altered(&good, &CAUSALITY_ALTERATIONS, alter, Trace::causality);
    let mut bad_replication = altered(&good, &REPLICATION_ALTERATIONS, alter, Trace::replication);
    bad_causality.extend(with_bugs(&LASTING, &CAUSALITY_BUGS, Trace::causality)?);
    bad_replication.extend(with_bugs(&LASTING, &REPLICATION_BUGS, Trace::replication)?);
    write(directory, "bad-causality", &bad_causality)?;
    write(directory, "bad-replication", &bad_replication)?;
    forgetting::run(directory, from, count)
}

/// Traces of runs without a mistake; `None` if a rule is broken in one.
fn good<T>(runs: &Runs<T>, from: u64, count: u64) -> Option<Vec<(u64, T)>> {
    let mut good = Vec::new();
    let mut seed = from;
    while (good.len() as u64) < count {
        let (report, trace) = (runs.play)(Sim::new((runs.plan)(seed), false));
        if let Some(violation) = &report.violation {
            println!("seed {seed} of short plans breaks a rule: {violation:?}");
            return None;
        }
        let counts = report.standing() == Standing::Counts && report.faults.total() > 0;
        good.extend(trace.filter(|it| counts && (runs.is_usable)(it)).map(|trace| (seed, trace)));
        seed += 1;
    }
    println!("seeds {from} to {}", seed - 1);
    Some(good)
}

fn told<T>(good: &[(u64, T)], records: fn(&T) -> Records) -> Vec<Told> {
    good.iter().map(|(seed, trace)| Told::good(format!("seed {seed}"), records(trace))).collect()
}

const CAUSALITY_ALTERATIONS: [Alteration; 3] =
    [Alteration::WrongDot, Alteration::LostSibling, Alteration::Returned];
const REPLICATION_ALTERATIONS: [Alteration; 2] = [Alteration::WrongDot, Alteration::ForgedVote];

fn altered<T, A: Copy + std::fmt::Debug>(
    good: &[(u64, T)],
    kinds: &[A],
    alter: fn(A, &T) -> Option<T>,
    records: fn(&T) -> Records,
) -> Vec<Told> {
    let mut bad = Vec::new();
    for kind in kinds {
        let altered = good.iter().filter_map(|(seed, trace)| {
            let origin = format!("seed {seed}, altered: {kind:?}");
            Some(Told::altered(origin, &records(trace), records(&alter(*kind, trace)?)))
        });
        let altered: Vec<Told> = altered.take(ALTERED).collect();
        println!("altered ({kind:?}): {} traces", altered.len());
        bad.extend(altered);
    }
    bad
}

/// Traces of runs in which a bug was put back and broke a rule of the referee's.
fn with_bugs<T>(
    runs: &Runs<T>,
    bugs: &[Tamper],
    records: fn(&T) -> Records,
) -> Result<Vec<Told>, String> {
    let mut bad = Vec::new();
    for bug in bugs {
        let mut found = 0;
        for seed in 0..SEEDS_OF_BUG {
            let plan = Plan { tamper: Some(*bug), ..(runs.plan)(seed) };
            let (report, trace) = expecting_panics(|| (runs.play)(Sim::new(plan, false)));
            let Some(trace) = trace.filter(|it| report.violation.is_some() && (runs.is_usable)(it))
            else {
                continue;
            };
            bad.push(Told::bad(format!("seed {seed}, bug: {}", bug.name()), records(&trace)));
            found += 1;
            if found == TRACES_OF_BUG {
                break;
            }
        }
        if found < TRACES_OF_BUG {
            return Err(format!("{}: shows in {found} of {SEEDS_OF_BUG} seeds", bug.name()));
        }
        println!("put back ({}): {found} traces", bug.name());
    }
    Ok(bad)
}

fn write(directory: &Path, name: &str, traces: &[Told]) -> Result<(), String> {
    let directory = directory.join(name);
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    tell::write(&directory.join("TraceData.tla"), &module(traces))
}
