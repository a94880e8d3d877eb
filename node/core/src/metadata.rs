//! What all nodes must come to agree on besides the data: layout, buckets, secrets.
//!
//! # The problem
//! Layouts and buckets are changed at any node, at any time, also while regions are cut off from
//! each other. There is no leader to order the changes and no log to replay: nodes hand each other
//! their whole [`Metadata`], which is small, and whatever the order in which they meet, they must
//! end with the same value.
//!
//! # The rule
//! [`Metadata::merge`] takes in what another node holds. It is commutative, associative and
//! idempotent as long as it refuses nothing, and it either takes in everything or changes nothing.
//! - *Layout*: the highest version wins. Two layouts of one version are a conflict: two operators
//!   applied on both sides of a cut, and holm does not choose between them.
//! - *Secrets* are made together with the first layout and belong to the cluster for good. One
//!   layout applied at two nodes (an operator repeats elsewhere what timed out) makes two: every
//!   node then keeps both, and seals with the one whose key is smallest (`secrets`). Where layouts
//!   differ, secrets that have nothing in common are a conflict: two clusters of one name.
//! - *Buckets*: a map from id to the last policy written, ordered by `(version, node)`. A bucket's
//!   id is a hash of its name, so two regions that create one bucket while cut off from each other
//!   made the *same* bucket, of which one policy stays. Kind and placement are fixed when a bucket
//!   is made: the node that changes a bucket refuses to change them. Only such a concurrent
//!   creation can decide them later than a write, and then in the same way everywhere.
//! - Two names with one hash are a conflict, never one bucket: their keys would mix.
//!
//! A conflict leaves both nodes as they were, working, and in disagreement until an operator
//! decides; the shell counts and logs it.
//!
//! # Invariants
//! A layout and the secrets are there together or not at all. Every bucket has the id of its name
//! and a policy that [`BucketPolicy::check`] accepts. [`Metadata::decode`] builds nothing else,
//! whatever the bytes (I8). What is encoded contains the secrets: it travels between authenticated
//! nodes and lies in their stores, nowhere else; no `Debug` shows them.
//!
//! # What is left out
//! Changes of a layout that is in force other than leaving out dead nodes (`removal`), removing buckets,
//! rotating secrets across the cluster.

mod change;
mod codec;
mod error;
mod removal;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use holm_protocol::admin::{ClusterView, NodeInfo, PlacementInfo, PlacementView};
use holm_protocol::bucket::BucketInfo;
#[cfg(doc)]
use holm_protocol::bucket::BucketPolicy;
use holm_protocol::handshake::MetadataVersion;
use holm_protocol::ids::{BucketId, Hlc, NodeId, Partition};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::context::ContextSecrets;
use crate::layout::{Layout, LayoutNode, PlacementSpec};
use crate::shard::config::ClusterState;

pub use codec::ENCODED_BYTES_MAX;
pub use error::{MetadataConflict, MetadataDecodeError};

/// The most buckets a node lets operators create. Arbitrary: a bucket costs every node and client
/// a hundred bytes, and whoever needs thousands should put what tells them apart into the key.
pub const BUCKETS_MAX: usize = 1024;

/// The most buckets that a merge accepts: what sixteen sides of a cut, each up to
/// [`BUCKETS_MAX`], created.
pub const BUCKETS_HARD_MAX: usize = 16 * BUCKETS_MAX;

/// The id of the bucket with this name: xxh3-64 of the name, its halves XORed.
#[must_use]
pub fn bucket_id(name: &str) -> BucketId {
    let hash = xxh3_64(name.as_bytes());
    BucketId((hash >> 32) as u32 ^ hash as u32)
}

/// A bucket and the write that made it what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEntry {
    /// The bucket.
    pub info: BucketInfo,
    /// When it got this policy.
    pub version: Hlc,
    /// The node that was told to.
    pub node: NodeId,
}

impl BucketEntry {
    /// Whether this entry stays where both are known. A node never issues one version twice, so
    /// the contents decide only between entries that a faulty node made; but they must not be
    /// left to the order of arrival.
    fn wins_over(&self, other: &BucketEntry) -> bool {
        let order = (self.version, self.node).cmp(&(other.version, other.node));
        order.then_with(|| codec::compare(&self.info, &other.info)).is_gt()
    }
}

/// The cluster's metadata as one node knows it; see the [module](self). Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Metadata {
    cluster: String,
    layout: Option<Arc<Layout>>,
    secrets: Option<ContextSecrets>,
    buckets: BTreeMap<BucketId, BucketEntry>,
}

impl fmt::Debug for Metadata {
    /// Shows the layout by version and digest, and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = self.layout.as_ref().map(|layout| (layout.version(), layout.digest()));
        f.debug_struct("Metadata")
            .field("cluster", &self.cluster)
            .field("layout", &layout)
            .field("secrets", &self.secrets)
            .field("buckets", &self.buckets)
            .finish()
    }
}

