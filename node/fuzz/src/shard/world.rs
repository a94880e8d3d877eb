//! The fuzzed shard, its disk and its clock, and what is demanded of every effect.
//!
//! The world plays the node's shell: it hands events in, commits batches, restarts. It keeps what
//! an answer is judged by: who asked what, which of it is on the disk, which dots were made.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use holm_core::keys::{hint_key_parts, object_key};
use holm_core::object::Object;
use holm_core::peer::fingerprint::FingerprintMessage;
use holm_core::peer::{CompareMessage, HintMessage, OpId, PeerMessage};
use holm_core::shard::Shard;
use holm_core::shard::config::{Boot, ShardConfig, Standing};
use holm_core::shard::event::{Caller, Counters, Effect, Effects, Input as Event};
use holm_core::shard::hints::object_of;
use holm_core::store::Table;
use holm_core::time::{Mono, Now, WallMs};
use holm_protocol::dot::Dot;
use holm_protocol::error::StoreFault;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition, RequestId};
use holm_protocol::limits::{FRAME_LEN_MAX, TIMEOUT_MS_MAX};
use holm_protocol::message::{ReceiptEntry, Reply, Request, Values, Written};
use holm_sim::store::{SimStore, StoreFaults, SyncMode};

use super::place::{self, ME, NODES, OUR_RUNS};
use crate::messages::only_frame;

/// Questions and objects of the shard that are remembered, to be answered, doubled and thrown back.
const REMEMBERED_MAX: usize = 24;
/// What one batch may hold in the cache beyond its limit: a few objects with all their siblings.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// A place of a key, and the dots that somebody asked to have made durable there.
#[derive(Debug, Clone)]
struct Owed {
    partition: Partition,
    bucket: BucketId,
    key: Bytes,
    dots: Vec<Dot>,
}

/// A client's request that waits for its answer.
#[derive(Debug, Clone)]
struct Call {
    bucket: BucketId,
    key: Bytes,
    request: Option<RequestId>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct World {
    shard: Shard,
    config: ShardConfig,
    /// The disk.
    pub store: SimStore,
    now: Now,
    /// The actor of this run.
    pub actor: Actor,
    actors: u64,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    written: BTreeMap<(Partition, Dot), RequestId>,
    owed: BTreeMap<(NodeId, OpId), Vec<Owed>>,
    /// What the shard asked other nodes, the latest last.
    pub asked: Vec<(NodeId, PeerMessage)>,
    /// Objects that the shard sent, the latest last.
    pub objects: Vec<Bytes>,
    /// Contexts that it gave to clients, the latest last.
    pub contexts: Vec<(BucketId, Bytes, Bytes)>,
    effects: Effects,
}

impl World {
    /// A shard at its first start, on an empty disk.
    #[must_use]
    pub fn new() -> World {
        let (config, actor) = (place::config(), Actor(OUR_RUNS));
        let mut world = World {
            shard: Shard::new(config.clone(), boot(actor)),
            config,
            store: SimStore::new(SyncMode::Always),
            now: Now { mono: Mono(1_000), wall: WallMs(1_700_000_000_000) },
            actor,
            actors: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            written: BTreeMap::new(),
            owed: BTreeMap::new(),
            asked: Vec::new(),
            objects: Vec::new(),
            contexts: Vec::new(),
            effects: Effects::new(),
        };
        world.restart(false);
        world
    }

    /// The process ends and starts again, on what was committed. A batch whose commit had failed
    /// shows now, or never.
    pub fn restart(&mut self, uncertain_is_there: bool) {
        self.store.heal();
        self.store.reopen(uncertain_is_there);
        self.actor = self.fresh_actor();
        self.shard = Shard::new(self.config.clone(), boot(self.actor));
        self.calls.clear();
        self.owed.clear();
        self.asked.clear();
        self.event(Event::Cluster(place::cluster()));
        for peer in NODES.into_iter().filter(|&node| node != ME) {
            self.event(up(peer));
        }
        self.check_clocks();
    }

    /// A clean stop: the clocks are written, and nothing else.
    pub fn stop(&mut self) {
        if self.shard.stopped().is_none() {
            // A disk that does not take them now has an older checkpoint, and the log.
            let _ = self.shard.checkpoint(&mut self.store);
        }
    }

    /// Goes on writing after a commit failed because the disk was full.
    pub fn resume(&mut self) {
        if self.shard.stopped() == Some(StoreFault::Full) {
            self.store.heal();
            let actor = self.fresh_actor();
            self.actor = actor;
            self.shard.resume(actor);
        }
    }

    fn fresh_actor(&mut self) -> Actor {
        self.actors += 1;
        Actor(OUR_RUNS | self.actors)
    }

