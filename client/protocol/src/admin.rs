//! Rare messages: the cluster's view, status, buckets, layout, explanations, development switches.
//!
//! Their bodies are postcard of [`AdminRequest`] and [`AdminReply`]. Variants are only ever added at
//! the end: their position is their number.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketInfo, BucketPolicy};
use crate::dot::Dot;
use crate::ids::{Actor, BucketId, Hlc, NodeId, Partition, PlacementId, RegionId};
use crate::limits::FRAME_LEN_MAX;

/// What an operator, or a client on its own behalf, asks a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AdminRequest {
    /// Layout and buckets, for routing. Any role.
    View,
    /// The node's own state. Role `admin`.
    Status,
    /// Creates a bucket, or changes the policy of one. Role `admin`.
    Bucket(BucketChange),
    /// Makes this the cluster's layout. Role `admin`.
    ApplyLayout(LayoutProposal),
    /// Says what this layout would be, without applying it. Role `admin`.
    PlanLayout(LayoutProposal),
    /// Where a key lives and what each of its replicas holds. Role `admin`.
    Explain {
        /// The bucket.
        bucket: BucketId,
        /// The key.
        key: Bytes,
    },
    /// Sets what the development switch at the node's socket does to packets. Role `admin`, and only
    /// in development mode.
    Links(Vec<LinkRule>),
    /// What the node thinks of each other node. Role `admin`.
    Members,
    /// Verifies now what the node holds, with the other replicas of which it begins. Role `admin`.
    Repair(RepairScope),
    /// How far the node has come with that. Role `admin`.
    RepairProgress,
}

/// A node's answer to an [`AdminRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AdminReply {
    /// To [`AdminRequest::View`].
    View(ClusterView),
    /// To [`AdminRequest::Status`].
    Status(NodeStatus),
    /// To [`AdminRequest::Bucket`]: the bucket as it is now.
    Bucket(BucketInfo),
    /// To [`AdminRequest::ApplyLayout`] and [`AdminRequest::PlanLayout`].
    Layout(LayoutSummary),
    /// To [`AdminRequest::Explain`].
    Explain(Explanation),
    /// To what has nothing to say but that it was done.
    Done,
    /// To [`AdminRequest::Members`].
    Members(MembershipStatus),
    /// To [`AdminRequest::Repair`] and [`AdminRequest::RepairProgress`].
    Repair(RepairProgress),
}

/// A bucket to be made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketChange {
    /// Its name.
    pub name: String,
    /// Its policy from now on.
    pub policy: BucketPolicy,
    /// Whether it must not exist yet (`create`), or must (`set`).
    pub create: bool,
}

/// A node as the operator describes it in a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node.
    pub id: NodeId,
    /// Where it listens, for nodes and clients.
    pub addr: SocketAddr,
    /// Its region.
    pub region: String,
    /// Its zone within the region: what fails together.
    pub zone: String,
    /// Its share of the data, relative to the other nodes of its region.
    pub capacity: u32,
}

/// A placement as the operator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementInfo {
    /// The placement.
    pub id: PlacementId,
    /// Its name.
    pub name: String,
    /// `2^bits` partitions, fixed at creation.
    pub bits: u8,
    /// Replication factor by region name.
    pub replication: Vec<(String, u8)>,
}

/// A layout to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutProposal {
    /// The version it will have: one above the one in force, so that two operators cannot
    /// overwrite each other unknowingly.
    pub version: u64,
    /// The nodes.
    pub nodes: Vec<NodeInfo>,
    /// The placements.
    pub placements: Vec<PlacementInfo>,
}

/// What a layout is, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutSummary {
    /// Its version.
    pub version: u64,
    /// Its digest.
    pub digest: u64,
    /// Per node: how many partition replicas it holds.
    pub load: Vec<(NodeId, u32)>,
    /// Partition replicas that move to another node.
    pub moves: u32,
}

/// A placement's assignment, for routing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementView {
    /// The placement.
    pub info: PlacementInfo,
    /// Per partition: its replicas, as indices into [`ClusterView::nodes`], grouped by region.
    pub replicas: Vec<Vec<u16>>,
}

