//! What `local` found, in one piece: the rows, the memory, the bars.

use holm_client::Level;
use serde::Serialize;

use super::bars::{Bar, Figures, bars};
use super::overload::Overload;
use crate::cli::LocalArgs;
use crate::measured::{Measured, round};
use crate::text;

/// The report. Its JSON only ever gains fields.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    nodes: u64,
    replication: u64,
    cores: usize,
    records: u64,
    value_bytes: u32,
    concurrency: u32,
    seed: u64,
    rows: Vec<Row>,
    /// Puts per second of the RocksDB loop, one at a time, mean of before and after.
    rocksdb_per_second: Option<f64>,
    /// How far before and after are apart, as a share of their mean.
    rocksdb_spread: Option<f64>,
    /// What nodes used; none if `sync = interval` was not measured.
    pub(crate) memory: Option<Memory>,
    bars: Vec<Bar>,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    consistency: Option<String>,
    sync: Option<&'static str>,
    /// Operations per second as a multiple of the RocksDB loop's.
    of_rocksdb: Option<f64>,
    #[serde(flatten)]
    measured: Measured,
}

/// Memory of nodes.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// The largest node, before anything was written, bytes.
    pub(crate) node_empty_bytes: u64,
    /// What overload did; none if it was left out.
    pub(crate) overload: Option<Overload>,
}

impl Row {
    /// A baseline's row.
    pub(crate) fn baseline(name: &str, measured: Measured) -> Row {
        Row { name: name.to_owned(), consistency: None, sync: None, of_rocksdb: None, measured }
    }

    /// A row of the cluster.
    pub(crate) fn holm(name: &str, level: Level, sync: &'static str, measured: Measured) -> Row {
        let consistency = Some(level.to_string());
        Row { consistency, sync: Some(sync), ..Row::baseline(name, measured) }
    }
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(args: &LocalArgs) -> Report {
        Report {
            nodes: args.nodes,
            replication: args.nodes.min(3),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            records: args.load.records,
            value_bytes: args.load.value_size,
            concurrency: args.load.concurrency,
            seed: args.load.seed,
            rows: Vec::new(),
            rocksdb_per_second: None,
            rocksdb_spread: None,
            memory: None,
            bars: Vec::new(),
        }
    }

    /// One more measurement.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Works out ratios and bars, once everything is measured.
    pub(crate) fn finish(&mut self) {
        let loops = (self.rate("rocksdb_put_before"), self.rate("rocksdb_put_after"));
        if let (Some(before), Some(after)) = loops {
            let mean = f64::midpoint(before, after);
            self.rocksdb_per_second = Some(round(mean, 1));
            self.rocksdb_spread = Some(round((before - after).abs() / mean, 3));
            for row in &mut self.rows {
                row.of_rocksdb = Some(round(row.measured.per_second / mean, 3));
            }
        }
        let overload = self.memory.as_ref().and_then(|memory| memory.overload.as_ref());
        self.bars = bars(&Figures {
            rocksdb: self.rocksdb_per_second,
            write: self.rate("write_quorum"),
            write_always: self.rate("write_quorum_always"),
            read_quorum: self.rate("read_quorum"),
            read_one: self.rate("read_one"),
            empty_bytes: self.memory.as_ref().map(|memory| memory.node_empty_bytes),
            overload_growth: overload.map(|overload| overload.growth),
            overload_refusals: overload.map(|overload| overload.refusals),
        });
    }

    fn rate(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(|row| row.measured.per_second)
    }

