//! `holm demo`: a cluster of several regions on this machine, with real processes, real disks and
//! made-up distances.
//!
//! One process, the *supervisor*, makes certificates and configurations ([`setup`]), starts a
//! `holmd` per node ([`processes`]), applies the layout, tells every node how far away the others
//! are ([`links`]) and stays until it is interrupted. `demo cut|heal|kill|start` are clients of it:
//! they find it through the state file in its data directory ([`home`]) and speak to its loopback
//! port ([`control`]), so that the rules in force are known in one place.
//!
//! What holds:
//! - one demo per data directory, by a lock; what a killed supervisor left behind is recognised by
//!   process id *and* start time, so that no stranger's process is ever signalled;
//! - every wait is for a condition, with a deadline ([`wait`]);
//! - on the way out the nodes are stopped, and the data is removed unless a place for it was named
//!   (or a check failed: then the logs are worth reading).

mod cluster;
mod control;
mod home;
mod links;
mod plan;
mod processes;
mod rtt;
mod setup;
mod story;
mod supervisor;
mod wait;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::Global;
use crate::failure::Failure;
use crate::output::Output;
use control::Order;
use rtt::PairRtt;

/// What `demo` takes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    command: Option<DemoCommand>,
    #[command(flatten)]
    start: StartArgs,
    /// Where the demo lives. Named: its data is kept and taken up again. Not named: a directory of
    /// your own under ~/.cache, removed at the end
    #[arg(long, global = true, value_name = "D")]
    data_dir: Option<PathBuf>,
}

/// How a demo is started.
#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    /// The regions
    #[arg(long, value_delimiter = ',', default_value = "us-east,eu-west,ap-southeast")]
    regions: Vec<String>,
    /// How many nodes each region has
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=30))]
    nodes_per_region: u16,
    /// Round-trip times between regions: us-east:eu-west=80,... [default: 80, 160, 180, in turn]
    #[arg(long, value_delimiter = ',', value_name = "A:B=MS", value_parser = rtt::parse_pair)]
    rtt_ms: Vec<PairRtt>,
    /// Stop after this many seconds
    #[arg(long = "for", value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    for_secs: Option<u64>,
    /// Tell and verify a story, then stop; exits with 0 only if every claim in it was observed
    #[arg(long)]
    check: bool,
    /// How long the story leaves a killed node away under load, seconds
    #[arg(long, requires = "check", default_value_t = 10, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    down_for: u64,
}

/// What can be done to a running demo.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Cut region A off from region B, or from all others
    Cut {
        /// A region
        a: String,
        /// The other one
        #[arg(default_value = "all")]
        b: String,
    },
    /// Undo all cuts
    Heal,
    /// Print the path of its cluster file, for HOLM_CLUSTER
    ClusterFile,
    /// Kill a node at once (SIGKILL)
    Kill {
        /// Its id
        node: u64,
    },
    /// Start a killed node again
    Start {
        /// Its id
        node: u64,
    },
}

/// Runs `holm demo`.
///
/// # Errors
/// The demo does not come up, a claim of the check does not hold, or, for the sub-commands, no
/// demo is running or it refuses.
pub(crate) async fn run(global: &Global, output: &Output, args: DemoArgs) -> Result<(), Failure> {
    let order = match args.command {
        None => return supervisor::run(output, args.start, args.data_dir).await,
        Some(DemoCommand::ClusterFile) => {
            let (dir, _) = home::running(args.data_dir.as_deref())?;
            let path = setup::cluster_path(&dir).to_string_lossy().into_owned();
            return output.result(|| json!({ "cluster_file": path }), || format!("{path}\n"));
        }
        Some(DemoCommand::Cut { a, b }) => Order::Cut { a, b: (b != "all").then_some(b) },
        Some(DemoCommand::Heal) => Order::Heal,
        Some(DemoCommand::Kill { node }) => Order::Kill { node },
        Some(DemoCommand::Start { node }) => Order::Start { node },
    };
    let (_, state) = home::running(args.data_dir.as_deref())?;
    let spinner = output.spinner("waiting for the demo");
    let done = control::send(&state, order, global.timeout()).await?;
    drop(spinner);
    output.result(|| json!({ "done": done }), || format!("{done}\n"))
}
