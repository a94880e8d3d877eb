//! What a request needs to know before anything is done: where its key lives, who must answer, and
//! whether there is room for it.

use std::sync::Arc;

use holm_protocol::bucket::{BucketKind, BucketPolicy};
use holm_protocol::error::{NotReady, RequestError};
use holm_protocol::ids::{BucketId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::limits::KEY_LEN_MAX;

use crate::layout::Layout;
use crate::object::ObjectKind;
use crate::quorum::Quorum;
use crate::shard::Shard;

/// Where a key lives, and how its bucket treats it.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) layout: Arc<Layout>,
    pub(super) region: RegionId,
    pub(super) policy: BucketPolicy,
    pub(super) partition: Partition,
    /// Whether this node is a replica.
    pub(super) replica: bool,
}

impl Route {
    /// Refuses `local_quorum` where there is no local replica: another region's quorum would be
    /// something else than was asked for.
    pub(super) fn check_region(&self, level: Level) -> Result<(), RequestError> {
        let absent = self.layout.replicas_in(self.partition, self.region).is_empty();
        if level == Level::LocalQuorum && absent {
            return Err(RequestError::LevelUnreachable { level, needed: 1, available: 0 });
        }
        Ok(())
    }

    /// What the bucket's objects are.
    pub(super) fn kind(&self) -> ObjectKind {
        object_kind(self.policy.kind)
    }
}

/// The dot store of a kind of bucket.
pub(super) fn object_kind(kind: BucketKind) -> ObjectKind {
    match kind {
        BucketKind::Lww => ObjectKind::Lww,
        _ => ObjectKind::Siblings,
    }
}

impl Shard {
    /// Where a request's key lives.
    pub(super) fn route(&self, bucket: BucketId, key: &[u8]) -> Result<Route, RequestError> {
        if key.is_empty() || key.len() > KEY_LEN_MAX {
            let (len, limit) = (key.len() as u64, KEY_LEN_MAX as u64);
            return Err(RequestError::KeyLength { len, limit });
        }
        let not_ready = |reason| RequestError::NotReady { reason };
        let layout = self.cluster.layout.clone().ok_or(not_ready(NotReady::NoLayout))?;
        let region = self.region.ok_or(not_ready(NotReady::NotInLayout))?;
        let info = self.cluster.buckets.get(&bucket);
        let policy = info.ok_or(RequestError::UnknownBucket { bucket })?.policy.clone();
        let partition = layout.partition(policy.placement, bucket, key);
        // A bucket's placement was checked when the bucket was made; layouts keep placements.
        let partition = partition.ok_or(not_ready(NotReady::NoLayout))?;
        let replica = layout.is_replica(partition, self.boot.node);
        Ok(Route { layout, region, policy, partition, replica })
    }

    pub(super) fn quorum(
        &mut self,
        route: &Route,
        level: Level,
    ) -> Result<Arc<Quorum>, RequestError> {
        let cached = (route.partition.to_u32(), Level::to_byte(Some(level)));
        if let Some(quorum) = self.quorums.get(&cached) {
            return Ok(quorum.clone());
        }
        let quorum = Arc::new(Quorum::new(level, &route.layout, route.partition, route.region)?);
        self.quorums.insert(cached, quorum.clone());
        Ok(quorum)
    }

    /// Refuses a request when too many are in flight, before anything is changed.
    pub(super) fn admit(&self) -> Result<(), RequestError> {
        let limit = self.config.in_flight_max;
        if self.in_flight < limit && self.held_bytes < self.config.held_bytes_max {
            return Ok(());
        }
        let (in_flight, limit) = (self.in_flight as u32, limit as u32);
        // Requests take milliseconds; a client that comes back this much later finds room, or the
        // node is truly overloaded and the pause is due.
        Err(RequestError::Overloaded { in_flight, limit, retry_after_ms: 20 })
    }
}
