//! The layout file: an operator's description of the cluster, in TOML.
//!
//! ```toml
//! [[node]]
//! id = 1
//! addr = "10.0.0.1:7400"
//! region = "us-east"
//! zone = "a"        # what fails together; default: the node's own
//! capacity = 100    # its share, relative to the nodes of its region; default 100
//!
//! [[placement]]     # optional; the default one takes every region
//! name = "default"
//! partitions = 256
//! replication = { us-east = 3 }
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use holm_protocol::admin::{LayoutProposal, NodeInfo, PlacementInfo};
use holm_protocol::ids::{NodeId, PlacementId};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::files;

/// Replicas in each region unless something else is said: one may fail and a majority remains.
const REPLICATION: u8 = 3;
/// Partitions of a placement unless something else is said (DESIGN 4).
const PARTITIONS: u32 = 256;
/// Capacity of a node unless something else is said. Only ratios matter.
const CAPACITY: u32 = 100;

/// A layout file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayoutFile {
    /// The nodes.
    #[serde(rename = "node", default)]
    pub(crate) nodes: Vec<FileNode>,
    /// The placements. None: one named `default` that takes every region.
    #[serde(rename = "placement", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) placements: Vec<FilePlacement>,
}

/// A node in a layout file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileNode {
    /// Its id.
    pub(crate) id: u64,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Its region.
    pub(crate) region: String,
    /// What it fails together with; a zone of its own if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    /// Its share.
    #[serde(default = "default_capacity")]
    pub(crate) capacity: u32,
}

/// A placement in a layout file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilePlacement {
    /// Its name.
    pub(crate) name: String,
    /// How many partitions: a power of two up to 65,536, fixed when it is made.
    #[serde(default = "default_partitions")]
    pub(crate) partitions: u32,
    /// Replicas by region.
    pub(crate) replication: BTreeMap<String, u8>,
}

fn default_capacity() -> u32 {
    CAPACITY
}

fn default_partitions() -> u32 {
    PARTITIONS
}

impl LayoutFile {
    /// Reads a layout file.
    ///
    /// # Errors
    /// It cannot be read or is no layout file.
    pub(crate) fn read(path: &Path) -> Result<LayoutFile, Failure> {
        toml::from_str(&files::read(path)?).map_err(|error| {
            Failure::usage(
                format!("{} is no layout file: {}", path.display(), error.to_string().trim_end()),
                "it needs a `[[node]]` with `id`, `addr` and `region` for each node",
            )
        })
    }

    /// The proposal that a node understands. The nodes themselves check the rest: ids, names and
    /// whether the factors can be met.
    ///
    /// # Errors
    /// A number of partitions is no power of two, or `replication` was given although the file has
    /// placements of its own.
    pub(crate) fn proposal(
        &self,
        version: u64,
        replication: Option<u8>,
    ) -> Result<LayoutProposal, Failure> {
        if replication.is_some() && !self.placements.is_empty() {
            return Err(Failure::usage(
                "`--replication` is for the default placement, but the file has placements",
                "leave the flag out, or set `replication` in the file",
            ));
        }
        let nodes = self.nodes.iter().map(|node| NodeInfo {
            id: NodeId(node.id),
            addr: node.addr,
            region: node.region.clone(),
            zone: node.zone.clone().unwrap_or_else(|| format!("zone-{}", node.id)),
            capacity: node.capacity,
        });
        let placements = match self.placements.as_slice() {
            [] => vec![self.default_placement(replication)],
            placements => (0..).zip(placements).map(placement).collect::<Result<_, _>>()?,
        };
        Ok(LayoutProposal { version, nodes: nodes.collect(), placements })
    }

    fn default_placement(&self, replication: Option<u8>) -> PlacementInfo {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &self.nodes {
            *sizes.entry(&node.region).or_default() += 1;
        }
        let factor = |size: usize| {
            // A factor that was asked for is never lowered silently: the nodes refuse it if a
            // region is too small.
            replication
                .unwrap_or_else(|| REPLICATION.min(u8::try_from(size).unwrap_or(REPLICATION)))
        };
        PlacementInfo {
            id: PlacementId(0),
            name: "default".to_owned(),
            bits: PARTITIONS.trailing_zeros() as u8,
            replication: sizes
                .into_iter()
                .map(|(region, size)| (region.to_owned(), factor(size)))
                .collect(),
        }
    }
}

fn placement((id, placement): (u16, &FilePlacement)) -> Result<PlacementInfo, Failure> {
    if !placement.partitions.is_power_of_two() || placement.partitions > 1 << 16 {
        return Err(Failure::usage(
            format!("placement `{}` has {} partitions", placement.name, placement.partitions),
            "use a power of two from 1 to 65536",
        ));
    }
    let replication =
        placement.replication.iter().map(|(region, &factor)| (region.clone(), factor));
    Ok(PlacementInfo {
        id: PlacementId(id),
        name: placement.name.clone(),
        bits: placement.partitions.trailing_zeros() as u8,
        replication: replication.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        [[node]]
        id = 1
        addr = "10.0.0.1:7400"
        region = "us"
        [[node]]
        id = 2
        addr = "[::1]:7400"
        region = "eu"
        zone = "b"
        capacity = 50
    "#;

    /// Goal: what is left out has the documented defaults. Method: a file without placements.
    #[test]
    fn defaults_are_filled_in() {
        let file: LayoutFile = toml::from_str(EXAMPLE).unwrap();
        let proposal = file.proposal(3, None).unwrap();
        assert_eq!(proposal.version, 3);
        assert_eq!((proposal.nodes[0].zone.as_str(), proposal.nodes[0].capacity), ("zone-1", 100));
        assert_eq!((proposal.nodes[1].zone.as_str(), proposal.nodes[1].capacity), ("b", 50));
        let [placement] = proposal.placements.as_slice() else { panic!("one placement") };
        assert_eq!((placement.name.as_str(), placement.bits), ("default", 8));
        assert_eq!(placement.replication, [("eu".to_owned(), 1), ("us".to_owned(), 1)]);
        let asked = file.proposal(1, Some(2)).unwrap();
        assert_eq!(asked.placements[0].replication[0].1, 2, "an asked factor is not lowered");
        let again: LayoutFile = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(again, file);
    }

    /// Goal: placements are taken as written. Method: two of them; a bad partition count.
    #[test]
    fn placements_are_taken_as_written() {
        let more = format!(
            "{EXAMPLE}
            [[placement]]
            name = \"default\"
            replication = {{ us = 1, eu = 1 }}
            [[placement]]
            name = \"europe\"
            partitions = 64
            replication = {{ eu = 1 }}
        "
        );
        let file: LayoutFile = toml::from_str(&more).unwrap();
        let proposal = file.proposal(1, None).unwrap();
        let second = &proposal.placements[1];
        assert_eq!((second.id, second.bits), (PlacementId(1), 6));
        assert!(file.proposal(1, Some(3)).is_err(), "a flag and the file contradict");
        let odd: LayoutFile = toml::from_str(&more.replace("64", "65")).unwrap();
        assert!(odd.proposal(1, None).is_err());
        assert!(toml::from_str::<LayoutFile>(&more.replace("partitions", "parts")).is_err());
    }
}
