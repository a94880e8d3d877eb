//! Health, metrics and status over HTTP, for probes, scrapers and people with `curl`.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 as long as the node's threads run. Says nothing of other nodes: a node without a quorum must not be restarted for it. 503 if a thread of the node could not go on, until the process has ended; a thread that panics ends it at once |
//! | `/readyz` | 200, or 503 with the reasons: no layout, amnesia, partitions in doubt or behind, a full disk, stopping |
//! | `/metrics` | OpenMetrics text |
//! | `/v1/status` | the node's own state, as JSON |
//! | `/health/consistency` | 200, or 503 if lag, verification, hints or violations exceed `[health]`; JSON (`consistency`) |
//! | `/v1/fingerprint` | whether all regions hold the same, as JSON (`fingerprint`) |
//!
//! Clear text, and so on loopback only: whoever wants it elsewhere puts a proxy before it that
//! knows whom to let in. Nothing here changes anything.
//!
//! It runs on the network thread. That is what makes `/livez` honest, and why connections are few,
//! bounded, and closed when they fall silent or send too slowly (`listener`).

mod consistency;
mod fingerprint;
mod listener;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use holm_protocol::admin::NodeStatus;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::control::NodeState;
use crate::metrics::Exposition;
use listener::{Bounded, Patience};

/// Connections open at a time; more wait. A scraper, a few probes and a person need a tenth.
const CONNECTIONS_MAX: usize = 64;

/// When connections are closed: a request is one packet, so ten seconds are more than it needs; the
/// rest is above the usual interval of scrapers, which keep their connections.
const PATIENCE: Patience =
    Patience { request: Duration::from_secs(10), rest: Duration::from_secs(75) };

/// How long answers may take to leave when the node stops.
const GRACE: Duration = Duration::from_secs(1);

/// The media type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no HTTP. Nothing listens then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Clear text would leave the machine.
    #[error(
        "listen.http is {addr}: health and metrics are clear text and stay on loopback; use \
         127.0.0.1:{port} or [::1]:{port}, and a proxy to reach them from elsewhere",
        port = addr.port()
    )]
    NotLoopback {
        /// The address in the configuration.
        addr: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on listen.http = {addr}: {source}; is another holmd running?")]
    Bind {
        /// The address in the configuration.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The running server. Dropping it stops it at once; see [`HttpServer::stop`].
pub struct HttpServer {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl HttpServer {
    /// Listens and serves. Must be called on the network thread's runtime.
    ///
    /// # Errors
    /// [`HttpError`]; nothing runs then.
    pub async fn start(
        addr: SocketAddr,
        state: Arc<NodeState>,
        metrics: Exposition,
    ) -> Result<HttpServer, HttpError> {
        if !addr.ip().is_loopback() {
            return Err(HttpError::NotLoopback { addr });
        }
        let failed = |source| HttpError::Bind { addr, source };
        let tcp = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = tcp.local_addr().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let routes = routes(Arc::new(Served { state, metrics }));
        let listener = Bounded::new(tcp, CONNECTIONS_MAX, PATIENCE);
        let task = tokio::spawn(async move {
            let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
                // A dropped sender means the same.
                let _ = stopped.await;
            });
            if let Err(error) = server.await {
                tracing::error!(%error, "health and metrics are not served any more");
            }
        });
        Ok(HttpServer { addr, stop: Some(stop), task })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening and lets answers under way leave, within a second.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // The server may have ended by itself.
            let _ = stop.send(());
        }
        if timeout(GRACE, &mut self.task).await.is_err() {
            tracing::debug!("HTTP connections cut short");
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the answers are made of.
#[derive(Debug)]
struct Served {
    state: Arc<NodeState>,
    metrics: Exposition,
}

fn routes(served: Arc<Served>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/health/consistency", get(consistency::answer))
        .route("/v1/fingerprint", get(fingerprint::answer))
        .fallback(unknown)
        .with_state(served)
}

async fn livez(State(served): State<Arc<Served>>) -> (StatusCode, Json<Value>) {
    if served.state.broken.load(Ordering::Acquire) {
        let why = "a thread of the node cannot go on; see its log";
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "live": false, "reason": why })));
    }
    (StatusCode::OK, Json(json!({ "live": true })))
}

async fn readyz(State(served): State<Arc<Served>>) -> (StatusCode, Json<Value>) {
    let reasons = served.state.reasons();
    let ready = reasons.is_empty();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": ready, "reasons": reasons })))
}

async fn metrics(State(served): State<Arc<Served>>) -> Response {
    // Reads files and asks RocksDB, which the network thread does not wait for.
    match tokio::task::spawn_blocking(move || served.metrics.text()).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(for_scripts(&served.state.status(), &served.state.reasons()))
}

/// The state as JSON. The run is a string: JSON's readers round numbers beyond 2^53.
fn for_scripts(status: &NodeStatus, reasons: &[String]) -> Value {
    let peer = |peer: &holm_protocol::admin::PeerStatus| json!({ "node": peer.node.0, "connected": peer.connected, "rtt_us": peer.rtt_us });
    json!({
        "node": status.node.0,
        "run": status.run.to_string(),
        "version": status.version,
        "uptime_s": status.uptime_s,
        "layout_version": status.layout_version,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "amnesia": status.amnesia,
        "in_flight": status.in_flight,
        "partitions": status.partitions,
        "peers": status.peers.iter().map(peer).collect::<Vec<Value>>(),
    })
}

async fn unknown() -> (StatusCode, Json<Value>) {
    let error = "no such path; there are /livez, /readyz, /metrics, /health/consistency, /v1/status \
         and /v1/fingerprint";
    (StatusCode::NOT_FOUND, Json(json!({ "error": error })))
}
