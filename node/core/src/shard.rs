//! A shard: the part of a node that owns some of the partitions, as a deterministic state machine.
//!
//! One event goes in with [`Shard::handle`], effects come out as data. Nothing here waits: an
//! operation that needs others' answers is an entry in a table, woken by their messages or by
//! [`Shard::tick`]. A node's shell drains its inbox in a batch, handles each event, carries the
//! effects out, then calls [`Shard::commit`] once:
//!
//! ```text
//! handle, handle, handle ... -> messages to peers leave at once
//! commit                     -> one atomic write; then acknowledgements and answers leave
//! ```
//!
//! What keeps the promises:
//! - **Nothing durable is announced before it is** (I2): a replica's acknowledgement, the
//!   coordinator's own vote and every answer that shows a change of the open batch are held until
//!   the commit. If it fails, they turn into refusals.
//! - **No dot twice** (I1): counters are drawn here, for the partitions this shard owns, under an
//!   actor that is new in every run. After a failed commit the actor is given up: dots of the lost
//!   batch may have reached other nodes.
//! - **Late messages change nothing** (I4): see [`replica`].
//!
//! Source: Dynamo (SOSP 2007) 4.3 to 4.7 and 5; DottedDB (SRDS 2017) for clocks beside objects.
//! Between two batches a shard tells others what it has seen (`claims`) and asks for what it lacks
//! (`gap_repair`).
//! What every replica has is forgotten (`stable`).

pub mod account;
mod acknowledge;
pub mod backlog;
pub mod cache;
mod claims;
mod commit;
pub mod config;
mod dispatch;
mod doubt;
pub mod ends;
pub mod event;
mod explain;
mod fallback;
pub mod fingerprint;
mod gap_repair;
mod gaps;
mod handoff;
pub mod hints;
pub mod lag;
pub mod log;
mod orphans;
pub mod partition;
mod peers;
mod proxy;
mod read;
mod relay;
pub mod replica;
mod resync;
mod retire;
mod route;
mod stable;
mod stand_in;
#[cfg(test)]
mod tests;
mod timers;
pub mod verify;
mod whole;
pub mod window;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holm_protocol::admin::BreakerState;
use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition, RegionId};
use holm_protocol::limits::TIMEOUT_MS_MAX;
use holm_protocol::message::{Reply, Request};

use crate::hlc::HlcClock;
use crate::map::FixedMap;
use crate::peer::{Found, OpId, PeerMessage, Refusal, Standing};
use crate::quorum::Quorum;
use crate::store::{Store, StoreError};
use crate::time::{Mono, Now};

use acknowledge::Lingering;
use backlog::Unstable;
use cache::ObjectCache;
use claims::Claims;
use config::{Boot, ClusterState, ShardConfig};
use doubt::Doubts;
use ends::Ends;
use event::{Caller, Counters, Demanded, Effect, Effects, Input};
use fallback::Guest;
use gaps::Gaps;
use handoff::Handoff;
use hints::Hints;
use log::ShardLog;
use partition::PartitionState;
use peers::Peers;
use relay::Votes;
use retire::Retiring;
use route::{Route, object_kind};
use stable::Stable;
use timers::Timers;
use window::RequestWindow;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A client of this node.
    Client(Caller, Mono),
    /// A node that passed a client's request on: its operation, on this partition.
    Peer(NodeId, OpId, Partition),
}

/// What an event may use while it is handled: the time, the disk, and a place for effects.
#[derive(Debug)]
struct Turn<'a, S> {
    now: Now,
    store: &'a mut S,
    out: &'a mut Effects,
}

/// An operation that waits for something.
#[derive(Debug)]
enum Op {
    Write(Box<acknowledge::WriteOp>),
    Read(Box<read::ReadOp>),
    Relay(Box<relay::RelayOp>),
    Proxy(Box<proxy::ProxyOp>),
    Explain(Box<explain::ExplainOp>),
    Verify(Box<verify::VerifyOp>),
    Session(Box<verify::SessionOp>),
    Gather(Box<fingerprint::GatherOp>),
}

