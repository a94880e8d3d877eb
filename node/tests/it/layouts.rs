//! Layouts that are refused, before the first one and after it; and dead nodes that are taken out.

use holm_client::{BucketPolicy, LayoutProposal, Level, NodeId};
use holm_protocol::admin::{AdminReply, AdminRequest, BucketChange};
use holm_protocol::error::{NotReady, RequestError};
use holm_protocol::ids::{BucketId, PlacementId};
use holm_protocol::message::Request;

use crate::harness::cluster::{Cluster, layout};
use crate::harness::raw::{get, put};
use crate::harness::{until, within};

/// Keys written before a node dies, and as many after it.
const KEYS: usize = 60;

/// Goal: a cluster without a layout serves nothing, says so, and takes none that is not possible.
/// Method: requests; then every kind of bad layout, planned and applied; then a good one.
#[tokio::test]
async fn bad_layouts_are_refused() {
    let cluster = Cluster::without_layout(1, &[]).await;
    let (_conn, mut lane) = cluster.lane(0).await;
    let ready = cluster.nodes[0].get("/readyz").await;
    assert!(ready.0 == 503 && ready.1.contains("no layout"), "{ready:?}");
    let no_layout = RequestError::NotReady { reason: NotReady::NoLayout };
    let policy = Default::default();
    let change = BucketChange { name: "b".to_owned(), policy, create: true };
    for request in [
        Request::Put(put(BucketId(1), b"k", b"v")),
        Request::Get(get(BucketId(1), b"k")),
        Request::Admin(AdminRequest::Bucket(change)),
    ] {
        assert_eq!(lane.refusal(&request).await, no_layout, "{request:?}");
    }

    let good = layout([(1, cluster.nodes[0].quic)]);
    for (what, bad) in bad_layouts(&good) {
        for request in [AdminRequest::PlanLayout(bad.clone()), AdminRequest::ApplyLayout(bad)] {
            let error = lane.refusal(&Request::Admin(request)).await;
            assert_eq!(error.code(), 22, "{what}: {error}");
        }
    }
    let AdminReply::View(view) = lane.admin(AdminRequest::View).await else { panic!("a view") };
    assert_eq!(view.layout_version, 0);

    lane.admin(AdminRequest::PlanLayout(good.clone())).await;
    lane.admin(AdminRequest::ApplyLayout(good.clone())).await;
    cluster.nodes[0].until_ready().await;
    let before = lane.admin(AdminRequest::View).await;
    // The same again is the same operator who had no answer; another is refused.
    lane.admin(AdminRequest::ApplyLayout(good.clone())).await;
    let mut other = good.clone();
    other.nodes[0].capacity += 1;
    let mut next = good;
    next.version = 2;
    next.nodes[0].capacity += 1;
    for proposal in [other, next] {
        let error = lane.refusal(&Request::Admin(AdminRequest::ApplyLayout(proposal))).await;
        assert_eq!(error.code(), 22, "{error}");
    }
    assert_eq!(lane.admin(AdminRequest::View).await, before);
}

/// Goal: a first layout that was applied at two nodes makes one cluster. Method: each is told while
/// the other is down; then both run, agree, and serve.
#[tokio::test]
async fn one_layout_applied_at_two_nodes_is_one_cluster() {
    let mut cluster = Cluster::without_layout(2, &[]).await;
    let both = layout(cluster.nodes.iter().map(|node| (node.id.0, node.quic)));
    for (node, other) in [(0, 1), (1, 0)] {
        cluster.nodes[other].kill();
        if !cluster.nodes[node].is_running() {
            cluster.nodes[node].start().await;
        }
        let (_conn, mut lane) = cluster.lane(node).await;
        lane.admin(AdminRequest::ApplyLayout(both.clone())).await;
    }
    cluster.nodes[0].start().await;
    cluster.until_whole().await;
    let bucket = cluster.bucket("b", Default::default()).await;
    within("a put", bucket.put("k", "v").send()).await.unwrap();
    for node in &cluster.nodes {
        node.until_ready().await;
    }
}

