//! A cluster of `holmd` processes on loopback, made for one measurement.
//!
//! Everything is in one temporary directory, which goes with the cluster: certificates, configs,
//! data, logs. Ports are free ones of the moment. Any `HOLM_...` variable of the environment
//! reaches the nodes and overrides what is written here, so a setting can be tried without a flag.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holm_client::{
    Bucket, BucketPolicy, Client, ClusterFile, ClusterFileNode, LayoutProposal, Level, NodeId,
    NodeInfo, PlacementId, PlacementInfo,
};
use serde::Serialize;
use tempfile::TempDir;

use super::node::Node;
use crate::baseline::rocks::temporary;
use crate::certs::{Authority, Identity};
use crate::failure::Failure;
use crate::procfs;
use crate::target::Target;

/// Names that nobody but these nodes sees.
const CLUSTER: &str = "bench";
const REGION: &str = "local";
const BUCKET: &str = "bench";
/// Replicas of every partition, if there are as many nodes.
const REPLICATION: u64 = 3;
/// `2^8` partitions: the default of `holm layout`.
const PARTITION_BITS: u8 = 8;
/// How long the nodes may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// How often to look whether they are.
const READY_POLL: Duration = Duration::from_millis(100);

/// What to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// The node program.
    pub(crate) holmd: &'a Path,
    /// How many nodes.
    pub(crate) nodes: u64,
    /// `store.sync` of all of them.
    pub(crate) sync: &'static str,
    /// Where to make the temporary directory.
    pub(crate) data_dir: Option<&'a Path>,
}

/// A running cluster with a bucket. Dropping it kills the nodes and removes their data.
#[derive(Debug)]
pub(crate) struct Cluster {
    bucket: Bucket,
    // Before the directory, so that the nodes are gone when it is removed.
    nodes: Vec<Node>,
    file: PathBuf,
    _dir: TempDir,
}

impl Cluster {
    /// Starts a cluster and waits until every node serves.
    ///
    /// # Errors
    /// A file, a node that ended, or [`Failure::NotReady`].
    pub(crate) async fn start(setup: &Setup<'_>) -> Result<Cluster, Failure> {
        let dir = temporary(setup.data_dir)?;
        let addresses = free_addresses(setup.nodes)?;
        let file = write_files(dir.path(), setup, &addresses)?;
        let mut nodes = Vec::new();
        for (id, _) in (1..).zip(&addresses) {
            let config = dir.path().join(format!("node-{id}.toml"));
            let log = dir.path().join(format!("node-{id}.log"));
            nodes.push(Node::start(id, setup.holmd, &config, log)?);
        }
        let bucket = prepare(&file, &addresses, &mut nodes).await?;
        Ok(Cluster { bucket, nodes, file, _dir: dir })
    }

    /// The bucket, at a level.
    pub(crate) fn target(&self, level: Option<Level>) -> Target {
        Target::Holm { bucket: self.bucket.clone(), level }
    }

    /// The bucket through another client, that takes as many calls at a time as it gets and gives
    /// each of them this long.
    ///
    /// # Errors
    /// It cannot connect.
    pub(crate) async fn eager_target(
        &self,
        level: Level,
        timeout: Duration,
    ) -> Result<Target, Failure> {
        let client = Client::builder()
            .cluster_file(&self.file)?
            .name("holm-bench-overload")
            .timeout(timeout)
            .in_flight_max(1 << 16)
            .connect()
            .await?;
        Ok(Target::Holm { bucket: client.bucket(BUCKET).await?, level: Some(level) })
    }

    /// The nodes' process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::pid).collect()
    }

    /// Memory of the node that uses most, bytes.
    pub(crate) fn largest_resident_bytes(&self) -> u64 {
        self.pids().into_iter().filter_map(procfs::resident_bytes).max().unwrap_or(0)
    }

    /// Whether all nodes still run.
    ///
    /// # Errors
    /// [`Failure::NodeEnded`] for the first that does not.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// Stops the nodes, each by itself if it can.
    pub(crate) async fn stop(self) {
        let Cluster { bucket, nodes, file: _, _dir } = self;
        drop(bucket);
        for node in nodes {
            node.stop().await;
        }
    }
}

