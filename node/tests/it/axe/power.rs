//! Machines that lose power.
//!
//! With `sync = always` a node acknowledges what is on its disk: nothing acknowledged is lost, and
//! no node may take the cut for a loss and declare amnesia. With `sync = interval` a node may lose
//! its last moments; a write is gone only if all disks that had it have lost it. That the rig sees
//! such losses shows that it would see a missing fsync.

use super::load::Load;
use super::rig::{Rig, Setup};
use crate::harness::Dice;

/// Acknowledged writes between two cuts.
const BETWEEN: u64 = 40;

/// When nodes fsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before they acknowledge.
    Always,
    /// Now and then.
    Interval,
}

/// Three nodes on disks of their own.
pub(crate) fn setup(sync: Sync) -> Setup {
    let (flags, kind) = match sync {
        Sync::Always => (vec!["--store-sync=always"], "power"),
        Sync::Interval => (vec!["--store-sync=interval"], "interval"),
    };
    let repeat = format!("cargo xtask soak --only {kind}");
    Setup { regions: vec![(3, 3)], images: true, flags, repeat }
}

/// Cuts the power: of one machine, or of all at once in every second round.
pub(crate) async fn strike(sync: Sync, rig: &mut Rig, load: &Load, dice: &mut Dice) {
    let all: Vec<usize> = (0..rig.nodes.len()).collect();
    let one = [dice.below(all.len())];
    let victims = if dice.below(2) == 0 { &one[..] } else { &all[..] };
    load.more(1 + dice.below(80) as u64).await;
    let frozen = dice.below(2) == 0;
    rig.cut_power(victims, frozen, sync == Sync::Interval);
    rig.until_whole().await;
    let forgetful = rig.forgetful();
    rig.tally.amnesia += forgetful.len() as u64;
    assert!(
        forgetful.is_empty(),
        "a power cut of {victims:?} (frozen: {frozen}) under sync = {sync:?} made {forgetful:?} \
         declare amnesia"
    );
    load.more(BETWEEN).await;
}
