//! Incoming connections: from the first packet to knowing who it is.
//!
//! Connections and handshakes are counted and bounded. While many handshakes are open, an address
//! must first prove that it receives what is sent to it, so that spoofed packets cannot take the
//! places. The protocol (ALPN) and the certificate must fit: a client speaks the clients' protocol,
//! a node the nodes'. Whoever stays silent is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holm_protocol::frame::{ALPN_CLIENT, ALPN_PEER};
use holm_protocol::limits::NODES_MAX;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::tls::identity::PeerIdentity;
use super::{Shared, clients, close, peers};

/// Counts something for as long as it lives.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    /// Takes a place if there are fewer than `max` taken.
    pub(super) fn take(taken: &'a AtomicUsize, max: usize) -> Option<Place<'a>> {
        let more = |count: usize| (count < max).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the endpoint is closed or the node stops.
pub(super) async fn accept(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let incoming = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            incoming = shared.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let handshakes = shared.handshakes.load(Ordering::Relaxed);
        let limits = &shared.limits;
        if handshakes >= limits.handshakes_max {
            shared.counters.refused_handshakes.increment();
            incoming.refuse();
        } else if shared.connections.load(Ordering::Relaxed) >= places(&shared) {
            shared.counters.refused_connections.increment();
            incoming.refuse();
        } else if handshakes > limits.handshakes_max / 2 && incoming.may_retry() {
            // Fails only if the address is validated already, which `may_retry` has denied.
            let _ = incoming.retry();
        } else {
            tokio::spawn(connection(shared.clone(), incoming));
        }
    }
}

/// Places for connections: clients can never take those of nodes, of which there are at most
/// [`NODES_MAX`].
fn places(shared: &Shared) -> usize {
    shared.limits.connections_max + NODES_MAX
}

async fn connection(shared: Arc<Shared>, incoming: Incoming) {
    let (Some(handshake), Some(_place)) = (
        Place::take(&shared.handshakes, shared.limits.handshakes_max),
        Place::take(&shared.connections, places(&shared)),
    ) else {
        shared.counters.refused_connections.increment();
        return incoming.refuse();
    };
    let remote = incoming.remote_address();
    let connection = match timeout(shared.net.handshake_timeout, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            shared.counters.refused_tls.increment();
            tracing::info!(%remote, %error, "connection refused in its TLS handshake");
            return;
        }
        Err(_) => {
            shared.counters.refused_slow_tls.increment();
            tracing::info!(%remote, "connection refused: TLS handshake too slow");
            return;
        }
    };
    drop(handshake);
    match (alpn(&connection).as_deref(), identity(&connection)) {
        (Some(ALPN_CLIENT), Ok(PeerIdentity::Client { name, roles })) => {
            match Place::take(&shared.clients, shared.limits.connections_max) {
                Some(place) => {
                    shared.counters.clients_accepted.increment();
                    clients::serve(&shared, connection, name.into(), roles).await;
                    drop(place);
                    shared.client_left.notify_one();
                }
                None => {
                    shared.counters.refused_connections.increment();
                    connection.close(close::OVERLOADED, b"too many clients; try another node");
                }
            }
        }
        (Some(ALPN_PEER), Ok(PeerIdentity::Node(node))) => {
            peers::run::accepted(&shared, connection, node).await;
        }
        (alpn, identity) => {
            let alpn = String::from_utf8_lossy(alpn.unwrap_or_default()).into_owned();
            let why = match identity {
                Ok(identity) => format!("a certificate of {identity} does not fit protocol {alpn}"),
                Err(why) => why,
            };
            shared.counters.refused_certificate.increment();
            tracing::info!(%remote, why, "connection refused by its certificate");
            connection.close(close::CERTIFICATE, why.as_bytes());
        }
    }
}

/// The application protocol that was agreed on.
fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Whose certificate the other side has shown.
pub(super) fn identity(connection: &Connection) -> Result<PeerIdentity, String> {
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    let leaf = chain.as_deref().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| "no certificate".to_owned())?;
    PeerIdentity::from_certificate(leaf).map_err(|error| error.to_string())
}
