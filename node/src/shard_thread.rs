//! The thread around one shard: inbox, store, clock and network for the pure state machine.
//!
//! One turn: take everything that waits; handle it; let messages to other nodes leave; commit once;
//! let acknowledgements and answers leave. Frames are gathered per receiver and appended to its
//! outbox in one piece, so that a turn wakes each writer once.
//!
//! When a commit fails the shard refuses writes and goes on reading (I11). A disk that was full and
//! has room again is taken up under a fresh actor; any other failure stays until a restart, because
//! what a failed fsync left behind is unknown.
//!
//! Told to stop, it goes on turning until the requests in flight are answered, or `DRAIN` is over:
//! the router lets no new ones in, and those that were let in would end without a known outcome.

mod facts;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use holm_core::peer::PeerMessage;
use holm_core::peer::packed::pack;
use holm_core::shard::Shard;
use holm_core::shard::config::{Boot, ClusterState, ShardConfig, Standing};
use holm_core::shard::event::{Caller, Effect, Effects, Input};
use holm_core::shard::fingerprint::Fingerprint;
use holm_core::shard::lag::Bringer;
use holm_core::store::{Store, StoreError};
use holm_core::time::{Mono, Now, WallMs};
use holm_protocol::admin::AdminReply;
use holm_protocol::error::{NotReady, RequestError, StoreFault};
use holm_protocol::handshake::Lane;
use holm_protocol::ids::{Actor, NodeId, RegionId};
use holm_protocol::message::{Reply, Request};

use tokio::sync::oneshot;

use crate::control::ShardState;
use crate::inbox::{Event, Inbox};
use crate::metrics::{Operation, RequestMetrics, Visible};
use crate::net::counters::NetCounters;
use crate::net::lane::ReplySink;
use crate::net::peers::PeerPool;
use crate::net::peers::link::PeerLink;
use crate::store::RocksStore;

/// How long an idle shard sleeps at most, so that it notices by itself that the disk has room again.
const IDLE: Duration = Duration::from_millis(200);

/// How long requests in flight may take to be answered once the node stops.
const DRAIN: Duration = Duration::from_secs(2);

/// How often a draining shard looks whether that time is over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Answers gathered for one lane before they are handed on, bytes: enough to wake its writer seldom,
/// little enough that a turn's answers never pile up beside the lane's own bound.
const ANSWERS_GATHERED_MAX: usize = 256 << 10;

/// When a client whose lane is crowded should come back, milliseconds: a lane's worth of answers at
/// a gigabit a second.
const CROWDED_RETRY_MS: u32 = 100;

/// The lane of questions that came on none.
const NO_LANE: u64 = u64::MAX;

/// Buffers kept for answers, and how large one may be to be kept: what a busy turn needs.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 << 10;

/// What a shard thread works with.
#[derive(Debug)]
pub struct ShardThread {
    /// The shard's limits.
    pub config: ShardConfig,
    /// Who it is.
    pub boot: Boot,
    /// Its disk.
    pub store: RocksStore,
    /// Its inbox.
    pub inbox: Arc<Inbox>,
    /// The other nodes.
    pub pool: PeerPool,
    /// Where what it sends is counted.
    pub net: Arc<NetCounters>,
    /// Where its requests are counted and timed.
    pub metrics: Arc<RequestMetrics>,
    /// Where it leaves its counters and whether it refuses writes.
    pub state: Arc<Mutex<ShardState>>,
    /// Set when it can do no more: the node must stop.
    pub broken: Arc<AtomicBool>,
    /// When the node started.
    pub started: Instant,
}

/// A request of a client that the shard has not answered.
#[derive(Debug)]
struct Call {
    replies: ReplySink,
    lane: u64,
    frame: u64,
    operation: Operation,
}

