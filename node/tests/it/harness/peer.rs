//! A node that is not one: a valid certificate, and whatever a test wants to say with it.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::peer::{CompareMessage, OpId, PeerMessage, Position, Standing};
use holm_protocol::dot::Dot;
use holm_protocol::frame::{ALPN_PEER, Frame};
use holm_protocol::handshake::{self, MetadataVersion, PeerHello};
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition, PlacementId};
use holm_protocol::message::kind;
use holm_protocol::version_vector::VersionVector;

use super::holmd::{CLUSTER, Holmd};
use super::pki::{Pki, VALID};
use super::raw::{Conn, Lane, frame};
use super::until;

/// `limits.max_clock_skew_ms` by default, which is part of the fingerprint.
const MAX_CLOCK_SKEW_MS: u64 = 1_000;

/// The layout that all tests use has so many partitions, as a power of two.
const BITS: u8 = 4;

/// The first part of the clock readings it makes up, milliseconds since 1970: some day in 2020.
const SOME_DAY_MS: u64 = 1_600_000_000_000;

/// See the module's head.
pub(crate) struct FakePeer {
    pub(crate) conn: Conn,
    pub(crate) requests: Lane,
    pub(crate) bulk: Lane,
    /// What the node said in its welcome.
    pub(crate) node: PeerHello,
}

impl FakePeer {
    /// Connects as node `id`, whose store has this name, and says all the right things.
    pub(crate) async fn meet(pki: &Pki, node: &Holmd, id: u64, store: u128) -> FakePeer {
        let me = pki.node(id, VALID);
        let quic = pki.quic(Some(&me), ALPN_PEER);
        let conn = Conn::open(node.quic, node.id, quic).await.unwrap();
        let hello = |lane| PeerHello {
            cluster: CLUSTER.to_owned(),
            node: NodeId(id),
            run: Actor(rand::random::<u64>() | 1),
            fingerprint: handshake::settings_fingerprint(MAX_CLOCK_SKEW_MS),
            store,
            lane,
            metadata: MetadataVersion::default(),
        };
        let mut lanes = Vec::new();
        let mut welcome = None;
        for purpose in [handshake::Lane::Requests, handshake::Lane::Bulk] {
            let mut lane = conn.open_lane().await;
            lane.write(&frame(kind::HELLO, 1, &handshake::encode(&hello(purpose)))).await;
            let answer = lane.frame().await.expect("a welcome");
            assert_eq!(answer.kind, kind::WELCOME);
            let said: PeerHello = handshake::decode(&answer.body).unwrap();
            welcome.get_or_insert(said);
            lanes.push(lane);
        }
        let bulk = lanes.pop().unwrap();
        let requests = lanes.pop().unwrap();
        FakePeer { conn, requests, bulk, node: welcome.unwrap() }
    }

    /// Says something.
    pub(crate) async fn say(&mut self, message: &PeerMessage) {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        self.requests.write(&out).await;
    }

    /// The next thing the node says.
    pub(crate) async fn hear(&mut self) -> PeerMessage {
        let heard: Frame = self.requests.frame().await.expect("the connection lives");
        PeerMessage::decode(&heard).expect("the node makes sense")
    }

    /// Tells the node, which has just started, that its disk is as good as any: until it has heard so of
    /// each partition of the layout that all tests use.
    pub(crate) async fn vouch(&mut self) {
        let mut told = BTreeSet::new();
        while told.len() < 1 << BITS {
            let PeerMessage::Compare(CompareMessage::Compare { op, positions, .. }) =
                self.hear().await
            else {
                continue;
            };
            told.extend(positions.iter().map(|(partition, _)| *partition));
            let (standing, know) = (Standing::Serves, VersionVector::new());
            let position = Position { standing, know };
            let positions = positions.iter().map(|(at, _)| (*at, position.clone())).collect();
            self.say(&PeerMessage::Compare(CompareMessage::Compared { op, positions })).await;
        }
    }

    /// Says something and hears the answer to it, passing over what else the node says.
    pub(crate) async fn ask(&mut self, message: &PeerMessage, op: OpId) -> PeerMessage {
        self.say(message).await;
        loop {
            let heard = self.hear().await;
            match &heard {
                PeerMessage::WriteReply { op: of, .. }
                | PeerMessage::ReadReply { op: of, .. }
                | PeerMessage::ProxyReply { op: of, .. }
                | PeerMessage::InspectReply { op: of, .. }
                    if *of == op =>
                {
                    return heard;
                }
                _ => {}
            }
        }
    }
}

/// Waits until a node counts so many connections.
pub(crate) async fn until_connected(node: &Holmd, peers: f64) {
    until("the peers are met", async || node.metric("holm_peer_connected").await == peers).await;
}

/// The partition of a key in the layout that all tests use.
pub(crate) fn partition_of(bucket: BucketId, key: &[u8]) -> Partition {
    Partition::of(PlacementId(0), BITS, bucket, key)
}

/// A sibling with a made-up reading.
pub(crate) fn sibling(actor: u64, counter: u64, value: &'static [u8]) -> Sibling {
    let dot = Dot { actor: Actor(actor), counter };
    Sibling::new(dot, Hlc::new(SOME_DAY_MS, 0), Bytes::from_static(value))
}

/// The encoded object of one blind write.
pub(crate) fn object(actor: u64, counter: u64, value: &'static [u8]) -> Bytes {
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), sibling(actor, counter, value));
    encoded(&object)
}

/// An object's bytes.
pub(crate) fn encoded(object: &Object) -> Bytes {
    let mut out = Vec::new();
    object.encode(&mut out);
    out.into()
}

/// A write of this object.
pub(crate) fn write(op: u64, bucket: BucketId, key: &[u8], object: Bytes) -> PeerMessage {
    PeerMessage::Write {
        op: OpId(op),
        partition: partition_of(bucket, key),
        bucket,
        key: Bytes::copy_from_slice(key),
        object,
        fan_out: vec![],
    }
}
