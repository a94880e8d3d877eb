//! Questions asked of a layout, and specs that are refused.

use holm_protocol::ids::BucketId;

use super::*;

/// Two regions; the placement has replicas in both.
fn two_regions() -> LayoutSpec {
    let mut nodes: Vec<LayoutNode> =
        (1..=5).map(|id| node(id, "west", id as usize % 3, 1)).collect();
    nodes.extend((11..=14).map(|id| node(id, "east", id as usize % 2, 1)));
    spec(nodes, placement(4, &[("west", 3), ("east", 2)]))
}

#[test]
fn names_and_numbers_agree() {
    let layout = first(&two_regions());
    let (east, west) = (RegionId(0), RegionId(1));
    assert_eq!(layout.regions(), ["east", "west"]);
    assert_eq!(layout.region_id("west"), Some(west));
    assert_eq!(layout.region_id("north"), None);
    assert_eq!(layout.region_of(NodeId(12)), Some(east));
    assert_eq!(layout.region_of(NodeId(99)), None);
    assert_eq!(layout.nodes_in(east), [11, 12, 13, 14].map(NodeId));
    assert_eq!(layout.nodes_in(RegionId(7)), []);
    assert_eq!(layout.node(NodeId(3)).unwrap().zone, "z0");
    assert_eq!(layout.placement(PLACEMENT).unwrap().bits, 4);
    for stranger in [0, 2, 4, u16::MAX] {
        assert_eq!(layout.placement(PlacementId(stranger)), None);
        let partition = Partition { placement: PlacementId(stranger), index: 0 };
        assert_eq!(layout.replicas(partition), []);
        assert_eq!(layout.preference_list(partition, west), []);
    }
    assert_eq!(layout.replicas(Partition { placement: PLACEMENT, index: 16 }), []);
    let partition = layout.partition(PLACEMENT, BucketId(1), b"key").unwrap();
    assert_eq!(partition, Partition::of(PLACEMENT, 4, BucketId(1), b"key"));
    assert_eq!(layout.partition(PlacementId(0), BucketId(1), b"key"), None);
    assert_eq!(layout.partitions_of(NodeId(99)).count(), 0);
}

/// Goal: a preference list starts with the replicas and then names every other node of the region
/// once, in rendezvous order, which differs from partition to partition.
#[test]
fn fallbacks_follow_the_replicas() {
    let layout = first(&two_regions());
    let west = layout.region_id("west").unwrap();
    let mut next_in_line = BTreeSet::new();
    for index in 0..16 {
        let partition = Partition { placement: PLACEMENT, index };
        let list = layout.preference_list(partition, west);
        assert_eq!(&list[..3], layout.replicas_in(partition, west));
        assert_eq!(list.iter().copied().collect::<BTreeSet<_>>().len(), 5);
        assert!(list.iter().all(|&id| layout.region_of(id) == Some(west)));
        assert!(weight(partition, list[3]) > weight(partition, list[4]));
        next_in_line.insert(list[3]);
        assert!(list[..3].iter().all(|&id| layout.is_replica(partition, id)));
        assert!(!layout.is_replica(partition, list[3]));
    }
    assert!(next_in_line.len() >= 3, "fallbacks are spread: {next_in_line:?}");
}

/// Goal: moves name what travels, also where a region comes or goes as a whole.
#[test]
fn moves_cover_regions_that_come_and_go() {
    let before = first(&two_regions());
    let next = after(&before, |spec| {
        spec.nodes.retain(|node| node.region == "west");
        spec.nodes.push(node(21, "north", 0, 1));
        spec.placements[0].replication = BTreeMap::from([("west".into(), 3), ("north".into(), 1)]);
    });
    let moves = before.moves(&next);
    assert_eq!(moves.len(), 32);
    for one in &moves {
        match one.region.as_str() {
            "north" => assert_eq!((one.from.len(), &one.to[..]), (0, &[NodeId(21)][..])),
            "east" => assert_eq!((one.from.len(), one.to.len()), (2, 0)),
            region => panic!("nothing moves in {region}"),
        }
    }
    assert_eq!(next.imbalance(Some(&before)).moves, 16);
    assert_eq!(next.imbalance(Some(&before)).moves_min, 16);
    assert_eq!(next.loads()[&NodeId(21)], 16);
}

