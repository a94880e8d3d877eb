//! What a load measured, and the arithmetic on it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::procfs;
use crate::text;

/// Longest latency that is told from longer ones: twice the longest timeout.
const LATENCY_MAX_NS: u64 = 120_000_000_000;
/// Latencies are kept to three digits.
const LATENCY_DIGITS: u8 = 3;

/// Collects latencies and errors.
#[derive(Debug)]
pub(crate) struct Recorder {
    latencies: Histogram<u64>,
    errors: BTreeMap<Cow<'static, str>, u64>,
}

impl Recorder {
    /// Nothing yet.
    pub(crate) fn new() -> Recorder {
        let bounded = Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS);
        #[expect(clippy::expect_used, reason = "constant bounds: 1 is positive, the rest larger")]
        let latencies = bounded.expect("constant bounds are valid");
        Recorder { latencies, errors: BTreeMap::new() }
    }

    /// An operation that succeeded.
    pub(crate) fn success(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(ns.max(1));
    }

    /// An operation that failed, and how.
    pub(crate) fn error(&mut self, label: Cow<'static, str>) {
        *self.errors.entry(label).or_default() += 1;
    }

    /// Forgets everything so far.
    pub(crate) fn reset(&mut self) {
        self.latencies.reset();
        self.errors.clear();
    }

    /// How many operations succeeded.
    pub(crate) fn operations(&self) -> u64 {
        self.latencies.len()
    }
}

/// The start of a measurement: time and CPU clocks.
#[derive(Debug)]
pub(crate) struct Window {
    begun: Instant,
    client: Duration,
    nodes: Option<Duration>,
    pids: Vec<u32>,
}

impl Window {
    /// Starts measuring, this process and the nodes with these process ids.
    pub(crate) fn open(pids: &[u32]) -> Window {
        Window {
            begun: Instant::now(),
            client: procfs::own_cpu_time(),
            nodes: procfs::cpu_time_of_all(pids),
            pids: pids.to_owned(),
        }
    }

    /// Ends the measurement.
    pub(crate) fn close(self, recorder: &Recorder) -> Measured {
        let seconds = self.begun.elapsed().as_secs_f64();
        let client = procfs::own_cpu_time().saturating_sub(self.client);
        let nodes = self.nodes.zip(procfs::cpu_time_of_all(&self.pids));
        let cpu = Cpu::new(
            client,
            nodes.map(|(before, after)| after.saturating_sub(before)),
            recorder.operations(),
        );
        let errors: BTreeMap<String, u64> =
            recorder.errors.iter().map(|(label, n)| (label.to_string(), *n)).collect();
        Measured {
            operations: recorder.operations(),
            seconds: round(seconds, 3),
            per_second: round(recorder.operations() as f64 / seconds, 1),
            latency: Latency::of(&recorder.latencies),
            cpu,
            error_count: errors.values().sum(),
            errors,
        }
    }
}

/// What a load measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Operations that succeeded.
    pub(crate) operations: u64,
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// Operations that succeeded per second.
    pub(crate) per_second: f64,
    /// How long those took; none if there were none.
    pub(crate) latency: Option<Latency>,
    /// What they cost.
    pub(crate) cpu: Cpu,
    /// Operations that failed.
    pub(crate) error_count: u64,
    /// The same by kind: `CODE:Name` for a node's refusal, `client:Name` for what the client saw.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Latencies of operations that succeeded, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Half of them took no longer.
    pub(crate) p50_us: f64,
    /// Nine in ten took no longer.
    pub(crate) p90_us: f64,
    /// 99 in a hundred took no longer.
    pub(crate) p99_us: f64,
    /// 999 in a thousand took no longer.
    pub(crate) p999_us: f64,
    /// None took longer.
    pub(crate) max_us: f64,
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Option<Latency> {
        let us = |ns: u64| round(ns as f64 / 1e3, 1);
        let at = |quantile: f64| us(latencies.value_at_quantile(quantile));
        (!latencies.is_empty()).then(|| Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(latencies.max()),
        })
    }
}