/// What a client needs to route and name things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: String,
    /// The layout's version, 0 if none has been applied.
    pub layout_version: u64,
    /// Region names, sorted; a [`RegionId`] is an index here.
    pub regions: Vec<String>,
    /// Nodes, sorted by id.
    pub nodes: Vec<NodeInfo>,
    /// Placements, sorted by id.
    pub placements: Vec<PlacementView>,
    /// Buckets, sorted by id.
    pub buckets: Vec<BucketInfo>,
}

/// A node's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub run: Actor,
    /// Its software version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The layout's version, 0 if none.
    pub layout_version: u64,
    /// Whether it serves requests, or why not, in words.
    pub ready: Result<(), String>,
    /// Whether it lost state it once had and has not yet taken it from others (see
    /// [`crate::error::NotReady::Behind`]).
    pub amnesia: bool,
    /// The other nodes as it sees them.
    pub peers: Vec<PeerStatus>,
    /// Requests in flight in its shards.
    pub in_flight: u32,
    /// Partitions it holds a replica of.
    pub partitions: u32,
}

/// How a node sees another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The other node.
    pub node: NodeId,
    /// Whether there is a connection.
    pub connected: bool,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u64,
}

/// Which start of a node an opinion is about. A higher one is newer, and makes every opinion about a
/// lower one worthless.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Counts the node's starts; persisted by it.
    pub boot: u64,
    /// Counts within one start how often it had to contradict the opinion that it is down.
    pub renewal: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Epoch { boot, renewal: 0 } => write!(f, "{boot}"),
            Epoch { boot, renewal } => write!(f, "{boot}.{renewal}"),
        }
    }
}

/// What one node thinks of another.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[non_exhaustive]
pub enum MemberState {
    /// It answers, or others say so.
    Alive,
    /// It did not answer a probe, neither directly nor through others, and may still object.
    Suspect,
    /// It has not objected in time.
    Down,
    /// It has said that it stops.
    Left,
    /// Nothing has been heard of it, or so long ago that it is forgotten.
    #[default]
    Unknown,
}

impl MemberState {
    /// Every state, in order.
    pub const ALL: [MemberState; 5] = [
        MemberState::Alive,
        MemberState::Suspect,
        MemberState::Down,
        MemberState::Left,
        MemberState::Unknown,
    ];

    /// Its name in tables, JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Down => "down",
            MemberState::Left => "left",
            MemberState::Unknown => "unknown",
        }
    }
}

/// Whether a node's requests go to another one as usual.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[non_exhaustive]
pub enum BreakerState {
    /// They do.
    #[default]
    Closed,
    /// One request is under way to find out whether they can again.
    Probing,
    /// Others are asked first: it has left too many requests without an answer.
    Open,
}

impl BreakerState {
    /// Its name in tables, JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Probing => "probing",
            BreakerState::Open => "open",
        }
    }
}

/// How far another node's clock is from the asked node's, as measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Its clock minus the asked node's, microseconds.
    pub offset_us: i64,
    /// By how much this may be wrong at most: half the round trip, microseconds.
    pub error_us: u64,
    /// How long ago it was measured, milliseconds.
    pub age_ms: u64,
}

/// What a node thinks of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipStatus {
    /// The node.
    pub node: NodeId,
    /// Its own epoch.
    pub epoch: Epoch,
    /// How often it has contradicted suspicions in this epoch.
    pub incarnation: u16,
    /// How far clocks may be apart, by its configuration, milliseconds.
    pub max_clock_skew_ms: u64,
    /// The nodes of its layout, and others that it has heard of, sorted by id.
    pub peers: Vec<PeerOpinion>,
}

