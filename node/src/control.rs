//! The control thread: cluster metadata, operators' requests, and what a node knows of the others.
//!
//! Metadata (layout, buckets, secrets) is a value that joins ([`Metadata::merge`]). A node pushes
//! its own to whoever it meets with another version, and to everyone when it changes; what a push
//! changes here is persisted before it is used, and passed on. So it spreads to all nodes, and
//! settles.

mod consistency;
mod inbox;
mod repair;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use holm_core::hlc::HlcClock;
use holm_core::metadata::{Metadata, MetadataConflict};
use holm_core::peer::PeerMessage;
use holm_core::peer::packed::PACKED;
use holm_core::store::{Store, StoreError, Table};
use holm_protocol::admin::{AdminReply, AdminRequest, LinkRule, MemberState, PeerOpinion};
use holm_protocol::error::{NotReady, RequestError, StoreFault};
use holm_protocol::frame::{Frame, put_frame};
use holm_protocol::handshake::Lane;
use holm_protocol::ids::NodeId;
use holm_protocol::message::Reply;

use crate::net::devnet::{LinkEffect, LinkRules};
use crate::router::Router;
use crate::store::RocksStore;

pub use consistency::{Consistency, ShardFacts, VerifiedWith};
pub use inbox::{Command, Commands, ControlInbox};
pub use state::{NodeState, ShardState};

/// Frame kind of a node's whole metadata, on bulk lanes.
const METADATA: u8 = 128;

/// Frame kind of "I knew you with another store", on bulk lanes. Body: the remembered store (16
/// bytes, big-endian).
const STORE_CHANGED: u8 = 129;
const _: () = {
    let [one, other] = PeerMessage::BULK_KINDS;
    assert!(METADATA != PACKED && METADATA != one && METADATA != other);
    assert!(STORE_CHANGED != PACKED && STORE_CHANGED != one && STORE_CHANGED != other);
};

const METADATA_KEY: &[u8] = b"cluster/metadata";
const AMNESIA_KEY: &[u8] = b"node/amnesia";
/// The store that has all that an earlier one had, as far as others have it.
const HEALED_KEY: &[u8] = b"node/healed";
const BOOT_KEY: &[u8] = b"node/boot";

/// How often the control thread looks whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

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

    /// Counts this start of the node, durably, before anybody hears of it.
    ///
    /// # Errors
    /// [`StoreError`] if the count so far cannot be read. A disk that takes nothing does not keep a node
    /// from starting: the count is then repeated, and others outrank it.
    pub fn count_boot(store: &mut RocksStore) -> Result<u64, StoreError> {
        let bytes = store.get(Table::Meta, BOOT_KEY)?;
        let before = bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        let boot = before.saturating_add(1);
        if let Err(error) = remember_boot(store, boot) {
            tracing::warn!(boot, %error, "cannot remember the number of this start");
        }
        Ok(boot)
    }

    /// Works until the node stops. To be called on a thread of its own.
    pub fn run(mut self, commands: &Commands) {
        loop {
            self.look_for_amnesia();
            self.look_for_healing();
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
            tracing::error!("amnesia: the reopened store lost writes; this node answers no more");
            self.router.declare_amnesia();
        }
    }

    /// What the store lost was taken from other replicas, of each partition: it is as good as any now.
    fn look_for_healing(&mut self) {
        let is_sound = self.store.failure().is_none();
        if !self.state.amnesia.load(Ordering::Acquire) || !is_sound || !self.state.is_healed() {
            return;
        }
        let healed = self.remember_healing();
        if let Err(error) = healed {
            return tracing::warn!(%error, "cannot record that what was lost is here again");
        }
        self.state.amnesia.store(false, Ordering::Release);
        tracing::info!("what the store had lost was taken from the others: no amnesia any more");
    }

    fn remember_healing(&mut self) -> Result<(), StoreError> {
        self.store.stage_put(Table::Meta, HEALED_KEY, &self.store_id.to_be_bytes());
        self.store.stage_delete(Table::Meta, AMNESIA_KEY);
        self.store.commit()?;
        self.store.sync()?;
        self.store.clear_amnesia().map_err(|error| StoreError::Io(error.to_string()))
    }

    fn is_healed(&mut self) -> bool {
        let healed = self.store.get(Table::Meta, HEALED_KEY);
        matches!(healed, Ok(Some(store)) if store == self.store_id.to_be_bytes())
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
            Command::Boot(boot) => {
                // Not remembered, it is outranked again at the next start, and taken again.
                if let Err(error) = remember_boot(&mut self.store, boot) {
                    tracing::warn!(boot, %error, "cannot remember the number of this start");
                }
            }
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
            AdminRequest::Members => Ok(AdminReply::Members(self.state.membership())),
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
                self.check_dead(&self.metadata.left_out(&proposal))?;
                let mut next = self.metadata.clone();
                let summary = next.apply_layout(&proposal, rand::random())?;
                self.adopt(next, None)?;
                tracing::info!(version = summary.version, "layout applied");
                Ok(AdminReply::Layout(summary))
            }
            AdminRequest::Repair(scope) => Ok(AdminReply::Repair(self.state.repair(&scope))),
            AdminRequest::RepairProgress => Ok(AdminReply::Repair(self.state.repair_progress())),
            AdminRequest::Links(rules) => self.set_links(&rules).map(|()| AdminReply::Done),
            _ => Err(RequestError::Malformed { what: "unknown admin request".to_owned() }),
        }
    }

    /// Nodes that are to be taken out of the layout must be dead: one that lives may have taken writes
    /// that nobody else has.
    fn check_dead(&self, left_out: &[NodeId]) -> Result<(), RequestError> {
        let refused = |why| Err(RequestError::LayoutRefused { why });
        if left_out.contains(&self.state.node) {
            return refused(format!("{} is alive: you are talking to it", self.state.node));
        }
        let peers = self.state.membership().peers;
        let lives = |peer: &&PeerOpinion| {
            let answers = matches!(peer.state, MemberState::Alive | MemberState::Suspect);
            left_out.contains(&peer.node) && (peer.connected || answers)
        };
        match peers.iter().find(lives) {
            Some(peer) => refused(format!(
                "{} answers, or did a moment ago: only dead nodes can be removed; stop it, and wait \
                 until `holm status` shows it as down or left",
                peer.node
            )),
            None => Ok(()),
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
        let cluster = Arc::new(self.metadata.state());
        *self.state.cluster.lock().unwrap_or_else(PoisonError::into_inner) = cluster.clone();
        self.router.set_cluster(cluster, self.metadata.version());
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
        // They go on saying so, of the store of then.
        if self.is_healed() || self.state.amnesia.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(%from, "amnesia: another node knew this one with another store; \
            what that had is taken from the others");
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

fn remember_boot(store: &mut RocksStore, boot: u64) -> Result<(), StoreError> {
    store.stage_put(Table::Meta, BOOT_KEY, &boot.to_be_bytes());
    store.commit()?;
    // Also where commits are fsynced later only.
    store.sync()
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    wall.as_millis() as u64
}
