//! Who is let in. Each test is one kind of stranger, and ends with a friend being served: the node
//! has survived.

use holm_protocol::frame::{ALPN_CLIENT, ALPN_PEER};
use holm_protocol::handshake::{self, ClientWelcome, Lane, PeerHello};
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::message::kind;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::super::close;
use super::super::lane::LaneEnd;
use super::super::tls::TlsMaterial;
use super::support::{Foreign, Pki, TestNode, VALID, client_hello, frame, roomy, start, until};

const EXPIRED: (i64, i64) = (-9, -2);
const NOT_YET: (i64, i64) = (2, 9);

async fn serves_a_friend(pki: &Pki, node: &TestNode) {
    let friend = Foreign::client(pki, node).await;
    let mut lane = friend.lane().await;
    lane.write(&frame(kind::ADMIN, 77, b"")).await;
    assert_eq!(lane.frame().await.id, 77);
    friend.leave().await;
}

/// Goal: whoever has no valid certificate of this cluster's CA, or speaks another protocol, does not
/// get past TLS, and the handler sees nothing. Method: one of each.
#[tokio::test]
async fn strangers_do_not_pass_tls() {
    let pki = Pki::new();
    let mut node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let foreign = Pki::new().client(VALID);
    let cases = [
        ("no certificate", pki.tls(None, ALPN_CLIENT)),
        ("foreign CA", pki.tls(Some(&foreign), ALPN_CLIENT)),
        ("expired", pki.tls(Some(&pki.client(EXPIRED)), ALPN_CLIENT)),
        ("not yet valid", pki.tls(Some(&pki.client(NOT_YET)), ALPN_CLIENT)),
        ("another protocol", pki.tls(Some(&pki.client(VALID)), b"h3")),
    ];
    for (index, (case, tls)) in cases.into_iter().enumerate() {
        if let Some(stranger) = Foreign::connect(&node, tls).await {
            // In TLS 1.3 a client believes itself connected before the server has seen its certificate.
            stranger.connection.closed().await;
        }
        until(case, || node.counters().refused_tls.get() == index as u64 + 1).await;
    }
    assert_eq!(node.counters().clients_accepted.get(), 0);
    assert!(node.events.try_recv().is_err());
    serves_a_friend(&pki, &node).await;
}

/// Goal: a client's certificate is of no use on the nodes' protocol, nor the reverse, nor one that
/// names nobody. Method: all three.
#[tokio::test]
async fn certificate_and_protocol_must_fit() {
    let pki = Pki::new();
    let node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let nobody = pki.issue(Vec::new(), VALID);
    let cases = [
        pki.tls(Some(&pki.client(VALID)), ALPN_PEER),
        pki.tls(Some(&pki.node(2, VALID)), ALPN_CLIENT),
        pki.tls(Some(&nobody), ALPN_CLIENT),
    ];
    for tls in cases {
        let stranger = Foreign::connect(&node, tls).await.unwrap();
        assert_eq!(stranger.closed().await, close::CERTIFICATE);
    }
    assert_eq!(node.counters().refused_certificate.get(), 3);
    serves_a_friend(&pki, &node).await;
}

/// Goal: a client's hello that is wrong gets its numbered error and ends its lane, not the
/// connection. Method: wrong ones, then a right one on the same connection.
#[tokio::test]
async fn wrong_client_hellos_end_the_lane() {
    let pki = Pki::new();
    let node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let client = Foreign::client(&pki, &node).await;
    let mut version = client_hello(Some("test"));
    version[14] = 9;
    let cases = [
        ("another cluster", client_hello(Some("other")).to_vec(), (3, 5)),
        ("another version", version.to_vec(), (2, 5)),
        ("no hello", frame(kind::PUT, 6, b"x").to_vec(), (1, 6)),
        ("noise in a hello", frame(kind::HELLO, 7, b"\0\x01\xff\xff\xff").to_vec(), (1, 7)),
        ("a length that lies", vec![0xff; 64], (24, 0)),
        ("a length too short", vec![0, 0, 0, 2, 1, 1], (1, 0)),
        ("a hello too long", [vec![0, 0, 0x20, 0, 1], vec![0; 5000]].concat(), (24, 0)),
    ];
    let count = cases.len() as u64;
    for (case, bytes, expected) in cases {
        let mut lane = client.open().await;
        lane.write(&bytes).await;
        assert_eq!(lane.error().await, expected, "{case}");
        assert_eq!(lane.end().await, LaneEnd::Finished, "{case}");
    }
    assert_eq!(node.counters().refused_hello.get(), count);
    let mut lane = client.open().await;
    lane.write(&client_hello(None)).await;
    let answer = lane.frame().await;
    let welcome: ClientWelcome = handshake::decode(&answer.body).unwrap();
    assert_eq!((answer.kind, answer.id), (kind::WELCOME, 5));
    assert_eq!((welcome.node, welcome.run, welcome.layout_version), (NodeId(1), Actor(1), 3));
    serves_a_friend(&pki, &node).await;
}

