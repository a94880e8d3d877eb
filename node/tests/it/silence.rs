//! Connections that say nothing, or next to nothing: closed in time, cheap, and nobody's trouble.
//!
//! What a connection may keep a node waiting for, each within its own bound:
//!
//! | it | is closed after |
//! | --- | --- |
//! | does not finish its TLS handshake | `net.handshake_timeout_ms`; at most `limits.handshakes_max` of them at a time |
//! | opens no lane, or says no whole hello on it | `net.handshake_timeout_ms` more |
//! | begins a frame and does not end it, in silence or byte by byte | `net.stall_timeout_ms` |
//! | asks and does not take the answers, or byte by byte | `net.stall_timeout_ms` without 64 KiB taken |
//! | has said its hello and falls silent | `net.idle_timeout_ms`, unless its QUIC keeps it alive |
//!
//! The last are idle clients, which are welcome: what bounds them is `limits.connections_max`. The
//! tests' settings are 3 seconds each instead of 10 or 20.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use holm_protocol::frame::{ALPN_CLIENT, ALPN_PEER};
use holm_protocol::ids::BucketId;
use holm_protocol::limits::VALUE_LEN_MAX;
use holm_protocol::message::{Request, kind};
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::harness::cluster::{ALL_ROLES, Cluster};
use crate::harness::holmd::{CLUSTER, Holmd};
use crate::harness::pki::VALID;
use crate::harness::raw::{Lane, Witness, client_hello, frame, get, kept_alive, put};
use crate::harness::{until, within};

/// Every bound of the tests' configuration, and what a busy machine may add to it.
const BOUND: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(6);
/// What a node may grow by for a thousand connections: their state, and allocator slack.
const GROWTH_MAX: u64 = 96 << 20;
/// Connections opened at a time: below the number of handshakes from which addresses are validated.
const OPENING: usize = 48;
/// A friend's read is answered by then: the deadline that its request carries.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Between two bytes of those that send, or take, one at a time. Slow enough that nothing they do is
/// done within the bound.
const TRICKLE: Duration = Duration::from_millis(100);

/// Alive below, and with room for so many bytes that nobody takes.
fn with_window(mut config: ClientConfig, bytes: u32) -> ClientConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(BOUND / 6));
    transport.stream_receive_window(VarInt::from_u32(bytes));
    config.transport_config(Arc::new(transport));
    config
}

/// One socket for all connections of a test.
fn endpoint(config: ClientConfig) -> Endpoint {
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

async fn connect(endpoint: &Endpoint, node: &Holmd) -> Connection {
    let name = format!("node-{}.holm.internal", node.id.0);
    let connecting = endpoint.connect(node.quic, &name).unwrap();
    within("a connection", connecting).await.unwrap()
}

/// How a connection says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// After its TLS handshake.
    NoLane,
    /// In the middle of its hello.
    HalfHello,
    /// In the middle of its first request.
    HalfFrame,
    /// After its hello, without keepalives.
    Gone,
}

impl Silence {
    const ALL: [Silence; 4] =
        [Silence::NoLane, Silence::HalfHello, Silence::HalfFrame, Silence::Gone];
}

/// Says as much as is meant. What is returned must be held, or the lane would be reset.
async fn fall_silent(
    connection: &Connection,
    how: Silence,
) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let hello = client_hello(Some(CLUSTER));
    let said = match how {
        Silence::NoLane => return None,
        Silence::HalfHello => hello[..hello.len() / 2].to_vec(),
        Silence::HalfFrame => [&hello, &frame(kind::GET, 1, &[0; 64])[..40]].concat(),
        Silence::Gone => hello.to_vec(),
    };
    let (mut send, recv) = within("a lane", connection.open_bi()).await.unwrap();
    within("writing", send.write_all(&said)).await.unwrap();
    Some((send, recv))
}

/// Reads for a while. The longest read but the slowest hundredth.
async fn p99(lane: &mut Lane, bucket: BucketId, reads: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..reads {
        let began = Instant::now();
        lane.get(get(bucket, b"the witness")).await;
        times.push(began.elapsed());
    }
    times.sort();
    times[reads * 99 / 100]
}