/// The shard's own answer to its own operation, held until the commit.
#[derive(Debug)]
enum OwnVote {
    /// The write of this operation is in the open batch.
    Durable(OpId),
    /// So it is, as a hint for another.
    Kept(OpId),
    /// The read of this operation found this in the open batch.
    Found(OpId, Found),
    /// The read of this operation has all answers, and is to be looked at again.
    Answer(OpId),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    boot: Boot,
    /// The actor under which the process began: the run's name among nodes.
    run: Actor,
    cluster: Arc<ClusterState>,
    region: Option<RegionId>,
    hlc: HlcClock,
    partitions: BTreeMap<Partition, PartitionState>,
    cache: ObjectCache,
    quorums: FixedMap<(u32, u8), Arc<Quorum>>,
    peers: Peers,
    ops: FixedMap<u64, Op>,
    next_op: u64,
    timers: Timers,
    window: RequestWindow,
    in_flight: usize,
    /// Writes being relayed.
    relays: usize,
    /// Bytes of values and objects that operations hold.
    held_bytes: usize,
    lingering: Lingering,
    log: ShardLog,
    hints: Hints,
    /// What became of runs that ended.
    ends: Ends,
    retiring: Retiring,
    /// Partitions that others hold and this shard has written to.
    guests: BTreeMap<Partition, Guest>,
    handoff: Handoff,
    /// What is to be told to other replicas.
    claims: Claims,
    /// Partitions for which this replica does not answer.
    doubts: Doubts,
    /// What every replica has, and may be forgotten.
    stable: Stable,
    unstable: Unstable,
    /// What other replicas have and this one lacks.
    gaps: Gaps,
    /// Partitions that are taken whole from another replica.
    resyncs: resync::Resyncs,
    /// The partition of the last question about gaps.
    last_asked: Partition,
    /// How far this replica is behind others.
    lag: lag::Lag,
    schedule: verify::Schedule,
    /// Digests of what is stored here.
    digests: fingerprint::Digests,
    /// What verification found last.
    found: verify::Found,
    /// Effects that speak of the open batch.
    held: Effects,
    /// Own votes that speak of the open batch.
    own_votes: Vec<OwnVote>,
    /// Why nothing can be written, until [`Shard::resume`].
    stopped: Option<StoreFault>,
    counters: Counters,
    scratch: Vec<u8>,
}

impl Shard {
    /// A shard at the start of a run. It knows no layout yet: give it one with
    /// [`Input::Cluster`].
    #[must_use]
    pub fn new(config: ShardConfig, boot: Boot) -> Shard {
        Shard {
            cache: ObjectCache::new(config.cache_bytes_max),
            window: RequestWindow::new(config.requests_max, config.requests_window_ms),
            run: boot.actor,
            cluster: Arc::default(),
            region: None,
            hlc: HlcClock::new(),
            partitions: BTreeMap::new(),
            quorums: FixedMap::default(),
            peers: Peers::default(),
            ops: FixedMap::default(),
            // An answer to an operation of an earlier run must match nothing: start anywhere but
            // where that run did.
            next_op: boot.actor.0,
            timers: Timers::default(),
            in_flight: 0,
            relays: 0,
            held_bytes: 0,
            lingering: Lingering::default(),
            log: ShardLog::new(boot.shard, boot.shards),
            hints: Hints::default(),
            ends: Ends::default(),
            retiring: Retiring::default(),
            guests: BTreeMap::new(),
            handoff: Handoff::default(),
            claims: Claims::new(),
            doubts: Doubts::default(),
            stable: Stable::default(),
            unstable: Unstable::default(),
            gaps: Gaps::default(),
            resyncs: resync::Resyncs::default(),
            last_asked: Partition::from_u32(0),
            lag: lag::Lag::new(),
            schedule: verify::Schedule::default(),
            digests: fingerprint::Digests::default(),
            found: verify::Found::default(),
            held: Vec::new(),
            own_votes: Vec::new(),
            stopped: None,
            counters: Counters::default(),
            scratch: Vec::new(),
            config,
            boot,
        }
    }

