//! The router: from frames to inboxes, on the network thread.
//!
//! It decodes, checks the role, finds the partition's shard, and puts whole batches into inboxes.
//! What no shard is needed for goes to the control thread. Everything refused here is answered here;
//! nothing blocks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use holm_core::peer::packed::{PACKED, unpack};
use holm_core::peer::{Found, PeerMessage, Refusal};
use holm_core::shard::config::{ClusterState, shard_of};
use holm_protocol::admin::{AdminRequest, MemberState};
use holm_protocol::error::{ContextFault, NotReady, RequestError, Role};
use holm_protocol::frame::Frame;
use holm_protocol::handshake::{Lane, MetadataVersion, PeerHello};
use holm_protocol::ids::{Actor, BucketId, NodeId};
use holm_protocol::message::{Reply, Request};
use holm_protocol::wire::WireError;

use crate::control::{Command, ControlInbox};
use crate::inbox::{Event, Inbox};
use crate::net::counters::NetCounters;
use crate::net::handler::{ClientConn, Handler};
use crate::net::peers::PeerPool;

/// See the module's head.
#[derive(Debug)]
pub struct Router {
    node: NodeId,
    inboxes: Vec<Arc<Inbox>>,
    control: ControlInbox,
    pool: PeerPool,
    cluster: RwLock<Arc<ClusterState>>,
    metadata: Mutex<MetadataVersion>,
    stopping: AtomicBool,
    counters: Arc<NetCounters>,
}

impl Router {
    /// A router to these shards.
    #[must_use]
    pub fn new(
        node: NodeId,
        inboxes: Vec<Arc<Inbox>>,
        control: ControlInbox,
        pool: PeerPool,
        counters: Arc<NetCounters>,
    ) -> Router {
        Router {
            node,
            inboxes,
            control,
            pool,
            cluster: RwLock::default(),
            metadata: Mutex::default(),
            stopping: AtomicBool::new(false),
            counters,
        }
    }

    /// From now on requests are routed by this.
    pub fn set_cluster(&self, cluster: Arc<ClusterState>, version: MetadataVersion) {
        for inbox in &self.inboxes {
            inbox.push_essential(Event::Cluster(cluster.clone()));
        }
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = cluster;
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }

    /// Tells every shard that the node lost state it once had.
    pub fn declare_amnesia(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.push_essential(Event::Amnesia));
    }

    /// Refuses new requests from now on, of clients and those that other nodes pass on. What belongs
    /// to requests under way is still taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Counts something from a node that makes no sense.
    pub fn count_malformed(&self) {
        self.counters.peer_frames_malformed.increment();
    }

    /// Events that wait in all inboxes.
    #[must_use]
    pub fn depths(&self) -> Vec<usize> {
        self.inboxes.iter().map(|inbox| inbox.depth()).collect()
    }

    /// Tells every shard whether a node can be reached, and in which run.
    fn reachable(&self, node: NodeId, run: Option<Actor>) {
        for inbox in &self.inboxes {
            inbox.push_essential(Event::Reachable(node, run));
        }
    }

    fn client_event(
        &self,
        client: &ClientConn,
        frame: &Frame,
        cluster: &ClusterState,
    ) -> Result<Option<(usize, Event)>, RequestError> {
        let request = Request::decode(frame).map_err(|error| undecodable(&error))?;
        let needed = match &request {
            Request::Get(_) => Some(Role::Read),
            Request::Put(_) | Request::Delete(_) => Some(Role::Write),
            Request::Admin(AdminRequest::View) => None,
            Request::Admin(_) => Some(Role::Admin),
        };
        if let Some(needed) = needed.filter(|&needed| !client.roles.has(needed)) {
            return Err(RequestError::Unauthorized { needed });
        }
        if self.stopping.load(Ordering::Acquire) {
            return Err(RequestError::NotReady { reason: NotReady::Stopping });
        }
        let (replies, lane, id) = (client.replies.clone(), client.id, frame.id);
        let (bucket, key) = match &request {
            Request::Put(put) => (put.bucket, &put.key),
            Request::Get(get) => (get.bucket, &get.key),
            Request::Delete(delete) => (delete.bucket, &delete.key),
            Request::Admin(AdminRequest::Explain { bucket, key }) => (*bucket, key),
            Request::Admin(_) => {
                let Request::Admin(request) = request else { return Ok(None) };
                self.control.send(Command::Admin { replies, frame: id, request });
                return Ok(None);
            }
        };
        let shard = self.shard_of_key(cluster, bucket, key)?;
        let event = match request {
            Request::Admin(AdminRequest::Explain { bucket, key }) => {
                Event::Explain { replies, lane, frame: id, bucket, key }
            }
            request => Event::Client { replies, lane, frame: id, request },
        };
        Ok(Some((shard, event)))
    }

    fn shard_of_key(
        &self,
        cluster: &ClusterState,
        bucket: BucketId,
        key: &[u8],
    ) -> Result<usize, RequestError> {
        let not_ready = RequestError::NotReady { reason: NotReady::NoLayout };
        let Some(layout) = &cluster.layout else { return Err(not_ready) };
        let info = cluster.buckets.get(&bucket).ok_or(RequestError::UnknownBucket { bucket })?;
        let partition = layout.partition(info.policy.placement, bucket, key).ok_or(not_ready)?;
        Ok(shard_of(partition, self.inboxes.len()))
    }

    /// Puts events into inboxes, and answers what did not fit.
    fn deliver(&self, events: &mut [Vec<Event>]) {
        let mut refused = Vec::new();
        for (inbox, events) in self.inboxes.iter().zip(events) {
            inbox.push(events, &mut refused);
        }
        for event in refused {
            self.counters.inbox_refused.increment();
            self.refuse(event);
        }
    }

    fn refuse(&self, event: Event) {
        match event {
            Event::Client { replies, frame, .. } | Event::Explain { replies, frame, .. } => {
                replies.send(frame, &Reply::Error(self.overloaded()));
            }
            Event::Peer { from, message } => {
                if let Some(answer) = refusal(self.node, &message, self.overloaded()) {
                    self.answer(from, &answer);
                }
            }
            // Its sender is told by what is dropped here.
            Event::Fingerprint { .. }
            | Event::Reachable(..)
            | Event::Doubted(..)
            | Event::Cluster(_)
            | Event::Amnesia
            | Event::Verify(_)
            | Event::Stop => {}
        }
    }

    fn answer(&self, to: NodeId, message: &PeerMessage) {
        let mut out = bytes::BytesMut::new();
        message.encode(&mut out);
        // Not sent is lost: the other node's deadline covers it.
        let _ = self.pool.send(to, Lane::Requests, &out);
    }

    fn overloaded(&self) -> RequestError {
        let limit = self.inboxes.iter().map(|inbox| inbox.requests_max()).sum::<usize>() as u32;
        let in_flight = self.depths().iter().sum::<usize>() as u32;
        // What waits in a full inbox is worked off within some ten milliseconds.
        RequestError::Overloaded { in_flight, limit, retry_after_ms: 50 }
    }
}

impl Handler for Router {
    fn on_client_frames(&self, client: &ClientConn, frames: &mut Vec<Frame>) {
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut events: Vec<Vec<Event>> = self.inboxes.iter().map(|_| Vec::new()).collect();
        for frame in frames.drain(..) {
            match self.client_event(client, &frame, &cluster) {
                Ok(Some((shard, event))) => events[shard].push(event),
                Ok(None) => {}
                Err(error) => client.replies.send(frame.id, &Reply::Error(error)),
            }
        }
        self.deliver(&mut events);
    }

