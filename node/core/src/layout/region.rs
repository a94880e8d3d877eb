//! One region as one placement sees it: the problem that is solved on its own.

use std::collections::BTreeMap;

use holm_protocol::ids::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use super::{LayoutSpec, PlacementSpec};

/// The nodes of a region, by position (ascending ids), and what the placement wants of them.
#[derive(Debug)]
pub(super) struct Region {
    /// How many partitions there are: `P`.
    pub(super) partitions: usize,
    /// How many replicas of each: `r`, at least 1 and at most the number of nodes.
    pub(super) replicas: usize,
    /// How many zones a complete row must be in: as many as there are, at most `r`.
    pub(super) spread: usize,
    /// Per node its capacity, at least 1.
    pub(super) capacities: Vec<u32>,
    /// Per node its zone's position.
    pub(super) zones: Vec<u16>,
    /// Per zone its nodes, ascending.
    pub(super) members: Vec<Vec<u16>>,
    ids: Vec<NodeId>,
    /// Per node its position in the layout's list of nodes.
    globals: Vec<u16>,
    /// Differs between placements and between regions.
    seed: u64,
}

impl Region {
    /// The part of a canonical, validated spec that concerns one region of one placement.
    pub(super) fn new(spec: &LayoutSpec, placement: &PlacementSpec, name: &str) -> Region {
        let here = || spec.nodes.iter().enumerate().filter(|(_, node)| node.region == name);
        let mut zone_of: BTreeMap<&str, u16> =
            here().map(|(_, node)| (node.zone.as_str(), 0)).collect();
        for (at, zone) in zone_of.values_mut().enumerate() {
            *zone = at as u16; // Not more zones than nodes, and those are below 2^16.
        }
        let zones: Vec<u16> = here().map(|(_, node)| zone_of[node.zone.as_str()]).collect();
        let mut members = vec![Vec::new(); zone_of.len()];
        for (node, &zone) in zones.iter().enumerate() {
            members[usize::from(zone)].push(node as u16);
        }
        let replicas = usize::from(placement.replication.get(name).copied().unwrap_or(0));
        let mut seed = placement.id.0.to_be_bytes().to_vec();
        seed.extend_from_slice(name.as_bytes());
        Region {
            partitions: placement.partitions(),
            replicas,
            spread: replicas.min(members.len()),
            capacities: here().map(|(_, node)| node.capacity).collect(),
            zones,
            members,
            ids: here().map(|(_, node)| node.id).collect(),
            globals: here().map(|(at, _)| at as u16).collect(),
            seed: xxh3_64(&seed),
        }
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.ids.len()
    }

    /// The position of a node within the region, if it is here.
    pub(super) fn local(&self, id: NodeId) -> Option<u16> {
        self.ids.binary_search(&id).ok().map(|at| at as u16)
    }

    /// The position of a node in the layout's list.
    pub(super) fn global(&self, node: u16) -> u16 {
        self.globals[usize::from(node)]
    }

    /// How much a partition prefers a node; breaks ties, by id and not by position.
    pub(super) fn weight(&self, partition: usize, node: u16) -> u64 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.ids[usize::from(node)].0.to_be_bytes());
        bytes[16..].copy_from_slice(&(partition as u64).to_be_bytes());
        xxh3_64(&bytes)
    }

    /// A stream of numbers for one partition.
    pub(super) fn draws(&self, partition: usize) -> Draws {
        Draws(self.seed ^ xxh3_64(&(partition as u64).to_be_bytes()))
    }

    /// How many zones a row of nodes is in.
    pub(super) fn zones_of(&self, row: &[u16]) -> usize {
        let zone = |node: u16| self.zones[usize::from(node)];
        let first = |at: usize| !row[..at].iter().any(|&other| zone(other) == zone(row[at]));
        (0..row.len()).filter(|&at| first(at)).count()
    }

    /// How many of a row's nodes are in a zone.
    pub(super) fn in_zone(&self, row: &[u16], zone: u16) -> usize {
        row.iter().filter(|&&node| self.zones[usize::from(node)] == zone).count()
    }

    /// Whether a row, complete or not, can be completed to one that is in enough zones: not too
    /// many replicas, and not too many of them second in their zone.
    pub(super) fn is_legal(&self, row: &[u16]) -> bool {
        let doubled = row.len() - self.zones_of(row);
        row.len() <= self.replicas && doubled <= self.replicas - self.spread
    }

    /// Whether a legal row stays legal with another node. The node is not in the row.
    pub(super) fn may_add(&self, row: &[u16], node: u16) -> bool {
        let fresh = self.in_zone(row, self.zones[usize::from(node)]) == 0;
        let doubled = row.len() - self.zones_of(row);
        row.len() < self.replicas && (fresh || doubled < self.replicas - self.spread)
    }

    /// Whether a complete, legal row stays so if `to`, not in it, takes the place of `from`.
    pub(super) fn may_replace(&self, row: &[u16], from: u16, to: u16) -> bool {
        let (old, new) = (self.zones[usize::from(from)], self.zones[usize::from(to)]);
        if old == new {
            return true;
        }
        let lost = usize::from(self.in_zone(row, old) == 1);
        let won = usize::from(self.in_zone(row, new) == 0);
        self.zones_of(row) + won >= self.spread + lost
    }
}

/// Numbers that are spread evenly and the same on every machine (splitmix64).
#[derive(Debug)]
pub(super) struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        // The product's upper half is below the limit.
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// Puts a list into an order of its own (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }
}
