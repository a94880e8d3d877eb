//! One QUIC connection to one run of one node: dialling, its lanes, and whether it is alive.
//!
//! Dialling: TLS under the node's name, then each lane says hello and is welcomed; only a
//! connection whose lanes are all welcomed by the same run is used. If one lane ends, the whole
//! connection ends: lanes share their fate as they share their packets.
//!
//! A killed node says no goodbye, and QUIC's idle timeout takes seconds. The monitor therefore
//! calls a connection *stalled* when packets go out (QUIC's own probes included) and none come
//! back for several round trips; new calls then go elsewhere, until a packet comes.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BufMut;
use bytes::BytesMut;
use holm_protocol::error::RequestError;
use holm_protocol::frame::{Frame, FrameDecoder, put_frame};
use holm_protocol::handshake::{self, ClientHello, ClientWelcome};
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::message::{Request, kind};
use quinn::{ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::error::DialError;
use crate::lane::{self, Call, CloseReason, Lane, StartError};
use crate::tls;

/// Grain of waiting for answers: small against any hedge delay that could help, large against the
/// cost of looking.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2);

/// How often the monitor looks whether packets come back.
const STALL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// No packet for this long, plus round trips, in spite of probes: several probe timeouts of QUIC on
/// a local network, and less than an impatient caller's deadline.
const STALL_AFTER: Duration = Duration::from_millis(250);

/// Packets sent in vain before a connection counts as stalled: one may be a mere acknowledgement,
/// to which nobody answers.
const STALL_PACKETS: u64 = 3;

/// Connections being made at the same time, so that a reconnect storm stays small.
pub(crate) const DIALS_MAX: usize = 16;

/// Longest welcome or error frame, bytes: a node must not make us collect more before it is known.
const WELCOME_BYTES_MAX: usize = 4096;

/// What all dials share.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: quinn::ClientConfig,
    pub(crate) hello: ClientHello,
    /// Which CA certificate is trusted and which one is shown, and where they came from.
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) lanes: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) timeout: Duration,
    pub(crate) permits: Semaphore,
    /// The highest layout version that any node has named.
    pub(crate) layout_seen: AtomicU64,
    pub(crate) chance: Chance,
}

/// A connection whose lanes are welcomed.
#[derive(Debug)]
pub(crate) struct Connection {
    quic: quinn::Connection,
    run: Actor,
    lanes: Vec<Arc<Lane>>,
    next_lane: AtomicUsize,
    stalled: Arc<AtomicBool>,
}

