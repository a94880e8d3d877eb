//! A client's connection to one node, kept up for as long as the node is there.
//!
//! Many calls are under way on it at a time. A call that finds no connection is answered
//! [`CallResult::NotSent`]: nothing happened. One whose connection ends before its answer is
//! [`CallResult::Disconnected`]: nobody knows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use holm_protocol::frame::FrameDecoder;
use holm_protocol::ids::NodeId;
use holm_protocol::message::{Reply, Request, kind};
use holm_sim::cluster::{CallId, CallResult};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::harness::holmd::CLUSTER;
use crate::harness::raw::client_hello;

/// Calls that wait for one node, and answers that wait for the clients: more than there are
/// clients, each of which has one call at a time.
pub(crate) const CALLS_MAX: usize = 1024;

/// An attempt to connect that takes longer has failed: loopback takes a millisecond, a busy machine
/// a hundred.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// How long a client takes to see that it cannot reach a node, so that none asks in a busy loop.
const PAUSE: Duration = Duration::from_millis(25);

/// The end of a call.
pub(crate) type Answer = (CallId, CallResult);

/// See the module's head. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Link {
    asks: mpsc::Sender<(CallId, Request)>,
    connection: Arc<Mutex<Option<Connection>>>,
    task: JoinHandle<()>,
}

impl Link {
    /// Begins to connect. The endpoint's client configuration says as whom.
    pub(crate) fn open(
        endpoint: Endpoint,
        (node, addr): (NodeId, SocketAddr),
        answers: mpsc::Sender<Answer>,
    ) -> Link {
        let (asks, questions) = mpsc::channel(CALLS_MAX);
        let connection = Arc::new(Mutex::new(None));
        let shared = connection.clone();
        let line = Line { endpoint, node, addr, answers, connection: shared, asks: questions };
        Link { asks, connection, task: tokio::spawn(line.run()) }
    }

    /// Sends a request, or has it answered that it was not sent.
    pub(crate) fn ask(&self, call: CallId, request: Request) {
        self.asks.try_send((call, request)).expect("the link lives and clients are few");
    }

    /// The node was killed. What its kernel would tell a client on another machine, sooner or later,
    /// is told now.
    pub(crate) fn reset(&self) {
        if let Some(connection) = self.connection.lock().unwrap().take() {
            connection.close(VarInt::from_u32(0), b"");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.reset();
    }
}

/// A connection with its one lane.
struct Lane {
    send: SendStream,
    recv: RecvStream,
    decoder: FrameDecoder,
}

/// The task of a [`Link`].
struct Line {
    endpoint: Endpoint,
    node: NodeId,
    addr: SocketAddr,
    answers: mpsc::Sender<Answer>,
    connection: Arc<Mutex<Option<Connection>>>,
    asks: mpsc::Receiver<(CallId, Request)>,
}

impl Line {
    async fn run(mut self) {
        while let Some(lane) = self.until_connected().await {
            self.carry(lane).await;
        }
    }

    /// Tries again and again. `None` when the link is gone.
    async fn until_connected(&mut self) -> Option<Lane> {
        let mut pause = interval(PAUSE);
        loop {
            let attempt = connect(self.endpoint.clone(), self.node, self.addr);
            let attempt = timeout(CONNECT_WITHIN, attempt);
            tokio::pin!(attempt);
            let mut waiting = Vec::new();
            let connected = loop {
                tokio::select! {
                    done = &mut attempt => break done.ok().flatten(),
                    ask = self.asks.recv() => waiting.push(ask?.0),
                    _ = pause.tick() => self.refuse(&mut waiting).await,
                }
            };
            pause.tick().await;
            self.refuse(&mut waiting).await;
            if let Some((connection, lane)) = connected {
                *self.connection.lock().unwrap() = Some(connection);
                return Some(lane);
            }
        }
    }

    async fn refuse(&self, waiting: &mut Vec<CallId>) {
        for call in waiting.drain(..) {
            self.answer(call, CallResult::NotSent).await;
        }
    }

    async fn answer(&self, call: CallId, result: CallResult) {
        // Nobody listens any more when the round is over.
        let _ = self.answers.send((call, result)).await;
    }

    /// Carries calls until the connection ends.
    async fn carry(&mut self, mut lane: Lane) {
        let mut pending = BTreeSet::new();
        loop {
            tokio::select! {
                ask = self.asks.recv() => {
                    let Some((call, request)) = ask else { break };
                    pending.insert(call);
                    let mut frame = BytesMut::new();
                    request.encode(call.0, &mut frame);
                    if lane.send.write_all(&frame).await.is_err() {
                        break;
                    }
                }
                read = lane.recv.read_chunk(1 << 16, true) => {
                    let Ok(Some(chunk)) = read else { break };
                    lane.decoder.push(&chunk.bytes);
                    while let Some(frame) = lane.decoder.next_frame().expect("a sound frame") {
                        let reply = Reply::decode(&frame).expect("a well-formed answer");
                        if pending.remove(&CallId(frame.id)) {
                            self.answer(CallId(frame.id), CallResult::Reply(reply)).await;
                        }
                    }
                }
            }
        }
        *self.connection.lock().unwrap() = None;
        for call in pending {
            self.answer(call, CallResult::Disconnected).await;
        }
    }
}

async fn connect(endpoint: Endpoint, node: NodeId, addr: SocketAddr) -> Option<(Connection, Lane)> {
    let name = format!("node-{}.holm.internal", node.0);
    let connection = endpoint.connect(addr, &name).unwrap().await.ok()?;
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(&client_hello(Some(CLUSTER))).await.ok()?;
    let mut decoder = FrameDecoder::new();
    loop {
        if let Some(frame) = decoder.next_frame().expect("a sound frame") {
            let lane = Lane { send, recv, decoder };
            return (frame.kind == kind::WELCOME).then_some((connection, lane));
        }
        decoder.push(&recv.read_chunk(1 << 16, true).await.ok()??.bytes);
    }
}
