//! A network of UDP sockets in memory, on tokio's paused clock.
//!
//! Every datagram meets the rules of its link, one direction at a time: cut, too long, lost,
//! delayed, held back (and so overtaken), doubled. One seeded generator decides, and what happened
//! is kept as a trace: when, from where to where, how long, what became of it. Contents are not part
//! of the trace, because keys are the system's secrets; sizes do not depend on them.
//!
//! Packets of one link keep their order unless they are held back: jitter alone overtakes nobody,
//! as on a real path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// Datagrams that one offloaded send may hold, as on Linux with packets of this network's size.
const SEGMENTS_MAX: usize = 10;

/// What a socket's receive buffer holds, bytes; beyond it datagrams are dropped, as a kernel does.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// How long a socket that would block does.
const BUSY_FOR: Duration = Duration::from_millis(1);

/// The rules of one direction between two sockets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Link {
    /// One way, at least.
    pub(in super::super) delay: Duration,
    /// Up to so much more.
    pub(in super::super) jitter: Duration,
    /// Fractions of datagrams.
    pub(in super::super) loss: f64,
    pub(in super::super) doubled: f64,
    /// Held back, and so overtaken by those after.
    pub(in super::super) held_back: f64,
    /// Nothing passes.
    pub(in super::super) cut: bool,
    /// Longer payloads vanish, bytes.
    pub(in super::super) mtu: usize,
}

impl Link {
    /// A network cable.
    pub(in super::super) const GOOD: Link = Link {
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
        loss: 0.0,
        doubled: 0.0,
        held_back: 0.0,
        cut: false,
        mtu: 65_527,
    };
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    Doubled,
    HeldBack,
    Lost,
    Cut,
    TooLong,
    /// Nobody is bound to the address.
    Unreachable,
}

/// One datagram of the trace, at the moment it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) at_us: u64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) len: usize,
    pub(super) fate: Fate,
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
}

struct State {
    chance: StdRng,
    /// Fraction of sends that a socket refuses for a moment.
    busy: f64,
    links: BTreeMap<(SocketAddr, SocketAddr), Link>,
    usual: Link,
    sockets: BTreeMap<SocketAddr, Weak<SimSocket>>,
    /// By when it is due, then in the order of sending.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    under_way: BTreeMap<u64, Datagram>,
    last: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    sequence: u64,
    trace: Vec<Sent>,
}

struct Inner {
    state: Mutex<State>,
    earlier: Notify,
    start: Instant,
}

/// See the module's head. A handle that can be cloned.
#[derive(Clone)]
pub(in super::super) struct SimNet {
    inner: Arc<Inner>,
}

impl SimNet {
    /// A network without sockets, on which all links are good. Must be made inside the runtime, whose
    /// task delivers.
    pub(in super::super) fn new(seed: u64) -> SimNet {
        let state = State {
            chance: StdRng::seed_from_u64(seed),
            busy: 0.0,
            links: BTreeMap::new(),
            usual: Link::GOOD,
            sockets: BTreeMap::new(),
            due: BinaryHeap::new(),
            under_way: BTreeMap::new(),
            last: BTreeMap::new(),
            sequence: 0,
            trace: Vec::new(),
        };
        let start = Instant::now();
        let inner = Inner { state: Mutex::new(state), earlier: Notify::new(), start };
        let net = SimNet { inner: Arc::new(inner) };
        tokio::spawn(deliver(net.clone()));
        net
    }

    /// A socket at this address. One that was there before hears and says nothing any more, like
    /// that of a process that was killed.
    pub(in super::super) fn bind(&self, addr: SocketAddr) -> Arc<SimSocket> {
        let socket = Arc::new(SimSocket {
            net: self.clone(),
            addr,
            dead: AtomicBool::new(false),
            inbox: Mutex::default(),
            busy_until: Mutex::new(self.inner.start),
        });
        self.unbind(addr);
        self.lock().sockets.insert(addr, Arc::downgrade(&socket));
        socket
    }

    /// Takes the socket at this address away.
    pub(in super::super) fn unbind(&self, addr: SocketAddr) {
        let old = self.lock().sockets.remove(&addr);
        if let Some(old) = old.and_then(|old| old.upgrade()) {
            old.dead.store(true, Ordering::Relaxed);
        }
    }

    /// The rules of every link without its own.
    pub(in super::super) fn set_usual(&self, link: Link) {
        self.lock().usual = link;
    }

    /// Changes the rules of one direction.
    pub(in super::super) fn change(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        change: impl FnOnce(&mut Link),
    ) {
        let mut state = self.lock();
        let usual = state.usual;
        change(state.links.entry((from, to)).or_insert(usual));
    }

    /// Changes the rules of both directions.
    pub(in super::super) fn change_both(
        &self,
        one: SocketAddr,
        two: SocketAddr,
        change: impl Fn(&mut Link),
    ) {
        self.change(one, two, &change);
        self.change(two, one, &change);
    }

    /// Makes sockets refuse this fraction of sends for a moment.
    pub(in super::super) fn set_busy(&self, fraction: f64) {
        self.lock().busy = fraction;
    }

    /// Everything sent so far.
    pub(super) fn trace(&self) -> Vec<Sent> {
        self.lock().trace.clone()
    }

