//! What a write says about itself when things go wrong, and the requests made of several calls.

use std::time::Duration;

use holm_client::{
    Cause, DeleteError, FullQueue, GetJsonError, NodeId, Outcome, PutError, RequestId, Update,
    UpdateError, Updated,
};
use holm_protocol::error::{ContextFault, RequestError};
use holm_protocol::message::{Reply, Request, Values};

use crate::fake::{Act, Fake, success};

fn request_ids(fake: &Fake) -> Vec<RequestId> {
    let id = |(_, request): (NodeId, Request)| match request {
        Request::Put(put) => Some(put.request),
        Request::Delete(delete) => Some(delete.request),
        _ => None,
    };
    fake.log().into_iter().filter_map(id).collect()
}

/// Goal: a write lost after it was sent is repeated at the same run, with the same id, and
/// nowhere else. Method: the node hangs up on the first attempt; another replica stands by.
#[tokio::test]
async fn lost_writes_are_repeated_at_the_same_run() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match n {
        0 => Act::Hangup,
        _ => Act::Reply(success(node, n, request)),
    });
    bucket.put("k", "v").await.unwrap();
    let (log, ids) = (fake.log(), request_ids(&fake));
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(log[0].0, log[1].0);
}

/// Goal: the same after the node said that it does not know. Method: `CoordinatorLost`, then a
/// refusal that says nothing about the first attempt, then success.
#[tokio::test]
async fn unknown_writes_are_repeated_at_the_same_run() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match n {
        0 => Act::Reply(Reply::Error(RequestError::CoordinatorLost)),
        1 => crate::fake::not_ready(),
        _ => Act::Reply(success(node, n, request)),
    });
    bucket.put("k", "v").await.unwrap();
    let nodes: Vec<_> = fake.log().into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, [nodes[0]; 3]);
    let ids = request_ids(&fake);
    assert_eq!(ids, [ids[0]; 3]);
}

/// Goal: a restarted node remembers no ids, so a write lost with its old run is reported as
/// unknown and not sent again. Method: hang up and change the run.
#[tokio::test]
async fn lost_writes_are_unknown_after_a_restart() {
    let fake = std::sync::Arc::new(Fake::start(&["eu", "eu"], 2));
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    let weak = std::sync::Arc::downgrade(&fake);
    fake.script(move |node, _, _| {
        weak.upgrade().unwrap().new_run(node);
        Act::Hangup
    });
    let error = bucket.put("k", "v").await.unwrap_err();
    assert!(
        matches!(error, PutError::Unknown { last: Cause::NodeRestarted { .. }, .. }),
        "{error:?}"
    );
    assert_eq!(error.outcome(), Outcome::MayHaveHappened);
    assert_eq!(request_ids(&fake).len(), 1);
}

/// Goal: once unknown, always unknown. Method: the first attempt is lost, the repeat is refused for
/// good.
#[tokio::test]
async fn a_refused_repeat_stays_unknown() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|_, n, _| match n {
        0 => Act::Hangup,
        _ => Act::Reply(Reply::Error(RequestError::ContextRequired)),
    });
    let error = bucket.put("k", "v").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error:?}");
    assert_eq!(request_ids(&fake).len(), 2);
}

/// Goal: a node that dies with the write leaves it unknown, by the deadline, and is not replaced.
/// Method: the node closes for good; another replica stands by.
#[tokio::test]
async fn a_dead_node_leaves_its_write_unknown() {
    let fake = Fake::start(&["eu", "eu"], 2);
    let client = fake.builder(&[1, 2]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|_, _, _| Act::Die);
    let started = std::time::Instant::now();
    let error = bucket.put("k", "v").timeout(Duration::from_millis(300)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());
    assert!(
        matches!(error, PutError::Unknown { last: Cause::ConnectionLost { sent: true, .. }, .. }),
        "{error:?}"
    );
    assert_eq!(request_ids(&fake).len(), 1);
}

/// Goal: a node that is no replica may pass a repeat to another coordinator, so it gets none.
/// Method: the region has no replica, the one elsewhere is gone; the region's node hangs up.
#[tokio::test]
async fn writes_are_not_repeated_at_other_nodes() {
    let fake = Fake::start(&["eu", "us"], 1);
    fake.change_view(|view| {
        view.placements[0].replicas.iter_mut().for_each(|replicas| *replicas = vec![1]);
    });
    fake.stop(NodeId(2)).await;
    let client = fake.builder(&[1]).region("eu").connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|_, _, _| Act::Hangup);
    let error = bucket.put("k", "v").await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error:?}");
    assert_eq!(request_ids(&fake).len(), 1);
    assert_eq!(fake.log()[0].0, NodeId(1));
}

