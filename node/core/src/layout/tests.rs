//! Layouts against an obvious model of what they promise.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::ids::{NodeId, Partition, PlacementId, RegionId};
use proptest::prelude::*;

use super::*;

mod codec;
mod measure;
mod optimum;
mod queries;

const PLACEMENT: PlacementId = PlacementId(3);

fn node(id: u64, region: &str, zone: usize, capacity: u32) -> LayoutNode {
    let addr =
        core::net::SocketAddr::from(([10, (id >> 16) as u8, (id >> 8) as u8, id as u8], 7400));
    LayoutNode { id: NodeId(id), addr, region: region.into(), zone: format!("z{zone}"), capacity }
}

fn placement(bits: u8, replication: &[(&str, u8)]) -> PlacementSpec {
    let replication = replication.iter().map(|&(region, n)| (region.to_owned(), n)).collect();
    PlacementSpec { id: PLACEMENT, name: "default".into(), bits, replication }
}

fn spec(nodes: Vec<LayoutNode>, placement: PlacementSpec) -> LayoutSpec {
    LayoutSpec { version: 1, nodes, placements: vec![placement] }
}

/// `count` nodes in one region, over `zones` zones in turn.
fn cluster(
    count: u64,
    zones: u64,
    replicas: u8,
    bits: u8,
    capacity: impl Fn(u64) -> u32,
) -> LayoutSpec {
    let nodes = (0..count).map(|id| node(id + 1, "r", (id % zones) as usize, capacity(id)));
    spec(nodes.collect(), placement(bits, &[("r", replicas)]))
}

fn first(spec: &LayoutSpec) -> Layout {
    Layout::compute(spec.clone(), None).unwrap()
}

/// The layout after `change`.
fn after(layout: &Layout, change: impl FnOnce(&mut LayoutSpec)) -> Layout {
    let mut spec = layout.spec().clone();
    spec.version += 1;
    change(&mut spec);
    Layout::compute(spec, Some(layout)).unwrap()
}

