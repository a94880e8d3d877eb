//! Machines that lose power.
//!
//! With `sync = always` a node acknowledges what is on its disk: nothing acknowledged is lost, and
//! no node may take the cut for a loss and declare amnesia. With `sync = interval` a node may lose
//! its last moments; a write is gone only if all disks that had it have lost it. That the rig sees
//! such losses shows that it would see a missing fsync.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::image::{Image, Yard};
use super::load::Load;
use super::rig::{Rig, Setup};
use crate::harness::holmd::Holmd;
use crate::harness::pki::Pki;
use crate::harness::{Dice, skip};

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
    let may_lose = sync == Sync::Interval;
    rig.cut_power(victims, frozen, may_lose);
    // Power that comes back seldom stays at once: the machines are met while they start.
    for _ in 0..dice.below(3) {
        sleep(Duration::from_millis(dice.below(250) as u64)).await;
        rig.cut_power(victims, true, may_lose);
    }
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

/// Goal: power may be lost at any moment of a first start; the next one makes a store that is sound
/// and knows that it has lost nothing. Method: a new node, cut off after a random short time, then
/// left alone; again with an empty disk.
#[tokio::test]
async fn a_first_start_may_lose_power() {
    let yard = match Yard::with_mounts() {
        Ok(yard) => yard,
        Err(reason) => return skip(&reason),
    };
    let mut node = Holmd::new(&Pki::new(), yard.path(), 1, &[]);
    let data = node.file("data");
    let image = Image::new(&yard, 1, &data).unwrap();
    node.launcher = image.launcher();
    let mut dice = Dice(9);
    for _ in 0..12 {
        node.spawn();
        sleep(Duration::from_millis(dice.below(120) as u64)).await;
        node.signal(Signal::STOP);
        assert!(image.cut().wait().unwrap().success());
        node.kill();
        image.restore().unwrap();
        node.start().await;
        assert_eq!(node.metric("holm_node_amnesia").await, 0.0, "{}", node.log());
        node.kill();
        for entry in fs::read_dir(&data).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => fs::remove_dir_all(entry.path()).unwrap(),
                false => fs::remove_file(entry.path()).unwrap(),
            }
        }
    }
    // The process goes before its disk.
    drop(node);
}
