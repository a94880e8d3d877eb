//! Frames that go over one QUIC stream and come back.
//!
//! Client and server are two threads of this process, each with a current-thread runtime and a UDP
//! socket of its own, on loopback, with TLS 1.3 as always. One long-lived bidirectional stream
//! carries frames with a length of 4 bytes before them, so many in flight; each side answers all
//! frames of one read with one write. What a lane between client and node does, without the node.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};

use crate::certs::{self, Authority};
use crate::cli::QuicArgs;
use crate::failure::Failure;
use crate::measured::{Measured, Recorder, Window};
use crate::worker::Worker;

/// Kernel buffers, bytes, as holm's: with the kernel's default, load loses packets.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Length before each frame, bytes.
const PREFIX_BYTES: usize = 4;
/// Read at once, bytes: more than is ever in flight with the default flags.
const READ_BYTES: usize = 64 << 10;
/// How long to run before measuring: MTU discovery and congestion control settle in it.
const WARMUP: Duration = Duration::from_secs(1);
/// How long the server's thread may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether the run is to end early.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Runs the echo.
///
/// # Errors
/// [`Failure::Quic`], certificates, or [`Failure::Interrupted`] when told to stop.
pub(crate) fn measure(args: &QuicArgs, stop: &AtomicBool) -> Result<Measured, Failure> {
    let authority = Authority::new()?;
    let server_config = server_config(&authority, args.mtu_max)?;
    let (mtu, (ready, address)) = (args.mtu_max, std::sync::mpsc::channel());
    let _server = Worker::start("quic-server", move |stop| {
        let served = on_runtime(unless_stopped(stop, serve(server_config, mtu, ready)));
        match served {
            Ok(()) | Err(Failure::Interrupted) => {}
            Err(failure) => eprintln!("error: server: {failure}"),
        }
    })
    .map_err(Failure::io("start a thread"))?;
    let address =
        address.recv_timeout(PATIENCE).map_err(|_| Failure::Quic("no server".to_owned()))?;
    let config = client_config(&authority, args.mtu_max)?;
    on_runtime(unless_stopped(stop, client(args, config, address)))
}

/// Looks at the flag beside the work: looking at it in every turn would cost what is measured.
async fn unless_stopped<T>(
    stop: &AtomicBool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(STOP_POLL).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = stopped => Err(Failure::Interrupted),
    }
}

fn on_runtime<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::io("start a runtime"))?.block_on(future)
}

async fn client(
    args: &QuicArgs,
    config: ClientConfig,
    address: SocketAddr,
) -> Result<Measured, Failure> {
    let endpoint = endpoint(None, args.mtu_max)?;
    let connection = endpoint
        .connect_with(config, address, &certs::server_name(1))
        .map_err(quic)?
        .await
        .map_err(quic)?;
    let (send, receive) = connection.open_bi().await.map_err(quic)?;
    let mut pipe = Pipe { send, receive, frame: frame(args.frame_size), sent: VecDeque::new() };
    let mut recorder = Recorder::new();
    pipe.send_more(args.concurrency as usize).await?;
    pipe.echo_until(Instant::now() + WARMUP, &mut recorder).await?;
    recorder.reset();
    let window = Window::open(&[]);
    let end = Instant::now() + Duration::from_secs(args.duration);
    pipe.echo_until(end, &mut recorder).await?;
    let measured = window.close(&recorder);
    connection.close(0_u32.into(), b"done");
    endpoint.wait_idle().await;
    Ok(measured)
}

/// The client's end of the stream. Frames come back in order, so the oldest sent is the next back.
struct Pipe {
    send: SendStream,
    receive: RecvStream,
    frame: Vec<u8>,
    sent: VecDeque<Instant>,
}

impl Pipe {
    async fn send_more(&mut self, frames: usize) -> Result<(), Failure> {
        let now = Instant::now();
        self.sent.extend(std::iter::repeat_n(now, frames));
        self.send.write_all(&self.frame.repeat(frames)).await.map_err(quic)
    }

