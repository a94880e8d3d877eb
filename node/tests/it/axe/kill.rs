//! Processes that are killed and processes that stand still.
//!
//! A killed process loses nothing that it wrote, whatever `sync` says: the kernel has it. What can
//! go wrong is an acknowledgement before the commit, a dot that is used again by the next run, a
//! request id that is forgotten, a start that takes its own unfinished work for damage.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::load::Load;
use super::rig::{Rig, Setup};
use crate::harness::Dice;

/// Acknowledged writes between two blows.
const BETWEEN: u64 = 40;

/// One kind of blow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blow {
    /// One process is killed, the others go on, and it comes back.
    One,
    /// All are killed at once.
    All,
    /// One is killed again and again while it starts.
    Loop,
    /// One stands still and goes on.
    Pause,
    /// All stand still and go on.
    PauseAll,
}

impl Blow {
    pub(crate) const ALL: [Blow; 5] =
        [Blow::One, Blow::All, Blow::Loop, Blow::Pause, Blow::PauseAll];
}

/// Three nodes on plain directories.
pub(crate) fn setup() -> Setup {
    Setup {
        regions: vec![(3, 3)],
        images: false,
        flags: vec![],
        repeat: "cargo xtask soak --only kill".to_owned(),
    }
}

/// Strikes.
pub(crate) async fn strike(blow: Blow, rig: &mut Rig, load: &Load, dice: &mut Dice) {
    let all: Vec<usize> = (0..rig.nodes.len()).collect();
    let victim = dice.below(all.len());
    load.more(1 + dice.below(60) as u64).await;
    match blow {
        Blow::One => {
            rig.kill(victim);
            rig.examine(victim, false);
            load.more(BETWEEN).await;
            rig.spawn(victim);
        }
        Blow::All => {
            rig.kill_all(&all);
            all.iter().for_each(|&at| rig.examine(at, false));
            all.iter().for_each(|&at| rig.spawn(at));
        }
        Blow::Loop => {
            for _ in 0..3 + dice.below(3) {
                rig.kill(victim);
                rig.examine(victim, false);
                rig.spawn(victim);
                sleep(Duration::from_millis(dice.below(150) as u64)).await;
            }
        }
        Blow::Pause => {
            rig.nodes[victim].signal(Signal::STOP);
            // Up to beyond the silence after which nodes and clients give a connection up.
            sleep(Duration::from_millis(50 + dice.below(3_500) as u64)).await;
            rig.nodes[victim].signal(Signal::CONT);
            rig.tally.pauses += 1;
        }
        Blow::PauseAll => {
            all.iter().for_each(|&at| rig.nodes[at].signal(Signal::STOP));
            sleep(Duration::from_millis(50 + dice.below(1_500) as u64)).await;
            all.iter().for_each(|&at| rig.nodes[at].signal(Signal::CONT));
            rig.tally.pauses += all.len() as u64;
        }
    }
    rig.until_whole().await;
    assert!(rig.forgetful().is_empty(), "a killed process is no reason for amnesia");
}