/// Gives the nodes a layout and a bucket, once they answer.
async fn prepare(
    file: &Path,
    addresses: &[(SocketAddr, SocketAddr)],
    nodes: &mut [Node],
) -> Result<Bucket, Failure> {
    let mut patience = Patience::new();
    let client = loop {
        match Client::builder().cluster_file(file)?.name("holm-bench").connect().await {
            Ok(client) => break client,
            Err(error) => patience.wait(nodes, error.to_string()).await?,
        }
    };
    let admin = client.admin();
    // The node with the smallest id dials all others, so the layout reaches them from there.
    while let Err(error) = admin.apply_layout(NodeId(1), proposal(addresses)).await {
        let applied = client.refresh().await.is_ok_and(|view| view.layout_version > 0);
        if applied {
            break;
        }
        patience.wait(nodes, error.to_string()).await?;
    }
    for id in (1..).zip(addresses).map(|(id, _)| NodeId(id)) {
        loop {
            let missing = match admin.status(id).await {
                Ok(status) if status.layout_version == 0 => format!("{id} has no layout"),
                Ok(status) if status.ready.is_err() => format!("{id} is not ready"),
                Ok(status) if status.peers.iter().any(|peer| !peer.connected) => {
                    format!("{id} does not reach all others")
                }
                Ok(_) => break,
                Err(error) => error.to_string(),
            };
            patience.wait(nodes, missing).await?;
        }
    }
    while let Err(error) = admin.create_bucket(BUCKET, BucketPolicy::default()).await {
        if client.bucket(BUCKET).await.is_ok() {
            break;
        }
        patience.wait(nodes, error.to_string()).await?;
    }
    // A client that has seen the cluster only as it now is.
    let client = Client::builder().cluster_file(file)?.name("holm-bench").connect().await?;
    Ok(client.bucket(BUCKET).await?)
}

/// Waiting for nodes, but not for ever and not for dead ones.
struct Patience {
    begun: Instant,
}

impl Patience {
    fn new() -> Patience {
        Patience { begun: Instant::now() }
    }

    async fn wait(&mut self, nodes: &mut [Node], missing: String) -> Result<(), Failure> {
        nodes.iter_mut().try_for_each(Node::check)?;
        if self.begun.elapsed() > READY_MAX {
            return Err(Failure::NotReady { waited_s: READY_MAX.as_secs(), last: missing });
        }
        tokio::time::sleep(READY_POLL).await;
        Ok(())
    }
}

fn proposal(addresses: &[(SocketAddr, SocketAddr)]) -> LayoutProposal {
    let nodes = (1..).zip(addresses).map(|(id, (quic, _))| NodeInfo {
        id: NodeId(id),
        addr: *quic,
        region: REGION.to_owned(),
        zone: format!("zone-{id}"),
        capacity: 100,
    });
    let replicas = REPLICATION.min(addresses.len() as u64) as u8;
    let placement = PlacementInfo {
        id: PlacementId(0),
        name: "default".to_owned(),
        bits: PARTITION_BITS,
        replication: vec![(REGION.to_owned(), replicas)],
    };
    LayoutProposal { version: 1, nodes: nodes.collect(), placements: vec![placement] }
}

/// Addresses for QUIC and HTTP that are free now; they stay taken until all are found.
fn free_addresses(nodes: u64) -> Result<Vec<(SocketAddr, SocketAddr)>, Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let find = || {
        let (udp, tcp) = (UdpSocket::bind(any)?, TcpListener::bind(any)?);
        Ok((udp.local_addr()?, tcp.local_addr()?, udp, tcp))
    };
    let held: Result<Vec<_>, std::io::Error> = (0..nodes).map(|_| find()).collect();
    let held = held.map_err(Failure::io("find free ports"))?;
    Ok(held.iter().map(|(quic, http, ..)| (*quic, *http)).collect())
}