impl Dialer {
    /// Connects, within the dialer's timeout.
    pub(crate) async fn dial(
        &self,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<Arc<Connection>, DialError> {
        let waited_ms = self.timeout.as_millis() as u64;
        match tokio::time::timeout(self.timeout, self.handshake(node, addr)).await {
            Ok(result) => result,
            Err(_) => Err(DialError::TimedOut { waited_ms }),
        }
    }

    async fn handshake(
        &self,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<Arc<Connection>, DialError> {
        let gone = |_| DialError::Protocol { what: "the client is closed".to_owned() };
        let _permit = self.permits.acquire().await.map_err(gone)?;
        let name = tls::server_name(node);
        let connecting = self.endpoint.connect_with(self.config.clone(), addr, &name);
        let quic = connecting.map_err(DialError::Local)?.await.map_err(|e| self.lost(e))?;
        let result = self.open_lanes(node, &quic).await;
        if result.is_err() {
            quic.close(VarInt::from_u32(0), b"handshake");
        }
        result
    }

    async fn open_lanes(
        &self,
        node: NodeId,
        quic: &quinn::Connection,
    ) -> Result<Arc<Connection>, DialError> {
        let mut opened = Vec::with_capacity(self.lanes);
        for index in 0..self.lanes {
            let opening = open_lane(quic, &self.hello, index > 0).await;
            match opening.map_err(|error| self.lost(error))? {
                Some(lane) => opened.push(lane),
                None => break,
            }
        }
        // All hellos are under way before the first welcome is awaited.
        let mut run = None;
        let mut streams = Vec::with_capacity(opened.len());
        for (send, mut recv) in opened {
            let mut decoder = FrameDecoder::new();
            let welcome =
                read_welcome(&mut recv, &mut decoder).await.map_err(|error| match error {
                    DialError::Handshake(error) => self.lost(error),
                    other => other,
                })?;
            if welcome.node != node {
                return Err(DialError::WrongNode { got: welcome.node });
            }
            self.check_cluster(&welcome)?;
            if *run.get_or_insert(welcome.run) != welcome.run {
                let what = "two lanes of one connection were welcomed by two runs".to_owned();
                return Err(DialError::Protocol { what });
            }
            self.layout_seen.fetch_max(welcome.layout_version, Ordering::Relaxed);
            streams.push((send, recv, decoder));
        }
        let Some(run) = run else {
            return Err(DialError::Protocol { what: "no lanes".to_owned() });
        };
        let limit = (self.in_flight_max / streams.len().max(1)).max(1);
        Ok(Connection::spawn(quic.clone(), run, limit, streams))
    }

    /// Why the connection was lost, with the certificates' origins if they are why.
    fn lost(&self, error: ConnectionError) -> DialError {
        DialError::of_handshake(error, &self.ca, &self.certificate)
    }

    fn check_cluster(&self, welcome: &ClientWelcome) -> Result<(), DialError> {
        match &self.hello.cluster {
            Some(asked) if *asked != welcome.cluster => {
                let (here, asked) = (welcome.cluster.clone(), asked.clone());
                Err(DialError::Refused { error: RequestError::WrongCluster { here, asked } })
            }
            _ => Ok(()),
        }
    }
}

/// Opens a lane; none if it is an extra one and the node grants no more, which the connection has
/// known since its handshake.
async fn open_lane(
    quic: &quinn::Connection,
    hello: &ClientHello,
    is_extra: bool,
) -> Result<Option<(SendStream, RecvStream)>, ConnectionError> {
    let mut opening = pin!(quic.open_bi());
    let at_once = std::future::poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx))).await;
    let (mut send, recv) = match at_once {
        Poll::Ready(opened) => opened?,
        Poll::Pending if is_extra => return Ok(None),
        Poll::Pending => opening.await?,
    };
    let mut frame = BytesMut::new();
    put_frame(&mut frame, kind::HELLO, 0, |out| out.put_slice(&handshake::encode(hello)));
    // If the node has closed already, reading tells why.
    let _ = send.write_all(&frame).await;
    Ok(Some((send, recv)))
}

async fn read_welcome(
    recv: &mut RecvStream,
    decoder: &mut FrameDecoder,
) -> Result<ClientWelcome, DialError> {
    let protocol = |what: String| DialError::Protocol { what };
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => return welcome(&frame),
            Ok(None) if decoder.buffered() > WELCOME_BYTES_MAX => {
                return Err(protocol(format!("a welcome above {WELCOME_BYTES_MAX} bytes")));
            }
            Ok(None) => {}
            Err(error) => return Err(protocol(error.to_string())),
        }
        match recv.read_chunk(WELCOME_BYTES_MAX, true).await {
            Ok(Some(chunk)) => decoder.push(&chunk.bytes),
            Ok(None) => return Err(protocol("the lane was closed without a welcome".to_owned())),
            Err(quinn::ReadError::ConnectionLost(error)) => {
                return Err(DialError::Handshake(error));
            }
            Err(error) => return Err(protocol(error.to_string())),
        }
    }
}

fn welcome(frame: &Frame) -> Result<ClientWelcome, DialError> {
    match frame.kind {
        kind::WELCOME => {
            handshake::decode(&frame.body).map_err(|error| DialError::Refused { error })
        }
        kind::ERROR => match holm_protocol::admin::decode(&frame.body) {
            Some(error) => Err(DialError::Refused { error }),
            None => Err(DialError::Protocol { what: "an error that does not decode".to_owned() }),
        },
        other => Err(DialError::Protocol { what: format!("a frame of kind {other} as welcome") }),
    }
}

impl Connection {
    fn spawn(
        quic: quinn::Connection,
        run: Actor,
        in_flight_max: usize,
        streams: Vec<(SendStream, RecvStream, FrameDecoder)>,
    ) -> Arc<Connection> {
        let lanes = streams.iter().map(|_| Arc::new(Lane::new(in_flight_max))).collect();
        let stalled = Arc::new(AtomicBool::new(false));
        let connection =
            Arc::new(Connection { quic, run, lanes, next_lane: AtomicUsize::new(0), stalled });
        for (lane, (send, recv, decoder)) in connection.lanes.iter().zip(streams) {
            let (lane, all, quic) =
                (Arc::clone(lane), connection.lanes.clone(), connection.quic.clone());
            let (writing, closing, quic_of_writer) =
                (Arc::clone(&lane), connection.lanes.clone(), connection.quic.clone());
            tokio::spawn(async move {
                if let Some(reason) = lane::write_loop(writing, send).await {
                    close_all(&quic_of_writer, &closing, reason);
                }
            });
            tokio::spawn(async move {
                let reason = lane::read_loop(lane, recv, decoder).await;
                close_all(&quic, &all, reason);
            });
        }
        let monitor =
            monitor(connection.quic.clone(), connection.lanes.clone(), &connection.stalled);
        tokio::spawn(monitor);
        connection
    }

