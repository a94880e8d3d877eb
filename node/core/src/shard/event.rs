//! What goes into a shard and what comes out, as data.

use std::sync::Arc;

use holm_protocol::admin::Explanation;
use holm_protocol::dot::Dot;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition, PlacementId, RegionId};
use holm_protocol::message::{Reply, Request};

use crate::object::Object;
use crate::peer::verify::Place;
use crate::peer::{PeerMessage, Refusal};
use crate::shard::config::ClusterState;
use crate::shard::fingerprint::Fingerprint;
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
    /// Somebody wants to know whether all regions hold the same.
    Fingerprint {
        /// Where the answer goes.
        caller: Caller,
        /// How long replicas have to answer, milliseconds; 0: as long as any request.
        timeout_ms: u32,
        /// Whether all replicas are asked, or one in each region.
        all: bool,
    },
    /// A message of another node's shard.
    Peer {
        /// The node, by its certificate.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// There is a connection to this node now, and to this run of it.
    PeerUp(NodeId, Actor),
    /// There is none any more.
    PeerDown(NodeId),
    /// An operator wants what this node is to begin verified now.
    Verify(VerifyDemand),
    /// Membership doubts that this node can be reached, or does not any more. It only is asked last.
    PeerDoubted(NodeId, bool),
    /// The node was found to have lost state it once had. What the disk lost while the node ran it must
    /// not take up writes without before the next start.
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
    /// A partition was verified with another replica, or could not be.
    Verified(Verified),
    /// Tell operators: replicas held what no clock explains.
    Violation(Box<Violation>),
    /// Answer an operator.
    Explained {
        /// Which request.
        caller: Caller,
        /// The answer.
        result: Result<Explanation, RequestError>,
    },
    /// Say what the replicas of this shard's partitions hold.
    Fingerprinted {
        /// Which question.
        caller: Caller,
        /// The answer.
        result: Result<Fingerprint, RequestError>,
    },
}

/// What an operator wants verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyDemand {
    /// The demand's number: handed back unread.
    pub number: u64,
    /// Only partitions of this placement.
    pub placement: Option<PlacementId>,
    /// Only with, or in, this region.
    pub region: Option<RegionId>,
    /// Only what was not verified for so long, milliseconds.
    pub older_than_ms: u64,
}

/// What became of demands, since the run's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demanded {
    /// The number of the last demand.
    pub number: u64,
    /// Pairs of a partition and a replica that are still to be verified.
    pub pending: u64,
    /// Those that were.
    pub verified: u64,
    /// Of these, the ones in which something differed and was exchanged.
    pub mended: u64,
    /// Those that could not be.
    pub failed: u64,
    /// Keys that differed.
    pub differing_keys: u64,
}

/// How a verification of a partition with another replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyEnd {
    /// Both hold the same.
    Equal,
    /// What differed was exchanged.
    Mended,
    /// The other replica did not answer in time, or was lost.
    NoAnswer,
    /// It could not look.
    Refused(Refusal),
}

/// A verification that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The partition.
    pub partition: Partition,
    /// The other replica.
    pub peer: NodeId,
    /// Keys that were compared because their digests differed; most were on their way.
    pub differing_keys: u64,
    /// How it ended.
    pub end: VerifyEnd,
}

/// A difference that no write on its way explains, or a damaged object that was refetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The partition.
    pub partition: Partition,
    /// Bucket and key.
    pub at: Place,
    /// The other replica.
    pub peer: NodeId,
    /// Whether the object here could not be read.
    pub is_damaged: bool,
    /// The values that were gone here and are restored.
    pub lost: Vec<Dot>,
    /// What was here.
    pub own: Object,
    /// What was there.
    pub theirs: Object,
}

/// Effects in the order in which they came about.
pub type Effects = Vec<Effect>;

