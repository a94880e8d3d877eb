//! From a request to its answer: attempts, failover, repeats, hedges, deadlines.
//!
//! The rules, by what is known after an attempt failed:
//!
//! | | reads | writes |
//! | --- | --- | --- |
//! | refused, the request must change | error | error |
//! | refused, nothing happened | next node, or the same later | the same |
//! | never sent | next node | next node |
//! | sent, and then lost or *unknown* | next node | same request id, same run of the same replica; else *unknown* |
//! | silent for its share of the time | next node | (the whole time is one attempt's) |
//! | deadline | error | *unknown* if it was sent, else error |
//!
//! A read's attempt gets at most half of the time that is left while there is another node to ask,
//! (unless little is left), and less if packets stop coming back: one silent node does not use up
//! the whole time.
//!
//! Once a write is unknown it stays so until it is acknowledged: a later refusal says nothing about
//! the first attempt. It is repeated only at a replica, because another node may pass the repeat to
//! another coordinator, which does not know the first.
//!
//! Every call waits [`LAST_WORD`] beyond its deadline: a node that gives up at the deadline knows
//! more than a client that does (which copies are durable), and its answer is on its way.

mod verdict;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use holm_protocol::admin::{AdminReply, AdminRequest};
use holm_protocol::ids::NodeId;
use holm_protocol::message::{self, Reply, Request};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{AdminError, CallError, Cause};
use crate::lane::{Answer, Call, StartError};
use crate::latency::Reach;
use crate::node::{Node, Readiness};
use crate::routing::{Choice, Scope};

use verdict::{Asked, Verdict, closed, mismatch};

/// How long after its deadline a call still waits for a node's answer. With the sweep's grain and
/// scheduling it keeps every call within its deadline plus 100 ms.
const LAST_WORD: Duration = Duration::from_millis(50);

/// Pause after every node was tried once; doubled with each further round.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(10);

/// Longest pause between rounds and between repeats.
const ROUND_PAUSE_MAX: Duration = Duration::from_millis(400);

/// Longest wait for a connection before another node is tried: a few round trips around the globe.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// The least time one attempt of a read gets while there are other nodes to ask, by reach: ample
/// for a region, two round trips around the globe. With less than twice this left, the attempt gets
/// all of it.
const SHARE_MIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// The most time one attempt of a read gets if it waits for one region only: a node of it that took
/// this long will hardly answer at all.
const SHARE_LOCAL_MAX: Duration = Duration::from_secs(1);

/// How often a waiting read looks whether its connection stalls.
const STALL_LOOK: Duration = Duration::from_millis(100);

/// How often an unknown write is sent again. A replica that could not make it known by then will
/// not by the deadline.
const REPEATS_MAX: u32 = 5;

/// When a call must end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    started: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(crate) fn new(timeout: Duration) -> Deadline {
        Deadline { started: Instant::now(), timeout }
    }

    fn at(&self) -> Instant {
        self.started + self.timeout
    }

    pub(crate) fn left(&self) -> Duration {
        self.at().saturating_duration_since(Instant::now())
    }

    fn has_passed(&self) -> bool {
        Instant::now() >= self.at()
    }
}

/// One call's way through the cluster.
struct Attempts<'a> {
    cluster: &'a Arc<Cluster>,
    scope: Scope<'a>,
    deadline: Deadline,
    /// Nodes asked or dialled in this round.
    tried: Vec<NodeId>,
    round: u32,
    count: u32,
    last: Cause,
}

impl Cluster {
    /// Reads a key.
    pub(crate) async fn get(
        self: &Arc<Self>,
        scope: Scope<'_>,
        deadline: Deadline,
        get: message::Get,
    ) -> Result<message::Values, CallError> {
        self.earn_hedge();
        match self.read(scope, deadline, Request::Get(get)).await? {
            (_, Reply::Values(values)) => Ok(values),
            // `Verdict::Done` holds the request's own kind of answer only.
            (node, _) => Err(CallError::Unknown { last: mismatch(node) }),
        }
    }

    /// Sends what changes nothing: anywhere, as often as it takes, and twice at a time if slow.
    async fn read(
        self: &Arc<Self>,
        scope: Scope<'_>,
        deadline: Deadline,
        mut request: Request,
    ) -> Result<(NodeId, Reply), CallError> {
        let mut attempts = Attempts::new(self, scope, deadline);
        loop {
            let (node, connection) = attempts.next().await?;
            set_timeout(&mut request, deadline.left());
            let (node, verdict) = attempts.ask_hedged(node, &connection, &request).await;
            match verdict {
                Verdict::Done(reply) => return Ok((node, reply)),
                Verdict::Unknown(cause) => attempts.note(cause),
                other => attempts.handle(node, other).await?,
            }
        }
    }

