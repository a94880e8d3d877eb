//! The network of a node: QUIC, mutual TLS, lanes of pipelined frames, links to the other nodes.
//!
//! Everything runs on one current-thread tokio runtime, the network thread. The rest of the node
//! meets it in three places: it implements [`handler::Handler`] (what comes in), it sends through a
//! client's [`lane::ReplySink`] and through the [`peers::PeerPool`] (what goes out). Both outputs
//! append to bounded buffers and can be called from any thread.
//!
//! | file | what |
//! | --- | --- |
//! | [`tls`] | certificates, and who they speak for |
//! | [`socket`], [`devnet`], [`endpoint`] | UDP, its development switch, QUIC settings |
//! | [`chance`] | random numbers |
//! | `accept`, `clients`, [`hello`] | incoming connections, client lanes, what a hello must say |
//! | [`peers`] | one connection for every pair of nodes |
//! | `members` | datagrams of the membership, to and from its driver |
//! | [`lane`], [`outbox`] | reading and writing in batches |
//! | [`counters`], [`close`] | what was refused or lost, and with which number |

mod accept;
pub mod chance;
mod clients;
pub mod close;
mod congestion;
pub mod counters;
pub mod devnet;
pub mod endpoint;
pub mod handler;
pub mod hello;
pub mod lane;
mod members;
pub mod outbox;
pub mod peers;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::config::{Config, LimitsConfig, NetConfig};
use crate::membership::Members;
use chance::Chance;
use counters::NetCounters;
use devnet::LinkRules;
use endpoint::{Bound, EndpointError, Outside, peer_client_config, server_config};
use handler::Handler;
use hello::LocalNode;
use members::Told;
use outbox::Budget;
use peers::PeerPool;
use peers::budget::ReconnectBudget;
use tls::TlsMaterial;

/// What the lanes of all clients may hold together of unfinished frames, beyond the first 64 KiB of
/// each, bytes: sixty of the longest. Beyond it, a lane that needs more is closed.
const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// What the tasks of the network share.
struct Shared {
    endpoint: quinn::Endpoint,
    local: LocalNode,
    limits: LimitsConfig,
    net: NetConfig,
    handler: Arc<dyn Handler>,
    counters: Arc<NetCounters>,
    pool: PeerPool,
    budget: ReconnectBudget,
    chance: Arc<Chance>,
    members: Arc<Members>,
    /// To the task that runs them.
    membership: mpsc::Sender<Told>,
    /// Answers waiting for all clients.
    replies: Arc<Budget>,
    /// Unfinished frames of all clients.
    unfinished: Arc<Budget>,
    peer_config: RwLock<quinn::ClientConfig>,
    /// Incoming connections, in their handshake or after it.
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    /// Connections of clients.
    clients: AtomicUsize,
    client_left: Notify,
    /// Numbers client lanes.
    lanes: AtomicU64,
    stopping: watch::Sender<bool>,
}