    /// A client asks.
    pub fn request(&mut self, request: Request) {
        let (bucket, key, id) = match &request {
            Request::Put(put) => (put.bucket, put.key.clone(), Some(put.request)),
            Request::Delete(delete) => (delete.bucket, delete.key.clone(), Some(delete.request)),
            Request::Get(get) => (get.bucket, get.key.clone(), None),
            Request::Admin(_) => return,
        };
        let caller = self.caller(Call { bucket, key, request: id });
        self.event(Event::Client { caller, request });
    }

    /// An operator asks where a key lives.
    pub fn explain(&mut self, bucket: BucketId, key: Bytes) {
        let caller = self.caller(Call { bucket, key: key.clone(), request: None });
        self.event(Event::Explain { caller, bucket, key });
    }

    fn caller(&mut self, call: Call) -> Caller {
        self.next_call += 1;
        self.calls.insert(self.next_call, call);
        Caller { lane: 1, request: self.next_call }
    }

    /// A node says something: if it can be said on the wire at all.
    pub fn peer(&mut self, from: NodeId, message: &PeerMessage) {
        let mut frame = BytesMut::new();
        message.encode(&mut frame);
        let Some(Ok(message)) = only_frame(&frame).map(|frame| PeerMessage::decode(&frame)) else {
            return;
        };
        if let PeerMessage::Write { op, partition, bucket, key, object, .. }
        | PeerMessage::Hint(HintMessage::HandOff { op, partition, bucket, key, object }) =
            &message
        {
            let dots = Object::decode(object).map(|it| it.named_dots().collect::<Vec<_>>());
            let (partition, bucket, key) = (*partition, *bucket, key.clone());
            let mut dots = dots.unwrap_or_default();
            // What was seen before may have been overwritten, forgotten or decided to be void since:
            // that it was is all that can be promised of it.
            let clock = self.shard.partition(partition).map(|state| state.clock());
            dots.retain(|&dot| !clock.is_some_and(|clock| clock.contains(dot)));
            let owed = Owed { partition, bucket, key, dots };
            self.owed.entry((from, *op)).or_default().push(owed);
        }
        self.event(Event::Peer { from, message });
    }

    /// Hands in one event and judges what it brings about.
    pub fn event(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        if self.shard.handle(self.now, event, &mut self.store, &mut effects).is_err() {
            // Only a new layout reads the disk, and the node would step aside.
            assert!(
                self.store.faults() != StoreFaults::default()
                    || self.store.tally().damaged_reads > 0
            );
        }
        self.judge(effects);
        if self.shard.is_crowded() {
            self.commit();
        }
    }

    /// Ends the batch.
    pub fn commit(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        let committed = self.shard.commit(self.now, &mut self.store, &mut effects);
        assert!(committed.is_ok() || self.shard.stopped().is_some());
        self.judge(effects);
        self.check_bounds();
    }

    /// Time passes, and what is due is woken. The wall clock may be set.
    pub fn pass(&mut self, micros: u64, wall_ms: i64) {
        self.now.mono = Mono(self.now.mono.0 + micros);
        let wall = self.now.wall.0 + micros / 1000;
        self.now.wall = WallMs(wall.saturating_add_signed(wall_ms));
        let mut effects = std::mem::take(&mut self.effects);
        self.shard.tick(self.now, &mut self.store, &mut effects);
        // What is due between two batches, pulses and questions, waits for the commit.
        self.judge(effects);
    }

    /// Everything has an end: whatever peers say or do not say, each call is answered by its
    /// deadline, and nothing is held on to.
    pub fn end(&mut self) {
        self.store.heal();
        self.commit();
        for _ in 0..8 {
            self.pass(u64::from(TIMEOUT_MS_MAX) * 1000 / 4, 0);
            self.commit();
        }
        assert!(self.calls.is_empty(), "calls are never answered: {:?}", self.calls);
        let counters = self.shard.counters();
        let held = (counters.in_flight, counters.lingering, counters.relays);
        assert_eq!(held, (0, 0, 0), "something is held for ever");
        // Claims that nobody notes are repeated for ever, and what is kept for others is sent to them for
        // as long as they are there: there may still be a wake-up.
        self.check_clocks();
        self.restart(true);
    }

    /// What the shard counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }

    /// The dots that clients' writes were given.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.written.keys().map(|(_, dot)| *dot)
    }

