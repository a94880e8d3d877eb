//! Consistency as operators see it: whether regions hold the same, how far they are apart, and what was
//! done about it.

use std::time::Duration;

use holm_client::{Bucket, Client, Level, NodeId};
use holm_protocol::admin::{AdminRequest, LinkRule, RepairScope};
use holm_protocol::bucket::BucketPolicy;
use holm_protocol::ids::RegionId;
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::cluster::{Cluster, layout};
use crate::harness::holmd::metric;
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

/// What `/health/consistency` says of the lag behind a region.
fn lag_behind<'a>(health: &'a Value, region: &str) -> &'a Value {
    let lags = health["lags"].as_array().unwrap();
    lags.iter().find(|lag| lag["from"] == region).unwrap_or_else(|| panic!("{health}"))
}

/// Goal: a node that is cut off says how long it may be behind, with 503 beyond the threshold, and is well
/// again once it has what it missed; writes that arrive are timed, by the region that they come from and
/// what brought them. Method: node 3 is cut off, and node 1 written to meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn lag_is_told_and_judged() {
    const WRITES: u32 = 20;
    let cluster = three_regions(&["--health-lag-max-ms=1500"]).await;
    let client = cluster.client().await;
    let bucket = cluster.bucket("carts", BucketPolicy::default()).await;
    let health = async |node| page(&cluster, node, "/health/consistency").await;
    let mut well = Value::Null;
    until("all is known and well", async || {
        let (code, health) = health(2).await;
        well = health;
        code == 200 && well["lags"].as_array().is_some_and(|lags| lags.len() == 2)
    })
    .await;
    assert_eq!((&well["region"], &well["healthy"]), (&"c".into(), &true.into()));
    assert_eq!(lag_behind(&well, "a")["partitions"], 16);
    assert_eq!(well["violations"], 0);
    write(&cluster, 0, &bucket, 0..1).await;
    let arrived = r#"holm_write_visible_seconds_count{from_region="a",by="write"}"#;
    until("writes from a are timed", async || {
        // A run's first write may come before anything is known of the run.
        write(&cluster, 0, &bucket, 0..1).await;
        let (_, metrics) = cluster.nodes[1].get("/metrics").await;
        metric(&metrics, arrived).is_some_and(|count| count >= 1.0)
    })
    .await;
    let before = cluster.nodes[2].metric("holm_write_visible_seconds_count").await;

    cut(&client, true).await;
    let mut ill = Value::Null;
    until("the lag is too long behind both", async || {
        let (code, health) = health(2).await;
        ill = health;
        code == 503 && ill["concerns"].as_array().is_some_and(|concerns| concerns.len() == 2)
    })
    .await;
    assert!(ill["concerns"][0].as_str().unwrap().contains("behind a"), "{ill}");
    let lag = lag_behind(&ill, "b");
    assert_eq!((&lag["partitions_unheard"], &lag["to"]), (&16.into(), &"c".into()));
    assert!(lag["lag_seconds"].as_f64().unwrap() > 1.5);
    let metric_of_lag = r#"holm_replica_consistency_lag_seconds{from_region="b"}"#;
    assert!(cluster.nodes[2].metric(metric_of_lag).await > 1.5);
    write(&cluster, 0, &bucket, 1..1 + WRITES).await;

    cut(&client, false).await;
    until("it is well again", async || {
        let (code, health) = health(2).await;
        let lag = lag_behind(&health, "a");
        code == 200 && lag["writes_behind"] == 0 && lag["partitions_unheard"] == 0
    })
    .await;
    let arrivals = "holm_write_visible_seconds_count";
    cluster.nodes[2].until_metric(arrivals, before + f64::from(WRITES)).await;
    let drift = cluster.nodes[2].metric("holm_consistency_cross_region_drift_percent").await;
    assert_eq!(drift, 0.0);
    assert_eq!(cluster.nodes[2].metric("holm_consistency_violations_total").await, 0.0);
    assert_eq!(cluster.nodes[2].metric("holm_read_after_write_failures_total").await, 0.0);
}

/// Goal: what an operator wants verified is verified at once, each pair of replicas by its lower node, and
/// is known to be afterwards; what was just verified is left out if that is wanted; a replica that is gone
/// is told. Method: verification by the clock is switched off.
#[tokio::test(flavor = "multi_thread")]
async fn repair_is_done_on_demand() {
    let mut cluster = three_regions(&["--repair-verify-every-ms=0"]).await;
    let client = cluster.client().await;
    let admin = client.admin();
    let bucket = cluster.bucket("carts", BucketPolicy::default()).await;
    write(&cluster, 0, &bucket, 0..50).await;
    assert_eq!(cluster.nodes[0].metric("holm_ranges_unverified").await, 32.0);
    let repair = async |node: u64, scope: RepairScope| {
        let node = NodeId(node);
        let asked = within("a repair", admin.repair(node, scope)).await.unwrap();
        let mut now = asked;
        until("the repair is done", async || {
            now = within("progress", admin.repair_progress(node)).await.unwrap();
            now.demand >= asked.demand && now.pending == 0
        })
        .await;
        assert_eq!((now.run, now.violations), (asked.run, 0));
        (now.verified - asked.verified, now.failed - asked.failed)
    };
    for (node, ranges) in [(1, 32), (2, 16), (3, 0)] {
        assert_eq!(repair(node, RepairScope::default()).await, (ranges, 0), "node {node}");
    }
    let in_c = RepairScope { region: Some(RegionId(2)), ..RepairScope::default() };
    assert_eq!(repair(1, in_c).await, (16, 0));
    let old = RepairScope { older_than_s: 600, ..RepairScope::default() };
    assert_eq!(repair(1, old).await, (0, 0), "it was just verified");
    until("that is known", async || cluster.nodes[0].metric("holm_ranges_unverified").await == 0.0)
        .await;
    assert!(cluster.nodes[0].metric("holm_range_verified_age_seconds").await < 60.0);
    cluster.nodes[2].kill();
    until("the dead node is missed", async || {
        cluster.nodes[0].metric("holm_peer_connected").await <= 1.0
    })
    .await;
    assert_eq!(repair(1, RepairScope::default()).await, (16, 16));
}
