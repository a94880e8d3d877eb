//! What goes into the driver and what comes out, as data.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use holm_core::time::Mono;
use holm_protocol::admin::{Epoch, MemberState};
use holm_protocol::ids::NodeId;
use holm_protocol::limits::NODES_MAX;
use holm_protocol::wire::WireError;

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Time between two probes.
    pub probe_interval: Duration,
    /// Time for a direct answer; the rest of the interval is for those through others.
    pub probe_timeout: Duration,
    /// Time for a suspect to object.
    pub suspicion: Duration,
    /// Time after which a node that is down is forgotten.
    pub forget: Duration,
}

/// Both clocks. The core's wall clock is too coarse to compare clocks by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For intervals.
    pub mono: Mono,
    /// Microseconds since 1970.
    pub wall_us: u64,
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this datagram, if there is a connection.
    Send {
        /// The receiver.
        to: NodeId,
        /// The datagram.
        datagram: Bytes,
    },
    /// An opinion has changed.
    Changed {
        /// About this node.
        node: NodeId,
        /// From this.
        from: MemberState,
        /// To this.
        to: MemberState,
    },
    /// Another start of a node was met: whoever waits to dial it need not wait.
    Met(NodeId),
    /// Others know this node with a later start; it has taken the one after that, whose number must be
    /// made durable.
    Outranked {
        /// As others know it.
        known: Epoch,
        /// Its own from now on.
        boot: u64,
    },
    /// A bug here or in foca, for the log. It goes on.
    Trouble(String),
}

/// Why a datagram was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is none.
    #[error("no membership datagram: {0}")]
    Malformed(#[from] WireError),
    /// It is, but makes no sense.
    #[error("membership datagram refused: {0}")]
    Senseless(String),
    /// It speaks as another node than the one that sent it.
    #[error("speaks as {claimed}")]
    Forged {
        /// As this one.
        claimed: NodeId,
    },
    /// It names more nodes than a cluster may have.
    #[error("names nodes beyond the limit of {NODES_MAX}")]
    Crowded,
}

/// What is counted. Only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Opinions changed, by what to, in the order of [`MemberState::ALL`].
    pub changes: [u64; MemberState::ALL.len()],
    /// Probes that were answered neither directly nor through others.
    pub probes_failed: u64,
    /// Times that this node was called down, or known with a later start, and outranked that.
    pub renewals: u64,
    /// Datagrams that are none.
    pub malformed: u64,
    /// Datagrams that speak as somebody else.
    pub forged: u64,
    /// Datagrams that name too many nodes.
    pub crowded: u64,
}

/// What is thought of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion {
    /// What.
    pub state: MemberState,
    /// Of which start.
    pub epoch: Epoch,
    /// The incarnation that it is about.
    pub incarnation: u16,
    /// Since when.
    pub since: Mono,
    /// Where it was last heard from.
    pub addr: Option<SocketAddr>,
}
