//! Membership over real QUIC datagrams: joining, dying, leaving, cuts one way and both, clocks, and
//! what it costs.

use std::cell::RefCell;
use std::time::Duration;

use holm_protocol::admin::MemberState;
use holm_protocol::ids::NodeId;
use tokio::time::sleep;

use super::super::support::TestNode;
use super::explore;
use super::network::Link;
use super::world::{PATIENCE, Sim, are_up, know, settled, until};

/// Bytes of IPv4 and UDP headers, which the trace leaves out.
const HEADERS: usize = 28;

/// Three regions of three, 80 to 180 ms apart, as the demonstration has it.
const RTT_MS: [[u64; 3]; 3] = [[1, 80, 180], [80, 1, 160], [180, 160, 1]];

/// Says how long something took over all seeds.
fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let (Some(least), Some(most)) = (took.first(), took.last()) else { return };
    super::say(&format!("{what}: {least:?} to {most:?}, median {:?}", took[took.len() / 2]));
}

fn state(of: &TestNode, by: &TestNode) -> MemberState {
    by.members.lock().state(of.local.node)
}

/// Whether all of these think so of one node.
fn all_think(by: &[&TestNode], of: NodeId, what: MemberState) -> bool {
    by.iter().all(|node| node.members.lock().state(of) == what)
}

fn all_alive(nodes: &[&TestNode]) -> bool {
    nodes.iter().all(|by| {
        let others = nodes.iter().filter(|of| of.local.node != by.local.node);
        others.into_iter().all(|of| state(of, by) == MemberState::Alive)
    })
}

/// Starts nodes that know each other, with the delays between them set, and waits until all are alive.
async fn cluster(sim: &Sim, count: u64) -> Vec<TestNode> {
    let ids: Vec<u64> = (1..=count).collect();
    let region = |id: u64| ((id - 1) % 3) as usize;
    for &from in &ids {
        for &to in ids.iter().filter(|&&to| to != from) {
            let delay = Duration::from_micros(RTT_MS[region(from)][region(to)] * 500);
            let loss = sim.pick(0.0..0.02);
            sim.net.change(Sim::addr(from), Sim::addr(to), |link| {
                *link = Link { delay, jitter: delay / 10, loss, ..Link::GOOD };
            });
        }
    }
    let nodes: Vec<TestNode> = ids.iter().map(|&id| sim.node(id, 10 + id)).collect();
    nodes.iter().for_each(|node| know(node, &ids));
    let all: Vec<&TestNode> = nodes.iter().collect();
    until("connected", PATIENCE, || are_up(&all)).await;
    settled(&all).await;
    until("all are alive", Duration::from_secs(5), || all_alive(&all)).await;
    nodes
}

/// Goal: of nine nodes in three regions, one that is killed is called down by all the others in time,
/// before QUIC has noticed; with up to 2 % of packets lost nobody else is; and it is alive for all soon
/// after it is back. Method: kill one, and start it again.
#[test]
fn sim_the_dead_are_called_down() {
    let took = RefCell::new(Vec::new());
    explore("sim_the_dead_are_called_down", 15, async |sim: &Sim| {
        let mut nodes = cluster(sim, 9).await;
        sleep(sim.pick_ms(0..3000)).await;
        let id = sim.pick(1..=9);
        let at = nodes.iter().position(|node| node.local.node.0 == id).unwrap();
        let killed = nodes.remove(at);
        sim.net.unbind(killed.addr);
        drop(killed);
        let rest: Vec<&TestNode> = nodes.iter().collect();
        let down = || all_think(&rest, NodeId(id), MemberState::Down);
        let after = until("it is down for all", Duration::from_secs(12), down).await;
        took.borrow_mut().push(after);
        assert!(all_alive(&rest), "nobody else is in doubt");
        let back = sim.node(id, 99);
        know(&back, &(1..=9).collect::<Vec<_>>());
        let alive = || all_think(&rest, NodeId(id), MemberState::Alive);
        until("it is alive for all", Duration::from_secs(30), alive).await;
        let epoch = |by: &TestNode| {
            let driver = by.members.lock();
            driver.opinions().find(|(node, _)| node.0 == id).unwrap().1.epoch
        };
        assert!(rest.iter().all(|by| epoch(by).boot == 99));
    });
    tell("from a death to down for all", took.take());
}

/// Goal: who stops has left for all the others soon, whatever is lost, and nobody ever calls it down. Method: stop one of six on lossy paths as a node stops.
#[test]
fn sim_who_stops_has_left() {
    let told = RefCell::new(Vec::new());
    explore("sim_who_stops_has_left", 40, async |sim: &Sim| {
        let mut nodes = cluster(sim, 6).await;
        let leaving = nodes.remove(sim.pick(0..6));
        let id = leaving.local.node;
        leaving.network.leave().await;
        let rest: Vec<&TestNode> = nodes.iter().collect();
        let left = || all_think(&rest, id, MemberState::Left);
        let after = until("it has left for all", Duration::from_secs(3), left).await;
        told.borrow_mut().push(after);
        leaving.network.shutdown(Duration::from_millis(500)).await;
        sleep(Duration::from_secs(20)).await;
        assert!(left(), "nobody thinks worse of it");
        let down = |by: &&TestNode| by.members.lock().counts().changes[MemberState::Down as usize];
        assert_eq!(rest.iter().map(down).sum::<u64>(), 0);
    });
    tell("from a stop to left for all", told.take());
}