/// Goal: connections that say nothing are closed in time: without a lane, and with one but no hello.
#[tokio::test]
async fn silence_is_closed() {
    let pki = Pki::new();
    let mut config = roomy(1, pki.dir.path());
    config.net.handshake_timeout = std::time::Duration::from_millis(300);
    let node = start(&pki, config, 1, true);
    let without_lane = Foreign::client(&pki, &node).await;
    let without_hello = Foreign::client(&pki, &node).await;
    let mut lane = without_hello.open().await;
    lane.write(b"\0").await;
    let peer = Foreign::peer(&pki, &node, 2).await;
    assert_eq!(without_lane.closed().await, close::SILENT);
    assert_eq!(without_hello.closed().await, close::SILENT);
    assert_eq!(peer.closed().await, close::SILENT);
    until("counted", || node.counters().refused_silent.get() == 3).await;
}

fn peer_hello(node: &TestNode, change: impl FnOnce(&mut PeerHello)) -> Vec<u8> {
    let metadata = Default::default();
    let mut hello = node.local.hello(Lane::Requests, metadata);
    hello.node = NodeId(2);
    hello.run = Actor(22);
    change(&mut hello);
    frame(kind::HELLO, 8, &handshake::encode(&hello)).to_vec()
}

/// Goal: a node with a valid certificate but a wrong hello is told why, by number, and closed with
/// the same number. Method: one field wrong at a time; then the unchanged hello is accepted.
#[tokio::test]
async fn wrong_peer_hellos_are_refused() {
    let pki = Pki::new();
    let mut node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    let mut version = peer_hello(&node, |_| {});
    version[14] = 9;
    let cases = [
        ("another cluster", peer_hello(&node, |hello| hello.cluster = "other".to_owned()), 2, 3),
        ("other settings", peer_hello(&node, |hello| hello.fingerprint ^= 1), 2, 5),
        ("another's id", peer_hello(&node, |hello| hello.node = NodeId(3)), 2, 1),
        ("this node's id", peer_hello(&node, |hello| hello.node = NodeId(1)), 1, 1),
        ("no run", peer_hello(&node, |hello| hello.run = Actor(0)), 2, 1),
        ("another version", version, 2, 2),
        ("no hello", frame(kind::PEER_FIRST, 8, b"").to_vec(), 2, 1),
    ];
    let count = cases.len() as u64;
    for (case, bytes, certified, code) in cases {
        let peer = Foreign::peer(&pki, &node, certified).await;
        let mut lane = peer.open().await;
        lane.write(&bytes).await;
        assert_eq!(lane.error().await, (code, 8), "{case}");
        assert_eq!(peer.closed().await, u32::from(code).into(), "{case}");
    }
    until("counted", || node.counters().refused_hello.get() == count).await;
    assert!(node.events.try_recv().is_err(), "the handler saw none of them");
    let peer = Foreign::peer(&pki, &node, 2).await;
    let mut requests = peer.open().await;
    requests.write(&peer_hello(&node, |_| {})).await;
    assert_eq!(requests.frame().await.kind, kind::WELCOME);
    let mut bulk = peer.open().await;
    bulk.write(&peer_hello(&node, |hello| hello.lane = Lane::Bulk)).await;
    assert_eq!(bulk.frame().await.kind, kind::WELCOME);
    assert_eq!(node.up(2).await.run, Actor(22));
    serves_a_friend(&pki, &node).await;
}

