//! What goes into a shard and what comes out, as data.

use std::sync::Arc;

use holm_protocol::admin::Explanation;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, NodeId};
use holm_protocol::message::{Reply, Request};

use crate::peer::PeerMessage;
use crate::shard::config::ClusterState;
use crate::time::Mono;

/// Where a client's answer goes: the shell's own numbers, handed back unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// The client's lane.
    pub lane: u64,
    /// The request's number on that lane.
    pub request: u64,
}

/// One event.
#[derive(Debug, Clone)]
pub enum Input {
    /// A client's put, get or delete. Others are answered by the shell.
    Client {
        /// Where the answer goes.
        caller: Caller,
        /// What is asked.
        request: Request,
    },
    /// An operator asks where a key lives.
    Explain {
        /// Where the answer goes.
        caller: Caller,
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: bytes::Bytes,
    },
    /// A message of another node's shard.
    Peer {
        /// The node, by its certificate.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// There is a connection to this node now.
    PeerUp(NodeId),
    /// There is none any more.
    PeerDown(NodeId),
    /// Membership doubts that this node can be reached, or does not any more. It only is asked last.
    PeerDoubted(NodeId, bool),
    /// The node was found to have lost state it once had.
    Amnesia,
    /// Layout, buckets or secrets have changed.
    Cluster(Arc<ClusterState>),
}

/// Something to be done outside. Whatever depends on the disk is held back by the shard until
/// [`Shard::commit`](crate::shard::Shard::commit), so every effect can be carried out at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send this to these nodes: encoded once, the same bytes to each.
    Send {
        /// The receivers, never this node.
        to: Vec<NodeId>,
        /// What to send.
        message: PeerMessage,
    },
    /// Answer a client.
    Reply {
        /// Which request.
        caller: Caller,
        /// The answer.
        reply: Reply,
        /// When the request came in, for the latency histogram.
        since: Mono,
    },
    /// Answer an operator.
    Explained {
        /// Which request.
        caller: Caller,
        /// The answer.
        result: Result<Explanation, RequestError>,
    },
}

/// Effects in the order in which they came about.
pub type Effects = Vec<Effect>;

/// What a shard counts. Only ever grows, but for the last six, which are what they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Dots assigned to client writes.
    pub writes_coordinated: u64,
    /// Reads coordinated.
    pub reads_coordinated: u64,
    /// Objects of other nodes joined.
    pub objects_joined: u64,
    /// Late siblings dropped because their dot was seen and is not alive.
    pub late_siblings_dropped: u64,
    /// Objects sent to repair a stale replica after a read.
    pub read_repairs: u64,
    /// Reads that asked further replicas because of a late answer.
    pub reads_hedged: u64,
    /// Writes sent again to replicas that did not acknowledge.
    pub writes_resent: u64,
    /// Requests refused, and writes not relayed, because too many were in flight.
    pub overloads: u64,
    /// Requests passed on to another node.
    pub proxied: u64,
    /// Messages of peers refused or ignored because they make no sense.
    pub peer_rejections: u64,
    /// Writes answered from the idempotence window.
    pub repeated_requests: u64,
    /// Answered writes let go before all replicas had acknowledged.
    pub lingering_dropped: u64,
    /// Commits that failed.
    pub commits_failed: u64,
    /// Objects loaded that did not match their checksum.
    pub corrupt_objects: u64,
    /// Times that a node was put last for not answering, or kept there.
    pub breaker_trips: u64,
    /// Requests that tried whether such a node answers again.
    pub breaker_probes: u64,
    /// Most siblings in one answer since the start.
    pub siblings_max: u64,
    /// Nodes that are put last for not answering now.
    pub breakers_open: u64,
    /// Client requests in flight now.
    pub in_flight: u64,
    /// Answered writes whose other replicas are awaited now.
    pub lingering: u64,
    /// Bytes of values and objects that requests in flight and lingering writes hold now.
    pub held_bytes: u64,
    /// Writes that are being passed on to other replicas of the region now.
    pub relays: u64,
    /// Bytes of decoded objects in memory now.
    pub cache_bytes: u64,
}