impl Metadata {
    /// That of a cluster before its first layout.
    #[must_use]
    pub fn new(cluster: &str) -> Metadata {
        let cluster = cluster.to_owned();
        Metadata { cluster, layout: None, secrets: None, buckets: BTreeMap::new() }
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The layout in force.
    #[must_use]
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// The buckets, by id.
    #[must_use]
    pub fn buckets(&self) -> &BTreeMap<BucketId, BucketEntry> {
        &self.buckets
    }

    /// Takes in what another node holds. Returns whether anything changed.
    ///
    /// # Errors
    /// [`MetadataConflict`]; **nothing happened** then.
    pub fn merge(&mut self, other: Metadata) -> Result<bool, MetadataConflict> {
        self.check_mergeable(&other)?;
        let mut changed = false;
        let version = |layout: &Option<Arc<Layout>>| layout.as_ref().map(|one| one.version());
        if version(&other.layout) > version(&self.layout) {
            self.layout = other.layout;
            changed = true;
        }
        let both = secrets::merged(self.secrets.as_ref(), other.secrets.as_ref());
        if self.secrets != both {
            self.secrets = both;
            changed = true;
        }
        for (id, theirs) in other.buckets {
            match self.buckets.entry(id) {
                Entry::Vacant(vacant) => {
                    vacant.insert(theirs);
                    changed = true;
                }
                Entry::Occupied(mut ours) if theirs.wins_over(ours.get()) => {
                    ours.insert(theirs);
                    changed = true;
                }
                Entry::Occupied(_) => {}
            }
        }
        assert_eq!(self.layout.is_some(), self.secrets.is_some());
        Ok(changed)
    }

    fn check_mergeable(&self, other: &Metadata) -> Result<(), MetadataConflict> {
        if self.cluster != other.cluster {
            let (ours, theirs) = (self.cluster.clone(), other.cluster.clone());
            return Err(MetadataConflict::Cluster { ours, theirs });
        }
        if let (Some(ours), Some(theirs)) = (&self.layout, &other.layout)
            && ours.version() == theirs.version()
            && ours.digest() != theirs.digest()
        {
            let (version, ours, theirs) = (ours.version(), ours.digest(), theirs.digest());
            return Err(MetadataConflict::Layout { version, ours, theirs });
        }
        let digest = |layout: &Option<Arc<Layout>>| layout.as_ref().map(|one| one.digest());
        if let (Some(ours), Some(theirs)) = (&self.secrets, &other.secrets)
            && digest(&self.layout) != digest(&other.layout)
            && !secrets::in_common(ours, theirs)
        {
            return Err(MetadataConflict::Secrets);
        }
        let mut buckets = self.buckets.len();
        for (id, theirs) in &other.buckets {
            match self.buckets.get(id) {
                Some(ours) if ours.info.name != theirs.info.name => {
                    let (ours, theirs) = (ours.info.name.clone(), theirs.info.name.clone());
                    return Err(MetadataConflict::BucketName { id: *id, ours, theirs });
                }
                Some(_) => {}
                None => buckets += 1,
            }
        }
        if buckets > BUCKETS_HARD_MAX {
            return Err(MetadataConflict::TooManyBuckets { buckets });
        }
        Ok(())
    }

    /// What the handshake says of it: equal on nodes that hold the same.
    #[must_use]
    pub fn version(&self) -> MetadataVersion {
        let layout = self.layout.as_ref().map_or(0, |layout| layout.version());
        MetadataVersion { layout, digest: self.digest() }
    }

    /// What clients route by.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        let buckets = self.buckets.values().map(|entry| entry.info.clone()).collect();
        let mut view = ClusterView {
            cluster: self.cluster.clone(),
            layout_version: 0,
            regions: Vec::new(),
            nodes: Vec::new(),
            placements: Vec::new(),
            buckets,
        };
        if let Some(layout) = &self.layout {
            view.layout_version = layout.version();
            view.regions = layout.regions().to_vec();
            view.nodes = layout.nodes().iter().map(node_info).collect();
            let placements = layout.placements().iter();
            view.placements = placements.map(|spec| placement_view(layout, spec)).collect();
        }
        view
    }

    /// What shards work with. The layout is shared, not copied.
    #[must_use]
    pub fn state(&self) -> ClusterState {
        ClusterState {
            layout: self.layout.clone(),
            buckets: self.buckets.iter().map(|(id, entry)| (*id, entry.info.clone())).collect(),
            secrets: self.secrets.clone(),
        }
    }
}

fn node_info(node: &LayoutNode) -> NodeInfo {
    NodeInfo {
        id: node.id,
        addr: node.addr,
        region: node.region.clone(),
        zone: node.zone.clone(),
        capacity: node.capacity,
    }
}

fn placement_view(layout: &Layout, spec: &PlacementSpec) -> PlacementView {
    let nodes = layout.nodes();
    let row = |index: usize| {
        // At most 2^16 partitions and 4,096 nodes: the casts lose nothing.
        let partition = Partition { placement: spec.id, index: index as u16 };
        let position = |id: &NodeId| nodes.binary_search_by_key(id, |node| node.id).ok();
        let replicas = layout.replicas(partition).iter();
        replicas.filter_map(position).map(|at| at as u16).collect()
    };
    PlacementView {
        info: PlacementInfo {
            id: spec.id,
            name: spec.name.clone(),
            bits: spec.bits,
            replication: spec.replication.iter().map(|(name, n)| (name.clone(), *n)).collect(),
        },
        replicas: (0..spec.partitions()).map(row).collect(),
    }
}
