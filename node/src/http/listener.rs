//! A TCP listener whose connections are bounded in number and in silence.

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

/// See the module's head.
#[derive(Debug)]
pub(super) struct Bounded {
    tcp: TcpListener,
    permits: Arc<Semaphore>,
    silence_max: Duration,
}

impl Bounded {
    pub(super) fn new(tcp: TcpListener, connections_max: usize, silence_max: Duration) -> Bounded {
        Bounded { tcp, permits: Arc::new(Semaphore::new(connections_max)), silence_max }
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
        let silence = Box::pin(sleep(self.silence_max));
        (Connection { stream, silence, silence_max: self.silence_max, _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// One connection; its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            let next = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(next);
            return read;
        }
        self.give_up(cx)
    }
}

impl Connection {
    /// Ends a wait that the other side has let last too long.
    fn give_up<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.give_up(cx),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
