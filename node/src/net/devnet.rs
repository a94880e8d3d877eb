//! Development only: delays and cuts at the UDP socket, to play a wide-area network on one machine.
//!
//! Packets to an address with a rule are dropped (cut), or kept for the rule's one-way delay and
//! then sent; others pass straight through. Each node treats what it sends, so rules at both ends
//! make a round trip. Packets to one address keep their order also when its delay shrinks. What is
//! kept is bounded; beyond it packets are dropped and counted, as a router would.
//!
//! Rules change at run time. Delays are as exact as the runtime's timer: a millisecond.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::counters::NetCounters;

/// Most bytes kept for later. 1 Gbit/s with a delay of 300 ms keeps 37 MB.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// What happens to packets towards one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkEffect {
    /// How long each is kept.
    pub delay: Duration,
    /// Whether each is dropped.
    pub cut: bool,
}

/// The rules of a node's socket; a handle that can be cloned and changed from any thread.
#[derive(Debug, Clone, Default)]
pub struct LinkRules {
    rules: Arc<RwLock<BTreeMap<SocketAddr, LinkEffect>>>,
}

impl LinkRules {
    /// Replaces all rules. Packets already kept are still sent at their time, unless their address
    /// is cut then.
    pub fn set(&self, rules: impl IntoIterator<Item = (SocketAddr, LinkEffect)>) {
        let rules = rules.into_iter().map(|(to, effect)| (canonical(to), effect)).collect();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Sets the rule of one address.
    pub fn set_one(&self, to: SocketAddr, effect: LinkEffect) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.insert(canonical(to), effect);
    }

    fn get(&self, to: SocketAddr) -> Option<LinkEffect> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.get(&canonical(to)).copied()
    }
}

/// An IPv4 address looks the same from a dual-stack socket.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// One send call of quinn's, possibly several datagrams (`segment_size`), kept for later.
#[derive(Debug)]
struct Kept {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
    segment_size: Option<usize>,
    src_ip: Option<std::net::IpAddr>,
}

/// A [`Kept`] ordered by when it is due and, at equal times, when it came.
struct Due {
    at: Instant,
    sequence: u64,
    packet: Kept,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Default)]
struct Queue {
    due: BinaryHeap<Reverse<Due>>,
    /// When the last packet to each address is due: none may overtake it.
    last: BTreeMap<SocketAddr, Instant>,
    bytes: usize,
    sequence: u64,
}

impl Queue {
    /// Keeps a packet. `Some(true)` if it is now the first to be sent, `None` if there is no room.
    fn keep(&mut self, packet: Kept, at: Instant) -> Option<bool> {
        if self.bytes + packet.contents.len() > KEPT_BYTES_MAX {
            return None;
        }
        let last = self.last.entry(packet.destination).or_insert(at);
        let at = at.max(*last);
        *last = at;
        self.bytes += packet.contents.len();
        self.sequence += 1;
        self.due.push(Reverse(Due { at, sequence: self.sequence, packet }));
        Some(self.due.peek().is_some_and(|Reverse(first)| first.sequence == self.sequence))
    }

    /// The first packet if it is due, else when it will be.
    fn take(&mut self, now: Instant) -> Result<Kept, Option<Instant>> {
        match self.due.peek() {
            Some(Reverse(first)) if first.at <= now => {}
            first => return Err(first.map(|Reverse(first)| first.at)),
        }
        let Some(Reverse(due)) = self.due.pop() else { return Err(None) };
        self.bytes -= due.packet.contents.len();
        Ok(due.packet)
    }
}

struct Shared {
    inner: Arc<dyn AsyncUdpSocket>,
    rules: LinkRules,
    queue: Mutex<Queue>,
    earlier: Notify,
    counters: Arc<NetCounters>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A UDP socket whose sending obeys [`LinkRules`].
pub struct DevSocket {
    shared: Arc<Shared>,
    sender: tokio::task::AbortHandle,
}

impl DevSocket {
    /// Wraps a socket. Must be called inside a tokio runtime, which will run the sender of delayed
    /// packets for as long as the socket lives.
    #[must_use]
    pub fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        rules: LinkRules,
        counters: Arc<NetCounters>,
    ) -> DevSocket {
        let queue = Mutex::default();
        let shared = Arc::new(Shared { inner, rules, queue, earlier: Notify::new(), counters });
        let sender = tokio::spawn(send_delayed(shared.clone())).abort_handle();
        DevSocket { shared, sender }
    }
}

