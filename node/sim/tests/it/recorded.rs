//! What is recorded for the specifications.

use std::collections::BTreeSet;

use holm_sim::check::same_run;
use holm_sim::plan::Plan;
use holm_sim::sim::Sim;
use holm_sim::steps::alter::Alteration;
use holm_sim::steps::{Step, Trace};

const SEEDS: u64 = 60;

fn traces() -> impl Iterator<Item = Trace> {
    (0..SEEDS).map(|seed| {
        let (report, trace) = Sim::new(Plan::short(seed), false).run_recorded();
        assert!(report.violation.is_none(), "seed {seed}: {report}");
        trace.expect("a short plan has a key")
    })
}

/// Goal: recording changes nothing: the run of a seed is the same with and without.
#[test]
fn recording_changes_nothing() {
    for seed in 0..20 {
        let plain = Sim::new(Plan::short(seed), false).run();
        let (recorded, _) = Sim::new(Plan::short(seed), false).run_recorded();
        assert_eq!(same_run::check(&plain, &recorded), Ok(()), "seed {seed}");
    }
}

/// Goal: traces have every kind of step, and what makes them worth checking: siblings, deletes,
/// joins of what is not equal, starts after which something is gone.
#[test]
fn every_kind_of_step_is_met() {
    let mut met = BTreeSet::new();
    for trace in traces() {
        let mut before: Option<&Step> = None;
        for step in &trace.steps {
            met.insert(match step {
                Step::Write { delete: true, .. } => "delete",
                Step::Write { under, .. } if under.is_empty() => "blind put",
                Step::Write { .. } => "put",
                Step::Join { got, after, .. } if got == after => "copy",
                Step::Join { .. } => "join",
                Step::Commit { .. } => "commit",
                Step::Start { was, object, .. } => {
                    let last = trace.steps.iter().take_while(|it| *it != step).filter_map(of(*was));
                    let is_lost = last.last().is_some_and(|last| *last != object.context);
                    if is_lost { "start without what was not committed" } else { "start" }
                }
                Step::Told { .. } => "told",
                Step::Read { answer } if answer.live.len() > 1 => "read of siblings",
                Step::Read { .. } => "read",
            });
            before = Some(step);
        }
        assert!(before.is_some(), "nothing was recorded");
    }
    assert_eq!(met.len(), 11, "{met:?}");
}

/// The context of a run's object, from the steps that change it.
fn of<'a>(
    run: holm_protocol::ids::Actor,
) -> impl FnMut(&'a Step) -> Option<&'a holm_protocol::version_vector::VersionVector> {
    move |step| match step {
        Step::Write { at, after, .. } | Step::Join { at, after, .. } if *at == run => {
            Some(&after.context)
        }
        _ => None,
    }
}

/// Goal: an alteration changes exactly one step, and each finds one in most traces.
#[test]
fn alterations_change_one_step() {
    for kind in Alteration::ALL {
        let mut changed = 0;
        for trace in traces() {
            let Some(altered) = kind.apply(&trace) else { continue };
            let pairs = trace.steps.iter().zip(&altered.steps);
            assert_eq!(pairs.filter(|(one, other)| one != other).count(), 1, "{kind:?}");
            assert_eq!((trace.steps.len(), trace.runs), (altered.steps.len(), altered.runs));
            changed += 1;
        }
        assert!(changed > SEEDS / 8, "{kind:?} changes only {changed} of {SEEDS} traces");
    }
}

/// Goal: the specifications get a record for each step, with the runs numbered from 1.
#[test]
fn steps_become_records() {
    let trace = traces().find(Trace::is_usable).expect("a usable trace");
    let causality = trace.causality();
    assert_eq!(causality.len(), trace.steps.len());
    assert!(causality.iter().all(|record| !record.contains("at |-> 0")), "{causality:?}");
    let replication = trace.replication();
    let puts = replication.iter().filter(|record| record.contains("\"put\"")).count();
    let writes = trace.steps.iter().filter(|step| matches!(step, Step::Write { .. })).count();
    assert_eq!(puts, writes);
}
