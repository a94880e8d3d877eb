//! Nodes with a valid certificate and bad manners (I8): refused, counted, and without effect.
//!
//! One real node, 9; nodes 1 and 2 of its layout are the test. Ids below 9, because the smaller id
//! dials.

use bytes::{BufMut, Bytes, BytesMut};
use holm_client::{BucketKind, BucketPolicy};
use holm_core::metadata::Metadata;
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::peer::{Found, OpId, PeerMessage, Refusal};
use holm_protocol::admin::{AdminReply, AdminRequest, BucketChange};
use holm_protocol::dot::Dot;
use holm_protocol::error::RequestError;
use holm_protocol::frame::ALPN_CLIENT;
use holm_protocol::ids::{BucketId, Hlc, NodeId, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Reply, Request};
use holm_protocol::version_vector::VersionVector;
use tempfile::TempDir;

use crate::harness::cluster::{ALL_ROLES, layout};
use crate::harness::holmd::{Holmd, free_addr};
use crate::harness::peer::{
    FakePeer, encoded, object, partition_of, sibling, until_connected, write,
};
use crate::harness::pki::{Pki, VALID};
use crate::harness::raw::{Conn, Lane, Witness, frame, get, put};
use crate::harness::{Dice, until, within};

/// The real node.
const NODE: NodeId = NodeId(9);
/// Frame kinds on bulk lanes: a node's metadata, and "I knew you with another store".
const METADATA: u8 = 128;
const STORE_CHANGED: u8 = 129;

struct Scene {
    one: FakePeer,
    two: FakePeer,
    bucket: BucketId,
    lww: BucketId,
    friend: Lane,
    witness: Witness,
    node: Holmd,
    pki: Pki,
    _conn: Conn,
    _dir: TempDir,
}

impl Scene {
    /// A node that serves at level `one`, and two others it believes in.
    async fn new() -> Scene {
        let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
        let mut node = Holmd::new(&pki, dir.path(), NODE.0, &[]);
        node.start().await;
        let client = pki.client(ALL_ROLES, VALID);
        let conn = Conn::open(node.quic, NODE, pki.quic(Some(&client), ALPN_CLIENT)).await.unwrap();
        let mut friend = conn.client_lane().await;
        let layout = layout([(1, free_addr()), (2, free_addr()), (NODE.0, node.quic)]);
        friend.admin(AdminRequest::ApplyLayout(layout)).await;
        let mut make = async |name: &str, kind| {
            let (read_level, write_level) = (Level::One, Level::One);
            let policy = BucketPolicy { kind, read_level, write_level, ..BucketPolicy::default() };
            let change = BucketChange { name: name.to_owned(), policy, create: true };
            match friend.admin(AdminRequest::Bucket(change)).await {
                AdminReply::Bucket(info) => info.id,
                other => panic!("{other:?}"),
            }
        };
        let bucket = make("b", BucketKind::Siblings).await;
        let lww = make("lww", BucketKind::Lww).await;
        let mut one = FakePeer::meet(&pki, &node, 1, 1).await;
        one.vouch().await;
        node.until_ready().await;
        let witness = Witness::write(&mut friend, bucket).await;
        let two = FakePeer::meet(&pki, &node, 2, 2).await;
        until_connected(&node, 2.0).await;
        Scene { one, two, bucket, lww, friend, witness, node, pki, _conn: conn, _dir: dir }
    }

    async fn rejections(&self) -> f64 {
        self.node.metric("holm_shard_peer_rejections_total").await
    }

    /// The node serves, unchanged, and says that it is well.
    async fn unharmed(&mut self) {
        self.witness.check(&mut self.friend).await;
        assert_eq!(self.node.get("/livez").await.0, 200);
        assert_eq!(self.node.get("/readyz").await.0, 200);
    }
}

/// Goal: noise between nodes is counted and changes nothing. Method: random bodies under every kind
/// of message on both lanes; then an impossible length, which ends the connection with its number;
/// then the same node may come back.
#[tokio::test]
async fn noise_is_counted() {
    let mut scene = Scene::new().await;
    let mut dice = Dice(5);
    for n in 0..300 {
        let kind = if n % 3 == 0 { dice.roll() as u8 } else { 64 + dice.below(9) as u8 };
        let len = dice.below(120);
        let noise = frame(kind, dice.roll(), &dice.bytes(len));
        scene.one.requests.write(&noise).await;
        // Not as metadata: that is for another test.
        let noise = frame(130 + dice.below(100) as u8, n, &dice.bytes(len));
        scene.one.bulk.write(&noise).await;
    }
    // Some noise is a message, if a senseless one.
    scene.node.until_metric("holm_net_peer_frames_malformed_total", 400.0).await;
    scene.unharmed().await;
    scene.one.requests.write(&[0xff; 32]).await;
    assert_eq!(scene.one.conn.closed().await, Some(24));
    until_connected(&scene.node, 1.0).await;
    scene.one = FakePeer::meet(&scene.pki, &scene.node, 1, 1).await;
    until_connected(&scene.node, 2.0).await;
    scene.unharmed().await;
}

