//! Seeds, and the tests of the tester.

use holm_sim::check::same_run;
use holm_sim::cluster::FaultTally;
use holm_sim::plan::{FaultKind, Mode, Plan};
use holm_sim::sim::{Report, Sim, Standing};
use holm_sim::tamper::Tamper;

/// Seeds played for every change. Arbitrary: long runs are `cargo xtask sim --seeds N`.
const SEEDS: u64 = 400;
/// Seeds within which a bug that was put back must be found.
const TAMPER_SEEDS_MAX: u64 = 1_000;
/// Seeds of one kind of fault within which it must have had an effect.
const NEMESIS_SEEDS: u64 = 60;

/// Goal: no rule is broken, whatever the seed decides. Method: many seeds, and no fewer than half
/// of the runs' calls ok.
#[test]
fn seeds_break_no_rule() {
    let mut idle = 0;
    for seed in 0..SEEDS {
        let report = Sim::run_seed(seed);
        assert!(report.violation.is_none(), "{report}");
        idle += u64::from(report.standing() != Standing::Counts);
    }
    assert!(idle < SEEDS / 8, "{idle} of {SEEDS} runs hardly did anything");
}

/// Goal: the same seed takes the same steps (I12), and another seed others.
#[test]
fn a_seed_is_one_run() {
    for seed in [3, 21, 70] {
        let play = |seed| -> Report { Sim::new(Plan::from_seed(seed), true).run() };
        let (one, two, other) = (play(seed), play(seed), play(seed + 1));
        assert_eq!(same_run::check(&one, &two), Ok(()));
        assert_eq!(one.trace, two.trace);
        assert!(same_run::check(&one, &other).is_err());
    }
}

/// Goal: without faults nothing is refused but for overload, and nothing is unknown.
#[test]
fn calm_runs_are_calm() {
    for seed in 0..30 {
        let mut plan = Plan::with_mode(seed, Mode::Calm);
        plan.shard.in_flight_max = 64;
        // Longer than any round trip that a plan has.
        plan.clients.iter_mut().for_each(|client| client.timeout_ms = 2_000);
        let report = Sim::new(plan, false).run();
        assert!(report.violation.is_none(), "{report}");
        assert_eq!(report.outcomes.unknown, 0, "seed {seed}");
    }
}

/// Goal: every knob turns something. Method: each kind of fault alone, and the effects that it is
/// there for.
#[test]
fn every_fault_has_an_effect() {
    for kind in FaultKind::ALL {
        let mut tally = FaultTally::default();
        for seed in 0..NEMESIS_SEEDS {
            let report = Sim::new(Plan::with_mode(seed, Mode::Nemesis(kind)), false).run();
            assert!(report.violation.is_none(), "{report}");
            tally.add(&report.faults);
        }
        assert!(tally.of(kind) > 0, "{kind:?} had no effect: {tally:?}");
    }
}

/// Goal: the kinds of a pair strike in the same runs, not just stand in the same plans. Method: the
/// pairs of a round of seeds; of most, both kinds' effects are seen in one run.
#[test]
fn pairs_strike_together() {
    let mut together = 0;
    for seed in 0..Mode::ROUND {
        let plan = Plan::from_seed(seed);
        let Mode::Pair(one, other) = plan.mode else { continue };
        let report = Sim::new(plan, false).run();
        assert!(report.violation.is_none(), "{report}");
        together += usize::from(report.faults.of(one) > 0 && report.faults.of(other) > 0);
    }
    assert!(together > FaultKind::PAIRS / 2, "{together} of {}", FaultKind::PAIRS);
}

/// Goal: each bug that is put back is found, and the rule that is there for it finds it. Method:
/// seeds until that rule is the first to be broken.
#[test]
fn put_back_bugs_are_found() {
    let missed: Vec<&str> = Tamper::ALL
        .into_iter()
        .filter(|&tamper| {
            !(0..TAMPER_SEEDS_MAX).any(|seed| {
                let plan = Plan { tamper: Some(tamper), ..Plan::from_seed(seed) };
                let violation = Sim::new(plan, false).run().violation;
                violation.is_some_and(|found| found.property == tamper.facts().caught_by)
            })
        })
        .map(Tamper::name)
        .collect();
    assert_eq!(missed, [""; 0], "not found within {TAMPER_SEEDS_MAX} seeds");
}
