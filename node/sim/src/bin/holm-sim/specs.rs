//! Traces for the specifications: what the protocol did in short runs with faults, and the same with
//! a mistake in it, which must be refused.
//!
//! Four modules `TraceData`, each in a directory of its own: `causality` and `replication` are to be
//! accepted, `bad-causality` and `bad-replication` refused, every trace of them.

use std::path::Path;

use holm_sim::plan::Plan;
use holm_sim::sim::{Sim, Standing};
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

/// Plays seeds from `from` on until there are `count` traces, and writes them.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn run(directory: &Path, from: u64, count: u64) -> Result<Verdict, String> {
    let mut good: Vec<(u64, Trace)> = Vec::new();
    let mut seed = from;
    while (good.len() as u64) < count {
        let (report, trace) = Sim::new(Plan::short(seed), false).run_recorded();
        if let Some(violation) = &report.violation {
            println!("seed {seed} of short plans breaks a rule: {violation:?}");
            return Ok(Verdict::Broken);
        }
        let counts = report.standing() == Standing::Counts && report.faults.total() > 0;
        good.extend(trace.filter(|it| counts && it.is_usable()).map(|trace| (seed, trace)));
        seed += 1;
    }
    let of = |is: fn(&Step) -> bool| -> usize {
        good.iter().flat_map(|(_, trace)| &trace.steps).filter(|step| is(step)).count()
    };
    println!(
        "traces: {count} with {} steps from seeds {from} to {}: {} writes, {} joins, {} starts",
        of(|_| true),
        seed - 1,
        of(|step| matches!(step, Step::Write { .. })),
        of(|step| matches!(step, Step::Join { .. })),
        of(|step| matches!(step, Step::Start { .. })),
    );
    let all = |of: fn(&Trace) -> Records| -> Vec<Told> {
        good.iter().map(|(seed, trace)| Told::good(format!("seed {seed}"), of(trace))).collect()
    };
    write(directory, "causality", &all(Trace::causality))?;
    write(directory, "replication", &all(Trace::replication))?;

    let mut bad_causality = altered(&good, &CAUSALITY_ALTERATIONS, Trace::causality);
    let mut bad_replication = altered(&good, &REPLICATION_ALTERATIONS, Trace::replication);
    bad_causality.extend(with_bugs(&CAUSALITY_BUGS, Trace::causality)?);
    bad_replication.extend(with_bugs(&REPLICATION_BUGS, Trace::replication)?);
    write(directory, "bad-causality", &bad_causality)?;
    write(directory, "bad-replication", &bad_replication)?;
    Ok(Verdict::Clean)
}

const CAUSALITY_ALTERATIONS: [Alteration; 3] =
    [Alteration::WrongDot, Alteration::LostSibling, Alteration::Returned];
const REPLICATION_ALTERATIONS: [Alteration; 2] = [Alteration::WrongDot, Alteration::ForgedVote];

fn altered(
    good: &[(u64, Trace)],
    kinds: &[Alteration],
    records: fn(&Trace) -> Records,
) -> Vec<Told> {
    let mut bad = Vec::new();
    for kind in kinds {
        let altered = good.iter().filter_map(|(seed, trace)| {
            let origin = format!("seed {seed}, altered: {kind:?}");
            Some(Told::altered(origin, &records(trace), records(&kind.apply(trace)?)))
        });
        let altered: Vec<Told> = altered.take(ALTERED).collect();
        println!("altered ({kind:?}): {} traces", altered.len());
        bad.extend(altered);
    }
    bad
}

/// Traces of runs in which a bug was put back and broke a rule of the referee's.
fn with_bugs(bugs: &[Tamper], records: fn(&Trace) -> Records) -> Result<Vec<Told>, String> {
    let mut bad = Vec::new();
    for bug in bugs {
        let mut found = 0;
        for seed in 0..SEEDS_OF_BUG {
            let plan = Plan { tamper: Some(*bug), ..Plan::short(seed) };
            let (report, trace) = expecting_panics(|| Sim::new(plan, false).run_recorded());
            let Some(trace) = trace.filter(|it| report.violation.is_some() && it.is_usable())
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
