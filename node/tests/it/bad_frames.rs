//! Bytes that are no requests: cut, flipped, made up, lied about.

use bytes::{BufMut, BytesMut};
use holm_protocol::admin::{self, AdminReply, AdminRequest};
use holm_protocol::frame::Frame;
use holm_protocol::ids::BucketId;
use holm_protocol::limits::{FRAME_LEN_MAX, VALUE_LEN_MAX};
use holm_protocol::message::{Put, Reply, Request, kind};

use crate::harness::Dice;
use crate::harness::cluster::{Cluster, layout};
use crate::harness::holmd::free_addr;
use crate::harness::raw::{Conn, ERROR_CODES, Lane, Witness, code, delete, frame, get, put};

/// Tries for each kind of noise.
const TRIES: u64 = 300;

/// A node, a bucket, and a witness on it.
struct Scene {
    cluster: Cluster,
    bucket: BucketId,
    friend: Lane,
    witness: Witness,
    conn: Conn,
}

impl Scene {
    async fn new() -> Scene {
        let cluster = Cluster::start(1, &[]).await;
        let bucket = cluster.bucket("b", Default::default()).await.id();
        let (conn, mut friend) = cluster.lane(0).await;
        let witness = Witness::write(&mut friend, bucket).await;
        Scene { cluster, bucket, friend, witness, conn }
    }

    async fn unharmed(&mut self) {
        self.witness.check(&mut self.friend).await;
    }
}

/// Bodies of right requests about other keys than the witness.
fn bodies(bucket: BucketId) -> Vec<(u8, Vec<u8>)> {
    let requests = [
        Request::Put(put(bucket, b"victim", b"value")),
        Request::Put(Put { context: vec![1; 40].into(), ..put(bucket, b"victim", b"value") }),
        Request::Get(get(bucket, b"victim")),
        Request::Delete(delete(bucket, b"victim", &[1; 40])),
        Request::Admin(AdminRequest::Status),
        Request::Admin(AdminRequest::Explain { bucket, key: b"victim".as_slice().into() }),
    ];
    let body = |request: &Request| {
        let mut out = BytesMut::new();
        request.encode(1, &mut out);
        (out[4], out[13..].to_vec())
    };
    requests.iter().map(body).collect()
}

/// Goal: a request cut anywhere, or with something left over, is refused by number, and the lane
/// goes on. Method: every prefix of every request, and one byte more.
#[tokio::test]
async fn cut_requests_are_refused() {
    let mut scene = Scene::new().await;
    for (kind, body) in bodies(scene.bucket) {
        for len in 0..body.len() {
            let reply = scene.friend.call_raw(kind, &body[..len]).await;
            assert_eq!(code(&reply), 1, "kind {kind}, {len} of {} bytes: {reply:?}", body.len());
        }
        let reply = scene.friend.call_raw(kind, &[&body[..], b"\0"].concat()).await;
        assert_eq!(code(&reply), 1, "kind {kind}, one byte more: {reply:?}");
    }
    scene.unharmed().await;
}

/// Goal: whatever a flipped bit makes of a request, it has exactly one answer, and what it was not
/// about is untouched. Method: every bit of every request, on one lane.
#[tokio::test]
async fn flipped_requests_are_answered() {
    let mut scene = Scene::new().await;
    for (kind, body) in bodies(scene.bucket) {
        for bit in 0..body.len() * 8 {
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let reply = scene.friend.call_raw(kind, &flipped).await;
            let code = code(&reply);
            assert!(code == 0 || ERROR_CODES.contains(&code), "{reply:?}");
        }
    }
    scene.unharmed().await;
}

/// Goal: noise is refused, frame by frame. Method: random kinds and bodies from a fixed seed, many
/// at a time on one lane; each has one answer, with its own id.
#[tokio::test]
async fn random_frames_are_refused() {
    let mut scene = Scene::new().await;
    let mut dice = Dice(2);
    let known = [kind::PUT, kind::GET, kind::DELETE, kind::ADMIN];
    for round in 0..TRIES / 50 {
        let mut batch = BytesMut::new();
        let mut awaited = std::collections::BTreeSet::new();
        for n in 0..50 {
            let id = round * 1000 + n + 1_000_000;
            let kind = if n % 2 == 0 { known[dice.below(4)] } else { dice.roll() as u8 };
            let len = dice.below(200);
            batch.put_slice(&frame(kind, id, &dice.bytes(len)));
            awaited.insert(id);
        }
        scene.friend.write(&batch).await;
        while !awaited.is_empty() {
            let (id, reply) = scene.friend.reply().await;
            assert!(awaited.remove(&id), "answer {id} was not asked for, or came twice");
            assert!(matches!(reply, Reply::Error(_)), "noise was obeyed: {reply:?}");
        }
    }
    scene.unharmed().await;
}