    /// Takes in one event.
    ///
    /// # Errors
    /// [`StoreError`] only if the partitions of a new layout cannot be loaded: the shard cannot go
    /// on, and the node must step aside (I11). Every other trouble is answered to whoever asked.
    pub fn handle<S: Store>(
        &mut self,
        now: Now,
        input: Input,
        store: &mut S,
        out: &mut Effects,
    ) -> Result<(), StoreError> {
        let turn = &mut Turn { now, store, out };
        match input {
            Input::Client { caller, request } => {
                self.on_request(Origin::Client(caller, now.mono), request, turn);
            }
            Input::Explain { caller, bucket, key } => self.on_explain(caller, bucket, key, turn),
            Input::Fingerprint { caller, timeout_ms, all } => {
                self.on_fingerprint(caller, (timeout_ms, all), turn);
            }
            Input::Peer { from, message } => self.on_peer(from, message, turn),
            Input::PeerUp(node, run) => {
                self.peers.set_up(node, true);
                if self.peers.set_run(node, run) {
                    self.stable.forget_claims_of(node);
                }
                self.lag.reachable(node, true, now.mono);
                self.expect_handoff(node, now.mono);
                self.claims.up(node);
                self.doubts.up(node, now.mono);
                self.gaps.look_at(now.mono);
            }
            Input::PeerDown(node) => self.on_peer_down(node, turn),
            Input::PeerDoubted(node, doubted) => self.peers.set_doubted(node, doubted),
            Input::Amnesia => self.lose_all(now.mono),
            Input::Verify(demand) => self.on_demand(&demand, now.mono),
            Input::Cluster(cluster) => {
                self.hints.load(&self.boot, turn.store)?;
                let boot = self.boot;
                self.ends.load(|partition| boot.owns(partition), turn.store)?;
                self.retiring.plan(now.mono, self.config.retire_ms);
                self.on_cluster(cluster, turn)?;
                self.expect_handoffs(now.mono);
            }
        }
        Ok(())
    }

    /// Wakes the operations whose time has come. Call it at [`Shard::next_wakeup`] or later.
    pub fn tick<S: Store>(&mut self, now: Now, store: &mut S, out: &mut Effects) {
        let turn = &mut Turn { now, store, out };
        while let Some(id) = self.timers.pop_due(now.mono) {
            match self.ops.remove(&id.0) {
                Some(Op::Write(op)) => self.wake_write(id, op, turn),
                Some(Op::Read(op)) => self.wake_read(id, op, turn),
                Some(Op::Relay(op)) => self.wake_relay(*op, turn.out),
                Some(Op::Proxy(op)) => self.wake_proxy(id, op, turn),
                Some(Op::Explain(op)) => self.finish_explain(*op, turn.out),
                Some(Op::Verify(op)) => self.wake_verify(id, op, turn),
                Some(Op::Session(op)) => self.wake_session(id, op, turn),
                Some(Op::Gather(op)) => self.finish_fingerprint(*op, turn),
                None => {}
            }
        }
        self.tick_handoff(turn);
        self.begin_verifying(turn);
        self.digest_slice(turn);
        self.retire(turn);
    }

