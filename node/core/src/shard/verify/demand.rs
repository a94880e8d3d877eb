//! Verification on demand: an operator does not wait for the hour.

use crate::shard::event::VerifyDemand;
use crate::shard::verify::SessionStage;
use crate::shard::{Op, Shard};
use crate::time::Mono;

impl Shard {
    /// An operator wants this node's share verified now.
    pub(in crate::shard) fn on_demand(&mut self, demand: &VerifyDemand, now: Mono) {
        let VerifyDemand { number, placement, region, older_than_ms } = *demand;
        let Shard { schedule, peers, cluster, region: own, .. } = self;
        let layout = cluster.layout.as_deref();
        let is_there = |peer| *own == region || layout.and_then(|it| it.region_of(peer)) == region;
        let verified_before = Mono(now.0.saturating_sub(older_than_ms.saturating_mul(1000)));
        schedule.demand(
            number,
            (now, verified_before),
            |(partition, peer)| {
                placement.is_none_or(|it| it == partition.placement)
                    && (region.is_none() || is_there(*peer))
            },
            |node| peers.is_up(node),
        );
    }

    /// Ends another's session that has told its digests longest ago, if there is one.
    pub(super) fn end_idle_session(&mut self) -> bool {
        let ops = &self.ops;
        let idle = self.schedule.sessions.iter().filter_map(|(key, id)| match ops.get(&id.0) {
            Some(Op::Session(op)) if matches!(op.stage, SessionStage::Digested(_)) => {
                Some((op.wake, *id, *key))
            }
            _ => None,
        });
        let Some((wake, id, key)) = idle.min() else { return false };
        self.timers.clear(wake, id);
        self.ops.remove(&id.0);
        self.schedule.sessions.remove(&key);
        true
    }
}
