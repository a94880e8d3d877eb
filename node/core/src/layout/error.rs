//! Why a layout was refused. Nothing has happened then: the layout in force stays in force.

use core::net::SocketAddr;

use holm_protocol::ids::{NodeId, PlacementId};

use super::{
    ENCODED_BYTES_MAX, NAME_BYTES_MAX, NODES_MAX, PLACEMENTS_MAX, REGIONS_MAX, REPLICAS_MAX,
};

/// What is wrong with the description of a layout. **Nothing happened**: no layout was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Versions count up by one, so that two operators who change the same layout collide.
    #[error(
        "layout version {version} does not follow {previous}: stage the change again on top of \
         the layout in force and give it version {wanted}",
        wanted = previous.saturating_add(1)
    )]
    Version {
        /// The version that was asked for.
        version: u64,
        /// The version it should follow; 0 where there was no layout.
        previous: u64,
    },
    /// A layout without nodes can hold nothing.
    #[error("the layout has no nodes: add at least one")]
    NoNodes,
    /// More nodes than [`NODES_MAX`].
    #[error("the layout has {nodes} nodes, the limit is {NODES_MAX}: remove some")]
    TooManyNodes {
        /// How many there are.
        nodes: usize,
    },
    /// More regions than [`REGIONS_MAX`].
    #[error("the nodes are in {regions} regions, the limit is {REGIONS_MAX}: use zones instead")]
    TooManyRegions {
        /// How many there are.
        regions: usize,
    },
    /// More placements than [`PLACEMENTS_MAX`].
    #[error("the layout has {placements} placements, the limit is {PLACEMENTS_MAX}: remove some")]
    TooManyPlacements {
        /// How many there are.
        placements: usize,
    },
    /// All placements together have more replicas of partitions than [`REPLICAS_MAX`].
    #[error(
        "the placements make {replicas} replicas of partitions, the limit is {REPLICAS_MAX}: use \
         fewer partitions or placements"
    )]
    TooManyReplicas {
        /// How many there are.
        replicas: u64,
    },
    /// Two nodes have one id.
    #[error("node {node} is listed twice: give every node an id of its own")]
    DuplicateNode {
        /// The id.
        node: NodeId,
    },
    /// Two nodes have one address.
    #[error("nodes {first} and {second} have the same address {addr}: correct one of them")]
    DuplicateAddr {
        /// The address.
        addr: SocketAddr,
        /// The node with the lower id.
        first: NodeId,
        /// The node with the higher id.
        second: NodeId,
    },
    /// Peers could not reach the node there.
    #[error(
        "node {node}: nobody can connect to {addr}: give the IP address and UDP port at which \
         other nodes reach it, without a scope or flow label"
    )]
    UnusableAddr {
        /// The node.
        node: NodeId,
        /// The address.
        addr: SocketAddr,
    },
    /// Load is proportional to capacity, and a node without any could hold nothing.
    #[error("node {node} has capacity 0: give it at least 1, or remove the node")]
    ZeroCapacity {
        /// The node.
        node: NodeId,
    },
    /// A name is empty, too long, or contains control characters.
    #[error(
        "{what} name {name:?} of {owner} is not valid: use 1 to {NAME_BYTES_MAX} bytes without \
         control characters"
    )]
    BadName {
        /// What it names: a region, a zone or a placement.
        what: &'static str,
        /// Which node or placement bears it.
        owner: String,
        /// The name, cut to the longest that is allowed.
        name: String,
    },
    /// Two placements have one id.
    #[error("placement {} is listed twice: give every placement an id of its own", placement.0)]
    DuplicatePlacement {
        /// The id.
        placement: PlacementId,
    },
    /// Two placements have one name.
    #[error("two placements are called {name:?}: rename one of them")]
    DuplicatePlacementName {
        /// The name.
        name: String,
    },
    /// The number of partitions is out of range.
    #[error("placement {name:?} has {bits} partition bits: use 0 to 16")]
    Bits {
        /// The placement.
        name: String,
        /// The bits asked for.
        bits: u8,
    },
    /// The number of partitions is fixed when a placement is made: keys would change places.
    #[error(
        "placement {name:?} was made with {previous} partition bits and cannot have {bits}: keep \
         {previous}, or make a new placement and copy the data"
    )]
    BitsChanged {
        /// The placement.
        name: String,
        /// The bits asked for.
        bits: u8,
        /// The bits it has.
        previous: u8,
    },
    /// A placement that keeps no copy anywhere.
    #[error("placement {name:?} keeps no replicas in any region: give a region a factor above 0")]
    NoReplicas {
        /// The placement.
        name: String,
    },
    /// A placement names a region that no node is in.
    #[error(
        "placement {name:?} wants {replicas} replicas in region {region:?}, where there is no \
         node: add nodes there, or correct the region's name"
    )]
    UnknownRegion {
        /// The placement.
        name: String,
        /// The region.
        region: String,
        /// The replication factor asked for.
        replicas: u8,
    },
    /// A region has fewer nodes than a partition has replicas there.
    #[error(
        "placement {name:?} wants {replicas} replicas in region {region:?}, which has {nodes} \
         nodes: add nodes there, or lower the factor"
    )]
    TooFewNodes {
        /// The placement.
        name: String,
        /// The region.
        region: String,
        /// The replication factor asked for.
        replicas: u8,
        /// The nodes there are.
        nodes: usize,
    },
}

/// Why bytes are not a layout. **Nothing happened**: they are dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutDecodeError {
    /// Longer than any layout; nothing was read.
    #[error("an encoded layout of {bytes} bytes: the limit is {ENCODED_BYTES_MAX}")]
    TooLong {
        /// How long the input is.
        bytes: usize,
    },
    /// Not the encoding of a layout of a format this version knows, or damaged.
    #[error("not an encoded layout, or one of a newer format: upgrade this node or send it again")]
    Malformed,
    /// Nodes or placements are not in their one order, or a factor of 0 is spelled out.
    #[error("an encoded layout whose nodes or placements are not in canonical order")]
    NotCanonical,
    /// The description is refused.
    #[error("an encoded layout that describes an impossible cluster: {0}")]
    Spec(#[from] LayoutError),
    /// The assignment has not the length that the description asks for.
    #[error("an encoded layout assigns {entries} replicas, its description asks for {wanted}")]
    Length {
        /// How many there are.
        entries: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// A replica is no node, a node of another region, or twice the same.
    #[error(
        "placement {} assigns partition {partition} to an unknown, misplaced or repeated node",
        placement.0
    )]
    Replica {
        /// The placement.
        placement: PlacementId,
        /// The partition's index.
        partition: usize,
    },
}