/// Goal: what a node sends is joined only if it can be true. Method: writes with one thing wrong
/// each, all refused with the reason and counted; the same as repairs, counted; a right one is
/// taken.
#[tokio::test]
async fn impossible_objects_are_refused() {
    let mut scene = Scene::new().await;
    let (bucket, lww) = (scene.bucket, scene.lww);
    let run = scene.one.node.run.0;
    let right = || object(77, 1, b"v");
    let own_context = {
        let mut object = Object::new(ObjectKind::Siblings);
        let seen: VersionVector =
            [Dot { actor: scene.one.node.run, counter: 1000 }].into_iter().collect();
        object.put(&seen, sibling(77, 1, b"v"));
        encoded(&object)
    };
    let latest = |hlc: Hlc| {
        let mut object = Object::new(ObjectKind::Lww);
        let dot = sibling(77, 1, b"v").dot;
        object.put(&VersionVector::new(), Sibling::new(dot, hlc, Bytes::from_static(b"v")));
        encoded(&object)
    };
    let elsewhere = |number| match write(1, bucket, b"k", right()) {
        PeerMessage::Write { op, bucket, key, object, fan_out, .. } => {
            let partition = Partition::from_u32(number);
            PeerMessage::Write { op, partition, bucket, key, object, fan_out }
        }
        other => other,
    };
    let here = partition_of(bucket, b"k").to_u32();
    let cases = [
        ("a key of another partition", elsewhere(here ^ 1), Refusal::Malformed),
        ("a partition beyond the last", elsewhere(here | 0x8000), Refusal::NotReplica),
        ("a partition of no placement", elsewhere(here | 7 << 16), Refusal::NotReplica),
        ("an object of no bytes", write(1, bucket, b"k", Bytes::new()), Refusal::Malformed),
        ("a dot of this run", write(1, bucket, b"k", object(run, 1000, b"v")), Refusal::Malformed),
        ("a context of this run", write(1, bucket, b"k", own_context), Refusal::Malformed),
        ("another kind", write(1, bucket, b"k", latest(Hlc(1))), Refusal::WrongKind),
        ("another kind", write(1, lww, b"k", right()), Refusal::WrongKind),
        ("a clock far ahead", write(1, lww, b"k", latest(Hlc(u64::MAX))), Refusal::ClockSkew),
    ];
    for (what, message, expected) in cases {
        let before = scene.rejections().await;
        match scene.one.ask(&message, OpId(1)).await {
            PeerMessage::WriteReply { durable, refused, .. } => {
                assert_eq!((durable, refused), (vec![], vec![(NODE, expected)]), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        scene.node.until_metric("holm_shard_peer_rejections_total", before + 1.0).await;
        if let PeerMessage::Write { partition, bucket, key, object, .. } = message {
            scene.one.say(&PeerMessage::Repair { partition, bucket, key, object }).await;
        }
        scene.node.until_metric("holm_shard_peer_rejections_total", before + 2.0).await;
        scene.unharmed().await;
    }
    for bucket in [bucket, lww] {
        assert!(scene.friend.get(get(bucket, b"k")).await.siblings.is_empty());
    }
    let taken = scene.one.ask(&write(2, bucket, b"k", right()), OpId(2)).await;
    assert!(matches!(taken, PeerMessage::WriteReply { durable, .. } if durable == [NODE]));
    assert_eq!(scene.friend.get(get(bucket, b"k")).await.siblings[0].value, "v");
}

/// Goal: an object damaged on its way or on the other node's disk is not believed. Method: every bit
/// of an object flipped, one write each; the key stays absent unless the flip is no damage at all.
#[tokio::test]
async fn damaged_objects_are_refused() {
    let mut scene = Scene::new().await;
    let right = object(77, 1, b"value");
    for bit in 0..right.len() * 8 {
        let mut damaged = right.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let op = OpId(bit as u64 + 1);
        let message = write(op.0, scene.bucket, b"k", damaged.into());
        match scene.one.ask(&message, op).await {
            PeerMessage::WriteReply { durable, .. } => {
                assert!(durable.is_empty(), "bit {bit} of {} flipped: taken", right.len() * 8);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(scene.friend.get(get(scene.bucket, b"k")).await.siblings.is_empty());
    scene.unharmed().await;
}

/// Goal: a vote counts for who gives it. Method: a put at `all`; node 1 votes for itself, for node
/// 2 and for a stranger, node 2 stays silent: the write must be unknown, with two of three.
#[tokio::test]
async fn nobody_votes_for_others() {
    let mut scene = Scene::new().await;
    let before = scene.rejections().await;
    let put = Put { level: Some(Level::All), timeout_ms: 600, ..put(scene.bucket, b"k", b"v") };
    let request = Request::Put(put);
    let answer = async {
        loop {
            let PeerMessage::Write { op, partition, key, .. } = scene.one.hear().await else {
                continue;
            };
            if &key[..] != b"k" {
                continue;
            }
            let durable = vec![NodeId(1), NodeId(2), NodeId(77)];
            let vote = PeerMessage::WriteReply { op, partition, durable, refused: vec![] };
            scene.one.say(&vote).await;
            // And as if it were node 2's own, again and again.
            scene.one.say(&vote).await;
            return;
        }
    };
    let (reply, ()) = tokio::join!(scene.friend.call(&request), within("the write", answer));
    assert_eq!(reply, Reply::Error(RequestError::WriteUnknown { needed: 3, durable: 2 }));
    assert!(scene.rejections().await >= before + 4.0);
    scene.unharmed().await;
}

/// Goal: what a node answers to a read is held to the same rules as what it writes: dots of this run
/// that it never made would swallow its next writes (I4, I5). Method: node 1 answers reads with
/// impossible objects; the answer to the client does not hold them, and every later put is seen.
#[tokio::test]
async fn impossible_answers_to_reads_are_refused() {
    let mut scene = Scene::new().await;
    let run = scene.one.node.run.0;
    let mut damaged = object(78, 1, b"evil").to_vec();
    let end = damaged.len() - 1;
    damaged[end] ^= 1;
    let mut latest = Object::new(ObjectKind::Lww);
    latest.put(&VersionVector::new(), sibling(79, 1, b"evil"));
    let lies = [
        ("a dot of this run", object(run, 1000, b"evil")),
        ("damage", damaged.into()),
        ("another kind", encoded(&latest)),
        ("nothing", Bytes::new()),
    ];
    for (n, (what, lie)) in lies.into_iter().enumerate() {
        let key = format!("k{n}");
        let before = scene.rejections().await;
        let read = Get {
            level: Some(Level::Count(2)),
            timeout_ms: 800,
            ..get(scene.bucket, key.as_bytes())
        };
        let request = Request::Get(read);
        let (one, two) = (&mut scene.one, &mut scene.two);
        let reply = tokio::select! {
            reply = scene.friend.call(&request) => reply,
            () = answer_reads(one, Found::Object(lie.clone())) => panic!("ended"),
            () = answer_reads(two, Found::Object(lie.clone())) => panic!("ended"),
        };
        match reply {
            Reply::Values(values) => assert!(values.siblings.is_empty(), "{what} was believed"),
            Reply::Error(error) => assert_eq!(error.code(), 15, "{what}: {error}"),
            other => panic!("{other:?}"),
        }
        assert!(scene.rejections().await > before, "{what} was not counted");
        for round in 0..3 {
            let value = format!("mine {round}");
            scene.friend.put(put(scene.bucket, key.as_bytes(), value.as_bytes())).await;
            let seen = scene.friend.get(get(scene.bucket, key.as_bytes())).await;
            assert_eq!(seen.siblings.len(), round + 1, "after {what}, `{value}` vanished");
        }
    }
    scene.unharmed().await;
}

/// Answers every read alike, for ever.
async fn answer_reads(peer: &mut FakePeer, found: Found) {
    loop {
        if let PeerMessage::Read { op, partition, .. } = peer.hear().await {
            let found = found.clone();
            peer.say(&PeerMessage::ReadReply { op, partition, found }).await;
        }
    }
}

/// Goal: a request that another node passes on is checked like a client's, and is no way to an
/// operator's rights. Method: bad ones, each with its number; a good one.
#[tokio::test]
async fn passed_on_requests_are_checked() {
    let mut scene = Scene::new().await;
    let bucket = scene.bucket;
    let forged = Put { context: vec![1; 40].into(), ..put(bucket, b"k", b"v") };
    let cases = [
        (Request::Put(put(bucket, b"", b"v")), 7),
        (Request::Put(put(BucketId(7), b"k", b"v")), 6),
        (Request::Put(forged), 10),
        (Request::Admin(AdminRequest::Status), 1),
        (Request::Put(put(bucket, b"k", b"v")), 0),
    ];
    let partition = partition_of(bucket, b"k");
    for (n, (request, expected)) in cases.into_iter().enumerate() {
        let op = OpId(n as u64 + 1);
        let message = PeerMessage::Proxy { op, partition, request };
        match scene.one.ask(&message, op).await {
            PeerMessage::ProxyReply { reply, .. } => {
                assert_eq!(crate::harness::raw::code(&reply), expected, "{message:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(scene.friend.get(get(bucket, b"k")).await.siblings.len(), 1);
    scene.unharmed().await;
}

/// Goal: damaged metadata is not adopted, and no malformed message makes a node give up its data for
/// lost. Method: noise, another cluster's metadata, and the node's own with a flipped bit; claims of
/// a changed store that name no store, or the one it has.
#[tokio::test]
async fn bad_metadata_and_false_alarms_are_refused() {
    let mut scene = Scene::new().await;
    let before = scene.friend.admin(AdminRequest::View).await;
    let own = scene.one.bulk.frame().await.expect("the node's metadata").body;
    assert!(Metadata::decode(&own).is_ok());
    let mut dice = Dice(6);
    let mut bodies: Vec<(u8, Vec<u8>)> = Vec::new();
    for _ in 0..100 {
        let len = dice.below(300);
        bodies.push((METADATA, dice.bytes(len)));
        let mut flipped = own.to_vec();
        flipped[dice.below(own.len())] ^= 1 << dice.below(8);
        bodies.push((METADATA, flipped));
    }
    bodies.push((METADATA, Metadata::new("other").encode()));
    bodies.push((STORE_CHANGED, vec![]));
    bodies.push((STORE_CHANGED, vec![1; 15]));
    bodies.push((STORE_CHANGED, vec![1; 17]));
    bodies.push((STORE_CHANGED, scene.one.node.store.to_be_bytes().to_vec()));
    for (n, (kind, body)) in bodies.iter().enumerate() {
        scene.one.bulk.write(&frame(*kind, n as u64, body)).await;
    }
    // Commands are taken in order: once this bucket is known, all of the above has been handled.
    let policy = BucketPolicy::default();
    let change = BucketChange { name: "last".to_owned(), policy, create: true };
    until("the node has read it all", async || {
        scene.node.log().matches("refused").count() >= bodies.len() / 2
    })
    .await;
    let AdminReply::View(view) = scene.friend.admin(AdminRequest::View).await else { panic!() };
    assert_eq!(AdminReply::View(view), before);
    scene.friend.admin(AdminRequest::Bucket(change)).await;
    scene.unharmed().await;
    assert_eq!(scene.node.metric("holm_node_amnesia").await, 0.0);
}

/// Goal: an answer to a question that nobody asked does nothing. Method: every kind of answer, for
/// operations that do not exist.
#[tokio::test]
async fn answers_to_nothing_do_nothing() {
    let mut scene = Scene::new().await;
    let partition = partition_of(scene.bucket, b"the witness");
    for op in [0, 1, scene.one.node.run.0, scene.one.node.run.0 + 1, u64::MAX].map(OpId) {
        let found = Found::Object(object(80, 1, b"evil"));
        let reply = Reply::Error(RequestError::CoordinatorLost);
        let durable = vec![NodeId(1), NodeId(2), NODE];
        let state = Default::default();
        for answer in [
            PeerMessage::WriteReply { op, partition, durable, refused: vec![] },
            PeerMessage::ReadReply { op, partition, found },
            PeerMessage::ProxyReply { op, partition, reply },
            PeerMessage::InspectReply { op, partition, state },
        ] {
            scene.one.say(&answer).await;
        }
    }
    let mut cut = BytesMut::new();
    write(1, scene.bucket, b"k", object(77, 1, b"v")).encode(&mut cut);
    for len in 4..cut.len() - 13 {
        let mut shorter = BytesMut::new();
        shorter.put_slice(&frame(64, 1, &cut[13..13 + len]));
        scene.one.requests.write(&shorter).await;
    }
    scene.node.until_metric("holm_net_peer_frames_malformed_total", 10.0).await;
    assert!(scene.friend.get(get(scene.bucket, b"k")).await.siblings.is_empty());
    scene.unharmed().await;
}