/// The running thread's state.
struct Running {
    parts: ShardThread,
    shard: Shard,
    calls: Vec<Option<Call>>,
    free: Vec<u64>,
    links: BTreeMap<NodeId, (Arc<PeerLink>, BytesMut)>,
    answers: BTreeMap<u64, (ReplySink, BytesMut, u32)>,
    /// Who waits for fingerprints, by the numbers of their questions.
    askers: BTreeMap<u64, oneshot::Sender<Result<Fingerprint, RequestError>>>,
    asked: u64,
    /// Layout and buckets, for names.
    cluster: Arc<ClusterState>,
    /// Where arrivals are counted, by region and what brought them.
    visible: BTreeMap<(Option<RegionId>, Bringer), Arc<Visible>>,
    /// When what is told of consistency was looked at last.
    looked: Option<Mono>,
    /// When the last violation was found, wall milliseconds.
    violation_ms: u64,
    /// Emptied buffers, used again for the next turn's answers.
    spare: Vec<BytesMut>,
    encoded: BytesMut,
    /// The same, compressed.
    packed: BytesMut,
    /// Whether the shard was told that the store lost writes.
    amnesia: bool,
    /// Since when it is to stop.
    stopping: Option<Instant>,
}

impl ShardThread {
    /// Runs until it is told to stop. To be called on a thread of its own.
    pub fn run(self) {
        let mut running = Running {
            shard: Shard::new(self.config.clone(), self.boot),
            amnesia: self.boot.standing == Standing::Behind,
            stopping: None,
            parts: self,
            calls: Vec::new(),
            free: Vec::new(),
            links: BTreeMap::new(),
            answers: BTreeMap::new(),
            askers: BTreeMap::new(),
            asked: 0,
            cluster: Arc::default(),
            visible: BTreeMap::new(),
            looked: None,
            violation_ms: 0,
            spare: Vec::new(),
            encoded: BytesMut::new(),
            packed: BytesMut::new(),
        };
        if let Err(error) = running.run() {
            tracing::error!(shard = running.parts.boot.shard, %error, "shard cannot go on");
            running.parts.broken.store(true, Ordering::Release);
        }
    }
}

impl Running {
    fn run(&mut self) -> Result<(), StoreError> {
        let mut batch = VecDeque::new();
        let mut effects = Effects::new();
        while !self.is_done() {
            let patience = self.patience();
            self.parts.inbox.take(patience, &mut batch);
            let now = self.now();
            // Found while the store was reopened: the shard must know before it reads again.
            if !self.amnesia && self.parts.store.is_amnesic() {
                self.amnesia = true;
                let lost = Input::Amnesia;
                self.shard.handle(now, lost, &mut self.parts.store, &mut effects)?;
            }
            for event in batch.drain(..) {
                match self.input(event) {
                    Some(input) => {
                        self.shard.handle(now, input, &mut self.parts.store, &mut effects)?;
                        if self.shard.is_crowded() {
                            self.end_turn(now, &mut effects);
                        }
                    }
                    None => self.stopping = Some(Instant::now()),
                }
            }
            self.shard.tick(now, &mut self.parts.store, &mut effects);
            self.end_turn(now, &mut effects);
            self.try_resume();
            self.tell_state(now);
        }
        if self.shard.stopped().is_none() {
            self.shard.checkpoint(&mut self.parts.store)?;
        }
        Ok(())
    }

    /// Lets messages leave, commits, and lets leave what waited for the commit.
    fn end_turn(&mut self, now: Now, effects: &mut Effects) {
        self.carry_out(effects);
        // What happened is in the effects, for everyone who waits; here it is for the operator.
        if let Err(error) = self.shard.commit(now, &mut self.parts.store, effects) {
            let shard = self.parts.boot.shard;
            tracing::error!(shard, %error, "commit failed: writes are refused");
        }
        self.carry_out(effects);
        self.measure_arrivals();
    }

    fn now(&self) -> Now {
        let mono = Mono(self.parts.started.elapsed().as_micros() as u64);
        // A clock before 1970 reads as 0: the hybrid clock then counts by itself.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono, wall: WallMs(wall.as_millis() as u64) }
    }

    /// Whether the shard is to stop and has answered what was in flight, as far as time allows.
    fn is_done(&self) -> bool {
        let Some(since) = self.stopping else { return false };
        let in_flight = self.shard.counters().in_flight;
        if in_flight > 0 && since.elapsed() >= DRAIN {
            let shard = self.parts.boot.shard;
            tracing::warn!(shard, in_flight, "stopping without having answered all requests");
        }
        in_flight == 0 || since.elapsed() >= DRAIN
    }

    fn patience(&self) -> Duration {
        let longest = if self.stopping.is_some() { DRAIN_LOOK } else { IDLE };
        let Some(Mono(at)) = self.shard.next_wakeup() else { return longest };
        let now = self.parts.started.elapsed().as_micros() as u64;
        Duration::from_micros(at.saturating_sub(now)).min(longest)
    }

