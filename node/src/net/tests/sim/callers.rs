//! Programs that use the client library, on paths that fail under their calls.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holm_client::error::PutError;
use holm_client::{Bucket, Client, ClientBuilder};
use holm_protocol::admin::PlacementView;
use holm_protocol::admin::{AdminReply, ClusterView, MemberState, NodeInfo, PlacementInfo};
use holm_protocol::bucket::{BucketInfo, BucketPolicy};
use holm_protocol::dot::Dot;
use holm_protocol::frame::{ALPN_CLIENT, Frame};
use holm_protocol::handshake::{Lane, MetadataVersion, PeerHello};
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, PlacementId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::{Receipt, Reply, Request, Values, Written, kind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::super::super::close;
use super::super::super::handler::{ClientConn, Handler};
use super::super::support::{TestNode, VALID, frame};
use super::explore;
use super::world::{PATIENCE, Sim, until, within};

/// How much longer than its deadline a call may take: what the client's documentation promises.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A node that keeps what it is told in memory and answers after a while.
struct Keeper {
    took: Duration,
    /// How often each write was taken in.
    puts: Mutex<BTreeMap<RequestId, u32>>,
    nodes: Vec<NodeInfo>,
}

impl Keeper {
    fn new(ids: &[u64], took: Duration) -> Arc<Keeper> {
        let info = |id: &u64| NodeInfo {
            id: NodeId(*id),
            addr: Sim::addr(*id),
            region: "here".to_owned(),
            zone: "a".to_owned(),
            capacity: 1,
        };
        let nodes = ids.iter().map(info).collect();
        Arc::new(Keeper { took, puts: Mutex::default(), nodes })
    }

    fn view(&self) -> ClusterView {
        let info = PlacementInfo {
            id: PlacementId(0),
            name: "all".to_owned(),
            bits: 3,
            replication: vec![("here".to_owned(), self.nodes.len() as u8)],
        };
        let replicas = vec![(0..self.nodes.len() as u16).collect(); 8];
        let bucket = BucketInfo {
            id: BucketId(1),
            name: "things".to_owned(),
            policy: BucketPolicy::default(),
        };
        ClusterView {
            cluster: "test".to_owned(),
            layout_version: 3,
            regions: vec!["here".to_owned()],
            nodes: self.nodes.clone(),
            placements: vec![PlacementView { info, replicas }],
            buckets: vec![bucket],
        }
    }

    fn answer(&self, frame: &Frame) -> Reply {
        let receipt =
            Receipt { coordinator: NodeId(1), level: Level::LocalQuorum, replicas: Vec::new() };
        match Request::decode(frame) {
            Ok(Request::Put(put)) => {
                *self.puts.lock().unwrap().entry(put.request).or_default() += 1;
                let dot = Dot { actor: Actor(11), counter: put.request.sequence };
                Reply::Written(Written { dot, hlc: Hlc(1), context: Bytes::new(), receipt })
            }
            Ok(Request::Get(_)) => {
                let (siblings, context) = (Vec::new(), Bytes::new());
                Reply::Values(Values { siblings, context, receipt })
            }
            Ok(Request::Admin(_)) => Reply::Admin(Box::new(AdminReply::View(self.view()))),
            other => panic!("not asked for by any test: {other:?}"),
        }
    }
}

/// [`Keeper`] as a handler.
struct Serving(Arc<Keeper>);

impl Handler for Serving {
    fn on_client_frames(&self, client: &ClientConn, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            let reply = self.0.answer(&frame);
            let took = if frame.kind == kind::ADMIN { Duration::ZERO } else { self.0.took };
            let replies = client.replies.clone();
            tokio::spawn(async move {
                sleep(took).await;
                replies.send(frame.id, &reply);
            });
        }
    }

    fn on_peer_frames(&self, _: NodeId, _: Lane, _: &mut Vec<Frame>) {}

    fn on_peer_up(&self, _: NodeId, _: &PeerHello) {}

    fn on_peer_down(&self, _: NodeId) {}

    fn on_member(&self, _: NodeId, _: MemberState) {}

    fn on_boot(&self, _: u64) {}

    fn metadata_version(&self) -> MetadataVersion {
        MetadataVersion { layout: 3, digest: 4 }
    }
}

/// Where the client of a scenario is.
const CALLER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 1)), 7400);

