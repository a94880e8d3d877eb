//! What a node's shell does: batches, commits, effects, connections, starting.

use std::collections::VecDeque;

use bytes::BytesMut;
use holm_core::peer::PeerMessage;
use holm_core::shard::Shard;
use holm_core::shard::config::{Boot, Standing, shard_of};
use holm_core::shard::event::{Caller, Effect, Effects, Input};
use holm_core::store::StoreError;
use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::{Actor, BucketId, NodeId};
use holm_protocol::message::{Reply, Request};
use rand::RngExt;

use super::node::{Node, Slot};
use super::queue::Event;
use super::{CallId, CallResult, Cluster, add_counters, watch};
use crate::check::{Violation, equal_clocks, values};
use crate::rng::stream;
use crate::store::SyncMode;
use crate::tamper::Tamper;
use crate::trace::{What, whole_frame};

/// Events that one batch takes. Small, so that batches of several sizes are met.
const BATCH_MAX: usize = 8;
/// Client requests that wait for one shard; the shell refuses more.
const INBOX_MAX: usize = 256;
/// How long a shard's thread takes to wake up, microseconds.
const WAKE_UP_US: u64 = 20;
/// How long a process takes to start or to give up, and how often it looks for room on a full disk.
const PATIENCE_US: u64 = 150_000;

impl Cluster {
    /// A process starts: a new run with a new actor.
    pub(super) fn boot(&mut self, id: NodeId) {
        let actor = self.fresh_actor(id);
        let uncertain_is_there = self.chance("uncertain batch", id).random();
        let (limits, notices_amnesia) = (self.limits(), self.notices_amnesia());
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.is_up || self.buried.contains(&id) {
            return;
        }
        let found = node.store.reopen(uncertain_is_there);
        self.audit_rows(id, &found);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.run += 1;
        node.actor = actor;
        node.run_actor = actor;
        node.booted_us = self.now_us;
        node.disturbed_us = self.now_us;
        node.is_doubtful = false;
        node.links.clear();
        let shards = self.setup.shape.shards;
        let standing = match self.setup.tamper {
            Some(Tamper::ServesInDoubt) => Standing::Serves,
            _ if node.amnesia && notices_amnesia => Standing::Behind,
            // Nothing has been yet that a disk could have lost.
            _ if node.run == 1 || node.amnesia => Standing::Serves,
            _ => Standing::Doubt,
        };
        node.standing = standing;
        node.asks = standing != Standing::Serves || node.run > 1;
        node.compared.clear();
        let now = node.now(self.now_us);
        for shard in 0..shards {
            let boot = Boot { node: id, actor, standing, shard, shards };
            let mut machine = Shard::new(limits.clone(), boot);
            let input = Input::Cluster(self.state.clone());
            let mut effects = Effects::new();
            if let Err(error) = machine.handle(now, input, &mut node.store, &mut effects) {
                node.slots.clear();
                self.queue.plan(self.now_us + PATIENCE_US, Event::Boot { node: id });
                return self.note(format!("{id} cannot start: {error}"));
            }
            let inbox = VecDeque::new();
            // The first look is at what there is to do.
            node.slots.push(Slot { shard: machine, inbox, is_busy: true, wake_us: None });
        }
        node.is_up = true;
        let (run, actors) = (node.run, node.actors);
        self.trace.name(actor, id, actors);
        for shard in 0..shards {
            self.queue.plan(self.now_us + WAKE_UP_US, Event::Run { node: id, run, shard });
        }
        if let SyncMode::Interval { ms } = self.setup.sync {
            self.queue.plan(self.now_us + ms * 1000, Event::Sync { node: id, run });
        }
        if self.now_us > 0 {
            self.note(format!(
                "{id} starts, run {run}{}",
                if standing == Standing::Behind { ", with amnesia" } else { "" }
            ));
        }
        self.links_change(id);
        self.audit_restart(id);
        self.watch_start(id);
        self.watch_found(id);
        // Also a node that nobody calls, and that has no others, has something to do.
        (0..shards).for_each(|shard| self.go_on(id, shard));
    }

    /// The next run's actor, as random as a real one.
    fn fresh_actor(&mut self, id: NodeId) -> Actor {
        if let Some(actor) = self.kept_actor(id) {
            return actor;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Actor(0) };
        node.actors += 1;
        let name = format!("actor {} of {id}", node.actors);
        let actor = Actor(stream(self.setup.seed, &name).random_range(1..=u64::MAX));
        self.actors.insert(actor);
        actor
    }

