//! Idempotence: one request id is one write.

use bytes::BytesMut;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Delete, Put, Reply, Request};
use rustix::process::Signal;

use crate::harness::cluster::Cluster;
use crate::harness::raw::{Lane, code, delete, get, put};
use crate::harness::until;

/// Goal: a repeated put is applied once and answered alike each time. Method: one after the other,
/// many at once on one lane, and on another connection.
#[tokio::test]
async fn a_repeated_put_is_one_write() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    let request = put(bucket, b"k", b"v");
    let first = lane.put(request.clone()).await;
    assert_eq!(lane.put(request.clone()).await, first);
    let (_other_conn, mut other) = cluster.lane(0).await;
    assert_eq!(other.put(request).await, first);

    let many = put(bucket, b"k", b"w");
    let mut batch = BytesMut::new();
    for id in 100..150 {
        Request::Put(many.clone()).encode(id, &mut batch);
    }
    lane.write(&batch).await;
    let mut dots = std::collections::BTreeSet::new();
    for _ in 100..150 {
        match lane.reply().await.1 {
            Reply::Written(written) => {
                dots.insert(written.dot);
            }
            // More at once than a write takes waiters: told, and safe to repeat.
            Reply::Error(error) => assert_eq!(error, RequestError::CoordinatorLost),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dots.len(), 1);
    assert_eq!(lane.get(get(bucket, b"k")).await.siblings.len(), 2);
}

/// Goal: a request id names one write; another under the same id is refused and not applied.
/// Method: everything that can differ, once each; also a delete under a put's id.
#[tokio::test]
async fn a_request_id_cannot_be_used_again() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let other = cluster.bucket("other", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    let first = put(bucket, b"k", b"v");
    lane.put(first.clone()).await;
    let before = lane.get(get(bucket, b"k")).await;
    let RequestId { client, sequence } = first.request;
    let gone = Delete { request: first.request, ..delete(bucket, b"k", &before.context) };
    let others = [
        Request::Put(Put { value: "w".into(), ..first.clone() }),
        Request::Put(Put { value: "".into(), ..first.clone() }),
        Request::Put(Put { context: before.context.clone(), ..first.clone() }),
        Request::Delete(gone),
    ];
    for request in others {
        let error = lane.refusal(&request).await;
        assert_eq!(error, RequestError::RequestIdReused { client, sequence }, "{request:?}");
    }
    assert_eq!(lane.get(get(bucket, b"k")).await.siblings, before.siblings);
    // Another key may be another shard's, which does not know the id; it is then a write of its own.
    let elsewhere = Put { bucket: other, ..first };
    assert!([0, 19].contains(&code(&lane.call(&Request::Put(elsewhere)).await)));
}

/// Goal: a write that missed its level is *unknown*, and repeating it makes it known without
/// applying it again. Method: two of three nodes are paused, a quorum put is unknown; they go on,
/// the same request succeeds; one sibling on all nodes.
#[tokio::test]
async fn an_unknown_write_can_be_repeated() {
    let cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.lane(0).await;
    let signal = |signal| cluster.nodes[1..].iter().for_each(|node| node.signal(signal));
    signal(Signal::STOP);
    let level = Some(Level::Quorum);
    let request = Put { level, timeout_ms: 300, ..put(bucket, b"k", b"v") };
    let error = lane.refusal(&Request::Put(request.clone())).await;
    assert_eq!(error, RequestError::WriteUnknown { needed: 2, durable: 1 });
    // Again, while nothing has changed: still unknown, still the same write.
    let error = lane.refusal(&Request::Put(request.clone())).await;
    assert_eq!(error.code(), 14, "{error}");
    signal(Signal::CONT);
    let written = repeat_until_written(&mut lane, &request).await;
    assert_eq!(repeat_until_written(&mut lane, &request).await, written);
    for node in 0..3 {
        assert_eq!(siblings_at(&cluster, node, bucket).await, 1, "node {}", node + 1);
    }
}

async fn repeat_until_written(lane: &mut Lane, request: &Put) -> holm_protocol::dot::Dot {
    let mut dot = None;
    until("the write is acknowledged", async || {
        match lane.call(&Request::Put(request.clone())).await {
            Reply::Written(written) => dot = Some(written.dot),
            Reply::Error(error) => assert!([14, 26].contains(&error.code()), "{error}"),
            other => panic!("{other:?}"),
        }
        dot.is_some()
    })
    .await;
    dot.unwrap()
}

async fn siblings_at(cluster: &Cluster, node: usize, bucket: BucketId) -> usize {
    let (_conn, mut lane) = cluster.lane(node).await;
    let all = holm_protocol::message::Get { level: Some(Level::All), ..get(bucket, b"k") };
    lane.get(all).await.siblings.len()
}
