//! `holm status`: every node's own answer, side by side.
//!
//! Nodes are those of the layout and those of the cluster file. Each is asked directly, so that one
//! that others cannot reach still answers, and disagreement is seen rather than averaged away: about
//! the layout, and in [`members`] about each other.

mod members;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use holm_client::{Client, ClusterFile};
use holm_protocol::admin::{ClusterView, MembershipStatus, NodeStatus, PeerOpinion, PeerStatus};
use holm_protocol::ids::NodeId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cli::{Global, StatusArgs};
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::session::Session;
use crate::text;

/// One node, and what it answered.
#[derive(Debug, Clone)]
struct Asked {
    node: NodeId,
    addr: SocketAddr,
    region: String,
    zone: String,
    in_layout: bool,
    answer: Result<NodeStatus, String>,
    /// What it thinks of the others; `None` if it did not say, or is of a version that cannot.
    members: Option<MembershipStatus>,
}

/// Runs `holm status`.
///
/// # Errors
/// A node does not answer, is not ready, or sees the cluster differently. What was found is
/// printed first.
pub(crate) async fn run(
    global: &Global,
    args: &StatusArgs,
    output: &Output,
) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let view = session.view().await?;
    let spinner = output.spinner("asking every node");
    let asked = ask(&session.client, known(&view, &session.file), global.timeout()).await;
    drop(spinner);
    let concerns = concerns(&view, &asked);
    output.result(
        || for_scripts(&view, &asked, &concerns),
        || for_people(&view, &asked, args.peers, &concerns),
    )?;
    if concerns.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(
        format!("the cluster is not well: {}", text::count(concerns.len(), "concern")),
        "see the list above, and the logs of the nodes named in it",
    ))
}

/// The nodes of the layout and of the cluster file, none of them asked yet.
fn known(view: &ClusterView, file: &ClusterFile) -> Vec<Asked> {
    let unasked = || Err("not asked".to_owned());
    let from_file = file.nodes.iter().map(|node| Asked {
        node: NodeId(node.id),
        addr: node.addr,
        region: "-".to_owned(),
        zone: "-".to_owned(),
        in_layout: false,
        answer: unasked(),
        members: None,
    });
    let from_layout = view.nodes.iter().map(|node| Asked {
        node: node.id,
        addr: node.addr,
        region: node.region.clone(),
        zone: node.zone.clone(),
        in_layout: true,
        answer: unasked(),
        members: None,
    });
    // Later ones win: the layout knows more than the file.
    let all: BTreeMap<NodeId, Asked> =
        from_file.chain(from_layout).map(|asked| (asked.node, asked)).collect();
    all.into_values().collect()
}

async fn ask(client: &Client, nodes: Vec<Asked>, timeout: Duration) -> Vec<Asked> {
    let mut answers = JoinSet::new();
    for node in &nodes {
        let (client, id) = (client.clone(), node.node);
        answers.spawn(async move {
            let answer = tokio::time::timeout(timeout, client.admin().status(id)).await;
            let members = match &answer {
                Ok(Ok(_)) => tokio::time::timeout(timeout, client.admin().members(id)).await.ok(),
                _ => None,
            };
            (id, answer, members.and_then(Result::ok))
        });
    }
    let mut by_node = BTreeMap::new();
    while let Some(Ok((id, answer, members))) = answers.join_next().await {
        let answer = match answer {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {} ms", timeout.as_millis())),
        };
        by_node.insert(id, (answer, members));
    }
    let mut nodes = nodes;
    for asked in &mut nodes {
        if let Some((answer, members)) = by_node.remove(&asked.node) {
            (asked.answer, asked.members) = (answer, members);
        }
    }
    nodes
}