/// Writes certificates, configs and the cluster file, whose path it returns.
fn write_files(
    dir: &Path,
    setup: &Setup<'_>,
    addresses: &[(SocketAddr, SocketAddr)],
) -> Result<PathBuf, Failure> {
    let authority = Authority::new()?;
    let (ca, _) = (dir.join("ca.pem"), write(&dir.join("ca.pem"), authority.pem())?);
    for (id, (quic, http)) in (1..).zip(addresses) {
        let (cert, key) = write_identity(dir, &format!("node-{id}"), &authority.node(id)?)?;
        let config = NodeConfig {
            node: NodeSection { id, data_dir: dir.join(format!("node-{id}")) },
            cluster: ClusterSection { id: CLUSTER },
            listen: ListenSection { quic: *quic, http: *http },
            tls: TlsSection { ca: ca.clone(), cert, key },
            store: StoreSection { sync: setup.sync },
            log: LogSection { format: "text", filter: "warn" },
        };
        write(&dir.join(format!("node-{id}.toml")), &to_toml(&config)?)?;
    }
    let (cert, key) = write_identity(dir, "client", &authority.client()?)?;
    let nodes = (1..).zip(addresses).map(|(id, (quic, _))| ClusterFileNode { id, addr: *quic });
    let file = ClusterFile {
        cluster: CLUSTER.to_owned(),
        // Not named: the client may connect before there is a layout that has it.
        region: None,
        ca,
        cert,
        key,
        nodes: nodes.collect(),
    };
    let path = dir.join("cluster.toml");
    write(&path, &to_toml(&file)?)?;
    Ok(path)
}

fn write_identity(
    dir: &Path,
    stem: &str,
    identity: &Identity,
) -> Result<(PathBuf, PathBuf), Failure> {
    let (cert, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
    write(&cert, &identity.cert)?;
    write(&key, &identity.key)?;
    Ok((cert, key))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(Failure::io(format!("write {}", path.display())))
}

fn to_toml<T: Serialize>(value: &T) -> Result<String, Failure> {
    toml::to_string(value).map_err(std::io::Error::other).map_err(Failure::io("write TOML"))
}

/// The part of `holmd`'s configuration that differs from its defaults.
#[derive(Debug, Serialize)]
struct NodeConfig {
    node: NodeSection,
    cluster: ClusterSection,
    listen: ListenSection,
    tls: TlsSection,
    store: StoreSection,
    log: LogSection,
}

#[derive(Debug, Serialize)]
struct NodeSection {
    id: u64,
    data_dir: PathBuf,
}

#[derive(Debug, Serialize)]
struct ClusterSection {
    id: &'static str,
}

#[derive(Debug, Serialize)]
struct ListenSection {
    quic: SocketAddr,
    http: SocketAddr,
}

#[derive(Debug, Serialize)]
struct TlsSection {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Serialize)]
struct StoreSection {
    sync: &'static str,
}

#[derive(Debug, Serialize)]
struct LogSection {
    format: &'static str,
    filter: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: everything a cluster needs is written, and the SDK reads the cluster file. Method:
    /// three nodes, no process.
    #[test]
    fn files_of_a_cluster_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = free_addresses(3).unwrap();
        let holmd = Path::new("holmd");
        let setup = Setup { holmd, nodes: 3, sync: "interval", data_dir: None };
        let path = write_files(dir.path(), &setup, &addresses).unwrap();
        let file = ClusterFile::read(&path).unwrap();
        assert_eq!(file.nodes.len(), 3);
        assert!(file.ca.is_file() && file.cert.is_file() && file.key.is_file());
        let config = std::fs::read_to_string(dir.path().join("node-2.toml")).unwrap();
        let config: toml::Table = config.parse().unwrap();
        assert_eq!(config["node"]["id"].as_integer(), Some(2));
        assert_eq!(config["store"]["sync"].as_str(), Some("interval"));
        assert_eq!(config["listen"]["quic"].as_str(), Some(&*addresses[1].0.to_string()));
        assert!(Path::new(config["tls"]["key"].as_str().unwrap()).is_file());
        let ports: std::collections::BTreeSet<_> = addresses
            .iter()
            .flat_map(|(quic, http)| [(1, quic.port()), (2, http.port())])
            .collect();
        assert_eq!(ports.len(), 6);
    }

    /// Goal: fewer nodes than replicas still make a layout.
    #[test]
    fn replication_is_at_most_the_nodes() {
        for nodes in 1..=4 {
            let proposal = proposal(&free_addresses(nodes).unwrap());
            assert_eq!(proposal.nodes.len() as u64, nodes);
            assert_eq!(u64::from(proposal.placements[0].replication[0].1), nodes.min(3));
        }
    }
}