/// Goal: two nodes that cannot reach each other while others reach both are alive for each other, cut
/// one way or both; for as long as the link is cut. Method: cut a link of five nodes for a minute: the
/// connection goes after ten seconds.
#[test]
fn sim_a_cut_link_is_no_death() {
    explore("sim_a_cut_link_is_no_death", 20, async |sim: &Sim| {
        let nodes = cluster(sim, 5).await;
        let all: Vec<&TestNode> = nodes.iter().collect();
        let (one, two) = (nodes[0].addr, nodes[1].addr);
        sim.net.change(one, two, |link| link.cut = true);
        if sim.flip() {
            sim.net.change(two, one, |link| link.cut = true);
        }
        for _ in 0..600 {
            sleep(Duration::from_millis(100)).await;
            assert!(
                !nodes.iter().any(|by| {
                    by.members.lock().counts().changes[MemberState::Down as usize] > 0
                })
            );
        }
        assert!(!nodes[0].pool.is_up(NodeId(2)), "the cut was long enough to end the connection");
        sim.net.change_both(one, two, |link| link.cut = false);
        until("connected again", Duration::from_secs(40), || are_up(&all)).await;
        until("all are alive", Duration::from_secs(5), || all_alive(&all)).await;
    });
}

/// Goal: a region that is cut off calls the others down and is called down; once the cut is healed all
/// are alive for all as soon as connections are there. Method: three of nine, for up to a minute.
#[test]
fn sim_a_region_cut_off_comes_back() {
    let healed = RefCell::new(Vec::new());
    explore("sim_a_region_cut_off_comes_back", 10, async |sim: &Sim| {
        let nodes = cluster(sim, 9).await;
        let all: Vec<&TestNode> = nodes.iter().collect();
        let (inside, outside): (Vec<&TestNode>, Vec<&TestNode>) =
            nodes.iter().partition(|node| node.local.node.0 % 3 == 1);
        let cut = |cut: bool| {
            for (one, two) in inside.iter().flat_map(|a| outside.iter().map(move |b| (a, b))) {
                sim.net.change_both(one.addr, two.addr, |link| link.cut = cut);
            }
        };
        cut(true);
        let apart = || {
            let gone = |by: &[&TestNode], of: &[&TestNode]| {
                of.iter().all(|of| all_think(by, of.local.node, MemberState::Down))
            };
            gone(&inside, &outside) && gone(&outside, &inside)
        };
        until("each side calls the other down", Duration::from_secs(40), apart).await;
        assert!(all_alive(&inside) && all_alive(&outside));
        sleep(sim.pick_ms(0..30_000)).await;
        cut(false);
        until("connected again", Duration::from_secs(40), || are_up(&all)).await;
        let took = until("all are alive", Duration::from_secs(10), || all_alive(&all)).await;
        healed.borrow_mut().push(took);
        assert!(took < Duration::from_secs(6), "{took:?} after the connections");
        sleep(Duration::from_secs(20)).await;
        assert!(all_alive(&all));
    });
    tell("from the connections to alive for all", healed.take());
}

/// Goal: a node that knows nobody but a seed is known to all, with its address, and knows all. Method:
/// two nodes that know each other, one that has the first as its seed.
#[test]
fn sim_a_seed_is_enough_to_join() {
    explore("sim_a_seed_is_enough_to_join", 30, async |sim: &Sim| {
        sim.net.set_usual(sim.bad_link());
        let (one, two) = sim.pair().await;
        let mut config = sim.config(3);
        config.cluster.seeds = vec![(NodeId(1), one.addr)];
        let three = sim.start(&config, 33);
        let all = [&one, &two, &three];
        until("all are alive for all", PATIENCE, || all_alive(&all)).await;
        let known = two.members.lock().opinions().find(|(node, _)| node.0 == 3).unwrap().1;
        assert_eq!(known.addr, Some(three.addr), "as the seed has heard it");
    });
}

