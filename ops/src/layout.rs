//! `holm layout`: which node holds which part of the data.
//!
//! The operator writes a layout file ([`mod@file`]), looks at what it would do (`plan`) and makes it the
//! cluster's (`apply`). A layout carries the version after the one in force, so that two operators
//! cannot overwrite each other unknowingly. A node that is dead for good is taken out ([`removal`]).

pub(crate) mod file;
pub(crate) mod removal;

use std::path::Path;
use std::time::{Duration, Instant};

use holm_client::Client;
use holm_protocol::admin::{ClusterView, LayoutProposal, LayoutSummary};
use holm_protocol::ids::NodeId;
use serde_json::{Value, json};

use crate::cli::{Global, LayoutArgs, LayoutCommand};
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::session::Session;
use crate::text;
use file::LayoutFile;

/// How long to wait until every node has a new layout: time to connect all pairs, with some
/// attempts lost.
const SPREAD_DEADLINE: Duration = Duration::from_secs(30);
/// How often to ask whether it has.
const SPREAD_POLL: Duration = Duration::from_millis(100);

/// Runs `holm layout`.
///
/// # Errors
/// The file is wrong, the nodes refuse the layout, or not all of them have it in time.
pub(crate) async fn run(
    global: &Global,
    output: &Output,
    command: LayoutCommand,
) -> Result<(), Failure> {
    match command {
        LayoutCommand::Show => show(output, &Session::open(global).await?.view().await?),
        LayoutCommand::Plan(args) => {
            let (session, view, proposal) = propose(global, &args).await?;
            let summary = session.client.admin().plan_layout(proposal.clone()).await?;
            print_summary(output, &proposal, &summary, &view)
        }
        LayoutCommand::Apply(args) => {
            let (session, view, proposal) = propose(global, &args).await?;
            put_in_force(output, &session.client, (&proposal, &view)).await
        }
        LayoutCommand::Remove(args) => removal::run(global, output, &args).await,
    }
}

/// Applies a layout, says what it came to, and waits until every node has it.
async fn put_in_force(
    output: &Output,
    client: &Client,
    (proposal, before): (&LayoutProposal, &ClusterView),
) -> Result<(), Failure> {
    let spinner = output.spinner("applying the layout");
    let summary = apply(client, proposal).await?;
    spinner.say("waiting until every node has it");
    let late = wait_until_spread(client, proposal, SPREAD_DEADLINE).await;
    drop(spinner);
    print_summary(output, proposal, &summary, before)?;
    if late.is_empty() {
        return Ok(());
    }
    Err(Failure::unavailable(
        format!("the layout is in force, but not yet on {}", text::list(late)),
        "start those nodes; see `holm status`",
    ))
}

/// Reads the file, connects, and gives the proposal the version after the one in force.
async fn propose(
    global: &Global,
    args: &LayoutArgs,
) -> Result<(Session, ClusterView, LayoutProposal), Failure> {
    let file = LayoutFile::read(&args.file)?;
    let session = Session::open(global).await?;
    let view = session.view().await?;
    let proposal = file.proposal(view.layout_version + 1, args.replication)?;
    Ok((session, view, proposal))
}

/// Applies a layout on the node with the smallest id that answers: it is the one that dials all others,
/// so the layout reaches nodes that know of nobody yet.
///
/// # Errors
/// The node refused it or did not answer.
pub(crate) async fn apply(
    client: &Client,
    proposal: &LayoutProposal,
) -> Result<LayoutSummary, Failure> {
    let mut nodes: Vec<NodeId> = proposal.nodes.iter().map(|node| node.id).collect();
    nodes.sort();
    let mut at = nodes.first().copied().unwrap_or(NodeId(1));
    for node in nodes {
        if client.admin().status(node).await.is_ok() {
            at = node;
            break;
        }
    }
    Ok(client.admin().apply_layout(at, proposal.clone()).await?)
}

