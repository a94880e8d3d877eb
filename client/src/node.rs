//! One node as this client sees it: where it is, its connection, how fast it answers.
//!
//! At most one dial to a node is under way; it runs on a task of its own, so that a caller whose
//! deadline passes does not undo it. After a failure the next dial waits, longer each time, with
//! jitter.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_protocol::ids::NodeId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::{Connection, Dialer};
use crate::error::DialError;
use crate::latency::Latency;

/// Pause after the first failed dial; doubled with each further one.
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause between dials: a node that comes back is found within this.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(3);

/// A dial that takes longer is not worth waiting for where there is another node: two round trips
/// around the globe.
const DIAL_SLOW: Duration = Duration::from_millis(500);

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    id: NodeId,
    addr: SocketAddr,
    dialer: Arc<Dialer>,
    latency: Latency,
    state: Mutex<State>,
    /// Rung when a dial ends.
    dialled: Notify,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// When the dial under way started.
    dialling: Option<Instant>,
    /// Whether the last connection was lost.
    lost: bool,
    failures: u32,
    retry_at: Option<Instant>,
    last_error: Option<DialError>,
    avoid_until: Option<Instant>,
}

/// Whether a node can be sent to.
#[derive(Debug, Clone)]
pub(crate) enum Readiness {
    /// Yes, now.
    Ready(Arc<Connection>),
    /// There is a connection, but there are better choices: it stalls, or the node asked for a
    /// pause.
    Doubtful(Arc<Connection>),
    /// It must be dialled first, and may be.
    Unconnected {
        /// Whether the last dial failed, the last connection was lost, or a dial drags on.
        failed: bool,
    },
    /// It failed to connect a moment ago.
    Pausing,
}

impl Node {
    pub(crate) fn new(id: NodeId, addr: SocketAddr, dialer: Arc<Dialer>) -> Node {
        Node {
            id,
            addr,
            dialer,
            latency: Latency::default(),
            state: Mutex::new(State::default()),
            dialled: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Nothing panics while the lock is held, so a poisoned one still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let mut state = self.lock();
        if let Some(connection) = &state.connection {
            if !connection.is_closed() {
                let connection = Arc::clone(connection);
                // A clock is only read if there is something to compare with.
                let avoid = state.avoid_until.is_some_and(|until| Instant::now() < until);
                if !avoid {
                    state.avoid_until = None;
                }
                return if avoid || connection.is_stalled() {
                    Readiness::Doubtful(connection)
                } else {
                    Readiness::Ready(connection)
                };
            }
            state.connection = None;
            state.lost = true;
        }
        let slow = state.dialling.is_some_and(|since| since.elapsed() > DIAL_SLOW);
        match state.retry_at {
            Some(at) if state.dialling.is_none() && Instant::now() < at => Readiness::Pausing,
            _ => Readiness::Unconnected { failed: slow || state.lost || state.failures > 0 },
        }
    }

    /// Prefers other nodes for about so long, with jitter.
    pub(crate) fn avoid_for(&self, pause: Duration) {
        self.lock().avoid_until = Some(Instant::now() + self.dialer.chance.jittered(pause));
    }

    /// Starts a dial, unless there is a connection, a dial under way or a pause to keep.
    pub(crate) fn dial_soon(self: &Arc<Self>) {
        let mut state = self.lock();
        let connected = state.connection.as_ref().is_some_and(|c| !c.is_closed());
        let pausing = state.retry_at.is_some_and(|at| Instant::now() < at);
        if connected || state.dialling.is_some() || pausing {
            return;
        }
        state.dialling = Some(Instant::now());
        drop(state);
        let node = Arc::clone(self);
        tokio::spawn(async move {
            // If the task is dropped half-way, the next caller must be able to dial again.
            let guard = DialGuard(&node);
            let result = node.dialer.dial(node.id, node.addr).await;
            node.finish_dial(result);
            drop(guard);
        });
    }

    fn finish_dial(&self, result: Result<Arc<Connection>, DialError>) {
        let mut state = self.lock();
        match result {
            Ok(connection) => {
                tracing::debug!(node = %self.id, addr = %self.addr, "connected");
                let last_error = None;
                *state = State { connection: Some(connection), last_error, ..State::default() };
            }
            Err(error) => {
                tracing::debug!(node = %self.id, addr = %self.addr, %error, "cannot connect");
                let pause = DIAL_PAUSE_MIN * 2u32.saturating_pow(state.failures.min(16));
                let pause = pause.min(DIAL_PAUSE_MAX);
                state.retry_at = Some(Instant::now() + self.dialer.chance.jittered(pause));
                state.failures += 1;
                state.last_error = Some(error);
            }
        }
    }

    /// The connection, dialled if need be, or why there is none by `until`.
    pub(crate) async fn connected(
        self: &Arc<Self>,
        until: Instant,
    ) -> Result<Arc<Connection>, DialError> {
        let started = Instant::now();
        let mut dialled = false;
        loop {
            let mut ended = pin!(self.dialled.notified());
            ended.as_mut().enable();
            match self.readiness() {
                Readiness::Ready(connection) | Readiness::Doubtful(connection) => {
                    return Ok(connection);
                }
                Readiness::Pausing => return Err(self.last_error()),
                Readiness::Unconnected { .. } if dialled && self.lock().dialling.is_none() => {
                    return Err(self.last_error());
                }
                Readiness::Unconnected { .. } => {
                    self.dial_soon();
                    dialled = true;
                }
            }
            if tokio::time::timeout_at(until, ended).await.is_err() {
                let waited_ms = started.elapsed().as_millis() as u64;
                return Err(DialError::TimedOut { waited_ms });
            }
        }
    }

    fn last_error(&self) -> DialError {
        let lost = || DialError::Protocol { what: "the connection was lost at once".to_owned() };
        self.lock().last_error.clone().unwrap_or_else(lost)
    }

    /// Ends the connection, if there is one.
    pub(crate) fn close(&self) {
        if let Some(connection) = self.lock().connection.take() {
            connection.close();
        }
    }
}

/// Marks a dial as ended, however it ended, and tells who waits for it.
struct DialGuard<'a>(&'a Node);

impl Drop for DialGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().dialling = None;
        self.0.dialled.notify_waiters();
    }
}
