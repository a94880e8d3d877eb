//! Becoming connected: bad paths, dials that cross, restarts, dials that are refused.

use std::cell::Cell;
use std::time::Duration;

use holm_protocol::ids::{Actor, NodeId};
use tokio::time::{Instant, sleep};

use super::super::support::{Event, TestNode};
use super::explore;
use super::network::Link;
use super::world::{PATIENCE, Sim, are_up, know, settled, until};

/// Goal: on a bad path too nodes are connected within the time of two dials, and agree on one
/// connection. Method: both know each other from the start; wait for it.
#[test]
fn sim_handshakes_survive_bad_paths() {
    explore("sim_handshakes_survive_bad_paths", 100, async |sim: &Sim| {
        sim.net.set_usual(sim.bad_link());
        sim.net.set_busy(sim.pick(0.0..0.02));
        let (one, two) = (sim.node(1, 11), sim.node(2, 22));
        know(&one, &[2]);
        know(&two, &[1]);
        let dial = 2 * sim.config(1).net.handshake_timeout;
        until("connected", 2 * dial, || are_up(&[&one, &two])).await;
        settled(&[&one, &two]).await;
    });
}

/// What a handler may see of one other node: up, frames, down, and again.
fn assert_turns(node: &mut TestNode) {
    let mut up = false;
    for event in node.seen() {
        match event {
            Event::Up(..) => assert!(!std::mem::replace(&mut up, true), "up twice"),
            Event::Down(_) => assert!(std::mem::take(&mut up), "down twice"),
            Event::Peer(..) => assert!(up, "frames while down"),
            Event::Client(..) => panic!("there are no clients"),
        }
    }
    assert!(up);
}

/// Goal: where both nodes dial, because a round trip takes longer than the larger id waits, they
/// settle on one connection and keep it; the handler sees up and down by turns. Method: round trips
/// of up to two seconds, some loss; wait, then watch for half a minute.
#[test]
fn sim_crossing_dials_settle_on_one_connection() {
    let crossed = Cell::new(0);
    let seeds = explore("sim_crossing_dials_settle_on_one_connection", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.delay = sim.pick_ms(300..1000);
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let (mut one, mut two) = (sim.node(1, 11), sim.node(2, 22));
        know(&one, &[2]);
        know(&two, &[1]);
        settled(&[&one, &two]).await;
        sleep(Duration::from_secs(5)).await;
        settled(&[&one, &two]).await;
        let made = |node: &TestNode| node.counters().peers_connected.get();
        let before = (made(&one), made(&two));
        sleep(Duration::from_secs(30)).await;
        assert_eq!((made(&one), made(&two)), before, "the connection is kept");
        assert!(are_up(&[&one, &two]));
        assert!(one.counters().dials.get() + two.counters().dials.get() < 10);
        assert_turns(&mut one);
        assert_turns(&mut two);
        let replaced = |node: &TestNode| node.counters().peers_replaced.get();
        crossed.set(crossed.get() + u64::from(replaced(&one) + replaced(&two) > 0));
    });
    assert!(seeds < 10 || crossed.get() > seeds / 10, "{} of {seeds} dials crossed", crossed.get());
}

/// Goal: a node that was killed and is back, at the same address with the same key, is known to be
/// another run long before the idle timeout. Method: take its socket away, start a new run there;
/// whoever used the old connection is reset at the next packet, a keepalive at the latest.
#[test]
fn sim_a_killed_node_is_noticed_when_it_is_back() {
    explore("sim_a_killed_node_is_noticed_when_it_is_back", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let (one, two) = sim.pair().await;
        sleep(sim.pick_ms(0..3000)).await;
        let (killed, mut stays) = if sim.flip() { (one, two) } else { (two, one) };
        let id = killed.local.node.0;
        sim.net.unbind(killed.addr);
        drop(killed);
        sleep(sim.pick_ms(0..1000)).await;
        let back = sim.node(id, 99);
        know(&back, &[stays.local.node.0]);
        let took = until("the new run is known", Duration::from_secs(9), || {
            stays
                .seen()
                .iter()
                .any(|event| matches!(event, Event::Up(_, hello) if hello.run == Actor(99)))
        })
        .await;
        assert!(took < sim.config(1).net.idle_timeout);
        settled(&[&back, &stays]).await;
    });
}