    fn on_peer_frames(&self, from: NodeId, lane: Lane, frames: &mut Vec<Frame>) {
        let mut events: Vec<Vec<Event>> = self.inboxes.iter().map(|_| Vec::new()).collect();
        for mut frame in frames.drain(..) {
            if frame.kind == PACKED {
                match unpack(&frame) {
                    Ok(inner) => frame = inner,
                    Err(error) => {
                        self.count_malformed();
                        tracing::warn!(%from, %error, "compressed message of a node refused");
                        continue;
                    }
                }
            }
            if lane == Lane::Bulk && !PeerMessage::BULK_KINDS.contains(&frame.kind) {
                self.control.send(Command::Bulk { from, frame });
                continue;
            }
            match PeerMessage::decode(&frame) {
                Ok(PeerMessage::Proxy { op, partition, .. })
                    if self.stopping.load(Ordering::Acquire) =>
                {
                    let error = RequestError::NotReady { reason: NotReady::Stopping };
                    let reply = Reply::Error(error);
                    let refused = PeerMessage::ProxyReply { op, partition, reply };
                    self.answer(from, &refused);
                }
                Ok(message) => {
                    for (shard, message) in message.split(self.inboxes.len()) {
                        events[shard].push(Event::Peer { from, message });
                    }
                }
                Err(error) => {
                    self.count_malformed();
                    tracing::warn!(%from, kind = frame.kind, %error, "message of a node refused");
                }
            }
        }
        self.deliver(&mut events);
    }

    fn on_peer_up(&self, node: NodeId, hello: &PeerHello) {
        tracing::info!(%node, run = %hello.run, "node reachable");
        self.reachable(node, Some(hello.run));
        self.control.send(Command::PeerUp { node, store: hello.store, metadata: hello.metadata });
    }

    fn on_peer_down(&self, node: NodeId) {
        tracing::info!(%node, "node unreachable");
        self.reachable(node, None);
    }

    fn on_member(&self, node: NodeId, state: MemberState) {
        // Of whom nothing is known nothing bad is known.
        let doubted = !matches!(state, MemberState::Alive | MemberState::Unknown);
        for inbox in &self.inboxes {
            inbox.push_essential(Event::Doubted(node, doubted));
        }
    }

    fn on_boot(&self, boot: u64) {
        self.control.send(Command::Boot(boot));
    }

    fn metadata_version(&self) -> MetadataVersion {
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to tell a client whose request cannot be read. A field that is merely too long is told as
/// what it is, although the decoder stops there.
fn undecodable(error: &WireError) -> RequestError {
    match *error {
        WireError::TooLong { field: "key", got: len, limit } => {
            RequestError::KeyLength { len, limit }
        }
        WireError::TooLong { field: "value", got: len, limit } => {
            RequestError::ValueTooLarge { len, limit }
        }
        WireError::TooLong { field: "context", .. } => {
            RequestError::Context { fault: ContextFault::TooLong }
        }
        _ => RequestError::Malformed { what: error.to_string() },
    }
}

/// What to tell a node whose message did not fit.
fn refusal(me: NodeId, message: &PeerMessage, overloaded: RequestError) -> Option<PeerMessage> {
    let refusal = Refusal::Overloaded;
    Some(match message {
        PeerMessage::Write { op, partition, .. } => PeerMessage::WriteReply {
            op: *op,
            partition: *partition,
            durable: vec![],
            refused: vec![(me, refusal)],
        },
        PeerMessage::Read { op, partition, .. } => PeerMessage::ReadReply {
            op: *op,
            partition: *partition,
            found: Found::Refused(refusal),
        },
        PeerMessage::Proxy { op, partition, .. } => PeerMessage::ProxyReply {
            op: *op,
            partition: *partition,
            reply: Reply::Error(overloaded),
        },
        PeerMessage::Hint(message) => PeerMessage::Hint(message.answer(refusal)?),
        PeerMessage::Fingerprint(message) => PeerMessage::Fingerprint(message.answer(refusal)?),
        _ => return None,
    })
}
