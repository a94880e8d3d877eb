//! A connection to the cluster that the command line names.

use holm_client::{Bucket, Client, ClusterFile, ConnectError, Context};
use holm_protocol::admin::ClusterView;
use holm_protocol::ids::RegionId;
use holm_protocol::message::Receipt;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::cluster_file;
use crate::failure::Failure;
use crate::text;

/// A connected client, and the file it came from.
pub(crate) struct Session {
    /// The client.
    pub(crate) client: Client,
    /// The cluster file.
    pub(crate) file: ClusterFile,
}

impl Session {
    /// Finds the cluster file and connects.
    ///
    /// # Errors
    /// There is no cluster file, it is wrong, or no node answers.
    pub(crate) async fn open(global: &Global) -> Result<Session, Failure> {
        let path = cluster_file::locate(global)?;
        let file = ClusterFile::read(&path).map_err(ConnectError::from)?;
        let mut builder = Client::builder().cluster_file(&path)?;
        builder = builder.timeout(global.timeout()).connect_timeout(global.timeout());
        if let Some(region) = &global.region {
            builder = builder.region(region.as_str());
        }
        let client = builder.connect().await.map_err(|error| {
            let mut failure = Failure::from(error);
            let path = path.display().to_string();
            if !failure.what.contains(&path) {
                failure.what.push_str(&format!(" (cluster file {path})"));
            }
            failure
        })?;
        Ok(Session { client, file })
    }

    /// A bucket by its name.
    ///
    /// # Errors
    /// There is none, or no node answers.
    pub(crate) async fn bucket(&self, name: &str) -> Result<Bucket, Failure> {
        Ok(self.client.bucket(name).await?)
    }

    /// Layout and buckets.
    ///
    /// # Errors
    /// No node answers.
    pub(crate) async fn view(&self) -> Result<ClusterView, Failure> {
        Ok(self.client.admin().view().await?)
    }
}

/// A context as a get printed it.
///
/// # Errors
/// It is none.
pub(crate) fn parse_context(text: &str) -> Result<Context, Failure> {
    text.parse::<Context>().map_err(|error| {
        Failure::usage(
            error.to_string(),
            "copy all of the `context` that `holm get` printed; it is one word",
        )
    })
}

/// A region's name, or its number if the layout does not know it.
pub(crate) fn region_name(view: &ClusterView, region: RegionId) -> String {
    let name = view.regions.get(usize::from(region.0));
    name.cloned().unwrap_or_else(|| format!("region {}", region.0))
}

/// Who stands behind an answer, for scripts.
pub(crate) fn receipt_for_scripts(receipt: &Receipt, view: &ClusterView) -> Value {
    let replicas = receipt.replicas.iter().map(|entry| {
        json!({
            "node": entry.node.0,
            "region": region_name(view, entry.region),
            "fallback": entry.fallback,
        })
    });
    json!({
        "coordinator": receipt.coordinator.0,
        "level": receipt.level.to_string(),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}

/// Who stands behind an answer, for people.
pub(crate) fn receipt_for_people(receipt: &Receipt, view: &ClusterView) -> String {
    let replicas = receipt.replicas.iter().map(|entry| {
        let fallback = if entry.fallback { ", fallback" } else { "" };
        format!("{} ({}{fallback})", entry.node, region_name(view, entry.region))
    });
    format!(
        "{} at level {}, coordinated by {}: {}",
        text::count(receipt.replicas.len(), "replica"),
        receipt.level,
        receipt.coordinator,
        text::list(replicas),
    )
}

#[cfg(test)]
mod tests {
    use holm_protocol::ids::NodeId;
    use holm_protocol::level::Level;
    use holm_protocol::message::ReceiptEntry;

    use super::*;

    /// Goal: a receipt names nodes and regions, also a region this view has not learnt of yet.
    /// Method: one of each.
    #[test]
    fn receipts_name_nodes_and_regions() {
        let view = ClusterView {
            cluster: "demo".into(),
            layout_version: 1,
            regions: vec!["eu-west".into()],
            nodes: Vec::new(),
            placements: Vec::new(),
            buckets: Vec::new(),
        };
        let entry = |node, region, fallback| ReceiptEntry {
            node: NodeId(node),
            region: RegionId(region),
            fallback,
        };
        let receipt = Receipt {
            coordinator: NodeId(4),
            level: Level::LocalQuorum,
            replicas: vec![entry(4, 0, false), entry(9, 3, true)],
        };
        let want = "2 replicas at level local_quorum, coordinated by n4: n4 (eu-west), \
                    n9 (region 3, fallback)";
        assert_eq!(receipt_for_people(&receipt, &view), want);
        let json = receipt_for_scripts(&receipt, &view);
        assert_eq!(json["replicas"][1], json!({"node": 9, "region": "region 3", "fallback": true}));
    }
}
