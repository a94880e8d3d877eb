//! Traces for `Stability`: of runs that forget what every replica has.

use std::path::Path;

use holm_sim::plan::Plan;
use holm_sim::sim::Sim;
use holm_sim::steps::stability::alter::Alteration;
use holm_sim::steps::stability::{Step, Trace};
use holm_sim::steps::tla::Told;
use holm_sim::tamper::Tamper;

use super::{Runs, SEEDS_OF_BUG, TRACES_OF_BUG, altered, good, told, with_bugs, write};
use crate::Verdict;
use crate::figures::expecting_panics;

const FORGETTING: Runs<Trace> =
    Runs { plan: Plan::forgetting, play: Sim::run_forgetting, is_usable: Trace::is_usable };

/// Bugs that are put back: those that a step of the specification would have to be.
const BUGS: [Tamper; 11] = [
    Tamper::StableBySet,
    Tamper::SeenIsStable,
    Tamper::ClaimsUnsynced,
    Tamper::DownReplicaForgotten,
    Tamper::TombstoneRemovedAtOnce,
    Tamper::TombstonesForgotten,
    Tamper::ServesInDoubt,
    Tamper::AmnesiaUnnoticed,
    Tamper::RestoredDiskKeepsActor,
    Tamper::LogWithoutObject,
    Tamper::JoinKeepsCovered,
];
/// Those of which the first difference that they make is no step, long before it does any harm.
const BUGS_AT_ONCE: [Tamper; 1] = [Tamper::ComparesOneWay];

/// Plays seeds and writes their traces, and others with mistakes.
///
/// # Errors
/// A file cannot be written, or a bug does not show.
pub(super) fn run(directory: &Path, from: u64, count: u64) -> Result<Verdict, String> {
    let Some(good) = good(&FORGETTING, from, count) else { return Ok(Verdict::Broken) };
    let of = |is: fn(&Step) -> bool| -> usize {
        good.iter().flat_map(|(_, trace)| &trace.steps).filter(|step| is(step)).count()
    };
    println!(
        "traces that forget: {count} with {} steps: {} writes, {} claims heard, {} contexts cut, {} starts, {} resyncs",
        of(|_| true),
        of(|step| matches!(step, Step::Write(..))),
        of(|step| matches!(step, Step::Hear(..))),
        of(|step| matches!(step, Step::Forget(..))),
        of(|step| matches!(step, Step::Start(..))),
        of(|step| matches!(step, Step::Whole(..))),
    );
    write(directory, "stability", &told(&good, Trace::stability))?;
    let alter = |kind: Alteration, trace: &Trace| kind.apply(trace);
    let mut bad = altered(&good, &Alteration::ALL, alter, Trace::stability);
    bad.extend(with_bugs(&FORGETTING, &BUGS, Trace::stability)?);
    for bug in BUGS_AT_ONCE {
        bad.extend(at_once(bug)?);
    }
    write(directory, "bad-stability", &bad)?;
    Ok(Verdict::Clean)
}

/// Traces of runs in which a bug made a difference.
fn at_once(bug: Tamper) -> Result<Vec<Told>, String> {
    let played = |plan| expecting_panics(|| Sim::new(plan, false).run_forgetting()).1;
    let bad = |seed| {
        let plan = Plan::forgetting(seed);
        let trace = played(Plan { tamper: Some(bug), ..plan.clone() })?;
        let differs = trace.is_usable() && played(plan)? != trace;
        let origin = format!("seed {seed}, bug: {}", bug.name());
        differs.then(|| Told::bad(origin, trace.stability()))
    };
    let bad: Vec<Told> = (0..SEEDS_OF_BUG).filter_map(bad).take(TRACES_OF_BUG).collect();
    println!("put back ({}): {} traces", bug.name(), bad.len());
    if bad.len() < TRACES_OF_BUG {
        return Err(format!("{}: shows in {} of {SEEDS_OF_BUG} seeds", bug.name(), bad.len()));
    }
    Ok(bad)
}
