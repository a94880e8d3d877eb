//! Describing a cluster and connecting to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holm_protocol::ids::NodeId;
use holm_protocol::limits::{NAME_LEN_MAX, TIMEOUT_MS_MAX};

use crate::client::Client;
use crate::cluster::{Cluster, Settings};
use crate::cluster_file::{ClusterFile, Pem};
use crate::error::{ConnectError, TlsError};
use crate::tls;
use crate::transport::Outside;

/// How long a call may take if nothing else is said. Above any round trip between regions and a
/// slow disk; below what a person waits for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long one connection attempt may take: five round trips of 200 ms and a lost packet or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests waiting for an answer on one connection. Above what keeps any node busy.
const IN_FLIGHT_MAX: usize = 4096;

/// Lanes are streams: they keep a lost packet from delaying all requests, and cost packets that
/// are less full. More than this is never useful.
const LANES_MAX: usize = 16;

/// Describes a cluster to connect to.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use holm_client::{Client, NodeId};
///
/// let client = Client::builder()
///     .cluster("demo")
///     .nodes([(NodeId(1), "127.0.0.1:7401".parse()?)])
///     .ca_pem(std::fs::read("ca.pem")?)
///     .identity_pem(std::fs::read("client.pem")?, std::fs::read("client.key")?)
///     .region("us-east")
///     .timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `connect` is awaited"]
pub struct ClientBuilder {
    cluster: Option<String>,
    name: String,
    region: Option<String>,
    nodes: BTreeMap<NodeId, SocketAddr>,
    ca: Option<Pem>,
    cert: Option<Pem>,
    key: Option<Pem>,
    timeout: Duration,
    connect_timeout: Duration,
    lanes: usize,
    in_flight_max: usize,
    hedging: bool,
    outside: Option<Outside>,
}

impl ClientBuilder {
    pub(crate) fn new() -> ClientBuilder {
        ClientBuilder {
            cluster: None,
            name: "holm-client".to_owned(),
            region: None,
            nodes: BTreeMap::new(),
            ca: None,
            cert: None,
            key: None,
            timeout: TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            lanes: 1,
            in_flight_max: IN_FLIGHT_MAX,
            hedging: true,
            outside: None,
        }
    }

    /// Takes cluster, region, certificates and nodes from a cluster file.
    ///
    /// # Errors
    /// [`ConnectError::ClusterFile`], naming file and key.
    pub fn cluster_file(self, path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = path.as_ref();
        let file = ClusterFile::read(path)?;
        let ca = ClusterFile::load(&file.ca, "ca", path)?;
        let cert = ClusterFile::load(&file.cert, "cert", path)?;
        let key = ClusterFile::load(&file.key, "key", path)?;
        let nodes = file.nodes.iter().map(|node| (NodeId(node.id), node.addr));
        let region = file.region.or(self.region);
        let (cluster, nodes) = (Some(file.cluster), nodes.collect());
        let (ca, cert, key) = (Some(ca), Some(cert), Some(key));
        Ok(ClientBuilder { cluster, region, nodes, ca, cert, key, ..self })
    }

    /// The cluster's name: a node of another one is refused.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// What this client calls itself in nodes' logs; at most 64 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Nodes to connect to first, in place of those set before. The rest is learnt from them.
    pub fn nodes(mut self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>) -> Self {
        self.nodes = nodes.into_iter().collect();
        self
    }

    /// The cluster's CA certificate.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Pem { text: pem.into(), origin: "CA certificate".to_owned() });
        self
    }

    /// The client's certificate (with intermediates) and private key.
    pub fn identity_pem(mut self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.cert = Some(Pem { text: cert.into(), origin: "client certificate".to_owned() });
        self.key = Some(Pem { text: key.into(), origin: "client key".to_owned() });
        self
    }

    /// The region whose replicas are asked first. Without it: the region of the node that answers
    /// first, which is the nearest.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// How long a call may take if it sets nothing else; 1 ms to 60 s, 5 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long connecting to one node may take; 1 ms to 60 s, 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Streams to each node; 1 to 16, 1 by default. More help where packets get lost. A node that
    /// grants fewer is used with those.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// Requests waiting for an answer from one node, above which calls fail with `Overloaded`; 1
    /// to 65,536, 4,096 by default.
    pub fn in_flight_max(mut self, limit: usize) -> Self {
        self.in_flight_max = limit;
        self
    }

    /// Whether a second replica is asked when a read is slow; on by default. At most one read in
    /// ten is asked twice.
    pub fn hedging(mut self, on: bool) -> Self {
        self.hedging = on;
        self
    }

    /// Puts a simulated machine under the client: this socket, and a seed for every random number.
    /// For tests that play a network on a paused clock.
    #[doc(hidden)]
    pub fn simulated(mut self, socket: Arc<dyn quinn::AsyncUdpSocket>, seed: u64) -> Self {
        self.outside = Some(Outside { socket, seed });
        self
    }

    /// Connects to the first node that answers and learns the cluster's layout and buckets from
    /// it.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(self) -> Result<Client, ConnectError> {
        self.check()?;
        let ca = self.ca.as_ref().ok_or(TlsError::CaMissing)?;
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Err(TlsError::IdentityMissing.into());
        };
        let tls = tls::client_config(ca, cert, key)?;
        let settings = Settings {
            cluster: self.cluster,
            name: self.name,
            ca: ca.origin.clone(),
            certificate: cert.origin.clone(),
            region: self.region,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            lanes: self.lanes,
            in_flight_max: self.in_flight_max,
            hedging: self.hedging,
        };
        Ok(Client::new(Cluster::connect(settings, self.nodes, tls, self.outside).await?))
    }

    fn check(&self) -> Result<(), ConnectError> {
        if self.nodes.is_empty() {
            return Err(ConnectError::NoNodes);
        }
        let longest = Duration::from_millis(TIMEOUT_MS_MAX.into());
        let timeouts = [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)];
        for (key, got) in timeouts {
            if !(Duration::from_millis(1)..=longest).contains(&got) {
                return Err(setting(key, format!("{got:?}"), "1 ms to 60 s"));
            }
        }
        if !(1..=LANES_MAX).contains(&self.lanes) {
            return Err(setting("lanes", self.lanes.to_string(), "1 to 16"));
        }
        if !(1..=1 << 16).contains(&self.in_flight_max) {
            return Err(setting("in_flight_max", self.in_flight_max.to_string(), "1 to 65536"));
        }
        if self.name.len() > NAME_LEN_MAX {
            return Err(setting("name", self.name.clone(), "at most 64 bytes"));
        }
        Ok(())
    }
}

fn setting(key: &'static str, got: String, range: &'static str) -> ConnectError {
    ConnectError::Setting { key, got, range }
}
