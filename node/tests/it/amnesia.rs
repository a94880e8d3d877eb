//! A node that lost what it had acknowledged says so and steps aside (I11, P8, P11).

use std::fs;
use std::path::PathBuf;

use holm_client::NodeId;
use holm_protocol::admin::{AdminReply, AdminRequest};
use holm_protocol::ids::BucketId;
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Reply, Request};

use crate::harness::cluster::Cluster;
use crate::harness::holmd::Holmd;
use crate::harness::peer::FakePeer;
use crate::harness::raw::{Lane, get, put};
use crate::harness::until;

const KEYS: usize = 200;

fn key(n: usize) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// Writes keys at `all`.
async fn fill(lane: &mut Lane, bucket: BucketId) {
    for n in 0..KEYS {
        lane.put(Put { level: Some(Level::All), ..put(bucket, &key(n), b"kept") }).await;
    }
}

/// Reads all keys at a level; none may be missing.
async fn all_there(lane: &mut Lane, bucket: BucketId, level: Level) {
    for n in 0..KEYS {
        let read = lane.get(Get { level: Some(level), ..get(bucket, &key(n)) }).await;
        assert_eq!(read.siblings.len(), 1, "key {n} at {level}");
        assert_eq!(read.siblings[0].value, "kept");
    }
}

/// Checks that a node that has lost something takes it from the others by itself, and then does what
/// every node does; that it did not before is for the tests of the core and the simulator.
async fn comes_back(cluster: &Cluster, node: usize, bucket: BucketId) {
    let amnesiac = &cluster.nodes[node];
    assert_eq!(amnesiac.get("/livez").await.0, 200);
    until("it has taken what it lost", async || {
        amnesiac.metric("holm_node_amnesia").await == 0.0
            && amnesiac.get("/readyz").await.0 == 200
            // Who has taken all from one may not have met the other yet.
            && amnesiac.metric("holm_peer_connected").await == 2.0
    })
    .await;
    let (_conn, mut lane) = cluster.lane(node).await;
    let AdminReply::Status(status) = lane.admin(AdminRequest::Status).await else { panic!() };
    assert!(!status.amnesia && status.ready.is_ok());
    // It counts in every quorum, alone too, and coordinates.
    for level in [Level::One, Level::All] {
        all_there(&mut lane, bucket, level).await;
    }
    let put = Put { level: Some(Level::All), ..put(bucket, b"new", b"v") };
    let written = lane.put(put).await;
    assert_eq!((written.receipt.coordinator, written.receipt.replicas.len()), (amnesiac.id, 3));
    // The others answer as before.
    let (_conn, mut other) = cluster.lane((node + 1) % 3).await;
    all_there(&mut other, bucket, Level::Quorum).await;
}

/// The write-ahead log with the most in it.
fn wal(node: &Holmd) -> PathBuf {
    let mut logs = Vec::new();
    let mut dirs = vec![node.file("data")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                logs.push((entry.metadata().unwrap().len(), path));
            }
        }
    }
    let (len, path) = logs.into_iter().max().expect("a write-ahead log");
    assert!(len > 1000, "{len} bytes are too few to damage");
    path
}

/// Goal: one flipped byte in the write-ahead log of a stopped node is amnesia, told everywhere, until
/// the node has taken from the others what it lost; nothing is lost and nothing wrong is answered.
/// Method: flip one in the middle; restart the node once more.
#[tokio::test]
async fn a_flipped_log_byte_is_amnesia() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    fill(&mut lane, bucket).await;
    cluster.nodes[1].kill();
    let log = wal(&cluster.nodes[1]);
    let mut bytes = fs::read(&log).unwrap();
    let written = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[written / 2] ^= 0x10;
    fs::write(&log, bytes).unwrap();
    for restarts in 0..2 {
        cluster.nodes[1].start().await;
        until("the others see it", async || {
            cluster.nodes[1].metric("holm_peer_connected").await == 2.0
                && cluster.nodes[0].metric("holm_peer_connected").await == 2.0
        })
        .await;
        comes_back(&cluster, 1, bucket).await;
        let told = cluster.nodes[1].log().matches("the store may lack acknowledged writes").count();
        assert_eq!(told, 1, "once, after {restarts} restarts");
        assert_eq!(cluster.nodes[1].terminate().await.code(), Some(0), "after {restarts} restarts");
    }
}

/// Goal: a node whose disk was replaced learns from the others that it has forgotten, before it
/// answers anything. Method: the data directory removed; from its first sign of life it is asked at
/// `one` for keys it had acknowledged: refused or right, never absent.
#[tokio::test]
async fn a_wiped_node_is_told_so() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    fill(&mut lane, bucket).await;
    for round in 0..3 {
        cluster.nodes[2].kill();
        cluster.wipe(2);
        cluster.nodes[2].start().await;
        let (_conn, mut lane) = cluster.lane(2).await;
        let mut answered = 0;
        until("it answers again", async || {
            for n in 0..20 {
                let read = Get { level: Some(Level::One), ..get(bucket, &key(n)) };
                match lane.call(&Request::Get(read)).await {
                    Reply::Values(values) => {
                        assert_eq!(values.siblings.len(), 1, "key {n}: absent, round {round}");
                        answered += 1;
                    }
                    Reply::Error(error) => {
                        assert!([6, 15, 16, 17].contains(&error.code()), "{error}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            answered > 100
        })
        .await;
        comes_back(&cluster, 2, bucket).await;
    }
}

/// Goal: a node that starts alone waits for another to tell it that its disk is not an older one, and
/// says so; a cluster of which all nodes start comes up by itself.
#[tokio::test]
async fn a_whole_cluster_starts() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    fill(&mut lane, bucket).await;
    (0..3).for_each(|node| cluster.nodes[node].kill());
    cluster.nodes[2].start().await;
    until("it says what it waits for", async || {
        let (code, page) = cluster.nodes[2].get("/readyz").await;
        code == 503 && page.contains("in doubt")
    })
    .await;
    let (_conn, mut lane) = cluster.lane(2).await;
    let one = Request::Get(Get { level: Some(Level::One), ..get(bucket, &key(0)) });
    assert_eq!(lane.refusal(&one).await.code(), 17, "not ready");
    cluster.nodes[0].start().await;
    cluster.nodes[1].start().await;
    for node in 0..3 {
        until("it serves", async || cluster.nodes[node].get("/readyz").await.0 == 200).await;
    }
    all_there(&mut lane, bucket, Level::All).await;
}

/// Goal: a node learns that it was wiped also if it died before it heard it the first time. Method:
/// a wiped node that meets the others is killed at once, several times, before it is left alone.
#[tokio::test]
async fn a_wiped_node_is_told_until_it_knows() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    fill(&mut lane, bucket).await;
    cluster.nodes[2].kill();
    cluster.wipe(2);
    // The others meet somebody with its certificate and a new store, who dies without a trace.
    for store in 1..4 {
        let ghost = FakePeer::meet(&cluster.pki, &cluster.nodes[0], 3, store).await;
        let again = FakePeer::meet(&cluster.pki, &cluster.nodes[1], 3, store).await;
        until("the stores are remembered", async || {
            let known =
                |node: &Holmd| node.log().matches("lost its disk").count() >= store as usize;
            known(&cluster.nodes[0]) && known(&cluster.nodes[1])
        })
        .await;
        drop((ghost, again));
    }
    cluster.nodes[2].start().await;
    let told = "another node knew this one with another store";
    until("it is told", async || cluster.nodes[2].log().contains(told)).await;
    assert_eq!(cluster.nodes[2].id, NodeId(3));
    comes_back(&cluster, 2, bucket).await;
}
