//! Requests that are well-formed and wrong: each has its number, and nothing changes.

use bytes::Bytes;
use holm_client::{BucketKind, BucketPolicy};
use holm_protocol::admin::{AdminReply, AdminRequest, BucketChange, LinkRule};
use holm_protocol::error::{ContextFault, RequestError, Role};
use holm_protocol::ids::{BucketId, NodeId, PlacementId};
use holm_protocol::level::Level;
use holm_protocol::limits::{CONTEXT_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use holm_protocol::message::{Get, Put, Reply, Request};

use crate::harness::Dice;
use crate::harness::cluster::Cluster;
use crate::harness::raw::{Lane, Witness, code, delete, get, put};

const UNKNOWN: BucketId = BucketId(0xdead_beef);

/// A node, a bucket on it, and a lane.
async fn one_node(policy: BucketPolicy) -> (Cluster, BucketId, Lane) {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", policy).await.id();
    let (conn, lane) = cluster.lane(0).await;
    // The lane keeps the connection alive only together with its endpoint.
    std::mem::forget(conn);
    (cluster, bucket, lane)
}

/// Goal: sizes are limits, told by name and number, before anything changes. Method: one too much
/// and one too few of everything; then exactly as much as is allowed.
#[tokio::test]
async fn sizes_have_limits() {
    let policy = BucketPolicy { max_value: 1000, ..BucketPolicy::default() };
    let (cluster, bucket, mut lane) = one_node(policy).await;
    let big = cluster.bucket("big", BucketPolicy::default()).await.id();
    let witness = Witness::write(&mut lane, bucket).await;

    let (long, longest) = (vec![b'k'; KEY_LEN_MAX + 1], vec![b'k'; KEY_LEN_MAX]);
    let cases = [
        ("an empty key", Request::Put(put(bucket, b"", b"v")), 7),
        ("an empty key", Request::Get(get(bucket, b"")), 7),
        ("an empty key", Request::Delete(delete(bucket, b"", b"c")), 7),
        ("a long key", Request::Put(put(bucket, &long, b"v")), 7),
        ("a long key", Request::Get(get(bucket, &long)), 7),
        ("a long key", Request::Delete(delete(bucket, &long, b"c")), 7),
        ("a bucket's value", Request::Put(put(bucket, b"k", &[1; 1001])), 8),
        ("any value", Request::Put(put(big, b"k", &vec![1; VALUE_LEN_MAX + 1])), 8),
    ];
    for (case, request, expected) in cases {
        let error = lane.refusal(&request).await;
        assert_eq!(error.code(), expected, "{case}: {error}");
        witness.check(&mut lane).await;
    }
    let context = Bytes::from(vec![1; CONTEXT_LEN_MAX + 1]);
    let error = lane.refusal(&Request::Put(Put { context, ..put(bucket, b"k", b"v") })).await;
    assert_eq!(error, RequestError::Context { fault: ContextFault::TooLong });

    assert!(lane.get(get(bucket, b"k")).await.siblings.is_empty());
    lane.put(put(bucket, &longest, &[1; 1000])).await;
    lane.put(put(big, b"k", &vec![1; VALUE_LEN_MAX])).await;
    assert_eq!(lane.get(get(big, b"k")).await.siblings[0].value.len(), VALUE_LEN_MAX);
}

/// Goal: a context that is not this key's is refused, and nothing is overwritten by it (I8).
/// Method: every bit of a right one flipped; another key's, another bucket's, noise of all lengths;
/// then the right one works.
#[tokio::test]
async fn contexts_cannot_be_forged() {
    let (cluster, bucket, mut lane) = one_node(BucketPolicy::default()).await;
    let other = cluster.bucket("other", BucketPolicy::default()).await.id();
    let witness = Witness::write(&mut lane, bucket).await;
    lane.put(put(bucket, b"k", b"kept")).await;
    let right = lane.get(get(bucket, b"k")).await.context;
    lane.put(put(bucket, b"k2", b"v")).await;
    lane.put(put(other, b"k", b"v")).await;
    let mut wrong = vec![
        lane.get(get(bucket, b"k2")).await.context.to_vec(),
        lane.get(get(other, b"k")).await.context.to_vec(),
        right[..right.len() - 1].to_vec(),
        [&right[..], b"\0"].concat(),
    ];
    for bit in 0..right.len() * 8 {
        let mut flipped = right.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        wrong.push(flipped);
    }
    let mut dice = Dice(1);
    wrong.extend((1..40).map(|len| dice.bytes(len)));
    wrong.push(dice.bytes(CONTEXT_LEN_MAX));
    for context in wrong {
        let forged = Put { context: context.clone().into(), ..put(bucket, b"k", b"forged") };
        let error = lane.refusal(&Request::Put(forged)).await;
        assert_eq!(error.code(), 10, "{error}");
        let error = lane.refusal(&Request::Delete(delete(bucket, b"k", &context))).await;
        assert_eq!(error.code(), 10, "{error}");
    }
    let now = lane.get(get(bucket, b"k")).await;
    assert_eq!((&now.siblings[0].value[..], now.siblings.len()), (&b"kept"[..], 1));
    assert_eq!(now.context, right);
    lane.put(Put { context: right, ..put(bucket, b"k", b"new") }).await;
    assert_eq!(lane.get(get(bucket, b"k")).await.siblings[0].value, "new");
    witness.check(&mut lane).await;
}

/// Goal: a delete says what it deletes. Method: one without a context in a `siblings` bucket.
#[tokio::test]
async fn a_delete_needs_a_context() {
    let (cluster, bucket, mut lane) = one_node(BucketPolicy::default()).await;
    let witness = Witness::write(&mut lane, bucket).await;
    let error = lane.refusal(&Request::Delete(delete(bucket, b"the witness", b""))).await;
    assert_eq!(error, RequestError::ContextRequired);
    witness.check(&mut lane).await;
    let lww = BucketPolicy { kind: BucketKind::Lww, ..BucketPolicy::default() };
    let lww = cluster.bucket("lww", lww).await.id();
    lane.put(put(lww, b"k", b"v")).await;
    assert_eq!(code(&lane.call(&Request::Delete(delete(lww, b"k", b""))).await), 0);
    assert!(lane.get(get(lww, b"k")).await.siblings.is_empty());
}

/// Goal: siblings are refused past the bucket's limit, by number and by size, and never dropped.
/// Method: blind puts until refused; a put that has read resolves them.
#[tokio::test]
async fn siblings_have_limits() {
    let policy = BucketPolicy { max_siblings: 3, ..BucketPolicy::default() };
    let (cluster, bucket, mut lane) = one_node(policy).await;
    for value in [b"a", b"b", b"c"] {
        lane.put(put(bucket, b"k", value)).await;
    }
    for _ in 0..20 {
        let error = lane.refusal(&Request::Put(put(bucket, b"k", b"d"))).await;
        assert_eq!(error, RequestError::TooManySiblings { siblings: 3, limit: 3 });
    }
    let read = lane.get(get(bucket, b"k")).await;
    assert_eq!(read.siblings.len(), 3);
    lane.put(Put { context: read.context, ..put(bucket, b"k", b"resolved") }).await;
    assert_eq!(lane.get(get(bucket, b"k")).await.siblings.len(), 1);

    let big = cluster.bucket("big", BucketPolicy::default()).await.id();
    let half = vec![7; VALUE_LEN_MAX - 64];
    lane.put(put(big, b"k", &half)).await;
    lane.put(put(big, b"k", &half)).await;
    let error = lane.refusal(&Request::Put(put(big, b"k", b"one more"))).await;
    assert_eq!(error.code(), 9, "{error}");
    let read = lane.get(get(big, b"k")).await;
    assert_eq!(read.siblings.len(), 2);
    lane.put(Put { context: read.context, ..put(big, b"k", b"resolved") }).await;
}

/// Goal: what does not exist, and levels that no replica set can meet, are refused. Method: unknown
/// buckets for every verb; every number above the replication factor.
#[tokio::test]
async fn unknown_buckets_and_impossible_levels() {
    let (_cluster, bucket, mut lane) = one_node(BucketPolicy::default()).await;
    let witness = Witness::write(&mut lane, bucket).await;
    let key = Bytes::from_static(b"k");
    let unknown = [
        Request::Put(put(UNKNOWN, b"k", b"v")),
        Request::Get(get(UNKNOWN, b"k")),
        Request::Delete(delete(UNKNOWN, b"k", b"c")),
        Request::Admin(AdminRequest::Explain { bucket: UNKNOWN, key: key.clone() }),
    ];
    for request in unknown {
        assert_eq!(
            lane.refusal(&request).await,
            RequestError::UnknownBucket { bucket: UNKNOWN },
            "{request:?}"
        );
    }
    for level in [2, 3, 9, 127].map(Level::Count) {
        let level = Some(level);
        let requests = [
            Request::Put(Put { level, ..put(bucket, b"k", b"v") }),
            Request::Get(Get { level, ..get(bucket, b"k") }),
        ];
        for request in requests {
            let error = lane.refusal(&request).await;
            let told = matches!(error, RequestError::LevelUnreachable { available: 1, .. });
            assert!(told, "{error}");
        }
    }
    assert!(lane.get(get(bucket, b"k")).await.siblings.is_empty(), "nothing happened");
    for level in [Level::One, Level::Quorum, Level::EachQuorum, Level::All, Level::Count(1)] {
        lane.put(Put { level: Some(level), ..put(bucket, b"k", b"v") }).await;
    }
    witness.check(&mut lane).await;
}

/// Goal: a certificate permits what its roles say and nothing more. Method: every request with
/// every single role and with none.
#[tokio::test]
async fn roles_are_enforced() {
    let (cluster, bucket, mut friend) = one_node(BucketPolicy::default()).await;
    let witness = Witness::write(&mut friend, bucket).await;
    let key = Bytes::from_static(b"k");
    let change =
        BucketChange { name: "new".to_owned(), policy: BucketPolicy::default(), create: true };
    let requests = [
        (Role::Read, Request::Get(get(bucket, b"k"))),
        (Role::Write, Request::Put(put(bucket, b"k", b"v"))),
        (Role::Write, Request::Delete(delete(bucket, b"k", b""))),
        (Role::Admin, Request::Admin(AdminRequest::Status)),
        (Role::Admin, Request::Admin(AdminRequest::Bucket(change))),
        (Role::Admin, Request::Admin(AdminRequest::Explain { bucket, key })),
        (Role::Admin, Request::Admin(AdminRequest::Links(vec![]))),
    ];
    for (roles, has) in [
        ("", None),
        ("read", Some(Role::Read)),
        ("write", Some(Role::Write)),
        ("admin", Some(Role::Admin)),
    ] {
        let conn = cluster.raw(0, roles).await;
        let mut lane = conn.client_lane().await;
        for (needed, request) in &requests {
            let reply = lane.call(request).await;
            let refused = Reply::Error(RequestError::Unauthorized { needed: *needed });
            if has == Some(*needed) {
                assert_ne!(reply, refused, "role {roles}");
            } else {
                assert_eq!(reply, refused, "role {roles}");
            }
        }
        assert!(matches!(lane.admin(AdminRequest::View).await, AdminReply::View(_)));
    }
    witness.check(&mut friend).await;
}

/// Goal: development commands are refused where development is off. Method: a link rule.
#[tokio::test]
async fn development_is_off() {
    let (_cluster, bucket, mut lane) = one_node(BucketPolicy::default()).await;
    let witness = Witness::write(&mut lane, bucket).await;
    let cut = LinkRule { to: NodeId(1), delay_us: 0, cut: true };
    for rules in [vec![], vec![cut]] {
        let error = lane.refusal(&Request::Admin(AdminRequest::Links(rules))).await;
        assert_eq!(error, RequestError::NotDevelopment);
    }
    witness.check(&mut lane).await;
}

/// Goal: a bucket that cannot be is refused, and the one that is stays. Method: bad names, limits,
/// placements, levels, and changes of what is fixed.
#[tokio::test]
async fn impossible_buckets_are_refused() {
    let (_cluster, bucket, mut lane) = one_node(BucketPolicy::default()).await;
    let witness = Witness::write(&mut lane, bucket).await;
    let fine = BucketPolicy::default();
    let cases = [
        ("b", true, fine.clone()),
        ("none", false, fine.clone()),
        ("", true, fine.clone()),
        ("Upper", true, fine.clone()),
        ("../up", true, fine.clone()),
        (&"n".repeat(65), true, fine.clone()),
        ("n", true, BucketPolicy { max_siblings: 0, ..fine.clone() }),
        ("n", true, BucketPolicy { max_siblings: 65, ..fine.clone() }),
        ("n", true, BucketPolicy { max_value: 0, ..fine.clone() }),
        ("n", true, BucketPolicy { max_value: u32::MAX, ..fine.clone() }),
        ("n", true, BucketPolicy { placement: PlacementId(7), ..fine.clone() }),
        ("n", true, BucketPolicy { write_level: Level::Count(2), ..fine.clone() }),
        ("n", true, BucketPolicy { read_level: Level::Count(0), ..fine.clone() }),
        ("b", false, BucketPolicy { kind: BucketKind::Lww, ..fine }),
    ];
    let AdminReply::View(before) = lane.admin(AdminRequest::View).await else { panic!("a view") };
    for (name, create, policy) in cases {
        let change = BucketChange { name: name.to_owned(), policy, create };
        let error = lane.refusal(&Request::Admin(AdminRequest::Bucket(change.clone()))).await;
        assert_eq!(error.code(), 21, "{change:?}: {error}");
    }
    assert_eq!(lane.admin(AdminRequest::View).await, AdminReply::View(before));
    witness.check(&mut lane).await;
}
