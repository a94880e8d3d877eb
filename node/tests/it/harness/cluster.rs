//! A small cluster: one region, every node a replica of everything.

use std::fs;
use std::net::SocketAddr;

use holm_client::{
    Bucket, BucketPolicy, Client, LayoutProposal, NodeId, NodeInfo, PlacementId, PlacementInfo,
};
use holm_protocol::frame::ALPN_CLIENT;
use tempfile::TempDir;

use super::holmd::{CLUSTER, Holmd};
use super::pki::{Pki, VALID};
use super::raw::{Conn, Lane, kept_alive};
use super::{until, within};

/// The roles of a client that may do everything.
pub(crate) const ALL_ROLES: &str = "read,write,admin";

/// See the module's head.
pub(crate) struct Cluster {
    pub(crate) pki: Pki,
    /// Nodes 1, 2, ... in order.
    pub(crate) nodes: Vec<Holmd>,
    // Goes last, with everything in it.
    _dir: TempDir,
}

impl Cluster {
    /// So many nodes that run and know of no layout; `flags` override their configuration.
    pub(crate) async fn without_layout(count: u64, flags: &[&str]) -> Cluster {
        let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
        let make = |id| Holmd::new(&pki, dir.path(), id, flags);
        let mut nodes: Vec<Holmd> = (1..=count).map(make).collect();
        for node in &mut nodes {
            node.start().await;
        }
        Cluster { pki, nodes, _dir: dir }
    }

    /// So many nodes that serve.
    pub(crate) async fn start(count: u64, flags: &[&str]) -> Cluster {
        let cluster = Cluster::without_layout(count, flags).await;
        let client = cluster.client().await;
        let layout = layout(cluster.nodes.iter().map(|node| (node.id.0, node.quic)));
        within("applying a layout", client.admin().apply_layout(NodeId(1), layout)).await.unwrap();
        cluster.until_whole().await;
        cluster
    }

    /// Waits until all nodes are ready and see each other.
    pub(crate) async fn until_whole(&self) {
        let others = self.nodes.len() as f64 - 1.0;
        for node in &self.nodes {
            node.until_ready().await;
            if others > 0.0 {
                node.until_metric("holm_peer_connected", others).await;
            }
        }
    }

    /// A client that may do everything.
    pub(crate) async fn client(&self) -> Client {
        let me = self.pki.client(ALL_ROLES, VALID);
        let connected = Client::builder()
            .cluster(CLUSTER)
            .nodes(self.nodes.iter().map(|node| (node.id, node.quic)))
            .ca_pem(self.pki.ca_pem())
            .identity_pem(me.cert, me.key)
            .connect();
        within("connecting", connected).await.unwrap()
    }

    /// Makes a bucket and waits until all nodes know it.
    pub(crate) async fn bucket(&self, name: &str, policy: BucketPolicy) -> Bucket {
        let client = self.client().await;
        let admin = client.admin();
        within("making a bucket", admin.create_bucket(name, policy)).await.unwrap();
        for node in &self.nodes {
            until("the bucket is known", async || {
                let view = admin.view_on(node.id).await;
                view.is_ok_and(|view| view.buckets.iter().any(|bucket| bucket.name == name))
            })
            .await;
        }
        within("the bucket", client.bucket(name)).await.unwrap()
    }

    /// A raw connection of a client with these roles to one node, counted from 0.
    pub(crate) async fn raw(&self, node: usize, roles: &str) -> Conn {
        let me = self.pki.client(roles, VALID);
        let node = &self.nodes[node];
        Conn::open(node.quic, node.id, self.pki.quic(Some(&me), ALPN_CLIENT)).await.unwrap()
    }

    /// A raw lane of a client that may do everything.
    pub(crate) async fn lane(&self, node: usize) -> (Conn, Lane) {
        let conn = self.raw(node, ALL_ROLES).await;
        let lane = conn.client_lane().await;
        (conn, lane)
    }

    /// The same on a connection that is kept alive, for tests that let it rest.
    pub(crate) async fn patient_lane(&self, node: usize) -> (Conn, Lane) {
        let me = self.pki.client(ALL_ROLES, VALID);
        let quic = kept_alive(self.pki.quic(Some(&me), ALPN_CLIENT));
        let node = &self.nodes[node];
        let conn = Conn::open(node.quic, node.id, quic).await.unwrap();
        let lane = conn.client_lane().await;
        (conn, lane)
    }

    /// Loses a stopped node's data.
    pub(crate) fn wipe(&self, node: usize) {
        fs::remove_dir_all(self.nodes[node].file("data")).unwrap();
    }
}

/// A first layout: one region, all nodes hold everything, few partitions.
pub(crate) fn layout(nodes: impl IntoIterator<Item = (u64, SocketAddr)>) -> LayoutProposal {
    let node = |(id, addr): (u64, SocketAddr)| NodeInfo {
        id: NodeId(id),
        addr,
        region: "here".to_owned(),
        zone: format!("z{id}"),
        capacity: 100,
    };
    let nodes: Vec<NodeInfo> = nodes.into_iter().map(node).collect();
    let placement = PlacementInfo {
        id: PlacementId(0),
        name: "default".to_owned(),
        bits: 4,
        replication: vec![("here".to_owned(), nodes.len() as u8)],
    };
    LayoutProposal { version: 1, nodes, placements: vec![placement] }
}