    /// Queues a request on the next lane.
    pub(crate) fn start(&self, request: &Request) -> Result<Call, StartError> {
        let lane = match self.lanes.as_slice() {
            [only] => only,
            lanes => &lanes[self.next_lane.fetch_add(1, Ordering::Relaxed) % lanes.len()],
        };
        lane.start(request)
    }

    /// The smoothed round trip time.
    pub(crate) fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// The node's run at the other end.
    pub(crate) fn run(&self) -> Actor {
        self.run
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lanes.first().is_none_or(|lane| lane.is_closed())
    }

    /// Whether packets go out and none come back.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Ends the connection because the node broke the protocol.
    pub(crate) fn fail(&self, what: &str) {
        close_all(&self.quic, &self.lanes, CloseReason::Garbage(what.into()));
    }

    /// Ends the connection because nobody uses it any more.
    pub(crate) fn close(&self) {
        close_all(&self.quic, &self.lanes, CloseReason::Lost("the client was closed".into()));
    }
}

fn close_all(quic: &quinn::Connection, lanes: &[Arc<Lane>], reason: CloseReason) {
    if let CloseReason::Garbage(what) = &reason {
        tracing::warn!(remote = %quic.remote_address(), %what, "a node broke the protocol");
    }
    for lane in lanes {
        lane.close(reason.clone());
    }
    quic.close(VarInt::from_u32(0), b"closed");
}

/// Wakes waiters whose time has come and watches whether packets come back, until the lanes close.
fn monitor(
    quic: quinn::Connection,
    lanes: Vec<Arc<Lane>>,
    stalled: &Arc<AtomicBool>,
) -> impl Future<Output = ()> + Send + 'static {
    let stalled = Arc::clone(stalled);
    async move {
        let mut watch = StallWatch::new(&quic);
        loop {
            if !stalled.load(Ordering::Relaxed) {
                std::future::poll_fn(|cx| {
                    let busy = lanes.iter().any(|lane| lane.poll_busy(cx).is_ready());
                    if busy { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
            if lanes.iter().any(|lane| lane.is_closed()) {
                return;
            }
            let now = Instant::now();
            for lane in &lanes {
                lane.sweep(now);
            }
            if let Some(is) = watch.check(&quic, now)
                && stalled.swap(is, Ordering::Relaxed) != is
            {
                let remote = quic.remote_address();
                tracing::debug!(%remote, stalled = is, "packets come back, or not");
            }
        }
    }
}

/// Compares packet counters over time.
struct StallWatch {
    checked: Instant,
    received: u64,
    received_at: Instant,
    sent_then: u64,
}

impl StallWatch {
    fn new(quic: &quinn::Connection) -> StallWatch {
        let (now, stats) = (Instant::now(), quic.stats());
        StallWatch {
            checked: now,
            received: stats.udp_rx.datagrams,
            received_at: now,
            sent_then: stats.udp_tx.datagrams,
        }
    }

    /// Whether the connection is stalled; `None` if it is not yet time to look again.
    fn check(&mut self, quic: &quinn::Connection, now: Instant) -> Option<bool> {
        let idle = now - self.checked;
        if idle < STALL_CHECK_INTERVAL {
            return None;
        }
        self.checked = now;
        let stats = quic.stats();
        // Nobody looked for a while: what was sent meanwhile may have been answered or not.
        let looked_away = idle > 3 * STALL_CHECK_INTERVAL;
        if stats.udp_rx.datagrams != self.received || looked_away {
            self.received = stats.udp_rx.datagrams;
            self.received_at = now;
            self.sent_then = stats.udp_tx.datagrams;
            return Some(false);
        }
        let in_vain = stats.udp_tx.datagrams - self.sent_then;
        let patience = STALL_AFTER + 3 * stats.path.rtt;
        Some(in_vain >= STALL_PACKETS && now - self.received_at > patience)
    }
}
