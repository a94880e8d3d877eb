//! A cluster of fake nodes: real QUIC and TLS on loopback, the real protocol, and answers that a
//! test decides request by request.
#![expect(clippy::unwrap_used, reason = "a fixture that breaks should fail its test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use holm_client::{
    Actor, BucketInfo, BucketKind, BucketPolicy, Client, ClientBuilder, ClusterView, Dot, Hlc,
    Level, NodeId, NodeInfo, PlacementId, PlacementInfo, PlacementView, Receipt, ReceiptEntry,
    RegionId, RequestError, Sibling,
};
use holm_protocol::admin::{AdminReply, AdminRequest};
use holm_protocol::frame::{ALPN_CLIENT, FrameDecoder, put_frame};
use holm_protocol::handshake::{self, ClientHello, ClientWelcome};
use holm_protocol::ids::BucketId;
use holm_protocol::message::{Reply, Request, Values, Written, kind};
use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

/// What a fake node does with a request.
pub(crate) enum Act {
    /// Answer it.
    Reply(Reply),
    /// Answer it, this much later.
    Late(Duration, Reply),
    /// Never answer.
    Silence,
    /// Close the connection.
    Hangup,
    /// Write these bytes in place of an answer.
    Raw(Vec<u8>),
    /// Answer with a frame of this kind and body under the request's id.
    Frame(u8, Vec<u8>),
    /// Close the connection and the node.
    Die,
}

/// Decides what a node does: the node, how many requests all nodes took before, the request.
pub(crate) type Script = Arc<dyn Fn(NodeId, usize, &Request) -> Act + Send + Sync>;

/// A cluster CA and what it signed.
pub(crate) struct Pki {
    pub(crate) ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        Pki { ca_pem: cert.pem(), issuer: Issuer::new(params, key), roots }
    }

    /// A certificate for a name, and its key.
    pub(crate) fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        self.issue_until(name, 4096)
    }

    /// The same, but valid only until the start of this year.
    pub(crate) fn issue_until(&self, name: &str, year: i32) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn server_config(&self, name: &str) -> quinn::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.roots.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let (cert, key) = self.issue(name);
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
    }
}

/// What all fake nodes share.
struct Shared {
    script: Mutex<Script>,
    view: Mutex<ClusterView>,
    log: Mutex<Vec<(NodeId, Request)>>,
    logged: Notify,
    runs: Mutex<BTreeMap<NodeId, Actor>>,
    welcome: Mutex<Option<Vec<u8>>>,
    turn_away: Mutex<Option<(u32, Vec<u8>)>>,
}

/// A running fake cluster.
pub(crate) struct Fake {
    pub(crate) pki: Pki,
    shared: Arc<Shared>,
    addrs: BTreeMap<NodeId, SocketAddr>,
    endpoints: Mutex<BTreeMap<NodeId, quinn::Endpoint>>,
}