/// Goal: a node that is dead for good is taken out: what held everything back moves on, its places are
/// taken by who lives, hints for it go where they are of use, nothing comes back with it. Method: four
/// nodes, three replicas; one is killed between two rounds of writes and deletes, removed, and started
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_taken_out() {
    let mut cluster = Cluster::without_layout(4, &[]).await;
    let client = cluster.client().await;
    let admin = client.admin();
    let mut plan = layout(cluster.nodes.iter().map(|node| (node.id.0, node.quic)));
    plan.placements[0].replication[0].1 = 3;
    let applied = admin.apply_layout(NodeId(1), plan.clone());
    within("applying a layout", applied).await.unwrap();
    cluster.until_whole().await;
    let bucket = cluster.bucket("carts", BucketPolicy::default()).await;
    let gone = NodeId(2);
    plan.version = 2;
    plan.nodes.retain(|node| node.id != gone);
    let removed = within("removing", admin.apply_layout(NodeId(1), plan.clone())).await;
    assert!(removed.unwrap_err().to_string().contains("n2 answers"), "it is alive");

    for key in 0..KEYS {
        let put = bucket.put(format!("before-{key}"), "v").level(Level::All).send();
        within("a put", put).await.unwrap();
    }
    cluster.nodes[1].kill();
    // What was sent to the dead node before its connection is lost is unknown: it is written over.
    for key in 0..KEYS {
        let after = format!("after-{key}");
        until("a put", async || {
            let Ok(read) = bucket.get(&after).send().await else { return false };
            let put = bucket.put(&after, "v").context(read.context());
            put.level(Level::Quorum).send().await.is_ok()
        })
        .await;
        let before = format!("before-{key}");
        until("a delete", async || {
            let Ok(read) = bucket.get(&before).send().await else { return false };
            let delete = bucket.delete(&before).context(read.context());
            delete.level(Level::Quorum).send().await.is_ok()
        })
        .await;
    }
    until("everybody has noticed", async || {
        let removed = admin.apply_layout(NodeId(1), plan.clone()).await;
        removed.map_err(|error| assert!(error.to_string().contains("answers"), "{error}")).is_ok()
    })
    .await;
    let live = [0, 2, 3];
    let settled = async |cluster: &Cluster| {
        until("all is equal and forgotten", async || {
            let (_, page) = cluster.nodes[0].get("/v1/fingerprint?replicas=all").await;
            let page: serde_json::Value = serde_json::from_str(&page).unwrap();
            let hints = cluster.nodes[0].metric("holm_shard_hints").await
                + cluster.nodes[2].metric("holm_shard_hints").await
                + cluster.nodes[3].metric("holm_shard_hints").await;
            page["layout_version"] == 2
                && page["equal"] == true
                && page["tombstones"]["carts"] == 0
                && page["keys"]["carts"]["here"] == KEYS
                && hints == 0.0
        })
        .await;
    };
    settled(&cluster).await;
    for at in live {
        cluster.nodes[at].until_ready().await;
    }
    for key in 0..KEYS {
        let get = bucket.get(format!("after-{key}")).level(Level::All).send();
        assert_eq!(within("a get", get).await.unwrap().siblings().len(), 1);
        let get = bucket.get(format!("before-{key}")).level(Level::All).send();
        assert_eq!(within("a get", get).await.unwrap().siblings().len(), 0);
    }

    cluster.nodes[1].start().await;
    until("it learns that it is out", async || {
        let (code, why) = cluster.nodes[1].get("/readyz").await;
        code == 503 && why.contains("this node is not in the layout")
    })
    .await;
    settled(&cluster).await;
    let (_conn, mut lane) = cluster.lane(1).await;
    let refused = lane.refusal(&Request::Get(get(bucket.id(), b"before-0"))).await;
    assert_eq!(refused, RequestError::NotReady { reason: NotReady::NotInLayout });
}

/// Puts one thing wrong.
type Change = Box<dyn Fn(&mut LayoutProposal)>;

/// Layouts with one thing wrong each.
fn bad_layouts(good: &LayoutProposal) -> Vec<(&'static str, LayoutProposal)> {
    let mut second = good.nodes[0].clone();
    (second.id, second.zone) = (NodeId(2), "z2".to_owned());
    let changes: Vec<(&'static str, Change)> = vec![
        ("version 0", Box::new(|p| p.version = 0)),
        ("version 2", Box::new(|p| p.version = 2)),
        ("version at the end", Box::new(|p| p.version = u64::MAX)),
        ("no nodes", Box::new(|p| p.nodes.clear())),
        ("port 0", Box::new(|p| p.nodes[0].addr.set_port(0))),
        ("no address", Box::new(|p| p.nodes[0].addr.set_ip([0, 0, 0, 0].into()))),
        ("IPv6 without an address", Box::new(|p| p.nodes[0].addr.set_ip([0u16; 8].into()))),
        ("one address twice", Box::new(move |p| p.nodes.push(second.clone()))),
        (
            "one node twice",
            Box::new(|p| {
                let mut again = p.nodes[0].clone();
                again.addr.set_port(1);
                p.nodes.push(again);
            }),
        ),
        ("no capacity", Box::new(|p| p.nodes[0].capacity = 0)),
        ("no region name", Box::new(|p| p.nodes[0].region.clear())),
        ("a control character", Box::new(|p| p.nodes[0].zone = "z\n".to_owned())),
        ("too many partitions", Box::new(|p| p.placements[0].bits = 200)),
        ("no replicas", Box::new(|p| p.placements[0].replication.clear())),
        ("too few nodes", Box::new(|p| p.placements[0].replication[0].1 = 2)),
        ("an unknown region", Box::new(|p| p.placements[0].replication[0].0 = "there".to_owned())),
        (
            "a region twice",
            Box::new(|p| {
                let again = p.placements[0].replication[0].clone();
                p.placements[0].replication.push(again);
            }),
        ),
        ("a placement twice", Box::new(|p| p.placements.push(p.placements[0].clone()))),
        (
            "a placement's name twice",
            Box::new(|p| {
                let mut again = p.placements[0].clone();
                again.id = PlacementId(1);
                p.placements.push(again);
            }),
        ),
    ];
    let bad = |change: &dyn Fn(&mut LayoutProposal)| {
        let mut proposal = good.clone();
        change(&mut proposal);
        proposal
    };
    changes.iter().map(|(what, change)| (*what, bad(change))).collect()
}
