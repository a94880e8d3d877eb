//! The control thread: cluster metadata, operators' requests, and what a node knows of the others.
//!
//! Metadata (layout, buckets, secrets) is a value that joins ([`Metadata::merge`]). A node pushes
//! its own to whoever it meets with another version, and to everyone when it changes; what a push
//! changes here is persisted before it is used, and passed on. So it spreads to all nodes, and
//! settles.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::{BufMut, BytesMut};
use holm_core::hlc::HlcClock;
use holm_core::metadata::{Metadata, MetadataConflict};
use holm_core::shard::event::Counters;
use holm_core::store::{Store, StoreError, Table};
use holm_protocol::admin::{AdminReply, AdminRequest, LinkRule, NodeStatus};
use holm_protocol::error::{NotReady, RequestError, StoreFault};
use holm_protocol::frame::{Frame, put_frame};
use holm_protocol::handshake::{Lane, MetadataVersion};
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::Reply;

use crate::net::counters::Counter;
use crate::net::devnet::{LinkEffect, LinkRules};
use crate::net::lane::ReplySink;
use crate::net::peers::PeerPool;
use crate::router::Router;
use crate::store::RocksStore;

/// Commands that may wait. Operators' requests and metadata are rare; beyond this they are refused
/// or lost, and metadata is pushed again at the next meeting.
const COMMANDS_MAX: usize = 256;

/// Bytes of bulk frames that may wait: two of the longest, so that one can be taken in while another
/// is worked on. One fits whatever its length, if nothing waits.
const COMMANDS_BYTES_MAX: usize = 2 * FRAME_LEN_MAX;

/// Frame kind of a node's whole metadata, on bulk lanes.
const METADATA: u8 = 128;

/// Frame kind of "I knew you with another store", on bulk lanes. Body: the remembered store (16
/// bytes, big-endian).
const STORE_CHANGED: u8 = 129;

const METADATA_KEY: &[u8] = b"cluster/metadata";
const AMNESIA_KEY: &[u8] = b"node/amnesia";

/// How often the control thread looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// Something for the control thread.
#[derive(Debug)]
pub enum Command {
    /// A request of an operator or a client that concerns no key.
    Admin {
        /// Where the answer goes.
        replies: ReplySink,
        /// The request's number.
        frame: u64,
        /// What is asked.
        request: AdminRequest,
    },
    /// A message on a bulk lane.
    Bulk {
        /// The node.
        from: NodeId,
        /// The message.
        frame: Frame,
    },
    /// A node was met.
    PeerUp {
        /// The node.
        node: NodeId,
        /// Its store's name.
        store: u128,
        /// The metadata it holds.
        metadata: MetadataVersion,
    },
}

impl Command {
    /// Bytes that it keeps in memory beyond its own size. Admin requests are bounded by the limits of
    /// the lanes they come over.
    fn bytes(&self) -> usize {
        match self {
            Command::Bulk { frame, .. } => frame.body.len(),
            Command::Admin { .. } | Command::PeerUp { .. } => 0,
        }
    }
}

/// Where commands are put. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlInbox {
    sender: SyncSender<Command>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<Counter>,
}

/// Where commands come out.
#[derive(Debug)]
pub struct Commands {
    receiver: Receiver<Command>,
    bytes: Arc<AtomicUsize>,
}

impl Commands {
    fn next(&self, patience: Duration) -> Result<Command, RecvTimeoutError> {
        let command = self.receiver.recv_timeout(patience)?;
        self.bytes.fetch_sub(command.bytes(), Ordering::Relaxed);
        Ok(command)
    }
}

impl ControlInbox {
    /// An inbox and its other end.
    #[must_use]
    pub fn new() -> (ControlInbox, Commands) {
        let (sender, receiver) = sync_channel(COMMANDS_MAX);
        let bytes = Arc::<AtomicUsize>::default();
        let commands = Commands { receiver, bytes: bytes.clone() };
        (ControlInbox { sender, bytes, dropped: Arc::default() }, commands)
    }

    /// Puts a command in. An operator's request that does not fit is refused.
    pub fn send(&self, command: Command) {
        let bytes = command.bytes();
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 && waiting > 0 && waiting + bytes > COMMANDS_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.increment();
            return;
        }
        if let Err(error) = self.sender.try_send(command) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.increment();
            let (std::sync::mpsc::TrySendError::Full(command)
            | std::sync::mpsc::TrySendError::Disconnected(command)) = error;
            if let Command::Admin { replies, frame, .. } = command {
                let limit = COMMANDS_MAX as u32;
                let error =
                    RequestError::Overloaded { in_flight: limit, limit, retry_after_ms: 200 };
                replies.send(frame, &Reply::Error(error));
            }
        }
    }
}

