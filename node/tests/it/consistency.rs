//! Consistency as operators see it: whether regions hold the same, how far they are apart, and what was
//! done about it.

use std::time::Duration;

use holm_client::{Bucket, Client, Level, NodeId};
use holm_protocol::admin::{AdminRequest, LinkRule};
use holm_protocol::bucket::BucketPolicy;
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::cluster::{Cluster, layout};
use crate::harness::{until, within};

/// From the end of a cut until regions hold the same without anybody's help: links are dialled again
/// within 200 ms, and repair takes some round trips. The rest is a busy machine.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);

/// Three regions of one node each.
async fn three_regions(flags: &[&str]) -> Cluster {
    let flags: Vec<&str> = flags.iter().copied().chain(["--dev-enabled=true"]).collect();
    let cluster = Cluster::without_layout(3, &flags).await;
    let client = cluster.client().await;
    let mut plan = layout(cluster.nodes.iter().map(|node| (node.id.0, node.quic)));
    for (node, region) in plan.nodes.iter_mut().zip(["a", "b", "c"]) {
        node.region = region.to_owned();
    }
    plan.placements[0].replication = ["a", "b", "c"].map(|name| (name.to_owned(), 1)).into();
    within("applying a layout", client.admin().apply_layout(NodeId(1), plan)).await.unwrap();
    cluster.until_whole().await;
    cluster
}

/// Cuts node 3 off from the others, or heals it.
async fn cut(client: &Client, cut: bool) {
    for (by, to) in [(1, vec![3]), (2, vec![3]), (3, vec![1, 2])] {
        let rule = |to| LinkRule { to: NodeId(to), delay_us: 0, cut };
        let links = AdminRequest::Links(to.into_iter().map(rule).collect());
        within("a cut", client.admin().request(Some(NodeId(by)), links)).await.unwrap();
    }
}

/// Writes to the node of a region, at level `one`.
async fn write(cluster: &Cluster, node: usize, bucket: &Bucket, keys: std::ops::Range<u32>) {
    let (_conn, mut lane) = cluster.lane(node).await;
    for key in keys {
        let mut put =
            crate::harness::raw::put(bucket.id(), key.to_string().as_bytes(), &[node as u8; 100]);
        put.level = Some(Level::One);
        lane.put(put).await;
    }
}

async fn page(cluster: &Cluster, node: usize, path: &str) -> (u16, Value) {
    let (code, body) = cluster.nodes[node].get(path).await;
    (code, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}")))
}

async fn fingerprint(cluster: &Cluster, node: usize) -> Value {
    let (code, body) = page(cluster, node, "/v1/fingerprint?replicas=all").await;
    assert_eq!(code, 200, "{body}");
    body
}

/// Goal: cut, written to on both sides, and healed, three regions soon hold the same, without a read, and
/// every node says so; while they do not, every node says that. Method: node 3 is cut off; all keys are
/// written on both sides, so that each has two values afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn healed_regions_have_equal_fingerprints() {
    let cluster = three_regions(&[]).await;
    let client = cluster.client().await;
    let bucket = cluster.bucket("carts", BucketPolicy::default()).await;
    let empty = fingerprint(&cluster, 0).await;
    assert_eq!((&empty["equal"], &empty["keys"]["carts"]["b"]), (&true.into(), &0.into()));
    cut(&client, true).await;
    for node in [0, 2] {
        let connected = if node == 0 { 1.0 } else { 0.0 };
        until("the cut is noticed", async || {
            cluster.nodes[node].metric("holm_peer_connected").await <= connected
        })
        .await;
        write(&cluster, node, &bucket, 0..100).await;
    }
    let apart = fingerprint(&cluster, 0).await;
    assert_eq!(apart["equal"], false);
    assert_eq!(apart["unanswered"][0]["region"], "c");
    assert_eq!(apart["buckets"]["carts"]["a"], apart["buckets"]["carts"]["b"]);
    assert_eq!(fingerprint(&cluster, 2).await["equal"], false);

    cut(&client, false).await;
    let healed = Instant::now();
    for node in 0..3 {
        until("the regions are equal", async || fingerprint(&cluster, node).await["equal"] == true)
            .await;
    }
    let took = healed.elapsed();
    eprintln!("equal {} ms after the cut was healed", took.as_millis());
    assert!(took < WHOLE_WITHIN, "{took:?}");
    let whole = fingerprint(&cluster, 1).await;
    assert_eq!((&whole["partitions"], &whole["differing"]), (&16.into(), &Value::Array(vec![])));
    let digests = whole["buckets"]["carts"].as_object().unwrap();
    assert_eq!(digests.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(digests.values().all(|digest| *digest == digests["a"] && *digest != "0".repeat(32)));
    assert_eq!(whole["keys"]["carts"]["c"], 100);
    let (code, refused) = page(&cluster, 0, "/v1/fingerprint?replicas=some").await;
    assert_eq!(code, 400, "{refused}");
}
