//! A whole node: its threads, in the order in which they start and stop.
//!
//! | thread | does |
//! | --- | --- |
//! | network | QUIC, HTTP, the router (one tokio runtime) |
//! | shard 0..S | the protocol, one store commit a turn |
//! | control | metadata, operators |
//! | store's own | fsync interval, high-water mark |
//!
//! Stopping: new requests are refused, the other nodes are told, shards answer what is in flight (within two seconds) and write
//! checkpoints, answers leave, the store is closed. What is cut short by a kill instead is found again in log and checkpoints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holm_core::shard::config::{Boot, ShardConfig, Standing};
use holm_core::store::StoreError;
use holm_protocol::ids::Actor;

use crate::config::{Config, Sync};
use crate::control::{Control, ControlInbox, NodeState};
use crate::http;
use crate::inbox::{Event, Inbox};
use crate::membership::Members;
use crate::metrics::{Exposition, RequestMetrics, Sources};
use crate::net::counters::NetCounters;
use crate::net::endpoint::EndpointError;
use crate::net::hello::LocalNode;
use crate::net::peers::PeerPool;
use crate::net::{Network, Parts};
use crate::router::Router;
use crate::shard_thread::{ShardThread, fresh_actor};
use crate::store::{OpenError, RocksStore, StoreIdentity, StoreOptions, SyncPolicy};

/// How long answers may take to leave when the node stops.
const GRACE: Duration = Duration::from_secs(2);

/// Why a node could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read, or not be closed properly.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot be started.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The HTTP listener cannot be started.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// A thread cannot be started.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not go on: the node steps aside rather than answer wrongly.
    #[error("a thread of the node could not go on; its last error is in the log")]
    Broken,
}

/// The node's own threads. Dropped before they were joined, it stops them and closes the store.
struct Threads {
    state: Arc<NodeState>,
    inboxes: Vec<Arc<Inbox>>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), NodeError> {
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread =
            spawned.map_err(|source| NodeError::Thread { name: name.to_owned(), source })?;
        self.running.push(thread);
        Ok(())
    }

    /// Stops the threads and waits for them. Gives how many panicked.
    fn stop(&mut self) -> usize {
        self.state.stopping.store(true, Ordering::Release);
        self.inboxes.iter().for_each(|inbox| inbox.push_essential(Event::Stop));
        self.running.drain(..).map(JoinHandle::join).filter(Result::is_err).count()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if self.running.is_empty() {
            return;
        }
        self.stop();
        if let Err(error) = self.state.store().close() {
            tracing::error!(%error, "the store was not closed cleanly");
        }
    }
}

/// A running node.
pub struct Node {
    state: Arc<NodeState>,
    router: Arc<Router>,
    threads: Threads,
    network: Network,
    http: http::HttpServer,
}

impl Node {
    /// Opens the store and starts everything. Must be called on the network thread's runtime.
    ///
    /// # Errors
    /// [`NodeError`]; nothing runs then.
    pub async fn start(config: Config) -> Result<Node, NodeError> {
        let started = Instant::now();
        let (mut store, opened) = RocksStore::open(store_options(&config), identity(&config))?;
        let recorded = Control::recorded_amnesia(&mut store)?;
        if let Some(reason) = &opened.amnesia {
            tracing::error!(%reason, "amnesia: the store may lack acknowledged writes; this node \
                answers when it has taken them from the others");
        }
        let boot_number = Control::count_boot(&mut store)?;
        let run = fresh_actor();
        let shards = config.node.shards.max(1);
        let counters = Arc::new(NetCounters::default());
        let queue_bytes_max = config.limits.peer_queue_bytes_max;
        let pool = PeerPool::new(config.node.id, queue_bytes_max, counters.clone());
        let inbox = || Arc::new(Inbox::new(config.limits.inbox_max));
        let inboxes: Vec<Arc<Inbox>> = (0..shards).map(|_| inbox()).collect();
        let (control_inbox, commands) = ControlInbox::new();
        let (links, counted) = (pool.clone(), counters.clone());
        let me = config.node.id;
        let router = Arc::new(Router::new(me, inboxes.clone(), control_inbox, links, counted));
        let seed = rand::random();
        let members = Members::new(me, boot_number, &config.membership, seed);
        let members = Arc::new(members);
        let metrics = Arc::new(RequestMetrics::new());
        let state = Arc::new(NodeState {
            node: config.node.id,
            run,
            started,
            amnesia: AtomicBool::new(opened.amnesia.is_some() || recorded),
            stopping: AtomicBool::new(false),
            broken: Arc::default(),
            layout: Mutex::default(),
            shards: (0..shards).map(|_| Arc::default()).collect(),
            conflicts: Mutex::default(),
            store: Mutex::new(store.for_shard()),
            pool: pool.clone(),
            members: members.clone(),
            max_clock_skew_ms: config.limits.max_clock_skew_ms,
            inboxes: inboxes.clone(),
            health: config.health.clone(),
            cluster: Mutex::default(),
            demands: AtomicU64::new(0),
        });
        let mut threads =
            Threads { state: state.clone(), inboxes: inboxes.clone(), running: Vec::new() };
        for (shard, inbox) in inboxes.iter().enumerate() {
            let thread = ShardThread {
                config: shard_config(&config, shards),
                boot: boot(&config, run, &state, (shard, shards)),
                store: store.for_shard(),
                inbox: inbox.clone(),
                pool: pool.clone(),
                net: counters.clone(),
                metrics: metrics.clone(),
                state: state.shards[shard].clone(),
                broken: state.broken.clone(),
                started,
            };
            threads.spawn(&format!("shard-{shard}"), move || thread.run())?;
        }
        let local = LocalNode {
            cluster: config.cluster.id.clone(),
            node: config.node.id,
            run,
            store: opened.store_id,
            fingerprint: config.settings_fingerprint(),
        };
        let (handler, shared) = (router.clone(), counters.clone());
        let parts = Parts { local, handler, pool, counters: shared, members };
        let network = Network::start(&config, parts)?;
        let rules = network.link_rules().cloned();
        let identity = (config.cluster.id.as_str(), opened.store_id);
        let control = Control::new(identity, state.clone(), router.clone(), rules)?;
        threads.spawn("control", move || control.run(&commands))?;
        let exposition = Exposition::new(Sources {
            state: state.clone(),
            requests: metrics,
            net: counters,
            inboxes: inboxes.clone(),
        });
        let http = http::HttpServer::start(config.listen.http, state.clone(), exposition).await?;
        tracing::info!(
            node = %config.node.id,
            %run,
            quic = %config.listen.quic,
            http = %config.listen.http,
            shards,
            boot = boot_number,
            fresh = opened.fresh,
            "node started"
        );
        Ok(Node { state, router, threads, network, http })
    }

