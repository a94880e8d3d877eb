//! A receipt names replicas, and enough of them for its level.
//!
//! Counted here from the layout anew, not by the code under test.

use holm_core::layout::Layout;
use holm_protocol::ids::{NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::message::{Receipt, ReceiptEntry};

use crate::check::{Property, Verdict, Violation};

/// I2.
pub const LEVEL_MET: Property = Property {
    name: "receipts meet their level",
    invariant: "I2",
    statement: "an answer's receipt names distinct replicas of its partition, as many as its level needs; at `one` and `local_quorum` other nodes of the coordinator's region may stand for those of its replicas that are not named, but not in strict buckets",
    source: "Dynamo (SOSP 2007) 4.5; votes by identity",
    tla: Some("tla/Replication.tla!ReceiptMeetsLevel"),
    file: file!(),
};

/// Checks one receipt for an answer at `level`, in a bucket that is `strict` or not.
///
/// # Errors
/// What it lacks.
pub fn check(
    layout: &Layout,
    partition: Partition,
    (level, strict): (Level, bool),
    receipt: &Receipt,
) -> Verdict {
    let broken = |how: String| Err(Violation::new(&LEVEL_MET, how));
    let mut nodes: Vec<NodeId> = receipt.replicas.iter().map(|entry| entry.node).collect();
    nodes.sort_unstable();
    if nodes.windows(2).any(|pair| pair[0] == pair[1]) {
        return broken(format!("a receipt names a node twice: {nodes:?}"));
    }
    let entries = receipt.replicas.iter();
    let stranger = |e: &&ReceiptEntry| layout.is_replica(partition, e.node) == e.fallback;
    if let Some(ReceiptEntry { node, fallback, .. }) = entries.clone().find(stranger) {
        let as_what = if *fallback { "a fallback" } else { "a replica" };
        return broken(format!("a receipt names {node} as {as_what} of {partition}"));
    }
    let fallbacks: Vec<NodeId> =
        entries.filter(|entry| entry.fallback).map(|entry| entry.node).collect();
    let Some(region) = layout.region_of(receipt.coordinator) else {
        return broken(format!("coordinator {} is not in the layout", receipt.coordinator));
    };
    let replicas = layout.replicas(partition).len();
    let home = region;
    if !fallbacks.is_empty() {
        let is_far = fallbacks.iter().any(|&node| layout.region_of(node) != Some(home));
        let local = layout.replicas_in(partition, home);
        let named = local.iter().filter(|replica| nodes.contains(replica)).count();
        let has_none = strict || !matches!(level, Level::One | Level::LocalQuorum);
        if is_far || has_none || named + fallbacks.len() > local.len() {
            return broken(format!("fallbacks at {level} that stand for nobody: {fallbacks:?}"));
        }
    }
    let in_region = |region: RegionId| {
        let members = layout.replicas_in(partition, region);
        let named = members.iter().filter(|member| nodes.contains(member)).count();
        let stand_ins = if region == home { fallbacks.len() } else { 0 };
        (named + stand_ins, members.len())
    };
    let is_majority = |(named, of): (usize, usize)| named > of / 2;
    let met = match level {
        Level::LocalQuorum => is_majority(in_region(region)),
        Level::Quorum => is_majority((nodes.len(), replicas)),
        Level::EachQuorum => (0..layout.regions().len())
            .map(|index| in_region(RegionId(index as u16)))
            .all(|votes| votes.1 == 0 || is_majority(votes)),
        Level::All => nodes.len() == replicas,
        Level::Count(n) => nodes.len() >= usize::from(n),
        _ => !nodes.is_empty(),
    };
    if met && receipt.level == level {
        return Ok(());
    }
    broken(format!("answered at {level} by {} of {replicas} replicas: {nodes:?}", nodes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Shape;

    /// Goal: exact majorities pass, one less, doubles and strangers do not. Method: two regions of
    /// three replicas, all levels.
    #[test]
    fn good_and_bad() {
        let shape = Shape { regions: vec![(4, 3), (3, 3)], zones: 0, bits: 0, shards: 1 };
        let layout = shape.layout();
        let partition = Partition::from_u32(0);
        let local = layout.replicas_in(partition, RegionId(0)).to_vec();
        let remote = layout.replicas_in(partition, RegionId(1)).to_vec();
        let verdict = |level: Level, local_count: usize, remote_count: usize| {
            let nodes = local[..local_count].iter().chain(&remote[..remote_count]);
            let entry = |&node| ReceiptEntry { node, region: RegionId(0), fallback: false };
            let replicas = nodes.map(entry).collect();
            let receipt = Receipt { coordinator: local[0], level, replicas };
            check(&layout, partition, (level, false), &receipt).is_ok()
        };
        assert!(verdict(Level::One, 1, 0) && !verdict(Level::One, 0, 0));
        assert!(verdict(Level::LocalQuorum, 2, 0) && !verdict(Level::LocalQuorum, 1, 3));
        assert!(verdict(Level::Quorum, 1, 3) && !verdict(Level::Quorum, 3, 0));
        assert!(verdict(Level::EachQuorum, 2, 2) && !verdict(Level::EachQuorum, 3, 1));
        assert!(verdict(Level::All, 3, 3) && !verdict(Level::All, 3, 2));
        assert!(verdict(Level::Count(2), 1, 1) && !verdict(Level::Count(2), 1, 0));
        let stranger = layout.nodes().iter().find(|n| !layout.is_replica(partition, n.id)).unwrap();
        for nodes in [vec![local[0], local[0]], vec![local[0], stranger.id]] {
            let entry = |node| ReceiptEntry { node, region: RegionId(0), fallback: false };
            let replicas = nodes.into_iter().map(entry).collect();
            let receipt = Receipt { coordinator: local[0], level: Level::One, replicas };
            assert!(check(&layout, partition, (Level::One, false), &receipt).is_err());
        }
    }

    /// Goal: fallbacks count at the two levels at which they may, for replicas of their region that
    /// are not named, and only if they are none themselves.
    #[test]
    fn fallbacks_stand_for_somebody() {
        let shape = Shape { regions: vec![(5, 3), (4, 3)], zones: 0, bits: 0, shards: 1 };
        let (layout, partition) = (shape.layout(), Partition::from_u32(0));
        let near = layout.preference_list(partition, RegionId(0));
        let far = layout.preference_list(partition, RegionId(1));
        let judged = |asked: (Level, bool), named: &[NodeId], fallbacks: &[NodeId]| {
            let entry =
                |fallback| move |&node| ReceiptEntry { node, region: RegionId(0), fallback };
            let named = named.iter().map(entry(false));
            let replicas = named.chain(fallbacks.iter().map(entry(true))).collect();
            let receipt = Receipt { coordinator: near[0], level: asked.0, replicas };
            check(&layout, partition, asked, &receipt).is_ok()
        };
        let verdict =
            |level, named: &[_], fallbacks: &[_]| judged((level, false), named, fallbacks);
        assert!(verdict(Level::LocalQuorum, &near[..1], &near[3..4]));
        assert!(verdict(Level::LocalQuorum, &[], &near[3..]));
        assert!(!judged((Level::LocalQuorum, true), &[], &near[3..]), "a strict bucket");
        assert!(!judged((Level::One, true), &near[..1], &near[3..4]), "a strict bucket");
        assert!(verdict(Level::LocalQuorum, &near[..1], &near[3..]));
        assert!(verdict(Level::One, &[], &near[3..4]));
        assert!(!verdict(Level::LocalQuorum, &[], &near[3..4]), "one of three");
        assert!(!verdict(Level::LocalQuorum, &near[..2], &near[3..]), "four of three");
        assert!(!verdict(Level::LocalQuorum, &near[..1], &near[1..2]), "a replica");
        assert!(!verdict(Level::LocalQuorum, &near[..1], &far[3..]), "of another region");
        assert!(!verdict(Level::LocalQuorum, &near[3..], &[]), "not said to be one");
        assert!(!verdict(Level::Count(2), &near[..1], &near[3..4]));
        assert!(!verdict(Level::All, &[&near[..2], &far[..3]].concat(), &near[3..4]));
    }
}
