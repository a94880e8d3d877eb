//! The measurements of the module head.

use super::*;

/// Prints the table of the module head: `cargo test -p holm-core measure_moves -- --ignored
/// --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn measure_moves() {
    println!("nodes zones factor parts | max/ideal | join: moves (min) | leave: moves (min)");
    let shapes: &[(u64, u64, u8, u8)] = &[
        (3, 3, 3, 8),
        (4, 3, 3, 8),
        (6, 3, 3, 8),
        (7, 3, 3, 8),
        (9, 3, 3, 8),
        (10, 5, 3, 8),
        (12, 2, 3, 8),
        (20, 4, 3, 8),
        (30, 3, 3, 8),
        (31, 3, 3, 8),
        (100, 1, 3, 8),
        (100, 5, 3, 8),
        (100, 3, 5, 8),
        (1000, 10, 3, 12),
    ];
    for mixed in [false, true] {
        for &(count, zones, factor, bits) in shapes {
            let capacity = |id: u64| if mixed { 1 + (id * 7 % 4) as u32 } else { 4 };
            let before = first(&cluster(count, zones, factor, bits, capacity));
            let joined = after(&before, |spec| {
                let id = count + 1;
                spec.nodes.push(node(id, "r", (count % zones) as usize, 4));
            });
            let join = joined.imbalance(Some(&before));
            let leave = after(&joined, |spec| drop(spec.nodes.remove(1)));
            let left = leave.imbalance(Some(&joined));
            println!(
                "{count:5} {zones:5} {factor:6} {:5} | {:9.3} | {:11} ({:3}) | {:12} ({:3})",
                1 << bits,
                before.imbalance(None).load_over_ideal_max,
                join.moves,
                join.moves_min,
                left.moves,
                left.moves_min,
            );
        }
    }
}

/// Prints what plain rendezvous hashing would do with equal nodes: the preferred nodes of each
/// partition that its zones allow. Balance and moves, to compare with the above.
#[test]
#[ignore = "a measurement, not a test"]
fn measure_rendezvous() {
    let assign = |count: u64, zones: u64| -> Vec<BTreeSet<u64>> {
        let spec = cluster(count, zones, 3, 8, |_| 1).canonical();
        let region = region::Region::new(&spec, &spec.placements[0], "r");
        let pick = |partition: usize| {
            let mut nodes: Vec<u16> = (0..count as u16).collect();
            nodes.sort_by_key(|&node| Reverse(region.weight(partition, node)));
            let mut row = Vec::new();
            for node in nodes {
                if region.may_add(&row, node) {
                    row.push(node);
                }
            }
            row.into_iter().map(|node| spec.nodes[usize::from(node)].id.0).collect()
        };
        (0..region.partitions).map(pick).collect()
    };
    println!("nodes zones | max/ideal | join: moves");
    for (count, zones) in [(4, 3), (6, 3), (10, 5), (20, 4), (31, 3), (100, 5)] {
        let (before, joined) = (assign(count, zones), assign(count + 1, zones));
        let mut loads: BTreeMap<u64, usize> = BTreeMap::new();
        before.iter().flatten().for_each(|&id| *loads.entry(id).or_default() += 1);
        let moves: usize = before.iter().zip(&joined).map(|(a, b)| b.difference(a).count()).sum();
        let most = loads.values().max().copied().unwrap_or(0) as f64;
        println!("{count:5} {zones:5} | {:9.3} | {moves:11}", most * count as f64 / 768.0);
    }
}

/// Only computes a large first layout, so that the harness's time is its time:
/// `cargo test --release -p holm-core measure_large_first -- --ignored`.
#[test]
#[ignore = "a measurement, not a test"]
fn measure_large_first() {
    first(&cluster(1000, 10, 3, 12, |id| 1 + (id % 4) as u32));
}

/// As above, and then doubles the cluster.
#[test]
#[ignore = "a measurement, not a test"]
fn measure_large_change() {
    let layout = first(&cluster(500, 10, 3, 12, |id| 1 + (id % 4) as u32));
    after(&layout, |spec| {
        *spec = LayoutSpec { version: 2, ..cluster(1000, 10, 3, 12, |id| 1 + (id % 4) as u32) }
    });
}

proptest! {
    /// Goal: who stays keeps all it has when others are left out: what they had is shared out, and
    /// nothing else moves. Method: capacities, zones and factors of all kinds, one to all spare nodes
    /// out at once.
    #[test]
    fn who_stays_keeps_all(
        (count, zones, replicas) in (2_u64..12, 1_u64..6, 1_u8..5),
        capacities in proptest::collection::vec(1_u32..5, 12),
        gone in proptest::collection::vec(0_u64..12, 1..3),
    ) {
        let replicas = replicas.min(count as u8);
        let before = first(&cluster(count, zones, replicas, 6, |id| capacities[id as usize]));
        let gone: BTreeSet<NodeId> = gone.into_iter().map(|at| NodeId(at % count + 1)).collect();
        let left = count - gone.len() as u64;
        prop_assume!(left > 0);
        let mut spec = before.spec().clone();
        spec.version += 1;
        spec.nodes.retain(|node| !gone.contains(&node.id));
        spec.placements[0].replication.insert("r".to_owned(), replicas.min(left as u8));
        let after = before.without(spec).unwrap();
        prop_assert_eq!(Layout::decode(&after.encode()).unwrap(), after.clone());
        for node in after.nodes() {
            for partition in before.partitions_of(node.id) {
                prop_assert!(after.is_replica(partition, node.id), "{} lost {partition}", node.id);
            }
        }
        for index in 0..64 {
            let partition = Partition { placement: PLACEMENT, index };
            let row = after.replicas(partition);
            let nodes: BTreeSet<&NodeId> = row.iter().collect();
            prop_assert_eq!((row.len(), nodes.len()), (after.placements()[0].width(), row.len()));
            let stay = before.replicas(partition).iter().filter(|id| !gone.contains(id));
            prop_assert!(stay.zip(row).all(|(one, other)| one == other), "in the same order");
        }
    }
}

/// Goal: what a dead node held is shared out evenly in its zone, so that zones stay apart. Method: ten
/// like nodes, three zones; one of a small zone dies, so that the least loaded nodes are elsewhere.
#[test]
fn a_dead_nodes_share_is_spread() {
    let before = first(&cluster(10, 3, 3, 8, |_| 100));
    let mut spec = before.spec().clone();
    spec.version += 1;
    spec.nodes.retain(|node| node.id != NodeId(3));
    let after = before.without(spec).unwrap();
    let gained = |id: NodeId| after.partitions_of(id).count() - before.partitions_of(id).count();
    let gains: Vec<usize> = after.nodes().iter().map(|node| gained(node.id)).collect();
    assert_eq!(gains.iter().sum::<usize>(), before.partitions_of(NodeId(3)).count());
    // Only nodes of its zone keep replicas in three zones.
    let zone = &before.node(NodeId(3)).unwrap().zone;
    let gains_of = after.nodes().iter().zip(&gains);
    let (near, far): (Vec<_>, Vec<_>) = gains_of.partition(|(node, _)| &node.zone == zone);
    let [near, far] =
        [near, far].map(|side| side.into_iter().map(|(_, &gain)| gain).collect::<Vec<_>>());
    assert!(far.iter().all(|&gain| gain == 0), "{gains:?}");
    assert!(near.iter().max().unwrap() - near.iter().min().unwrap() <= 1, "{gains:?}");
}
