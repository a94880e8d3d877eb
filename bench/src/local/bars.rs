//! The bars that a local cluster must clear, and whether it does.

use serde::Serialize;

/// The memory of a node that holds nothing must stay below this, bytes.
const EMPTY_BYTES_MAX: u64 = 150 << 20;
/// How much memory may grow between the first and the last third of an overload and still count as
/// flat: RocksDB's own comes and goes with its compactions.
const OVERLOAD_GROWTH_MAX: f64 = 1.15;

/// What the bars are about; `None` for what was not measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// RocksDB loop, puts per second, mean of before and after.
    pub(crate) rocksdb: Option<f64>,
    /// Quorum writes per second, `sync = interval`.
    pub(crate) write: Option<f64>,
    /// The same with `sync = always`.
    pub(crate) write_always: Option<f64>,
    /// Quorum reads per second.
    pub(crate) read_quorum: Option<f64>,
    /// Reads at `one` per second.
    pub(crate) read_one: Option<f64>,
    /// Memory of the largest empty node, bytes.
    pub(crate) empty_bytes: Option<u64>,
    /// Memory in the last third of the overload as a multiple of the middle one's, of the node that grew
    /// most.
    pub(crate) overload_growth: Option<f64>,
    /// Typed refusals during the overload.
    pub(crate) overload_refusals: Option<u64>,
}

/// One bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Bar {
    /// What is compared.
    pub(crate) name: &'static str,
    /// What was reached.
    pub(crate) reached: f64,
    /// What must be reached.
    pub(crate) needed: f64,
    /// Whether less than `needed` is asked for, not more.
    pub(crate) at_most: bool,
    /// Whether it was.
    pub(crate) met: bool,
}

/// The bars for which there are figures.
pub(crate) fn bars(figures: &Figures) -> Vec<Bar> {
    let ratio = |of: Option<f64>, to: Option<f64>| Some(of? / to.filter(|to| *to > 0.0)?);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let write = figures.write;
    [
        at_least("quorum writes / RocksDB loop", ratio(write, figures.rocksdb), 0.25),
        at_least("quorum reads / quorum writes", ratio(figures.read_quorum, write), 1.3),
        at_least("reads at one / quorum writes", ratio(figures.read_one, write), 3.0),
        at_least("sync always / sync interval", ratio(figures.write_always, write), 0.2),
        at_most("empty node, MiB", figures.empty_bytes.map(mib), mib(EMPTY_BYTES_MAX)),
        at_most("overload, memory late / middle", figures.overload_growth, OVERLOAD_GROWTH_MAX),
        at_least("overload, typed refusals", figures.overload_refusals.map(|n| n as f64), 1.0),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn at_least(name: &'static str, reached: Option<f64>, needed: f64) -> Option<Bar> {
    let reached = reached?;
    Some(Bar { name, reached, needed, at_most: false, met: reached >= needed })
}

fn at_most(name: &'static str, reached: Option<f64>, needed: f64) -> Option<Bar> {
    let reached = reached?;
    Some(Bar { name, reached, needed, at_most: true, met: reached <= needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each bar is met exactly from its number on. Method: figures on the bar, then one figure
    /// a little worse at a time.
    #[test]
    fn bars_are_met_from_their_number_on() {
        let good = Figures {
            rocksdb: Some(100_000.0),
            write: Some(25_000.0),
            write_always: Some(5_000.0),
            read_quorum: Some(32_500.0),
            read_one: Some(75_000.0),
            empty_bytes: Some(150 << 20),
            overload_growth: Some(1.15),
            overload_refusals: Some(1),
        };
        assert_eq!(bars(&good).iter().filter(|bar| bar.met).count(), 7);
        let worse = [
            Figures { rocksdb: Some(100_001.0), ..good },
            Figures { write_always: Some(4_999.0), ..good },
            Figures { read_quorum: Some(32_499.0), ..good },
            Figures { read_one: Some(74_999.0), ..good },
            Figures { empty_bytes: Some((150 << 20) + 1), ..good },
            Figures { overload_growth: Some(1.16), ..good },
            Figures { overload_refusals: Some(0), ..good },
        ];
        for figures in worse {
            assert_eq!(bars(&figures).iter().filter(|bar| !bar.met).count(), 1, "{figures:?}");
        }
    }

    /// Goal: what was not measured is neither met nor missed.
    #[test]
    fn what_is_missing_has_no_bar() {
        assert!(bars(&Figures::default()).is_empty());
        let figures = Figures { rocksdb: Some(0.0), write: Some(1.0), ..Figures::default() };
        assert!(bars(&figures).is_empty());
    }
}