/// Goal: a stream of noise that is not even frames ends its lane, with a number where there is
/// one to give, and nothing else. Method: random bytes after a right hello, on many lanes.
#[tokio::test]
async fn random_streams_end_their_lane() {
    let mut scene = Scene::new().await;
    let mut dice = Dice(3);
    for _ in 0..TRIES {
        let mut lane = scene.conn.client_lane().await;
        let len = 1 + dice.below(600);
        lane.write(&dice.bytes(len)).await;
        lane.send.finish().unwrap();
        while let Some(frame) = lane.frame().await {
            let Frame { id, .. } = frame;
            let reply = Reply::decode(&frame).unwrap();
            assert!(matches!(reply, Reply::Error(_)), "noise {id} was obeyed: {reply:?}");
        }
    }
    scene.unharmed().await;
}

/// Goal: an announced length is never believed (I10): a lane that lies is ended with the number, and
/// memory does not follow the lie. Method: lies of all sizes, some with megabytes behind them.
#[tokio::test]
async fn lies_about_length_end_the_lane() {
    let mut scene = Scene::new().await;
    let before = scene.cluster.nodes[0].resident_bytes();
    let too_long = (FRAME_LEN_MAX as u32 + 1).to_be_bytes();
    for lie in [[0xff; 4], [0x80, 0, 0, 0], too_long] {
        let mut lane = scene.conn.client_lane().await;
        lane.write(&lie).await;
        assert_eq!(lane.last_words().await, 24, "{lie:?}");
    }
    for lie in [[0; 4], [0, 0, 0, 8]] {
        let mut lane = scene.conn.client_lane().await;
        lane.write(&lie).await;
        assert_eq!(lane.last_words().await, 1, "{lie:?}");
    }
    // Possible for a node, impossible for a client: refused when that much has come.
    let mut lane = scene.conn.client_lane().await;
    lane.write(&(FRAME_LEN_MAX as u32).to_be_bytes()).await;
    let body = vec![kind::PUT; VALUE_LEN_MAX * 2];
    // The node may stop reading before all was written.
    let _ = lane.send.write_all(&body).await;
    assert_eq!(lane.last_words().await, 24);
    // Announced and never sent: nothing is kept for it.
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut lane = scene.conn.client_lane().await;
        lane.write(&(VALUE_LEN_MAX as u32).to_be_bytes()).await;
        silent.push(lane);
    }
    scene.unharmed().await;
    let after = scene.cluster.nodes[0].resident_bytes();
    assert!(after < before + (24 << 20), "{before} bytes before, {after} after");
    scene.cluster.nodes[0].until_metric("holm_net_lanes_malformed_total", 6.0).await;
}

/// Goal: a frame that is begun and not finished does not hold a lane for ever, nor one that is cut
/// by the end of its stream. Method: half a request and silence; half a request and the end.
#[tokio::test]
async fn unfinished_frames_end_the_lane() {
    let mut scene = Scene::new().await;
    let mut request = BytesMut::new();
    Request::Put(put(scene.bucket, b"k", b"half")).encode(1, &mut request);
    let mut ended = scene.conn.client_lane().await;
    ended.write(&request[..request.len() - 1]).await;
    ended.send.finish().unwrap();
    assert_eq!(ended.frame().await, None);
    let mut silent = scene.conn.client_lane().await;
    silent.write(&request[..request.len() / 2]).await;
    assert_eq!(silent.frame().await, None);
    scene.cluster.nodes[0].until_metric("holm_net_clients_stalled_total", 1.0).await;
    let read = scene.friend.get(get(scene.bucket, b"k")).await;
    assert!(read.siblings.is_empty(), "half a put was applied");
    scene.unharmed().await;
}

/// Goal: a malformed rare request is refused and changes nothing of the cluster, even in an
/// operator's name. Method: every bit of a layout flipped, and noise for a body.
#[tokio::test]
async fn malformed_rare_requests_are_refused() {
    let mut scene = Scene::new().await;
    let before = scene.friend.admin(AdminRequest::View).await;
    let proposal = layout([(1, scene.cluster.nodes[0].quic), (2, free_addr())]);
    let body = admin::encode(&AdminRequest::ApplyLayout(proposal));
    for bit in 8..body.len() * 8 {
        let mut flipped = body.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let reply = scene.friend.call_raw(kind::ADMIN, &flipped).await;
        assert!([1, 22].contains(&code(&reply)), "{reply:?}");
    }
    let mut dice = Dice(4);
    for _ in 0..TRIES {
        // Variants from 7 on do not exist.
        let mut noise = vec![7 + dice.below(249) as u8];
        let len = dice.below(100);
        noise.extend(dice.bytes(len));
        let reply = scene.friend.call_raw(kind::ADMIN, &noise).await;
        assert_eq!(code(&reply), 1, "{reply:?}");
    }
    assert_eq!(scene.friend.admin(AdminRequest::View).await, before);
    assert!(matches!(before, AdminReply::View(view) if view.layout_version == 1));
    scene.unharmed().await;
}