    fn judge(&mut self, mut effects: Effects) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.judge_message(&to, message),
                Effect::Reply { caller, reply, .. } => {
                    let Some(call) = self.calls.remove(&caller.request) else {
                        panic!("call {} is answered twice", caller.request);
                    };
                    self.judge_reply(&call, &reply);
                }
                Effect::Verified(_) | Effect::Violation(_) | Effect::Fingerprinted { .. } => {}
                Effect::Explained { caller, .. } => {
                    assert!(self.calls.remove(&caller.request).is_some(), "explained twice");
                }
            }
        }
        self.effects = effects;
    }

    fn judge_message(&mut self, to: &[NodeId], message: PeerMessage) {
        let distinct: BTreeSet<&NodeId> = to.iter().collect();
        assert!(!to.is_empty() && distinct.len() == to.len() && !to.contains(&ME), "{to:?}");
        let is_answer = matches!(
            message,
            PeerMessage::WriteReply { .. }
                | PeerMessage::ReadReply { .. }
                | PeerMessage::ProxyReply { .. }
                | PeerMessage::InspectReply { .. }
                | PeerMessage::VerifyReply { .. }
                | PeerMessage::Fingerprint(FingerprintMessage::Answer { .. })
                | PeerMessage::Hint(HintMessage::Kept { .. } | HintMessage::HandedOff { .. })
                | PeerMessage::Noted { .. }
                | PeerMessage::GapAnswer { .. }
                | PeerMessage::PageAnswer { .. }
                | PeerMessage::Compare(CompareMessage::Compared { .. })
        );
        let known = |node: &NodeId| NODES.contains(node);
        assert!(to.iter().all(known) || is_answer, "sent to {to:?}, outside of the layout");
        let mut frame = BytesMut::new();
        message.encode(&mut frame);
        assert!(frame.len() <= FRAME_LEN_MAX, "a message of {} bytes", frame.len());
        let again = only_frame(&frame).map(|frame| PeerMessage::decode(&frame));
        assert_eq!(again, Some(Ok(message.clone())), "nobody can read what is sent");
        match &message {
            PeerMessage::WriteReply { op, durable, .. } if durable.contains(&ME) => {
                self.judge_vote(to, *op);
            }
            PeerMessage::Hint(HintMessage::HandedOff { op, refused: None, .. }) => {
                self.judge_vote(to, *op);
            }
            PeerMessage::Write { object, .. }
            | PeerMessage::Repair { object, .. }
            | PeerMessage::Hint(
                HintMessage::Keep { object, .. } | HintMessage::HandOff { object, .. },
            ) => {
                assert!(Object::decode(object).is_ok(), "an object is sent that nobody can read");
                remember(&mut self.objects, object.clone());
            }
            PeerMessage::ProxyReply { reply: Reply::Written(written), partition, .. } => {
                self.judge_dot(*partition, written.dot, None);
            }
            _ => {}
        }
        if !is_answer {
            to.iter().for_each(|&node| remember(&mut self.asked, (node, message.clone())));
        }
    }

    /// A replica says that a write is on its disk.
    fn judge_vote(&self, to: &[NodeId], op: OpId) {
        let owed = to.first().and_then(|&to| self.owed.get(&(to, op)));
        let is_there = |owed: &Owed| {
            let stored = self.stored(owed.partition, owed.bucket, &owed.key);
            owed.dots.iter().all(|&dot| stored.as_ref().is_some_and(|it| it.context.covers(dot)))
        };
        let durable = owed.is_some_and(|owed| owed.iter().any(is_there));
        assert!(durable, "acknowledged to {to:?} and not on the disk: {owed:?}");
    }

    fn judge_reply(&mut self, call: &Call, reply: &Reply) {
        let mut frame = BytesMut::new();
        reply.encode(1, &mut frame);
        assert!(frame.len() <= FRAME_LEN_MAX, "a reply of {} bytes", frame.len());
        let again = only_frame(&frame).map(|frame| Reply::decode(&frame));
        assert_eq!(again.as_ref(), Some(&Ok(reply.clone())), "the client cannot read its answer");
        match reply {
            Reply::Written(written) if written.receipt.coordinator == ME => {
                self.judge_written(call, written);
            }
            Reply::Values(values) if values.receipt.coordinator == ME => {
                self.judge_values(call, values);
            }
            _ => {}
        }
    }

    fn judge_written(&mut self, call: &Call, written: &Written) {
        let Some(partition) = place::layout().partition(
            place::cluster().buckets[&call.bucket].policy.placement,
            call.bucket,
            &call.key,
        ) else {
            panic!("an answer about a key without a partition");
        };
        if written.dot.actor.0 & OUR_RUNS == 0 {
            return; // A liar that was asked says that it is this node.
        }
        self.judge_dot(partition, written.dot, call.request);
        let named = written.receipt.replicas.iter().find(|entry| entry.node == ME);
        if named.is_some_and(|entry| entry.fallback) {
            let rows = self.store.rows(Table::Hints).filter_map(|(key, row)| {
                let key = hint_key_parts(key)?.3 == &call.key[..];
                let object = object_of(&Bytes::copy_from_slice(row));
                Object::decode(&object).ok().filter(|_| key)
            });
            // It may be home since, if that is true what its replica says.
            let is_there = self.shard.counters().hints_handed_off > 0
                || rows.into_iter().any(|object| object.context.covers(written.dot));
            assert!(is_there, "{} is acknowledged and not kept", written.dot);
        } else if named.is_some() {
            let stored = self.stored(partition, call.bucket, &call.key);
            let is_there = stored.is_some_and(|object| object.context.covers(written.dot));
            assert!(is_there, "{} is acknowledged and not on the disk", written.dot);
        }
        self.judge_context(call, &written.context);
    }

    /// One dot, one write.
    fn judge_dot(&mut self, partition: Partition, dot: Dot, request: Option<RequestId>) {
        let Some(request) = request.filter(|_| dot.actor.0 & OUR_RUNS != 0) else { return };
        let first = *self.written.entry((partition, dot)).or_insert(request);
        assert_eq!(first, request, "{dot} names two writes");
    }

    fn judge_values(&mut self, call: &Call, values: &Values) {
        let receipt = &values.receipt.replicas;
        let is_own = |entry: &ReceiptEntry| entry.node == ME && !entry.fallback;
        if receipt.iter().all(is_own) && !receipt.is_empty() {
            let layout = place::layout();
            let placement = place::cluster().buckets[&call.bucket].policy.placement;
            let partition = layout.partition(placement, call.bucket, &call.key);
            let stored = partition.and_then(|it| self.stored(it, call.bucket, &call.key));
            for sibling in &values.siblings {
                let is_there = stored.as_ref().is_some_and(|it| it.context.covers(sibling.dot));
                assert!(is_there, "{} is shown and not on the disk", sibling.dot);
            }
        }
        self.judge_context(call, &values.context);
    }

    fn judge_context(&mut self, call: &Call, context: &Bytes) {
        let cluster = place::cluster();
        let Some(secrets) = &cluster.secrets else { return };
        // One that a liar made, whose answer was passed on, need not open.
        if secrets.open(call.bucket, &call.key, context).is_ok() {
            remember(&mut self.contexts, (call.bucket, call.key.clone(), context.clone()));
        }
    }

    /// The committed object of a key.
    fn stored(&self, partition: Partition, bucket: BucketId, key: &[u8]) -> Option<Object> {
        let mut at = Vec::new();
        object_key(&mut at, partition, bucket, key);
        Object::decode(self.store.row(Table::Objects, &at)?).ok()
    }

    fn check_bounds(&self) {
        let counters = self.shard.counters();
        let config = &self.config;
        assert!(counters.in_flight <= config.in_flight_max as u64);
        assert!(counters.lingering <= config.lingering_max as u64);
        assert!(counters.relays <= config.relays_max as u64);
        assert!(counters.hint_bytes <= config.hint_bytes_max as u64);
        let cached = counters.cache_bytes;
        assert!(cached <= config.cache_bytes_max as u64 + BATCH_BYTES_MAX, "{cached} bytes cached");
        for partition in place::partitions() {
            let Some(state) = self.shard.partition(partition) else { continue };
            let seen = state.clock().get(self.actor).map_or(0, |seen| seen.max());
            assert!(
                seen <= state.own_counter(),
                "{partition}: dots of this run that it never made"
            );
        }
    }

    /// I3: the clock has seen what the objects on the disk name, and they can be read.
    fn check_clocks(&self) {
        for (key, value) in self.store.rows(Table::Objects) {
            let object = match Object::decode(value) {
                Ok(object) => object,
                Err(error) => panic!("an object was stored that cannot be read: {error}"),
            };
            let partition = key.first_chunk().map(|it| u32::from_be_bytes(*it)).unwrap_or(0);
            let partition = Partition::from_u32(partition);
            let Some(state) = self.shard.partition(partition) else {
                panic!("an object of {partition}, which is not held here");
            };
            for dot in object.named_dots() {
                assert!(state.clock().contains(dot), "{partition} has not seen {dot}");
            }
        }
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

fn boot(actor: Actor) -> Boot {
    Boot { node: ME, actor, standing: Standing::Serves, shard: 0, shards: 1 }
}

fn remember<T>(all: &mut Vec<T>, one: T) {
    if all.len() >= REMEMBERED_MAX {
        all.remove(0);
    }
    all.push(one);
}

/// There is a connection to a node, always the same run of it.
pub fn up(node: NodeId) -> Event {
    Event::PeerUp(node, run_of(node))
}

/// That run.
pub fn run_of(node: NodeId) -> Actor {
    Actor(node.0 | 1 << 60)
}