impl Fake {
    /// Starts nodes 1, 2, ... in these regions; every node of a region replicates every key,
    /// except those past `replicas_max` a region.
    pub(crate) fn start(regions: &[&str], replicas_max: usize) -> Fake {
        let pki = Pki::new();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(|node, n, request| Act::Reply(success(node, n, request)))),
            view: Mutex::new(view(&[], 0)),
            log: Mutex::new(Vec::new()),
            logged: Notify::new(),
            runs: Mutex::new(BTreeMap::new()),
            welcome: Mutex::new(None),
            turn_away: Mutex::new(None),
        });
        let addrs = BTreeMap::new();
        let mut fake = Fake { pki, shared, addrs, endpoints: Mutex::new(BTreeMap::new()) };
        let mut nodes = Vec::new();
        for (index, region) in regions.iter().enumerate() {
            let id = NodeId(index as u64 + 1);
            fake.shared.runs.lock().unwrap().insert(id, Actor(100 + id.0));
            let addr = fake.listen(id, "127.0.0.1:0".parse().unwrap());
            fake.addrs.insert(id, addr);
            let (region, zone) = ((*region).to_owned(), "a".to_owned());
            nodes.push(NodeInfo { id, addr, region, zone, capacity: 1 });
        }
        *fake.shared.view.lock().unwrap() = view(&nodes, replicas_max);
        fake
    }

    fn listen(&self, id: NodeId, addr: SocketAddr) -> SocketAddr {
        let config = self.pki.server_config(&format!("node-{}.holm.internal", id.0));
        let endpoint = quinn::Endpoint::server(config, addr).unwrap();
        let addr = endpoint.local_addr().unwrap();
        tokio::spawn(accept(id, endpoint.clone(), Arc::clone(&self.shared)));
        self.endpoints.lock().unwrap().insert(id, endpoint);
        addr
    }

    /// Lets the script decide from now on, except about views.
    pub(crate) fn script(
        &self,
        script: impl Fn(NodeId, usize, &Request) -> Act + Send + Sync + 'static,
    ) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// What nodes answer to a hello in place of a welcome.
    pub(crate) fn answer_hello_with(&self, bytes: Vec<u8>) {
        *self.shared.welcome.lock().unwrap() = Some(bytes);
    }

    /// What nodes close connections with right after the handshake.
    pub(crate) fn turn_away(&self, code: u32, why: &str) {
        *self.shared.turn_away.lock().unwrap() = Some((code, why.as_bytes().to_vec()));
    }

    /// Changes what nodes say the cluster looks like.
    pub(crate) fn change_view(&self, change: impl FnOnce(&mut ClusterView)) {
        change(&mut self.shared.view.lock().unwrap());
    }

    /// Gives a node a new run: what it says from the next welcome on.
    pub(crate) fn new_run(&self, node: NodeId) {
        self.shared.runs.lock().unwrap().insert(node, Actor(rand::random()));
    }

    /// Closes a node and its connections, and waits until clients were told.
    pub(crate) async fn stop(&self, node: NodeId) {
        let endpoint = self.endpoints.lock().unwrap().remove(&node);
        if let Some(endpoint) = endpoint {
            endpoint.close(0u32.into(), b"stopped");
            endpoint.wait_idle().await;
        }
    }

    pub(crate) fn addr(&self, node: u64) -> SocketAddr {
        self.addrs[&NodeId(node)]
    }

    /// A builder that knows these nodes.
    pub(crate) fn builder(&self, nodes: &[u64]) -> ClientBuilder {
        let (cert, key) = self.pki.issue("client.test");
        Client::builder()
            .cluster("test")
            .nodes(nodes.iter().map(|id| (NodeId(*id), self.addr(*id))))
            .ca_pem(self.pki.ca_pem.as_bytes())
            .identity_pem(cert.pem(), key.serialize_pem())
            .timeout(Duration::from_secs(3))
    }

    /// Requests about keys that nodes took so far.
    pub(crate) fn log(&self) -> Vec<(NodeId, Request)> {
        self.shared.log.lock().unwrap().clone()
    }

    pub(crate) fn clear_log(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// Waits until nodes took this many requests.
    pub(crate) async fn logged(&self, count: usize) {
        loop {
            let logged = self.shared.logged.notified();
            if self.log().len() >= count {
                return;
            }
            logged.await;
        }
    }
}

async fn accept(id: NodeId, endpoint: quinn::Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let (shared, endpoint) = (Arc::clone(&shared), endpoint.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let turn_away = shared.turn_away.lock().unwrap().clone();
            if let Some((code, why)) = turn_away {
                connection.close(code.into(), &why);
            }
            while let Ok((send, recv)) = connection.accept_bi().await {
                let lane = lane(id, connection.clone(), endpoint.clone(), send, recv);
                tokio::spawn(lane.run(Arc::clone(&shared)));
            }
        });
    }
}

fn lane(
    id: NodeId,
    connection: quinn::Connection,
    endpoint: quinn::Endpoint,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
) -> Lane {
    Lane { id, connection, endpoint, send, recv }
}