/// Goal: this client's own bound is an error at once. Method: one request in flight is allowed, and
/// the node keeps it.
#[tokio::test]
async fn a_full_queue_is_overload() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).in_flight_max(1).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|_, _, _| Act::Silence);
    let other = bucket.clone();
    let first = tokio::spawn(async move { other.get("k").await });
    fake.logged(1).await;
    let error = bucket.put("k", "v").await.unwrap_err();
    let queue = FullQueue::Requests { in_flight: 1, limit: 1 };
    assert_eq!(error, PutError::Overloaded { queue });
    assert_eq!(error.outcome(), Outcome::NothingHappened);
    first.abort();
}

/// Goal: a delete without a context reads one and says so; one with a context, or in an `lww`
/// bucket, reads nothing.
#[tokio::test]
async fn deletes_read_the_context_they_lack() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    let written = bucket.delete("k").await.unwrap();
    assert!(written.context_was_read());
    let log = fake.log();
    assert!(matches!(&log[0].1, Request::Get(_)));
    assert!(matches!(&log[1].1, Request::Delete(delete) if delete.context == b"seen"[..]));
    fake.clear_log();
    let again = bucket.delete("k").context(written.context()).await.unwrap();
    assert!(!again.context_was_read());
    client.bucket("lww").await.unwrap().delete("k").await.unwrap();
    assert_eq!(fake.log().len(), 2);
}

/// Goal: there is nothing to delete where nothing ever was. Method: a read without any context.
#[tokio::test]
async fn deleting_nothing_is_said() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match success(node, n, request) {
        Reply::Values(values) => Act::Reply(Reply::Values(Values {
            siblings: Vec::new(),
            context: Default::default(),
            ..values
        })),
        other => Act::Reply(other),
    });
    assert_eq!(bucket.delete("k").await.unwrap_err(), DeleteError::Absent);
    let updated = bucket.update("k", |_| Update::Delete).await.unwrap();
    assert!(matches!(updated, Updated::Kept(got) if got.is_absent()));
    assert!(request_ids(&fake).is_empty());
}

/// Goal: an update writes with the context of its read, starts over when that went stale, and never
/// after an unknown write. Method: one stale refusal; then a lost write.
#[tokio::test]
async fn updates_start_over_only_where_nothing_happened() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    fake.script(|node, n, request| match n {
        1 => Act::Reply(Reply::Error(RequestError::Context { fault: ContextFault::UnknownSecret })),
        _ => Act::Reply(success(node, n, request)),
    });
    let mut runs = 0;
    let updated = bucket
        .update("k", |siblings| {
            runs += 1;
            Update::put([b"+", &siblings[0].value[..]].concat())
        })
        .await
        .unwrap();
    assert!(matches!(updated, Updated::Written(_)));
    assert_eq!(runs, 2);
    let log = fake.log();
    let Request::Put(put) = &log[3].1 else { panic!("{log:?}") };
    assert_eq!((&put.value[..], &put.context[..]), (&b"+1"[..], &b"seen"[..]));

    fake.script(|node, n, request| match request {
        Request::Put(_) => {
            Act::Reply(Reply::Error(RequestError::WriteUnknown { needed: 2, durable: 1 }))
        }
        _ => Act::Reply(success(node, n, request)),
    });
    let mut runs = 0;
    let change = |_: &[holm_client::Sibling]| {
        runs += 1;
        Update::put("v")
    };
    let timeout = Duration::from_millis(200);
    let error = bucket.update("k", change).timeout(timeout).await.unwrap_err();
    assert!(matches!(error, UpdateError::Put(PutError::Unknown { .. })), "{error:?}");
    assert_eq!((runs, error.outcome()), (1, Outcome::MayHaveHappened));
    assert_eq!(error.refusal().map(RequestError::code), Some(14));
}

/// Goal: typed values go out and come in as JSON, sibling by sibling.
#[tokio::test]
async fn values_can_be_typed() {
    let fake = Fake::start(&["eu"], 1);
    let client = fake.builder(&[1]).connect().await.unwrap();
    let bucket = client.bucket("b").await.unwrap();
    let got = bucket.get_json::<u64>("k").await.unwrap();
    assert_eq!(got.values(), [1]);
    bucket.put_json("k", &[1, 2], Some(got.context())).await.unwrap();
    let log = fake.log();
    assert!(matches!(&log[1].1, Request::Put(put) if put.value == b"[1,2]"[..]));
    let error = bucket.get_json::<Vec<u8>>("k").await.unwrap_err();
    assert!(matches!(error, GetJsonError::Json { index: 0, .. }), "{error:?}");
}