/// Goal: clocks are compared to within half a round trip on any path. Method: one of two is ahead by up
/// to ten seconds, or behind.
#[test]
fn sim_clocks_are_compared() {
    explore("sim_clocks_are_compared", 40, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let ahead_us: u64 = sim.pick(0..10_000_000);
        let one = sim.node(1, 11);
        sim.clock_ahead_us.set(ahead_us);
        let two = sim.node(2, 22);
        know(&one, &[2]);
        know(&two, &[1]);
        settled(&[&one, &two]).await;
        let offset = |by: &TestNode, of: u64| {
            let now = by.members.now().mono;
            by.members.lock().clock(NodeId(of), now)
        };
        // Just after the handshake a question may wait long for its turn on a lossy path.
        let is_good = |by: &TestNode, of: u64| offset(by, of).is_some_and(|c| c.error_us < 300_000);
        let both = || is_good(&one, 2) && is_good(&two, 1);
        until("both have measured well", PATIENCE, both).await;
        for (by, of, expected) in [(&one, 2, ahead_us as i64), (&two, 1, -(ahead_us as i64))] {
            let clock = offset(by, of).unwrap();
            // The network's clock is tokio's: a millisecond.
            let wrong = clock.offset_us.abs_diff(expected);
            assert!(wrong <= clock.error_us + 2_000, "{clock:?}, {expected}");
        }
    });
}

/// Goal: a node that has been away for long is dialled ever less often, and met again when it is back,
/// because it dials. Method: an hour without it.
#[test]
fn sim_the_long_dead_cost_ever_less() {
    explore("sim_the_long_dead_cost_ever_less", 10, async |sim: &Sim| {
        sim.net.set_usual(Link { doubled: 0.05, ..Link::GOOD });
        let mut config = sim.config(1);
        config.net.reconnect_away_max = Duration::from_secs(60);
        // Refused at once by the absence of a socket in reality; here a dial waits for this long.
        config.net.handshake_timeout = Duration::from_millis(500);
        let one = sim.start(&config, 11);
        know(&one, &[2]);
        let dials = || one.counters().dials.get();
        sleep(Duration::from_secs(60)).await;
        let first = dials();
        sleep(Duration::from_secs(540)).await;
        let before = dials();
        sleep(Duration::from_secs(120)).await;
        let late = dials() - before;
        assert!(first > 20, "{first} dials in the first minute");
        assert!((2..=6).contains(&late), "{late} dials in two minutes after ten");
        let two = sim.node(2, 22);
        know(&two, &[1]);
        let pair = [&one, &two];
        until("it dials", Duration::from_secs(5), || are_up(&pair)).await;
    });
}

/// Goal: the idle traffic of a cluster of nine stays small: 2 kB/s sent by each node, headers
/// included, of the 20 kB/s that a whole node may take. Method: five minutes of silence, counted.
#[test]
fn sim_idle_members_cost_little() {
    explore("sim_idle_members_cost_little", 2, async |sim: &Sim| {
        let nodes = cluster(sim, 9).await;
        // Path MTU discovery is over by then.
        sleep(Duration::from_secs(60)).await;
        let sums = || {
            let trace = sim.net.trace();
            let bytes: usize = trace.iter().map(|sent| sent.len + HEADERS).sum();
            (bytes, trace.len())
        };
        let (before, packets) = sums();
        sleep(Duration::from_secs(300)).await;
        let (after, more) = sums();
        let per_node = (after - before) as f64 / 300.0 / 9.0;
        let packets = (more - packets) as f64 / 300.0 / 9.0;
        super::say(&format!("idle: {per_node:.0} bytes/s and {packets:.1} packets/s sent a node"));
        assert!(per_node < 2_000.0, "{per_node} bytes/s sent by each node");
        assert!(nodes.iter().all(|node| node.counters().datagrams_unsent.get() < 50));
    });
}

/// Goal: datagrams are refused unless they are the sender's own: a node with a valid certificate cannot
/// speak as another. Method: a stranger with the certificate of node 2 says that it is node 3.
#[test]
fn sim_nobody_speaks_as_somebody_else() {
    explore("sim_nobody_speaks_as_somebody_else", 5, async |sim: &Sim| {
        sim.net.set_usual(Link { doubled: 0.2, ..Link::GOOD });
        let (one, two) = sim.pair().await;
        until("alive", PATIENCE, || all_alive(&[&one, &two])).await;
        // What node 3 would say, on the connection of node 2.
        let forged = [&[1u8][..], &forged_header(3, 1)].concat();
        assert!(two.pool.send_datagram(NodeId(1), forged.into()));
        assert!(two.pool.send_datagram(NodeId(1), vec![77; 20].into()));
        let counts = || one.members.lock().counts();
        until("refused", PATIENCE, || counts().forged == 1 && counts().malformed == 1).await;
        assert_eq!(one.members.lock().state(NodeId(3)), MemberState::Unknown);
    });
}

/// A SWIM packet without news, from a node to a node at their first start.
fn forged_header(from: u64, to: u64) -> Vec<u8> {
    let identity = |node: u64| {
        let mut bytes = node.to_be_bytes().to_vec();
        bytes.extend_from_slice(&1u64.to_be_bytes());
        bytes.extend_from_slice(&[0; 4 + 1 + 16 + 2]);
        bytes
    };
    // Incarnation 0; message 8 is gossip.
    [identity(from), vec![0, 0], identity(to), vec![8]].concat()
}