/// Goal: a thousand connections that say nothing are closed within the bounds, cost little memory and
/// nobody else's time; a client that is idle and alive is left alone. Method: 250 of each kind, a
/// friend who reads all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_connections_are_closed() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    let (node, pki) = (&cluster.nodes[0], &cluster.pki);
    let me = pki.client(ALL_ROLES, VALID);
    let alive = endpoint(kept_alive(pki.quic(Some(&me), ALPN_CLIENT)));
    let mortal = endpoint(pki.quic(Some(&me), ALPN_CLIENT));
    let idle = connect(&alive, node).await;
    let _idle_lane = fall_silent(&idle, Silence::Gone).await;
    let before = node.resident_bytes();
    let usual = p99(&mut friend, bucket, 300).await;

    let mut open = JoinSet::new();
    let (mut ready, mut closed) = (0, JoinSet::new());
    let mut opened = 0;
    while ready < 1_000 {
        while opened < 1_000 && open.len() < OPENING {
            let how = Silence::ALL[opened % Silence::ALL.len()];
            let endpoint = if how == Silence::Gone { mortal.clone() } else { alive.clone() };
            let name = format!("node-{}.holm.internal", node.id.0);
            let connecting = endpoint.connect(node.quic, &name).unwrap();
            open.spawn(async move {
                let connection = within("a connection", connecting).await.unwrap();
                let lane = fall_silent(&connection, how).await;
                (how, connection, lane, Instant::now())
            });
            opened += 1;
        }
        let (how, connection, lane, silent_since) = open.join_next().await.unwrap().unwrap();
        closed.spawn(async move {
            within("a silent connection is closed", connection.closed()).await;
            drop(lane);
            (how, silent_since.elapsed())
        });
        ready += 1;
    }
    let during = p99(&mut friend, bucket, 300).await;
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for a thousand silent connections");
    while let Some(ended) = closed.join_next().await {
        let (how, lasted) = ended.unwrap();
        // A lane that is over leaves a connection without one, which is given the idle timeout.
        let bounds = if how == Silence::HalfFrame { 2 } else { 1 };
        assert!(lasted < bounds * BOUND + SLACK, "{how:?} lasted {lasted:?}");
    }
    assert!(idle.close_reason().is_none(), "an idle client is no silent one");
    eprintln!("p99 of a read: {usual:?} before, {during:?} during; {grown} bytes more");
    // The ratio is only told: a busy machine makes it what it likes.
    assert!(during < READ_DEADLINE, "{usual:?} became {during:?}");
    node.until_metric("holm_net_refused_silent_total", 500.0).await;
    node.until_metric("holm_net_clients_stalled_total", 250.0).await;
    witness.check(&mut friend).await;
}

/// The first packets of so many handshakes that nobody will go on with.
async fn first_packets(config: ClientConfig, count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = endpoint(config);
    let to = sink.local_addr().unwrap();
    let mut packets = BTreeMap::new();
    let mut under_way = Vec::new();
    while packets.len() < count {
        // Given up, it would say so.
        under_way.push(endpoint.connect(to, "node-1.holm.internal").unwrap());
        let mut packet = vec![0; 2_000];
        let (len, _) = within("a first packet", sink.recv_from(&mut packet)).await.unwrap();
        packet.truncate(len);
        // By the connection id, which begins behind flags, version and its length: some are repeated.
        packets.insert(packet[6..14].to_vec(), packet);
    }
    packets.into_values().collect()
}

/// Goal: handshakes that are begun and left take their bounded places for the bounded time, and keep
/// nobody out: from half of the places on, an address must answer before it gets one. Method: the first
/// packets of 1,000 handshakes, replayed from sockets that answer nothing; meanwhile a new client
/// connects and a friend reads.
#[tokio::test]
async fn a_thousand_unfinished_handshakes_keep_nobody_out() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    let (node, pki) = (&cluster.nodes[0], &cluster.pki);
    let me = pki.client(ALL_ROLES, VALID);
    let packets = first_packets(pki.quic(Some(&me), ALPN_CLIENT), 1_000).await;
    let before = node.resident_bytes();
    let mut mute = Vec::new();
    for some in packets.chunks(100) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for packet in some {
            socket.send_to(packet, node.quic).await.unwrap();
        }
        mute.push(socket);
    }
    let (_newcomer, mut lane) = cluster.patient_lane(0).await;
    witness.check(&mut lane).await;
    witness.check(&mut friend).await;
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for a thousand handshakes");
    // Half of the places, plus those that were taken in the same moment.
    node.until_metric("holm_net_refused_slow_tls_total", 60.0).await;
    let refused = node.metric("holm_net_refused_slow_tls_total").await;
    assert!(refused < 140.0, "{refused} handshakes had a place");
    let (_newcomer, mut lane) = cluster.patient_lane(0).await;
    witness.check(&mut lane).await;
}