/// The largest `level` at which `volume(level) <= total`: volumes grow with the level.
fn level(total: f64, volume: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e9);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if volume(middle) <= total {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The ideal loads of one region, as water finding its level: each node's load is level times
/// capacity, within what it can hold and what its zone must or may.
fn ideals(nodes: &[&LayoutNode], partitions: usize, replicas: usize) -> BTreeMap<NodeId, f64> {
    let whole = partitions as f64;
    let mut zones: BTreeMap<&str, Vec<&LayoutNode>> = BTreeMap::new();
    for node in nodes {
        zones.entry(&node.zone).or_default().push(node);
    }
    let spread = zones.len() >= replicas;
    let natural = |members: &[&LayoutNode], level: f64| -> f64 {
        let cap = if spread { f64::INFINITY } else { whole };
        members.iter().map(|node| (level * f64::from(node.capacity)).min(cap)).sum()
    };
    let zone = |members: &[&LayoutNode], level: f64| {
        let load = natural(members, level);
        if spread { load.min(whole) } else { load.max(whole) }
    };
    let total = whole * replicas as f64;
    let sea = level(total, |level| zones.values().map(|members| zone(members, level)).sum());
    let mut ideals = BTreeMap::new();
    for members in zones.values() {
        let load = zone(members, sea);
        let lake = level(load, |level| natural(members, level));
        for node in members {
            let ideal = lake * f64::from(node.capacity);
            ideals.insert(node.id, if spread { ideal } else { ideal.min(whole) });
        }
    }
    ideals
}

/// Everything a layout promises whatever it was computed from.
fn check(layout: &Layout) {
    let mut held: BTreeMap<NodeId, Vec<Partition>> = BTreeMap::new();
    for placement in layout.placements() {
        let partitions = placement.partitions();
        let mut loads: BTreeMap<NodeId, usize> = BTreeMap::new();
        for index in 0..partitions {
            let partition = Partition { placement: placement.id, index: index as u16 };
            let mut all = Vec::new();
            for (at, name) in layout.regions().iter().enumerate() {
                let region = RegionId(at as u16);
                let replicas = layout.replicas_in(partition, region);
                let factor = placement.replication.get(name).copied().unwrap_or(0);
                assert_eq!(replicas.len(), usize::from(factor));
                assert!(replicas.iter().all(|&id| layout.region_of(id) == Some(region)));
                let zone = |id: &NodeId| layout.node(*id).unwrap().zone.clone();
                let zones: BTreeSet<String> = replicas.iter().map(zone).collect();
                let here: BTreeSet<String> = layout.nodes_in(region).iter().map(zone).collect();
                assert_eq!(zones.len(), here.len().min(replicas.len()), "zones of {partition}");
                all.extend_from_slice(replicas);
            }
            assert_eq!(layout.replicas(partition), all);
            for &id in &all {
                *loads.entry(id).or_default() += 1;
                held.entry(id).or_default().push(partition);
            }
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "distinct nodes");
        }
        for (name, &factor) in &placement.replication {
            let region = layout.region_id(name).unwrap();
            let nodes: Vec<&LayoutNode> =
                layout.nodes().iter().filter(|node| node.region == *name).collect();
            let mut firsts: BTreeMap<NodeId, usize> = BTreeMap::new();
            for index in 0..partitions {
                let partition = Partition { placement: placement.id, index: index as u16 };
                *firsts.entry(layout.replicas_in(partition, region)[0]).or_default() += 1;
            }
            for (id, ideal) in ideals(&nodes, partitions, factor.into()) {
                let load = loads.get(&id).copied().unwrap_or(0);
                assert!((load as f64 - ideal).abs() < 1.0 + 1e-4, "{id}: {load}, ideal {ideal}");
                let led = firsts.get(&id).copied().unwrap_or(0);
                let factor = usize::from(factor);
                assert!(
                    led >= load / factor && led <= load.div_ceil(factor),
                    "{id}: {led}, {load}"
                );
            }
        }
    }
    for node in layout.nodes() {
        let partitions: Vec<Partition> = layout.partitions_of(node.id).collect();
        assert_eq!(partitions, held.remove(&node.id).unwrap_or_default());
    }
}

/// One region's nodes: zone and capacity of each.
fn nodes_of_region(most: usize) -> impl Strategy<Value = Vec<(usize, u32)>> {
    let capacities = prop_oneof![Just(1..=1_u32), Just(1..=10), Just(1..=1000)];
    (1_usize..=6, capacities).prop_flat_map(move |(zones, capacities)| {
        proptest::collection::vec((0..zones, capacities), 3..=most)
    })
}