struct Lane {
    id: NodeId,
    connection: quinn::Connection,
    endpoint: quinn::Endpoint,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Lane {
    async fn run(mut self, shared: Arc<Shared>) {
        let mut decoder = FrameDecoder::new();
        let mut greeted = false;
        loop {
            while let Some(frame) = decoder.next_frame().unwrap() {
                if !greeted {
                    greeted = true;
                    let hello: ClientHello = handshake::decode(&frame.body).unwrap();
                    let bytes = welcome(self.id, &hello, &shared);
                    if self.send.write_all(&bytes).await.is_err() {
                        return;
                    }
                    continue;
                }
                let request = Request::decode(&frame).unwrap();
                let act = decide(self.id, &request, &shared);
                if !self.perform(act, frame.id).await {
                    return;
                }
            }
            match self.recv.read_chunk(1 << 16, true).await {
                Ok(Some(chunk)) => decoder.push(&chunk.bytes),
                _ => return,
            }
        }
    }

    async fn perform(&mut self, act: Act, id: u64) -> bool {
        let mut out = BytesMut::new();
        match act {
            Act::Reply(reply) => reply.encode(id, &mut out),
            Act::Late(delay, reply) => {
                tokio::time::sleep(delay).await;
                reply.encode(id, &mut out);
            }
            Act::Silence => {}
            Act::Hangup => self.connection.close(1u32.into(), b"hangup"),
            Act::Raw(bytes) => out.put_slice(&bytes),
            Act::Frame(kind, body) => put_frame(&mut out, kind, id, |out| out.put_slice(&body)),
            Act::Die => self.endpoint.close(1u32.into(), b"died"),
        }
        self.send.write_all(&out).await.is_ok()
    }
}

fn welcome(id: NodeId, hello: &ClientHello, shared: &Shared) -> BytesMut {
    let mut out = BytesMut::new();
    if let Some(bytes) = shared.welcome.lock().unwrap().as_ref() {
        out.put_slice(bytes);
        return out;
    }
    match hello.cluster.as_deref() {
        None | Some("test") => {
            let welcome = ClientWelcome {
                cluster: "test".to_owned(),
                node: id,
                run: shared.runs.lock().unwrap()[&id],
                layout_version: shared.view.lock().unwrap().layout_version,
            };
            put_frame(&mut out, kind::WELCOME, 0, |out| {
                out.put_slice(&handshake::encode(&welcome));
            });
        }
        Some(asked) => {
            let (here, asked) = ("test".to_owned(), asked.to_owned());
            Reply::Error(RequestError::WrongCluster { here, asked }).encode(0, &mut out);
        }
    }
    out
}

fn decide(id: NodeId, request: &Request, shared: &Shared) -> Act {
    if *request == Request::Admin(AdminRequest::View) {
        let view = shared.view.lock().unwrap().clone();
        return Act::Reply(Reply::Admin(Box::new(AdminReply::View(view))));
    }
    let script = Arc::clone(&shared.script.lock().unwrap());
    let before = {
        let mut log = shared.log.lock().unwrap();
        log.push((id, request.clone()));
        log.len() - 1
    };
    shared.logged.notify_waiters();
    script(id, before, request)
}

/// A layout in which each partition's replicas are the first nodes of each region.
fn view(nodes: &[NodeInfo], replicas_max: usize) -> ClusterView {
    let mut regions: Vec<String> = nodes.iter().map(|node| node.region.clone()).collect();
    regions.sort();
    regions.dedup();
    let mut replicas = Vec::new();
    for region in &regions {
        let here = nodes.iter().enumerate().filter(|(_, node)| node.region == *region);
        replicas.extend(here.take(replicas_max).map(|(index, _)| index as u16));
    }
    let replication = regions.iter().map(|name| (name.clone(), replicas_max as u8)).collect();
    let info =
        PlacementInfo { id: PlacementId(0), name: "default".to_owned(), bits: 3, replication };
    let bucket = |id, name: &str, kind| BucketInfo {
        id: BucketId(id),
        name: name.to_owned(),
        policy: BucketPolicy { kind, ..BucketPolicy::default() },
    };
    ClusterView {
        cluster: "test".to_owned(),
        layout_version: 1,
        regions,
        nodes: nodes.to_vec(),
        placements: vec![PlacementView { info, replicas: vec![replicas; 8] }],
        buckets: vec![bucket(1, "b", BucketKind::Siblings), bucket(2, "lww", BucketKind::Lww)],
    }
}

/// A good answer to any request.
pub(crate) fn success(node: NodeId, n: usize, request: &Request) -> Reply {
    let replica = ReceiptEntry { node, region: RegionId(0), fallback: false };
    let receipt = Receipt { coordinator: node, level: Level::One, replicas: vec![replica] };
    let dot = Dot::new(Actor(node.0), n as u64 + 1);
    let context = Bytes::from_static(b"seen");
    match request {
        Request::Put(_) | Request::Delete(_) => {
            Reply::Written(Written { dot, hlc: Hlc(7), context, receipt })
        }
        Request::Get(_) => {
            let value = Bytes::from(node.0.to_string());
            Reply::Values(Values {
                siblings: vec![Sibling { value, hlc: Hlc(7), dot }],
                context,
                receipt,
            })
        }
        Request::Admin(_) => Reply::Admin(Box::new(AdminReply::Done)),
    }
}

/// A refusal after which nothing has happened.
pub(crate) fn not_ready() -> Act {
    let reason = holm_protocol::error::NotReady::Starting;
    Act::Reply(Reply::Error(RequestError::NotReady { reason }))
}

/// A path to a node that can be cut: no packet passes, nobody is told.
pub(crate) struct Path {
    pub(crate) addr: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Path {
    /// A path for one client.
    pub(crate) async fn to(node: SocketAddr) -> Path {
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = outside.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((len, from)) = outside.recv_from(&mut up) => {
                        client = Some(from);
                        if !is_cut.load(Ordering::Relaxed) {
                            let _ = inside.send_to(&up[..len], node).await;
                        }
                    }
                    Ok((len, _)) = inside.recv_from(&mut down) => {
                        if let Some(client) = client && !is_cut.load(Ordering::Relaxed) {
                            let _ = outside.send_to(&down[..len], client).await;
                        }
                    }
                    else => return,
                }
            }
        });
        Path { addr, cut }
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}
