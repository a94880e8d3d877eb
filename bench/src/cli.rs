//! What can be asked on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use holm_client::Level;

/// Load generator and baselines for holm
#[derive(Debug, Parser)]
#[command(name = "holm-bench", version)]
pub(crate) struct Cli {
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts: fields are only ever added.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a cluster that is already running
    Run(RunArgs),
    /// Measure what the machine can do without holm
    #[command(subcommand)]
    Baseline(BaselineCommand),
    /// Start a cluster on this machine, measure it and compare it with the baselines
    Local(LocalArgs),
}

/// What `run` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// What to load: `holm:CLUSTER_FILE`, or `null` to see the harness's own cost
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: TargetArg,
    /// What every operation is
    #[arg(long, value_enum)]
    pub(crate) workload: Workload,
    /// The bucket; made if it is not there
    #[arg(long, default_value = "bench")]
    pub(crate) bucket: String,
    /// How many replicas must answer; the bucket's defaults if not given
    #[arg(long, value_name = "LEVEL")]
    pub(crate) consistency: Option<Level>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Do not write all records first
    #[arg(long)]
    pub(crate) no_load: bool,
    /// How long one operation may take, milliseconds
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) timeout_ms: u64,
    /// Streams to each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) lanes: u8,
    /// Process ids of nodes on this machine, to count their CPU time
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
}

/// The size and length of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct LoadArgs {
    /// How many keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) records: u64,
    /// Length of values, bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub(crate) value_size: u32,
    /// Operations in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) concurrency: u32,
    /// How long to measure, seconds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) duration: u64,
    /// How long to run before measuring, seconds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(crate) warmup: u64,
    /// What the pseudo-random choices start from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// The baselines.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BaselineCommand {
    /// One thread that puts into a RocksDB: log on, no fsync
    Rocksdb(RocksArgs),
    /// One stream over which pipelined frames go to another thread and back
    Quic(QuicArgs),
}

/// What `baseline rocksdb` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct RocksArgs {
    /// How many keys, of 16 bytes each
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) records: u64,
    /// Length of values, bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub(crate) value_size: u32,
    /// How long to measure each of the two loops, seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) duration: u64,
    /// Where to make the temporary database; the system's temporary directory if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// What `baseline quic` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct QuicArgs {
    /// Length of frames, bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) frame_size: u32,
    /// Frames in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) concurrency: u32,
    /// How long to measure, seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) duration: u64,
    /// Largest UDP payload that MTU discovery tries, bytes; quinn's default if not changed
    #[arg(long, default_value_t = 1_452, value_parser = clap::value_parser!(u16).range(1_200..=8_900))]
    pub(crate) mtu_max: u16,
}

/// What `local` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalArgs {
    /// How many nodes, all in one region
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=15))]
    pub(crate) nodes: u64,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// When nodes fsync
    #[arg(long, value_enum, default_value_t = SyncArg::Both)]
    pub(crate) sync: SyncArg,
    /// Tasks that overload the cluster; 0 leaves that out
    #[arg(long, default_value_t = 12_288, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub(crate) overload_tasks: u32,
    /// How long to overload it, seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) overload_duration: u64,
    /// Leave the baselines out; there are no ratios then
    #[arg(long)]
    pub(crate) no_baselines: bool,
    /// Repeat the quorum writes under a sampling profiler (`perf`) and write what it saw here
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// The node program; the one beside this program if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) holmd: Option<PathBuf>,
    /// Where to make the temporary data directory; the system's one if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Fail if a bar is missed
    #[arg(long)]
    pub(crate) enforce: bool,
}

/// What every operation of a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Overwrites a random key, with the context of the write before.
    Write,
    /// Reads a random key.
    Read,
}

/// Which settings of `store.sync` to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncArg {
    /// Fsync now and then.
    Interval,
    /// Fsync before every acknowledgement.
    Always,
    /// One after the other.
    Both,
}

/// What to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetArg {
    /// Nothing.
    Null,
    /// The cluster of this cluster file.
    Holm(PathBuf),
}

impl FromStr for TargetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetArg, String> {
        match text.split_once(':') {
            None if text == "null" => Ok(TargetArg::Null),
            Some(("holm", file)) if !file.is_empty() => Ok(TargetArg::Holm(file.into())),
            _ => Err("use `holm:CLUSTER_FILE` or `null`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    /// Goal: the definition itself is sound. Method: clap's own check.
    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Goal: the documented command works and its flags arrive.
    #[test]
    fn run_takes_its_flags() {
        let cli = parse(
            "holm-bench run --target holm:/tmp/c.toml --workload read --records 10 --value-size 0 \
             --concurrency 7 --duration 3 --consistency quorum --warmup 0 --pid 4,5 -o json",
        )
        .unwrap();
        assert_eq!(cli.output, Output::Json);
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.target, TargetArg::Holm("/tmp/c.toml".into()));
        assert_eq!((args.workload, args.consistency), (Workload::Read, Some(Level::Quorum)));
        assert_eq!(args.pids, [4, 5]);
        let load = LoadArgs {
            records: 10,
            value_size: 0,
            concurrency: 7,
            duration: 3,
            warmup: 0,
            seed: 1,
        };
        assert_eq!(args.load, load);
    }

    /// Goal: what cannot be is refused. Method: one mistake each.
    #[test]
    fn mistakes_are_refused() {
        for line in [
            "holm-bench run --workload read",
            "holm-bench run --target redis:x --workload read",
            "holm-bench run --target holm: --workload read",
            "holm-bench run --target null --workload a",
            "holm-bench run --target null --workload read --concurrency 0",
            "holm-bench run --target null --workload read --consistency most",
            "holm-bench local --nodes 0",
            "holm-bench local --sync sometimes",
            "holm-bench baseline",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    /// Goal: `local` without flags is the setting that the bars are about.
    #[test]
    fn local_defaults_are_the_bars_setting() {
        let Command::Local(args) = parse("holm-bench local").unwrap().command else {
            panic!("not local")
        };
        assert_eq!((args.nodes, args.sync, args.enforce), (3, SyncArg::Both, false));
        assert_eq!((args.load.value_size, args.load.concurrency), (100, 64));
        assert_eq!((args.load.records, args.load.duration), (100_000, 8));
    }
}
