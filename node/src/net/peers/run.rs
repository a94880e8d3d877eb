//! A connection between nodes, from its lanes' hellos to its end. The same for both sides but for
//! who opens the lanes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holm_protocol::error::RequestError;
use holm_protocol::frame::{Frame, put_frame};
use holm_protocol::handshake::{self, Lane, PeerHello};
use holm_protocol::ids::NodeId;
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::{Reply, kind};
use quinn::{Connection, ConnectionError, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout_at};

use super::super::lane::{LaneEnd, LaneReader, refuse, write_lane};
use super::super::members::Told;
use super::super::{Shared, close};
use super::link::{Admitted, Facts, PeerLink};

/// How often a link's round-trip time is read. It moves slowly.
const RTT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a refused node is given to learn why.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);

/// Why a connection between nodes did not come to life.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// This node refuses, or the other one did.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The connection or a lane ended.
    #[error("connection lost during the hello")]
    Lost,
    /// Hellos took too long.
    #[error("no hello in time")]
    Silent,
}

/// One lane of a connection after its hello.
struct OpenLane {
    lane: Lane,
    send: SendStream,
    reader: LaneReader,
}

/// Both lanes of a connection after their hellos, and what the other node said on the first.
pub(super) struct OpenLanes {
    hello: PeerHello,
    lanes: Vec<OpenLane>,
}

/// Serves a connection that another node has made, until it ends.
pub(in super::super) async fn accepted(shared: &Arc<Shared>, connection: Connection, node: NodeId) {
    match accept_lanes(shared, &connection, node).await {
        Ok(lanes) => {
            connection.set_receive_window(VarInt::from_u32(shared.net.receive_window_bytes));
            run(shared, connection, lanes, node).await;
        }
        Err(refusal) => {
            let code = refuse_connection(&connection, &refusal);
            match code {
                close::SILENT => shared.counters.refused_silent.increment(),
                _ => shared.counters.refused_hello.increment(),
            }
            let remote = connection.remote_address();
            tracing::warn!(node = node.0, %remote, %refusal, "node refused");
        }
    }
}

/// Closes a connection with the number of what is wrong.
pub(super) fn refuse_connection(connection: &Connection, refusal: &Refusal) -> VarInt {
    let code = match refusal {
        Refusal::Request(error) => VarInt::from_u32(error.code().into()),
        Refusal::Lost => close::DONE,
        Refusal::Silent => close::SILENT,
    };
    connection.close(code, refusal.to_string().as_bytes());
    code
}

/// Waits for both lanes and answers their hellos.
async fn accept_lanes(
    shared: &Shared,
    connection: &Connection,
    node: NodeId,
) -> Result<OpenLanes, Refusal> {
    let deadline = Instant::now() + shared.net.handshake_timeout;
    let mut first = None;
    let mut lanes: Vec<OpenLane> = Vec::new();
    while lanes.len() < 2 {
        let opened = timeout_at(deadline, connection.accept_bi()).await;
        let (mut send, recv) = opened.map_err(|_| Refusal::Silent)?.map_err(|_| Refusal::Lost)?;
        let mut reader = LaneReader::new(recv, FRAME_LEN_MAX);
        let frame = first_frame(&mut reader, deadline).await;
        let id = frame.as_ref().map_or(0, |frame| frame.id);
        let taken = |lane| lanes.iter().any(|open| open.lane == lane);
        let checked = frame.and_then(|frame| {
            let hello = shared.local.check_peer(&frame, kind::HELLO, node)?;
            if taken(hello.lane) {
                let what = format!("a second lane for {:?}", hello.lane);
                return Err(RequestError::Malformed { what }.into());
            }
            Ok(hello)
        });
        let hello = match checked {
            Ok(hello) => hello,
            Err(Refusal::Request(error)) => {
                refuse(&mut send, id, error.clone(), REFUSAL_WITHIN).await;
                return Err(error.into());
            }
            Err(other) => return Err(other),
        };
        say(shared, &mut send, kind::WELCOME, id, hello.lane).await?;
        lanes.push(OpenLane { lane: hello.lane, send, reader });
        first.get_or_insert(hello);
    }
    first.map(|hello| OpenLanes { hello, lanes }).ok_or(Refusal::Lost)
}

/// Opens both lanes on a connection this node has made.
pub(super) async fn open_lanes(
    shared: &Shared,
    connection: &Connection,
    node: NodeId,
) -> Result<OpenLanes, Refusal> {
    let deadline = Instant::now() + shared.net.handshake_timeout;
    let mut halves = Vec::new();
    for lane in [Lane::Requests, Lane::Bulk] {
        let opened = timeout_at(deadline, connection.open_bi()).await;
        let (mut send, recv) = opened.map_err(|_| Refusal::Silent)?.map_err(|_| Refusal::Lost)?;
        say(shared, &mut send, kind::HELLO, 0, lane).await?;
        halves.push(OpenLane { lane, send, reader: LaneReader::new(recv, FRAME_LEN_MAX) });
    }
    let mut first = None;
    for open in &mut halves {
        let frame = first_frame(&mut open.reader, deadline).await?;
        if frame.kind == kind::ERROR {
            let malformed = RequestError::Malformed { what: "an answer that is none".to_owned() };
            return Err(match Reply::decode(&frame) {
                Ok(Reply::Error(error)) => error.into(),
                _ => malformed.into(),
            });
        }
        let hello = shared.local.check_peer(&frame, kind::WELCOME, node)?;
        first.get_or_insert(hello);
    }
    first.map(|hello| OpenLanes { hello, lanes: halves }).ok_or(Refusal::Lost)
}

