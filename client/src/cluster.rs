//! What all handles share: nodes, routing, settings, ids.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use holm_protocol::admin::{AdminReply, AdminRequest, ClusterView};
use holm_protocol::handshake::ClientHello;
use holm_protocol::ids::{NodeId, RequestId};
use holm_protocol::limits::TIMEOUT_MS_MAX;
use quinn::VarInt;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call::Deadline;
use crate::chance::Chance;
use crate::connection::{DIALS_MAX, Dialer};
use crate::error::{AdminError, ConnectError, DialError};
use crate::node::Node;
use crate::routing::Routing;
use crate::transport::{self, Outside};

/// Nodes of the own region that are connected to before they are needed.
const PRECONNECT_MAX: usize = 16;

/// Shortest time between two refreshes that nobody waits for.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// Reads that one hedged read must be paid with: at most one in ten is asked twice, so that slow
/// nodes are not slowed down further by hedges.
const HEDGE_COST: i64 = 10;

/// Hedges that may be saved up for a bad moment.
const HEDGES_SAVED_MAX: i64 = 20;

/// What a builder collected.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) cluster: Option<String>,
    pub(crate) name: String,
    /// Which CA certificate, and where it came from.
    pub(crate) ca: String,
    /// Which client certificate, and where it came from.
    pub(crate) certificate: String,
    pub(crate) region: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) lanes: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) hedging: bool,
}

/// A cluster that this process is connected to.
#[derive(Debug)]
pub(crate) struct Cluster {
    timeout: Duration,
    hedging: bool,
    region: Option<String>,
    /// The node that answered first, and so is nearest: its region is home if none was named.
    nearest: NodeId,
    dialer: Arc<Dialer>,
    seeds: BTreeMap<NodeId, SocketAddr>,
    /// Changed only together with `routing`.
    nodes: Mutex<BTreeMap<NodeId, Arc<Node>>>,
    routing: RwLock<Arc<Routing>>,
    refreshing: AtomicBool,
    client_id: u64,
    next_sequence: AtomicU64,
    hedges_saved: AtomicI64,
}

impl Cluster {
    /// Connects to whichever node answers first, and learns from it.
    pub(crate) async fn connect(
        settings: Settings,
        seeds: BTreeMap<NodeId, SocketAddr>,
        tls: Arc<QuicClientConfig>,
        outside: Option<Outside>,
    ) -> Result<Arc<Cluster>, ConnectError> {
        let chance = Chance::new(outside.as_ref().map(|outside| outside.seed));
        let v6 = seeds.values().any(SocketAddr::is_ipv6);
        let endpoint = transport::endpoint(v6, outside, &chance).map_err(ConnectError::Socket)?;
        let mut config = quinn::ClientConfig::new(tls);
        config.transport_config(Arc::new(transport::transport()));
        let dialer = Arc::new(Dialer {
            endpoint,
            config,
            hello: ClientHello { cluster: settings.cluster, client: settings.name },
            ca: settings.ca,
            certificate: settings.certificate,
            lanes: settings.lanes,
            in_flight_max: settings.in_flight_max,
            timeout: settings.connect_timeout,
            permits: Semaphore::new(DIALS_MAX),
            layout_seen: AtomicU64::new(0),
            chance,
        });
        let node = |(id, addr): (&NodeId, &SocketAddr)| {
            (*id, Arc::new(Node::new(*id, *addr, Arc::clone(&dialer))))
        };
        let nodes: BTreeMap<NodeId, Arc<Node>> = seeds.iter().map(node).collect();
        let nearest = first_connected(&nodes, settings.connect_timeout).await?;
        let routing = RwLock::new(Arc::new(Routing::new(nothing_known(), &nodes, None)));
        let client_id = dialer.chance.number();
        let cluster = Arc::new(Cluster {
            timeout: settings.timeout,
            hedging: settings.hedging,
            region: settings.region,
            nearest,
            dialer,
            seeds,
            nodes: Mutex::new(nodes),
            routing,
            refreshing: AtomicBool::new(false),
            client_id,
            next_sequence: AtomicU64::new(1),
            hedges_saved: AtomicI64::new(HEDGE_COST * HEDGES_SAVED_MAX / 2),
        });
        cluster.first_view().await?;
        Ok(cluster)
    }

    async fn first_view(self: &Arc<Self>) -> Result<(), ConnectError> {
        self.refresh().await.map_err(ConnectError::View)?;
        let routing = self.routing();
        if let Some(region) = &self.region
            && routing.layout_version() > 0
            && routing.home_region().is_none()
        {
            let (region, known) = (region.clone(), routing.view().regions.clone());
            return Err(ConnectError::UnknownRegion { region, known });
        }
        routing.home_nodes().take(PRECONNECT_MAX).for_each(Node::dial_soon);
        Ok(())
    }