    /// Whether a thread could not go on.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state.broken.load(Ordering::Acquire)
    }

    /// Reads certificates and key again.
    pub fn reload(&self) {
        if let Err(error) = self.network.reload_certificates() {
            tracing::error!(%error, "certificates not reloaded: the old ones stay in use");
        }
    }

    /// Stops everything, in order.
    ///
    /// # Errors
    /// [`NodeError`] if the store could not be closed properly, or a thread could not go on.
    pub async fn stop(self) -> Result<(), NodeError> {
        tracing::info!("node stops");
        let broken = self.is_broken();
        self.state.stopping.store(true, Ordering::Release);
        self.router.stop();
        // While requests in flight are answered, new ones go elsewhere.
        self.network.leave().await;
        // Waiting for the shards must not hold up the network, which carries what their requests in
        // flight wait for, and their last answers.
        let mut threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || threads.stop());
        let panicked = joined.await.unwrap_or(1);
        self.network.shutdown(GRACE).await;
        self.http.stop().await;
        self.state.store().close()?;
        tracing::info!("node stopped");
        if broken || panicked > 0 { Err(NodeError::Broken) } else { Ok(()) }
    }
}

fn store_options(config: &Config) -> StoreOptions {
    let mut options = StoreOptions::new(&config.node.data_dir);
    options.sync = match config.store.sync {
        Sync::Always => SyncPolicy::Always,
        Sync::Interval => SyncPolicy::Interval(config.store.sync_interval),
    };
    options.cache_bytes = config.store.cache_bytes;
    options.write_buffer_bytes = config.store.write_buffer_bytes;
    options.min_free_bytes = config.store.min_free_bytes;
    options
}

fn identity(config: &Config) -> StoreIdentity {
    StoreIdentity { cluster: config.cluster.id.clone(), node: config.node.id }
}

fn shard_config(config: &Config, shards: usize) -> ShardConfig {
    ShardConfig {
        in_flight_max: (config.limits.in_flight_max / shards).max(1),
        cache_bytes_max: config.limits.cache_objects_bytes / shards,
        max_clock_skew_ms: config.limits.max_clock_skew_ms,
        verify_every_ms: config.repair.verify_every_ms,
        hint_after_ms: config.limits.hint_after_ms,
        hint_bytes_max: config.limits.hint_bytes_max / shards,
        handoff_window_bytes: (config.limits.handoff_window_bytes / shards).max(1),
        ..ShardConfig::default()
    }
}

fn boot(config: &Config, run: Actor, state: &NodeState, shard: (usize, usize)) -> Boot {
    Boot {
        node: config.node.id,
        actor: run,
        // Nothing on a disk says that it is an older one: others tell.
        standing: match state.amnesia.load(Ordering::Acquire) {
            true => Standing::Behind,
            false => Standing::Doubt,
        },
        shard: shard.0,
        shards: shard.1,
    }
}
