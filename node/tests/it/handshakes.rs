//! Who is let in, seen from outside: certificates, protocols, hellos.

use holm_protocol::frame::{ALPN_CLIENT, ALPN_PEER};
use holm_protocol::handshake::{self, ClientHello};
use holm_protocol::message::kind;
use rustix::process::Signal;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::harness::cluster::{ALL_ROLES, Cluster};
use crate::harness::pki::{EXPIRED, Identity, NOT_YET, Pki, VALID};
use crate::harness::raw::{Conn, Witness, client_hello, frame, leave};
use crate::harness::until;

/// The number with which a connection is closed whose certificate does not fit.
const CERTIFICATE: u64 = 1002;

/// Goal: whoever has no valid certificate of this cluster's CA, or the wrong kind of one, is not
/// served, is counted, and harms nobody. Method: one of each against a node that serves; before and
/// after, a friend reads the same.
#[tokio::test]
async fn strangers_are_not_served() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut friend) = cluster.lane(0).await;
    let witness = Witness::write(&mut friend, bucket).await;
    let (node, pki) = (&cluster.nodes[0], &cluster.pki);

    let foreign = Pki::new().client(ALL_ROLES, VALID);
    let strangers = [
        ("no certificate", pki.quic(None, ALPN_CLIENT)),
        ("another CA", pki.quic(Some(&foreign), ALPN_CLIENT)),
        ("expired", pki.quic(Some(&pki.client(ALL_ROLES, EXPIRED)), ALPN_CLIENT)),
        ("not yet valid", pki.quic(Some(&pki.client(ALL_ROLES, NOT_YET)), ALPN_CLIENT)),
        ("an expired node", pki.quic(Some(&pki.node(2, EXPIRED)), ALPN_PEER)),
        ("another protocol", pki.quic(Some(&pki.client(ALL_ROLES, VALID)), b"h3")),
    ];
    let count = strangers.len() as f64;
    for (who, config) in strangers {
        if let Ok(conn) = Conn::open(node.quic, node.id, config).await {
            assert_eq!(conn.closed().await, None, "{who} got past TLS");
        }
    }
    node.until_metric("holm_net_refused_tls_total", count).await;

    let nobody = pki.issue(vec![], VALID);
    let misfits = [
        ("a client among nodes", pki.client(ALL_ROLES, VALID), ALPN_PEER),
        ("a node among clients", pki.node(2, VALID), ALPN_CLIENT),
        ("this node among clients", pki.node(1, VALID), ALPN_CLIENT),
        ("nobody", nobody, ALPN_CLIENT),
        ("an unknown role", pki.client("root", VALID), ALPN_CLIENT),
    ];
    let count = misfits.len() as f64;
    for (who, identity, alpn) in misfits {
        let conn = Conn::open(node.quic, node.id, pki.quic(Some(&identity), alpn)).await.unwrap();
        assert_eq!(conn.closed().await, Some(CERTIFICATE), "{who}");
    }
    node.until_metric("holm_net_refused_certificate_total", count).await;
    witness.check(&mut friend).await;
}

/// Goal: each wrong hello gets its number and ends its lane, while the connection goes on. Method:
/// all wrong ones on one connection, a right one last.
#[tokio::test]
async fn wrong_hellos_have_numbers() {
    let cluster = Cluster::start(1, &[]).await;
    let conn = cluster.raw(0, ALL_ROLES).await;
    let mut version = client_hello(None);
    version[14] = 9;
    let long = ClientHello { cluster: None, client: "c".repeat(65) };
    let cases = [
        ("another cluster", client_hello(Some("other")).to_vec(), 3),
        ("a cluster's name of 3,000 bytes", client_hello(Some(&"x".repeat(3_000))).to_vec(), 3),
        ("another version", version.to_vec(), 2),
        ("a long name", frame(kind::HELLO, 1, &handshake::encode(&long)).to_vec(), 1),
        ("an empty hello", frame(kind::HELLO, 1, b"").to_vec(), 1),
        ("noise", frame(kind::HELLO, 1, b"\0\x01\xff\xff\xff\xff\xff\xff").to_vec(), 1),
        ("a request before the hello", frame(kind::GET, 1, b"x").to_vec(), 1),
        ("a length that lies", vec![0xff; 64], 24),
        ("a length too short", vec![0, 0, 0, 8, 1, 0, 0, 0], 1),
        ("a hello of 16 KiB", [vec![0, 0, 0x40, 0, 1], vec![0; 9_000]].concat(), 24),
    ];
    let count = cases.len() as f64;
    for (case, bytes, expected) in cases {
        let mut lane = conn.open_lane().await;
        lane.write(&bytes).await;
        assert_eq!(lane.last_words().await, expected, "{case}");
    }
    cluster.nodes[0].until_metric("holm_net_refused_hello_total", count).await;
    let mut lane = conn.client_lane().await;
    lane.admin(holm_protocol::admin::AdminRequest::View).await;
    leave(&conn);
}

/// What a node shows to those who connect now.
async fn shown(cluster: &Cluster) -> CertificateDer<'static> {
    let conn = cluster.raw(0, ALL_ROLES).await;
    let chain = conn.connection.peer_identity().unwrap();
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().unwrap();
    leave(&conn);
    chain[0].clone()
}

fn der(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap()
}

/// Goal: certificates are renewed under load without a restart and without a failed request; a bad
/// file changes nothing. Method: SIGHUP with a new certificate, then with an expired one, then with
/// another node's, while one old lane and new connections go on.
#[tokio::test]
async fn certificates_are_renewed_by_sighup() {
    let cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut old) = cluster.lane(0).await;
    let witness = Witness::write(&mut old, bucket).await;
    let (node, pki) = (&cluster.nodes[0], &cluster.pki);

    let renewed = pki.node(1, (-1, 30));
    node.write_identity(&renewed);
    assert_ne!(shown(&cluster).await, der(&renewed), "not before the signal");
    node.signal(Signal::HUP);
    until("the new certificate is shown", async || shown(&cluster).await == der(&renewed)).await;
    witness.check(&mut old).await;

    for (bad, told) in [(pki.node(1, EXPIRED), "expired"), (pki.node(2, VALID), "it is of node 2")]
    {
        node.write_identity(&bad);
        node.signal(Signal::HUP);
        until("the node says why not", async || {
            let log = node.log();
            log.lines().any(|line| line.contains("not reloaded") && line.contains(told))
        })
        .await;
        assert_eq!(shown(&cluster).await, der(&renewed));
        witness.check(&mut old).await;
    }
}
