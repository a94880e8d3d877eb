//! Clients: what they ask, what they keep, when they repeat.
//!
//! A client does one thing at a time: it asks, waits, repeats a write whose outcome it does not
//! know under the same request id (at the same run of the same node, as the real client does, or
//! elsewhere, as others may), and thinks. It keeps the contexts of its reads and writes, and uses
//! the last one, an old one or none.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holm_protocol::error::{Outcome as Told, Retry};
use holm_protocol::ids::{NodeId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Delete, Get, Put, Reply, Request};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::check::elements;
use crate::cluster::{CallId, CallResult};
use crate::history::{EventId, KeyId};
use crate::plan::{ClientPlan, Repeats, Workload, draw_level, pick};
use crate::referee::is_undone;
use crate::rng::stream;
use crate::world::World;

/// Times that a write of unknown outcome is repeated.
const REPEATS_MAX: u32 = 2;
/// How long a client waits at most before it repeats a write whose node was lost, microseconds.
const REPEAT_AFTER_US: u64 = 300_000;
/// Contexts kept of a key.
const CONTEXTS_MAX: usize = 4;

/// What a client knows of a key.
#[derive(Debug, Default)]
struct Known {
    /// Contexts, the newest last.
    contexts: Vec<Bytes>,
    /// The context of the last read, which may be empty.
    read: Bytes,
    /// The set that the last read showed.
    elements: BTreeSet<usize>,
}

/// What a client waits for.
#[derive(Debug)]
enum Pending {
    Read {
        key: KeyId,
        level: Level,
        asked_us: u64,
    },
    Write {
        id: EventId,
        request: Request,
        /// Whether each try so far certainly did nothing.
        is_undone: bool,
        repeats: u32,
    },
}

/// One client. See the [module](self).
#[derive(Debug)]
pub struct Client {
    id: u64,
    plan: ClientPlan,
    keys: Vec<KeyId>,
    known: BTreeMap<KeyId, Known>,
    rng: ChaCha8Rng,
    sequence: u64,
    done: u32,
    call: Option<CallId>,
    pending: Option<Pending>,
    target: NodeId,
    target_run: u32,
    /// Nobody was there when it called last.
    is_lost: bool,
    /// A set is about to be written back: it was read just now.
    write_back: Option<KeyId>,
}

/// When a client wants to be called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At this time, to act.
    ActAt(u64),
    /// At this time, if the call has not ended by then.
    GiveUpAt(u64, CallId),
    /// Never: it has done what it had to.
    Done,
}

impl Client {
    /// A client that has done nothing yet. Keys of a workload are shared by its clients.
    pub fn new(
        (seed, id): (u64, u64),
        plan: ClientPlan,
        keys: usize,
        world: &mut impl World,
    ) -> Client {
        let is_lww = plan.workload == Workload::Latest;
        let name = |at| format!("{:?}-{at}", plan.workload).to_lowercase();
        let keys = (0..keys).map(|at| world.add_key(name(at), is_lww)).collect();
        Client {
            id,
            plan,
            keys,
            known: BTreeMap::new(),
            rng: stream(seed, &format!("client {id}")),
            sequence: 0,
            done: 0,
            call: None,
            pending: None,
            target: NodeId(0),
            target_run: 0,
            is_lost: false,
            write_back: None,
        }
    }

    /// Whether it waits for this call.
    #[must_use]
    pub fn waits_for(&self, call: CallId) -> bool {
        self.call == Some(call)
    }

    /// Does the next thing.
    pub fn act(&mut self, world: &mut impl World) -> Next {
        if self.pending.is_some() {
            // It waits for the time to repeat a write.
            return if self.call.is_none() { self.repeat(world) } else { Next::Done };
        }
        if self.write_back.is_none() && self.done >= self.plan.operations {
            return Next::Done;
        }
        self.done += u32::from(self.write_back.is_none());
        let key = self.write_back.unwrap_or_else(|| pick(&mut self.rng, &self.keys));
        let (read_level, write_level) = self.levels(world);
        if let Some(key) = self.write_back.take() {
            return self.write(key, write_level, Intent::Add, world);
        }
        let dice = self.rng.random_range(0..10);
        match (self.plan.workload, dice) {
            (Workload::Blind, 0..=7) => self.write(key, write_level, Intent::Blind, world),
            (Workload::Register | Workload::Latest, 0..=3) => {
                self.write(key, write_level, Intent::Follow, world)
            }
            (Workload::Register | Workload::Latest, 4) => {
                self.write(key, write_level, Intent::Blind, world)
            }
            (Workload::Recreate | Workload::Latest, 5..=6) if self.knows(key) => {
                self.write(key, write_level, Intent::Delete, world)
            }
            (Workload::Recreate, 0..=1) => self.write(key, write_level, Intent::Blind, world),
            (Workload::Recreate, 2..=3) => self.write(key, write_level, Intent::Follow, world),
            _ => self.read(key, read_level, world),
        }
    }

