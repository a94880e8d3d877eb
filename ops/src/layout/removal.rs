//! `holm layout remove`: a node that is dead for good.
//!
//! As long as the layout has it, everything waits for it: deletes are kept, logs grow, the ends of dead
//! runs stay open. Taken out, its places go to other nodes of its region, which take what they lack
//! from the replicas that live, and nothing waits any more.

use holm_protocol::admin::{ClusterView, LayoutProposal, PlacementInfo};
use holm_protocol::ids::NodeId;

use super::{print_summary, put_in_force};
use crate::cli::{Global, RemoveArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;
use crate::text;

/// Below the help text.
pub(crate) const HELP: &str = "\
For nodes that never come back: a lost disk, a machine that is gone. For a node that is away for a
while do nothing: it catches up by itself. A node that answers is not removed; stop it first.

What only the removed nodes had is lost for good: writes at level one, or in a region that was cut
off, that had not reached any other node. Other nodes of the region take their places; where too few
are left, the region keeps fewer replicas. If such a node is started again it serves nothing.

  holm layout remove n3          what that would do
  holm layout remove n3 --yes    do it";

/// Runs `holm layout remove`.
///
/// # Errors
/// A node is not in the layout, or answers; the nodes refuse the layout, or not all have it in time.
pub(crate) async fn run(
    global: &Global,
    output: &Output,
    args: &RemoveArgs,
) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let view = session.view().await?;
    let (proposal, notes) = proposal(&view, &args.nodes)?;
    for note in notes {
        output.note(&note);
    }
    if args.yes {
        return put_in_force(output, &session.client, (&proposal, &view)).await;
    }
    let summary = session.client.admin().plan_layout(proposal.clone()).await?;
    print_summary(output, &proposal, &summary, &view)?;
    let nodes = text::list(&args.nodes);
    Err(Failure::usage(
        format!("nothing was changed: what only {nodes} had would be lost for good"),
        "say `--yes` to do it",
    ))
}

/// The layout in force without some nodes, and what an operator should know of it.
fn proposal(view: &ClusterView, gone: &[NodeId]) -> Result<(LayoutProposal, Vec<String>), Failure> {
    if let Some(stranger) = gone.iter().find(|id| view.nodes.iter().all(|node| node.id != **id)) {
        return Err(Failure::usage(
            format!("{stranger} is not in the layout"),
            "see `holm layout show` for the nodes that are",
        ));
    }
    let nodes: Vec<_> =
        view.nodes.iter().filter(|node| !gone.contains(&node.id)).cloned().collect();
    let mut notes = Vec::new();
    let placements = view.placements.iter().map(|placement| {
        let mut info: PlacementInfo = placement.info.clone();
        for (region, factor) in &mut info.replication {
            let left = nodes.iter().filter(|node| node.region == *region).count();
            let fewer = u8::try_from(left).unwrap_or(u8::MAX).min(*factor);
            if fewer < *factor {
                let (left, kept) =
                    (text::count(left, "node"), text::count(fewer.into(), "replica"));
                notes.push(format!(
                    "{region} has {left} left: placement {} keeps {kept} there instead of {factor}",
                    info.name
                ));
            }
            *factor = fewer;
        }
        info.replication.retain(|(_, factor)| *factor > 0);
        info
    });
    let placements = placements.collect();
    Ok((LayoutProposal { version: view.layout_version + 1, nodes, placements }, notes))
}

#[cfg(test)]
mod tests {
    use holm_protocol::admin::{NodeInfo, PlacementView};
    use holm_protocol::ids::PlacementId;

    use super::*;

    fn view() -> ClusterView {
        let node = |id: u64, region: &str| NodeInfo {
            id: NodeId(id),
            addr: ([127, 0, 0, id as u8], 7400).into(),
            region: region.into(),
            zone: format!("z{id}"),
            capacity: 100,
        };
        let info = PlacementInfo {
            id: PlacementId(0),
            name: "default".into(),
            bits: 1,
            replication: vec![("eu".into(), 2), ("us".into(), 2)],
        };
        ClusterView {
            cluster: "demo".into(),
            layout_version: 4,
            regions: vec!["eu".into(), "us".into()],
            nodes: vec![node(1, "eu"), node(2, "eu"), node(3, "eu"), node(4, "us"), node(5, "us")],
            placements: vec![PlacementView { info, replicas: vec![] }],
            buckets: vec![],
        }
    }

    /// Goal: the others stay as they are, a region with too few nodes keeps fewer replicas and that is
    /// said, a stranger is named. Method: a node with a spare beside it, one without, one unknown.
    #[test]
    fn removal_changes_nothing_else() {
        let (spare, notes) = proposal(&view(), &[NodeId(3)]).unwrap();
        assert_eq!((spare.version, notes.len()), (5, 0));
        assert_eq!(spare.placements[0], view().placements[0].info);
        assert_eq!(spare.nodes.iter().map(|node| node.id.0).collect::<Vec<_>>(), [1, 2, 4, 5]);

        let (fewer, notes) = proposal(&view(), &[NodeId(4)]).unwrap();
        assert_eq!(fewer.placements[0].replication, [("eu".into(), 2), ("us".into(), 1)]);
        let want = "us has 1 node left: placement default keeps 1 replica there instead of 2";
        assert_eq!(notes, [want]);

        let unknown = proposal(&view(), &[NodeId(9)]).unwrap_err();
        assert!(unknown.to_string().contains("n9 is not in the layout"), "{unknown}");
    }
}