    pub(crate) fn routing(&self) -> Arc<Routing> {
        // Nothing panics while the lock is held, so a poisoned one still guards a whole value.
        Arc::clone(&self.routing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over a view, unless its layout is older than the one in use.
    pub(crate) fn adopt(&self, view: ClusterView) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if view.layout_version < self.routing().layout_version() {
            return;
        }
        let mut wanted: BTreeMap<NodeId, SocketAddr> =
            view.nodes.iter().map(|info| (info.id, info.addr)).collect();
        // An address that the caller gave is one that works from here.
        wanted.extend(self.seeds.iter().map(|(id, addr)| (*id, *addr)));
        let kept = |id: NodeId, addr: SocketAddr| match nodes.get(&id) {
            Some(node) if node.addr() == addr => Arc::clone(node),
            _ => Arc::new(Node::new(id, addr, Arc::clone(&self.dialer))),
        };
        let renewed: BTreeMap<NodeId, Arc<Node>> =
            wanted.into_iter().map(|(id, addr)| (id, kept(id, addr))).collect();
        let nearest = view.nodes.iter().find(|info| info.id == self.nearest);
        let region = self.region.clone().or_else(|| nearest.map(|info| info.region.clone()));
        let routing = Routing::new(view, &renewed, region.as_deref());
        *self.routing.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routing);
        let dropped = std::mem::replace(&mut *nodes, renewed);
        for node in dropped.values() {
            if !nodes.values().any(|kept| Arc::ptr_eq(kept, node)) {
                node.close();
            }
        }
    }

    /// Asks for layout and buckets, and takes them over.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<(), AdminError> {
        match self.admin(None, AdminRequest::View).await? {
            (_, AdminReply::View(view)) => {
                self.adopt(view);
                Ok(())
            }
            (node, _) => Err(AdminError::UnexpectedReply { node }),
        }
    }

    /// Refreshes on a task of its own, unless that is under way.
    pub(crate) fn refresh_soon(self: &Arc<Self>) {
        if self.refreshing.swap(true, Ordering::Relaxed) {
            return;
        }
        // Weak: a refresh must not keep a dropped client connected.
        let cluster = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(cluster) = cluster.upgrade() {
                if let Err(error) = cluster.refresh().await {
                    tracing::debug!(%error, "no new view of the cluster");
                }
                drop(cluster);
            }
            tokio::time::sleep(REFRESH_INTERVAL).await;
            if let Some(cluster) = cluster.upgrade() {
                cluster.refreshing.store(false, Ordering::Relaxed);
            }
        });
    }

    /// Whether some node named a newer layout than the one in use.
    pub(crate) fn is_layout_stale(&self, routing: &Routing) -> bool {
        self.dialer.layout_seen.load(Ordering::Relaxed) > routing.layout_version()
    }

    /// Counts one read towards later hedges.
    pub(crate) fn earn_hedge(&self) {
        if self.hedging && self.hedges_saved.load(Ordering::Relaxed) < HEDGE_COST * HEDGES_SAVED_MAX
        {
            self.hedges_saved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a read may be asked twice; if so, it is paid for.
    pub(crate) fn spend_hedge(&self) -> bool {
        if !self.hedging || self.hedges_saved.load(Ordering::Relaxed) < HEDGE_COST {
            return false;
        }
        // Two at the same time may overdraw by one hedge, which later reads pay back.
        self.hedges_saved.fetch_sub(HEDGE_COST, Ordering::Relaxed);
        true
    }

    pub(crate) fn is_hedging(&self) -> bool {
        self.hedging
    }

    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Deadline {
        let longest = Duration::from_millis(TIMEOUT_MS_MAX.into());
        Deadline::new(timeout.unwrap_or(self.timeout).min(longest))
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        RequestId { client: self.client_id, sequence }
    }

    pub(crate) fn chance(&self) -> &Chance {
        &self.dialer.chance
    }

    /// Waits a little, longer each time, with jitter.
    pub(crate) async fn pause(&self, time: u32) {
        tokio::time::sleep(self.chance().jittered(Duration::from_millis(40) * time)).await;
    }

    pub(crate) async fn close(&self) {
        self.close_now();
        // A node that does not answer the goodbye must not hold the caller up.
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.dialer.endpoint.wait_idle()).await;
    }

    fn close_now(&self) {
        for node in self.nodes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            node.close();
        }
        self.dialer.permits.close();
        self.dialer.endpoint.close(VarInt::from_u32(0), b"client closed");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// What a client knows before its first view.
fn nothing_known() -> ClusterView {
    ClusterView {
        cluster: String::new(),
        layout_version: 0,
        regions: Vec::new(),
        nodes: Vec::new(),
        placements: Vec::new(),
        buckets: Vec::new(),
    }
}

/// Dials all nodes and answers which one was connected first.
async fn first_connected(
    nodes: &BTreeMap<NodeId, Arc<Node>>,
    timeout: Duration,
) -> Result<NodeId, ConnectError> {
    // The dialer's own timeout should end it; this one is for dials that wait for their turn.
    let until = Instant::now() + 2 * timeout;
    let mut dials = JoinSet::new();
    for node in nodes.values().map(Arc::clone) {
        dials.spawn(async move { (node.id(), node.connected(until).await.map(drop)) });
    }
    let mut tried: Vec<(NodeId, DialError)> = Vec::new();
    while let Some(joined) = dials.join_next().await {
        match joined {
            Ok((node, Ok(()))) => return Ok(node),
            Ok((node, Err(error))) => tried.push((node, error)),
            Err(error) => tracing::error!(%error, "a dial ended without a result"),
        }
    }
    tried.sort_by_key(|(node, _)| *node);
    Err(ConnectError::Unreachable { tried })
}