    fn knows(&self, key: KeyId) -> bool {
        self.known.get(&key).is_some_and(|known| !known.contexts.is_empty())
    }

    fn levels(&mut self, world: &impl World) -> (Level, Level) {
        let nodes = world.layout().replicas(holm_protocol::ids::Partition::from_u32(0)).len();
        match self.plan.levels {
            Some(levels) => levels,
            None => (draw_level(&mut self.rng, nodes), draw_level(&mut self.rng, nodes)),
        }
    }

    fn read(&mut self, key: KeyId, level: Level, world: &mut impl World) -> Next {
        let facts = world.referee().history().key(key);
        let request = Request::Get(Get {
            bucket: facts.bucket,
            key: facts.name.clone(),
            level: Some(level),
            timeout_ms: self.plan.timeout_ms,
        });
        self.choose_node(key, world);
        self.pending = Some(Pending::Read { key, level, asked_us: world.now_us() });
        self.send(request, 0, world)
    }

    fn write(&mut self, key: KeyId, level: Level, intent: Intent, world: &mut impl World) -> Next {
        let known = self.known.entry(key).or_default();
        let newest = known.contexts.last().cloned().unwrap_or_default();
        let context = match intent {
            Intent::Blind => Bytes::new(),
            // What was merged is what this read showed, and nothing else.
            Intent::Add => known.read.clone(),
            // Now and then an old context, used a second time.
            Intent::Follow | Intent::Delete => match self.rng.random_range(0..5) {
                0 if !known.contexts.is_empty() => {
                    known.contexts[self.rng.random_range(0..known.contexts.len())].clone()
                }
                _ => newest,
            },
        };
        let mut elements = known.elements.clone();
        let padding = pick(&mut self.rng, &[0, 10, 10, 100, 600]);
        let now_us = world.now_us();
        let value = |id: EventId| match intent {
            Intent::Delete => None,
            Intent::Add => {
                elements.insert(id.0);
                Some(elements::encode(id, &elements))
            }
            Intent::Blind | Intent::Follow => {
                Some(Bytes::from(format!("w{} {}", id.0, "x".repeat(padding))))
            }
        };
        let (id, value) = world.referee_mut().begin_write(key, value, &context, (level, now_us));
        self.sequence += 1;
        let request = RequestId { client: self.id, sequence: self.sequence };
        let facts = world.referee().history().key(key);
        let (bucket, name) = (facts.bucket, facts.name.clone());
        let (level, timeout_ms) = (Some(level), self.plan.timeout_ms);
        let request = match value {
            Some(value) => {
                Request::Put(Put { bucket, key: name, value, context, level, request, timeout_ms })
            }
            None => {
                Request::Delete(Delete { bucket, key: name, context, level, request, timeout_ms })
            }
        };
        self.choose_node(key, world);
        let pending = Pending::Write { id, request: request.clone(), is_undone: true, repeats: 0 };
        self.pending = Some(pending);
        self.send(request, 0, world)
    }

    /// Mostly a replica in the own region, as the real client does, or any node there if the last one
    /// was not there; now and then any node at all.
    fn choose_node(&mut self, key: KeyId, world: &impl World) {
        let partition = world.referee().history().key(key).partition;
        let layout = world.layout();
        let region = holm_protocol::ids::RegionId(self.plan.region as u16);
        let local = layout.replicas_in(partition, region);
        let all: Vec<NodeId> = layout.nodes().iter().map(|node| node.id).collect();
        let local = if self.is_lost { layout.nodes_in(region) } else { local };
        let near = self.rng.random_range(0..8) > 0 && !local.is_empty();
        self.target = pick(&mut self.rng, if near { local } else { &all });
        self.target_run = world.run_of(self.target);
    }

    fn send(&mut self, request: Request, repeated: u32, world: &mut impl World) -> Next {
        let who = (self.id, self.plan.region);
        let call = world.call(who, self.target, request, repeated);
        self.call = Some(call);
        // Longer than the node may take, so that a late answer is the node's fault.
        let travel_us = 6 * world.longest_client_delay();
        let patience_us = u64::from(self.plan.timeout_ms) * 1000 + travel_us + 150_000;
        Next::GiveUpAt(world.now_us() + patience_us, call)
    }

    /// A call has not ended in time.
    pub fn give_up(&mut self, call: CallId, world: &mut impl World) -> Next {
        if self.call != Some(call) {
            return Next::Done;
        }
        world.give_up(call);
        self.on_answer(CallResult::Disconnected, world)
    }