    /// An event as the core knows it; `None` to stop.
    fn input(&mut self, event: Event) -> Option<Input> {
        Some(match event {
            Event::Client { replies, lane, frame, request } => {
                let operation = operation(&request);
                let caller = self.call(Call { replies, lane, frame, operation });
                Input::Client { caller, request }
            }
            Event::Explain { replies, lane, frame, bucket, key } => {
                let operation = Operation::Explain;
                let caller = self.call(Call { replies, lane, frame, operation });
                Input::Explain { caller, bucket, key }
            }
            Event::Fingerprint { answer, timeout_ms, all } => {
                self.asked += 1;
                self.askers.insert(self.asked, answer);
                let caller = Caller { lane: NO_LANE, request: self.asked };
                Input::Fingerprint { caller, timeout_ms, all }
            }
            Event::Peer { from, message } => Input::Peer { from, message },
            Event::Reachable(node, Some(run)) => Input::PeerUp(node, run),
            Event::Reachable(node, None) => Input::PeerDown(node),
            Event::Doubted(node, doubted) => Input::PeerDoubted(node, doubted),
            Event::Cluster(cluster) => {
                self.cluster = cluster.clone();
                // A region's number may be another's now.
                self.visible.clear();
                self.looked = None;
                Input::Cluster(cluster)
            }
            Event::Amnesia => {
                self.amnesia = true;
                Input::Amnesia
            }
            Event::Verify(demand) => Input::Verify(demand),
            Event::Stop => return None,
        })
    }

    /// Gives a call a number. Bounded by the shard's limit on requests in flight, and by the
    /// answers it gives at once.
    fn call(&mut self, call: Call) -> Caller {
        let lane = call.lane;
        match self.free.pop() {
            Some(place) => {
                self.calls[place as usize] = Some(call);
                Caller { lane, request: place }
            }
            None => {
                self.calls.push(Some(call));
                Caller { lane, request: self.calls.len() as u64 - 1 }
            }
        }
    }