/// Goal: with fewer zones than replicas a node alone in its zone holds everything, and the report
/// takes that for ideal.
#[test]
fn a_lone_node_in_its_zone_holds_everything() {
    let mut nodes: Vec<LayoutNode> = (1..=6).map(|id| node(id, "r", 0, 10)).collect();
    nodes.push(node(7, "r", 1, 1));
    let layout = first(&spec(nodes, placement(8, &[("r", 3)])));
    check(&layout);
    assert_eq!(layout.loads()[&NodeId(7)], 256);
    assert!(layout.imbalance(None).load_over_ideal_max < 1.01);
}

/// Goal: every kind of impossible spec is refused, with the error that names it.
#[test]
fn impossible_specs_are_refused() {
    type Change = fn(&mut LayoutSpec);
    let cases: &[(&str, Change)] = &[
        ("does not follow", |spec| spec.version = 0),
        ("no nodes", |spec| spec.nodes.clear()),
        ("limit is 4096", |spec| spec.nodes = (0..4097).map(|id| node(id, "r", 0, 1)).collect()),
        ("in 257 regions", |spec| {
            spec.nodes = (0..257).map(|id| node(id, &format!("r{id}"), 0, 1)).collect();
        }),
        ("n2 is listed twice", |spec| spec.nodes[0].id = NodeId(2)),
        ("same address", |spec| spec.nodes[1].addr = spec.nodes[0].addr),
        ("nobody can connect", |spec| spec.nodes[1].addr.set_port(0)),
        ("nobody can connect", |spec| spec.nodes[1].addr = ([0, 0, 0, 0], 7400).into()),
        ("capacity 0", |spec| spec.nodes[1].capacity = 0),
        ("region name \"\" of node n1", |spec| spec.nodes[0].region.clear()),
        ("zone name", |spec| spec.nodes[0].zone = "é".repeat(33)),
        ("zone name", |spec| spec.nodes[0].zone = "a\nb".into()),
        ("placement name", |spec| spec.placements[0].name.clear()),
        ("placement 3 is listed twice", |spec| spec.placements.push(spec.placements[0].clone())),
        ("two placements are called", |spec| {
            spec.placements
                .push(PlacementSpec { id: PlacementId(4), ..spec.placements[0].clone() });
        }),
        ("17 partition bits", |spec| spec.placements[0].bits = 17),
        ("no replicas in any", |spec| {
            spec.placements[0].replication.values_mut().for_each(|factor| *factor = 0);
        }),
        ("there is no node", |spec| {
            spec.placements[0].replication.insert("north".into(), 1);
        }),
        ("has 4 nodes", |spec| {
            spec.placements[0].replication.insert("east".into(), 5);
        }),
        ("limit is 256", |spec| {
            let one = spec.placements[0].clone();
            spec.placements = (0..257)
                .map(|id| PlacementSpec {
                    id: PlacementId(id),
                    name: id.to_string(),
                    ..one.clone()
                })
                .collect();
        }),
        ("limit is 4194304", |spec| {
            let one = PlacementSpec { bits: 16, ..spec.placements[0].clone() };
            spec.placements = (0..13)
                .map(|id| PlacementSpec {
                    id: PlacementId(id),
                    name: id.to_string(),
                    ..one.clone()
                })
                .collect();
        }),
    ];
    for (says, change) in cases {
        let mut spec = two_regions();
        change(&mut spec);
        let refused = Layout::compute(spec, None).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}, wanted: {says}");
    }
}

/// Goal: a layout follows exactly one other, and partitions are never cut anew.
#[test]
fn successions_are_checked() {
    let before = first(&LayoutSpec { version: 7, ..two_regions() });
    for version in [1, 7, 9] {
        let next = LayoutSpec { version, ..two_regions() };
        let refused = Layout::compute(next, Some(&before)).unwrap_err();
        assert_eq!(refused, LayoutError::Version { version, previous: 7 });
        assert!(refused.to_string().contains("give it version 8"));
    }
    let mut next = LayoutSpec { version: 8, ..two_regions() };
    next.placements[0].bits = 5;
    let name = "default".to_owned();
    let refused = LayoutError::BitsChanged { name, bits: 5, previous: 4 };
    assert_eq!(Layout::compute(next, Some(&before)), Err(refused));
}
