//! What was played, in figures.

use std::fmt;
use std::time::{Duration, Instant};

use holm_sim::referee::OutcomeTally;

/// See the module's head.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    began: Instant,
    rounds: u64,
    /// Rounds in which fewer than half of the operations succeeded: they show little.
    weak_rounds: u64,
    pub(crate) kills: u64,
    pub(crate) pauses: u64,
    pub(crate) power_cuts: u64,
    /// Disks that were lost for ever.
    pub(crate) wipes: u64,
    /// Nodes that declared amnesia.
    pub(crate) amnesia: u64,
    /// Acknowledged writes, each counted on every disk that lost it.
    pub(crate) lost_on_disks: u64,
    /// Acknowledged writes that every disk has lost which had acknowledged them.
    pub(crate) excused: u64,
    /// Those of them that nobody has in the end.
    pub(crate) lost: u64,
    outcomes: OutcomeTally,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            began: Instant::now(),
            rounds: 0,
            weak_rounds: 0,
            kills: 0,
            pauses: 0,
            power_cuts: 0,
            wipes: 0,
            amnesia: 0,
            lost_on_disks: 0,
            excused: 0,
            lost: 0,
            outcomes: OutcomeTally::default(),
        }
    }
}

impl Tally {
    /// A round has ended.
    pub(crate) fn round(&mut self, told: OutcomeTally, excused: u64, lost: u64) {
        let ok = told.acknowledged + told.reads;
        let not_ok = told.not_done + told.unknown + told.reads_failed;
        self.rounds += 1;
        self.weak_rounds += u64::from(ok < not_ok);
        self.excused += excused;
        self.lost += lost;
        self.take(told);
    }

    fn take(&mut self, told: OutcomeTally) {
        let sum = &mut self.outcomes;
        sum.acknowledged += told.acknowledged;
        sum.not_done += told.not_done;
        sum.unknown += told.unknown;
        sum.reads += told.reads;
        sum.reads_failed += told.reads_failed;
        sum.repeats += told.repeats;
        sum.siblings_max = sum.siblings_max.max(told.siblings_max);
    }

    /// Adds what was played on another cluster since.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.rounds += other.rounds;
        self.weak_rounds += other.weak_rounds;
        self.kills += other.kills;
        self.pauses += other.pauses;
        self.power_cuts += other.power_cuts;
        self.wipes += other.wipes;
        self.amnesia += other.amnesia;
        self.lost_on_disks += other.lost_on_disks;
        self.excused += other.excused;
        self.lost += other.lost;
        self.take(other.outcomes);
    }

    /// How many rounds were played.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Whether most rounds were worth playing: a run in which hardly anything succeeds, or nothing
    /// is unknown although processes died, has shown nothing.
    pub(crate) fn assert_worth_it(&self) {
        assert!(2 * self.weak_rounds <= self.rounds, "little succeeded: {self}");
        assert!(self.kills + self.pauses + self.power_cuts > 0, "no fault: {self}");
        assert!(self.outcomes.unknown + self.outcomes.repeats > 0, "no fault was noticed: {self}");
    }

    fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutcomeTally { acknowledged, not_done, unknown, reads, reads_failed, repeats, .. } =
            self.outcomes;
        let Tally {
            rounds,
            kills,
            pauses,
            power_cuts,
            wipes,
            amnesia,
            excused,
            lost,
            lost_on_disks,
            ..
        } = self;
        write!(
            f,
            "{rounds} rounds in {:.0} s: {kills} kills, {pauses} pauses, {power_cuts} power cuts, \
             {wipes} disks; \
             writes: {acknowledged} acknowledged, {unknown} unknown, {not_done} not done, \
             {repeats} repeated; reads: {reads}, {reads_failed} refused; lost: {lost} \
             of {excused} that no acknowledging disk kept, {lost_on_disks} on single disks; \
             amnesia: {amnesia}",
            self.took().as_secs_f64(),
        )
    }
}