    /// When [`Shard::tick`], or the [`Shard::commit`] after it, has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Mono> {
        let claims = self.claims.due().filter(|_| self.is_sound());
        let doubts = self.doubts.due();
        let (hints, gaps) = (self.handoff.next_wakeup(), self.gaps.due());
        let (resyncs, verifying) = (self.resyncs.due(), self.schedule.next());
        let stable = self.stable.due().filter(|_| self.is_sound());
        let (timers, digests, retiring) =
            (self.timers.next(), self.digests.due(), self.retiring.due());
        let repairs = [gaps, resyncs, verifying, digests];
        let due = [timers, hints, claims, doubts, stable, retiring].into_iter().chain(repairs);
        due.into_iter().flatten().min()
    }

    /// Whether the open batch has grown so large that [`Shard::commit`] should come before the next
    /// event: what a batch has touched stays in memory until then (I10).
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.cache.is_crowded() || self.hints.open_bytes() > self.config.cache_bytes_max
    }

    /// Every partition and other replica that this shard verifies, and when it last did, in this run.
    pub fn verified(&self) -> impl Iterator<Item = (Partition, NodeId, Option<Mono>)> + '_ {
        self.schedule.ages().map(|((partition, peer), at)| (partition, peer, at))
    }

    /// What became of what operators wanted verified.
    #[must_use]
    pub fn demanded(&self) -> Demanded {
        self.schedule.demanded()
    }

    /// The version of the layout that the shard goes by; 0 if there is none.
    #[must_use]
    pub fn layout_version(&self) -> u64 {
        self.cluster.layout.as_ref().map_or(0, |layout| layout.version())
    }

    /// Why the shard refuses writes, if it does.
    #[must_use]
    pub fn stopped(&self) -> Option<StoreFault> {
        self.stopped
    }

    /// What the shard counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            in_flight: self.in_flight as u64,
            lingering: self.lingering.len() as u64,
            held_bytes: self.held_bytes as u64,
            relays: self.relays as u64,
            cache_bytes: self.cache.bytes() as u64,
            hints: self.hints.rows(),
            hint_bytes: self.hints.bytes() as u64,
            hints_since_ms: self.hints.since_ms(),
            log_bytes: self.log.bytes() as u64,
            log_segment_bytes: self.log.segment_bytes(),
            in_doubt: self.in_quarantine(Standing::Doubt),
            behind: self.in_quarantine(Standing::Behind),
            gap_asks_open: self.gaps.asks() as u64,
            runs_undecided: self.ends.frozen().len() as u64,
            breaker_trips: self.peers.trips,
            breaker_probes: self.peers.probes,
            breakers_open: self.peers.open,
            ..self.counters
        }
    }

    /// The nodes that are asked last because they did not answer.
    pub fn breakers(&self) -> impl Iterator<Item = (NodeId, BreakerState)> {
        self.peers.breakers()
    }

    /// The actor that assigns dots now.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.boot.actor
    }

    /// The state of a partition that this shard owns and holds.
    #[must_use]
    pub fn partition(&self, partition: Partition) -> Option<&PartitionState> {
        self.partitions.get(&partition)
    }

    /// The object under an object key as the open batch has made it, if it is in memory; what is
    /// not, is as the store has it. For who watches the protocol from outside.
    #[must_use]
    pub fn in_memory(&self, object_key: &[u8]) -> Option<&crate::object::Object> {
        self.cache.peek(object_key)
    }

    fn on_request<S: Store>(&mut self, origin: Origin, request: Request, turn: &mut Turn<'_, S>) {
        let refused = match request {
            Request::Get(get) => self.on_get(origin, get, turn),
            Request::Put(put) => self.on_put(origin, put, turn),
            Request::Delete(delete) => self.on_delete(origin, delete, turn),
            Request::Admin(_) => {
                Err(RequestError::Malformed { what: "not a request about a key".to_owned() })
            }
        };
        if let Err(error) = refused {
            if matches!(error, RequestError::Overloaded { .. }) {
                self.counters.overloads += 1;
            }
            answer(origin, Reply::Error(error), turn.out);
        }
    }

    /// A node cannot be reached: whoever waits for it need not.
    fn on_peer_down<S: Store>(&mut self, node: NodeId, turn: &mut Turn<'_, S>) {
        self.peers.set_up(node, false);
        self.lag.reachable(node, false, turn.now.mono);
        self.handoff.lost(node);
        self.gaps.down(node, turn.now.mono);
        self.resyncs.down(node);
        self.schedule.lost(node);
        self.doubts.down(node);
        // In the order of their ids, because order can be seen in the effects.
        let mut waiting: Vec<u64> = self.ops.keys().copied().collect();
        waiting.sort_unstable();
        for op in waiting.into_iter().map(OpId) {
            match self.ops.get(&op.0) {
                Some(Op::Write(write)) if write.waits_for(node) => {
                    let refused = [(node, Refusal::Unreachable)];
                    let votes = Votes { durable: &[], refused: &refused };
                    self.on_write_votes(op, self.boot.node, votes, turn);
                }
                Some(Op::Write(write)) if write.waits_for_fallback(node) => {
                    self.on_kept(op, (node, None), Some(Refusal::Unreachable), turn);
                }
                Some(Op::Read(read)) if read.waits_for(node) => {
                    self.on_found(op, node, Found::Refused(Refusal::Unreachable), turn);
                }
                Some(Op::Proxy(proxy)) if proxy.waits_for(node) => self.proxy_lost(op, turn),
                Some(Op::Verify(verify)) if verify.waits_for(node) => self.verify_lost(op, turn),
                Some(Op::Gather(it)) if it.waits_for(node) => self.gather_lost(op, node, turn),
                _ => {}
            }
        }
    }

    fn on_cluster<S: Store>(
        &mut self,
        cluster: Arc<ClusterState>,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), StoreError> {
        self.quorums.clear();
        self.region = cluster.layout.as_ref().and_then(|l| l.region_of(self.boot.node));
        let mut newly_held = Vec::new();
        if let Some(layout) = &cluster.layout {
            self.lag.born(turn.now.mono);
            let new = |&partition: &Partition| {
                self.boot.owns(partition) && !self.partitions.contains_key(&partition)
            };
            let new: BTreeSet<Partition> =
                layout.partitions_of(self.boot.node).filter(new).collect();
            if !new.is_empty() {
                if self.boot.standing == Standing::Behind {
                    let shared = new.iter().filter(|p| layout.replicas(**p) != [self.boot.node]);
                    shared.for_each(|&partition| self.log.doubt(partition));
                }
                let mut loaded = self.log.load(&new, &self.partitions, turn.store)?;
                for (&partition, state) in &mut loaded {
                    state.mark_ends(partition, &self.ends);
                    self.claims.loaded(partition, state.clock().known_actors());
                }
                newly_held = loaded.keys().copied().collect();
                self.partitions.append(&mut loaded);
            }
            self.schedule.plan(layout, &self.boot, (turn.now.mono, self.config.verify_every_ms));
        }
        let version = self.layout_version();
        let before = std::mem::replace(&mut self.cluster, cluster);
        self.take_stand(before.layout.as_deref(), &newly_held, turn.now.mono);
        self.find_listeners();
        if self.layout_version() != version {
            self.claims.start_layout();
            self.stable.forget_claims();
            self.look_for_orphans(turn.now.mono);
        }
        Ok(())
    }

    fn deadline(&self, now: Now, timeout_ms: u32) -> Mono {
        let timeout_ms = if timeout_ms == 0 { self.config.timeout_ms } else { timeout_ms };
        now.mono.plus_ms(timeout_ms.min(TIMEOUT_MS_MAX).into())
    }

    fn new_op(&mut self) -> OpId {
        // 0 is the id of messages that nobody answers.
        self.next_op = self.next_op.wrapping_add(1).max(1);
        OpId(self.next_op)
    }

    /// The key of an object in the store, in a buffer that is put back by the caller.
    fn object_key(&mut self, partition: Partition, bucket: BucketId, key: &[u8]) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.scratch);
        crate::keys::object_key(&mut out, partition, bucket, key);
        out
    }
}

fn answer(origin: Origin, reply: Reply, out: &mut Effects) {
    out.push(answer_effect(origin, reply));
}

fn answer_effect(origin: Origin, reply: Reply) -> Effect {
    match origin {
        Origin::Client(caller, since) => Effect::Reply { caller, reply, since },
        Origin::Peer(node, op, partition) => Effect::Send {
            to: vec![node],
            message: PeerMessage::ProxyReply { op, partition, reply },
        },
    }
}
