//! The nodes and strangers of a simulated network, and waiting on its clock.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use holm_protocol::frame::ALPN_PEER;
use holm_protocol::handshake::Lane;
use holm_protocol::ids::NodeId;
use holm_protocol::message::kind::PEER_FIRST;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::super::Network;
use super::super::super::chance::Chance;
use super::super::super::endpoint::Outside;
use super::super::super::handler::Handler;
use super::super::super::outbox::NotSent;
use super::super::super::tls::TlsMaterial;
use super::super::support::{Event, Foreign, Pki, Recorder, TestNode, VALID, frame, parts};
use super::Ca;
use super::network::{Link, SimNet};
use crate::config::Config;
use crate::membership::{Members, Wall};

/// Grain of looking for what nobody announces.
const LOOK: Duration = Duration::from_millis(10);

/// The wall clock when a simulation starts: some day in 2023, microseconds since 1970.
const WALL_US: u64 = 1_700_000_000_000_000;

/// Nothing that is not cut, and is bounded by nothing else, takes longer than this.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A simulated network and its seed.
pub(super) struct Sim {
    pub(super) net: SimNet,
    pub(super) seed: u64,
    ca: Rc<Ca>,
    chance: RefCell<StdRng>,
    started: Instant,
    strangers: Cell<u8>,
    /// By how much the clock of the node that is started next is ahead.
    pub(super) clock_ahead_us: Cell<u64>,
}

/// Waits for a future, on the paused clock.
pub(super) async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(done) => done,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Waits until a condition holds; how long it took.
pub(super) async fn until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    let looking = async {
        while !holds() {
            sleep(LOOK).await;
        }
    };
    within(what, limit, looking).await;
    start.elapsed()
}

impl Sim {
    pub(super) fn new(ca: Rc<Ca>, seed: u64) -> Sim {
        let net = SimNet::new(seed);
        // Another stream of numbers than the network's.
        let chance = RefCell::new(StdRng::seed_from_u64(!seed));
        let (strangers, clock_ahead_us) = (Cell::new(0), Cell::new(0));
        Sim { net, seed, ca, chance, started: Instant::now(), strangers, clock_ahead_us }
    }