    /// How many datagrams had this fate.
    pub(in super::super) fn count(&self, fate: Fate) -> usize {
        self.lock().trace.iter().filter(|sent| sent.fate == fate).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    fn send(&self, datagram: Datagram) {
        let now = Instant::now();
        let mut state = self.lock();
        let ends = (datagram.from, datagram.to);
        let link = state.links.get(&ends).copied().unwrap_or(state.usual);
        let fate = state.fate(&link, &datagram);
        state.trace.push(Sent {
            at_us: (now - self.inner.start).as_micros() as u64,
            from: datagram.from,
            to: datagram.to,
            len: datagram.contents.len(),
            fate,
        });
        if matches!(fate, Fate::Lost | Fate::Cut | Fate::TooLong | Fate::Unreachable) {
            return;
        }
        let mut at = now + state.between(link.delay, link.delay + link.jitter);
        if fate == Fate::HeldBack {
            // By more than the path takes: what comes after is there first.
            at += state.between(link.delay / 4, link.delay * 2 + Duration::from_millis(5));
        } else {
            let last = state.last.entry(ends).or_insert(at);
            at = at.max(*last);
            *last = at;
        }
        if fate == Fate::Doubled {
            let Datagram { from, to, ecn, ref contents } = datagram;
            let again = Datagram { from, to, ecn, contents: contents.clone() };
            let later = at + state.between(Duration::ZERO, link.delay + Duration::from_millis(5));
            state.keep(again, later);
        }
        state.keep(datagram, at);
        drop(state);
        self.inner.earlier.notify_one();
    }
}

impl State {
    fn fate(&mut self, link: &Link, datagram: &Datagram) -> Fate {
        // All dice are thrown for each datagram, so that one rule's does not change the others'.
        let [lost, doubled, held_back] = [(); 3].map(|()| self.chance.random::<f64>());
        if self.sockets.get(&datagram.to).is_none_or(|socket| socket.strong_count() == 0) {
            Fate::Unreachable
        } else if link.cut {
            Fate::Cut
        } else if datagram.contents.len() > link.mtu {
            Fate::TooLong
        } else if lost < link.loss {
            Fate::Lost
        } else if doubled < link.doubled {
            Fate::Doubled
        } else if held_back < link.held_back {
            Fate::HeldBack
        } else {
            Fate::Delivered
        }
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        from + (to - from).mul_f64(self.chance.random::<f64>())
    }

    fn keep(&mut self, datagram: Datagram, at: Instant) {
        self.sequence += 1;
        self.due.push(Reverse((at, self.sequence)));
        self.under_way.insert(self.sequence, datagram);
    }

    /// The first datagram if it is due, else when it will be.
    fn take(
        &mut self,
        now: Instant,
    ) -> Result<(Datagram, Option<Arc<SimSocket>>), Option<Instant>> {
        match self.due.peek() {
            Some(Reverse((at, _))) if *at <= now => {}
            first => return Err(first.map(|Reverse((at, _))| *at)),
        }
        let Reverse((_, sequence)) = self.due.pop().unwrap();
        let datagram = self.under_way.remove(&sequence).unwrap();
        // It is lost if the link was cut, or its socket went, meanwhile.
        let cut = self.links.get(&(datagram.from, datagram.to)).is_some_and(|link| link.cut);
        let socket = self.sockets.get(&datagram.to).filter(|_| !cut);
        Ok((datagram, socket.and_then(Weak::upgrade)))
    }
}

async fn deliver(net: SimNet) {
    loop {
        let taken = net.lock().take(Instant::now());
        match taken {
            Ok((datagram, Some(socket))) => socket.receive(datagram),
            Ok((_, None)) => {}
            Err(None) => net.inner.earlier.notified().await,
            Err(Some(at)) => {
                tokio::select! {
                    biased;
                    () = sleep_until(at) => {}
                    () = net.inner.earlier.notified() => {}
                }
            }
        }
    }
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Datagram>,
    bytes: usize,
    reader: Option<Waker>,
}

/// A socket of a [`SimNet`].
pub(in super::super) struct SimSocket {
    net: SimNet,
    addr: SocketAddr,
    dead: AtomicBool,
    inbox: Mutex<Inbox>,
    busy_until: Mutex<Instant>,
}

impl SimSocket {
    fn receive(&self, datagram: Datagram) {
        let mut inbox = self.inbox.lock().unwrap();
        if inbox.bytes + datagram.contents.len() <= RECEIVE_BUFFER_BYTES {
            inbox.bytes += datagram.contents.len();
            inbox.waiting.push_back(datagram);
        }
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }

    fn is_busy(&self) -> bool {
        let now = Instant::now();
        let mut until = self.busy_until.lock().unwrap();
        if now < *until {
            return true;
        }
        let mut state = self.net.lock();
        if state.busy > 0.0 && state.chance.random::<f64>() < state.busy {
            *until = now + BUSY_FOR;
            return true;
        }
        false
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({})", self.addr)
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let until = Box::pin(sleep_until(self.net.inner.start));
        Box::pin(Writable { socket: self, until })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.is_busy() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(segment) {
            let (from, to) = (self.addr, transmit.destination);
            self.net.send(Datagram { from, to, ecn: transmit.ecn, contents: contents.to_vec() });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap();
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some(datagram) = inbox.waiting.pop_front() else { break };
            inbox.bytes -= datagram.contents.len();
            // A reader with too small a buffer gets the beginning, as from a kernel.
            let len = datagram.contents.len().min(buffer.len());
            buffer[..len].copy_from_slice(&datagram.contents[..len]);
            let dst_ip = Some(self.addr.ip());
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (datagram.from, len, len);
            (meta.ecn, meta.dst_ip) = (datagram.ecn, dst_ip);
            count += 1;
        }
        if count == 0 {
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Waits until a socket takes packets again.
struct Writable {
    socket: Arc<SimSocket>,
    until: Pin<Box<Sleep>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writable({})", self.socket.addr)
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = *self.socket.busy_until.lock().unwrap();
        if Instant::now() >= until {
            return Poll::Ready(Ok(()));
        }
        self.until.as_mut().reset(until);
        self.until.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { at_us, from, to, len, fate } = self;
        write!(f, "{at_us:>12} us  {from} -> {to}  {len:>5} bytes  {fate:?}")
    }
}