impl Drop for DevSocket {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl fmt::Debug for DevSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevSocket").finish_non_exhaustive()
    }
}

async fn send_delayed(shared: Arc<Shared>) {
    let mut poller = shared.inner.clone().create_io_poller();
    loop {
        let taken = shared.queue().take(Instant::now());
        match taken {
            Ok(packet) => send_kept(&shared, &mut poller, &packet).await,
            Err(None) => shared.earlier.notified().await,
            Err(Some(at)) => {
                tokio::select! {
                    biased;
                    () = sleep_until(at) => {}
                    () = shared.earlier.notified() => {}
                }
            }
        }
    }
}

async fn send_kept(shared: &Shared, poller: &mut Pin<Box<dyn UdpPoller>>, packet: &Kept) {
    if shared.rules.get(packet.destination).is_some_and(|effect| effect.cut) {
        shared.counters.dev_cut.increment();
        return;
    }
    let transmit = Transmit {
        destination: packet.destination,
        ecn: packet.ecn,
        contents: &packet.contents,
        segment_size: packet.segment_size,
        src_ip: packet.src_ip,
    };
    loop {
        match shared.inner.try_send(&transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = poll_fn(|cx| poller.as_mut().poll_writable(cx)).await;
                if writable.is_err() {
                    return;
                }
            }
            // Any other error is a lost packet, which QUIC repairs.
            _ => return,
        }
    }
}

impl AsyncUdpSocket for DevSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.shared.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let shared = &self.shared;
        let effect = shared.rules.get(transmit.destination).unwrap_or_default();
        if effect.cut {
            shared.counters.dev_cut.increment();
            return Ok(());
        }
        if effect.delay.is_zero() {
            return shared.inner.try_send(transmit);
        }
        let packet = Kept {
            destination: transmit.destination,
            ecn: transmit.ecn,
            contents: transmit.contents.to_vec(),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match shared.queue().keep(packet, Instant::now() + effect.delay) {
            None => shared.counters.dev_overflowed.increment(),
            Some(first) => {
                shared.counters.dev_delayed.increment();
                if first {
                    shared.earlier.notify_one();
                }
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.shared.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.shared.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.shared.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.shared.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(port: u16, byte: u8) -> Kept {
        let destination = SocketAddr::from(([127, 0, 0, 1], port));
        Kept { destination, ecn: None, contents: vec![byte], segment_size: None, src_ip: None }
    }

    /// Goal: order per address survives a shrinking delay; other addresses overtake.
    /// Method: keep packets with decreasing due times, take them all later.
    #[test]
    fn order_is_kept_per_address() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut queue = Queue::default();
        assert_eq!(queue.keep(packet(1, 1), ms(50)), Some(true));
        assert_eq!(queue.keep(packet(1, 2), ms(10)), Some(false));
        assert_eq!(queue.keep(packet(2, 3), ms(20)), Some(true));
        assert_eq!(queue.take(start).unwrap_err(), Some(ms(20)));
        let order: Vec<u8> = (0..3).map(|_| queue.take(ms(60)).unwrap().contents[0]).collect();
        assert_eq!(order, [3, 1, 2]);
        assert_eq!((queue.take(ms(60)).unwrap_err(), queue.bytes), (None, 0));
    }

    /// Goal: what is kept is bounded. Method: one packet more than fits.
    #[test]
    fn the_queue_is_bounded() {
        let mut queue = Queue::default();
        let mut big = packet(1, 1);
        big.contents = vec![0; KEPT_BYTES_MAX];
        assert!(queue.keep(big, Instant::now()).is_some());
        assert_eq!(queue.keep(packet(1, 2), Instant::now()), None);
    }
}
