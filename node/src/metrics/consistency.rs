//! How consistent the node is with others: lag behind each region, differences, verification, and how
//! long writes take until they can be seen here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use holm_core::shard::backlog::Backlog;
use holm_core::shard::event::Counters;
use holm_core::shard::lag::{Bringer, RegionLag};

use super::RequestMetrics;
use super::histogram::Histogram;
use super::page::{Labels, Page, bytes, plain, seconds};
use crate::control::Consistency;

/// Milliseconds in a second, as arrivals are observed and shown.
const MS_PER_SECOND: f64 = 1e3;

/// Upper bounds of the buckets until a write is visible, milliseconds: fine where round trips between
/// regions are, coarse up to a day, which is for repairs.
const VISIBLE_BOUNDS_MS: &[u64] = &[
    1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 175,
    200, 250, 300, 400, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 30_000, 60_000,
    300_000, 3_600_000, 86_400_000,
];

/// How long writes of other nodes take until they can be seen here, by the region they come from and
/// by what brought them. There are as many series as regions, twice.
#[derive(Debug, Default)]
pub struct Visibility {
    series: Mutex<BTreeMap<(String, Bringer), Arc<Visible>>>,
}

/// One series, in milliseconds.
#[derive(Debug)]
pub struct Visible(Histogram);

impl Visible {
    /// Counts a write.
    pub fn observe(&self, ms: u64) {
        self.0.observe(ms);
    }
}

impl Visibility {
    /// The series of writes from a region that were brought like this.
    #[must_use]
    pub fn series(&self, region: &str, by: Bringer) -> Arc<Visible> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Visible(Histogram::new(VISIBLE_BOUNDS_MS)));
        series.entry((region.to_owned(), by)).or_insert_with(fresh).clone()
    }
}

pub(super) fn consistency_figures(
    page: &mut Page<'_>,
    known: &Consistency,
    requests: &RequestMetrics,
) -> fmt::Result {
    lag_figures(page, known)?;
    let with = |node: &holm_protocol::ids::NodeId| vec![("peer", node.0.to_string())];
    let help = "Longest time since a partition was verified with the node, of those that this node is to \
        begin; since the start of one that was not.";
    let verified = known.verified.iter();
    let ages = verified.clone().map(|(node, it)| (with(node), it.oldest_ms as f64 / 1e3));
    page.gauges(&seconds("range_verified_age", help), ages)?;
    let help = "Partitions that were not verified with the node since the start.";
    let unverified = verified.map(|(node, it)| (with(node), it.unverified));
    page.gauges(&plain("ranges_unverified", help), unverified)?;
    backlog_figures(page, known)?;
    let help =
        "Reads refused because this node lost writes it once had and no other replica answered.";
    let refused = requests.reads_refused.load(Ordering::Relaxed);
    page.counter(&plain("read_after_write_failures", help), refused)?;
    let series = requests.visibility.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let rows = series.iter().map(|((region, by), visible)| {
        let by = ("by", by.name().to_owned());
        (vec![("from_region", region.clone()), by], visible.0.snapshot(MS_PER_SECOND))
    });
    let help = "From a write's clock reading at its coordinator until it can be read here, by what brought \
        it: its coordinator or a relay (write), or a later repair. As true as clocks agree. Without deletes.";
    page.histograms(&seconds("write_visible", help), MS_PER_SECOND, rows)
}

/// What is not stable, per partition, and what that costs.
fn backlog_figures(page: &mut Page<'_>, known: &Consistency) -> fmt::Result {
    let of = |it: &Backlog| -> Labels { vec![("partition", it.partition.to_string())] };
    let each = |read: fn(&Backlog) -> u64| known.backlogs.iter().map(move |it| (of(it), read(it)));
    let help = "Age of the oldest write that is not known to be everywhere, at least: until it is, it holds \
        back that deletes and logs are forgotten.";
    let ages = known.backlogs.iter().map(|it| (of(it), it.unstable_ms as f64 / 1e3));
    page.gauges(&seconds("unstable_oldest", help), ages)?;
    let help = "Partitions whose oldest such write the node is not known to have.";
    let holders = known.holders_back().into_iter();
    let holders = holders.map(|(node, count)| (vec![("peer", node.0.to_string())], count));
    page.gauges(&plain("unstable_held_back_partitions", help), holders)?;
    let help = "What a partition's clock takes in memory, about.";
    page.gauges(&bytes("partition_clock_memory", help), each(|it| it.clock_bytes))?;
    let help = "What the entries of a partition's log take in memory, about.";
    page.gauges(&bytes("partition_log_memory", help), each(|it| it.log_bytes))
}

fn lag_figures(page: &mut Page<'_>, known: &Consistency) -> fmt::Result {
    let each = |read: fn(&RegionLag) -> u64| {
        let label = |region: &String| -> Labels { vec![("from_region", region.clone())] };
        known.lags.iter().map(move |(region, lag)| (label(region), read(lag)))
    };
    let as_seconds = |(labels, ms): (Labels, u64)| (labels, ms as f64 / 1e3);
    let help = "For how long this node lacks writes of the region, at least, or cannot be sure that it does \
        not, because none of its replicas of a partition can be reached.";
    page.gauges(&seconds("replica_consistency_lag", help), each(|lag| lag.ms).map(as_seconds))?;
    let help = "Writes that the region has and this node lacks, those on their way too.";
    page.gauges(&plain("replica_lag_writes", help), each(|lag| lag.writes))?;
    let help = "Their bytes, estimated from the mean of the objects that have come.";
    page.gauges(&bytes("replica_lag", help), each(|lag| lag.bytes))?;
    let help = "Partitions of which no replica in the region can be reached.";
    page.gauges(&plain("replica_unheard_partitions", help), each(|lag| lag.partitions_unheard))?;
    let help = "Share of the partitions that the region holds too of which this node lacks writes that no \
        message on its way explains.";
    let percent = known.lags.iter().map(|(region, lag)| {
        let percent = 100.0 * lag.partitions_lacking as f64 / lag.partitions.max(1) as f64;
        (vec![("from_region", region.clone())], percent)
    });
    page.gauges(&plain("consistency_cross_region_drift_percent", help), percent)?;
    let oldest_ms = known.lags.values().map(|lag| lag.gap_ms).max().unwrap_or(0);
    let help =
        "For how long the oldest write is lacking that no message on its way explains; 0: none is.";
    page.gauge(&seconds("gap_oldest_age", help), oldest_ms as f64 / 1e3)
}

pub(super) fn violation_figures(page: &mut Page<'_>, shards: &[Counters]) -> fmt::Result {
    let help = "Values lost here without a trace, restored from another replica.";
    let rows = shards.iter().enumerate().map(|(shard, counters)| {
        (vec![("shard", shard.to_string())], counters.consistency_violations)
    });
    page.counters(&plain("consistency_violations", help), rows)
}
