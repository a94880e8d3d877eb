//! The long form: rounds of every fault until the time is over, `cargo xtask soak`.
//!
//! `HOLM_SOAK_MINUTES` bounds the time, shared by the faults (1 by default); `HOLM_SOAK_ROUNDS`
//! bounds the rounds of each fault instead; `HOLM_SOAK_ONLY` names one fault; `HOLM_SOAK_SEED` is
//! the seed of the first round, and each next round has the next. A round that fails ends the run:
//! its seed, the command that plays it again and where the nodes' files are, are printed.

use std::time::{Duration, Instant};

use super::cuts::{Harm, Net};
use super::disks::{self, Trouble};
use super::kill::{self, Blow};
use super::power::{self, Sync};
use super::rig::{Rig, Setup};
use super::tally::Tally;
use super::{clocks, rig_or_skip, wipe};
use crate::flips;

/// Rounds on one cluster before the next one is made: long enough that a cluster has a past, short
/// enough that beginnings are met too.
const LIFE: u64 = 20;

/// Rounds with `sync = interval` after which at least one acknowledged write must be lost, or the rig
/// does not see what it is there to see.
const INTERVAL_ROUNDS_MIN: u64 = 20;

/// Clusters of one life after the other: nodes and replicas by region.
const SHAPES: [&[(usize, u8)]; 4] =
    [&[(3, 3)], &[(4, 3)], &[(2, 2), (2, 2)], &[(3, 1), (3, 1), (3, 1)]];

/// What happens to links, each in a cluster of its own.
const HARMS: [(Harm, &[(usize, u8)]); 7] = [
    (Harm::Cut, &[(3, 3)]),
    (Harm::Deaf, &[(3, 3)]),
    (Harm::Mute, &[(3, 3)]),
    (Harm::Region, &[(3, 3), (2, 2)]),
    (Harm::Loss, &[(3, 3)]),
    (Harm::LongPackets, &[(3, 3)]),
    (Harm::Narrow, &[(3, 3)]),
];

/// What can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Power,
    Interval,
    Wipe,
    Disk,
    Clock,
    Cut,
    Flip,
}

impl Fault {
    const ALL: [Fault; 8] = [
        Fault::Kill,
        Fault::Power,
        Fault::Interval,
        Fault::Wipe,
        Fault::Disk,
        Fault::Clock,
        Fault::Cut,
        Fault::Flip,
    ];

    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Power => "power",
            Fault::Interval => "interval",
            Fault::Wipe => "wipe",
            Fault::Disk => "disk",
            Fault::Clock => "clock",
            Fault::Cut => "cut",
            Fault::Flip => "flip",
        }
    }

    /// Rounds of one cluster.
    fn life(self) -> u64 {
        // A node without its disk has no way back yet.
        if self == Fault::Wipe { 1 } else { LIFE }
    }

    /// Whether each of its rounds has a cluster of its own.
    fn is_alone(self) -> bool {
        matches!(self, Fault::Disk | Fault::Clock | Fault::Cut | Fault::Flip)
    }

    /// Whether every write that was acknowledged must be there in the end, whoever acknowledged it.
    fn keeps_all(self) -> bool {
        !matches!(self, Fault::Interval | Fault::Wipe)
    }
}

/// A cluster for this fault. `None` if this machine cannot, with the reason on standard error.
async fn rig(fault: Fault, life: u64) -> Option<Rig> {
    let setup = match fault {
        Fault::Power => power::setup(Sync::Always),
        Fault::Interval => power::setup(Sync::Interval),
        Fault::Wipe => wipe::setup(),
        _ => kill::setup(),
    };
    let shape = SHAPES[life as usize % SHAPES.len()].to_vec();
    let regions = if fault == Fault::Wipe { setup.regions } else { shape };
    rig_or_skip(Setup { regions, ..setup }).await
}