/// Everything that is not as it should be, a sentence each.
fn concerns(view: &ClusterView, asked: &[Asked]) -> Vec<String> {
    let mut concerns = Vec::new();
    if view.layout_version == 0 {
        concerns.push("no layout has been applied".to_owned());
    }
    let answers = || asked.iter().filter_map(|asked| asked.answer.as_ref().ok());
    let newest = answers().map(|status| status.layout_version).max().unwrap_or(0);
    for asked in asked {
        let node = asked.node;
        match &asked.answer {
            Err(why) => concerns.push(format!("{node} is unreachable: {why}")),
            Ok(status) => {
                if let Err(why) = &status.ready {
                    concerns.push(format!("{node} is not ready: {why}"));
                }
                if status.amnesia {
                    concerns.push(format!("{node} lost state it once had (amnesia)"));
                }
                if status.layout_version < newest {
                    let version = status.layout_version;
                    concerns.push(format!("{node} has layout {version}, others have {newest}"));
                }
                let cut_off = status.peers.iter().filter(|peer| !peer.connected);
                let cut_off: Vec<NodeId> = cut_off.map(|peer| peer.node).collect();
                if !cut_off.is_empty() {
                    let peers = text::list(cut_off);
                    concerns.push(format!("{node} has no connection to {peers}"));
                }
            }
        }
    }
    concerns.extend(members::concerns(&opinions(asked)));
    concerns
}

/// What the nodes that said so think of each other.
fn opinions(asked: &[Asked]) -> Vec<MembershipStatus> {
    asked.iter().filter_map(|asked| asked.members.clone()).collect()
}

/// What one node says of the others: whether there is a connection, and what it thinks of them.
fn peers_for_scripts(asked: &Asked, status: &NodeStatus) -> Value {
    let mut peers: BTreeMap<NodeId, Value> = BTreeMap::new();
    for PeerStatus { node, connected, rtt_us } in &status.peers {
        let json = json!({ "node": node.0, "connected": connected, "rtt_us": rtt_us });
        peers.insert(*node, json);
    }
    for opinion in asked.members.iter().flat_map(|members| &members.peers) {
        let json = peers.entry(opinion.node).or_insert_with(|| {
            let PeerOpinion { node, connected, rtt_us, .. } = opinion;
            json!({ "node": node.0, "connected": connected, "rtt_us": rtt_us })
        });
        members::add_opinion(json, opinion);
    }
    peers.into_values().collect()
}

fn state(answer: &Result<NodeStatus, String>) -> &'static str {
    match answer {
        Err(_) => "unreachable",
        Ok(status) if status.amnesia => "amnesia",
        Ok(NodeStatus { ready: Err(_), .. }) => "not ready",
        Ok(_) => "ready",
    }
}

fn for_scripts(view: &ClusterView, asked: &[Asked], concerns: &[String]) -> Value {
    let nodes = asked.iter().map(|asked| {
        let mut json = json!({
            "id": asked.node.0,
            "addr": asked.addr.to_string(),
            "region": asked.region,
            "zone": asked.zone,
            "in_layout": asked.in_layout,
            "state": state(&asked.answer),
        });
        match &asked.answer {
            Err(why) => json["error"] = json!(why),
            Ok(status) => {
                json["error"] = json!(status.ready.as_ref().err());
                json["run"] = json!(status.run.to_string());
                json["version"] = json!(status.version);
                json["uptime_s"] = json!(status.uptime_s);
                json["layout_version"] = json!(status.layout_version);
                json["partitions"] = json!(status.partitions);
                json["in_flight"] = json!(status.in_flight);
                json["peers"] = peers_for_scripts(asked, status);
                if let Some(members) = &asked.members {
                    json["boot"] = json!(members.epoch.boot);
                    json["renewal"] = json!(members.epoch.renewal);
                    json["incarnation"] = json!(members.incarnation);
                }
            }
        }
        json
    });
    json!({
        "cluster": view.cluster,
        "layout_version": view.layout_version,
        "nodes": nodes.collect::<Vec<_>>(),
        "members": members::for_scripts(&opinions(asked)),
        "concerns": concerns,
    })
}