impl Sim {
    /// A client that knows one node, of a cluster by this name.
    pub(super) fn client(&self, node: &TestNode, cluster: &str) -> ClientBuilder {
        let identity = self.pki().client(VALID);
        Client::builder()
            .cluster(cluster)
            .nodes([(node.local.node, node.addr)])
            .ca_pem(self.pki().ca_pem())
            .identity_pem(identity.chain, identity.key.serialize_pem())
            .simulated(self.net.bind(CALLER), self.pick(0..u64::MAX))
    }

    fn keepers(&self, ids: &[u64], keeper: &Arc<Keeper>) -> Vec<TestNode> {
        let start = |id: &u64| {
            let (_, events) = mpsc::unbounded_channel();
            let handler = Arc::new(Serving(keeper.clone()));
            self.start_with(&self.config(*id), 10 + id, handler, events)
        };
        ids.iter().map(start).collect()
    }
}

async fn bucket(client: &Client) -> Bucket {
    within("the bucket", PATIENCE, client.bucket("things")).await.unwrap()
}

/// Goal: calls that are under way when the path goes silent end by their deadlines, plus the last
/// word, with an outcome that is true: a write is acknowledged or unknown, or certainly not done and
/// then no node has it; after the black-out calls are answered again.
/// Method: writes and reads with deadlines of half a second to eight, all started around the cut;
/// the cut is of one direction or both and lasts up to a minute.
#[test]
fn sim_calls_in_a_black_out_end_by_their_deadlines() {
    explore("sim_calls_in_a_black_out_end_by_their_deadlines", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let keeper = Keeper::new(&[1], sim.pick_ms(0..200));
        let nodes = sim.keepers(&[1], &keeper);
        // A node grants two: who wants three is content with those. It used to wait for the third until
        // the attempt timed out, and then said that there was no answer.
        let client = sim.client(&nodes[0], "test").lanes(sim.pick(1..4));
        let client = within("a connection", PATIENCE, client.connect()).await.unwrap();
        let things = bucket(&client).await;
        let unknown = RefCell::new(0);
        let call = async |start: Duration, limit: Duration, key: u64| {
            sleep(start).await;
            let started = Instant::now();
            let put = things.put(key.to_string(), vec![7; 2000]).timeout(limit).send().await;
            let took = started.elapsed();
            assert!(took <= limit + LAST_WORD, "a write of {limit:?} took {took:?}");
            match put {
                Err(PutError::Unknown { .. }) => *unknown.borrow_mut() += 1,
                Ok(_) | Err(PutError::Unavailable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            let started = Instant::now();
            let got = things.get(key.to_string()).timeout(limit).send().await;
            assert!(started.elapsed() <= limit + LAST_WORD);
            (put.map(|written| written.dot().counter), got.is_ok())
        };
        let mut calls = Vec::new();
        for key in 0..20 {
            calls.push(call(sim.pick_ms(0..1500), sim.pick_ms(500..8000), key));
        }
        let cut = async {
            sleep(Duration::from_millis(700)).await;
            let (forth, back) = [(true, true), (true, false), (false, true)][sim.pick(0..3)];
            sim.net.change(CALLER, nodes[0].addr, |link| link.cut = forth);
            sim.net.change(nodes[0].addr, CALLER, |link| link.cut = back);
            sleep(sim.pick_ms(20_000..60_000)).await;
        };
        let (outcomes, ()) = tokio::join!(all(calls), cut);
        assert!(outcomes.iter().any(|(put, _)| put.is_err()), "the cut was felt");
        let acknowledged: Vec<u64> =
            outcomes.iter().filter_map(|(put, _)| put.as_ref().ok().copied()).collect();
        let taken_in = keeper.puts.lock().unwrap().clone();
        for sequence in &acknowledged {
            assert!(taken_in.keys().any(|request| request.sequence == *sequence));
        }
        // Whatever a node took in was acknowledged or is unknown; the rest may be either.
        assert!(taken_in.len() <= acknowledged.len() + *unknown.borrow());
        sim.net.change_both(CALLER, nodes[0].addr, |link| link.cut = false);
        let again = async {
            while things.put("again", "x").timeout(Duration::from_secs(3)).send().await.is_err() {}
        };
        within("calls are answered again", Duration::from_secs(20), again).await;
        within("closing", PATIENCE, client.close()).await;
    });
}

/// Runs futures side by side, in order.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Goal: reads are answered by another replica while the path to one is silent, within a fraction of
/// their deadline, and the client is back at both afterwards. Method: two replicas; cut the path to
/// one of them under load.
#[test]
fn sim_reads_go_elsewhere_in_a_black_out() {
    explore("sim_reads_go_elsewhere_in_a_black_out", 50, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 4.0;
        sim.net.set_usual(link);
        let keeper = Keeper::new(&[1, 2], sim.pick_ms(0..20));
        let nodes = sim.keepers(&[1, 2], &keeper);
        let client = sim.client(&nodes[0], "test").connect();
        let client = within("a connection", PATIENCE, client).await.unwrap();
        let things = bucket(&client).await;
        until("connected with both", PATIENCE, || {
            nodes.iter().all(|node| node.counters().clients_accepted.get() > 0)
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        let cut = &nodes[sim.pick(0..2)];
        sim.net.change_both(CALLER, cut.addr, |link| link.cut = true);
        for key in 0..30u64 {
            let get = things.get(key.to_string()).timeout(Duration::from_secs(5)).send().await;
            assert!(get.is_ok(), "read {key}: {get:?}");
            sleep(sim.pick_ms(0..1000)).await;
        }
        sim.net.change_both(CALLER, cut.addr, |link| link.cut = false);
        let before = cut.counters().frames_received.get();
        let again = async {
            // Keys of all partitions: half of them prefer the healed node.
            for key in 0u64.. {
                if cut.counters().frames_received.get() > before + 1 {
                    break;
                }
                let _ = things.get(key.to_string()).timeout(Duration::from_secs(3)).send().await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        within("the healed node is asked again", Duration::from_secs(60), again).await;
    });
}

/// Goal: long values reach a node on the same connection after long packets have begun to vanish.
/// Method: let path MTU discovery reach the top, then let packets above a limit vanish both ways.
#[test]
fn sim_long_values_pass_an_mtu_black_hole() {
    explore("sim_long_values_pass_an_mtu_black_hole", 30, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 5.0;
        sim.net.set_usual(link);
        let keeper = Keeper::new(&[1], Duration::ZERO);
        let nodes = sim.keepers(&[1], &keeper);
        let client = sim.client(&nodes[0], "test").timeout(Duration::from_secs(60)).connect();
        let client = within("a connection", PATIENCE, client).await.unwrap();
        let things = bucket(&client).await;
        things.put("first", vec![7; 50_000]).send().await.unwrap();
        // Path MTU discovery takes a few round trips.
        sleep(Duration::from_secs(10)).await;
        let limit = sim.pick(1200..3000);
        sim.net.change_both(CALLER, nodes[0].addr, |link| link.mtu = limit);
        for key in 0..5u64 {
            things.put(key.to_string(), vec![7; 50_000]).send().await.unwrap();
        }
        assert!(sim.net.count(super::network::Fate::TooLong) > 0);
        assert_eq!(nodes[0].counters().clients_accepted.get(), 1, "on the same connection");
    });
}

/// Goal: a client that sends requests and takes no answers is closed as stalled in time, and what
/// waited for it is given up. Method: a raw lane whose stream is never read; answers beyond its
/// windows.
#[test]
fn sim_a_client_that_never_reads_is_closed() {
    explore("sim_a_client_that_never_reads_is_closed", 30, async |sim: &Sim| {
        sim.net.set_usual(sim.bad_link());
        let mut config = sim.config(1);
        config.net.client_window_bytes = 64 << 10;
        // A raw client sends no keepalives: it must be found out before it is idle.
        config.net.stall_timeout = Duration::from_secs(5);
        let one = sim.start(&config, 11);
        let identity = sim.pki().client(VALID);
        let client = sim.connect(&one, sim.pki().tls(Some(&identity), ALPN_CLIENT)).await;
        let mut lane = client.lane().await;
        let requests: Vec<u8> = (0..3000).flat_map(|id| frame(kind::GET, id, &[7; 10])).collect();
        let limit = config.net.stall_timeout;
        let start = Instant::now();
        let ask = async { while lane.send.write_all(&requests).await.is_ok() {} };
        within("closed", 4 * PATIENCE, ask).await;
        assert_eq!(one.counters().clients_stalled.get(), 1);
        assert!(start.elapsed() >= limit);
        until("answers are given up", PATIENCE, || one.network.reply_bytes() == 0).await;
        client.connection.close(close::DONE, b"");
        drop(lane);
    });
}
