//! HTTP at the socket: what probes and scrapers see, and what strangers cannot do.

use std::sync::atomic::AtomicBool;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::metrics::tests::{exposition, node_state};

/// Every wait in these tests ends by then.
const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    state: Arc<NodeState>,
    server: HttpServer,
    _dir: TempDir,
}

async fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let state = node_state(dir.path(), 1);
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let metrics = exposition(&state, &Arc::default());
    let server = HttpServer::start(loopback, state.clone(), metrics).await.unwrap();
    Fixture { state, server, _dir: dir }
}

/// Sends bytes, half-closes, and returns everything that comes back.
async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    timeout(DEADLINE, exchange).await.unwrap()
}

/// The status code, headers and body of a GET.
async fn get(addr: SocketAddr, path: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = talk(addr, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_ascii_lowercase(), body.to_owned())
}

/// Goal: a node without a layout is alive and not ready, and says why; once it has one it is ready;
/// what breaks is said in the right place. Method: the state's own switches.
#[tokio::test]
async fn health_tells_alive_from_ready() {
    let Fixture { state, server, _dir } = start().await;
    let addr = server.local_addr();
    assert_eq!(get(addr, "/livez").await.0, 200);
    let (code, head, body) = get(addr, "/readyz").await;
    assert_eq!(code, 503);
    assert!(head.contains("content-type: application/json"));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], false);
    assert!(body["reasons"][0].as_str().unwrap().contains("no layout"), "{body}");

    *state.layout.lock().unwrap() = (1, true, 16);
    assert_eq!(get(addr, "/readyz").await.0, 200);
    let set = |flag: &AtomicBool, to| flag.store(to, Ordering::Release);
    set(&state.amnesia, true);
    let (code, _, body) = get(addr, "/readyz").await;
    assert!(code == 503 && body.contains("amnesia"), "{body}");
    assert_eq!(get(addr, "/livez").await.0, 200, "amnesia is no reason to restart a node");
    set(&state.amnesia, false);
    state.shards[0].lock().unwrap().counters.in_doubt = 3;
    let (code, _, body) = get(addr, "/readyz").await;
    assert!(code == 503 && body.contains("3 partitions are in doubt"), "{body}");
    state.shards[0].lock().unwrap().counters.in_doubt = 0;
    set(&state.stopping, true);
    let (code, _, body) = get(addr, "/readyz").await;
    assert!(code == 503 && body.contains("stopping"), "{body}");
    set(&state.broken, true);
    assert_eq!(get(addr, "/livez").await.0, 503);
    server.stop().await;
}

/// Goal: status and metrics are what they say they are; other paths and methods are refused with a
/// hint.
#[tokio::test]
async fn status_and_metrics_are_served() {
    let Fixture { server, _dir, .. } = start().await;
    let addr = server.local_addr();
    let (code, _, body) = get(addr, "/v1/status").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (code, &status["node"], &status["run"]),
        (200, &json!(7), &json!("0000000000000abc"))
    );
    assert_eq!(status["peers"], json!([{ "node": 8, "connected": false, "rtt_us": 0 }]));
    let (code, head, body) = get(addr, "/metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(body.contains("holm_node_ready 0\n") && body.ends_with("# EOF\n"));
    let (code, _, body) = get(addr, "/").await;
    assert!(code == 404 && body.contains("/readyz"), "{body}");
    let post = b"POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert!(talk(addr, post).await.starts_with("HTTP/1.1 405"));
    server.stop().await;
}

/// Goal: nonsense ends its own connection and nothing else. Method: bytes that are no HTTP, a head
/// that is too long, a request cut short.
#[tokio::test]
async fn nonsense_is_survived() {
    let Fixture { server, _dir, .. } = start().await;
    let addr = server.local_addr();
    assert!(talk(addr, &[0, 159, 146, 150, 13, 10, 13, 10]).await.starts_with("HTTP/1.1 400"));
    let long = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(1 << 16).as_str());
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may answer and close before it has read everything, or serve it.
    let _ = stream.write_all(long.as_bytes()).await;
    drop(stream);
    let mut cut = TcpStream::connect(addr).await.unwrap();
    cut.write_all(b"GET /livez HTT").await.unwrap();
    drop(cut);
    assert_eq!(get(addr, "/livez").await.0, 200);
    server.stop().await;
}

/// A server with one place, so short of patience that a test can wait for it.
async fn one_place() -> (SocketAddr, tokio::task::JoinHandle<std::io::Result<()>>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let patience = Patience { request: Duration::from_millis(300), rest: DEADLINE };
    let listener = Bounded::new(tcp, 1, patience);
    let routes = Router::new().route("/livez", axum::routing::get(|| async { "yes" }));
    (addr, tokio::spawn(async move { axum::serve(listener, routes).await }))
}

/// Goal: a request that comes byte by byte holds its place no longer than one that does not come.
/// The story: each byte started the wait anew, so 64 connections that sent one a minute kept every
/// probe and scraper out. Method: one place; a byte every 50 ms until the connection is closed, first
/// on a new connection, then on one that has been answered before.
#[tokio::test]
async fn slow_requests_make_room() {
    let (addr, server) = one_place().await;
    for answered in [false, true] {
        let mut slow = TcpStream::connect(addr).await.unwrap();
        if answered {
            slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 512];
            assert!(slow.read(&mut answer).await.unwrap() > 0);
        }
        let (mut reads, mut writes) = slow.into_split();
        let trickle = tokio::spawn(async move {
            let _ = writes.write_all(b"GET /livez HTTP/1.1\r\n").await;
            while writes.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, reads.read_to_end(&mut rest)).await.expect("never closed");
        assert!(!rest.starts_with(b"HTTP/1.1 200") || answered);
        assert_eq!(get(addr, "/livez").await.0, 200);
        trickle.abort();
    }
    server.abort();
}

/// Goal: connections are bounded, and silent ones make room. Method: one place, held by a
/// connection that says nothing; the next one is served after the first was given up.
#[tokio::test]
async fn silent_connections_make_room() {
    let (addr, server) = one_place().await;
    let mut silent = TcpStream::connect(addr).await.unwrap();
    silent.write_all(b"GET").await.unwrap();
    assert_eq!(get(addr, "/livez").await.0, 200);
    let mut rest = Vec::new();
    let closed = timeout(DEADLINE, silent.read_to_end(&mut rest)).await.unwrap();
    assert!(closed.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"));
    server.abort();
}

/// Goal: clear text never leaves the machine, and a port in use is a clear error.
#[tokio::test]
async fn only_loopback_is_listened_on() {
    let Fixture { state, server, _dir } = start().await;
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7480"] {
        let metrics = exposition(&state, &Arc::default());
        let refused = HttpServer::start(addr.parse().unwrap(), state.clone(), metrics).await;
        assert!(matches!(refused, Err(HttpError::NotLoopback { .. })), "{addr}");
    }
    let metrics = exposition(&state, &Arc::default());
    let refused = HttpServer::start(server.local_addr(), state, metrics).await;
    assert!(refused.unwrap_err().to_string().contains("cannot listen"));
    let addr = server.local_addr();
    server.stop().await;
    assert!(TcpStream::connect(addr).await.is_err());
}
