//! Where the fuzzed shard stands: a cluster of two regions, of which it is one node.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use holm_core::context::ContextSecrets;
use holm_core::layout::{Layout, LayoutNode, LayoutSpec, PlacementSpec};
use holm_core::shard::config::{ClusterState, ShardConfig};
use holm_protocol::bucket::{BucketInfo, BucketKind, BucketPolicy};
use holm_protocol::ids::{BucketId, NodeId, Partition, PlacementId, RequestId};

/// The node whose shard is fuzzed.
pub const ME: NodeId = NodeId(1);
/// The nodes of the layout: 1 to 4 in one region, 5 to 7 in the other.
pub const NODES: [NodeId; 7] =
    [NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5), NodeId(6), NodeId(7)];
/// A node with a valid certificate that is not in the layout.
pub const STRANGER: NodeId = NodeId(99);
/// A bucket of siblings, and one in which the last writer wins.
pub const BUCKETS: [BucketId; 2] = [BucketId(1), BucketId(2)];
/// A bucket that nobody made.
pub const NO_BUCKET: BucketId = BucketId(3);
/// Enough keys that some are in partitions of other nodes.
pub const KEYS: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
/// Set in the actors of this node's runs, and in no other that an input draws by chance.
pub const OUR_RUNS: u64 = 1 << 63;
/// `2^BITS` partitions.
const BITS: u8 = 2;

static CLUSTER: LazyLock<Arc<ClusterState>> = LazyLock::new(|| Arc::new(make()));

/// The cluster.
#[must_use]
pub fn cluster() -> Arc<ClusterState> {
    CLUSTER.clone()
}

/// Its layout.
///
/// # Panics
/// Never: the cluster is made with one.
#[must_use]
pub fn layout() -> Arc<Layout> {
    match &CLUSTER.layout {
        Some(layout) => layout.clone(),
        None => unreachable!("the cluster is made with a layout"),
    }
}

/// Its partitions.
#[must_use]
pub fn partitions() -> Vec<Partition> {
    let partition = |index| Partition { placement: PlacementId(0), index };
    (0..1 << BITS).map(partition).collect()
}

/// Small limits, all of which an input can reach, with a cache that turns often.
#[must_use]
pub fn config() -> ShardConfig {
    ShardConfig { verify_every_ms: 2_000, ..ShardConfig::test_min() }
}

/// The name of a client's write.
#[must_use]
pub fn request_id(sequence: u64) -> RequestId {
    RequestId { client: 5, sequence }
}

fn make() -> ClusterState {
    let node = |id: NodeId| LayoutNode {
        id,
        addr: ([127, 0, 0, 1], 7400 + id.0 as u16).into(),
        region: if id.0 <= 4 { "east" } else { "west" }.to_owned(),
        zone: id.to_string(),
        capacity: 1,
    };
    let replication = [("east".to_owned(), 3), ("west".to_owned(), 2)].into();
    let (id, name) = (PlacementId(0), "default".to_owned());
    let placements = vec![PlacementSpec { id, name, bits: BITS, replication }];
    let spec = LayoutSpec { version: 1, nodes: NODES.map(node).to_vec(), placements };
    let layout = match Layout::compute(spec, None) {
        Ok(layout) => layout,
        Err(error) => panic!("the layout of the fuzzed shard: {error}"),
    };
    let mut buckets = BTreeMap::new();
    for (id, kind) in BUCKETS.into_iter().zip([BucketKind::Siblings, BucketKind::Lww]) {
        let policy =
            BucketPolicy { kind, max_siblings: 3, max_value: 64, ..BucketPolicy::default() };
        buckets.insert(id, BucketInfo { id, name: format!("b{}", id.0), policy });
    }
    let mut secrets = ContextSecrets::new([7; 32]);
    secrets.rotate([8; 32]);
    ClusterState { layout: Some(Arc::new(layout)), buckets, secrets: Some(secrets) }
}