    /// The names of the bars that were missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        self.bars.iter().filter(|bar| !bar.met).map(|bar| bar.name.to_owned()).collect()
    }

    /// The report for people.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(Measured::head());
        rows[0].push("x RocksDB".to_owned());
        for row in &self.rows {
            let mut cells = vec![row.name.clone()];
            cells.extend(row.measured.cells());
            cells.push(row.of_rocksdb.map_or_else(|| "-".to_owned(), |of| format!("{of:.2}")));
            rows.push(cells);
        }
        let mut out = format!(
            "{} nodes, N = {}, {} cores for everything; {} records of {} B, {} in flight\n\n",
            self.nodes,
            self.replication,
            self.cores,
            text::count(self.records as f64),
            self.value_bytes,
            self.concurrency,
        );
        out.push_str(&text::table(&rows));
        for row in self.rows.iter().filter(|row| row.measured.error_count > 0) {
            out.push_str(&format!("{} errors:\n{}", row.name, row.measured.error_lines()));
        }
        if let Some(spread) = self.rocksdb_spread {
            out.push_str(&format!(
                "RocksDB loop before and after differ by {:.0} %\n",
                spread * 100.0
            ));
        }
        out.push_str(&self.memory.as_ref().map_or_else(String::new, memory_lines));
        out.push_str(&bar_lines(&self.bars));
        out
    }
}

fn memory_lines(memory: &Memory) -> String {
    let mut out = format!("\nmemory of a node, empty: {}\n", text::mib(memory.node_empty_bytes));
    if let Some(overload) = &memory.overload {
        out.push_str(&format!(
            "overload with {} tasks: {} before, {} at most, late {:.2} x middle; {} writes/s\n{}",
            overload.tasks,
            text::mib(overload.before_bytes),
            text::mib(overload.peak_bytes),
            overload.growth,
            text::count(overload.measured.per_second),
            overload.measured.error_lines(),
        ));
    }
    out
}

fn bar_lines(bars: &[Bar]) -> String {
    let mut rows = vec![["bar", "reached", "needed", ""].map(str::to_owned).to_vec()];
    for bar in bars {
        let sign = if bar.at_most { "<=" } else { ">=" };
        rows.push(vec![
            bar.name.to_owned(),
            format!("{:.2}", bar.reached),
            format!("{sign} {:.2}", bar.needed),
            if bar.met { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    if bars.is_empty() { String::new() } else { format!("\n{}", text::table(&rows)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::measured::{Recorder, Window};

    fn measured(per_second: f64) -> Measured {
        Measured { per_second, ..Window::open(&[]).close(&Recorder::new()) }
    }

    fn report(rows: &[(&str, f64)]) -> Report {
        let Command::Local(args) = Cli::parse_from(["holm-bench", "local"]).command else {
            panic!("not local")
        };
        let mut report = Report::new(&args);
        for (name, per_second) in rows {
            report.add(Row::baseline(name, measured(*per_second)));
        }
        report.finish();
        report
    }

    /// Goal: ratios are to the mean of both loops, bars follow from the rows. Method: round figures.
    #[test]
    fn ratios_are_to_the_mean_of_both_loops() {
        let report = report(&[
            ("rocksdb_put_before", 90_000.0),
            ("write_quorum", 30_000.0),
            ("read_quorum", 36_000.0),
            ("rocksdb_put_after", 110_000.0),
        ]);
        assert_eq!(report.rocksdb_per_second, Some(100_000.0));
        assert_eq!(report.rocksdb_spread, Some(0.2));
        assert_eq!(report.rows[1].of_rocksdb, Some(0.3));
        assert_eq!(report.bars.len(), 2);
        assert_eq!(report.missed(), ["quorum reads / quorum writes"]);
        let table = report.table();
        assert!(table.contains("MISSED") && table.contains("differ by 20 %"), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][1]["per_second"], 30_000.0);
        assert_eq!(json["bars"][0]["met"], true);
    }

    /// Goal: without baselines there are rows, but no ratios to them.
    #[test]
    fn without_baselines_there_are_no_ratios() {
        let report = report(&[("write_quorum", 1.0), ("read_one", 4.0)]);
        assert_eq!(report.rows[0].of_rocksdb, None);
        assert_eq!(report.bars.len(), 1);
        assert!(report.missed().is_empty());
    }
}
