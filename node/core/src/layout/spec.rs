//! What the operator decides: nodes, and placements with their replication factors.
//!
//! A spec has one canonical form: nodes by id, placements by id, no region with a factor of 0.
//! Everything that is compared, hashed, stored or sent is in that form.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::ids::{NodeId, Partition, PlacementId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    LayoutError, NAME_BYTES_MAX, NODES_MAX, PLACEMENTS_MAX, REGIONS_MAX, REPLICAS_MAX, bounded,
};

/// One node as the operator described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutNode {
    /// Its name for as long as it is in the layout.
    pub id: NodeId,
    /// Where peers and clients reach it (UDP).
    pub addr: SocketAddr,
    /// The region it is in: 1 to [`NAME_BYTES_MAX`] bytes.
    pub region: String,
    /// What it may fail together with inside the region: 1 to [`NAME_BYTES_MAX`] bytes.
    pub zone: String,
    /// Its share of the load, relative to the other nodes of its region; at least 1.
    pub capacity: u32,
}

/// A named choice of regions with a replication factor for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementSpec {
    /// Its number, which partitions and buckets use.
    pub id: PlacementId,
    /// What people call it: 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// It has `2^bits` partitions (0 to 16), fixed when it is made.
    pub bits: u8,
    /// Replicas of each partition, by region name. A region that is not listed has none.
    #[serde(deserialize_with = "bounded::map::<_, _, _, REGIONS_MAX>")]
    pub replication: BTreeMap<String, u8>,
}

impl PlacementSpec {
    /// Bits unless the operator says otherwise: 256 partitions, enough to balance some thirty
    /// nodes a region within a few percent, few enough that their clocks cost little.
    pub const BITS_DEFAULT: u8 = 8;

    /// How many partitions the placement has.
    #[must_use]
    pub fn partitions(&self) -> usize {
        1 << self.bits.min(Partition::BITS_MAX)
    }

    /// How many replicas a partition has in all regions together.
    #[must_use]
    pub fn width(&self) -> usize {
        self.replication.values().map(|&factor| usize::from(factor)).sum()
    }
}

/// The decisions from which a [`Layout`](super::Layout) is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutSpec {
    /// Counts up by one with every change; the first is 1.
    pub version: u64,
    /// The nodes, in any order.
    #[serde(deserialize_with = "bounded::list::<_, _, NODES_MAX>")]
    pub nodes: Vec<LayoutNode>,
    /// The placements, in any order.
    #[serde(deserialize_with = "bounded::list::<_, _, PLACEMENTS_MAX>")]
    pub placements: Vec<PlacementSpec>,
}

impl LayoutSpec {
    /// The canonical form: sorted by id, without regions whose factor is 0.
    #[must_use]
    pub fn canonical(mut self) -> LayoutSpec {
        self.nodes.sort_by_key(|node| node.id);
        self.placements.sort_by_key(|placement| placement.id);
        for placement in &mut self.placements {
            placement.replication.retain(|_, factor| *factor > 0);
        }
        self
    }

    /// How many of so many replicas in a region its nodes have room for.
    #[must_use]
    pub fn at_most(&self, region: &str, factor: u8) -> u8 {
        let nodes = self.nodes.iter().filter(|node| node.region == region).count();
        u8::try_from(nodes).map_or(factor, |nodes| factor.min(nodes))
    }

    /// A fingerprint of the canonical form: equal for specs that describe the same cluster.
    #[must_use]
    pub fn digest(&self) -> u64 {
        // A spec is numbers, strings, lists and maps, all of which postcard can encode into memory.
        let bytes = postcard::to_stdvec(&self.clone().canonical()).unwrap_or_default();
        xxh3_64(&bytes)
    }

    /// Checks everything that can be checked without another layout, on the canonical form.
    pub(super) fn validate(&self) -> Result<(), LayoutError> {
        if self.version == 0 {
            return Err(LayoutError::Version { version: 0, previous: 0 });
        }
        self.validate_nodes()?;
        let mut per_region: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &self.nodes {
            *per_region.entry(&node.region).or_default() += 1;
        }
        if per_region.len() > REGIONS_MAX {
            return Err(LayoutError::TooManyRegions { regions: per_region.len() });
        }
        if self.placements.len() > PLACEMENTS_MAX {
            return Err(LayoutError::TooManyPlacements { placements: self.placements.len() });
        }
        let mut names = BTreeSet::new();
        let mut replicas: u64 = 0;
        for (at, placement) in self.placements.iter().enumerate() {
            if at > 0 && self.placements[at - 1].id == placement.id {
                return Err(LayoutError::DuplicatePlacement { placement: placement.id });
            }
            validate_placement(placement, &per_region)?;
            if !names.insert(&placement.name) {
                return Err(LayoutError::DuplicatePlacementName { name: placement.name.clone() });
            }
            replicas += (placement.partitions() * placement.width()) as u64;
        }
        if replicas > REPLICAS_MAX {
            return Err(LayoutError::TooManyReplicas { replicas });
        }
        Ok(())
    }

    fn validate_nodes(&self) -> Result<(), LayoutError> {
        if self.nodes.is_empty() {
            return Err(LayoutError::NoNodes);
        }
        if self.nodes.len() > NODES_MAX {
            return Err(LayoutError::TooManyNodes { nodes: self.nodes.len() });
        }
        let mut addrs: BTreeMap<SocketAddr, NodeId> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if at > 0 && self.nodes[at - 1].id == node.id {
                return Err(LayoutError::DuplicateNode { node: node.id });
            }
            let labelled = match node.addr {
                SocketAddr::V4(_) => false,
                SocketAddr::V6(addr) => addr.scope_id() != 0 || addr.flowinfo() != 0,
            };
            if labelled || node.addr.port() == 0 || node.addr.ip().is_unspecified() {
                return Err(LayoutError::UnusableAddr { node: node.id, addr: node.addr });
            }
            if let Some(first) = addrs.insert(node.addr, node.id) {
                let (addr, second) = (node.addr, node.id);
                return Err(LayoutError::DuplicateAddr { addr, first, second });
            }
            if node.capacity == 0 {
                return Err(LayoutError::ZeroCapacity { node: node.id });
            }
            validate_name("region", &node.region, || format!("node {}", node.id))?;
            validate_name("zone", &node.zone, || format!("node {}", node.id))?;
        }
        Ok(())
    }
}

fn validate_placement(
    placement: &PlacementSpec,
    per_region: &BTreeMap<&str, usize>,
) -> Result<(), LayoutError> {
    let name = || placement.name.clone();
    let owner = || format!("placement {}", placement.id.0);
    validate_name("placement", &placement.name, owner)?;
    if placement.bits > Partition::BITS_MAX {
        return Err(LayoutError::Bits { name: name(), bits: placement.bits });
    }
    if placement.width() == 0 {
        return Err(LayoutError::NoReplicas { name: name() });
    }
    for (region, &replicas) in &placement.replication {
        validate_name("region", region, owner)?;
        let nodes = per_region.get(region.as_str()).copied().unwrap_or(0);
        let region = || region.clone();
        if nodes == 0 {
            return Err(LayoutError::UnknownRegion { name: name(), region: region(), replicas });
        }
        if nodes < usize::from(replicas) {
            return Err(LayoutError::TooFewNodes {
                name: name(),
                region: region(),
                replicas,
                nodes,
            });
        }
    }
    Ok(())
}

fn validate_name(
    what: &'static str,
    name: &str,
    owner: impl Fn() -> String,
) -> Result<(), LayoutError> {
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Err(LayoutError::BadName { what, owner: owner(), name: name[..end].to_owned() })
}