    /// A call has ended.
    pub fn on_answer(&mut self, result: CallResult, world: &mut impl World) -> Next {
        self.call = None;
        self.is_lost = matches!(result, CallResult::NotSent | CallResult::Disconnected);
        match self.pending.take() {
            Some(Pending::Read { key, level, asked_us }) => {
                world.referee_mut().read_told(key, level, asked_us, &result);
                if let CallResult::Reply(Reply::Values(values)) = result {
                    let known = self.known.entry(key).or_default();
                    let sets = values.siblings.iter().map(|s| elements::decode(&s.value));
                    known.elements = sets.flatten().collect();
                    known.read = values.context.clone();
                    self.keep_context(key, values.context);
                    self.write_back = (self.plan.workload == Workload::Set).then_some(key);
                }
            }
            Some(Pending::Write { id, request, is_undone: so_far, repeats }) => {
                let now_us = world.now_us();
                world.referee_mut().write_told(id, now_us, &result);
                let undone = so_far && is_undone(&result);
                if is_unknown(&result) && repeats < REPEATS_MAX && self.may_repeat(&request, world)
                {
                    let (is_undone, repeats) = (undone, repeats + 1);
                    self.pending = Some(Pending::Write { id, request, is_undone, repeats });
                    // A node that died may be back soon.
                    let longest_us = match result {
                        CallResult::Disconnected => REPEAT_AFTER_US,
                        _ => 0,
                    };
                    return Next::ActAt(now_us + self.rng.random_range(0..=longest_us));
                }
                world.referee_mut().end_write(id, undone);
                if let CallResult::Reply(Reply::Written(written)) = result {
                    let key = world.referee().history().event(id).key;
                    self.keep_context(key, written.context);
                }
            }
            None => {}
        }
        let pause_us = self.rng.random_range(0..=self.plan.think_us);
        Next::ActAt(world.now_us() + pause_us)
    }

    /// Repeats the write that is pending, if it still may.
    fn repeat(&mut self, world: &mut impl World) -> Next {
        let Some(Pending::Write { id, request, is_undone, repeats }) = self.pending.take() else {
            return Next::Done;
        };
        let now_us = world.now_us();
        if !self.may_repeat(&request, world) {
            world.referee_mut().end_write(id, is_undone);
            return Next::ActAt(now_us);
        }
        if self.moves_on(world) {
            world.referee_mut().repeats_elsewhere(id, now_us);
        }
        self.pending = Some(Pending::Write { id, request: request.clone(), is_undone, repeats });
        self.send(request, repeats, world)
    }

    /// An unknown outcome may be asked for again, where the plan says: where the request is
    /// remembered, that is at the same run of a node that coordinates it itself or knows whom it
    /// passed it on to, or anywhere.
    fn may_repeat(&self, request: &Request, world: &impl World) -> bool {
        let (bucket, key) = match request {
            Request::Put(put) => (put.bucket, &put.key),
            Request::Delete(delete) => (delete.bucket, &delete.key),
            _ => return false,
        };
        let placed = world.referee().history().key_id(bucket, key);
        let coordinates = placed.is_some_and(|key| {
            let partition = world.referee().history().key(key).partition;
            world.layout().is_replica(partition, self.target) && world.is_whole(self.target)
        });
        let same_run = world.run_of(self.target) == self.target_run;
        match self.plan.repeats {
            Repeats::AtReplicas => coordinates && same_run,
            Repeats::AtNodes => same_run,
            Repeats::Anywhere => true,
        }
    }

    /// Chooses where to repeat a write. Says whether that is another node, or another run.
    fn moves_on(&mut self, world: &impl World) -> bool {
        if self.plan.repeats != Repeats::Anywhere {
            return false;
        }
        let before = (self.target, self.target_run);
        if self.rng.random() {
            let all: Vec<NodeId> = world.layout().nodes().iter().map(|node| node.id).collect();
            self.target = pick(&mut self.rng, &all);
        }
        self.target_run = world.run_of(self.target);
        before != (self.target, self.target_run)
    }

    fn keep_context(&mut self, key: KeyId, context: Bytes) {
        let contexts = &mut self.known.entry(key).or_default().contexts;
        if contexts.len() >= CONTEXTS_MAX {
            contexts.remove(0);
        }
        if !context.is_empty() {
            contexts.push(context);
        }
    }
}

/// Whether a result says that nobody knows what became of a write, and to ask again.
fn is_unknown(result: &CallResult) -> bool {
    match result {
        CallResult::Reply(Reply::Error(error)) => {
            error.outcome() == Told::MayHaveHappened && error.retry() == Retry::SameRequest
        }
        CallResult::Disconnected => true,
        CallResult::Reply(_) | CallResult::NotSent => false,
    }
}

/// What a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// Without a context.
    Blind,
    /// With one that was kept.
    Follow,
    /// Of a set's element, with the context of the read just before.
    Add,
    /// Of everything that was seen.
    Delete,
}
