//! What the network asks of the rest of the node.

use std::net::SocketAddr;
use std::sync::Arc;

use holm_protocol::admin::MemberState;
use holm_protocol::frame::Frame;
use holm_protocol::handshake::{Lane, MetadataVersion, PeerHello};
use holm_protocol::ids::NodeId;

use super::lane::ReplySink;
use super::tls::identity::Roles;

/// One lane of a client: who it is, and where its answers go.
#[derive(Debug, Clone)]
pub struct ClientConn {
    /// The lane, unique within this run of the node.
    pub id: u64,
    /// The name in the client's certificate.
    pub name: Arc<str>,
    /// What the certificate permits.
    pub roles: Roles,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// Where answers go. Each request frame is owed exactly one answer.
    pub replies: ReplySink,
}

/// The rest of the node, as the network sees it.
///
/// Every call is made on the network thread and must return at once: put the frames into inboxes.
/// For one connection between nodes the order is: up, frames, down.
pub trait Handler: Send + Sync + 'static {
    /// A batch of requests of one client lane, in the order they were sent. Take them out of
    /// `frames`; what is left is dropped, and would leave the client waiting.
    fn on_client_frames(&self, client: &ClientConn, frames: &mut Vec<Frame>);

    /// A batch of messages of another node. Take them out of `frames`.
    fn on_peer_frames(&self, from: NodeId, lane: Lane, frames: &mut Vec<Frame>);

    /// A node can be talked to. A node that restarted comes up with another run, after a
    /// [`Handler::on_peer_down`].
    fn on_peer_up(&self, node: NodeId, hello: &PeerHello);

    /// A node can no longer be talked to. Messages under way to it may be lost.
    fn on_peer_down(&self, node: NodeId);

    /// What the cluster thinks of a node has changed to this.
    fn on_member(&self, node: NodeId, state: MemberState);

    /// This node counts its starts from here on: remember it.
    fn on_boot(&self, boot: u64);

    /// Which cluster metadata this node holds, for hellos.
    fn metadata_version(&self) -> MetadataVersion;
}