/// Plays one round.
async fn round(rig: &mut Rig, fault: Fault, seed: u64) {
    rig.round(seed, async |rig, load, dice| match fault {
        Fault::Power => power::strike(Sync::Always, rig, load, dice).await,
        Fault::Interval => power::strike(Sync::Interval, rig, load, dice).await,
        Fault::Wipe => wipe::strike(rig, load, dice).await,
        _ => {
            let blow = Blow::ALL[seed as usize % Blow::ALL.len()];
            kill::strike(blow, rig, load, dice).await;
        }
    })
    .await;
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
    while !bound.is_reached(seed - first_seed) {
        let life = seed / fault.life();
        let mut rig = rig(fault, life).await?;
        while seed / fault.life() == life && !bound.is_reached(seed - first_seed) {
            round(&mut rig, fault, seed).await;
            seed += 1;
        }
        // With `sync = interval` a later cut may take what an earlier round saw.
        if fault.keeps_all() {
            rig.look_back().await;
        }
        sum.add(&rig.tally);
        if seed.is_multiple_of(LIFE) {
            println!("{}: until seed {seed}: {sum}", fault.name());
        }
    }
    if fault.keeps_all() {
        assert_eq!((sum.excused, sum.lost_on_disks), (0, 0), "{}: {sum}", fault.name());
    }
    if fault == Fault::Interval && sum.rounds() >= INTERVAL_ROUNDS_MIN {
        assert!(sum.lost > 0, "nothing was lost, so the rig sees nothing: {sum}");
    }
    sum.assert_worth_it();
    Some(sum)
}

/// Plays a fault whose rounds have a cluster each. How many; `None` if this machine cannot.
async fn play_alone(fault: Fault, first_seed: u64, bound: Bound) -> Option<u64> {
    let mut rounds = 0;
    while !bound.is_reached(rounds) {
        let seed = first_seed + rounds;
        match fault {
            Fault::Disk => {
                let trouble = Trouble::ALL[seed as usize % Trouble::ALL.len()];
                let mut rig = rig_or_skip(disks::setup()).await?;
                let mut is_played = false;
                rig.round(seed, async |rig, load, dice| {
                    is_played = disks::strike(trouble, rig, load, dice).await;
                })
                .await;
                if !is_played {
                    return None;
                }
                nothing_is_lost(&mut rig).await;
                println!("{}: seed {seed}, {trouble:?}: {}", fault.name(), rig.tally);
            }
            Fault::Clock => {
                let (mut rig, clocks) = clocks::start().await?;
                rig.round(seed, async |rig, load, dice| {
                    clocks::strike(&clocks, rig, load, dice).await;
                })
                .await;
                nothing_is_lost(&mut rig).await;
                println!("{}: seed {seed}: {}", fault.name(), rig.tally);
            }
            Fault::Cut => {
                let (harm, regions) = HARMS[seed as usize % HARMS.len()];
                let mut net = Net::start(regions).await?;
                net.round(seed, harm).await;
                nothing_is_lost(&mut net.rig).await;
                println!("{}: seed {seed}, {harm:?}: {}", fault.name(), net.rig.tally);
            }
            _ => flips::soak_round(seed).await,
        }
        rounds += 1;
    }
    Some(rounds)
}

/// What faults like these may never take: a write that was acknowledged, or one copy of it.
async fn nothing_is_lost(rig: &mut Rig) {
    rig.look_back().await;
    assert_eq!((rig.tally.excused, rig.tally.lost_on_disks), (0, 0), "{}", rig.tally);
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
    let names = Fault::ALL.map(Fault::name).join(", ");
    assert!(!faults.is_empty(), "no fault is called {only:?}; there are {names}");
    let time = Duration::from_secs(60 * setting("HOLM_SOAK_MINUTES").unwrap_or(1));
    let rounds = setting("HOLM_SOAK_ROUNDS");
    assert!(rounds != Some(0) && !time.is_zero(), "no round was asked for");
    let share = time / faults.len() as u32;
    let (mut summary, mut played) = (Vec::new(), 0);
    for fault in faults {
        let bound = rounds.map_or(Bound::Until(Instant::now() + share), Bound::Rounds);
        let told = if fault.is_alone() {
            let rounds = play_alone(fault, first_seed, bound).await;
            rounds.map(|rounds| format!("{rounds} rounds"))
        } else {
            play(fault, first_seed, bound).await.map(|tally| tally.to_string())
        };
        played += u32::from(told.is_some());
        let told = told.unwrap_or_else(|| "skipped".to_owned());
        summary.push(format!("{}: seeds from {first_seed}: {told}", fault.name()));
    }
    println!("{}", summary.join("\n"));
    assert!(played > 0, "all that was asked for was skipped");
}