/// Clusters of one to three regions with 256 partitions in each of two placements.
fn clusters(most: usize) -> impl Strategy<Value = LayoutSpec> {
    let region = (nodes_of_region(most), 0_u8..=5);
    proptest::collection::vec(region, 1..=3).prop_map(|regions| {
        let mut nodes = Vec::new();
        let mut everywhere = BTreeMap::new();
        for (at, (members, factor)) in regions.iter().enumerate() {
            for &(zone, capacity) in members {
                let id = nodes.len() as u64 * 7 % 1009 + 1;
                nodes.push(node(id, &format!("r{at}"), zone, capacity));
            }
            everywhere.insert(format!("r{at}"), (*factor).clamp(u8::from(at == 0), 3));
        }
        let factor = regions[0].1.max(1).min(regions[0].0.len() as u8);
        let one = placement(8, &[("r0", factor)]);
        let two = PlacementSpec {
            id: PlacementId(9),
            name: "everywhere".into(),
            bits: 8,
            replication: everywhere,
        };
        LayoutSpec { version: 1, nodes, placements: vec![one, two] }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Goal: replicas, zones, loads and first places are as promised, for a first layout and after
    /// a random change. Method: a model that shares load out like water.
    #[test]
    fn layouts_keep_their_promises(one in clusters(40), other in clusters(40)) {
        let layout = first(&one);
        check(&layout);
        let next = Layout::compute(LayoutSpec { version: 2, ..other }, Some(&layout)).unwrap();
        check(&next);
        let moves: usize = layout.moves(&next).iter().map(|one| one.to.len()).sum();
        let report = next.imbalance(Some(&layout));
        prop_assert_eq!(moves as u64, report.moves);
        prop_assert!(report.moves >= report.moves_min, "{report:?}");
    }

    /// Goal: the order in which nodes and placements are listed changes nothing.
    #[test]
    fn the_order_of_the_input_does_not_matter(
        one in clusters(20),
        other in clusters(20),
        seed in any::<u64>(),
    ) {
        let shuffled = |spec: &LayoutSpec| {
            let mut spec = spec.clone();
            let mut key = seed;
            spec.nodes.sort_by_cached_key(|node| {
                key = key.wrapping_mul(6364136223846793005).wrapping_add(node.id.0);
                key
            });
            spec.placements.reverse();
            spec
        };
        prop_assert_eq!(one.digest(), shuffled(&one).digest());
        let layout = first(&one);
        prop_assert_eq!(&first(&shuffled(&one)), &layout);
        let other = LayoutSpec { version: 2, ..other };
        let next = Layout::compute(other.clone(), Some(&layout)).unwrap();
        prop_assert_eq!(Layout::compute(shuffled(&other), Some(&layout)).unwrap(), next);
    }

    /// Goal: a node that joins or leaves moves little more than loads make necessary. Method: the
    /// minimum counts loads only, and zones can force more (a third more was the most seen in 6,000
    /// changes), hence the wide bound; `optimum` has the sharp one for small clusters.
    #[test]
    fn one_node_moves_little(one in clusters(40), gone in any::<prop::sample::Index>()) {
        let before = first(&one);
        let joined = after(&before, |spec| spec.nodes.push(node(5000, "r0", 0, 3)));
        check(&joined);
        let join = joined.imbalance(Some(&before));
        prop_assert!(join.moves <= 2 * join.moves_min + 8, "{join:?}");
        let gone = gone.index(one.nodes.len());
        let mut spec = joined.spec().clone();
        spec.version += 1;
        spec.nodes.remove(gone);
        // Where factors leave no node to spare there is nothing to measure.
        if let Ok(left) = Layout::compute(spec, Some(&joined)) {
            check(&left);
            let leave = left.imbalance(Some(&joined));
            prop_assert!(leave.moves <= 2 * leave.moves_min + 8, "{leave:?}");
        }
    }
}

/// Goal: applying a layout that changes nothing but its version moves nothing at all.
#[test]
fn a_layout_without_changes_stays() {
    let before = first(&cluster(11, 4, 3, 8, |id| 1 + (id % 3) as u32));
    let next = after(&before, |_| ());
    assert_eq!(before.moves(&next), []);
    assert_eq!(before.rings, next.rings);
    assert_ne!(before.digest(), next.digest());
}

/// Goal: clusters of every size from 3 to 100 nodes, equal and mixed, stay within their bounds
/// while they grow node by node and shrink again, and what that moves adds up to little more than
/// the least possible.
#[test]
fn clusters_grow_and_shrink_a_node_at_a_time() {
    for (zones, mixed) in [(1, false), (3, true), (5, false)] {
        let capacity = |id: u64| if mixed { 1 + (id * 7 % 4) as u32 } else { 4 };
        let start = zones.max(3);
        let mut layout = first(&cluster(start, zones, 3, 8, capacity));
        let (mut moves, mut moves_min) = (0, 0);
        let sizes = (start..100).map(|size| (size, true)).chain((start..100).map(|s| (s, false)));
        for (at, grow) in sizes {
            let next = after(&layout, |spec| {
                if grow {
                    spec.nodes.push(node(at + 1, "r", (at % zones) as usize, capacity(at)));
                } else {
                    spec.nodes.remove((at - start) as usize % spec.nodes.len());
                }
            });
            check(&next);
            let report = next.imbalance(Some(&layout));
            moves += report.moves;
            moves_min += report.moves_min;
            layout = next;
        }
        assert!(moves * 100 <= moves_min * 105, "{zones} zones: {moves} moves, {moves_min} needed");
    }
}
