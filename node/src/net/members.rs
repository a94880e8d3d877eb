//! Carries membership between connections and the driver.
//!
//! One task: datagrams, connections that come and go, and time go into the driver; what it wants sent
//! leaves on the connection to its receiver, or is dropped and counted. A datagram has no connection
//! made for it: connections are made and made again by [`super::peers::dial`], within its budget, and
//! probes find their way through other nodes meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_protocol::ids::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use super::Shared;
use crate::membership::driver::Effect;

/// What may wait for the driver. A node of a large cluster gets some datagrams a second; beyond this
/// they are dropped, which SWIM is made for.
pub(super) const WAITING_MAX: usize = 1024;

/// How long the task sleeps at most.
const LONGEST: Duration = Duration::from_secs(60);

/// What the driver is told.
#[derive(Debug)]
pub(super) enum Told {
    /// There is a connection to a node, at this address.
    Up(NodeId, std::net::SocketAddr),
    /// There is none any more; whether the node said that it stops.
    Down(NodeId, bool),
    /// A datagram of a node.
    Datagram(NodeId, Bytes),
    /// This node stops. Answered when the others have been told.
    Leave(oneshot::Sender<()>),
}

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>, mut told: mpsc::Receiver<Told>) {
    let members = shared.members.clone();
    let mut taken = 0;
    loop {
        tokio::select! {
            // What waits comes first: after a pause of the process there may be an answer among it to
            // what is about to be given up.
            biased;
            next = told.recv() => match next {
                Some(next) => {
                    take_in(&shared, next);
                    taken += 1;
                    // But not for ever: whoever floods must not stop the probes.
                    if taken < WAITING_MAX {
                        continue;
                    }
                }
                None => return,
            },
            () = sleep_until(members.next_wakeup(LONGEST)) => {}
        }
        taken = 0;
        members.lock().tick(members.now());
        carry_out(&shared);
    }
}

fn take_in(shared: &Shared, told: Told) {
    let members = &shared.members;
    let now = members.now();
    match told {
        Told::Up(node, remote) => members.lock().on_up(now, node, remote),
        Told::Down(node, left) => members.lock().on_down(now, node, left),
        Told::Datagram(from, bytes) => {
            let taken = members.lock().on_datagram(now, from, &bytes);
            if let Err(refused) = taken {
                tracing::debug!(node = from.0, %refused, "membership datagram");
            }
        }
        Told::Leave(done) => {
            members.lock().leave(now);
            carry_out(shared);
            // Whoever asked may be gone.
            let _ = done.send(());
            return;
        }
    }
    carry_out(shared);
}

fn carry_out(shared: &Shared) {
    let effects = shared.members.lock().take_effects();
    for effect in effects {
        match effect {
            Effect::Send { to, datagram } => {
                let is_sent = shared.pool.send_datagram(to, datagram);
                let counters = &shared.counters;
                let counter =
                    if is_sent { &counters.datagrams_sent } else { &counters.datagrams_unsent };
                counter.increment();
            }
            Effect::Changed { node, from, to } => {
                tracing::info!(node = node.0, from = from.name(), to = to.name(), "member");
                shared.handler.on_member(node, to);
            }
            Effect::Met(node) => shared.pool.hurry(node),
            Effect::Outranked { known, boot } => {
                tracing::warn!(%known, boot, "others know a later start of this node, which takes \
                    the one after: is its disk a copy, or does it run twice?");
                shared.handler.on_boot(boot);
            }
            Effect::Trouble(what) => tracing::error!(what, "membership"),
        }
    }
}
