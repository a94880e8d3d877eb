//! Requests that come to a node which cannot coordinate them: passed on to a replica, or where a
//! region has none within reach, to a fallback ([`super::fallback`]).
//!
//! The nearest replica that can be reached is tried first. One that refuses without having done
//! anything is followed by the next; a write whose coordinator is lost after it was asked is
//! *unknown* and is not tried elsewhere, because another coordinator would give it a second dot; for
//! the same reason a repeated write goes to the coordinator it went to before, or nowhere.
//! A request is passed on once: a node that is asked by another and cannot coordinate says so.

use std::collections::BTreeSet;

use holm_protocol::bucket::BucketPolicy;
use holm_protocol::error::{NotReady, Outcome, RequestError, Retry};
use holm_protocol::ids::{NodeId, Partition, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Reply, Request};

use crate::peer::{OpId, PeerMessage};
use crate::shard::event::Effect;
use crate::shard::stand_in::{fallbacks, is_sloppy};
use crate::shard::window::Fate;
use crate::shard::{Op, Origin, Route, Shard, Turn, answer};
use crate::store::Store;
use crate::time::Mono;

/// A request to be passed on.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) request: Request,
    /// Of a write: tells it from another under the same request id.
    pub(super) fingerprint: u64,
    /// Where it was passed on before.
    pub(super) only: Option<NodeId>,
}

/// A request that was passed on.
#[derive(Debug)]
pub(super) struct ProxyOp {
    origin: Origin,
    request: Request,
    /// Of a write: tells it from another under the same request id.
    fingerprint: u64,
    /// Whether this is a write that was passed on before.
    repeated: bool,
    partition: Partition,
    /// In the order in which they are tried.
    candidates: Vec<NodeId>,
    target: NodeId,
    tried: BTreeSet<NodeId>,
    /// What the first one said that refused.
    refused: Option<RequestError>,
    deadline: Mono,
    wake: Mono,
}

impl ProxyOp {
    /// Whether it is this node that was asked.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.target == node
    }

    fn is_read(&self) -> bool {
        matches!(self.request, Request::Get(_))
    }

    /// Whether a node's answer counts. A read may still be answered by one that was asked before.
    /// A refusal that comes a second time is not one of the node that is asked now, which may
    /// be doing the write.
    fn is_answered_by(&self, from: NodeId, reply: &Reply) -> bool {
        let is_refusal = matches!(reply, Reply::Error(_));
        self.target == from || (self.is_read() && !is_refusal && self.tried.contains(&from))
    }
}

impl Shard {
    /// Passes a request on.
    pub(super) fn proxy<S: Store>(
        &mut self,
        origin: Origin,
        route: &Route,
        passed: Passed,
        turn: &mut Turn<'_, S>,
    ) -> Result<(), RequestError> {
        let Passed { request, fingerprint, only } = passed;
        if matches!(origin, Origin::Peer(..)) {
            let own = self.not_ready(route.partition).filter(|_| route.replica);
            let reason = own.unwrap_or(NotReady::NotInLayout);
            return Err(RequestError::NotReady { reason });
        }
        self.admit()?;
        let timeout_ms = match &request {
            Request::Put(put) => put.timeout_ms,
            Request::Get(get) => get.timeout_ms,
            Request::Delete(delete) => delete.timeout_ms,
            Request::Admin(_) => 0,
        };
        let deadline = self.deadline(turn.now, timeout_ms);
        let me = self.boot.node;
        let others = route.layout.replicas(route.partition).iter().copied();
        let eligible = |&node: &NodeId| node != me && only.is_none_or(|only| only == node);
        let mut candidates: Vec<NodeId> = others.filter(eligible).collect();
        let is_far = |node| route.layout.region_of(node) != Some(route.region);
        candidates.sort_by_key(|&node| {
            let last = self.peers.is_last(node, turn.now.mono);
            (last, is_far(node), if is_far(node) { self.peers.srtt_us(node) } else { 0 })
        });
        // After the own region's replicas its other nodes may take a write, before those elsewhere,
        // and after all replicas one that keeps something may answer a read.
        let level = level_of(&request, &route.policy);
        let is_read = matches!(request, Request::Get(_));
        if is_sloppy(route, level) && (!is_read || level == Level::One) {
            let at = candidates.iter().position(|&node| is_far(node) && !is_read);
            let list = fallbacks(&route.layout, route.partition, route.region).filter(eligible);
            let at = at.unwrap_or(candidates.len());
            candidates.splice(at..at, list);
        }
        let op = Box::new(ProxyOp {
            origin,
            request,
            fingerprint,
            repeated: only.is_some(),
            partition: route.partition,
            candidates,
            target: me,
            tried: BTreeSet::new(),
            refused: None,
            deadline,
            wake: deadline,
        });
        let id = self.new_op();
        self.in_flight += 1;
        self.held_bytes += payload(&op.request);
        self.counters.proxied += 1;
        self.try_next(id, op, turn);
        Ok(())
    }

