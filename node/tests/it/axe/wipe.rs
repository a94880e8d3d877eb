//! A node that loses its disk for ever.
//!
//! What it acknowledged is owed by the others that acknowledged it too: a write survives the loss of
//! all but one of them (P2). The node learns from the others that it has forgotten; from then on it
//! takes writes and answers no reads, until there is a way to resynchronise. So a cluster has one
//! such round, and is read at all the other replicas at its end.

use super::load::Load;
use super::rig::{Rig, Setup};
use crate::harness::Dice;

/// Acknowledged writes after the loss.
const AFTER: u64 = 60;

/// Three nodes on plain directories.
pub(crate) fn setup() -> Setup {
    Setup {
        regions: vec![(3, 3)],
        images: false,
        flags: vec![],
        repeat: "cargo xtask soak --only wipe".to_owned(),
    }
}

/// Takes one node's disk.
pub(crate) async fn strike(rig: &mut Rig, load: &Load, dice: &mut Dice) {
    let victim = dice.below(rig.nodes.len());
    load.more(1 + dice.below(100) as u64).await;
    rig.wipe(victim);
    let node = &rig.nodes[victim];
    node.until_metric("holm_node_amnesia", 1.0).await;
    rig.until_whole().await;
    rig.tally.amnesia += 1;
    load.more(AFTER).await;
}