    /// Simulated time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn pki(&self) -> &Pki {
        &self.ca.pki
    }

    /// A random number of the scenario's.
    pub(super) fn pick<T: SampleUniform>(&self, range: impl SampleRange<T>) -> T {
        self.chance.borrow_mut().random_range(range)
    }

    pub(super) fn flip(&self) -> bool {
        self.chance.borrow_mut().random()
    }

    pub(super) fn pick_ms(&self, range: impl SampleRange<u64>) -> Duration {
        Duration::from_millis(self.pick(range))
    }

    /// A path through a bad part of the internet: up to 300 ms for the round trip, up to 10 % of
    /// packets lost, doubled, held back.
    pub(super) fn bad_link(&self) -> Link {
        let delay = self.pick_ms(1..=150);
        Link {
            delay,
            jitter: delay.mul_f64(self.pick(0.0..0.5)),
            loss: self.pick(0.0..0.1),
            doubled: self.pick(0.0..0.1),
            held_back: self.pick(0.0..0.1),
            ..Link::GOOD
        }
    }

    /// Where a node listens.
    pub(super) fn addr(id: u64) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, id as u8], 7400))
    }

    /// Settings as in production, but for limits that a test wants to meet.
    pub(super) fn config(&self, id: u64) -> Config {
        let mut config = Config::test_min(NodeId(id), self.pki().dir.path());
        config.listen.quic = Sim::addr(id);
        config.tls = self.ca.node(id);
        config.limits.in_flight_per_connection_max = 4096;
        config.limits.peer_queue_bytes_max = 1 << 20;
        config.limits.connections_max = 64;
        config.limits.handshakes_max = 32;
        config.dev.enabled = false;
        config.net.mtu_max = 6500;
        config.net.receive_window_bytes = 20 << 20;
        config.net.client_window_bytes = 2 << 20;
        config.net.idle_timeout = Duration::from_secs(10);
        config.net.keepalive = Duration::from_secs(2);
        config.net.handshake_timeout = Duration::from_secs(10);
        config.net.stall_timeout = Duration::from_secs(20);
        config.net.reconnect_min = Duration::from_millis(50);
        config.net.reconnect_max = Duration::from_secs(2);
        // A black-out of some minutes does not count as long.
        config.net.reconnect_away_max = Duration::from_secs(2);
        config.membership.probe_interval = Duration::from_millis(1500);
        config.membership.probe_timeout = Duration::from_millis(500);
        config.membership.suspicion = Duration::from_millis(4500);
        config.membership.forget = Duration::from_secs(86_400);
        config
    }

    /// Starts a node that records what it sees.
    pub(super) fn node(&self, id: u64, run: u64) -> TestNode {
        self.start(&self.config(id), run)
    }

    pub(super) fn start(&self, config: &Config, run: u64) -> TestNode {
        let (handler, events) = Recorder::new(true);
        self.start_with(config, run, handler, events)
    }

    /// Starts a node in place of one at the same address, which goes without a goodbye.
    pub(super) fn start_with(
        &self,
        config: &Config,
        run: u64,
        handler: Arc<dyn Handler>,
        events: mpsc::UnboundedReceiver<Event>,
    ) -> TestNode {
        let socket = self.net.bind(config.listen.quic);
        let chance = Arc::new(Chance::seeded(self.pick(0..u64::MAX)));
        let tls = TlsMaterial::load(&config.tls, config.node.id).unwrap();
        let (mut parts, local) = parts(config, run, handler);
        let ahead = self.clock_ahead_us.take();
        let wall = Wall::Simulated(WALL_US + self.elapsed().as_micros() as u64 + ahead);
        let members = Members::with_wall(local.node, run, &config.membership, (run, wall));
        let members = Arc::new(members);
        parts.members = members.clone();
        let pool = parts.pool.clone();
        let network = Network::start_on(Outside { socket, chance }, config, &tls, parts).unwrap();
        TestNode { network, pool, addr: config.listen.quic, local, members, events }
    }

    /// An endpoint that only dials, at an address of its own.
    pub(super) fn endpoint(&self) -> Endpoint {
        let host = self.strangers.get();
        self.strangers.set(host + 1);
        let socket = self.net.bind(SocketAddr::from(([10, 0, 1, host], 7400)));
        let mut config = EndpointConfig::default();
        config.rng_seed(Chance::seeded(self.pick(0..u64::MAX)).quic_seed());
        let runtime = Arc::new(TokioRuntime);
        Endpoint::new_with_abstract_socket(config, None, socket, runtime).unwrap()
    }

    /// Connects to node 1 with this TLS identity until it succeeds.
    pub(super) async fn connect(&self, node: &TestNode, tls: rustls::ClientConfig) -> Foreign {
        loop {
            let connected = Foreign::connect_from(self.endpoint(), node, tls.clone()).await;
            if let Some(connected) = connected {
                return connected;
            }
        }
    }

    /// A stranger with the certificate of a node.
    pub(super) async fn peer(&self, node: &TestNode, id: u64) -> Foreign {
        let identity = self.pki().node(id, VALID);
        self.connect(node, self.pki().tls(Some(&identity), ALPN_PEER)).await
    }

    /// Nodes 1 and 2, connected by exactly one connection.
    pub(super) async fn pair(&self) -> (TestNode, TestNode) {
        let (one, two) = (self.node(1, 11), self.node(2, 22));
        know(&one, &[2]);
        know(&two, &[1]);
        settled(&[&one, &two]).await;
        let (mut one, mut two) = (one, two);
        one.forget();
        two.forget();
        (one, two)
    }
}