    /// Has every node look at its connection with this one, when it can know of the change.
    pub(super) fn links_change(&mut self, id: NodeId) {
        let peers: Vec<NodeId> = self.nodes.keys().copied().filter(|&peer| peer != id).collect();
        for peer in peers {
            self.link_changes(id, peer);
        }
    }

    pub(super) fn link_changes(&mut self, one: NodeId, other: NodeId) {
        let delay_us = if self.is_connected(one, other) {
            self.net.round_trip_us(one, other) + WAKE_UP_US
        } else {
            self.setup.timing.detect_us
        };
        for (node, peer) in [(one, other), (other, one)] {
            // The two ends do not notice at the same time.
            let late_us =
                self.chance(&format!("{peer} noticed by"), node).random_range(0..=delay_us / 4);
            self.queue.plan(self.now_us + delay_us + late_us, Event::Link { node, peer });
        }
    }

    fn is_connected(&self, one: NodeId, other: NodeId) -> bool {
        self.is_up(one)
            && self.is_up(other)
            && !self.net.is_cut(one, other)
            && !self.net.is_cut(other, one)
    }

    pub(super) fn look_at_link(&mut self, id: NodeId, peer: NodeId) {
        let connected = self.is_connected(id, peer);
        let is_cut = self.net.is_cut(id, peer) || self.net.is_cut(peer, id);
        let peer_run = self.current_run(peer);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_up) else { return };
        let known = node.links.get(&peer).copied();
        if known.is_some() && (!connected || known != Some(peer_run)) {
            node.links.remove(&peer);
            self.tally.links_lost += u64::from(is_cut);
            self.note(format!("{id} loses its connection to {peer}"));
            self.tell_shards(id, || Input::PeerDown(peer));
        }
        if connected && known != Some(peer_run) {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.links.insert(peer, peer_run);
            }
            let run = self.nodes.get(&peer).map_or(Actor(0), |peer| peer.run_actor);
            self.tell_shards(id, || Input::PeerUp(peer, run));
        }
    }

    pub(super) fn tell_shards(&mut self, id: NodeId, input: impl Fn() -> Input) {
        for shard in 0..self.setup.shape.shards {
            self.push_input(id, shard, input());
        }
    }

    pub(super) fn push_input(&mut self, id: NodeId, shard: usize, input: Input) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(slot) = node.slots.get_mut(shard) else { return };
        slot.inbox.push_back(input);
        if !slot.is_busy {
            slot.is_busy = true;
            let event = Event::Run { node: id, run: node.run, shard };
            self.queue.plan(self.now_us + WAKE_UP_US + node.lag_us, event);
        }
    }

    /// A message arrives.
    pub(super) fn deliver(
        &mut self,
        (from, to): (NodeId, NodeId),
        run: Option<u32>,
        frame: bytes::Bytes,
    ) {
        let is_cut = self.net.is_cut(from, to);
        let is_there = self.is_up(to) && run.is_none_or(|run| run == self.current_run(to));
        if is_cut || !is_there {
            if is_cut {
                self.net.caught_by_cut();
            }
            self.trace.step(self.now_us, What::Dropped { from, to, frame });
            return;
        }
        let message = whole_frame(&frame).map(|frame| PeerMessage::decode(&frame));
        let Some(Ok(message)) = message else {
            let how = format!("{to} cannot decode a message of {from}: {message:?}");
            return self.referee.judge(Err(Violation::new(&values::GENUINE, how)));
        };
        self.trace.step(self.now_us, What::Peer { from, to, frame });
        self.referee.delivered(&message);
        self.note_compared(to, &message);
        if self.bug_at_delivery(from, to, &message) {
            return;
        }
        for (shard, message) in message.split(self.setup.shape.shards) {
            self.push_input(to, shard, Input::Peer { from, message });
        }
    }

    /// A client's request arrives.
    pub(super) fn on_request(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        let (target, region, client) = (call.node, call.region, call.client);
        let (frame, repeated, only_run) = (call.frame.clone(), call.repeated, call.only_run);
        let says_run = self.run_of(target);
        let listens =
            |node: &&Node| node.is_up && only_run.is_none_or(|only_run| only_run == says_run);
        let Some(node) = self.nodes.get(&target).filter(listens) else {
            let delay_us = self.client_delay((client, region), target);
            let frame = bytes::Bytes::new();
            let event = Event::Answer { call: id, result: CallResult::NotSent, frame };
            return self.queue.plan(self.now_us + delay_us, event);
        };
        let run = node.run;
        if let Some(call) = self.calls.get_mut(&id) {
            call.run = run;
        }
        let request = whole_frame(&frame).and_then(|frame| Request::decode(&frame).ok());
        self.trace.step(self.now_us, What::Request { client, node: target, frame });
        let Some(request) = request else {
            let how = format!("{target} cannot decode a request of client {client}");
            return self.referee.judge(Err(Violation::new(&values::GENUINE, how)));
        };
        if repeated > 0 {
            self.referee.repeats();
        }
        let (bucket, key) = match &request {
            Request::Put(put) => (put.bucket, put.key.clone()),
            Request::Get(get) => (get.bucket, get.key.clone()),
            Request::Delete(delete) => (delete.bucket, delete.key.clone()),
            Request::Admin(_) => (BucketId(0), bytes::Bytes::new()),
        };
        let partition = self.partition(bucket, &key);
        let shard = partition.map_or(0, |p| shard_of(p, self.setup.shape.shards));
        let waiting = self.nodes[&target].slots.get(shard).map_or(0, |slot| slot.inbox.len());
        if waiting >= INBOX_MAX {
            let (in_flight, limit) = (waiting as u32, INBOX_MAX as u32);
            let error = RequestError::Overloaded { in_flight, limit, retry_after_ms: 20 };
            return self.reply(target, id, Reply::Error(error));
        }
        let caller = Caller { lane: client, request: id.0 };
        self.push_input(target, shard, Input::Client { caller, request });
    }

    /// A shard takes a batch from its inbox. Messages leave at once; the commit follows.
    pub(super) fn run_batch(&mut self, id: NodeId, run: u32, shard: usize) {
        if self.is_put_off(id, run, Event::Run { node: id, run, shard }) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.run == run) else { return };
        let now = node.now(self.now_us);
        let off_ms = node.clock.off_ms(self.now_us);
        self.tally.skewed += u64::from(off_ms != 0);
        self.tally.far_skewed += u64::from(off_ms.abs() > 60_000);
        self.tally.drifted += u64::from(off_ms != 0 && node.clock.drifts());
        let Some(slot) = node.slots.get_mut(shard) else { return };
        slot.is_busy = true;
        slot.wake_us = None;
        let batch = slot.inbox.len().min(BATCH_MAX);
        let inputs: Vec<Input> = slot.inbox.drain(..batch).collect();
        let mut effects = Effects::new();
        // The last look is at the time.
        for input in inputs.into_iter().map(Some).chain([None]) {
            let Some(node) = self.nodes.get_mut(&id) else { return };
            self.tally.slow_inputs += u64::from(input.is_some() && node.lag_us > 0);
            let position = match &input {
                Some(Input::Peer { message: message @ PeerMessage::Compare(_), .. }) => {
                    Some(message.clone())
                }
                _ => None,
            };
            let before = effects.len();
            let brought = self.brought(input.as_ref());
            let Some(node) = self.nodes.get_mut(&id) else { return };
            watch::handle(node, (shard, now), input, &mut effects, self.recorder.as_mut());
            self.watch_handled(id, brought, &effects[before..]);
            if let Some(position) = position {
                self.audit_position(id, shard, &position);
            }
        }
        self.carry_out(id, effects);
        let at_us = self.now_us + self.disk_us(id);
        self.queue.plan(at_us, Event::Commit { node: id, run, shard });
    }

    /// Whether a process is stopped: its event then comes when it goes on.
    fn is_put_off(&mut self, id: NodeId, run: u32, event: Event) -> bool {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.run == run) else {
            return true;
        };
        if node.paused_until_us <= self.now_us {
            return false;
        }
        node.disturbed_us = node.paused_until_us;
        self.tally.put_off += 1;
        self.queue.plan(node.paused_until_us, event);
        true
    }

    /// A shard's batch is written; what depends on it leaves.
    pub(super) fn commit_batch(&mut self, id: NodeId, run: u32, shard: usize) {
        if self.is_put_off(id, run, Event::Commit { node: id, run, shard }) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.run == run) else { return };
        let now = node.now(self.now_us);
        let Some(slot) = node.slots.get_mut(shard) else { return };
        let mut effects = Effects::new();
        let result = slot.shard.commit(now, &mut node.store, &mut effects);
        slot.is_busy = false;
        let is_torn = node.store.is_torn();
        let rows = node.store.take_changed();
        let dies = node.dies_in_commit && !rows.is_empty();
        if let Err(error) = &result {
            let faults = node.store.faults();
            node.is_doubtful |= faults.reads_fail || faults.scans_fail;
            self.commit_failed(id, run, shard, error);
        }
        // Also those of batches before one that failed, or is torn.
        if !rows.is_empty() {
            self.trace.step(self.now_us, What::Commit { node: id, rows: rows.len() as u64 });
            self.bug_at_commit(id, &rows);
            self.watch_commit(id, &rows);
            self.audit_rows(id, &rows);
        }
        if result.is_ok() {
            self.watch_store(id);
        }
        if is_torn {
            return self.torn(id);
        }
        if dies {
            self.note(format!("{id} dies before it can say what it wrote"));
            self.tally.died_in_commit += 1;
            return self.kill(id);
        }
        self.note_standing(id);
        self.carry_out(id, effects);
        self.go_on(id, shard);
    }

    /// Whether a node that has lost something, or may have, is as good as any now.
    fn note_standing(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.standing == Standing::Serves {
            return;
        }
        let is_open = node.slots.iter().any(|slot| slot.shard.quarantined().next().is_some());
        if node.amnesia {
            for partition in self.layout.partitions_of(id) {
                let slot = node.slots.get(shard_of(partition, node.slots.len().max(1)));
                if slot.is_some_and(|slot| slot.shard.standing(partition) == Standing::Serves) {
                    self.referee.recovers(id, partition);
                }
            }
        }
        if is_open {
            return;
        }
        node.is_older = false;
        if std::mem::take(&mut node.amnesia) {
            self.tally.healed += 1;
            self.referee.comes_back(id, false, self.now_us);
            self.note(format!("{id} has taken from others what it lost"));
        }
    }

    /// What a shard does after a batch: the next one, or wait.
    fn go_on(&mut self, id: NodeId, shard: usize) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let run = node.run;
        let Some(slot) = node.slots.get(shard) else { return };
        let wakeup_us = slot.shard.next_wakeup().map(|mono| node.time_of(mono));
        let is_due = wakeup_us.is_some_and(|at_us| at_us <= self.now_us);
        let Some(slot) = node.slots.get_mut(shard) else { return };
        if !slot.inbox.is_empty() || is_due {
            slot.is_busy = true;
            let at_us = self.now_us + WAKE_UP_US + node.lag_us;
            self.queue.plan(at_us, Event::Run { node: id, run, shard });
        } else if let Some(at_us) = wakeup_us
            && slot.wake_us != Some(at_us)
        {
            slot.wake_us = Some(at_us);
            self.queue.plan(at_us, Event::Wake { node: id, run, shard, at_us });
        }
    }

    /// A shard's timer fires, unless something else has woken it since it was set.
    pub(super) fn wake(&mut self, id: NodeId, run: u32, shard: usize, at_us: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.run == run) else { return };
        let Some(slot) = node.slots.get_mut(shard) else { return };
        if slot.wake_us == Some(at_us) && !slot.is_busy {
            slot.is_busy = true;
            self.run_batch(id, run, shard);
        }
    }

    /// A full disk is waited for; after an I/O error nothing may be written before a restart.
    fn commit_failed(&mut self, id: NodeId, run: u32, shard: usize, error: &StoreError) {
        self.note(format!("{id} fails to commit: {error}"));
        let slot = self.nodes.get(&id).and_then(|node| node.slots.get(shard));
        let event = match slot.and_then(|slot| slot.shard.stopped()) {
            Some(StoreFault::Full) => Event::Recover { node: id, run, shard },
            _ => Event::StepAside { node: id, run },
        };
        self.queue.plan(self.now_us + PATIENCE_US, event);
    }

    pub(super) fn recover(&mut self, id: NodeId, run: u32, shard: usize) {
        let Some(node) = self.nodes.get(&id).filter(|node| node.run == run) else { return };
        let stopped = node.slots.get(shard).and_then(|slot| slot.shard.stopped());
        if stopped != Some(StoreFault::Full) {
            return;
        }
        if !node.store.has_room() {
            let event = Event::Recover { node: id, run, shard };
            return self.queue.plan(self.now_us + PATIENCE_US, event);
        }
        let actor = self.fresh_actor(id);
        if let Some(node) = self.nodes.get_mut(&id)
            && let Some(slot) = node.slots.get_mut(shard)
        {
            slot.shard.resume(actor);
            self.trace.name(actor, id, node.actors);
            self.tally.resumed += 1;
            self.note(format!("{id} has room again and resumes under a new actor"));
        }
    }

    pub(super) fn step_aside(&mut self, id: NodeId, run: u32) {
        if self.current_run(id) == run && self.is_up(id) {
            self.note(format!("{id} steps aside and restarts"));
            self.kill(id);
            self.queue.plan(self.now_us + PATIENCE_US, Event::Boot { node: id });
        }
    }

    pub(super) fn sync(&mut self, id: NodeId, run: u32) {
        let SyncMode::Interval { ms } = self.setup.sync else { return };
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.run == run) else { return };
        node.store.sync();
        self.watch_sync(id);
        self.queue.plan(self.now_us + ms * 1000, Event::Sync { node: id, run });
    }

    /// A process ends at once. What was committed stays.
    pub(super) fn kill(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_up = false;
        node.dies_in_commit = false;
        node.paused_until_us = 0;
        node.links.clear();
        for slot in std::mem::take(&mut node.slots) {
            add_counters(&mut self.counters_of_the_dead, slot.shard.counters());
        }
        let waiting = self.calls.iter().filter(|(_, call)| call.node == id && call.run > 0);
        let waiting: Vec<(CallId, (u64, usize))> =
            waiting.map(|(&call, waiting)| (call, (waiting.client, waiting.region))).collect();
        for (call, who) in waiting {
            let at_us = self.now_us + self.client_delay(who, id);
            let (result, frame) = (CallResult::Disconnected, bytes::Bytes::new());
            self.queue.plan(at_us, Event::Answer { call, result, frame });
        }
        self.links_change(id);
    }

    fn carry_out(&mut self, id: NodeId, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(id, &to, message),
                Effect::Reply { caller, reply, .. } => {
                    self.reply(id, CallId(caller.request), reply)
                }
                // A damaged row is what verification is there for.
                Effect::Violation(violation) if violation.is_damaged => {
                    self.note(format!("{id} replaces a damaged object"));
                }
                Effect::Violation(violation) => {
                    self.referee.judge(equal_clocks::check_found(id, &violation));
                }
                Effect::Verified(_) | Effect::Explained { .. } | Effect::Fingerprinted { .. } => {}
            }
        }
    }

    fn send(&mut self, from: NodeId, to: &[NodeId], message: PeerMessage) {
        self.audit_claims(from, &message);
        self.audit_standing(from, &message);
        self.remember_positions(&message);
        let mut frame = BytesMut::new();
        message.encode(&mut frame);
        let frame = frame.freeze();
        for &to in to {
            let link = self.nodes.get(&from).and_then(|node| node.links.get(&to).copied());
            let Some(peer_run) = link.filter(|_| from != to) else {
                self.trace.step(self.now_us, What::Dropped { from, to, frame: frame.clone() });
                continue;
            };
            let frame = match self.setup.tamper {
                Some(tamper) => self.tampered(tamper, (from, to), &message),
                None => Some(frame.clone()),
            };
            if self.setup.tamper == Some(Tamper::PassedOnTwice) {
                self.pass_on_again(from, to, &message);
            }
            let Some(frame) = frame else { continue };
            self.watch_message(from, to, &frame);
            let mut arrivals = self.net.send(self.now_us, from, to);
            let mut run = None;
            if matches!(message, PeerMessage::Proxy { .. }) {
                // The one message that asks for something new and is not repeated by anybody: that
                // it arrives at most once, at the run that the connection goes to, is left to the
                // stream it travels on.
                arrivals[1] = None;
                run = Some(peer_run);
            }
            if arrivals[0].is_none() {
                self.trace.step(self.now_us, What::Dropped { from, to, frame: frame.clone() });
            }
            for at_us in arrivals.into_iter().flatten() {
                let frame = frame.clone();
                self.queue.plan(at_us, Event::Peer { from, to, run, frame });
            }
        }
    }

    fn reply(&mut self, id: NodeId, call: CallId, reply: Reply) {
        let reply = match self.setup.tamper {
            Some(tamper) => self.tampered_reply(tamper, (id, call), reply),
            None => Some(reply),
        };
        let Some(reply) = reply else { return };
        self.watch_answer(&reply);
        let mut frame = BytesMut::new();
        reply.encode(call.0, &mut frame);
        let frame = frame.freeze();
        let who = self.calls.get(&call).map_or((0, 0), |call| (call.client, call.region));
        let replies_lost = self.replies_lost;
        if replies_lost > 0 && self.client_rng(who.0).random_range(0..1000) < replies_lost {
            self.tally.replies_lost += 1;
            if let Some(call) = self.calls.get_mut(&call) {
                call.answer_lost = true;
            }
            return self.note(format!("an answer of {id} is lost"));
        }
        let decoded = whole_frame(&frame).map(|frame| Reply::decode(&frame));
        let Some(Ok(decoded)) = decoded else {
            let how = format!("an answer of {id} cannot be decoded: {decoded:?}");
            return self.referee.judge(Err(Violation::new(&values::GENUINE, how)));
        };
        let at_us = self.now_us + self.client_delay(who, id);
        let event = Event::Answer { call, result: CallResult::Reply(decoded), frame };
        self.queue.plan(at_us, event);
    }
}
