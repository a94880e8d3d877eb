//! What is recorded of runs that forget, for the specification of stability.

use std::collections::BTreeSet;

use holm_core::peer::Standing;
use holm_sim::check::same_run;
use holm_sim::plan::Plan;
use holm_sim::sim::Sim;
use holm_sim::steps::stability::alter::Alteration;
use holm_sim::steps::stability::{Step, Trace};

const SEEDS: u64 = 150;

fn traces() -> impl Iterator<Item = Trace> {
    (0..SEEDS).map(|seed| {
        let (report, trace) = Sim::new(Plan::forgetting(seed), false).run_forgetting();
        assert!(report.violation.is_none(), "seed {seed}: {report}");
        trace.expect("a short plan has a key")
    })
}

/// Goal: recording changes nothing: the run of a seed is the same with and without.
#[test]
fn recording_what_is_forgotten_changes_nothing() {
    for seed in 0..20 {
        let plain = Sim::new(Plan::forgetting(seed), false).run();
        let (recorded, _) = Sim::new(Plan::forgetting(seed), false).run_forgetting();
        assert_eq!(same_run::check(&plain, &recorded), Ok(()), "seed {seed}");
    }
}

/// Goal: traces have every kind of step, and what makes them worth checking: tombstones that go,
/// logs that are trimmed, gaps, disks that are older and what is found and mended then.
#[test]
fn every_step_towards_forgetting_is_met() {
    let mut met = BTreeSet::new();
    for trace in traces() {
        let mut known = 0;
        for step in &trace.steps {
            met.insert(match step {
                Step::Write(_, _, true, ..) => "delete",
                Step::Write(..) => "put",
                Step::Join(_, _, after) if has_gap(&after.seen) => "join that leaves a gap",
                Step::Join(..) => "join",
                Step::Forget(_, left) if left.context.is_empty() => "tombstone removed",
                Step::Forget(..) => "context cut down",
                Step::Commit(_, after, log, _) if log.len() < after.seen.len() => "log trimmed",
                Step::Commit(_, after, ..) if after.know.iter().count() > known => {
                    known = after.know.iter().count();
                    "stable"
                }
                Step::Commit(..) => "commit",
                Step::Sync(_) => "sync",
                Step::Tell(_, _, claim) if claim.know.is_empty() => "seen is claimed",
                Step::Tell(..) => "known is claimed",
                Step::Hear(..) => "hear",
                Step::Meet(..) => "meet",
                Step::Ask(..) => "ask",
                Step::Answer(..) => "answer",
                Step::Serve(..) => "serve",
                Step::Start(..) => "start",
                Step::Want(..) => "want",
                Step::Page(..) => "page",
                Step::Whole(..) => "whole",
                Step::Stand(_, standing) if *standing == Standing::Behind => "behind",
                Step::Stand(..) => "healed",
                Step::Copy(_) => "copy",
                Step::Replace(_, None) => "empty disk",
                Step::Replace(..) => "older disk",
            });
        }
    }
    assert_eq!(met.len(), 26, "{met:?}");
}

/// Whether a counter is there and one below it is not.
fn has_gap(seen: &[holm_protocol::dot::Dot]) -> bool {
    seen.iter().any(|dot| {
        let below = seen.iter().filter(|it| it.actor == dot.actor && it.counter < dot.counter);
        (below.count() as u64) < dot.counter - 1
    })
}

/// Goal: an alteration changes exactly one step, and each finds one in enough traces.
#[test]
fn alterations_change_one_step_towards_forgetting() {
    for kind in Alteration::ALL {
        let mut changed = 0;
        for trace in traces() {
            let Some(altered) = kind.apply(&trace) else { continue };
            let pairs = trace.steps.iter().zip(&altered.steps);
            assert_eq!(pairs.filter(|(one, other)| one != other).count(), 1, "{kind:?}");
            assert_eq!((trace.steps.len(), trace.runs), (altered.steps.len(), altered.runs));
            changed += 1;
        }
        assert!(changed > SEEDS / 12, "{kind:?} changes only {changed} of {SEEDS} traces");
    }
}

/// Goal: each step becomes a record, in which dots name nodes that there are.
#[test]
fn steps_towards_forgetting_become_records() {
    let trace = traces().find(Trace::is_usable).expect("a usable trace");
    let records = trace.stability();
    assert_eq!(records.len(), trace.steps.len());
    assert!(records.iter().all(|record| !record.contains("<<0,")), "{records:?}");
    let writes = trace.steps.iter().filter(|step| matches!(step, Step::Write(..))).count();
    assert_eq!(records.iter().filter(|record| record.contains("\"write\"")).count(), writes);
}