/// What a node thinks of one other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOpinion {
    /// The other node.
    pub node: NodeId,
    /// What it thinks.
    pub state: MemberState,
    /// Of which start.
    pub epoch: Epoch,
    /// The incarnation that this is about.
    pub incarnation: u16,
    /// For how long it has thought so, milliseconds.
    pub since_ms: u64,
    /// Where the other node was last heard from.
    pub addr: Option<SocketAddr>,
    /// Whether there is a connection.
    pub connected: bool,
    /// Smoothed round-trip time, microseconds; 0 without a connection.
    pub rtt_us: u64,
    /// The other node's clock; `None` if it has not been measured.
    pub clock: Option<ClockOffset>,
    /// Whether requests go there: the worst of what the node's shards think.
    pub breaker: BreakerState,
}

/// What is to be verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairScope {
    /// Only partitions of this placement: those of a bucket.
    pub placement: Option<PlacementId>,
    /// Only pairs of replicas of which one is in this region.
    pub region: Option<RegionId>,
    /// Only what was not verified for so long, seconds.
    pub older_than_s: u64,
}

/// What a node has verified on demand. A range is a partition with one other replica; of two replicas
/// the lower one begins. All are counted since the run's start: a report is the difference of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairProgress {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub run: Actor,
    /// The number of the last demand that all its shards know of; in the answer to one, that one's.
    pub demand: u64,
    /// Ranges still to be verified.
    pub pending: u64,
    /// Ranges verified.
    pub verified: u64,
    /// Of these, the ones in which something differed and was exchanged.
    pub mended: u64,
    /// Ranges that could not be verified: the other replica was gone, or refused.
    pub failed: u64,
    /// Keys that differed, those on their way included.
    pub keys_differing: u64,
    /// Values restored that had been lost without a trace, also by verifications of others.
    pub violations: u64,
    /// Damaged objects replaced, also by verifications of others.
    pub refetched: u64,
}

/// Where a key lives and what each replica holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The key's partition.
    pub partition: Partition,
    /// Who asked the replicas.
    pub asked_by: NodeId,
    /// The preference list: replicas, then the fallbacks of the asking node's region.
    pub members: Vec<ExplainedMember>,
}

/// One member of a preference list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedMember {
    /// The node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Whether it is a replica of the partition, or a fallback.
    pub replica: bool,
    /// What it holds, a fallback for others; `None` if it did not answer in time or was not asked.
    pub state: Option<ReplicaState>,
}

/// What one replica holds of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplicaState {
    /// Digest of the object: equal on replicas that agree. 0 if absent.
    pub digest: u64,
    /// Each sibling's dot, clock reading and length in bytes.
    pub siblings: Vec<(Dot, Hlc, u32)>,
    /// The context, as dots.
    pub context: Vec<Dot>,
    /// The replica's clock of the partition: per actor the contiguous prefix, and how many
    /// counters it has seen beyond.
    pub clock: Vec<(Dot, u64)>,
    /// Why it could not say, if it could not.
    pub fault: Option<String>,
    /// What it keeps of the key for others until they can take it.
    pub hints: Vec<HintState>,
    /// What verification found here that no clock explains, the last of it first.
    pub violations: Vec<ViolationState>,
}

/// What verification with another replica found here of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViolationState {
    /// When, wall milliseconds.
    pub found_ms: u64,
    /// The other replica.
    pub with: NodeId,
    /// Whether the object here could not be read, and was replaced.
    pub damaged: bool,
    /// The values that were gone here and were restored.
    pub lost: Vec<Dot>,
}

/// What a node keeps of one key for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintState {
    /// The replica that it is for.
    pub replica: NodeId,
    /// Its length.
    pub bytes: u32,
    /// Since when anything of it is kept, wall milliseconds.
    pub since_ms: u64,
}

/// What the development switch does to packets towards one region or node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRule {
    /// The node at the other end.
    pub to: NodeId,
    /// One-way delay added to every packet sent there, microseconds.
    pub delay_us: u64,
    /// Whether every packet sent there is dropped.
    pub cut: bool,
}

/// Encodes a rare message.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising plain structs and enums into a growing vector has no way to fail.
    postcard::to_extend(message, Vec::new()).unwrap_or_default()
}

/// Decodes a rare message, whole.
///
/// # Errors
/// `None` if the bytes are no such message, or bytes are left over.
#[must_use]
pub fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > FRAME_LEN_MAX {
        return None;
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}