    async fn echo_until(&mut self, end: Instant, recorder: &mut Recorder) -> Result<(), Failure> {
        let mut buffer = vec![0; READ_BYTES];
        // Every byte that was sent comes back, so whole frames can be counted without being read.
        let mut partial = 0;
        loop {
            let read = self.receive.read(&mut buffer).await.map_err(quic)?;
            let bytes = partial + read.ok_or_else(|| quic("the server closed the stream"))?;
            partial = bytes % self.frame.len();
            let back = bytes / self.frame.len();
            let now = Instant::now();
            for begun in self.sent.drain(..back.min(self.sent.len())) {
                recorder.success(now - begun);
            }
            self.send_more(back).await?;
            // Between frames only: the next loop counts from there.
            if now >= end && partial == 0 {
                return Ok(());
            }
        }
    }
}

async fn serve(
    config: ServerConfig,
    mtu: u16,
    ready: std::sync::mpsc::Sender<SocketAddr>,
) -> Result<(), Failure> {
    let endpoint = endpoint(Some(config), mtu)?;
    let address = endpoint.local_addr().map_err(Failure::io("listen"))?;
    ready.send(address).map_err(|_| Failure::Interrupted)?;
    let Some(incoming) = endpoint.accept().await else { return Ok(()) };
    let connection = incoming.await.map_err(quic)?;
    let (mut send, mut receive) = connection.accept_bi().await.map_err(quic)?;
    let mut pending = Vec::with_capacity(2 * READ_BYTES);
    let mut buffer = vec![0; READ_BYTES];
    // The client closes the connection when it is done: that is the end, not an error.
    while let Ok(Some(read)) = receive.read(&mut buffer).await {
        pending.extend_from_slice(&buffer[..read]);
        let whole = whole_frames(&pending);
        if send.write_all(&pending[..whole]).await.is_err() {
            break;
        }
        pending.drain(..whole);
    }
    Ok(())
}

/// How many bytes of a buffer are whole frames.
fn whole_frames(buffer: &[u8]) -> usize {
    let mut at = 0;
    while let Some(prefix) = buffer[at..].first_chunk::<PREFIX_BYTES>() {
        let next = at + PREFIX_BYTES + u32::from_be_bytes(*prefix) as usize;
        if next > buffer.len() {
            break;
        }
        at = next;
    }
    at
}

fn frame(len: u32) -> Vec<u8> {
    let mut frame = len.to_be_bytes().to_vec();
    frame.resize(PREFIX_BYTES + len as usize, 0x5a);
    frame
}

fn endpoint(server: Option<ServerConfig>, mtu: u16) -> Result<Endpoint, Failure> {
    let made = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // What the kernel caps is slower, and shows in the result.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(mtu).map_err(std::io::Error::other)?;
        Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))
    };
    made().map_err(Failure::io("open a UDP socket"))
}

fn transport(mtu: u16) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

fn server_config(authority: &Authority, mtu: u16) -> Result<ServerConfig, Failure> {
    let identity = authority.node(1)?;
    let chain = vec![CertificateDer::from_pem_slice(identity.cert.as_bytes()).map_err(quic)?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(quic)?;
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(quic)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(quic)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(quic)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(mtu));
    Ok(config)
}

fn client_config(authority: &Authority, mtu: u16) -> Result<ClientConfig, Failure> {
    let ca = CertificateDer::from_pem_slice(authority.pem().as_bytes()).map_err(quic)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).map_err(quic)?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(quic)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let crypto = QuicClientConfig::try_from(tls).map_err(quic)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(mtu));
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn quic(error: impl ToString) -> Failure {
    Failure::Quic(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only whole frames are sent back. Method: every cut of three frames.
    #[test]
    fn only_whole_frames_count() {
        let three = frame(5).repeat(3);
        for len in 0..=three.len() {
            assert_eq!(whole_frames(&three[..len]), len / 9 * 9, "{len} bytes");
        }
    }

    /// Goal: the echo runs and ends, also when it is told to stop.
    #[test]
    fn frames_come_back() {
        let args = QuicArgs { frame_size: 100, concurrency: 64, duration: 1, mtu_max: 1452 };
        let measured = measure(&args, &AtomicBool::new(false)).unwrap();
        assert!(measured.operations > 64 && measured.latency.is_some());
        let stopped = measure(&args, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Failure::Interrupted)));
    }
}