    /// Sends a put or delete: repeated only where that is safe.
    pub(crate) async fn write(
        self: &Arc<Self>,
        scope: Scope<'_>,
        deadline: Deadline,
        mut request: Request,
    ) -> Result<message::Written, CallError> {
        let mut attempts = Attempts::new(self, scope, deadline);
        loop {
            let (node, connection) = attempts.next().await?;
            set_timeout(&mut request, deadline.left());
            match attempts.ask(&node, &connection, &request).await {
                Verdict::Done(Reply::Written(written)) => return Ok(written),
                Verdict::Done(_) => return Err(CallError::Unknown { last: mismatch(node.id()) }),
                Verdict::Unknown(cause) => {
                    attempts.note(cause);
                    return attempts.repeat(&node, connection.run(), &mut request).await;
                }
                other => attempts.handle(node.id(), other).await?,
            }
        }
    }

    /// Sends a rare request.
    pub(crate) async fn admin(
        self: &Arc<Self>,
        node: Option<NodeId>,
        request: AdminRequest,
    ) -> Result<(NodeId, AdminReply), AdminError> {
        let scope = match node {
            None => Scope::Any,
            Some(node) if self.routing().node(node).is_none() => {
                return Err(AdminError::UnknownNode { node });
            }
            Some(node) => Scope::Node(node),
        };
        let deadline = self.deadline(None);
        let changes = !matches!(
            request,
            AdminRequest::View
                | AdminRequest::Status
                | AdminRequest::PlanLayout(_)
                | AdminRequest::Explain { .. }
        );
        let request = Request::Admin(request);
        let mut attempts = Attempts::new(self, scope, deadline);
        loop {
            let (node, connection) = attempts.next().await?;
            match attempts.ask(&node, &connection, &request).await {
                Verdict::Done(Reply::Admin(reply)) => return Ok((node.id(), *reply)),
                Verdict::Done(_) => return Err(AdminError::UnexpectedReply { node: node.id() }),
                Verdict::Unknown(last) if changes => return Err(AdminError::Unknown { last }),
                Verdict::Unknown(cause) => attempts.note(cause),
                // Only this node was meant: its refusal is the answer.
                Verdict::Elsewhere(Cause::Refused { node, error })
                    if matches!(scope, Scope::Node(_)) =>
                {
                    return Err(AdminError::Refused { node, error });
                }
                other => attempts.handle(node.id(), other).await?,
            }
        }
    }
}