/// CPU time that a load took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Cpu {
    /// Of this process, seconds.
    pub(crate) client_s: f64,
    /// Of all nodes together, seconds; none if their process ids are not known.
    pub(crate) nodes_s: Option<f64>,
    /// Of all of these, seconds for a million operations; none without operations.
    pub(crate) per_million_s: Option<f64>,
}

impl Cpu {
    fn new(client: Duration, nodes: Option<Duration>, operations: u64) -> Cpu {
        let all = client.as_secs_f64() + nodes.unwrap_or_default().as_secs_f64();
        Cpu {
            client_s: round(client.as_secs_f64(), 2),
            nodes_s: nodes.map(|nodes| round(nodes.as_secs_f64(), 2)),
            per_million_s: (operations > 0).then(|| round(all * 1e6 / operations as f64, 3)),
        }
    }
}

impl Measured {
    /// The head of the cells of [`Measured::cells`].
    pub(crate) fn head() -> Vec<String> {
        ["per s", "p50", "p90", "p99", "p99.9", "max", "CPU s/M", "errors"]
            .map(str::to_owned)
            .to_vec()
    }

    /// The figures as a row of a table.
    pub(crate) fn cells(&self) -> Vec<String> {
        let latency = |of: fn(&Latency) -> f64| match &self.latency {
            Some(latency) => text::micros(of(latency)),
            None => "-".to_owned(),
        };
        let cpu = self.cpu.per_million_s.map_or_else(|| "-".to_owned(), |s| format!("{s:.2}"));
        vec![
            text::count(self.per_second),
            latency(|l| l.p50_us),
            latency(|l| l.p90_us),
            latency(|l| l.p99_us),
            latency(|l| l.p999_us),
            latency(|l| l.max_us),
            cpu,
            text::count(self.error_count as f64),
        ]
    }

    /// The errors by kind, a line each.
    pub(crate) fn error_lines(&self) -> String {
        self.errors
            .iter()
            .map(|(kind, n)| format!("  {kind}: {}\n", text::count(*n as f64)))
            .collect()
    }
}

/// Rounds to so many decimals: more would be noise in the report.
pub(crate) fn round(number: f64, decimals: i32) -> f64 {
    let unit = 10_f64.powi(decimals);
    (number * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: quantiles come out in microseconds, within three digits. Method: 1 to 1,000 µs.
    #[test]
    fn latencies_are_microseconds() {
        let mut recorder = Recorder::new();
        (1..=1000).for_each(|us| recorder.success(Duration::from_micros(us)));
        let latency = Latency::of(&recorder.latencies).unwrap();
        for (got, want) in [(latency.p50_us, 500.0), (latency.p99_us, 990.0)] {
            assert!((got - want).abs() <= want / 500.0, "{got} for {want}");
        }
        assert!((latency.max_us - 1000.0).abs() <= 1.0);
        assert_eq!(recorder.operations(), 1000);
        recorder.success(Duration::from_secs(1 << 40)); // Counted, as the longest there is.
        assert_eq!(recorder.operations(), 1001);
        recorder.reset();
        assert_eq!(Latency::of(&recorder.latencies), None);
    }

    /// Goal: CPU is per million operations, client and nodes together.
    #[test]
    fn cpu_is_per_million() {
        let second = Duration::from_secs(1);
        let cpu = Cpu::new(second, Some(second * 3), 200_000);
        assert_eq!(cpu, Cpu { client_s: 1.0, nodes_s: Some(3.0), per_million_s: Some(20.0) });
        assert_eq!(Cpu::new(second, None, 0).per_million_s, None);
    }

    /// Goal: errors are counted by kind and not among the operations.
    #[test]
    fn errors_are_counted_by_kind() {
        let mut recorder = Recorder::new();
        recorder.error(Cow::Borrowed("16:Overloaded"));
        recorder.error(Cow::Borrowed("16:Overloaded"));
        recorder.error(Cow::Borrowed("client:Unavailable"));
        let measured = Window::open(&[]).close(&recorder);
        assert_eq!((measured.operations, measured.error_count), (0, 3));
        assert_eq!(measured.error_lines(), "  16:Overloaded: 2\n  client:Unavailable: 1\n");
        assert_eq!(measured.cpu.per_million_s, None);
        assert_eq!(measured.cells().len(), Measured::head().len());
    }
}
