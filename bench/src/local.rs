//! `holm-bench local`: a cluster of its own, measured between two runs of the baselines.
//!
//! Baselines first and last, so that a machine that changed its mind in between is seen; ratios are
//! to the mean of both. In between, in this order, because each needs what is before it:
//! 1. a fresh cluster with `sync = interval`; memory of a node that holds nothing;
//! 2. all records written once; quorum writes, quorum reads, reads at `one`;
//! 3. more tasks than the nodes take at a time: refusals and memory ([`overload`]);
//! 4. a second fresh cluster with `sync = always`: quorum writes.
//!
//! Nodes, client and baselines share the machine's cores; that is what the ratios are about.

mod bars;
mod cluster;
mod node;
mod overload;
mod profile;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_client::Level;

use crate::baseline::{self, quic, rocks};
use crate::cli::{LocalArgs, Output, QuicArgs, RocksArgs, SyncArg, Workload};
use crate::driver::{self, Plan};
use crate::failure::Failure;
use crate::keyspace::Keyspace;
use crate::target::Target;
use crate::text;
use cluster::{Cluster, Setup};
use report::{Memory, Report, Row};

/// How long each loop of a baseline is measured, seconds: they run four and one times.
const BASELINE_S: u64 = 4;
/// Records with `sync = always`: loading more would take longer than measuring.
const RECORDS_ALWAYS_MAX: u64 = 20_000;
/// What the nodes are left alone before the memory of an empty one is read: time to free what
/// starting took.
const SETTLE: Duration = Duration::from_secs(2);

/// Runs `holm-bench local`.
///
/// # Errors
/// The cluster cannot be started or loaded; with `--enforce`, a bar was missed.
pub(crate) async fn run(output: Output, args: &LocalArgs) -> Result<(), Failure> {
    let holmd = find_holmd(args)?;
    let mut report = Report::new(args);
    if !args.no_baselines {
        rocksdb(args, &mut report, "before").await?;
        note("QUIC echo");
        let quic = QuicArgs {
            frame_size: args.load.value_size.max(1),
            concurrency: args.load.concurrency,
            duration: BASELINE_S,
            mtu_max: 1_452,
        };
        let echo = baseline::beside("quic-client", move |stop| quic::measure(&quic, stop)).await?;
        report.add(Row::baseline("quic_echo", echo));
    }
    if args.sync != SyncArg::Always {
        interval(args, &holmd, &mut report).await?;
    }
    if args.sync != SyncArg::Interval {
        always(args, &holmd, &mut report).await?;
    }
    if !args.no_baselines {
        rocksdb(args, &mut report, "after").await?;
    }
    report.finish();
    text::print(output, &report, || report.table())?;
    let missed = report.missed();
    if args.enforce && !missed.is_empty() {
        return Err(Failure::BarsMissed(missed));
    }
    Ok(())
}

/// Says on standard error what is going on: a run takes a minute or more.
fn note(doing: &str) {
    eprintln!("holm-bench: {doing}");
}

fn find_holmd(args: &LocalArgs) -> Result<PathBuf, Failure> {
    let holmd = match &args.holmd {
        Some(holmd) => holmd.clone(),
        None => std::env::current_exe()
            .map_err(Failure::io("find this program"))?
            .with_file_name("holmd"),
    };
    if holmd.is_file() { Ok(holmd) } else { Err(Failure::NoHolmd(holmd)) }
}

async fn rocksdb(args: &LocalArgs, report: &mut Report, when: &str) -> Result<(), Failure> {
    note(&format!("RocksDB loop, {when}"));
    let rocks = RocksArgs {
        records: args.load.records,
        value_size: args.load.value_size,
        duration: BASELINE_S,
        data_dir: args.data_dir.clone(),
    };
    let found = baseline::beside("rocksdb", move |stop| rocks::measure(&rocks, stop)).await?;
    report.add(Row::baseline(&format!("rocksdb_put_{when}"), found.single));
    report.add(Row::baseline(&format!("rocksdb_put_batch16_{when}"), found.batched));
    Ok(())
}

async fn interval(
    args: &LocalArgs,
    holmd: &std::path::Path,
    report: &mut Report,
) -> Result<(), Failure> {
    note(&format!("starting {} nodes, sync = interval", args.nodes));
    let mut cluster = Cluster::start(&setup(args, holmd, "interval")).await?;
    tokio::time::sleep(SETTLE).await;
    let mut memory = Memory { node_empty_bytes: cluster.largest_resident_bytes(), overload: None };
    let load = args.load;
    let space = Arc::new(Keyspace::new(load.records, load.value_size, load.seed));
    note(&format!("loading {} records", load.records));
    driver::load(&cluster.target(Some(Level::Quorum)), &space).await?;
    let phases = [
        ("write_quorum", Workload::Write, Level::Quorum),
        ("read_quorum", Workload::Read, Level::Quorum),
        ("read_one", Workload::Read, Level::One),
    ];
    for (name, workload, level) in phases {
        note(name);
        cluster.check()?;
        let target = cluster.target(Some(level));
        let measured =
            driver::drive(&target, &space, plan(args, workload), &cluster.pids()).await?;
        report.add(Row::holm(name, level, "interval", measured));
    }
    if let Some(file) = &args.profile {
        note("write_quorum, profiled");
        let target = cluster.target(Some(Level::Quorum));
        profile::write(file, &target, &space, plan(args, Workload::Write), &cluster.pids()).await?;
    }
    if args.overload_tasks > 0 {
        note(&format!("overload with {} tasks", args.overload_tasks));
        memory.overload = Some(overload::run(args, &cluster, &space).await?);
    }
    report.memory = Some(memory);
    cluster.check()?;
    cluster.stop().await;
    Ok(())
}

async fn always(
    args: &LocalArgs,
    holmd: &std::path::Path,
    report: &mut Report,
) -> Result<(), Failure> {
    note(&format!("starting {} nodes, sync = always", args.nodes));
    let mut cluster = Cluster::start(&setup(args, holmd, "always")).await?;
    let records = args.load.records.min(RECORDS_ALWAYS_MAX);
    let space = Arc::new(Keyspace::new(records, args.load.value_size, args.load.seed));
    let target: Target = cluster.target(Some(Level::Quorum));
    driver::load(&target, &space).await?;
    note("write_quorum_always");
    let plan = plan(args, Workload::Write);
    let measured = driver::drive(&target, &space, plan, &cluster.pids()).await?;
    report.add(Row::holm("write_quorum_always", Level::Quorum, "always", measured));
    cluster.check()?;
    cluster.stop().await;
    Ok(())
}

fn setup<'a>(args: &'a LocalArgs, holmd: &'a std::path::Path, sync: &'static str) -> Setup<'a> {
    Setup { holmd, nodes: args.nodes, sync, data_dir: args.data_dir.as_deref() }
}

fn plan(args: &LocalArgs, workload: Workload) -> Plan {
    Plan {
        workload,
        concurrency: args.load.concurrency.into(),
        warmup: Duration::from_secs(args.load.warmup),
        duration: Duration::from_secs(args.load.duration),
    }
}