async fn first_frame(reader: &mut LaneReader, deadline: Instant) -> Result<Frame, Refusal> {
    reader.hello(deadline).await.map_err(|end| match (end, end.error()) {
        (_, Some(error)) => error.into(),
        (LaneEnd::Silent, None) => Refusal::Silent,
        _ => Refusal::Lost,
    })
}

async fn say(
    shared: &Shared,
    send: &mut SendStream,
    kind: u8,
    id: u64,
    lane: Lane,
) -> Result<(), Refusal> {
    let hello = shared.local.hello(lane, shared.handler.metadata_version());
    let mut frame = BytesMut::new();
    put_frame(&mut frame, kind, id, |out| out.extend_from_slice(&handshake::encode(&hello)));
    send.write_all(&frame).await.map_err(|_| Refusal::Lost)
}

/// Carries frames until the connection ends or another takes its place.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: Connection,
    open: OpenLanes,
    dialler: NodeId,
) {
    let node = open.hello.node;
    let link = shared.pool.link(node);
    let facts = Facts { run: open.hello.run, dialler, since: Instant::now() };
    let Some(admitted) = link.admit(facts, &connection, close::REPLACED) else {
        shared.counters.peers_replaced.increment();
        connection.close(close::REPLACED, b"there is a connection already");
        return;
    };
    if admitted.replaced {
        shared.counters.peers_replaced.increment();
        shared.counters.peers_disconnected.increment();
        shared.handler.on_peer_down(node);
    }
    shared.counters.peers_connected.increment();
    tracing::info!(node = node.0, run = %facts.run, remote = %connection.remote_address(), "node connected");
    shared.handler.on_peer_up(node, &open.hello);
    // The task lives as long as the network.
    let _ = shared.membership.send(Told::Up(node, connection.remote_address())).await;
    let why = carry(shared, &link, &connection, open.lanes, admitted).await;
    if link.retire(&admitted) {
        shared.counters.peers_disconnected.increment();
        tracing::info!(node = node.0, why, "node disconnected");
        shared.handler.on_peer_down(node);
        let _ = shared.membership.send(Told::Down(node, has_stopped(&connection))).await;
    }
}

/// Whether the other node has closed the connection because it stops.
fn has_stopped(connection: &Connection) -> bool {
    matches!(
        connection.close_reason(),
        Some(ConnectionError::ApplicationClosed(closed)) if closed.error_code == close::SHUTDOWN
    )
}

/// Runs the lanes. Why they ended.
async fn carry(
    shared: &Arc<Shared>,
    link: &Arc<PeerLink>,
    connection: &Connection,
    lanes: Vec<OpenLane>,
    admitted: Admitted,
) -> String {
    let mut tasks = JoinSet::new();
    for OpenLane { lane, mut send, reader } in lanes {
        let epoch = if lane == Lane::Bulk { admitted.bulk } else { admitted.requests };
        let writing = link.clone();
        tasks.spawn(async move { write_lane(writing.outbox(lane), epoch, &mut send, None).await });
        tasks.spawn(read(shared.clone(), link.clone(), lane, admitted.generation, reader));
    }
    let mut rtt = interval(RTT_INTERVAL);
    loop {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => {
                let end = ended.unwrap_or(LaneEnd::Lost);
                let error = end.error();
                if let Some(error) = &error {
                    shared.counters.lanes_malformed.increment();
                    let code = VarInt::from_u32(error.code().into());
                    connection.close(code, error.to_string().as_bytes());
                }
                if end == LaneEnd::Lost {
                    // The connection knows better why.
                    return connection.closed().await.to_string();
                }
                connection.close(close::DONE, b"a lane has ended");
                return error.map_or_else(|| format!("lane ended: {end:?}"), |error| error.to_string());
            }
            error = connection.closed() => return error.to_string(),
            datagram = connection.read_datagram() => match datagram {
                Ok(datagram) => take_datagram(shared, link, admitted, datagram),
                Err(error) => return error.to_string(),
            },
            _ = rtt.tick() => link.set_rtt(connection.rtt()),
        }
    }
}

fn take_datagram(shared: &Shared, link: &PeerLink, admitted: Admitted, datagram: Bytes) {
    if !link.is_current(admitted.generation) {
        return;
    }
    shared.counters.datagrams_received.increment();
    if shared.membership.try_send(Told::Datagram(link.node(), datagram)).is_err() {
        shared.counters.datagrams_dropped.increment();
    }
}

async fn read(
    shared: Arc<Shared>,
    link: Arc<PeerLink>,
    lane: Lane,
    generation: u64,
    mut reader: LaneReader,
) -> LaneEnd {
    let mut frames = Vec::new();
    loop {
        if let Err(end) = reader.batch(&mut frames, None).await {
            return end;
        }
        if !link.is_current(generation) {
            return LaneEnd::Drained;
        }
        shared.counters.frames_received.add(frames.len() as u64);
        shared.handler.on_peer_frames(link.node(), lane, &mut frames);
        frames.clear();
    }
}
