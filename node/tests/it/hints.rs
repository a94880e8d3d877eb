//! Hints between real nodes: kept while a replica is dead, named in receipts, home without anybody's
//! help once it is back.

use holm_client::Level;
use holm_protocol::bucket::BucketPolicy;
use holm_protocol::ids::NodeId;

use crate::harness::cluster::{Cluster, layout};
use crate::harness::{until, within};

/// Writes while a replica is dead.
const KEYS: usize = 200;

/// Goal: with one of three replicas dead and a spare node in the region, writes at `local_quorum` go on
/// and their receipts name the spare where it was needed; `explain` shows what it keeps; when the
/// replica is started everything goes home by itself, and nothing is left. Method: kill a second
/// replica too, so that each write needs the spare.
#[tokio::test(flavor = "multi_thread")]
async fn hints_go_home_by_themselves() {
    let mut cluster = Cluster::without_layout(4, &[]).await;
    let client = cluster.client().await;
    let admin = client.admin();
    let mut plan = layout(cluster.nodes.iter().map(|node| (node.id.0, node.quic)));
    plan.placements[0].replication[0].1 = 3;
    plan.placements[0].bits = 0;
    let applied = admin.apply_layout(NodeId(1), plan);
    within("applying a layout", applied).await.unwrap();
    cluster.until_whole().await;
    let bucket = cluster.bucket("carts", BucketPolicy::default()).await;

    let explained = within("explaining", admin.explain(&bucket, "0")).await.unwrap();
    let (replicas, others): (Vec<_>, Vec<_>) = explained.members.iter().partition(|m| m.replica);
    let (replicas, spare) = (replicas.iter().map(|m| m.node).collect::<Vec<_>>(), others[0].node);
    let place = |node: NodeId| node.0 as usize - 1;
    for &dead in &replicas[1..] {
        cluster.nodes[place(dead)].kill();
    }
    for living in [replicas[0], spare] {
        until("the dead are noticed", async || {
            cluster.nodes[place(living)].metric("holm_peer_connected").await <= 1.0
        })
        .await;
    }
    for key in 0..KEYS {
        let put = bucket.put(key.to_string(), format!("value of {key}"));
        let put = put.level(Level::LocalQuorum).send();
        let written = within("a put", put).await.unwrap();
        let entries = written.receipt().replicas.iter();
        let stood_in: Vec<NodeId> =
            entries.filter(|entry| entry.fallback).map(|entry| entry.node).collect();
        assert_eq!(stood_in, [spare]);
    }
    let explained = within("explaining", admin.explain(&bucket, "0")).await.unwrap();
    let at_spare = explained.members.iter().find(|member| member.node == spare).unwrap();
    let hints = &at_spare.state.as_ref().unwrap().hints;
    assert_eq!(hints.len(), 1, "{at_spare:?}");
    let dead = hints[0].replica;
    assert!(replicas[1..].contains(&dead));
    let spare = place(spare);
    assert_eq!(cluster.nodes[spare].metric("holm_shard_hints").await, KEYS as f64);
    assert!(cluster.nodes[spare].metric("holm_shard_hint_bytes").await > 0.0);

    // Its keeper is killed as well: what it keeps is on its disk.
    cluster.nodes[spare].kill();
    cluster.nodes[spare].start().await;
    cluster.nodes[place(dead)].start().await;
    until("the hints are home", async || {
        cluster.nodes[spare].metric("holm_shard_hints").await == 0.0
    })
    .await;
    assert_eq!(cluster.nodes[spare].metric("holm_hint_oldest_age_seconds").await, 0.0);
    let received = "holm_shard_hints_received_total";
    assert!(cluster.nodes[place(dead)].metric(received).await >= KEYS as f64);
    for key in [0, KEYS - 1] {
        let explained = admin.explain(&bucket, key.to_string());
        let explained = within("explaining", explained).await.unwrap();
        let state_of = |node: NodeId| {
            let member = explained.members.iter().find(|member| member.node == node);
            member.unwrap().state.as_ref().unwrap()
        };
        assert_eq!(state_of(dead).digest, state_of(replicas[0]).digest);
        assert!(
            explained.members.iter().filter_map(|m| m.state.as_ref()).all(|s| s.hints.is_empty())
        );
    }
}

/// Goal: a bucket that is `strict` takes no stand-ins.
#[tokio::test(flavor = "multi_thread")]
async fn a_strict_bucket_waits_for_its_replicas() {
    let mut cluster = Cluster::without_layout(4, &[]).await;
    let client = cluster.client().await;
    let admin = client.admin();
    let mut plan = layout(cluster.nodes.iter().map(|node| (node.id.0, node.quic)));
    plan.placements[0].replication[0].1 = 3;
    plan.placements[0].bits = 0;
    let applied = admin.apply_layout(NodeId(1), plan);
    within("applying a layout", applied).await.unwrap();
    cluster.until_whole().await;
    let policy = BucketPolicy { strict: true, ..BucketPolicy::default() };
    let bucket = cluster.bucket("ledger", policy).await;
    let explained = within("explaining", admin.explain(&bucket, "k")).await.unwrap();
    let replicas: Vec<NodeId> =
        explained.members.iter().filter(|m| m.replica).map(|m| m.node).collect();
    for dead in &replicas[1..] {
        cluster.nodes[dead.0 as usize - 1].kill();
    }
    let put = bucket.put("k", "v").level(Level::LocalQuorum).send();
    assert!(within("a put", put).await.is_err());
    let put = bucket.put("k", "v").level(Level::One).send();
    let written = within("a put", put).await.unwrap();
    assert!(written.receipt().replicas.iter().all(|entry| !entry.fallback));
}