/// Sends bytes one by one until the other side ends it. How long that took.
async fn trickle(connection: Connection, first: Vec<u8>, then: Vec<u8>) -> Duration {
    let (mut send, _recv) = within("a lane", connection.open_bi()).await.unwrap();
    within("writing", send.write_all(&first)).await.unwrap();
    let began = Instant::now();
    let mut beat = interval(TRICKLE);
    for byte in then {
        beat.tick().await;
        if send.write_all(&[byte]).await.is_err() {
            return began.elapsed();
        }
    }
    panic!("a frame was taken byte by byte over {:?}", began.elapsed());
}

/// Goal: whoever sends a byte at a time is closed as soon as one who sends none, as a client in its
/// hello or its request, as a node in its hello. Method: 60 of each; a byte every 100 ms of a frame
/// that would take twenty seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_at_a_time_is_too_slow() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    let (node, pki) = (&cluster.nodes[0], &cluster.pki);
    let client = pki.quic(Some(&pki.client(ALL_ROLES, VALID)), ALPN_CLIENT);
    let clients = endpoint(kept_alive(client));
    let peer = pki.quic(Some(&pki.node(2, VALID)), ALPN_PEER);
    let peers = endpoint(kept_alive(peer));
    let hello = client_hello(Some(CLUSTER)).to_vec();
    let slow = frame(kind::HELLO, 1, &[b'x'; 200]).to_vec();
    let request = frame(kind::GET, 1, &[b'x'; 200]).to_vec();
    let mut trickles = JoinSet::new();
    for _ in 0..60 {
        let connection = connect(&clients, node).await;
        trickles.spawn(trickle(connection, vec![], slow.clone()));
        let connection = connect(&clients, node).await;
        trickles.spawn(trickle(connection, hello.clone(), request.clone()));
        let connection = connect(&peers, node).await;
        trickles.spawn(trickle(connection, vec![], slow.clone()));
    }
    witness.check(&mut friend).await;
    while let Some(ended) = within("slow senders are closed", trickles.join_next()).await {
        let lasted = ended.unwrap();
        assert!(lasted < BOUND + SLACK, "{lasted:?}");
    }
    node.until_metric("holm_net_clients_stalled_total", 60.0).await;
    node.until_metric("holm_net_refused_silent_total", 120.0).await;
    witness.check(&mut friend).await;
}

/// Goal: a client that takes its answers a byte at a time is closed as one that takes none. The story:
/// answers had to be taken at 64 KiB a second on the whole, and so whoever had asked for 12 MiB could
/// let the node hold them for three minutes. Method: as many large values asked for at once, 10 bytes a
/// second taken.
#[tokio::test]
async fn a_slow_reader_is_closed() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    friend.put(put(bucket, b"large", &vec![1; VALUE_LEN_MAX])).await;
    let (node, pki) = (&cluster.nodes[0], &cluster.pki);
    let me = pki.quic(Some(&pki.client(ALL_ROLES, VALID)), ALPN_CLIENT);
    let connection = connect(&endpoint(with_window(me, 16 << 10)), node).await;
    let (mut send, mut recv) = within("a lane", connection.open_bi()).await.unwrap();
    let mut asked = BytesMut::from(&client_hello(Some(CLUSTER))[..]);
    for id in 0..12 {
        Request::Get(get(bucket, b"large")).encode(id, &mut asked);
    }
    within("asking", send.write_all(&asked)).await.unwrap();
    let began = Instant::now();
    let mut byte = [0];
    until("the slow reader is closed", async || {
        sleep(TRICKLE).await;
        within("a byte", recv.read(&mut byte)).await.is_err()
    })
    .await;
    let lasted = began.elapsed();
    assert!(lasted < BOUND + SLACK, "{lasted:?}");
    node.until_metric("holm_net_clients_stalled_total", 1.0).await;
    witness.check(&mut friend).await;
}