/// What a shard counts. Only ever grows, but for what is said to be as it is now.
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
    /// Partitions that this node began to verify with another replica.
    pub verifications_begun: u64,
    /// Of those, the ones that found both equal or made them so.
    pub verifications_done: u64,
    /// Rows digested for verifications, others' too.
    pub verified_rows: u64,
    /// Keys whose digests differed.
    pub verified_keys_differing: u64,
    /// Values that a replica had lost without a trace, and were restored from another.
    pub consistency_violations: u64,
    /// Damaged objects replaced by another replica's.
    pub objects_refetched: u64,
    /// Scans that the store could not do.
    pub scans_failed: u64,
    /// Most siblings in one answer since the start.
    pub siblings_max: u64,
    /// Objects that were taken for other nodes, as hints.
    pub hints_kept: u64,
    /// Hints for nodes that a layout has taken out, kept for others instead.
    pub hints_moved: u64,
    /// Hints that were refused, for lack of room or another reason.
    pub hints_refused: u64,
    /// Hints that their replicas have now, and that were deleted here.
    pub hints_handed_off: u64,
    /// Hints that other nodes had kept for this one, and that were joined here.
    pub hints_received: u64,
    /// Hints that their replicas did not take when they were sent.
    pub handoffs_refused: u64,
    /// Hints that were sent and not answered in time.
    pub handoffs_lost: u64,
    /// Writes that were acknowledged, with a replica of the region lacking them and no hint for it:
    /// left to repair, which knows from the clocks what is missing.
    pub writes_unhinted: u64,
    /// Writes taken as a fallback, because no replica of the region could be reached.
    pub writes_as_fallback: u64,
    /// Reads answered from hints, because no replica could be reached.
    pub reads_from_hints: u64,
    /// Hints kept now.
    pub hints: u64,
    /// Bytes that they take now.
    pub hint_bytes: u64,
    /// Wall time since when the oldest of them is kept at most, milliseconds; 0 if there is none.
    pub hints_since_ms: u64,
    /// Pulses sent.
    pub pulses_sent: u64,
    /// Claims sent, repeated ones too.
    pub claims_sent: u64,
    /// Questions about gaps sent.
    pub gap_asks: u64,
    /// Objects sent to close others' gaps.
    pub gap_objects_sent: u64,
    /// Objects joined that closed a gap.
    pub gap_objects_joined: u64,
    /// Their bytes.
    pub gap_bytes_joined: u64,
    /// Partitions of which this node found that it has missed something that all others once had.
    pub fell_behind: u64,
    /// Answers of other replicas that said where they stand.
    pub compared: u64,
    /// Partitions for which this replica does not answer now: it has not compared them since its start.
    pub in_doubt: u64,
    /// Partitions for which it does not answer now: it takes them whole from another first.
    pub behind: u64,
    /// Own objects of which siblings went because another replica, taken whole, has overwritten them.
    pub dead_siblings_dropped: u64,
    /// Partitions taken whole from another replica.
    pub resyncs: u64,
    /// Their objects that came, repeated ones too.
    pub resync_objects: u64,
    /// Dots asked for whose keys a peer's log did not know any more.
    pub gap_dots_cut: u64,
    /// Actors of runs that ended, of any partition, of which this node has promised to take no more.
    pub runs_frozen: u64,
    /// Of which it has learned what they have.
    pub runs_closed: u64,
    /// Whose entries it has folded away.
    pub runs_folded: u64,
    /// Decisions that it refused, because it has what they say that nobody has: operators must look.
    pub ends_refused: u64,
    /// Actors that are frozen and not decided now.
    pub runs_undecided: u64,
    /// Tombstones that every replica has, and that were deleted.
    pub tombstones_removed: u64,
    /// Contexts that were cut down to what is alive, in writes of their own.
    pub contexts_reduced: u64,
    /// Entries of the log that every replica has, and that were let go.
    pub log_entries_forgotten: u64,
    /// Times that a node was put last for not answering, or kept there.
    pub breaker_trips: u64,
    /// Requests that tried whether such a node answers again.
    pub breaker_probes: u64,
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
    /// Bytes of the log's entries in memory now.
    pub log_bytes: u64,
    /// Bytes of the log's segments on disk now.
    pub log_segment_bytes: u64,
    /// Questions about gaps under way now.
    pub gap_asks_open: u64,
}