impl Shared {
    fn peer_config(&self) -> quinn::ClientConfig {
        self.peer_config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the network is given by the rest of the node.
pub struct Parts {
    /// Who this node is.
    pub local: LocalNode,
    /// Where frames and events go.
    pub handler: Arc<dyn Handler>,
    /// The links to other nodes: made first, because the handler sends through it.
    pub pool: PeerPool,
    /// The counters that the pool was made with.
    pub counters: Arc<NetCounters>,
    /// The membership, which is run here.
    pub members: Arc<Members>,
}

/// The running network of a node. Dropping it stops it at once; see [`Network::shutdown`].
pub struct Network {
    shared: Arc<Shared>,
    rules: Option<LinkRules>,
    config: Config,
    tasks: Vec<JoinHandle<()>>,
}

impl Network {
    /// Binds the socket and starts accepting and dialling. Must be called on the network thread's
    /// runtime.
    ///
    /// # Errors
    /// [`EndpointError`]; nothing runs then.
    pub fn start(config: &Config, parts: Parts) -> Result<Network, EndpointError> {
        let tls = TlsMaterial::load(&config.tls, config.node.id)?;
        Network::start_on(Outside::machine(config)?, config, &tls, parts)
    }

    /// Starts on this machine or a simulated one.
    fn start_on(
        outside: Outside,
        config: &Config,
        tls: &TlsMaterial,
        parts: Parts,
    ) -> Result<Network, EndpointError> {
        let peer_config = RwLock::new(peer_client_config(config, tls)?);
        let chance = outside.chance.clone();
        let Bound { endpoint, rules } = endpoint::bind(outside, config, tls, &parts.counters)?;
        let (membership, told) = mpsc::channel(members::WAITING_MAX);
        let shared = Arc::new(Shared {
            endpoint,
            local: parts.local,
            limits: config.limits.clone(),
            net: config.net.clone(),
            handler: parts.handler,
            counters: parts.counters,
            pool: parts.pool,
            budget: ReconnectBudget::new(Instant::now()),
            chance,
            members: parts.members,
            membership,
            replies: Arc::new(Budget::new(config.limits.reply_bytes_max)),
            unfinished: Arc::new(Budget::new(UNFINISHED_BYTES_MAX)),
            peer_config,
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            client_left: Notify::new(),
            lanes: AtomicU64::new(1),
            stopping: watch::Sender::new(false),
        });
        shared.pool.set_seeds(config.cluster.seeds.iter().copied());
        let tasks = vec![
            tokio::spawn(members::run(shared.clone(), told)),
            tokio::spawn(accept::accept(shared.clone())),
            tokio::spawn(peers::dial::supervise(shared.clone())),
        ];
        Ok(Network { shared, rules, config: config.clone(), tasks })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// The development rules of the socket; `None` unless `dev.enabled`.
    #[must_use]
    pub fn link_rules(&self) -> Option<&LinkRules> {
        self.rules.as_ref()
    }

    /// What has been done and refused.
    #[must_use]
    pub fn counters(&self) -> &Arc<NetCounters> {
        &self.shared.counters
    }

    /// Open connections from and to others.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.endpoint.open_connections()
    }

    /// Answers waiting for all clients, bytes.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.shared.replies.used()
    }

    /// Reads certificates and key again, for connections made from now on; those that exist stay.
    ///
    /// # Errors
    /// [`EndpointError`]; the old ones stay in use.
    pub fn reload_certificates(&self) -> Result<(), EndpointError> {
        let tls = TlsMaterial::load(&self.config.tls, self.config.node.id)?;
        let peer = peer_client_config(&self.config, &tls)?;
        let server = server_config(&self.config, &tls)?;
        self.shared.endpoint.set_server_config(Some(server));
        *self.shared.peer_config.write().unwrap_or_else(PoisonError::into_inner) = peer;
        tracing::info!("certificates reloaded");
        Ok(())
    }

    /// Tells the other nodes that this one stops. They send it nothing new from then on.
    pub async fn leave(&self) {
        let (done, told) = oneshot::channel();
        // The task lives as long as the network.
        if self.shared.membership.send(Told::Leave(done)).await.is_ok() {
            let _ = told.await;
        }
    }

    /// Stops: accepts nothing more, lets clients take the answers that wait, closes all connections.
    /// Takes at most about twice `grace`. Requests should have been answered before.
    pub async fn shutdown(mut self, grace: Duration) {
        self.shared.stopping.send_replace(true);
        let served = async {
            while self.shared.clients.load(Ordering::Relaxed) > 0 {
                self.shared.client_left.notified().await;
            }
        };
        if timeout(grace, served).await.is_err() {
            tracing::warn!("stopping without having sent all answers");
        }
        self.shared.endpoint.close(close::SHUTDOWN, b"node stops");
        if timeout(grace, self.shared.endpoint.wait_idle()).await.is_err() {
            tracing::warn!("stopping without having closed all connections");
        }
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Ends at once, and always as cancelled.
            let _ = task.await;
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.endpoint.close(close::SHUTDOWN, b"node stops");
    }
}