/// Goal: clients beyond the limit are refused with `Overloaded`'s number, and one that leaves makes
/// room.
#[tokio::test]
async fn clients_are_bounded() {
    let pki = Pki::new();
    let mut config = roomy(1, pki.dir.path());
    config.limits.connections_max = 1;
    config.limits.handshakes_max = 1;
    let node = start(&pki, config, 1, true);
    let first = Foreign::client(&pki, &node).await;
    first.lane().await;
    let second = Foreign::client(&pki, &node).await;
    assert_eq!(second.closed().await, close::OVERLOADED);
    assert_eq!(node.counters().refused_connections.get(), 1);
    first.leave().await;
    until("the place is free", || {
        node.network.shared.clients.load(std::sync::atomic::Ordering::Relaxed) == 0
    })
    .await;
    serves_a_friend(&pki, &node).await;
}

/// Goal: a node that could not prove who it is does not start, and says which file and why.
/// Method: files missing, of another kind, expired, of another node, of another CA, of another key.
#[test]
fn own_certificates_are_checked_at_start() {
    let pki = Pki::new();
    let good = pki.node(1, VALID);
    let refusal = |name: &str, change: &dyn Fn(&mut crate::config::TlsConfig)| {
        let mut tls = pki.write(name, &good);
        change(&mut tls);
        let material = TlsMaterial::load(&tls, NodeId(1));
        match material.and_then(|material| material.server().map(drop)) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let with = |name: &str, identity: &super::support::Identity| pki.write(name, identity).cert;
    assert_eq!(refusal("good", &|_| {}), "fine");
    let missing = refusal("missing", &|tls| tls.ca = "/no/such/ca.pem".into());
    assert!(missing.starts_with("tls.ca = /no/such/ca.pem: "), "{missing}");
    let kind = refusal("kind", &|tls| tls.cert = tls.key.clone());
    assert!(kind.contains("no certificate in it; issue one with `holm cert node`"), "{kind}");
    let key = refusal("key", &|tls| tls.key = tls.cert.clone());
    assert!(key.contains("no private key"), "{key}");
    let expired = refusal("a", &|tls| tls.cert = with("expired", &pki.node(1, EXPIRED)));
    assert!(expired.contains("it has expired"), "{expired}");
    let future = refusal("b", &|tls| tls.cert = with("future", &pki.node(1, NOT_YET)));
    assert!(future.contains("not valid yet"), "{future}");
    let other = refusal("c", &|tls| tls.cert = with("other", &pki.node(2, VALID)));
    assert!(other.contains("it is of node 2, but node.id is 1"), "{other}");
    let foreign = refusal("d", &|tls| tls.cert = with("foreign", &Pki::new().node(1, VALID)));
    assert!(foreign.contains("not issued by the CA"), "{foreign}");
    let mixed = refusal("e", &|tls| tls.cert = with("mixed", &pki.node(1, VALID)));
    assert!(mixed.starts_with("TLS configuration refused"), "{mixed}");
}

/// Goal: new certificates are used without a restart, and a bad one leaves the old in use.
#[tokio::test]
async fn certificates_are_reloaded() {
    let pki = Pki::new();
    let node = start(&pki, roomy(1, pki.dir.path()), 1, true);
    pki.write("node1", &pki.node(1, EXPIRED));
    assert!(node.network.reload_certificates().is_err());
    serves_a_friend(&pki, &node).await;
    let renewed = pki.node(1, (-1, 30));
    pki.write("node1", &renewed);
    node.network.reload_certificates().unwrap();
    let client = Foreign::client(&pki, &node).await;
    let shown = client.connection.peer_identity().unwrap();
    let shown = shown.downcast::<Vec<CertificateDer<'_>>>().unwrap();
    let renewed = CertificateDer::from_pem_slice(renewed.chain.as_bytes()).unwrap();
    assert_eq!(shown[0], renewed);
}
