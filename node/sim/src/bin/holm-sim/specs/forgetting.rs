//! Traces for `Stability`: of runs that forget what every replica has.

use std::path::Path;

use holm_sim::plan::Plan;
use holm_sim::sim::Sim;
use holm_sim::steps::stability::alter::Alteration;
use holm_sim::steps::stability::{Step, Trace};
use holm_sim::tamper::Tamper;

use super::{Runs, altered, good, told, with_bugs, write};
use crate::Verdict;

const FORGETTING: Runs<Trace> =
    Runs { plan: Plan::forgetting, play: Sim::run_forgetting, is_usable: Trace::is_usable };

/// Bugs that are put back: those that a step of the specification would have to be.
const BUGS: [Tamper; 7] = [
    Tamper::StableBySet,
    Tamper::SeenIsStable,
    Tamper::ClaimsUnsynced,
    Tamper::DownReplicaForgotten,
    Tamper::TombstoneRemovedAtOnce,
    Tamper::TombstonesForgotten,
    Tamper::ServesInDoubt,
];

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
        "traces that forget: {count} with {} steps: {} writes, {} claims, {} contexts cut, {} starts",
        of(|_| true),
        of(|step| matches!(step, Step::Write(..))),
        of(|step| matches!(step, Step::Hear(..))),
        of(|step| matches!(step, Step::Forget(..))),
        of(|step| matches!(step, Step::Start(..))),
    );
    write(directory, "stability", &told(&good, Trace::stability))?;
    let alter = |kind: Alteration, trace: &Trace| kind.apply(trace);
    let mut bad = altered(&good, &Alteration::ALL, alter, Trace::stability);
    if std::env::var("PROBE").is_ok() {
        for bug in Tamper::ALL {
            match with_bugs(&FORGETTING, &[bug], Trace::stability) {
                Ok(traces) => bad.extend(traces),
                Err(error) => println!("{error}"),
            }
        }
    } else {
        bad.extend(with_bugs(&FORGETTING, &BUGS, Trace::stability)?);
    }
    write(directory, "bad-stability", &bad)?;
    Ok(Verdict::Clean)
}
