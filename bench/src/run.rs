//! `holm-bench run`: loads a cluster that is already running.

use std::sync::Arc;
use std::time::Duration;

use holm_client::{BucketError, BucketPolicy, Client};
use serde::Serialize;

use crate::cli::{Output, RunArgs, TargetArg, Workload};
use crate::driver::{self, Plan};
use crate::failure::Failure;
use crate::keyspace::Keyspace;
use crate::measured::Measured;
use crate::target::Target;
use crate::text;

/// What `run -o json` prints.
#[derive(Debug, Serialize)]
struct Report {
    target: &'static str,
    workload: &'static str,
    consistency: Option<String>,
    records: u64,
    value_bytes: u32,
    concurrency: u32,
    seed: u64,
    #[serde(flatten)]
    measured: Measured,
}

/// Runs `holm-bench run`.
///
/// # Errors
/// The cluster cannot be reached or loaded.
pub(crate) async fn run(output: Output, args: &RunArgs) -> Result<(), Failure> {
    let load = args.load;
    let space = Arc::new(Keyspace::new(load.records, load.value_size, load.seed));
    let target = open(args).await?;
    if !args.no_load {
        driver::load(&target, &space).await?;
    }
    let plan = Plan {
        workload: args.workload,
        concurrency: load.concurrency.into(),
        warmup: Duration::from_secs(load.warmup),
        duration: Duration::from_secs(load.duration),
    };
    let measured = driver::drive(&target, &space, plan, &args.pids).await?;
    let report = Report {
        target: match target {
            Target::Null => "null",
            Target::Holm { .. } => "holm",
        },
        workload: match args.workload {
            Workload::Write => "write",
            Workload::Read => "read",
        },
        consistency: args.consistency.map(|level| level.to_string()),
        records: load.records,
        value_bytes: load.value_size,
        concurrency: load.concurrency,
        seed: load.seed,
        measured,
    };
    text::print(output, &report, || {
        let (mut head, mut row) = (vec![String::new()], vec![report.workload.to_owned()]);
        head.extend(Measured::head());
        row.extend(report.measured.cells());
        let note = match (&report.measured.cpu.nodes_s, &target) {
            (None, Target::Holm { .. }) => "CPU is the client's alone: name the nodes with --pid\n",
            _ => "",
        };
        format!("{}{}{note}", text::table(&[head, row]), report.measured.error_lines())
    })
}

async fn open(args: &RunArgs) -> Result<Target, Failure> {
    let TargetArg::Holm(file) = &args.target else { return Ok(Target::Null) };
    let client = Client::builder()
        .cluster_file(file)?
        .name("holm-bench")
        .timeout(Duration::from_millis(args.timeout_ms))
        .lanes(args.lanes.into())
        .in_flight_max(args.load.concurrency.max(4096) as usize)
        .connect()
        .await?;
    let bucket = match client.bucket(&args.bucket).await {
        Err(BucketError::Unknown { .. }) => {
            client.admin().create_bucket(&args.bucket, BucketPolicy::default()).await?;
            client.bucket(&args.bucket).await?
        }
        other => other?,
    };
    Ok(Target::Holm { bucket, level: args.consistency })
}