fn for_people(view: &ClusterView, asked: &[Asked], pairs: bool, concerns: &[String]) -> String {
    let mut table = Table::new([
        "NODE",
        "REGION",
        "ZONE",
        "ADDRESS",
        "STATE",
        "LAYOUT",
        "UP",
        "PARTITIONS",
        "IN FLIGHT",
        "PEERS",
        "VERSION",
    ]);
    for asked in asked {
        let blank = || "-".to_owned();
        let [layout, up, partitions, in_flight, peers, version] = match &asked.answer {
            Err(_) => std::array::from_fn(|_| blank()),
            Ok(status) => {
                let connected = status.peers.iter().filter(|peer| peer.connected).count();
                [
                    status.layout_version.to_string(),
                    text::seconds(status.uptime_s),
                    status.partitions.to_string(),
                    status.in_flight.to_string(),
                    format!("{connected}/{}", status.peers.len()),
                    status.version.clone(),
                ]
            }
        };
        table.row([
            asked.node.to_string(),
            asked.region.clone(),
            asked.zone.clone(),
            asked.addr.to_string(),
            state(&asked.answer).to_owned(),
            layout,
            up,
            partitions,
            in_flight,
            peers,
            version,
        ]);
    }
    let mut out = format!("cluster {}, layout version {}\n", view.cluster, view.layout_version);
    out.push_str(&table.render());
    let opinions = opinions(asked);
    if !opinions.is_empty() {
        out.push_str(&format!("\n{}", members::summary(&opinions)));
    }
    if pairs {
        out.push_str(&format!("\n{}", members::pairs(&opinions)));
    }
    for concern in concerns {
        out.push_str(&format!("! {concern}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use holm_client::ClusterFileNode;
    use holm_protocol::admin::NodeInfo;
    use holm_protocol::ids::Actor;

    use super::*;

    fn view() -> ClusterView {
        let node = NodeInfo {
            id: NodeId(1),
            addr: "127.0.0.1:7401".parse().unwrap(),
            region: "eu".into(),
            zone: "a".into(),
            capacity: 1,
        };
        ClusterView {
            cluster: "demo".into(),
            layout_version: 2,
            regions: vec!["eu".into()],
            nodes: vec![node],
            placements: vec![],
            buckets: vec![],
        }
    }

    fn file() -> ClusterFile {
        ClusterFile {
            cluster: "demo".into(),
            region: None,
            ca: "ca.pem".into(),
            cert: "client.pem".into(),
            key: "client.key".into(),
            nodes: (1..3)
                .map(|id| ClusterFileNode { id, addr: "127.0.0.1:7402".parse().unwrap() })
                .collect(),
        }
    }

    fn well(node: u64) -> NodeStatus {
        NodeStatus {
            node: NodeId(node),
            run: Actor(7),
            version: "0.1.0".into(),
            uptime_s: 5,
            layout_version: 2,
            ready: Ok(()),
            amnesia: false,
            peers: vec![PeerStatus { node: NodeId(2), connected: true, rtt_us: 90 }],
            in_flight: 0,
            partitions: 256,
        }
    }

    /// Goal: nodes of the file that are not in the layout are listed too, and the layout's word
    /// on a node wins. Method: one node in both, one in the file only.
    #[test]
    fn nodes_of_file_and_layout_are_listed() {
        let nodes = known(&view(), &file());
        let listed: Vec<_> = nodes
            .iter()
            .map(|asked| (asked.node.0, asked.region.as_str(), asked.in_layout))
            .collect();
        assert_eq!(listed, [(1, "eu", true), (2, "-", false)]);
    }

    /// Goal: what is wrong is named, what is well is not. Method: a node in each state.
    #[test]
    fn concerns_name_what_is_wrong() {
        let mut nodes = known(&view(), &file());
        nodes[0].answer = Ok(well(1));
        nodes[1].answer = Ok(well(2));
        assert_eq!(concerns(&view(), &nodes), [] as [String; 0]);
        let mut sick = well(2);
        sick.ready = Err("starting".into());
        sick.layout_version = 1;
        sick.peers[0].connected = false;
        nodes[1].answer = Ok(sick);
        let found = concerns(&view(), &nodes);
        let want = [
            "n2 is not ready: starting",
            "n2 has layout 1, others have 2",
            "n2 has no connection to n2",
        ];
        assert_eq!(found, want);
        nodes[1].answer = Err("timed out".into());
        assert_eq!(concerns(&view(), &nodes), ["n2 is unreachable: timed out"]);
        let table = for_people(&view(), &nodes, false, &concerns(&view(), &nodes));
        assert!(table.contains("n2    -       -     127.0.0.1:7402  unreachable"), "{table}");
        assert!(table.ends_with("! n2 is unreachable: timed out\n"), "{table}");
        assert_eq!(for_scripts(&view(), &nodes, &[])["nodes"][1]["state"], "unreachable");
    }
}
