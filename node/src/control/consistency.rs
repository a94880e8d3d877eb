//! How consistent this node is with the others, as of its shards' last looks.

use std::collections::BTreeMap;

use holm_core::shard::backlog::Backlog;
use holm_core::shard::lag::RegionLag;
use holm_protocol::ids::{NodeId, RegionId};

use super::NodeState;
use crate::config::HealthConfig;

/// What a shard knows of consistency, looked at twice a second.
#[derive(Debug, Clone, Default)]
pub struct ShardFacts {
    /// How far it is behind each region.
    pub lags: Vec<RegionLag>,
    /// What was verified, by the other node.
    pub verified: BTreeMap<NodeId, VerifiedWith>,
    /// When the last violation was found, wall milliseconds; 0: none in this run.
    pub violation_ms: u64,
    /// What its partitions keep that is not stable.
    pub backlogs: Vec<Backlog>,
}

/// What a node has verified with another one, of what it is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifiedWith {
    /// Partitions.
    pub partitions: u64,
    /// Of these, the ones that were not verified in this run.
    pub unverified: u64,
    /// The longest time since one was verified, milliseconds; of one that was not, since the node
    /// started.
    pub oldest_ms: u64,
}

/// What a node knows of consistency.
#[derive(Debug, Clone, Default)]
pub struct Consistency {
    /// The node's region, if it is in the layout.
    pub region: Option<String>,
    /// How far the node is behind each region, by name.
    pub lags: BTreeMap<String, RegionLag>,
    /// What was verified, by the other node.
    pub verified: BTreeMap<NodeId, VerifiedWith>,
    /// Violations found in this run.
    pub violations: u64,
    /// When the last one was, wall milliseconds; 0: none.
    pub violation_ms: u64,
    /// Hints kept for others.
    pub hints: u64,
    /// Their bytes.
    pub hint_bytes: u64,
    /// Since when the oldest is kept, wall milliseconds; 0: there is none.
    pub hints_since_ms: u64,
    /// What each partition keeps that is not stable, by number.
    pub backlogs: Vec<Backlog>,
    /// Partitions that the node does not serve: it has not compared with others since its start, or takes
    /// them from others.
    pub quarantined: u64,
}

impl NodeState {
    /// What is known now.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        let cluster = self.cluster();
        let layout = cluster.layout.as_ref();
        let name = |region: RegionId| {
            let name = layout.and_then(|layout| layout.regions().get(usize::from(region.0)));
            name.cloned().unwrap_or_else(|| format!("region {}", region.0))
        };
        let mut all = Consistency {
            region: layout.and_then(|layout| layout.region_of(self.node)).map(name),
            ..Consistency::default()
        };
        for shard in self.shards() {
            all.backlogs.extend(shard.facts.backlogs);
            for lag in shard.facts.lags {
                all.lags.entry(name(lag.region)).and_modify(|sum| add(sum, &lag)).or_insert(lag);
            }
            for (node, with) in shard.facts.verified {
                let sum = all.verified.entry(node).or_default();
                sum.partitions += with.partitions;
                sum.unverified += with.unverified;
                sum.oldest_ms = sum.oldest_ms.max(with.oldest_ms);
            }
            all.violation_ms = all.violation_ms.max(shard.facts.violation_ms);
            all.violations += shard.counters.consistency_violations;
            all.hints += shard.counters.hints;
            all.hint_bytes += shard.counters.hint_bytes;
            let since = [all.hints_since_ms, shard.counters.hints_since_ms];
            all.hints_since_ms = since.into_iter().filter(|&ms| ms > 0).min().unwrap_or(0);
        }
        all.backlogs.sort_unstable_by_key(|it| it.partition);
        let (in_doubt, behind) = self.quarantined();
        all.quarantined = in_doubt + behind;
        all
    }
}

/// What two shards say of one region: counts add up, of times the longest counts.
fn add(sum: &mut RegionLag, more: &RegionLag) {
    sum.writes = sum.writes.saturating_add(more.writes);
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.ms = sum.ms.max(more.ms);
    sum.partitions += more.partitions;
    sum.partitions_lacking += more.partitions_lacking;
    sum.gap_ms = sum.gap_ms.max(more.gap_ms);
    sum.partitions_unheard += more.partitions_unheard;
}

impl Consistency {
    /// The partition that keeps the oldest write that is not stable, if there is one.
    #[must_use]
    pub fn oldest_unstable(&self) -> Option<&Backlog> {
        self.backlogs.iter().filter(|it| it.unstable_ms > 0).max_by_key(|it| it.unstable_ms)
    }