    fn carry_out(&mut self, effects: &mut Effects) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.send(&to, &message),
                Effect::Reply { caller, reply, since } => self.reply(caller, &reply, Some(since)),
                Effect::Verified(verified) => facts::tell_verified(&verified),
                Effect::Violation(violation) => {
                    self.violation_ms = self.now().wall.0;
                    facts::tell_violation(&violation);
                }
                Effect::Fingerprinted { caller, result } => {
                    if let Some(asker) = self.askers.remove(&caller.request) {
                        // Who does not wait any more needs no answer.
                        let _ = asker.send(result);
                    }
                }
                Effect::Explained { caller, result } => {
                    let reply = match result {
                        Ok(explanation) => Reply::Admin(Box::new(AdminReply::Explain(explanation))),
                        Err(error) => Reply::Error(error),
                    };
                    self.reply(caller, &reply, None);
                }
            }
        }
        for (link, frames) in self.links.values_mut() {
            if !frames.is_empty() {
                // Not sent is lost, and counted by the link: the core repeats what matters.
                let _ = link.send(Lane::Requests, frames);
                frames.clear();
            }
        }
        while let Some((_, (replies, mut frames, count))) = self.answers.pop_first() {
            replies.send_encoded(count, &frames);
            if self.spare.len() < SPARE_MAX && frames.capacity() <= SPARE_BYTES_MAX {
                frames.clear();
                self.spare.push(frames);
            }
        }
    }

    fn send(&mut self, to: &[NodeId], message: &PeerMessage) {
        self.encoded.clear();
        message.encode(&mut self.encoded);
        let is_packed = self.pack(to, message);
        for &node in to {
            let is_far = is_packed && self.is_far(node);
            let encoded = if is_far { &self.packed } else { &self.encoded };
            let pool = &self.parts.pool;
            let (link, frames) =
                self.links.entry(node).or_insert_with(|| (pool.link(node), BytesMut::new()));
            if message.is_bulk() {
                // Not sent is asked for again.
                let _ = link.send(Lane::Bulk, encoded);
            } else {
                frames.extend_from_slice(encoded);
            }
        }
    }

    /// Compresses the encoded message, if one of its receivers is in another region and it is worth it.
    fn pack(&mut self, to: &[NodeId], message: &PeerMessage) -> bool {
        if !message.is_background() || !to.iter().any(|&node| self.is_far(node)) {
            return false;
        }
        self.packed.clear();
        let is_packed = pack(&self.encoded, &mut self.packed);
        if is_packed {
            let net = &self.parts.net;
            net.packed_frames.increment();
            net.packed_bytes_before.add(self.encoded.len() as u64);
            net.packed_bytes_after.add(self.packed.len() as u64);
        }
        is_packed
    }

    /// Whether a node is in another region, as far as is known.
    fn is_far(&self, node: NodeId) -> bool {
        let Some(layout) = &self.cluster.layout else { return false };
        let (mine, other) = (layout.region_of(self.parts.boot.node), layout.region_of(node));
        mine.is_some() && other.is_some() && mine != other
    }

    fn reply(&mut self, caller: Caller, reply: &Reply, since: Option<Mono>) {
        let place = caller.request as usize;
        let Some(call) = self.calls.get_mut(place).and_then(Option::take) else { return };
        self.free.push(caller.request);
        let lane = call.lane;
        let refused = self.crowded(&call, reply);
        let reply = refused.as_ref().unwrap_or(reply);
        let code = match reply {
            Reply::Error(error) => error.code(),
            Reply::Values(values) => {
                self.parts.metrics.observe_siblings(values.siblings.len());
                0
            }
            _ => 0,
        };
        if code != 0 && is_for_lost_writes(call.operation, reply) {
            self.parts.metrics.observe_refused_read();
        }
        if let Some(Mono(since)) = since {
            let now = self.parts.started.elapsed().as_micros() as u64;
            self.parts.metrics.observe(call.operation, code, now.saturating_sub(since));
        }
        let spare = &mut self.spare;
        let (replies, frames, count) = self
            .answers
            .entry(lane)
            .or_insert_with(|| (call.replies, spare.pop().unwrap_or_default(), 0));
        reply.encode(call.frame, frames);
        *count += 1;
        if frames.len() >= ANSWERS_GATHERED_MAX {
            replies.send_encoded(*count, frames);
            self.answers.remove(&lane);
        }
    }

    /// What to answer instead of values for which the client's lane has no room: a client that asks
    /// for more than it takes is to come back, and costs no memory meanwhile.
    fn crowded(&self, call: &Call, reply: &Reply) -> Option<Reply> {
        let Reply::Values(values) = reply else { return None };
        let gathered = self.answers.get(&call.lane).map_or(0, |(_, frames, _)| frames.len());
        let bytes: usize = values.siblings.iter().map(|sibling| sibling.value.len()).sum();
        if (gathered == 0 && bytes < ANSWERS_GATHERED_MAX)
            || call.replies.has_room(gathered + bytes)
        {
            return None;
        }
        let in_flight = self.shard.counters().in_flight as u32;
        let limit = self.parts.config.in_flight_max as u32;
        let retry_after_ms = CROWDED_RETRY_MS;
        Some(Reply::Error(RequestError::Overloaded { in_flight, limit, retry_after_ms }))
    }

    /// Takes up writing again once a full disk has room.
    fn try_resume(&mut self) {
        if self.shard.stopped() != Some(StoreFault::Full) {
            return;
        }
        if self.parts.store.writable().is_ok() {
            let actor = fresh_actor();
            self.shard.resume(actor);
            let shard = self.parts.boot.shard;
            tracing::info!(shard, %actor, "the disk has room again: writes are taken");
        }
    }
}

/// Whether it is a read that this node refuses because it may have lost something and found nobody else.
fn is_for_lost_writes(operation: Operation, reply: &Reply) -> bool {
    let is_quarantine = |reason: NotReady| matches!(reason, NotReady::Behind | NotReady::InDoubt);
    matches!(operation, Operation::Get(_))
        && matches!(reply, Reply::Error(RequestError::NotReady { reason }) if is_quarantine(*reason))
}

fn operation(request: &Request) -> Operation {
    match request {
        Request::Put(put) => Operation::Put(put.level),
        Request::Get(get) => Operation::Get(get.level),
        Request::Delete(delete) => Operation::Delete(delete.level),
        Request::Admin(_) => Operation::Explain,
    }
}

/// A new actor: random, never 0 (I1).
#[must_use]
pub fn fresh_actor() -> Actor {
    Actor(rand::random::<u64>().max(1))
}