/// What a shard leaves for others to see, as of its last turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardState {
    /// What it counts.
    pub counters: Counters,
    /// Why it refuses writes, if it does.
    pub stopped: Option<StoreFault>,
}

/// What several threads want to know of a node's state.
#[derive(Debug)]
pub struct NodeState {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub run: Actor,
    /// When it started.
    pub started: Instant,
    /// Whether it lost state it once had.
    pub amnesia: AtomicBool,
    /// Whether it is stopping.
    pub stopping: AtomicBool,
    /// Whether a shard or the control thread cannot go on.
    pub broken: Arc<AtomicBool>,
    /// The layout's version, and the partitions the node holds.
    pub layout: Mutex<(u64, bool, u32)>,
    /// Each shard, as of its last turn.
    pub shards: Vec<Arc<Mutex<ShardState>>>,
    /// Nodes whose metadata was refused when it last came, and why.
    pub conflicts: Mutex<BTreeMap<NodeId, String>>,
    /// The store, to ask for room and failures.
    pub store: Mutex<RocksStore>,
    /// The other nodes.
    pub pool: PeerPool,
}

impl NodeState {
    /// The store, for figures. Shards have handles of their own.
    pub fn store(&self) -> MutexGuard<'_, RocksStore> {
        // Nothing is staged in this handle, so a panic leaves nothing half done.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the node does not serve requests as it should; empty if it does.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let (version, member, _) = *self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if version == 0 {
            reasons.push("no layout has been applied (holm layout apply)".to_owned());
        } else if !member {
            reasons.push("this node is not in the layout".to_owned());
        }
        if self.amnesia.load(Ordering::Acquire) {
            reasons.push("amnesia: the store lost state; reads are left to the others".to_owned());
        }
        if self.store().space().full {
            reasons.push("the disk is full: writes are refused".to_owned());
        }
        if let Some(failure) = self.store().failure() {
            reasons.push(format!("the store failed, writes are refused: {failure}"));
        }
        for (shard, state) in self.shards().iter().enumerate() {
            if let Some(fault) = state.stopped {
                let why = match fault {
                    StoreFault::Full => "the disk was full",
                    _ => "a commit failed; restart the node",
                };
                reasons.push(format!("shard {shard} refuses writes: {why}"));
            }
        }
        let conflicts = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, why) in conflicts.iter() {
            reasons.push(format!("cluster metadata of {node} was refused: {why}"));
        }
        drop(conflicts);
        if self.stopping.load(Ordering::Acquire) {
            reasons.push("the node is stopping".to_owned());
        }
        if self.broken.load(Ordering::Acquire) {
            reasons.push("a thread of the node cannot go on; see its log".to_owned());
        }
        reasons
    }

    /// The node's state for operators.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let (layout_version, _, partitions) =
            *self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = self.reasons();
        NodeStatus {
            node: self.node,
            run: self.run,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            layout_version,
            ready: if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) },
            amnesia: self.amnesia.load(Ordering::Acquire),
            peers: self.pool.status(),
            in_flight: self.counters().iter().map(|counters| counters.in_flight as u32).sum(),
            partitions,
        }
    }

    /// Each shard's counters.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.shards().iter().map(|shard| shard.counters).collect()
    }

    fn shards(&self) -> Vec<ShardState> {
        let read = |c: &Arc<Mutex<ShardState>>| *c.lock().unwrap_or_else(PoisonError::into_inner);
        self.shards.iter().map(read).collect()
    }
}

/// See the module's head.
pub struct Control {
    metadata: Metadata,
    state: Arc<NodeState>,
    store: RocksStore,
    router: Arc<Router>,
    rules: Option<LinkRules>,
    hlc: HlcClock,
    /// The name of this node's store.
    store_id: u128,
    /// The store with which each node was first met.
    stores: BTreeMap<NodeId, u128>,
}

