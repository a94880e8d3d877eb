//! What each kind of fault does to the cluster when it begins, in its middle, and when it ends.

use crate::cluster::Cluster;
use crate::plan::{Fault, FaultKind};

/// A fault begins.
pub(super) fn begin(fault: &Fault, cluster: &mut Cluster) {
    let Fault { kind, node, other, strength, .. } = *fault;
    let hold_us = u64::from(strength) * 5_000;
    match kind {
        FaultKind::Loss => cluster.set_weather(|w| w.loss = 5 * strength),
        FaultKind::Duplicate => {
            cluster.set_weather(|w| (w.duplicate, w.hold_us) = (5 * strength, hold_us));
        }
        FaultKind::Reorder => {
            cluster.set_weather(|w| (w.reorder, w.hold_us) = (5 * strength, hold_us));
        }
        FaultKind::ReplyLoss => cluster.lose_replies(5 * strength),
        FaultKind::Cut | FaultKind::OneWayCut | FaultKind::PartialCut | FaultKind::RegionCut => {
            cut(fault, true, cluster);
        }
        FaultKind::Kill => cluster.crash(node),
        FaultKind::DieInCommit => cluster.die_in_commit(node),
        FaultKind::PowerCut => cluster.power_cut(node),
        FaultKind::Blackout => {
            let all: Vec<_> = cluster.node_ids().collect();
            all.into_iter().for_each(|node| cluster.power_cut(node));
        }
        FaultKind::TornWrite => cluster.tear_next_commit(node),
        FaultKind::Wipe => {
            cluster.crash(node);
            cluster.wipe(node);
        }
        FaultKind::Restore => {
            cluster.crash(node);
            cluster.restore_disk(node);
        }
        FaultKind::Clone => {
            cluster.crash(node);
            cluster.clone_disk(node, other);
        }
        FaultKind::Pause => cluster.pause(node, cluster.now_us() + fault.for_us),
        FaultKind::SlowNode => cluster.slow_node(node, 1_000 * u64::from(strength)),
        FaultKind::SlowDisk => cluster.slow_disk(node, 2 + u64::from(strength)),
        FaultKind::FullDisk => cluster.set_free(node, Some(20 * strength as usize)),
        // At the last step of a commit, or before it: then nothing of it can be read. And with a disk
        // that goes, what is not in memory cannot be read either.
        FaultKind::CommitError => cluster.set_store_faults(node, |f| {
            (f.commits_fail, f.failed_shows) = (true, strength.is_multiple_of(2));
            f.scans_fail = !strength.is_multiple_of(3);
        }),
        FaultKind::ReadError => cluster.set_store_faults(node, |f| f.reads_fail = true),
        FaultKind::Damage => cluster.damage(node),
        FaultKind::Skew => cluster.set_skew(node, (i64::from(strength) - 50) * 40),
        FaultKind::ClockJump => cluster.set_skew(node, fault.jump_ms()),
        FaultKind::Drift => cluster.set_drift(node, i64::from(strength) - 50),
        FaultKind::Doubt => doubt(fault, true, cluster),
    }
}

/// Half of a fault's time is over.
pub(super) fn turn(fault: &Fault, cluster: &mut Cluster) {
    if fault.kind == FaultKind::ClockJump {
        cluster.set_skew(fault.node, -fault.jump_ms());
    }
}

/// A fault ends.
pub(super) fn end(fault: &Fault, cluster: &mut Cluster) {
    let node = fault.node;
    match fault.kind {
        FaultKind::Loss => cluster.set_weather(|w| w.loss = 0),
        FaultKind::Duplicate => cluster.set_weather(|w| w.duplicate = 0),
        FaultKind::Reorder => cluster.set_weather(|w| w.reorder = 0),
        FaultKind::ReplyLoss => cluster.lose_replies(0),
        FaultKind::Cut | FaultKind::OneWayCut | FaultKind::PartialCut | FaultKind::RegionCut => {
            cut(fault, false, cluster);
        }
        FaultKind::Kill
        | FaultKind::DieInCommit
        | FaultKind::PowerCut
        | FaultKind::Wipe
        | FaultKind::Restore
        | FaultKind::Clone => cluster.restart(node),
        FaultKind::TornWrite => {
            cluster.set_store_faults(node, |f| f.tears = false);
            cluster.restart(node);
        }
        FaultKind::Blackout => {
            let all: Vec<_> = cluster.node_ids().collect();
            all.into_iter().for_each(|node| cluster.restart(node));
        }
        FaultKind::SlowNode => cluster.slow_node(node, 0),
        FaultKind::SlowDisk => cluster.slow_disk(node, 1),
        FaultKind::FullDisk => cluster.set_free(node, None),
        FaultKind::CommitError => {
            cluster.set_store_faults(node, |f| (f.commits_fail, f.scans_fail) = (false, false));
        }
        FaultKind::ReadError => cluster.set_store_faults(node, |f| f.reads_fail = false),
        // Ends by itself; stays until the row is written again or all faults end.
        FaultKind::Pause | FaultKind::Damage => {}
        FaultKind::Skew | FaultKind::ClockJump => cluster.set_skew(node, 0),
        FaultKind::Drift => cluster.set_drift(node, 0),
        FaultKind::Doubt => doubt(fault, false, cluster),
    }
}

fn doubt(fault: &Fault, doubted: bool, cluster: &mut Cluster) {
    for by in fault.doubters(cluster.node_ids()) {
        cluster.set_doubted(by, fault.node, doubted);
    }
}

fn cut(fault: &Fault, cut: bool, cluster: &mut Cluster) {
    let Fault { kind, node, other, .. } = *fault;
    match kind {
        FaultKind::RegionCut => cluster.set_region_cut(cluster.region_of(node), cut),
        FaultKind::PartialCut => {
            let (one, two) = fault.sides(cluster.node_ids());
            cluster.set_partial_cut((&one, &two), (cut, fault.is_both_ways()));
        }
        // A plan that lost nodes may have a link from a node to itself.
        _ if node == other => {}
        _ => cluster.set_cut(node, other, (cut, kind == FaultKind::Cut)),
    }
}
