//! The command line: every verb, flag and argument.
//!
//! Names here are contracts (DESIGN 12). Verbs take words, not numbers; what a flag means is said
//! once, here, and ends up in `--help`, the manual and the completions.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use holm_protocol::bucket::BucketKind;
use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;

use crate::cert::CertCommand;
use crate::demo::DemoArgs;
use crate::failure::EXIT_CODES;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "holm",
    version,
    about = "Talk to a holm cluster, and run one",
    propagate_version = true
)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Flags that every verb takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The cluster file: nodes, CA, certificate and key [default: ./holm-cluster.toml, then
    /// ~/.config/holm/cluster.toml]
    #[arg(long, env = "HOLM_CLUSTER", global = true, value_name = "FILE")]
    pub(crate) cluster: Option<PathBuf>,
    /// The region to talk to [default: the cluster file's]
    #[arg(long, env = "HOLM_REGION", global = true)]
    pub(crate) region: Option<String>,
    /// How to print results
    #[arg(short, long, value_enum, default_value_t, global = true, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// How long one request may take, milliseconds
    #[arg(long, default_value_t = 5_000, global = true, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) timeout_ms: u32,
    /// Print results and errors only: no notes, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

impl Global {
    /// How long one request may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For scripts: one JSON value, whose fields are only ever added to
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a value
    #[command(
        after_help = "Without --context, the value is added beside what the key holds. With the context \
        of a get, it replaces what that get returned."
    )]
    Put(PutArgs),
    /// Read a key: all its siblings, and the context for the write that follows
    Get(GetArgs),
    /// Delete what a key holds
    Del(DelArgs),
    /// Create, change and list buckets
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Which node holds which part of the data
    #[command(subcommand)]
    Layout(LayoutCommand),
    /// Ask every node how it is; exits with 1 if one is unreachable, not ready, or disagrees
    Status(StatusArgs),
    /// Where a key lives, and what each of its replicas holds
    Explain(KeyArgs),
    /// Have replicas verify that they hold the same, now, and mend what differs
    #[command(after_help = crate::repair::HELP)]
    Repair(RepairArgs),
    /// Make certificates: the cluster's CA, nodes, clients
    #[command(subcommand)]
    Cert(CertCommand),
    /// Write, check or show a node's configuration (runs `holmd config`)
    Config(ConfigArgs),
    /// Run a cluster of several regions on this machine
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page per verb into a directory
    Man {
        /// The directory to write into
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// What `status` takes.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show what each node thinks of each other one, a line for each pair
    #[arg(long)]
    pub(crate) peers: bool,
}

/// What `repair` takes.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Only the partitions that hold this bucket: all of its placement
    #[arg(long, value_name = "B")]
    pub(crate) bucket: Option<String>,
    /// Also what was verified within the last ten minutes
    #[arg(long)]
    pub(crate) now: bool,
}

/// A bucket and a key.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The bucket's name
    pub(crate) bucket: String,
    /// The key: any bytes
    pub(crate) key: OsString,
}

/// What `put` takes.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) place: KeyArgs,
    /// The value; `-` or nothing reads it from standard input
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: Option<OsString>,
    /// The context that a get of this key printed
    #[arg(long, value_name = "C")]
    pub(crate) context: Option<String>,
    /// Replicas that must hold it: one, local_quorum, quorum, each_quorum, all or a number
    /// [default: the bucket's]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) consistency: Option<Level>,
}

/// What `get` takes.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) place: KeyArgs,
    /// Replicas that must answer: one, local_quorum, quorum, each_quorum, all or a number
    /// [default: the bucket's]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) consistency: Option<Level>,
    /// Print the bytes of the value and nothing else; fails if there are siblings
    #[arg(long)]
    pub(crate) raw: bool,
}

/// What `del` takes.
#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    pub(crate) place: KeyArgs,
    /// The context that a get of this key printed [default: of a read made now]
    #[arg(long, value_name = "C")]
    pub(crate) context: Option<String>,
    /// Replicas that must hold it: one, local_quorum, quorum, each_quorum, all or a number
    /// [default: the bucket's]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) consistency: Option<Level>,
}

/// What can be done with buckets.
#[derive(Debug, Subcommand)]
pub(crate) enum BucketCommand {
    /// Create a bucket
    Create {
        /// Its name: 1 to 64 of a-z 0-9 - _ .
        name: String,
        #[command(flatten)]
        fixed: BucketFixed,
        #[command(flatten)]
        policy: BucketChanges,
    },
    /// Change a bucket's policy; what is not named stays
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        policy: BucketChanges,
    },
    /// Show one bucket
    Show {
        /// Its name
        name: String,
    },
    /// Show all buckets
    List,
}

