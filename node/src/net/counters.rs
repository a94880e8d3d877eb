//! What the network has done, as counters: every refusal and loss is one of them.
//!
//! Relaxed atomics: they are read for metrics and tests, never to decide.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// All counters of the network, shared by its parts.
        #[derive(Debug, Default)]
        pub struct NetCounters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl NetCounters {
            /// Name, meaning and value of each, for metrics.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name.get())),+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted from clients.
    clients_accepted,
    /// Connections accepted from or made to nodes.
    peers_connected,
    /// Connections to nodes that ended.
    peers_disconnected,
    /// Attempts to reach a node.
    dials,
    /// Attempts to reach a node that failed.
    dials_failed,
    /// Frames to other regions that were compressed.
    packed_frames,
    /// Bytes of these before.
    packed_bytes_before,
    /// Bytes of these on their way.
    packed_bytes_after,
    /// Times that the reconnect budget made an attempt wait.
    dials_delayed,
    /// Connections refused because there were too many.
    refused_connections,
    /// Connections refused because too many were in their handshake.
    refused_handshakes,
    /// Connections whose TLS handshake failed.
    refused_tls,
    /// Connections whose TLS handshake took too long.
    refused_slow_tls,
    /// Connections whose certificate does not fit their protocol, or names nobody.
    refused_certificate,
    /// Lanes without a hello in time.
    refused_silent,
    /// Lanes whose hello was refused.
    refused_hello,
    /// Connections between nodes given up for a newer one, or refused for an older one.
    peers_replaced,
    /// Frames received.
    frames_received,
    /// Lanes closed because their bytes are no frames.
    lanes_malformed,
    /// Requests answered `Overloaded` at the connection.
    requests_overloaded,
    /// Requests of clients and nodes answered `Overloaded` at a full inbox.
    inbox_refused,
    /// Frames of nodes that are no messages, or metadata that is refused.
    peer_frames_malformed,
    /// Client lanes closed because answers were not taken, or a frame was not finished.
    clients_stalled,
    /// Answers that had nowhere to go: the client was gone or did not read.
    replies_dropped,
    /// Messages not sent to a node because there is no connection.
    peer_frames_unconnected,
    /// Messages not sent to a node because its queue is full.
    peer_frames_full,
    /// Membership datagrams sent to nodes.
    datagrams_sent,
    /// Membership datagrams received from nodes.
    datagrams_received,
    /// Membership datagrams not sent, for want of a connection or of room on it.
    datagrams_unsent,
    /// Membership datagrams of nodes dropped because too many waited.
    datagrams_dropped,
    /// UDP datagrams delayed by a development rule.
    dev_delayed,
    /// UDP datagrams dropped by a development rule.
    dev_cut,
    /// UDP datagrams dropped because the development queue was full.
    dev_overflowed,
}
