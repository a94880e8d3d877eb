//! Metadata: what operators may change, and that nodes come to agree.

use holm_protocol::admin::{BucketChange, LayoutProposal, NodeInfo, PlacementInfo};
use holm_protocol::bucket::{BucketKind, BucketPolicy};
use holm_protocol::error::RequestError;
use holm_protocol::ids::PlacementId;
use holm_protocol::level::Level;

use super::*;

mod codec;
mod laws;

const SECRET: [u8; 32] = [0xa7; 32];

/// Six nodes in two regions, three replicas in each.
fn proposal() -> LayoutProposal {
    let node = |id: u64| NodeInfo {
        id: NodeId(id),
        addr: std::net::SocketAddr::from(([10, 0, 0, id as u8], 7400)),
        region: if id <= 3 { "east" } else { "west" }.into(),
        zone: format!("z{id}"),
        capacity: 1,
    };
    let replication = vec![("west".into(), 3), ("east".into(), 3)];
    let placement =
        PlacementInfo { id: PlacementId(0), name: "default".into(), bits: 4, replication };
    LayoutProposal { version: 1, nodes: (1..=6).map(node).collect(), placements: vec![placement] }
}

fn cluster() -> Metadata {
    let mut metadata = Metadata::new("demo");
    metadata.apply_layout(&proposal(), SECRET).unwrap();
    metadata
}

fn change(name: &str, create: bool) -> BucketChange {
    BucketChange { name: name.into(), policy: BucketPolicy::default(), create }
}

/// Creates or changes a bucket at one node's clock.
fn write(metadata: &mut Metadata, change: &BucketChange, version: u64, node: u64) -> BucketInfo {
    metadata.change_bucket(change, Hlc(version), NodeId(node)).unwrap()
}