/// What is fixed when a bucket is created.
#[derive(Debug, Args)]
pub(crate) struct BucketFixed {
    /// What concurrent writes do: siblings keeps them all, lww the last by the clock
    #[arg(long, default_value = "siblings", value_parser = parse_kind)]
    pub(crate) kind: BucketKind,
    /// The placement: which regions hold it
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) placement: String,
}

/// What can be changed about a bucket.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BucketChanges {
    /// The level of reads that name none
    #[arg(long, value_name = "LEVEL")]
    pub(crate) read_consistency: Option<Level>,
    /// The level of writes that name none
    #[arg(long, value_name = "LEVEL")]
    pub(crate) write_consistency: Option<Level>,
    /// Siblings above which a put that replaces none is refused
    #[arg(long, value_name = "N")]
    pub(crate) max_siblings: Option<u16>,
    /// Longest value, bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_value: Option<u32>,
    /// Whether only replicas count, and no other node ever stands in for one that is down
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) strict: Option<bool>,
}

/// What can be done with layouts.
#[derive(Debug, Subcommand)]
pub(crate) enum LayoutCommand {
    /// Say what a layout file would do, without doing it
    Plan(LayoutArgs),
    /// Make a layout file the cluster's layout
    Apply(LayoutArgs),
    /// Declare nodes dead that never come back, so that nothing waits for them any more
    #[command(after_help = crate::layout::removal::HELP)]
    Remove(RemoveArgs),
    /// Show the layout in force
    Show,
}

/// A layout file.
#[derive(Debug, Args)]
pub(crate) struct LayoutArgs {
    /// The layout file (TOML): `[[node]]` tables, and `[[placement]]` tables if the default does
    /// not fit
    pub(crate) file: PathBuf,
    /// Replicas in each region, for the default placement [default: 3, or all nodes of a smaller
    /// region]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) replication: Option<u8>,
}

/// What `layout remove` takes.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The nodes, as `3` or `n3`
    #[arg(required = true, value_name = "NODE", value_parser = parse_node)]
    pub(crate) nodes: Vec<NodeId>,
    /// Do it; without this the command says what it would do
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What is handed on to `holmd config`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ConfigArgs {
    /// init, check or show, and their arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

fn parse_node(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix('n').unwrap_or(text);
    number.parse().map(NodeId).map_err(|_| format!("`{text}` is no node: use its id, as 3 or n3"))
}

fn parse_kind(text: &str) -> Result<BucketKind, String> {
    match text {
        "siblings" => Ok(BucketKind::Siblings),
        "lww" => Ok(BucketKind::Lww),
        other => Err(format!("`{other}` is no kind: use siblings or lww")),
    }
}

/// The kind's name, as on the command line.
pub(crate) fn kind_name(kind: BucketKind) -> &'static str {
    match kind {
        BucketKind::Siblings => "siblings",
        BucketKind::Lww => "lww",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    /// Goal: the definitions hold together. Method: clap's own check.
    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    /// Goal: the contract's lines parse. Method: DESIGN 12, line by line.
    #[test]
    fn contract_lines_parse() {
        for line in [
            "holm put carts alice books",
            "holm put carts alice -5",
            "holm put carts alice - --context 00ff --consistency each_quorum",
            "holm get carts alice --raw -o json",
            "holm -q --timeout-ms 100 --cluster c.toml del carts alice --consistency 3",
            "holm bucket create carts --kind lww --max-siblings 9",
            "holm bucket set carts --read-consistency all",
            "holm bucket list",
            "holm layout apply layout.toml --replication 3",
            "holm layout show",
            "holm status",
            "holm explain carts alice",
            "holm repair",
            "holm repair --bucket carts --region eu-west --now -o json",
            "holm cert ca --name demo",
            "holm cert node 3 --days 30",
            "holm cert client alice --roles read,write",
            "holm config check --config holm.toml",
            "holm config show --help",
            "holm demo --regions a,b --nodes-per-region 1 --rtt-ms a:b=10 --for 3 --check",
            "holm demo cut us-east eu-west",
            "holm demo cut us-east",
            "holm demo heal",
            "holm demo cluster-file",
            "holm demo kill 3 --data-dir d",
            "holm demo kill 3",
            "holm demo start 3",
            "holm completions bash",
            "holm man",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    /// Goal: wrong usage is refused before anything is sent. Method: one mistake a line.
    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "holm",
            "holm put carts",
            "holm get carts alice --consistency 0",
            "holm get carts alice --consistency most",
            "holm bucket create carts --kind heap",
            "holm --timeout-ms 0 status",
            "holm -o yaml status",
            "holm layout apply l.toml --replication 0",
            "holm cert node zero",
            "holm cert client alice --roles root",
            "holm demo --rtt-ms a-b=3",
            "holm demo kill three",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
