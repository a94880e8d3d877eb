//! The UDP socket and QUIC's settings.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::chance::Chance;

/// UDP buffers, bytes. With Linux's default of 208 KiB, 512 requests in flight lost packets in
/// every run; with 4 MiB in none.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// Largest UDP payload tried, bytes: what fits an Ethernet jumbo frame. Discovery finds what the
/// path really takes.
const UDP_PAYLOAD_MAX: u16 = 8900;

/// Received and not yet read, bytes, for one lane: above 1 Gbit/s times 150 ms, and room for the
/// longest frame.
const STREAM_WINDOW_BYTES: u32 = 20 << 20;

/// The same for all lanes of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// A connection on which nothing comes for this long is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pings go out this often on a quiet connection, so that only a dead one is ever idle. Three fit
/// into the idle timeout.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// A simulated machine in place of the real one.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    /// Decides every random number.
    pub(crate) seed: u64,
}

/// An endpoint that only dials, on `outside` if that is given. Else on a socket of its own: IPv6
/// (which also reaches IPv4) if `v6`, or IPv4.
///
/// # Errors
/// Whatever the system says about making the socket.
pub(crate) fn endpoint(
    v6: bool,
    outside: Option<Outside>,
    chance: &Chance,
) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(UDP_PAYLOAD_MAX).map_err(io::Error::other)?;
    if chance.is_seeded() {
        let words = [(); 4].map(|()| chance.number().to_le_bytes());
        config.rng_seed(words.concat().try_into().ok());
    }
    let runtime = Arc::new(TokioRuntime);
    match outside {
        Some(outside) => Endpoint::new_with_abstract_socket(config, None, outside.socket, runtime),
        None => Endpoint::new(config, None, bind(v6)?, runtime),
    }
}

fn bind(v6: bool) -> io::Result<UdpSocket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if v6 {
        socket.set_only_v6(false)?;
    }
    enlarge_buffers(&socket);
    let any =
        if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket.into())
}

fn enlarge_buffers(socket: &Socket) {
    // What cannot be had is not fatal, only slow: hence a warning.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    let receive = socket.recv_buffer_size().unwrap_or(0);
    let send = socket.send_buffer_size().unwrap_or(0);
    if receive.min(send) < UDP_BUFFER_BYTES {
        tracing::warn!(
            wanted_bytes = UDP_BUFFER_BYTES,
            receive_bytes = receive,
            send_bytes = send,
            "the kernel caps UDP buffers; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}

/// QUIC's settings for every connection.
pub(crate) fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEPALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        // Nodes open no streams towards clients.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(AckFrequencyConfig::default()));
    transport
}