/// Waits until every node of a layout says that it has it; returns those that did not.
pub(crate) async fn wait_until_spread(
    client: &Client,
    proposal: &LayoutProposal,
    patience: Duration,
) -> Vec<NodeId> {
    let deadline = Instant::now() + patience;
    let mut late: Vec<NodeId> = proposal.nodes.iter().map(|node| node.id).collect();
    loop {
        let mut still_late = Vec::new();
        for node in late {
            match client.admin().status(node).await {
                Ok(status) if status.layout_version >= proposal.version => {}
                _ => still_late.push(node),
            }
        }
        late = still_late;
        if late.is_empty() || Instant::now() >= deadline {
            return late;
        }
        tokio::time::sleep(SPREAD_POLL).await;
    }
}

fn print_summary(
    output: &Output,
    proposal: &LayoutProposal,
    summary: &LayoutSummary,
    before: &ClusterView,
) -> Result<(), Failure> {
    output.result(|| summary_for_scripts(summary), || summary_for_people(proposal, summary, before))
}

fn summary_for_scripts(summary: &LayoutSummary) -> Value {
    let load = summary.load.iter();
    let load = load.map(|(node, replicas)| json!({ "node": node.0, "replicas": replicas }));
    json!({
        "version": summary.version,
        "digest": format!("{:016x}", summary.digest),
        "moves": summary.moves,
        "load": load.collect::<Vec<_>>(),
    })
}

fn summary_for_people(
    proposal: &LayoutProposal,
    summary: &LayoutSummary,
    before: &ClusterView,
) -> String {
    let mut table = Table::new(["NODE", "REGION", "ZONE", "CAPACITY", "PARTITION REPLICAS"]);
    for (id, replicas) in &summary.load {
        let node = proposal.nodes.iter().find(|node| node.id == *id);
        table.row([
            id.to_string(),
            node.map_or_else(String::new, |node| node.region.clone()),
            node.map_or_else(String::new, |node| node.zone.clone()),
            node.map_or_else(String::new, |node| node.capacity.to_string()),
            replicas.to_string(),
        ]);
    }
    let mut out = table.render();
    for placement in &proposal.placements {
        out.push_str(&placement_line(&placement.name, placement.bits, &placement.replication));
    }
    let from = match before.layout_version {
        0 => "the first layout".to_owned(),
        version => format!("after version {version}"),
    };
    out.push_str(&format!(
        "version {} ({from}), digest {:016x}, {} to move\n",
        summary.version,
        summary.digest,
        text::count(summary.moves as usize, "partition replica"),
    ));
    out
}

fn placement_line(name: &str, bits: u8, replication: &[(String, u8)]) -> String {
    let factors = replication.iter().map(|(region, factor)| format!("{factor} in {region}"));
    format!(
        "placement {name}: {} partitions, replicas: {}\n",
        1_u32 << bits.min(16),
        text::list(factors)
    )
}

fn show(output: &Output, view: &ClusterView) -> Result<(), Failure> {
    if view.layout_version == 0 {
        output.note("the cluster has no layout yet: give it one with `holm layout apply FILE`");
    }
    output.result(|| view_for_scripts(view), || view_for_people(view))
}

/// How many partition replicas each node of a view holds, by its index.
fn load(view: &ClusterView) -> Vec<u32> {
    let mut load = vec![0; view.nodes.len()];
    for index in view.placements.iter().flat_map(|placement| placement.replicas.iter().flatten()) {
        if let Some(count) = load.get_mut(usize::from(*index)) {
            *count += 1;
        }
    }
    load
}

fn view_for_scripts(view: &ClusterView) -> Value {
    let nodes = view.nodes.iter().zip(load(view)).map(|(node, replicas)| {
        json!({
            "id": node.id.0,
            "addr": node.addr.to_string(),
            "region": node.region,
            "zone": node.zone,
            "capacity": node.capacity,
            "replicas": replicas,
        })
    });
    let placements = view.placements.iter().map(|placement| {
        let replication = placement.info.replication.iter();
        json!({
            "id": placement.info.id.0,
            "name": placement.info.name,
            "partitions": 1_u32 << placement.info.bits.min(16),
            "replication": replication
                .map(|(region, factor)| (region.clone(), json!(factor)))
                .collect::<serde_json::Map<_, _>>(),
        })
    });
    json!({
        "cluster": view.cluster,
        "version": view.layout_version,
        "nodes": nodes.collect::<Vec<_>>(),
        "placements": placements.collect::<Vec<_>>(),
    })
}

