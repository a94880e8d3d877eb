//! More than a node can do: refused by number, in bounded memory, and over when it is over.

use bytes::BytesMut;
use holm_protocol::error::RequestError;
use holm_protocol::ids::BucketId;
use holm_protocol::limits::VALUE_LEN_MAX;
use holm_protocol::message::{Reply, Request};
use tokio::task::JoinSet;

use crate::harness::cluster::{ALL_ROLES, Cluster};
use crate::harness::raw::{Conn, Lane, Witness, get, put};
use crate::harness::within;

/// Requests in one burst on one lane.
const BURST: u64 = 2_000;
/// Bytes of each value.
const VALUE: usize = 1_000;
/// What a node may grow by under any of this: allocator slack, and the write buffer (8 MiB).
const GROWTH_MAX: u64 = 64 << 20;

/// What became of a burst.
#[derive(Debug, Default)]
struct Outcome {
    done: u64,
    refused: u64,
}

/// Sends a burst of puts at once, and counts the answers: one for each.
async fn burst(lane: &mut Lane, bucket: BucketId, round: u64) -> Outcome {
    let mut batch = BytesMut::new();
    for id in 0..BURST {
        let key = format!("{round}-{id}");
        Request::Put(put(bucket, key.as_bytes(), &[b'v'; VALUE])).encode(id, &mut batch);
    }
    lane.write(&batch).await;
    let mut outcome = Outcome::default();
    for _ in 0..BURST {
        match lane.reply().await.1 {
            Reply::Written(_) => outcome.done += 1,
            Reply::Error(RequestError::Overloaded { limit, retry_after_ms, .. }) => {
                assert!(limit > 0 && retry_after_ms > 0);
                outcome.refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    outcome
}

/// Goal: what is too much is refused as `Overloaded` before anything happens; memory stays flat; a
/// moment later everything is as before. Method: bursts from several clients against small limits,
/// over and over; what was refused is not there, what was done is.
#[tokio::test]
async fn overload_is_refused_and_passes() {
    let flags = [
        "--limits-in-flight-max=8",
        "--limits-in-flight-per-connection-max=8",
        "--limits-inbox-max=32",
    ];
    let cluster = Cluster::start(1, &flags).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    let node = &cluster.nodes[0];

    let mut lanes: Vec<(Conn, Lane)> = Vec::new();
    for _ in 0..4 {
        let conn = cluster.raw(0, ALL_ROLES).await;
        let lane = conn.client_lane().await;
        lanes.push((conn, lane));
    }
    let mut total = Outcome::default();
    let mut settled = 0;
    for round in 0..12 {
        let mut bursts = JoinSet::new();
        for (conn, mut lane) in std::mem::take(&mut lanes) {
            bursts.spawn(async move {
                let outcome = within("a burst", burst(&mut lane, bucket, round)).await;
                ((conn, lane), outcome)
            });
        }
        while let Some(ended) = bursts.join_next().await {
            let (lane, outcome) = ended.unwrap();
            lanes.push(lane);
            total.done += outcome.done;
            total.refused += outcome.refused;
        }
        if round == 1 {
            settled = node.resident_bytes();
        }
    }
    assert!(total.done > 0 && total.refused > 0, "{total:?}");
    let grown = node.resident_bytes().saturating_sub(settled);
    assert!(grown < GROWTH_MAX, "{grown} bytes more than after the first bursts");
    witness.check(&mut friend).await;
    let (_, page) = node.get("/metrics").await;
    assert!(page.contains("outcome=\"overloaded\""), "{page}");
}

/// Goal: a client that asks and never reads costs what its lane may hold and no more, and others do
/// not notice. Method: a lane asks for half a gigabyte at once and takes nothing; later it reads,
/// and finds an answer or a refusal to everything.
#[tokio::test]
async fn a_client_that_does_not_read_costs_little() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    friend.put(put(bucket, b"large", &vec![1; VALUE_LEN_MAX])).await;
    let node = &cluster.nodes[0];
    let before = node.resident_bytes();
    let greedy = cluster.raw(0, ALL_ROLES).await;
    let mut lane = greedy.client_lane().await;
    let mut asked = BytesMut::new();
    for id in 0..500 {
        Request::Get(get(bucket, b"large")).encode(id, &mut asked);
    }
    lane.write(&asked).await;
    node.until_metric("holm_answer_siblings_count", 3.0).await;
    for _ in 0..50 {
        witness.check(&mut friend).await;
        let grown = node.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes for one client");
    }
    let (mut given, mut refused) = (0, 0);
    for _ in 0..500 {
        match lane.reply().await.1 {
            Reply::Values(values) => {
                assert_eq!(values.siblings[0].value.len(), VALUE_LEN_MAX);
                given += 1;
            }
            Reply::Error(RequestError::Overloaded { .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(given > 0 && refused > 0, "{given} given, {refused} refused");
    witness.check(&mut friend).await;
}

/// Goal: many large values at once, written and read, stay within bounded memory, and a client that
/// comes back when told so gets all of it done. Method: the SDK, 12 calls at a time, 1 MiB each,
/// which is below what it queues itself.
#[tokio::test]
async fn large_values_are_bounded() {
    let cluster = Cluster::start(1, &["--limits-cache-objects-bytes=1048576"]).await;
    let bucket = cluster.bucket("b", Default::default()).await;
    let before = cluster.nodes[0].resident_bytes();
    let mut calls = JoinSet::new();
    for n in 0..64u8 {
        if calls.len() == 12 {
            calls.join_next().await.unwrap().unwrap();
        }
        let bucket = bucket.clone();
        calls.spawn(async move {
            let key = vec![n];
            let patience = std::time::Duration::from_secs(20);
            let put = bucket.put(key.clone(), vec![n; VALUE_LEN_MAX]).timeout(patience);
            within("a put", put.send()).await.unwrap();
            let read = within("a get", bucket.get(key).timeout(patience).send()).await.unwrap();
            assert_eq!(read.value().unwrap(), &vec![n; VALUE_LEN_MAX]);
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
    let grown = cluster.nodes[0].resident_bytes().saturating_sub(before);
    assert!(grown < 3 * GROWTH_MAX, "{grown} bytes");
}
