//! Certificates, nodes and raw connections for tests.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use holm_protocol::admin::MemberState;
use holm_protocol::frame::{ALPN_CLIENT, ALPN_PEER, Frame, put_frame};
use holm_protocol::handshake::{self, ClientHello, Lane, MetadataVersion, PeerHello};
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::{Reply, kind};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, SendStream, VarInt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa};
use rcgen::{KeyPair, KeyUsagePurpose, SanType, SerialNumber, SignatureAlgorithm};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::counters::NetCounters;
use super::super::handler::{ClientConn, Handler};
use super::super::hello::LocalNode;
use super::super::lane::LaneReader;
use super::super::peers::PeerPool;
use super::super::tls::server_name;
use super::super::{Network, Parts};
use crate::config::{Config, TlsConfig};
use crate::membership::{Members, Wall};

/// Everything must have happened by then. Generous: test machines are busy.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(done) => done,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits until a condition that nobody announces holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A certificate and its key.
pub(super) struct Identity {
    pub(super) chain: String,
    pub(super) key: KeyPair,
}

/// A CA that issues whatever a test asks for.
pub(super) struct Pki {
    pub(super) dir: TempDir,
    algorithm: &'static SignatureAlgorithm,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Pki {
        Pki::with(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// Signatures of some algorithms vary in length: those of ECDSA do, those of Ed25519 do not.
    pub(super) fn with(algorithm: &'static SignatureAlgorithm) -> Pki {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(algorithm).unwrap();
        let ca = CertifiedIssuer::self_signed(params, key).unwrap();
        Pki { dir: tempfile::tempdir().unwrap(), algorithm, ca }
    }

    pub(super) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// Valid from and for so many days, counted from now.
    pub(super) fn issue(&self, sans: Vec<SanType>, days: (i64, i64)) -> Identity {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let mut params = CertificateParams::default();
        // One that is made from the key would vary in length.
        params.serial_number = Some(SerialNumber::from(1));
        params.subject_alt_names = sans;
        params.not_before = OffsetDateTime::now_utc() + time::Duration::days(days.0);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days.1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let chain = params.signed_by(&key, &self.ca).unwrap().pem();
        Identity { chain, key }
    }

    pub(super) fn node(&self, id: u64, days: (i64, i64)) -> Identity {
        let name = SanType::DnsName(server_name(NodeId(id)).try_into().unwrap());
        let uri = SanType::URI(format!("holm://node/{id}").try_into().unwrap());
        self.issue(vec![name, uri], days)
    }

    pub(super) fn client(&self, days: (i64, i64)) -> Identity {
        let uri = "holm://client/app?roles=read,write".to_owned();
        self.issue(vec![SanType::URI(uri.try_into().unwrap())], days)
    }

    /// Writes a node's files.
    pub(super) fn write(&self, name: &str, identity: &Identity) -> TlsConfig {
        let path = |suffix: &str| self.dir.path().join(format!("{name}.{suffix}"));
        fs::write(path("ca.pem"), self.ca.pem()).unwrap();
        fs::write(path("pem"), &identity.chain).unwrap();
        fs::write(path("key"), identity.key.serialize_pem()).unwrap();
        TlsConfig { ca: path("ca.pem"), cert: path("pem"), key: path("key") }
    }

    /// The TLS settings of a foreign program with this identity, or with none.
    pub(super) fn tls(&self, identity: Option<&Identity>, alpn: &[u8]) -> rustls::ClientConfig {
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let chain = rustls_pki_types::CertificateDer::from_pem_slice(chain.as_bytes());
                let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
                builder.with_client_auth_cert(vec![chain.unwrap()], key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

/// Days for a certificate that is valid now.
pub(super) const VALID: (i64, i64) = (-1, 1);

/// What a node's handler saw.
#[derive(Debug)]
pub(super) enum Event {
    Client(ClientConn, Vec<Frame>),
    Peer(NodeId, Lane, Vec<Frame>),
    Up(NodeId, PeerHello),
    Down(NodeId),
}

/// Answers every client frame at once, or keeps the frames for the test; records the rest.
pub(super) struct Recorder {
    echo: bool,
    events: mpsc::UnboundedSender<Event>,
    metadata: MetadataVersion,
}

impl Recorder {
    /// A handler, and what it saw.
    pub(super) fn new(echo: bool) -> (Arc<Recorder>, mpsc::UnboundedReceiver<Event>) {
        let (sender, events) = mpsc::unbounded_channel();
        let metadata = MetadataVersion { layout: 3, digest: 4 };
        (Arc::new(Recorder { echo, events: sender, metadata }), events)
    }
}

impl Handler for Recorder {
    fn on_client_frames(&self, client: &ClientConn, frames: &mut Vec<Frame>) {
        let frames = std::mem::take(frames);
        if self.echo {
            let reply = Reply::Admin(Box::new(holm_protocol::admin::AdminReply::Done));
            client.replies.send_batch(frames.iter().map(|frame| (frame.id, &reply)));
        }
        let _ = self.events.send(Event::Client(client.clone(), frames));
    }

    fn on_peer_frames(&self, from: NodeId, lane: Lane, frames: &mut Vec<Frame>) {
        let _ = self.events.send(Event::Peer(from, lane, std::mem::take(frames)));
    }

    fn on_peer_up(&self, node: NodeId, hello: &PeerHello) {
        let _ = self.events.send(Event::Up(node, hello.clone()));
    }

    fn on_peer_down(&self, node: NodeId) {
        let _ = self.events.send(Event::Down(node));
    }

    fn on_member(&self, _: NodeId, _: MemberState) {
        // Looked at where it is kept: `Parts::members`.
    }

    fn on_boot(&self, _: u64) {}

    fn metadata_version(&self) -> MetadataVersion {
        self.metadata
    }
}

/// A node that is only a network.
pub(super) struct TestNode {
    pub(super) network: Network,
    pub(super) pool: PeerPool,
    pub(super) addr: SocketAddr,
    pub(super) local: LocalNode,
    pub(super) members: Arc<Members>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
}

impl TestNode {
    pub(super) fn counters(&self) -> &NetCounters {
        self.network.counters()
    }

    pub(super) async fn event(&mut self) -> Event {
        within("an event of the handler", self.events.recv()).await.unwrap()
    }

    pub(super) async fn up(&mut self, node: u64) -> PeerHello {
        match self.event().await {
            Event::Up(id, hello) if id == NodeId(node) => hello,
            other => panic!("expected node {node} up, got {other:?}"),
        }
    }

    pub(super) async fn down(&mut self, node: u64) {
        match self.event().await {
            Event::Down(id) if id == NodeId(node) => {}
            other => panic!("expected node {node} down, got {other:?}"),
        }
    }
}

/// Limits for tests that are not about limits.
pub(super) fn roomy(id: u64, dir: &Path) -> Config {
    let mut config = Config::test_min(NodeId(id), dir);
    config.limits.in_flight_per_connection_max = 4096;
    config.limits.peer_queue_bytes_max = 16 << 20;
    config.limits.connections_max = 64;
    config.limits.handshakes_max = 32;
    config.net.receive_window_bytes = 1 << 20;
    config.net.handshake_timeout = DEADLINE;
    config.net.stall_timeout = DEADLINE;
    config.net.mtu_max = 6500;
    config
}

pub(super) fn local(config: &Config, run: u64) -> LocalNode {
    LocalNode {
        cluster: config.cluster.id.clone(),
        node: config.node.id,
        run: Actor(run),
        store: 1,
        fingerprint: config.settings_fingerprint(),
    }
}

pub(super) fn start(pki: &Pki, mut config: Config, run: u64, echo: bool) -> TestNode {
    let id = config.node.id;
    config.tls = pki.write(&format!("node{}", id.0), &pki.node(id.0, VALID));
    let (handler, events) = Recorder::new(echo);
    let (parts, local) = parts(&config, run, handler);
    let (pool, members) = (parts.pool.clone(), parts.members.clone());
    let network = Network::start(&config, parts).unwrap();
    let addr = network.local_addr().unwrap();
    TestNode { network, pool, addr, local, members, events }
}

/// What a network is given, and who the node is.
pub(super) fn parts(config: &Config, run: u64, handler: Arc<dyn Handler>) -> (Parts, LocalNode) {
    let counters = Arc::new(NetCounters::default());
    let queue_max = config.limits.peer_queue_bytes_max;
    let pool = PeerPool::new(config.node.id, queue_max, counters.clone());
    let local = local(config, run);
    let (seed, wall) = (run, Wall::System);
    let members = Members::with_wall(local.node, run, &config.membership, (seed, wall));
    (Parts { local: local.clone(), handler, pool, counters, members: Arc::new(members) }, local)
}

/// A foreign program that talks to a node.
pub(super) struct Foreign {
    pub(super) connection: Connection,
    endpoint: Endpoint,
}

impl Foreign {
    /// Connects to node 1. The TLS server may still refuse after this.
    pub(super) async fn connect(node: &TestNode, tls: rustls::ClientConfig) -> Option<Foreign> {
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Foreign::connect_from(endpoint, node, tls).await
    }

    pub(super) async fn connect_from(
        endpoint: Endpoint,
        node: &TestNode,
        tls: rustls::ClientConfig,
    ) -> Option<Foreign> {
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint.connect_with(config, node.addr, &server_name(NodeId(1))).unwrap();
        let connection = within("a connection", connecting).await.ok()?;
        Some(Foreign { connection, endpoint })
    }

    pub(super) async fn client(pki: &Pki, node: &TestNode) -> Foreign {
        let identity = pki.client(VALID);
        Foreign::connect(node, pki.tls(Some(&identity), ALPN_CLIENT)).await.unwrap()
    }

    pub(super) async fn peer(pki: &Pki, node: &TestNode, id: u64) -> Foreign {
        let identity = pki.node(id, VALID);
        Foreign::connect(node, pki.tls(Some(&identity), ALPN_PEER)).await.unwrap()
    }

    /// The number with which the node closes the connection.
    pub(super) async fn closed(&self) -> VarInt {
        match within("the node closes", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code,
            other => panic!("closed otherwise: {other}"),
        }
    }

    pub(super) async fn open(&self) -> RawLane {
        let opened = within("a lane", self.connection.open_bi()).await;
        let (send, recv) = opened.unwrap();
        RawLane { send, reader: LaneReader::new(recv, FRAME_LEN_MAX) }
    }

    /// A client lane after its hello.
    pub(super) async fn lane(&self) -> RawLane {
        let mut lane = self.open().await;
        lane.write(&client_hello(Some("test"))).await;
        assert_eq!(lane.frame().await.kind, kind::WELCOME);
        lane
    }

    pub(super) async fn leave(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        within("leaving", self.endpoint.wait_idle()).await;
    }
}

/// A stream without any manners.
pub(super) struct RawLane {
    pub(super) send: SendStream,
    reader: LaneReader,
}

impl RawLane {
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        within("writing", self.send.write_all(bytes)).await.unwrap();
    }

    pub(super) async fn frame(&mut self) -> Frame {
        let deadline = Instant::now() + DEADLINE;
        self.reader.hello(deadline).await.unwrap()
    }

    /// The numbered error that the node sends as the lane's last frame, and the id it answers.
    pub(super) async fn error(&mut self) -> (u16, u64) {
        let frame = self.frame().await;
        match Reply::decode(&frame).unwrap() {
            Reply::Error(error) => (error.code(), frame.id),
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// Reads to the end; how many bytes came.
    pub(super) async fn drain(self) -> usize {
        within("the end of the lane", self.reader.drain()).await
    }

    /// How the node ended its half.
    pub(super) async fn end(&mut self) -> super::super::lane::LaneEnd {
        self.reader.hello(Instant::now() + DEADLINE).await.unwrap_err()
    }
}

pub(super) fn frame(kind: u8, id: u64, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, kind, id, |out| out.extend_from_slice(body));
    out
}

pub(super) fn client_hello(cluster: Option<&str>) -> BytesMut {
    let hello = ClientHello { cluster: cluster.map(str::to_owned), client: "test".to_owned() };
    frame(kind::HELLO, 5, &handshake::encode(&hello))
}