impl<'a> Attempts<'a> {
    fn new(cluster: &'a Arc<Cluster>, scope: Scope<'a>, deadline: Deadline) -> Attempts<'a> {
        let (tried, last) = (Vec::new(), Cause::NothingTried);
        Attempts { cluster, scope, deadline, tried, round: 0, count: 0, last }
    }

    fn unavailable(&self) -> CallError {
        CallError::Unavailable {
            timeout: self.deadline.timeout,
            attempts: self.count,
            last: self.last.clone(),
        }
    }

    fn note(&mut self, cause: Cause) {
        tracing::debug!(attempt = self.count, %cause, "attempt failed");
        self.last = cause;
    }

    /// The next node to ask, connected. After all were tried: a pause, and again from the first.
    async fn next(&mut self) -> Result<(Arc<Node>, Arc<Connection>), CallError> {
        loop {
            if self.deadline.has_passed() {
                return Err(self.unavailable());
            }
            let routing = self.cluster.routing();
            if self.cluster.is_layout_stale(&routing) {
                self.cluster.refresh_soon();
            }
            match routing.choose(&self.scope, &self.tried) {
                Choice::Ready(node, connection) => {
                    return Ok((node, connection));
                }
                Choice::Dial(node) => {
                    self.tried.push(node.id());
                    // The dial goes on without us; a third of what is left keeps time for others.
                    let patience = match self.scope {
                        Scope::Node(_) => self.deadline.left(),
                        _ => (self.deadline.left() / 3).min(DIAL_PATIENCE),
                    };
                    match node.connected(Instant::now() + patience).await {
                        Ok(connection) => return Ok((node, connection)),
                        Err(error) => self.note(Cause::Unreachable { node: node.id(), error }),
                    }
                }
                Choice::None => {
                    let pause = ROUND_PAUSE_MIN * 2u32.saturating_pow(self.round.min(16));
                    self.pause(pause.min(ROUND_PAUSE_MAX)).await;
                    self.round += 1;
                    self.tried.clear();
                }
            }
        }
    }

    /// Waits with jitter, but not beyond the deadline.
    async fn pause(&self, pause: Duration) {
        let until = Instant::now() + self.cluster.chance().jittered(pause);
        tokio::time::sleep_until(until.min(self.deadline.at())).await;
    }

    /// Goes on after an attempt at `node` that is known to have changed nothing, or ends the call.
    async fn handle(&mut self, node: NodeId, verdict: Verdict) -> Result<(), CallError> {
        match verdict {
            Verdict::Refused(error) => return Err(CallError::Refused { node, error }),
            Verdict::Full(queue) => return Err(CallError::Overloaded { queue }),
            Verdict::Elsewhere(cause) => self.note(cause),
            Verdict::Later(cause, pause) => {
                self.note(cause);
                self.pause(pause).await;
            }
            // Callers keep these to themselves.
            Verdict::Unknown(last) => return Err(CallError::Unknown { last }),
            Verdict::Done(_) => return Err(CallError::Unknown { last: mismatch(node) }),
        }
        Ok(())
    }

    fn start(
        &mut self,
        node: &Node,
        connection: &Connection,
        request: &Request,
    ) -> Result<Call, Verdict> {
        if !self.tried.contains(&node.id()) {
            self.tried.push(node.id());
        }
        match connection.start(request) {
            Ok(call) => {
                self.count += 1;
                Ok(call)
            }
            Err(StartError::Full(queue)) => Err(Verdict::Full(queue)),
            Err(StartError::Closed(reason)) => {
                Err(Verdict::Elsewhere(closed(node.id(), false, reason)))
            }
        }
    }

    /// One attempt at one node.
    async fn ask(&mut self, node: &Node, connection: &Connection, request: &Request) -> Verdict {
        let started = Instant::now();
        let call = match self.start(node, connection, request) {
            Ok(call) => call,
            Err(verdict) => return verdict,
        };
        let until = self.deadline.at() + LAST_WORD;
        let answer = poll_fn(|cx| call.poll_answer(cx, until)).await;
        let asked = Asked { node, connection, started };
        asked.judge(self.cluster, self.scope.reach(), request, answer)
    }

    /// One attempt at one node, and at a second one if the first is late.
    async fn ask_hedged(
        &mut self,
        node: Arc<Node>,
        connection: &Connection,
        request: &Request,
    ) -> (NodeId, Verdict) {
        let started = Instant::now();
        let reach = self.scope.reach();
        let usual = node.latency().late_after(reach);
        let call = match self.start(&node, connection, request) {
            Ok(call) => call,
            Err(verdict) => return (node.id(), verdict),
        };
        let asked = Asked { node: &node, connection, started };
        let give_up = started + self.share(usual);
        let late = self.cluster.is_hedging().then_some(usual);
        if let Some(late) = late.filter(|late| started + *late < give_up) {
            let answer = poll_fn(|cx| call.poll_answer(cx, started + late)).await;
            if answer.is_some() {
                return (node.id(), asked.judge(self.cluster, self.scope.reach(), request, answer));
            }
            if let Some((second, connection)) = self.second() {
                let hedge =
                    Asked { node: &second, connection: &connection, started: Instant::now() };
                tracing::debug!(first = %node.id(), second = %second.id(), "hedging a late read");
                if let Ok(other) = self.start(&second, &connection, request) {
                    let calls = [(&asked, call), (&hedge, other)];
                    return self.race(calls, request, give_up).await;
                }
            }
        }
        let answer = self.wait(&asked, &call, give_up).await;
        (node.id(), asked.judge(self.cluster, self.scope.reach(), request, answer))
    }

    /// How long an attempt of a read may take while there are other nodes: never less than what the
    /// node usually takes.
    fn share(&self, usual: Duration) -> Duration {
        let left = self.deadline.left();
        let reach = self.scope.reach();
        if left < 2 * SHARE_MIN[reach as usize] {
            return left + LAST_WORD;
        }
        let share = match reach {
            Reach::Local => (left / 2).min(SHARE_LOCAL_MAX),
            Reach::Wide => left / 2,
        };
        share.max(usual)
    }

    /// The answer; none at the deadline, and none from `give_up` on, or while nothing gets through
    /// to the node, if there is another node to ask.
    async fn wait(&self, asked: &Asked<'_>, call: &Call, give_up: Instant) -> Option<Answer> {
        let until = self.deadline.at() + LAST_WORD;
        loop {
            let look = (Instant::now() + STALL_LOOK).min(until);
            let answer = poll_fn(|cx| call.poll_answer(cx, look)).await;
            if answer.is_some() || look == until {
                return answer;
            }
            let hopeless = Instant::now() >= give_up || asked.connection.is_stalled();
            if hopeless && self.has_other_than(&[asked.node.id()]) {
                // It takes at least this long.
                let took = asked.started.elapsed();
                asked.node.latency().observe(self.scope.reach(), took);
                return None;
            }
        }
    }

    /// Whether there is a node besides these that nothing is known against.
    fn has_other_than(&self, nodes: &[NodeId]) -> bool {
        match self.cluster.routing().choose(&self.scope, nodes) {
            Choice::Ready(node, _) | Choice::Dial(node) => matches!(
                node.readiness(),
                Readiness::Ready(_) | Readiness::Unconnected { failed: false }
            ),
            Choice::None => false,
        }
    }

    /// A node for a second try of a late read, if there is one and the budget allows.
    fn second(&self) -> Option<(Arc<Node>, Arc<Connection>)> {
        let found = self.cluster.routing().ready_replica(&self.scope, &self.tried)?;
        self.cluster.spend_hedge().then_some(found)
    }

    /// The first good answer of two calls, or the last bad one.
    async fn race(
        &mut self,
        calls: [(&Asked<'_>, Call); 2],
        request: &Request,
        give_up: Instant,
    ) -> (NodeId, Verdict) {
        let asked = calls.each_ref().map(|(asked, _)| asked.node.id());
        let others = self.has_other_than(&asked);
        let until = if others { give_up } else { self.deadline.at() + LAST_WORD };
        let mut running = [true; 2];
        loop {
            let (won, answer) = poll_fn(|cx| {
                for (index, (_, call)) in calls.iter().enumerate() {
                    if running[index]
                        && let Poll::Ready(answer) = call.poll_answer(cx, until)
                    {
                        return Poll::Ready((index, answer));
                    }
                }
                Poll::Pending
            })
            .await;
            let asked = calls[won].0;
            let verdict = asked.judge(self.cluster, self.scope.reach(), request, answer);
            let is_last = !running[1 - won];
            running[won] = false;
            match verdict {
                Verdict::Done(_) | Verdict::Refused(_) => {
                    // The slower one took at least this long.
                    if !is_last {
                        let slower = calls[1 - won].0;
                        let took = slower.started.elapsed();
                        slower.node.latency().observe(self.scope.reach(), took);
                    }
                    return (asked.node.id(), verdict);
                }
                verdict if is_last => return (asked.node.id(), verdict),
                Verdict::Elsewhere(cause) | Verdict::Later(cause, _) | Verdict::Unknown(cause) => {
                    self.note(cause);
                }
                Verdict::Full(_) => {}
            }
        }
    }

    /// Repeats a write whose outcome is unknown, at the same run of the same replica, until it is
    /// acknowledged or cannot be.
    async fn repeat(
        mut self,
        node: &Arc<Node>,
        run: holm_protocol::ids::Actor,
        request: &mut Request,
    ) -> Result<message::Written, CallError> {
        let unknown = |last: &Cause| CallError::Unknown { last: last.clone() };
        if !self.cluster.routing().is_replica(&self.scope, node.id()) {
            return Err(unknown(&self.last));
        }
        let mut pause = ROUND_PAUSE_MIN;
        let mut repeats = 0;
        while repeats < REPEATS_MAX {
            self.pause(pause).await;
            pause = (2 * pause).min(ROUND_PAUSE_MAX);
            if self.deadline.has_passed() {
                break;
            }
            let Ok(connection) = node.connected(self.deadline.at()).await else { continue };
            if connection.run() != run {
                return Err(CallError::Unknown { last: Cause::NodeRestarted { node: node.id() } });
            }
            set_timeout(request, self.deadline.left());
            repeats += 1;
            match self.ask(node, &connection, request).await {
                Verdict::Done(Reply::Written(written)) => return Ok(written),
                Verdict::Done(_) | Verdict::Refused(_) => break,
                Verdict::Unknown(cause) => self.note(cause),
                Verdict::Later(_, pause) => self.pause(pause).await,
                Verdict::Elsewhere(_) | Verdict::Full(_) => {}
            }
        }
        Err(unknown(&self.last))
    }
}

/// Tells the node how long this client still waits.
fn set_timeout(request: &mut Request, left: Duration) {
    let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
    match request {
        Request::Put(put) => put.timeout_ms = left_ms,
        Request::Get(get) => get.timeout_ms = left_ms,
        Request::Delete(delete) => delete.timeout_ms = left_ms,
        Request::Admin(_) => {}
    }
}