fn view_for_people(view: &ClusterView) -> String {
    let mut table =
        Table::new(["NODE", "ADDRESS", "REGION", "ZONE", "CAPACITY", "PARTITION REPLICAS"]);
    for (node, replicas) in view.nodes.iter().zip(load(view)) {
        table.row([
            node.id.to_string(),
            node.addr.to_string(),
            node.region.clone(),
            node.zone.clone(),
            node.capacity.to_string(),
            replicas.to_string(),
        ]);
    }
    let mut out = table.render();
    for placement in &view.placements {
        let info = &placement.info;
        out.push_str(&placement_line(&info.name, info.bits, &info.replication));
    }
    out.push_str(&format!("cluster {}, layout version {}\n", view.cluster, view.layout_version));
    out
}

/// Writes a layout file for nodes, as `holm layout apply` reads it.
///
/// # Errors
/// The file exists or cannot be written.
pub(crate) fn write_file(path: &Path, layout: &LayoutFile) -> Result<(), Failure> {
    let text = toml::to_string(layout).map_err(|error| {
        Failure::failed(
            format!("cannot write the layout as TOML: {error}"),
            "this is a bug in holm",
        )
    })?;
    crate::files::create_new(path, &text, crate::files::Secrecy::Public)
}

#[cfg(test)]
mod tests {
    use holm_protocol::admin::{NodeInfo, PlacementInfo, PlacementView};
    use holm_protocol::ids::PlacementId;

    use super::*;

    fn node(id: u64, region: &str) -> NodeInfo {
        NodeInfo {
            id: NodeId(id),
            addr: "127.0.0.1:7401".parse().unwrap(),
            region: region.into(),
            zone: "a".into(),
            capacity: 100,
        }
    }

    /// Goal: the load shown is what the assignment says. Method: a view with two partitions.
    #[test]
    fn layout_is_shown_with_its_load() {
        let info = PlacementInfo {
            id: PlacementId(0),
            name: "default".into(),
            bits: 1,
            replication: vec![("eu".into(), 1)],
        };
        let view = ClusterView {
            cluster: "demo".into(),
            layout_version: 4,
            regions: vec!["eu".into()],
            nodes: vec![node(1, "eu"), node(2, "eu")],
            placements: vec![PlacementView { info, replicas: vec![vec![1], vec![1]] }],
            buckets: vec![],
        };
        let want = "\
NODE  ADDRESS         REGION  ZONE  CAPACITY  PARTITION REPLICAS
n1    127.0.0.1:7401  eu      a     100       0
n2    127.0.0.1:7401  eu      a     100       2
placement default: 2 partitions, replicas: 1 in eu
cluster demo, layout version 4
";
        assert_eq!(view_for_people(&view), want);
        assert_eq!(view_for_scripts(&view)["nodes"][1]["replicas"], 2);
        assert_eq!(view_for_scripts(&view)["placements"][0]["replication"], json!({"eu": 1}));
    }

    /// Goal: a plan says version, load and moves. Method: one node, in full.
    #[test]
    fn plan_says_what_it_would_do() {
        let proposal =
            LayoutProposal { version: 1, nodes: vec![node(1, "eu")], placements: vec![] };
        let summary =
            LayoutSummary { version: 1, digest: 0xd, load: vec![(NodeId(1), 256)], moves: 0 };
        let before = ClusterView {
            cluster: "demo".into(),
            layout_version: 0,
            regions: vec![],
            nodes: vec![],
            placements: vec![],
            buckets: vec![],
        };
        let want = "\
NODE  REGION  ZONE  CAPACITY  PARTITION REPLICAS
n1    eu      a     100       256
version 1 (the first layout), digest 000000000000000d, 0 partition replicas to move
";
        assert_eq!(summary_for_people(&proposal, &summary, &before), want);
        assert_eq!(summary_for_scripts(&summary)["digest"], "000000000000000d");
    }
}
