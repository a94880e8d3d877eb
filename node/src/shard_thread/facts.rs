//! What a shard thread tells of its shard: its state for other threads, figures for metrics, and lines
//! for the log.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use holm_core::object::Object;
use holm_core::shard::event::{Verified, VerifyEnd, Violation};
use holm_core::shard::lag::Arrival;
use holm_core::time::{Mono, Now};
use holm_protocol::ids::NodeId;

use super::Running;
use crate::control::{ShardFacts, VerifiedWith};

/// How often it is looked how far the shard is behind others, milliseconds: some microseconds' work
/// for each partition.
const LOOK_MS: u64 = 500;

impl Running {
    /// Leaves for others to see how the shard is.
    pub(super) fn tell_state(&mut self, now: Now) {
        let is_due = self.looked.is_none_or(|looked| looked.ms_until(now.mono) >= LOOK_MS);
        let facts = is_due.then(|| self.facts(now));
        let mut state = self.parts.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counters = self.shard.counters();
        state.stopped = self.shard.stopped();
        state.demanded = self.shard.demanded();
        // Empty, and so without an allocation, as long as everyone answers.
        state.breakers = self.shard.breakers().collect();
        state.layout = self.shard.layout_version();
        state.knows_of_amnesia = self.amnesia;
        if let Some(facts) = facts {
            state.facts = facts;
            self.looked = Some(now.mono);
        }
    }

    fn facts(&mut self, now: Now) -> ShardFacts {
        let mut verified: BTreeMap<NodeId, VerifiedWith> = BTreeMap::new();
        for (_, node, at) in self.shard.verified() {
            let with = verified.entry(node).or_default();
            with.partitions += 1;
            with.unverified += u64::from(at.is_none());
            with.oldest_ms = with.oldest_ms.max(at.unwrap_or(Mono(0)).ms_until(now.mono));
        }
        let violation_ms = self.violation_ms;
        let backlogs = self.shard.backlogs(now);
        ShardFacts { lags: self.shard.lag(now), verified, violation_ms, backlogs }
    }

    /// Measures how long what this turn has made visible took to come. After the commit: before it,
    /// nothing of it can be read.
    pub(super) fn measure_arrivals(&mut self) {
        let arrivals = self.shard.take_arrivals();
        if arrivals.is_empty() {
            return;
        }
        let wall_ms = self.now().wall.0;
        for Arrival { hlc, region, by } in arrivals {
            let series = self.visible.entry((region, by)).or_insert_with(|| {
                let layout = self.cluster.layout.as_ref();
                let name = region.and_then(|region| layout?.regions().get(usize::from(region.0)));
                let name = name.map_or("unknown", String::as_str);
                self.parts.metrics.visibility.series(name, by)
            });
            series.observe(wall_ms.saturating_sub(hlc.wall_ms()));
        }
    }
}

pub(super) fn tell_verified(verified: &Verified) {
    let Verified { partition, peer, differing_keys, end } = verified;
    match end {
        VerifyEnd::Equal => tracing::debug!(%partition, %peer, "verified: equal"),
        VerifyEnd::Mended => {
            tracing::info!(%partition, %peer, differing_keys, "verified: differences exchanged");
        }
        VerifyEnd::NoAnswer => tracing::info!(%partition, %peer, "not verified: no answer"),
        VerifyEnd::Refused(refusal) => {
            tracing::info!(%partition, %peer, ?refusal, "not verified: refused");
        }
    }
}

/// An operator is to see keys and dots of both states, never values.
pub(super) fn tell_violation(violation: &Violation) {
    let Violation { partition, at: (bucket, key), peer, is_damaged, lost, own, theirs } = violation;
    let key = key.escape_ascii();
    let dots = |object: &Object| -> Vec<String> {
        object.live_dots().map(|dot| dot.to_string()).collect()
    };
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    let (own, theirs) = (dots(own), dots(theirs));
    if *is_damaged {
        tracing::error!(%partition, bucket = bucket.0, %key, %peer, ?theirs,
            "a damaged object was replaced by another replica's: look at this node's disk");
    } else {
        tracing::error!(%partition, bucket = bucket.0, %key, %peer, ?lost, ?own, ?theirs,
            "consistency violation: values were gone here without a trace and were restored from \
             another replica: look at this node's disk");
    }
}
