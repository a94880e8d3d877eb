//! The one QUIC endpoint of a node: transport settings and binding.
//!
//! Every bound is explicit. A connection starts with the window of a client; one that turns out to
//! be a node's gets a window that fills a wide-area link. Nobody can open a unidirectional stream or
//! send early data. Datagrams are for nodes; a client, whom QUIC cannot tell apart in time, may send
//! some, which nobody reads and the next ones push out.
//!
//! A node that was killed and is back has no memory of its connections. Whoever still uses one is told
//! so by a stateless reset at its first packet, instead of waiting for the idle timeout: the key of
//! resets is derived from the node's TLS key, and so outlives the process. After a change of that
//! key, the first restart is noticed by the timeout.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator,
    Endpoint, EndpointConfig, MtuDiscoveryConfig, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use ring::hmac;

use super::chance::Chance;
use super::congestion::FlooredConfig;
use super::counters::NetCounters;
use super::devnet::{DevSocket, LinkRules};
use super::socket;
use super::tls::{TlsError, TlsMaterial};
use crate::config::{Config, NetConfig};

/// Packets that the other side may receive before it must acknowledge. 10 instead of 2 gave 18 %
/// more requests a second (bench, one lane, loopback).
const ACK_EVERY: u32 = 10;

/// How long the other side may hold back an acknowledgement. Less than a round trip in a region.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);

/// Bytes of one connection attempt that are kept until it is accepted: a TLS hello is one or two
/// packets.
const INCOMING_BYTES_MAX: u64 = 16 << 10;

/// Datagrams of one connection that wait to be read, or sent, bytes: a dozen. They are read at once.
const DATAGRAM_BYTES_MAX: usize = 16 << 10;

/// Too many to meet twice.
const CONNECTION_ID_BYTES: usize = 8;

/// The shortest time between two resets: a thousand clients of a node that is back learn it within a
/// second.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Why the endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The address cannot be bound.
    #[error("cannot bind listen.quic = {addr}: {source}; is another node running here?")]
    Bind {
        /// The address.
        addr: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS provider lacks QUIC's initial cipher suite: a bug in the build.
    #[error("TLS without QUIC's initial cipher suite")]
    Cipher(#[from] NoInitialCipherSuite),
    /// A setting that QUIC cannot express.
    #[error("QUIC refuses a setting: {0}")]
    Setting(String),
}

/// An endpoint, and its development rules if it has any.
#[derive(Debug)]
pub struct Bound {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Present only with `dev.enabled`.
    pub rules: Option<LinkRules>,
}

/// What an endpoint is given by the machine it runs on, or by a simulation of one. Time is tokio's,
/// which a test can pause.
#[derive(Debug)]
pub struct Outside {
    /// Where packets go and come from.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Random numbers.
    pub chance: Arc<Chance>,
}

impl Outside {
    /// A socket bound to `listen.quic`, and the system's random numbers. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`EndpointError::Bind`].
    pub fn machine(config: &Config) -> Result<Outside, EndpointError> {
        let addr = config.listen.quic;
        let bind_failed = |source| EndpointError::Bind { addr, source };
        let (socket, _) = socket::bind(addr, config.net.udp_buffer_bytes).map_err(bind_failed)?;
        let socket = TokioRuntime.wrap_udp_socket(socket).map_err(bind_failed)?;
        Ok(Outside { socket, chance: Arc::new(Chance::system()) })
    }
}

/// Makes the endpoint. Must be called inside a tokio runtime.
///
/// # Errors
/// [`EndpointError`].
pub fn bind(
    outside: Outside,
    config: &Config,
    tls: &TlsMaterial,
    counters: &Arc<NetCounters>,
) -> Result<Bound, EndpointError> {
    let addr = config.listen.quic;
    let bind_failed = |source| EndpointError::Bind { addr, source };
    let Outside { mut socket, chance } = outside;
    let rules = config.dev.enabled.then(LinkRules::default);
    if let Some(rules) = &rules {
        tracing::warn!("development mode: this node obeys commands that delay and drop packets");
        socket = Arc::new(DevSocket::new(socket, rules.clone(), counters.clone()));
    }
    let mut settings = EndpointConfig::new(Arc::new(reset_key(tls)));
    settings.cid_generator(|| Box::new(ConnectionIds)).min_reset_interval(RESET_INTERVAL_MIN);
    settings.rng_seed(chance.quic_seed());
    settings
        .max_udp_payload_size(config.net.mtu_max)
        .map_err(|error| EndpointError::Setting(error.to_string()))?;
    let server = server_config(config, tls)?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(settings, Some(server), socket, runtime)
        .map_err(bind_failed)?;
    Ok(Bound { endpoint, rules })
}

/// Proves to others that a reset comes from this node.
fn reset_key(tls: &TlsMaterial) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &tls.stable_secret("holm quic stateless reset v1"))
}

/// Random connection ids. Quinn's own are marked with a key of the process, and packets of a run
/// before would be dropped without a reset.
struct ConnectionIds;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// How connections are accepted, from clients and nodes.
///
/// # Errors
/// [`EndpointError`].
pub fn server_config(config: &Config, tls: &TlsMaterial) -> Result<ServerConfig, EndpointError> {
    let crypto = QuicServerConfig::try_from(tls.server()?)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport(&config.net)?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(config.net.lanes_max))
        .receive_window(VarInt::from_u32(config.net.client_window_bytes));
    let attempts = config.limits.handshakes_max;
    server
        .transport_config(Arc::new(transport))
        .max_incoming(attempts)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * attempts as u64);
    Ok(server)
}

/// How other nodes are reached. The side that dials keeps the connection alive.
///
/// # Errors
/// [`EndpointError`].
pub fn peer_client_config(
    config: &Config,
    tls: &TlsMaterial,
) -> Result<ClientConfig, EndpointError> {
    let crypto = QuicClientConfig::try_from(tls.peer_client()?)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    let mut transport = transport(&config.net)?;
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(config.net.receive_window_bytes))
        .keep_alive_interval(Some(config.net.keepalive));
    client.transport_config(Arc::new(transport));
    Ok(client)
}

fn transport(net: &NetConfig) -> Result<TransportConfig, EndpointError> {
    let idle = net
        .idle_timeout
        .try_into()
        .map_err(|_| EndpointError::Setting("net.idle_timeout_ms".to_owned()))?;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(net.mtu_max);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY)).max_ack_delay(Some(ACK_DELAY_MAX));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX)
        .stream_receive_window(VarInt::from_u32(net.receive_window_bytes))
        .send_window(net.receive_window_bytes.into())
        .max_idle_timeout(Some(idle))
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(FlooredConfig::default()))
        .enable_segmentation_offload(net.gso);
    Ok(transport)
}
