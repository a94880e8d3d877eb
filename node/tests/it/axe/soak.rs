//! The long form: rounds of every fault until the time is over, `cargo xtask soak`.
//!
//! `HOLM_SOAK_MINUTES` bounds the time, shared by the faults (1 by default); `HOLM_SOAK_ROUNDS`
//! bounds the rounds of each fault instead; `HOLM_SOAK_ONLY` names one fault; `HOLM_SOAK_SEED` is
//! the seed of the first round, and each next round has the next. A round that fails ends the run:
//! its seed, the command that plays it again and where the nodes' files are, are printed.

use std::time::{Duration, Instant};

use super::kill::{self, Blow};
use super::power::{self, Sync};
use super::rig::{Rig, Setup};
use super::tally::Tally;

/// Rounds on one cluster before the next one is made: long enough that a cluster has a past, short
/// enough that beginnings are met too.
const LIFE: u64 = 20;

/// Rounds with `sync = interval` after which at least one acknowledged write must be lost, or the rig
/// does not see what it is there to see.
const INTERVAL_ROUNDS_MIN: u64 = 20;

/// Clusters of one life after the other: nodes and replicas by region.
const SHAPES: [&[(usize, u8)]; 4] =
    [&[(3, 3)], &[(4, 3)], &[(2, 2), (2, 2)], &[(3, 1), (3, 1), (3, 1)]];

/// What can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Power,
    Interval,
}

impl Fault {
    const ALL: [Fault; 3] = [Fault::Kill, Fault::Power, Fault::Interval];

    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Power => "power",
            Fault::Interval => "interval",
        }
    }

    fn setup(self, life: u64) -> Setup {
        let setup = match self {
            Fault::Kill => kill::setup(),
            Fault::Power => power::setup(Sync::Always),
            Fault::Interval => power::setup(Sync::Interval),
        };
        let regions = SHAPES[life as usize % SHAPES.len()].to_vec();
        Setup { regions, ..setup }
    }

    async fn round(self, rig: &mut Rig, seed: u64) {
        rig.round(seed, async |rig, load, dice| match self {
            Fault::Kill => {
                let blow = Blow::ALL[seed as usize % Blow::ALL.len()];
                kill::strike(blow, rig, load, dice).await;
            }
            Fault::Power => power::strike(Sync::Always, rig, load, dice).await,
            Fault::Interval => power::strike(Sync::Interval, rig, load, dice).await,
        })
        .await;
    }
}

/// How long it goes on.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Until(Instant),
    Rounds(u64),
}

impl Bound {
    fn is_reached(self, rounds: u64) -> bool {
        match self {
            Bound::Until(end) => Instant::now() >= end,
            Bound::Rounds(most) => rounds >= most,
        }
    }
}

/// A number in this run's settings.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")))
}

/// Plays one fault on one cluster after the other. `None` if this machine cannot.
async fn play(fault: Fault, first_seed: u64, bound: Bound) -> Option<Tally> {
    let mut sum = Tally::default();
    let mut seed = first_seed;
    while !bound.is_reached(sum.rounds()) {
        let life = seed / LIFE;
        let mut rig = super::rig_or_skip(fault.setup(life)).await?;
        while seed / LIFE == life && !bound.is_reached(sum.rounds() + rig.tally.rounds()) {
            fault.round(&mut rig, seed).await;
            seed += 1;
        }
        // With `sync = interval` a later cut may take what an earlier round saw.
        if fault != Fault::Interval {
            rig.look_back().await;
        }
        sum.add(&rig.tally);
        println!("{}: until seed {seed}: {sum}", fault.name());
    }
    Some(sum)
}

/// Goal: what the short forms show in a few rounds, for as long as asked, on clusters of several
/// shapes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as asked: cargo xtask soak"]
async fn soak() {
    let first_seed = setting("HOLM_SOAK_SEED").unwrap_or(1);
    let only = std::env::var("HOLM_SOAK_ONLY").ok();
    let is_asked = |fault: &Fault| only.as_deref().is_none_or(|name| name == fault.name());
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(is_asked).collect();
    assert!(!faults.is_empty(), "no fault is called {only:?}");
    let time = Duration::from_secs(60 * setting("HOLM_SOAK_MINUTES").unwrap_or(1));
    let rounds = setting("HOLM_SOAK_ROUNDS");
    let share = time / faults.len() as u32;
    for fault in faults {
        let bound = rounds.map_or(Bound::Until(Instant::now() + share), Bound::Rounds);
        let Some(tally) = play(fault, first_seed, bound).await else { continue };
        tally.assert_worth_it();
        match fault {
            Fault::Kill | Fault::Power => {
                assert_eq!((tally.lost, tally.lost_on_disks), (0, 0), "{tally}");
            }
            Fault::Interval if tally.rounds() >= INTERVAL_ROUNDS_MIN => {
                assert!(tally.lost > 0, "nothing was lost, so the rig sees nothing: {tally}");
            }
            Fault::Interval => {}
        }
        println!("{}: seeds from {first_seed}: {tally}", fault.name());
    }
}
