//! Clocks that jump by an hour under load: safety does not depend on them.
//!
//! What single writes are told is in [`crate::clock_jumps`]; here the simulator's clients are at work
//! and its referee judges. Last-writer-wins keys are among them.

use std::path::Path;

use super::load::Load;
use super::rig::{Rig, Setup};
use crate::harness::Dice;
use crate::harness::clock::FakeClock;
use crate::harness::holmd::Holmd;
use crate::harness::pki::Pki;

/// Acknowledged writes between two jumps.
const BETWEEN: u64 = 60;
/// The farthest a clock is set from the time, seconds.
const FAR_S: i64 = 3_600;

/// A rig whose nodes have clocks of their own. `None`, with the reason on standard error, where they
/// cannot.
pub(crate) async fn start() -> Option<(Rig, Vec<FakeClock>)> {
    let setup = Setup {
        regions: vec![(3, 3)],
        images: false,
        flags: vec![],
        repeat: "cargo xtask soak --only clock".to_owned(),
    };
    let mut clocks = Vec::new();
    let make = |place: (&Pki, &Path), id: u64| {
        let mut node = Holmd::new(place.0, place.1, id, &[]);
        clocks.extend(FakeClock::give(&mut node));
        node
    };
    let rig = Rig::start_with(setup, make).await.unwrap_or_else(|why| panic!("{why}"));
    (clocks.len() == rig.nodes.len()).then_some((rig, clocks))
}

/// Lets one node's clock jump ahead, back, behind and back; then restarts it, because its readings do
/// not go back.
pub(crate) async fn strike(clocks: &[FakeClock], rig: &mut Rig, load: &Load, dice: &mut Dice) {
    let victim = dice.below(clocks.len());
    rig.clocks_ran_ahead = true;
    for ahead_s in [FAR_S, 0, -FAR_S, dice.below(FAR_S as usize) as i64, 0] {
        clocks[victim].set(ahead_s);
        load.more(BETWEEN).await;
    }
    rig.kill(victim);
    rig.examine(victim, false);
    rig.spawn(victim);
    rig.until_whole().await;
}

/// Goal: whatever one node's clock does, no acknowledged write is lost and no dot used twice. Method:
/// two rounds of jumps, and what they left read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jumping_clocks_lose_nothing() {
    let Some((mut rig, clocks)) = start().await else { return };
    for seed in 1..=2 {
        rig.round(seed, async |rig, load, dice| strike(&clocks, rig, load, dice).await).await;
    }
    rig.look_back().await;
    assert_eq!(rig.tally.excused, 0, "{}", rig.tally);
    eprintln!("{}", rig.tally);
}
