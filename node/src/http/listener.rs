//! A TCP listener whose connections are bounded in number and in patience.
//!
//! Two bounds: how long a connection may rest between an answer and the next request, and how long a
//! request may take to come, from its first byte (or from connecting) until the first byte of its
//! answer leaves. The second does not start again with each byte, or a few connections that send one
//! a second would keep probes and scrapers out for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request to come whole.
    pub(super) request: Duration,
    /// For the next one to begin, and for an answer to be taken.
    pub(super) rest: Duration,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Bounded {
    tcp: TcpListener,
    permits: Arc<Semaphore>,
    patience: Patience,
}

impl Bounded {
    pub(super) fn new(tcp: TcpListener, connections_max: usize, patience: Patience) -> Bounded {
        Bounded { tcp, permits: Arc::new(Semaphore::new(connections_max)), patience }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    /// The next connection, once there is room for it. Those that wait do so in the kernel's queue.
    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; if it were, nothing would be bounded but all be served.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, addr) = Listener::accept(&mut self.tcp).await;
        let limit = Box::pin(sleep(self.patience.request));
        let patience = self.patience;
        (Connection { stream, limit, patience, resting: false, _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// One connection; its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    limit: Pin<Box<Sleep>>,
    patience: Patience,
    /// Whether an answer has left, and no byte of another request has come.
    resting: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            return self.give_up(cx);
        }
        if std::mem::take(&mut self.resting) {
            let whole = Instant::now() + self.patience.request;
            self.limit.as_mut().reset(whole);
        }
        read
    }
}

impl Connection {
    /// Ends a wait that the other side has let last too long.
    fn give_up<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.limit.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_pending() {
            return self.give_up(cx);
        }
        let next = Instant::now() + self.patience.rest;
        self.limit.as_mut().reset(next);
        self.resting = true;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
