//! Writing one metric after the other.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::histogram::Snapshot;

/// Label names and values of one series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A metric's name without prefix, unit and `_total`, its unit, and its meaning.
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) unit: Option<Unit>,
    pub(super) help: &'a str,
}

/// A metric without a unit.
pub(super) fn plain<'a>(name: &'a str, help: &'a str) -> About<'a> {
    About { name, unit: None, help }
}

/// A metric in bytes.
pub(super) fn bytes<'a>(name: &'a str, help: &'a str) -> About<'a> {
    About { name, unit: Some(Unit::Bytes), help }
}

/// A metric in seconds.
pub(super) fn seconds<'a>(name: &'a str, help: &'a str) -> About<'a> {
    About { name, unit: Some(Unit::Seconds), help }
}

/// What is being written.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Page<'a> {
        Page { encoder }
    }

    /// What is so much now.
    pub(super) fn gauge(&mut self, about: &About<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(about, [(Labels::new(), value)])
    }

    /// The same for several series.
    pub(super) fn gauges<V: EncodeGaugeValue>(
        &mut self,
        about: &About<'_>,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.rows(about, MetricType::Gauge, rows, |encoder, value| encoder.encode_gauge(value))
    }

    /// What only grows.
    pub(super) fn counter(
        &mut self,
        about: &About<'_>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        self.counters(about, [(Labels::new(), value)])
    }

    /// The same for several series.
    pub(super) fn counters<V: EncodeCounterValue>(
        &mut self,
        about: &About<'_>,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.rows(about, MetricType::Counter, rows, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, V, f64>(value, None)
        })
    }

    /// Distributions; `per_unit` of what was observed make one of the metric's unit.
    pub(super) fn histograms(
        &mut self,
        about: &About<'_>,
        per_unit: f64,
        rows: impl IntoIterator<Item = (Labels, Snapshot)>,
    ) -> fmt::Result {
        self.rows(about, MetricType::Histogram, rows, |encoder, snapshot| {
            let Snapshot { sum, count, buckets } = snapshot;
            encoder.encode_histogram::<NoLabelSet>(*sum as f64 / per_unit, *count, buckets, None)
        })
    }

    /// Facts that are texts, as labels of a constant.
    pub(super) fn info(&mut self, about: &About<'_>, facts: &Labels) -> fmt::Result {
        let unit = about.unit.as_ref();
        self.encoder
            .encode_descriptor(about.name, about.help, unit, MetricType::Info)?
            .encode_info(facts)
    }

    fn rows<V>(
        &mut self,
        about: &About<'_>,
        kind: MetricType,
        rows: impl IntoIterator<Item = (Labels, V)>,
        encode: impl Fn(&mut MetricEncoder<'_>, &V) -> fmt::Result,
    ) -> fmt::Result {
        let unit = about.unit.as_ref();
        let mut metric = self.encoder.encode_descriptor(about.name, about.help, unit, kind)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                encode(&mut metric, &value)?;
            } else {
                encode(&mut metric.encode_family(&labels)?, &value)?;
            }
        }
        Ok(())
    }
}
