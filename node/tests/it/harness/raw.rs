//! Connections without any manners: bytes in, frames out.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holm_client::RequestId;
use holm_protocol::admin::{AdminReply, AdminRequest};
use holm_protocol::error::RequestError;
use holm_protocol::frame::{Frame, FrameDecoder, put_frame};
use holm_protocol::handshake::{self, ClientHello};
use holm_protocol::ids::{BucketId, NodeId};
use holm_protocol::message::{Delete, Get, Put, Reply, Request, Values, Written, kind};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};

use super::holmd::CLUSTER;
use super::within;

/// Well below the nodes' idle timeout in all tests.
const KEEPALIVE: Duration = Duration::from_millis(400);

/// A connection to one node.
pub(crate) struct Conn {
    pub(crate) connection: Connection,
    // Dropping it would end the connection.
    _endpoint: Endpoint,
}

impl Conn {
    /// Connects. The TLS server may still refuse after this: in TLS 1.3 a client believes itself
    /// connected before its certificate was looked at.
    pub(crate) async fn open(
        addr: SocketAddr,
        node: NodeId,
        config: quinn::ClientConfig,
    ) -> Result<Conn, ConnectionError> {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let name = format!("node-{}.holm.internal", node.0);
        let connecting = endpoint.connect_with(config, addr, &name).unwrap();
        let connection = within("a connection", connecting).await?;
        Ok(Conn { connection, _endpoint: endpoint })
    }

    /// The number with which the node closes the connection; `None` if TLS or the network ended it.
    pub(crate) async fn closed(&self) -> Option<u64> {
        match within("the node closes the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
            _ => None,
        }
    }

    /// A stream on which nothing has been said.
    pub(crate) async fn open_lane(&self) -> Lane {
        let (send, recv) = within("a stream", self.connection.open_bi()).await.unwrap();
        Lane { send, recv, decoder: FrameDecoder::new(), last_id: 0 }
    }

    /// A client's lane after its hello.
    pub(crate) async fn client_lane(&self) -> Lane {
        let mut lane = self.open_lane().await;
        lane.write(&client_hello(Some(CLUSTER))).await;
        let welcome = lane.frame().await.expect("a welcome");
        assert_eq!(welcome.kind, kind::WELCOME);
        lane
    }
}

/// Settings with which QUIC keeps a connection alive that says nothing.
pub(crate) fn kept_alive(mut config: quinn::ClientConfig) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(KEEPALIVE));
    config.transport_config(Arc::new(transport));
    config
}

/// One stream.
pub(crate) struct Lane {
    pub(crate) send: SendStream,
    recv: RecvStream,
    decoder: FrameDecoder,
    last_id: u64,
}

