//! Verification on demand, as operators ask for it (`holm repair`).

use std::sync::atomic::Ordering;

use holm_core::shard::event::VerifyDemand;
use holm_protocol::admin::{RepairProgress, RepairScope};

use super::NodeState;
use crate::inbox::Event;

impl NodeState {
    /// Has every shard verify what is wanted. Tells how it was before.
    #[must_use]
    pub fn repair(&self, scope: &RepairScope) -> RepairProgress {
        let before = self.repair_progress();
        let number = self.demands.fetch_add(1, Ordering::AcqRel) + 1;
        let demand = VerifyDemand {
            number,
            placement: scope.placement,
            region: scope.region,
            older_than_ms: scope.older_than_s.saturating_mul(1000),
        };
        tracing::info!(number, ?scope, "an operator wants what this node holds verified");
        self.inboxes.iter().for_each(|inbox| inbox.push_essential(Event::Verify(demand)));
        RepairProgress { demand: number, ..before }
    }

    /// How far all shards have come.
    #[must_use]
    pub fn repair_progress(&self) -> RepairProgress {
        let shards = self.shards();
        let mut progress = RepairProgress {
            node: self.node,
            run: self.run,
            demand: shards.iter().map(|shard| shard.demanded.number).min().unwrap_or(0),
            pending: 0,
            verified: 0,
            mended: 0,
            failed: 0,
            keys_differing: 0,
            violations: 0,
            refetched: 0,
        };
        for shard in shards {
            progress.pending += shard.demanded.pending;
            progress.verified += shard.demanded.verified;
            progress.mended += shard.demanded.mended;
            progress.failed += shard.demanded.failed;
            progress.keys_differing += shard.demanded.differing_keys;
            progress.violations += shard.counters.consistency_violations;
            progress.refetched += shard.counters.objects_refetched;
        }
        progress
    }
}
