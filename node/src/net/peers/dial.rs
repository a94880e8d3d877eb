//! Keeping links up: who to dial, when, and when again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holm_protocol::ids::NodeId;
use quinn::{Connection, ConnectionError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::tls::identity::PeerIdentity;
use super::super::tls::server_name;
use super::super::{Shared, accept, close};
use super::budget::backoff;
use super::link::PeerLink;
use super::run::{open_lanes, refuse_connection, run};

/// How long the node with the larger id waits for the other one to dial, at least; up to twice that.
/// A dial round the world is done by then.
const GRACE: Duration = Duration::from_millis(750);

/// A node that has been away for long is dialled after pauses of this part of the time it has been
/// away: dead nodes cost ever less, and a long outage is made longer by a sixteenth at most.
const AWAY_PER_PAUSE: u32 = 16;

/// Keeps the links that are wanted up, for as long as the node runs.
pub(in super::super) async fn supervise(shared: Arc<Shared>) {
    let mut kept: BTreeMap<NodeId, (SocketAddr, JoinHandle<()>)> = BTreeMap::new();
    loop {
        let wanted = shared.pool.wanted();
        kept.retain(|node, (addr, task)| {
            let stays = wanted.get(node) == Some(addr);
            if !stays {
                task.abort();
                let why = b"no longer in the layout at this address";
                shared.pool.link(*node).disconnect(close::REMOVED, why);
            }
            stays
        });
        for (node, addr) in wanted {
            let spawn = || tokio::spawn(maintain(shared.clone(), shared.pool.link(node), addr));
            kept.entry(node).or_insert_with(|| (addr, spawn()));
        }
        shared.pool.inner.changed.notified().await;
    }
}

/// Dials one node whenever it is not connected, with growing pauses.
async fn maintain(shared: Arc<Shared>, link: Arc<PeerLink>, addr: SocketAddr) {
    let (min, max) = (shared.net.reconnect_min, shared.net.reconnect_max);
    let mut up = link.watch();
    let mut attempt = 0;
    let mut away = Instant::now();
    loop {
        let since = Instant::now();
        if *up.borrow() {
            // The link, and with it the watch, lives as long as this task.
            let _ = up.wait_for(|up| !up).await;
            away = Instant::now();
        }
        if since.elapsed() > max {
            attempt = 0;
        }
        let max = max.max((away.elapsed() / AWAY_PER_PAUSE).min(shared.net.reconnect_away_max));
        let mut pause = match attempt {
            0 => Duration::ZERO,
            again => backoff(again - 1, min, max, shared.chance.fraction()),
        };
        if shared.local.node > link.node() {
            pause += GRACE.mul_f64(1.0 + shared.chance.fraction());
        }
        tokio::select! {
            biased;
            // Connected without having dialled.
            _ = up.wait_for(|up| *up) => continue,
            () = link.hurried() => {}
            () = sleep(pause) => {}
        }
        if shared.budget.take().await {
            shared.counters.dials_delayed.increment();
        }
        if *up.borrow_and_update() {
            continue;
        }
        attempt = attempt.saturating_add(1);
        shared.counters.dials.increment();
        if let Err(why) = dial(&shared, link.node(), addr).await {
            shared.counters.dials_failed.increment();
            // A node that is down is a warning once, not at every attempt.
            tracing::debug!(node = link.node().0, %addr, attempt, why, "node not reached");
            if attempt == 1 {
                tracing::warn!(node = link.node().0, %addr, why, "node not reached; trying on");
            }
        }
    }
}

/// Connects, says hello, and leaves the connection running on its own. Why not, if not.
async fn dial(shared: &Arc<Shared>, node: NodeId, addr: SocketAddr) -> Result<(), String> {
    let config = shared.peer_config();
    let connecting = shared
        .endpoint
        .connect_with(config, addr, &server_name(node))
        .map_err(|error| error.to_string())?;
    let connection = timeout(shared.net.handshake_timeout, connecting)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    // The name in the certificate was verified; the URI must say the same.
    let identity = accept::identity(&connection)?;
    if identity != PeerIdentity::Node(node) {
        let why = format!("a certificate of {identity} instead of node {}", node.0);
        connection.close(close::CERTIFICATE, why.as_bytes());
        return Err(why);
    }
    match open_lanes(shared, &connection, node).await {
        Ok(lanes) => {
            let shared = shared.clone();
            let me = shared.local.node;
            tokio::spawn(async move { run(&shared, connection, lanes, me).await });
            Ok(())
        }
        Err(refusal) => {
            refuse_connection(&connection, &refusal);
            if replaced(&connection) {
                return Ok(());
            }
            Err(match connection.close_reason() {
                Some(ConnectionError::ApplicationClosed(closed)) => closed.to_string(),
                _ => refusal.to_string(),
            })
        }
    }
}

/// Whether the other node has a better connection to this one.
fn replaced(connection: &Connection) -> bool {
    matches!(
        connection.close_reason(),
        Some(ConnectionError::ApplicationClosed(closed)) if closed.error_code == close::REPLACED
    )
}