impl Lane {
    /// Writes whatever it is given.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within("writing", self.send.write_all(bytes)).await.unwrap();
    }

    /// The next frame; `None` once the node has ended its half.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let read = within("a frame", self.recv.read_chunk(1 << 16, true)).await;
            match read {
                Ok(Some(chunk)) => self.decoder.push(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next frame as an answer.
    pub(crate) async fn reply(&mut self) -> (u64, Reply) {
        let frame = self.frame().await.expect("an answer, not the end of the lane");
        (frame.id, Reply::decode(&frame).expect("a well-formed answer"))
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(&mut self, request: &Request) -> Reply {
        self.last_id += 1;
        let mut out = BytesMut::new();
        request.encode(self.last_id, &mut out);
        self.write(&out).await;
        let (id, reply) = self.reply().await;
        assert_eq!(id, self.last_id, "the answer to another request");
        reply
    }

    /// Sends a body under a kind, whatever they are, and waits for the answer.
    pub(crate) async fn call_raw(&mut self, kind: u8, body: &[u8]) -> Reply {
        self.last_id += 1;
        self.write(&frame(kind, self.last_id, body)).await;
        let (id, reply) = self.reply().await;
        assert_eq!(id, self.last_id, "the answer to another request");
        reply
    }

    /// Asks for what must be refused.
    pub(crate) async fn refusal(&mut self, request: &Request) -> RequestError {
        match self.call(request).await {
            Reply::Error(error) => error,
            other => panic!("{request:?} was not refused: {other:?}"),
        }
    }

    /// Puts what must be taken.
    pub(crate) async fn put(&mut self, put: Put) -> Written {
        match self.call(&Request::Put(put)).await {
            Reply::Written(written) => written,
            other => panic!("the put was not taken: {other:?}"),
        }
    }

    /// Gets what must be given.
    pub(crate) async fn get(&mut self, get: Get) -> Values {
        match self.call(&Request::Get(get)).await {
            Reply::Values(values) => values,
            other => panic!("the get was not answered: {other:?}"),
        }
    }

    /// Asks for something rare that must be done.
    pub(crate) async fn admin(&mut self, request: AdminRequest) -> AdminReply {
        match self.call(&Request::Admin(request)).await {
            Reply::Admin(reply) => *reply,
            other => panic!("the request was not done: {other:?}"),
        }
    }

    /// The numbered error with which the node ends a lane, and that it does end it.
    pub(crate) async fn last_words(&mut self) -> u16 {
        let (_, reply) = self.reply().await;
        let Reply::Error(error) = reply else { panic!("expected an error, got {reply:?}") };
        assert_eq!(self.frame().await, None, "the lane goes on after {error}");
        error.code()
    }
}

/// One frame.
pub(crate) fn frame(kind: u8, id: u64, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, kind, id, |out| out.extend_from_slice(body));
    out
}

/// A client's hello.
pub(crate) fn client_hello(cluster: Option<&str>) -> BytesMut {
    let hello = ClientHello { cluster: cluster.map(str::to_owned), client: "test".to_owned() };
    frame(kind::HELLO, 1, &handshake::encode(&hello))
}

/// A blind put, with a request id of its own.
pub(crate) fn put(bucket: BucketId, key: &[u8], value: &[u8]) -> Put {
    let request = RequestId { client: rand::random(), sequence: 1 };
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    Put { bucket, key, value, context: Bytes::new(), level: None, request, timeout_ms: 5_000 }
}

/// A get at the bucket's default level.
pub(crate) fn get(bucket: BucketId, key: &[u8]) -> Get {
    Get { bucket, key: Bytes::copy_from_slice(key), level: None, timeout_ms: 5_000 }
}

/// A delete with this context.
pub(crate) fn delete(bucket: BucketId, key: &[u8], context: &[u8]) -> Delete {
    let Put { bucket, key, level, request, timeout_ms, .. } = put(bucket, key, b"");
    Delete { bucket, key, context: Bytes::copy_from_slice(context), level, request, timeout_ms }
}

/// A key whose value must survive whatever a test does.
pub(crate) struct Witness {
    get: Get,
    before: Values,
}

impl Witness {
    /// Writes the key.
    pub(crate) async fn write(lane: &mut Lane, bucket: BucketId) -> Witness {
        let key = b"the witness";
        lane.put(put(bucket, key, b"unchanged")).await;
        let get = get(bucket, key);
        let before = lane.get(get.clone()).await;
        assert_eq!(before.siblings.len(), 1);
        Witness { get, before }
    }

    /// The node serves, and the key is as it was: value, dot, reading, context.
    pub(crate) async fn check(&self, lane: &mut Lane) {
        let now = lane.get(self.get.clone()).await;
        assert_eq!(now.siblings, self.before.siblings);
        assert_eq!(now.context, self.before.context);
    }
}

/// Every number an answer can have; for tests that are not about which.
pub(crate) const ERROR_CODES: RangeInclusive<u16> = 1..=26;

/// An answer's number: 0 for a result.
pub(crate) fn code(reply: &Reply) -> u16 {
    match reply {
        Reply::Error(error) => error.code(),
        _ => 0,
    }
}

/// Ends a connection politely.
pub(crate) fn leave(conn: &Conn) {
    conn.connection.close(VarInt::from_u32(0), b"");
}
