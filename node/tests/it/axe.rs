//! Real processes under the axe: killed, stopped, robbed of their power, while clients work.
//!
//! The clients are the simulator's ([`holm_sim::client`]) and so is the referee
//! ([`holm_sim::referee`]); only the world is real. [`rig`] starts processes and plays rounds;
//! [`load`] plays the clients over [`link`]s; [`verdict`] reads everything at the end; [`held`]
//! reads the disk of a node that is dead, so that what a node has acknowledged is compared with
//! what is on its own disk and not only with what the cluster answers. [`kill`] and [`power`] are
//! what strikes. Each test below is the short form; [`soak`] is the long one, `cargo xtask soak`.

mod clocks;
mod cuts;
mod disks;
mod held;
mod image;
mod kill;
mod link;
mod load;
mod power;
mod rig;
mod soak;
mod tally;
mod verdict;
mod wipe;
mod world;

use kill::Blow;
use power::Sync;
use rig::{Rig, Setup};

use crate::harness::skip;

/// A rig, or nothing and the reason on standard error: not every machine can mount disks.
async fn rig_or_skip(setup: Setup) -> Option<Rig> {
    match Rig::start(setup).await {
        Ok(rig) => Some(rig),
        Err(reason) => {
            skip(&reason);
            None
        }
    }
}

/// Goal: no acknowledged write is lost, none is invented, no rule of the referee is broken, whoever
/// is killed or stopped. Method: one round of each blow on one cluster; what each round left is
/// read again at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_stopped_processes_keep_what_they_acknowledged() {
    let Some(mut rig) = rig_or_skip(kill::setup()).await else { return };
    for (seed, blow) in (1..).zip(Blow::ALL) {
        rig.round(seed, async |rig, load, dice| kill::strike(blow, rig, load, dice).await).await;
    }
    rig.look_back().await;
    rig.tally.assert_worth_it();
    assert_eq!(rig.tally.excused, 0, "{}", rig.tally);
    println!("{}", rig.tally);
}

/// Goal: with `sync = always` a power cut of one machine or of all at once loses no acknowledged
/// write, on no single disk, and makes no node declare amnesia (P1). Method: rounds with the cut at
/// any moment; the disks of the dead nodes are compared with what these acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing_that_was_fsynced() {
    let Some(mut rig) = rig_or_skip(power::setup(Sync::Always)).await else { return };
    for seed in 1..=4 {
        rig.round(seed, async |rig, load, dice| {
            power::strike(Sync::Always, rig, load, dice).await;
        })
        .await;
    }
    rig.look_back().await;
    rig.tally.assert_worth_it();
    assert_eq!((rig.tally.excused, rig.tally.lost_on_disks), (0, 0), "{}", rig.tally);
    println!("{}", rig.tally);
}

/// Goal: the rig sees a missing fsync. Method: the same with `sync = interval`, which promises
/// less: disks lose writes, acknowledged ones among them when all machines lose power, and never
/// one that a node which acknowledged it still has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_show_a_missing_fsync() {
    let Some(mut rig) = rig_or_skip(power::setup(Sync::Interval)).await else { return };
    for seed in 1..=20 {
        rig.round(seed, async |rig, load, dice| {
            power::strike(Sync::Interval, rig, load, dice).await;
        })
        .await;
        if rig.tally.lost > 0 {
            println!("{}", rig.tally);
            return;
        }
    }
    panic!("nothing was lost, so the rig sees no missing fsync: {}", rig.tally);
}

/// Goal: a node that loses its disk for ever costs no write that another acknowledging node has (P2).
/// Method: one round in which a node comes back with an empty disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_lost_for_ever_costs_what_only_it_had() {
    let Some(mut rig) = rig_or_skip(wipe::setup()).await else { return };
    rig.round(1, async |rig, load, dice| wipe::strike(rig, load, dice).await).await;
    rig.tally.assert_worth_it();
    println!("{}", rig.tally);
}
