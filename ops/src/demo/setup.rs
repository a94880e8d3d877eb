//! The files of a demo: certificates, a configuration for each node, the layout file and the
//! cluster file, all below the data directory.

use std::path::{Path, PathBuf};

use holm_client::{ClusterFile, ClusterFileNode};
use holm_protocol::error::Role;
use holm_protocol::ids::NodeId;
use serde_json::json;

use super::plan::{CLUSTER, Plan, PlanNode};
use crate::cert::authority::{Authority, Identity};
use crate::cert::{CA_CERT, CA_KEY};
use crate::cluster_file;
use crate::failure::Failure;
use crate::files::{self, Secrecy};
use crate::layout::file::{FileNode, LayoutFile};
use crate::layout::write_file;

/// How long the demo's certificates are valid: a kept demo may be taken up months later.
const CERT_DAYS: u32 = 365;
/// RocksDB's block cache of one node: nine of them share a laptop.
const CACHE_BYTES: u64 = 16 << 20;
/// RocksDB's write buffers of one node.
const WRITE_BUFFER_BYTES: u64 = 16 << 20;
/// Silence after which nodes take a connection for dead. Shorter than in production, so that a cut
/// shows soon in `holm status`; far above every round trip.
const IDLE_TIMEOUT_MS: u64 = 3_000;
/// Interval of keepalives: several in one idle timeout.
const KEEPALIVE_MS: u64 = 500;
/// The longest pause before nodes try to reach each other again: healing is watched by people.
const RECONNECT_MAX_MS: u64 = 500;

/// The cluster file, for `--cluster`.
pub(super) fn cluster_path(dir: &Path) -> PathBuf {
    dir.join("cluster.toml")
}

/// The layout file.
pub(super) fn layout_path(dir: &Path) -> PathBuf {
    dir.join("layout.toml")
}

/// Where one node's files are.
fn node_dir(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(format!("node-{}", node.0))
}

/// A node's configuration.
pub(super) fn config_file(dir: &Path, node: NodeId) -> PathBuf {
    node_dir(dir, node).join("holm.toml")
}

/// A node's log.
pub(super) fn log_file(dir: &Path, node: NodeId) -> PathBuf {
    node_dir(dir, node).join("log")
}

/// Writes everything a plan needs into a directory that has none of it yet.
///
/// # Errors
/// A file exists or cannot be written.
pub(super) fn write_all(dir: &Path, plan: &Plan) -> Result<(), Failure> {
    let authority = Authority::create(CLUSTER, CERT_DAYS)?;
    files::create_new(&dir.join(CA_KEY), authority.key_pem(), Secrecy::Private)?;
    files::create_new(&dir.join(CA_CERT), authority.cert_pem(), Secrecy::Public)?;
    let roles = [Role::Read, Role::Write, Role::Admin];
    let client = authority.client(CLUSTER, &roles, CERT_DAYS)?;
    write_identity(dir, "client", &client)?;
    for node in &plan.nodes {
        let node_dir = node_dir(dir, node.id);
        files::create_dir(&node_dir)?;
        write_identity(&node_dir, "node", &authority.node(node.id, CERT_DAYS)?)?;
        let text = config(dir, node)?;
        files::create_new(&config_file(dir, node.id), &text, Secrecy::Public)?;
    }
    write_file(&layout_path(dir), &layout(plan))?;
    cluster_file::write(&cluster_path(dir), &cluster(plan))
}

fn write_identity(dir: &Path, stem: &str, identity: &Identity) -> Result<(), Failure> {
    files::create_new(&dir.join(format!("{stem}.key")), &identity.key_pem, Secrecy::Private)?;
    files::create_new(&dir.join(format!("{stem}.pem")), &identity.cert_pem, Secrecy::Public)
}

fn config(dir: &Path, node: &PlanNode) -> Result<String, Failure> {
    let own = node_dir(dir, node.id);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let config = json!({
        "node": { "id": node.id.0, "data_dir": text(own.join("data")) },
        "cluster": { "id": CLUSTER },
        "listen": { "quic": node.quic.to_string(), "http": node.http.to_string() },
        "tls": {
            "ca": text(dir.join(CA_CERT)),
            "cert": text(own.join("node.pem")),
            "key": text(own.join("node.key")),
        },
        "store": { "cache_bytes": CACHE_BYTES, "write_buffer_bytes": WRITE_BUFFER_BYTES },
        "net": {
            "idle_timeout_ms": IDLE_TIMEOUT_MS,
            "keepalive_ms": KEEPALIVE_MS,
            "reconnect_max_ms": RECONNECT_MAX_MS,
        },
        "log": { "format": "text" },
        "dev": { "enabled": true },
    });
    toml::to_string(&config).map_err(|error| {
        Failure::failed(
            format!("cannot write a node's configuration as TOML: {error}"),
            "this is a bug in holm",
        )
    })
}

fn layout(plan: &Plan) -> LayoutFile {
    let nodes = plan.nodes.iter().map(|node| FileNode {
        id: node.id.0,
        addr: node.quic,
        region: node.region.clone(),
        zone: Some(node.zone.clone()),
        capacity: 100,
    });
    LayoutFile { nodes: nodes.collect(), placements: Vec::new() }
}

fn cluster(plan: &Plan) -> ClusterFile {
    let nodes = plan.nodes.iter().map(|node| ClusterFileNode { id: node.id.0, addr: node.quic });
    ClusterFile {
        cluster: CLUSTER.to_owned(),
        region: plan.regions.first().cloned(),
        ca: CA_CERT.into(),
        cert: "client.pem".into(),
        key: "client.key".into(),
        nodes: nodes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::tests::plan;

    /// Goal: every file that is named is there, and says what the plan says. Method: write a small
    /// demo, read the files back.
    #[test]
    fn files_fit_together() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&["us", "eu"], 2);
        write_all(dir.path(), &plan).unwrap();
        let cluster = ClusterFile::read(cluster_path(dir.path())).unwrap();
        assert_eq!((cluster.nodes.len(), cluster.region.as_deref()), (4, Some("us")));
        for named in [&cluster.ca, &cluster.cert, &cluster.key] {
            assert!(named.is_file(), "{}", named.display());
        }
        let layout = LayoutFile::read(&layout_path(dir.path())).unwrap();
        let proposal = layout.proposal(1, None).unwrap();
        let factors = &proposal.placements[0].replication;
        assert!(factors.iter().all(|(_, factor)| *factor == plan.replication));
        for node in &plan.nodes {
            let text = files::read(&config_file(dir.path(), node.id)).unwrap();
            let config: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(config["node"]["id"].as_integer(), Some(node.id.0 as i64));
            assert_eq!(config["dev"]["enabled"].as_bool(), Some(true));
            for name in ["ca", "cert", "key"] {
                assert!(Path::new(config["tls"][name].as_str().unwrap()).is_file());
            }
        }
        assert!(write_all(dir.path(), &plan).is_err(), "nothing is overwritten");
    }
}