    /// Asks the next candidate, or gives up: nothing has been done so far.
    fn try_next<S: Store>(&mut self, id: OpId, mut op: Box<ProxyOp>, turn: &mut Turn<'_, S>) {
        let fresh = |node: &&NodeId| !op.tried.contains(node) && self.peers.is_up(**node);
        let Some(&target) = op.candidates.iter().find(fresh) else {
            let own = self.not_ready(op.partition).filter(|_| op.tried.is_empty());
            let error = match (op.is_read(), op.repeated) {
                // Nobody else can be reached: this is why it is not done here.
                (_, false) if own.is_some() => {
                    RequestError::NotReady { reason: own.unwrap_or(NotReady::Behind) }
                }
                (true, _) => RequestError::ReadUnavailable { needed: 1, answered: 0 },
                (false, false) => RequestError::WriteUnavailable { needed: 1, reachable: 0 },
                (false, true) => RequestError::CoordinatorLost,
            };
            return self.end_proxy(&op, Reply::Error(error), turn);
        };
        op.target = target;
        self.peers.asked(target, turn.now.mono);
        op.tried.insert(target);
        if let Some(request) = write_id(&op.request) {
            let fate = Fate::PassedOn { to: target, losses: self.peers.losses(target) };
            self.window.begin(turn.now.mono, request, op.fingerprint, fate);
        }
        let left_ms = turn.now.mono.ms_until(op.deadline).max(1);
        set_timeout(&mut op.request, left_ms as u32);
        let (partition, request) = (op.partition, op.request.clone());
        let message = PeerMessage::Proxy { op: id, partition, request };
        turn.out.push(Effect::Send { to: vec![target], message });
        // A read that hears nothing for half of its time asks someone else; a write must wait.
        let half = Mono(turn.now.mono.0 + turn.now.mono.ms_until(op.deadline) * 500);
        op.wake = if op.is_read() { half.min(op.deadline) } else { op.deadline };
        self.timers.set(op.wake, id);
        self.ops.insert(id.0, Op::Proxy(op));
    }

    /// The answer of the node that was asked.
    pub(super) fn on_proxy_reply<S: Store>(
        &mut self,
        id: OpId,
        from: NodeId,
        reply: Reply,
        turn: &mut Turn<'_, S>,
    ) {
        let mut op = match self.ops.remove(&id.0) {
            Some(Op::Proxy(op)) if op.is_answered_by(from, &reply) => op,
            Some(other) => {
                self.counters.peer_rejections += 1;
                self.ops.insert(id.0, other);
                return;
            }
            None => return,
        };
        self.timers.clear(op.wake, id);
        self.peers.close(from);
        let elsewhere = |error: &RequestError| {
            error.outcome() == Outcome::NothingHappened && error.retry() == Retry::Elsewhere
        };
        match reply {
            Reply::Error(error) if elsewhere(&error) && self.has_untried(&op) => {
                op.refused.get_or_insert(error);
                self.try_next(id, op, turn);
            }
            reply => {
                // Who may not stand in, because it sees a replica, is not the reason.
                let not_in_layout = RequestError::NotReady { reason: NotReady::NotInLayout };
                let reply = match op.refused.take() {
                    Some(first) if reply == Reply::Error(not_in_layout) => Reply::Error(first),
                    _ => reply,
                };
                self.end_proxy(&op, reply, turn);
            }
        }
    }

    fn has_untried(&self, op: &ProxyOp) -> bool {
        op.candidates.iter().any(|node| !op.tried.contains(node) && self.peers.is_up(*node))
    }

    /// The node that was asked cannot be reached any more.
    pub(super) fn proxy_lost<S: Store>(&mut self, id: OpId, turn: &mut Turn<'_, S>) {
        let Some(Op::Proxy(op)) = self.ops.remove(&id.0) else { return };
        self.timers.clear(op.wake, id);
        if op.is_read() {
            self.try_next(id, op, turn);
        } else {
            self.end_proxy(&op, Reply::Error(RequestError::CoordinatorLost), turn);
        }
    }

    /// The node that was asked has said nothing for long.
    pub(super) fn wake_proxy<S: Store>(
        &mut self,
        id: OpId,
        op: Box<ProxyOp>,
        turn: &mut Turn<'_, S>,
    ) {
        let expired = turn.now.mono >= op.deadline;
        self.peers.missed(op.target, turn.now.mono);
        match (op.is_read(), expired) {
            (true, false) if self.has_untried(&op) => self.try_next(id, op, turn),
            (true, false) => {
                let mut op = op;
                op.wake = op.deadline;
                self.timers.set(op.wake, id);
                self.ops.insert(id.0, Op::Proxy(op));
            }
            (true, true) => {
                let error = RequestError::ReadUnavailable { needed: 1, answered: 0 };
                self.end_proxy(&op, Reply::Error(error), turn);
            }
            (false, _) => {
                self.end_proxy(&op, Reply::Error(RequestError::CoordinatorLost), turn);
            }
        }
    }

    fn end_proxy<S: Store>(&mut self, op: &ProxyOp, reply: Reply, turn: &mut Turn<'_, S>) {
        self.in_flight -= 1;
        self.held_bytes -= payload(&op.request);
        answer(op.origin, reply, turn.out);
    }
}

/// The level of a request.
fn level_of(request: &Request, policy: &BucketPolicy) -> Level {
    let (asked, usual) = match request {
        Request::Put(put) => (put.level, policy.write_level),
        Request::Delete(delete) => (delete.level, policy.write_level),
        Request::Get(get) => (get.level, policy.read_level),
        Request::Admin(_) => (None, Level::All),
    };
    asked.unwrap_or(usual)
}

/// Bytes of value that a request holds.
fn payload(request: &Request) -> usize {
    match request {
        Request::Put(put) => put.value.len(),
        Request::Delete(_) | Request::Get(_) | Request::Admin(_) => 0,
    }
}

fn write_id(request: &Request) -> Option<RequestId> {
    match request {
        Request::Put(put) => Some(put.request),
        Request::Delete(delete) => Some(delete.request),
        Request::Get(_) | Request::Admin(_) => None,
    }
}

fn set_timeout(request: &mut Request, left_ms: u32) {
    match request {
        Request::Put(put) => put.timeout_ms = left_ms,
        Request::Get(get) => get.timeout_ms = left_ms,
        Request::Delete(delete) => delete.timeout_ms = left_ms,
        Request::Admin(_) => {}
    }
}