/// Tells a node whom to be connected with.
pub(super) fn know(node: &TestNode, others: &[u64]) {
    node.pool.set_peers(others.iter().map(|id| (NodeId(*id), Sim::addr(*id))));
}

/// Whether each of the nodes is connected with each other one.
pub(super) fn are_up(nodes: &[&TestNode]) -> bool {
    let reaches = |node: &TestNode, other: &TestNode| {
        let id = other.local.node;
        node.local.node == id || node.pool.is_up(id)
    };
    nodes.iter().all(|node| nodes.iter().all(|other| reaches(node, other)))
}

/// Waits until each pair of nodes has one connection and keeps it. A connection that lost against
/// another is remembered by QUIC for a while, so "one" is what is left when nothing changes.
pub(super) async fn settled(nodes: &[&TestNode]) {
    let open = |node: &TestNode| node.network.open_connections();
    let settled = || are_up(nodes) && nodes.iter().all(|node| open(node) == nodes.len() - 1);
    until("one connection for each pair", PATIENCE, settled).await;
}

impl TestNode {
    /// What the handler sees from now on; this node sees no more of it.
    pub(super) fn take_events(&mut self) -> mpsc::UnboundedReceiver<Event> {
        self.forget();
        std::mem::replace(&mut self.events, mpsc::unbounded_channel().1)
    }

    /// Drops what the handler saw so far.
    pub(super) fn forget(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    /// What the handler saw so far.
    pub(super) fn seen(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Sends a numbered frame whose body follows from its number, when there is room.
    pub(super) async fn send_numbered(&self, to: u64, lane: Lane, id: u64, len: usize) {
        let bytes = frame(PEER_FIRST, id, &body(id, len));
        while let Err(not_sent) = self.pool.send(NodeId(to), lane, &bytes) {
            assert_eq!(not_sent, NotSent::Full, "node {} to {to}", self.local.node.0);
            sleep(LOOK).await;
        }
    }
}

/// The body of a numbered frame.
pub(super) fn body(id: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::Rng::fill_bytes(&mut StdRng::seed_from_u64(id), &mut bytes);
    bytes
}

/// Checks that frames come once, in the order of their lane, intact.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    next: std::collections::BTreeMap<(NodeId, bool), u64>,
    pub(super) count: u64,
}

impl Arrivals {
    /// Takes in what a handler saw; anything but frames is a failure.
    pub(super) fn take(&mut self, event: Event) {
        let Event::Peer(from, lane, frames) = event else { panic!("not a frame: {event:?}") };
        for frame in frames {
            let next = self.next.entry((from, lane == Lane::Bulk)).or_insert(1);
            assert_eq!(frame.id, *next, "the next frame of {from:?} on {lane:?}");
            assert!(
                frame.body[..] == body(frame.id, frame.body.len()),
                "frame {next} is not intact"
            );
            *next += 1;
            self.count += 1;
        }
    }
}

/// Numbers that came, and whether a number may be missing before the next: after a reconnect.
#[derive(Default)]
pub(super) struct Rising {
    last: u64,
    pub(super) up: bool,
    gap: bool,
    pub(super) count: u64,
}

impl Rising {
    /// Takes in what a handler saw of one other node.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Up(..) => {
                assert!(!std::mem::replace(&mut self.up, true), "up twice");
                self.gap = true;
            }
            Event::Down(_) => assert!(std::mem::take(&mut self.up), "down twice"),
            Event::Peer(_, _, frames) => {
                assert!(self.up, "frames while down");
                for frame in frames {
                    let next = self.last + 1;
                    assert!(
                        frame.id == next || (frame.id > next && self.gap),
                        "{} after {}",
                        frame.id,
                        self.last
                    );
                    assert!(frame.body[..] == body(frame.id, frame.body.len()));
                    (self.last, self.gap) = (frame.id, false);
                    self.count += 1;
                }
            }
            Event::Client(..) => panic!("there are no clients"),
        }
    }
}