fn refusal(metadata: &mut Metadata, change: &BucketChange) -> String {
    let before = metadata.clone();
    let result = metadata.change_bucket(change, Hlc(9), NodeId(1));
    assert_eq!(*metadata, before, "a refused change must change nothing");
    match result {
        Err(RequestError::BucketRefused { why }) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Goal: a first layout is planned and applied alike, and shows in view, state and version.
#[test]
fn first_layout_is_applied() {
    let mut metadata = Metadata::new("demo");
    assert_eq!(metadata.version().layout, 0);
    assert_eq!(metadata.view().layout_version, 0);
    let planned = metadata.plan_layout(&proposal()).unwrap();
    assert!(metadata.layout().is_none(), "a plan changes nothing");
    let applied = metadata.apply_layout(&proposal(), SECRET).unwrap();
    assert_eq!(planned, applied);
    assert_eq!(applied.moves, 0);
    // 16 partitions, and every node of a region holds all of them.
    assert_eq!(applied.load, (1..=6).map(|id| (NodeId(id), 16)).collect::<Vec<_>>());
    assert_eq!(metadata.version().layout, 1);

    let view = metadata.view();
    assert_eq!((view.cluster.as_str(), view.layout_version), ("demo", 1));
    assert_eq!(view.regions, ["east", "west"]);
    assert_eq!(view.nodes, proposal().nodes);
    assert_eq!(view.placements[0].replicas.len(), 16);
    let layout = metadata.layout().unwrap();
    for (index, row) in view.placements[0].replicas.iter().enumerate() {
        let partition = Partition { placement: PlacementId(0), index: index as u16 };
        let named: Vec<NodeId> = row.iter().map(|&at| view.nodes[usize::from(at)].id).collect();
        assert_eq!(named, layout.replicas(partition));
    }
    let state = metadata.state();
    assert_eq!(state.secrets, Some(secrets::first(SECRET)));
    assert!(Arc::ptr_eq(state.layout.as_ref().unwrap(), layout));
}

/// Goal: an applied layout stays: repeating it is harmless, what is no removal of dead nodes is refused
/// and says why.
#[test]
fn later_layouts_only_leave_out() {
    let mut metadata = cluster();
    let before = metadata.clone();
    let again = metadata.apply_layout(&proposal(), [1; 32]).unwrap();
    assert_eq!(again.digest, before.layout().unwrap().digest());
    let refused = |change: fn(&mut LayoutProposal), version: u64, expected: &str| {
        let mut other = LayoutProposal { version, ..proposal() };
        change(&mut other);
        match before.clone().apply_layout(&other, [1; 32]) {
            Err(RequestError::LayoutRefused { why }) => assert!(why.contains(expected), "{why}"),
            result => panic!("{expected}: expected a refusal, got {result:?}"),
        }
    };
    refused(|p| p.nodes[0].capacity = 2, 1, "in force already");
    refused(|p| p.nodes[0].capacity = 2, 2, "is new or changed");
    refused(|p| p.nodes.push(NodeInfo { id: NodeId(9), ..p.nodes[0].clone() }), 2, "n9 is new");
    refused(|p| p.nodes.truncate(3), 2, "left without a node");
    refused(|p| p.placements.clear(), 2, "cannot be added or removed");
    refused(|p| p.placements[0].bits = 5, 2, "cannot be changed");
    refused(|p| p.placements[0].replication[1].1 = 1, 2, "must keep 3 replicas in east");
    refused(|p| drop(p.nodes.remove(0)), 2, "must keep 2 replicas in east");
    let two_east: fn(&mut LayoutProposal) = |p| {
        p.nodes.remove(0);
        p.placements[0].replication[1].1 = 2;
    };
    refused(two_east, 3, "does not follow");
    assert_eq!(metadata, before);
}

/// Goal: a dead node is left out: the others keep what they have, the secrets stay, levels that could
/// not be met any more are named. Method: three nodes of a region with three replicas lose one.
#[test]
fn a_dead_node_is_left_out() {
    let mut metadata = cluster();
    let secrets = metadata.state().secrets;
    let mut without = LayoutProposal { version: 2, ..proposal() };
    without.nodes.retain(|node| node.id != NodeId(2));
    without.placements[0].replication[1].1 = 2;
    assert_eq!(metadata.left_out(&without), [NodeId(2)]);

    let policy = BucketPolicy { read_level: Level::Count(6), ..BucketPolicy::default() };
    let change = BucketChange { name: "all".into(), policy, create: true };
    metadata.change_bucket(&change, Hlc(1), NodeId(1)).unwrap();
    match metadata.plan_layout(&without) {
        Err(RequestError::LayoutRefused { why }) => {
            assert!(why.contains("bucket `all`: read_level is 6 replicas"), "{why}");
        }
        result => panic!("expected a refusal, got {result:?}"),
    }
    let policy = BucketPolicy { read_level: Level::Count(5), ..change.policy.clone() };
    let change = BucketChange { policy, create: false, ..change };
    metadata.change_bucket(&change, Hlc(2), NodeId(1)).unwrap();

    let planned = metadata.plan_layout(&without).unwrap();
    assert_eq!(metadata.apply_layout(&without, [1; 32]).unwrap(), planned);
    assert_eq!((planned.version, planned.moves), (2, 0));
    assert_eq!(planned.load, [1, 3, 4, 5, 6].map(|id| (NodeId(id), 16)));
    assert_eq!(metadata.state().secrets, secrets);
    let mut late = cluster();
    assert!(late.merge(metadata.clone()).unwrap(), "who has the earlier layout takes the later");
    assert_eq!(late.layout(), metadata.layout());
}

/// Goal: what is wrong with a first layout is said in words that name it. Method: one fault each.
#[test]
fn faulty_proposals_are_refused() {
    type Fault = fn(&mut LayoutProposal);
    let faults: [(&str, Fault); 7] = [
        ("does not follow", |p| p.version = 7),
        ("no nodes", |p| p.nodes.clear()),
        ("listed twice", |p| p.nodes[1].id = NodeId(1)),
        ("no region name", |p| p.nodes[1].region = "Über".into()),
        ("no zone name", |p| p.nodes[1].zone = String::new()),
        ("names region `west` twice", |p| {
            p.placements[0].replication.push(("west".into(), 1));
        }),
        ("which has 3", |p| p.placements[0].replication[0].1 = 4),
    ];
    for (expected, fault) in faults {
        let mut proposal = proposal();
        fault(&mut proposal);
        let mut metadata = Metadata::new("demo");
        match metadata.apply_layout(&proposal, SECRET) {
            Err(RequestError::LayoutRefused { why }) => assert!(why.contains(expected), "{why}"),
            result => panic!("{expected}: expected a refusal, got {result:?}"),
        }
        assert_eq!(metadata, Metadata::new("demo"));
    }
}

/// Goal: buckets are made once, changed afterwards, and keep kind and placement.
#[test]
fn buckets_are_made_and_changed() {
    let mut metadata = Metadata::new("demo");
    assert!(refusal(&mut metadata, &change("carts", true)).contains("no layout"));
    let mut metadata = cluster();
    assert!(refusal(&mut metadata, &change("carts", false)).contains("does not exist"));
    let before = metadata.version();
    let info = write(&mut metadata, &change("carts", true), 5, 1);
    assert_eq!(info.id, bucket_id("carts"));
    assert_ne!(metadata.version(), before);
    assert_eq!(metadata.view().buckets, std::slice::from_ref(&info));
    assert_eq!(metadata.state().buckets[&info.id], info);
    assert!(refusal(&mut metadata, &change("carts", true)).contains("exists"));

    let mut set = change("carts", false);
    set.policy.max_siblings = 7;
    assert_eq!(write(&mut metadata, &set, 2, 4).policy.max_siblings, 7);
    // The clock of node 4 is behind that of node 1, and its change counts all the same.
    assert_eq!(metadata.buckets()[&info.id].version, Hlc(6));
    set.policy.kind = BucketKind::Lww;
    assert!(refusal(&mut metadata, &set).contains("kind"));
    set.policy.kind = BucketKind::Siblings;
    set.policy.placement = PlacementId(1);
    assert!(refusal(&mut metadata, &set).contains("placement"));
}

/// Goal: policies that cannot work are refused when they are made.
#[test]
fn impossible_policies_are_refused() {
    let mut metadata = cluster();
    assert!(refusal(&mut metadata, &change("Carts", true)).contains("no bucket name"));
    let mut wrong = change("carts", true);
    wrong.policy.max_siblings = 0;
    assert!(refusal(&mut metadata, &wrong).contains("max_siblings"));
    let mut wrong = change("carts", true);
    wrong.policy.placement = PlacementId(3);
    assert!(refusal(&mut metadata, &wrong).contains("no placement 3, only 0 (default)"));
    let mut wrong = change("carts", true);
    wrong.policy.write_level = Level::Count(7);
    assert!(refusal(&mut metadata, &wrong).contains("write_level is 7 replicas"));
    wrong.policy.write_level = Level::Count(0);
    assert!(refusal(&mut metadata, &wrong).contains("write_level"));
}

/// Goal: two names with one hash never become one bucket, neither here nor in a merge. Method:
/// a colliding pair, found by search.
#[test]
fn names_that_collide_are_refused() {
    let (one, other) = collision();
    assert_eq!(bucket_id(&one), bucket_id(&other));
    let mut here = cluster();
    let mut there = here.clone();
    write(&mut here, &change(&one, true), 1, 1);
    assert!(refusal(&mut here, &change(&other, true)).contains("same id"));
    assert!(refusal(&mut here, &change(&other, false)).contains("same id"));
    write(&mut there, &change(&other, true), 2, 2);
    let before = here.clone();
    assert!(matches!(here.merge(there), Err(MetadataConflict::BucketName { .. })));
    assert_eq!(here, before);
}

/// Two names with the same id: among 2^17 names some pair collides in all likelihood.
fn collision() -> (String, String) {
    let mut names = BTreeMap::new();
    for number in 0_u32.. {
        let name = format!("b{number}");
        if let Some(other) = names.insert(bucket_id(&name), number) {
            return (format!("b{other}"), name);
        }
    }
    unreachable!("there are more names than ids");
}

/// Goal: operators cannot fill every node's memory with buckets; a merge has room for more.
#[test]
fn buckets_are_bounded() {
    let mut metadata = cluster();
    for number in 0..BUCKETS_MAX {
        write(&mut metadata, &change(&format!("b{number}"), true), 1, 1);
    }
    assert!(refusal(&mut metadata, &change("carts", true)).contains("limit"));
    let mut other = cluster();
    write(&mut other, &change("carts", true), 1, 2);
    assert_eq!(metadata.merge(other), Ok(true));
    assert_eq!(metadata.buckets().len(), BUCKETS_MAX + 1);
}

/// Goal: no secret is ever printed.
#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", cluster());
    assert!(text.contains("demo") && !text.contains("167") && !text.contains("a7a7"), "{text}");
}
