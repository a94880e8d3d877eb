//! The life of a demo: take the directory, bring the cluster up, stay or tell the story, clean up.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use super::cluster::{CARTS, Cluster};
use super::control::Desk;
use super::home::Home;
use super::plan::{Plan, PlanNode};
use super::rtt;
use super::{StartArgs, setup, story};
use crate::failure::Failure;
use crate::output::{Output, Table};

/// How often the supervisor looks after its nodes.
const WATCH: Duration = Duration::from_millis(500);

/// How a demo came to its end.
enum End {
    /// It did what was asked: the time is up, or the story is told.
    Done,
    /// A signal.
    Interrupted,
}

/// Runs `holm demo` without a sub-command.
///
/// # Errors
/// It does not come up, or a claim of the check does not hold.
pub(super) async fn run(
    output: &Output,
    args: StartArgs,
    data_dir: Option<PathBuf>,
) -> Result<(), Failure> {
    if args.check {
        story::check_size(args.regions.len(), args.nodes_per_region)?;
    }
    let (home, kept) = Home::take(data_dir.as_deref(), |text| output.note(text))?;
    let is_kept = kept.is_some();
    let plan = choose_plan(kept, &args, &home)?;
    let cluster = Mutex::new(Cluster::prepare(home, plan, is_kept)?);
    let lived = tokio::select! {
        lived = live(output, &args, &cluster) => lived,
        interrupted = interruption() => interrupted,
    };
    let spinner = output.spinner("stopping the nodes");
    let home = cluster.into_inner().stop().await;
    drop(spinner);
    clean_up(output, home, lived.is_ok())?;
    match lived? {
        End::Interrupted if args.check => Err(Failure::failed(
            "interrupted before the story was told",
            "run `holm demo --check` again",
        )),
        _ => Ok(()),
    }
}

fn choose_plan(kept: Option<Plan>, args: &StartArgs, home: &Home) -> Result<Plan, Failure> {
    let Some(kept) = kept else { return Plan::new(args) };
    if !kept.fits(args) {
        return Err(Failure::usage(
            format!("{} holds a demo of other regions or nodes", home.dir().display()),
            "start it with the same --regions and --nodes-per-region, or name a new directory",
        ));
    }
    let rtts = rtt::all_pairs(&args.regions, &args.rtt_ms)?;
    Ok(Plan { rtts, ..kept })
}

async fn live(output: &Output, args: &StartArgs, cluster: &Mutex<Cluster>) -> Result<End, Failure> {
    let patience = args.for_secs.map(Duration::from_secs);
    let work = async {
        let desk = Desk::open().await?;
        let spinner = output.spinner("starting");
        cluster.lock().await.bring_up(&spinner).await?;
        drop(spinner);
        cluster.lock().await.announce(desk.control())?;
        tokio::select! {
            told = stay_or_tell(output, args, cluster) => told,
            never = desk.serve(cluster) => match never {},
        }
    };
    let Some(patience) = patience else { return work.await };
    match tokio::time::timeout(patience, work).await {
        Ok(ended) => ended,
        Err(_) if args.check => Err(Failure::failed(
            format!("the story was not told within {} s", patience.as_secs()),
            "give it more time with `--for`, or leave that out",
        )),
        Err(_) => Ok(End::Done),
    }
}

async fn stay_or_tell(
    output: &Output,
    args: &StartArgs,
    cluster: &Mutex<Cluster>,
) -> Result<End, Failure> {
    if args.check {
        story::tell(output, cluster, Duration::from_secs(args.down_for)).await?;
        return Ok(End::Done);
    }
    {
        let cluster = cluster.lock().await;
        output.result(|| for_scripts(&cluster), || for_people(&cluster))?;
    }
    loop {
        for (node, how) in cluster.lock().await.deaths() {
            output.note(&format!("node {} {how}; `holm demo start {}`", node.0, node.0));
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// Completes when the process is told to end: from the keyboard, by a service manager, or because
/// the terminal is gone.
async fn interruption() -> Result<End, Failure> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!("cannot wait for signals: {error}"), "this is a bug in holm")
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(End::Interrupted)
}

fn clean_up(output: &Output, home: Home, is_well: bool) -> Result<(), Failure> {
    let dir = home.dir().to_owned();
    if home.is_named() {
        output.note(&format!("the data stays in {}", dir.display()));
        return Ok(());
    }
    if !is_well {
        output.note(&format!("the nodes' logs stay in {} until the next demo", dir.display()));
        return Ok(());
    }
    home.remove()
}

fn for_scripts(cluster: &Cluster) -> Value {
    let node = |node: &PlanNode| {
        json!({
            "id": node.id.0,
            "region": node.region,
            "zone": node.zone,
            "quic": node.quic.to_string(),
            "http": node.http.to_string(),
        })
    };
    let plan = cluster.plan();
    let rtts = plan
        .rtts
        .iter()
        .map(|pair| json!({ "a": pair.a, "b": pair.b, "rtt_ms": pair.rtt_us as f64 / 1_000.0 }));
    let dir = cluster.home().dir();
    json!({
        "cluster_file": setup::cluster_path(dir).to_string_lossy(),
        "data_dir": dir.to_string_lossy(),
        "nodes": plan.nodes.iter().map(node).collect::<Vec<_>>(),
        "rtts": rtts.collect::<Vec<_>>(),
    })
}

fn for_people(cluster: &Cluster) -> String {
    let plan = cluster.plan();
    let mut table = Table::new(["REGION", "NODES", "ROUND TRIPS"]);
    for region in &plan.regions {
        let nodes = plan.nodes_in(region).map(|node| node.id.0.to_string());
        let trips =
            plan.regions.iter().filter(|other| *other != region).map(|other| {
                format!("{other} {} ms", plan.one_way_us(region, other) as f64 / 500.0)
            });
        table.row([
            region.clone(),
            nodes.collect::<Vec<_>>().join(" "),
            trips.collect::<Vec<_>>().join(", "),
        ]);
    }
    let cluster_file = setup::cluster_path(cluster.home().dir());
    let dir = match cluster.home().is_named() {
        true => format!(" --data-dir {}", cluster.home().dir().display()),
        false => String::new(),
    };
    let first = plan.regions.first().map_or("", String::as_str);
    let last = plan.regions.last().map_or("", String::as_str);
    format!(
        "{}
The cluster takes requests. In another terminal:

  export HOLM_CLUSTER={}
  holm put {CARTS} alice books
  holm get {CARTS} alice --region {last}
  holm explain {CARTS} alice
  holm status

Make trouble:

  holm demo cut {first}{dir}
  holm demo heal{dir}
  holm demo kill 1{dir}
  holm demo start 1{dir}

Ctrl-C stops it.
",
        table.render(),
        cluster_file.display(),
    )
}