/// When a counter grew.
async fn growth(limit: Duration, count: impl Fn() -> u64) -> Vec<Instant> {
    let (mut times, mut before) = (Vec::new(), count());
    let end = Instant::now() + limit;
    while Instant::now() < end {
        sleep(Duration::from_millis(1)).await;
        let now = count();
        times.extend((before..now).map(|_| Instant::now()));
        before = now;
    }
    times
}

/// Goal: a node that refuses is tried again with pauses that double up to the maximum and are
/// jittered. Method: nodes with different settings, 10 ms apart; look at the time between dials.
#[test]
fn sim_pauses_between_dials_grow_and_are_jittered() {
    explore("sim_pauses_between_dials_grow_and_are_jittered", 15, async |sim: &Sim| {
        let delay = Duration::from_millis(5);
        sim.net.set_usual(Link { delay, doubled: 0.1, ..Link::GOOD });
        let one = sim.node(1, 11);
        let mut config = sim.config(2);
        config.limits.max_clock_skew_ms += 1;
        let two = sim.start(&config, 22);
        know(&one, &[2]);
        let times = growth(Duration::from_secs(40), || one.counters().dials.get()).await;
        let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let net = sim.config(1).net;
        for (attempt, gap) in gaps.iter().enumerate() {
            let whole = (net.reconnect_min * (1 << attempt.min(20))).min(net.reconnect_max);
            // A dial that is refused takes three round trips and timers' grains.
            let longest = whole + Duration::from_millis(150);
            assert!((whole / 2..=longest).contains(gap), "pause {attempt}: {gap:?} of {whole:?}");
        }
        assert!(gaps.len() >= 18, "{} pauses", gaps.len());
        let late = &gaps[8..];
        let spread = *late.iter().max().unwrap() - *late.iter().min().unwrap();
        assert!(spread > net.reconnect_max / 10, "pauses differ: {late:?}");
        assert!(two.counters().refused_hello.get() as usize + 1 >= times.len());
        assert!(!one.pool.is_up(NodeId(2)));
    });
}

/// Goal: a node that lost everybody does not storm: all its dials together keep to the budget.
/// Method: 150 nodes that are not there; count dials.
#[test]
fn sim_dials_keep_to_the_budget() {
    explore("sim_dials_keep_to_the_budget", 10, async |sim: &Sim| {
        let mut config = sim.config(1);
        config.net.handshake_timeout = Duration::from_millis(sim.pick(50..500));
        let one = sim.start(&config, 11);
        let others: Vec<u64> = (2..152).collect();
        know(&one, &others);
        let times = growth(Duration::from_secs(20), || one.counters().dials.get()).await;
        for (index, at) in times.iter().enumerate() {
            let allowed = 65.0 + 33.0 * (*at - times[0]).as_secs_f64();
            assert!(index as f64 <= allowed, "dial {index} after {:?}", *at - times[0]);
        }
        assert!(times.len() > 500, "{} dials", times.len());
        assert!(one.counters().dials_delayed.get() > 0);
    });
}

/// Goal: a cluster of five on bad paths becomes fully connected, one connection for each pair.
#[test]
fn sim_five_nodes_become_connected() {
    explore("sim_five_nodes_become_connected", 20, async |sim: &Sim| {
        sim.net.set_usual(sim.bad_link());
        let ids: Vec<u64> = (1..=5).collect();
        let nodes: Vec<TestNode> = ids.iter().map(|id| sim.node(*id, 10 + id)).collect();
        for node in &nodes {
            know(node, &ids);
        }
        let all: Vec<&TestNode> = nodes.iter().collect();
        until("connected", PATIENCE, || are_up(&all)).await;
        settled(&all).await;
    });
}