impl Control {
    /// Reads the persisted metadata and puts it in force.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn new(
        (cluster, store_id): (&str, u128),
        state: Arc<NodeState>,
        router: Arc<Router>,
        rules: Option<LinkRules>,
    ) -> Result<Control, StoreError> {
        let mut store = state.store().for_shard();
        let metadata = match store.get(Table::Meta, METADATA_KEY)? {
            Some(bytes) => Metadata::decode(&bytes)
                .map_err(|error| StoreError::Corrupt(format!("cluster metadata: {error}")))?,
            None => Metadata::new(cluster),
        };
        let hlc = HlcClock::new();
        let stores = BTreeMap::new();
        let control = Control { metadata, state, store, router, rules, hlc, store_id, stores };
        control.put_in_force();
        Ok(control)
    }

    /// Whether amnesia is on record that others told of.
    ///
    /// # Errors
    /// [`StoreError`] if the record cannot be read.
    pub fn recorded_amnesia(store: &mut RocksStore) -> Result<bool, StoreError> {
        Ok(store.get(Table::Meta, AMNESIA_KEY)?.is_some())
    }

    /// Works until the node stops. To be called on a thread of its own.
    pub fn run(mut self, commands: &Commands) {
        loop {
            self.look_for_amnesia();
            match commands.next(PATIENCE) {
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => {
                    if self.state.stopping.load(Ordering::Acquire) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Amnesia found while the store was reopened. The shards look for it themselves; here it is told
    /// to operators, and to a shard that did not.
    fn look_for_amnesia(&self) {
        if self.store.is_amnesic() && !self.state.amnesia.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "amnesia: the reopened store lost writes; reads are left to the others"
            );
            self.router.declare_amnesia();
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Admin { replies, frame, request } => {
                let reply = match self.admin(request) {
                    Ok(reply) => Reply::Admin(Box::new(reply)),
                    Err(error) => Reply::Error(error),
                };
                replies.send(frame, &reply);
            }
            Command::Bulk { from, frame } => self.on_bulk(from, &frame),
            Command::PeerUp { node, store, metadata } => {
                // First: with the metadata, a node that lost its disk would begin to serve.
                if let Err(error) = self.remember_store(node, store) {
                    tracing::warn!(%node, %error, "cannot remember the node's store");
                }
                if metadata != self.metadata.version() {
                    self.push(&[node]);
                }
            }
        }
    }

    fn admin(&mut self, request: AdminRequest) -> Result<AdminReply, RequestError> {
        match request {
            AdminRequest::View => Ok(AdminReply::View(self.metadata.view())),
            AdminRequest::Status => Ok(AdminReply::Status(self.state.status())),
            AdminRequest::Bucket(change) => {
                if self.metadata.version().layout == 0 {
                    return Err(RequestError::NotReady { reason: NotReady::NoLayout });
                }
                let version = self.hlc.now(wall_ms());
                let mut next = self.metadata.clone();
                let info = next.change_bucket(&change, version, self.state.node)?;
                self.adopt(next, None)?;
                tracing::info!(bucket = info.name, id = info.id.0, "bucket changed");
                Ok(AdminReply::Bucket(info))
            }
            AdminRequest::PlanLayout(proposal) => {
                self.metadata.plan_layout(&proposal).map(AdminReply::Layout)
            }
            AdminRequest::ApplyLayout(proposal) => {
                let mut next = self.metadata.clone();
                let summary = next.apply_layout(&proposal, rand::random())?;
                self.adopt(next, None)?;
                tracing::info!(version = summary.version, "layout applied");
                Ok(AdminReply::Layout(summary))
            }
            AdminRequest::Links(rules) => self.set_links(&rules).map(|()| AdminReply::Done),
            _ => Err(RequestError::Malformed { what: "unknown admin request".to_owned() }),
        }
    }

    fn on_bulk(&mut self, from: NodeId, frame: &Frame) {
        match frame.kind {
            METADATA => match Metadata::decode(&frame.body) {
                Ok(theirs) => self.on_metadata(from, theirs),
                Err(error) => {
                    self.router.count_malformed();
                    tracing::error!(%from, %error, "cluster metadata refused");
                }
            },
            STORE_CHANGED => self.on_store_changed(from, &frame.body),
            kind => {
                self.router.count_malformed();
                tracing::warn!(%from, kind, "message of a node refused: not known on a bulk lane");
            }
        }
    }

    /// Merges another node's metadata. A conflict stays visible until that node's fits again.
    fn on_metadata(&mut self, from: NodeId, theirs: Metadata) {
        let their_version = theirs.version();
        let mut next = self.metadata.clone();
        let merged = next.merge(theirs);
        let mut conflicts = self.state.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        match &merged {
            Ok(_) => conflicts.remove(&from),
            // A node of another cluster is its operator's concern; this cluster is not split.
            Err(MetadataConflict::Cluster { .. }) => None,
            Err(error) => conflicts.insert(from, error.to_string()),
        };
        drop(conflicts);
        match merged {
            Ok(true) => {
                // Whoever holds the result already need not be told.
                let known = (next.version() == their_version).then_some(from);
                if let Err(error) = self.adopt(next, known) {
                    tracing::error!(%from, %error, "cannot keep cluster metadata");
                }
            }
            Ok(false) => {}
            Err(error) => {
                self.router.count_malformed();
                tracing::error!(%from, %error, "cluster metadata refused");
            }
        }
    }

    /// Persists metadata, puts it in force, and passes it on.
    fn adopt(&mut self, next: Metadata, from: Option<NodeId>) -> Result<(), RequestError> {
        self.store.stage_put(Table::Meta, METADATA_KEY, &next.encode());
        self.store.commit().map_err(|error| {
            tracing::error!(%error, "cannot persist cluster metadata");
            let fault = match error {
                StoreError::Full => StoreFault::Full,
                _ => StoreFault::Io,
            };
            RequestError::Store { fault }
        })?;
        self.metadata = next;
        self.put_in_force();
        let others: Vec<NodeId> = match self.metadata.layout() {
            Some(layout) => layout.nodes().iter().map(|node| node.id).collect(),
            None => Vec::new(),
        };
        let others: Vec<NodeId> =
            others.into_iter().filter(|&n| n != self.state.node && Some(n) != from).collect();
        self.push(&others);
        Ok(())
    }

    fn put_in_force(&self) {
        let node = self.state.node;
        if let Some(layout) = self.metadata.layout() {
            let member = layout.node(node).is_some();
            let partitions = layout.partitions_of(node).count() as u32;
            *self.state.layout.lock().unwrap_or_else(PoisonError::into_inner) =
                (layout.version(), member, partitions);
            self.state.pool.set_peers(layout.nodes().iter().map(|node| (node.id, node.addr)));
        }
        self.router.set_cluster(Arc::new(self.metadata.state()), self.metadata.version());
    }

    fn push(&self, nodes: &[NodeId]) {
        if nodes.is_empty() {
            return;
        }
        let mut frame = BytesMut::new();
        let encoded = self.metadata.encode();
        put_frame(&mut frame, METADATA, 0, |out| out.put_slice(&encoded));
        for &node in nodes {
            // A node that cannot be reached gets it when it is met again.
            let _ = self.state.pool.send(node, Lane::Bulk, &frame);
        }
    }

    /// Compares a node's store with the one it had when it was first met: only the others can tell
    /// that a node has lost its whole disk. The first store stays on record, and the node is told
    /// at every meeting: it may have died before it heard of it.
    fn remember_store(&mut self, node: NodeId, store: u128) -> Result<(), StoreError> {
        let key = [b"peer/store/".as_slice(), &node.0.to_be_bytes()].concat();
        let known = match self.stores.get(&node) {
            Some(&known) => Some(known),
            None => {
                let bytes = self.store.get(Table::Meta, &key)?;
                bytes.and_then(|b| b.try_into().ok()).map(u128::from_be_bytes)
            }
        };
        match known {
            None => {
                self.store.stage_put(Table::Meta, &key, &store.to_be_bytes());
                self.store.commit()?;
            }
            Some(known) if known != store => {
                tracing::warn!(%node, "node came back with another store: it has lost its disk");
                let mut frame = BytesMut::new();
                put_frame(&mut frame, STORE_CHANGED, 0, |out| out.put_u128(known));
                // A node that cannot be reached is told when it is met again.
                let _ = self.state.pool.send(node, Lane::Bulk, &frame);
            }
            Some(_) => {}
        }
        self.stores.insert(node, known.unwrap_or(store));
        Ok(())
    }

    /// Another node knew this one with another store: everything acknowledged before is gone.
    fn on_store_changed(&mut self, from: NodeId, body: &[u8]) {
        let known = body.try_into().ok().map(u128::from_be_bytes);
        if known.is_none_or(|known| known == self.store_id) {
            self.router.count_malformed();
            tracing::warn!(%from, "message of a node refused: names no other store than this one");
            return;
        }
        if self.state.amnesia.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(%from, "amnesia: another node knew this one with another store; \
            reads are left to the others");
        self.store.stage_put(Table::Meta, AMNESIA_KEY, &from.0.to_be_bytes());
        if let Err(error) = self.store.commit() {
            tracing::error!(%error, "cannot record the amnesia");
        }
        self.router.declare_amnesia();
    }

    fn set_links(&self, rules: &[LinkRule]) -> Result<(), RequestError> {
        let links = self.rules.as_ref().ok_or(RequestError::NotDevelopment)?;
        let unknown = |node| RequestError::LayoutRefused { why: format!("{node} is not in it") };
        let mut effects = Vec::new();
        for rule in rules {
            let layout = self.metadata.layout();
            let node = layout.and_then(|layout| layout.node(rule.to));
            let addr = node.ok_or_else(|| unknown(rule.to))?.addr;
            let delay = Duration::from_micros(rule.delay_us);
            effects.push((addr, LinkEffect { delay, cut: rule.cut }));
        }
        links.set(effects);
        Ok(())
    }
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    wall.as_millis() as u64
}