    /// Of how many partitions each node holds back the oldest write that is not stable.
    #[must_use]
    pub fn holders_back(&self) -> BTreeMap<NodeId, u64> {
        let mut holders = BTreeMap::new();
        for node in self.backlogs.iter().flat_map(|it| &it.held_by) {
            *holders.entry(*node).or_default() += 1;
        }
        holders
    }

    /// How long ago the last violation was found, milliseconds.
    #[must_use]
    pub fn violation_age_ms(&self, wall_ms: u64) -> Option<u64> {
        (self.violation_ms > 0).then(|| wall_ms.saturating_sub(self.violation_ms))
    }

    /// How long the oldest hint has been kept, milliseconds; 0 if there is none.
    #[must_use]
    pub fn hint_age_ms(&self, wall_ms: u64) -> u64 {
        match self.hints_since_ms {
            0 => 0,
            since_ms => wall_ms.saturating_sub(since_ms),
        }
    }

    /// What exceeds the configured thresholds, a sentence each; empty if all is well. A threshold of 0
    /// is none.
    #[must_use]
    pub fn concerns(&self, limits: &HealthConfig, wall_ms: u64) -> Vec<String> {
        let mut concerns = Vec::new();
        let exceeds = |value: u64, limit: u64| limit > 0 && value > limit;
        for (region, lag) in &self.lags {
            if exceeds(lag.ms, limits.lag_max_ms) {
                let (ms, max) = (lag.ms, limits.lag_max_ms);
                concerns.push(format!("{ms} ms behind {region} (health.lag_max_ms: {max})"));
            }
        }
        for (node, with) in &self.verified {
            let oldest_s = with.oldest_ms / 1000;
            if exceeds(oldest_s, limits.verified_age_max_s) {
                let max = limits.verified_age_max_s;
                concerns.push(format!(
                    "not verified with {node} for {oldest_s} s (health.verified_age_max_s: {max})"
                ));
            }
        }
        let hint_s = self.hint_age_ms(wall_ms) / 1000;
        if exceeds(hint_s, limits.hint_age_max_s) {
            let max = limits.hint_age_max_s;
            concerns.push(format!("a hint waits for {hint_s} s (health.hint_age_max_s: {max})"));
        }
        let is_recent = |age_ms: u64| age_ms / 1000 < limits.violation_s;
        if self.violation_age_ms(wall_ms).is_some_and(is_recent) {
            let within = limits.violation_s;
            concerns.push(format!(
                "replicas held what no clock explains (health.violation_s: {within}); see the log"
            ));
        }
        if self.quarantined > 0 {
            let count = self.quarantined;
            concerns.push(format!(
                "{count} partitions are not served: not yet compared with other replicas since the \
                 start, or taken from them"
            ));
        }
        concerns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each threshold is judged by what it is about, not at its value but above, and not at all
    /// at 0. Method: one figure at a time.
    #[test]
    fn thresholds_are_judged() {
        const WALL_MS: u64 = 1_000_000_000;
        let limits = HealthConfig {
            lag_max_ms: 100,
            verified_age_max_s: 10,
            hint_age_max_s: 20,
            violation_s: 30,
        };
        let none = HealthConfig {
            lag_max_ms: 0,
            verified_age_max_s: 0,
            hint_age_max_s: 0,
            violation_s: 0,
        };
        let lag = |ms| RegionLag { ms, ..RegionLag::none(RegionId(0)) };
        let with = |oldest_ms| VerifiedWith { partitions: 1, unverified: 1, oldest_ms };
        type Change = fn(&mut Consistency, RegionLag, VerifiedWith, u64);
        let cases: [(Change, u64, u64, &str); 4] = [
            (|it, lag, _, _| _ = it.lags.insert("b".into(), lag), 100, 101, "behind b"),
            (|it, _, with, _| _ = it.verified.insert(NodeId(2), with), 10_999, 11_000, "n2"),
            (|it, _, _, ms| it.hints_since_ms = WALL_MS - ms, 20_999, 21_000, "hint"),
            (|it, _, _, ms| it.violation_ms = WALL_MS - ms, 30_000, 29_999, "no clock"),
        ];
        for (change, well, ill, word) in cases {
            for (ms, is_well) in [(well, true), (ill, false)] {
                let mut all = Consistency::default();
                change(&mut all, lag(ms), with(ms), ms);
                let concerns = all.concerns(&limits, WALL_MS);
                assert_eq!(concerns.is_empty(), is_well, "{ms} {concerns:?}");
                assert!(concerns.iter().all(|concern| concern.contains(word)), "{concerns:?}");
                assert_eq!(all.concerns(&none, WALL_MS), Vec::<String>::new());
            }
        }
        let lost = Consistency { quarantined: 3, ..Consistency::default() };
        assert_eq!(lost.concerns(&none, WALL_MS).len(), 1, "quarantine is no matter of thresholds");
    }
}
