//! Paths that swallow long packets and say nothing.

use std::time::Duration;

use holm_protocol::handshake::Lane;
use holm_protocol::ids::NodeId;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::super::support::{Event, TestNode};
use super::explore;
use super::network::Fate;
use super::world::{Arrivals, PATIENCE, Sim, until, within};

/// Frames each way.
const FRAMES: u64 = 20;

fn mtu(node: &TestNode, other: u64) -> usize {
    node.pool.link(NodeId(other)).path().map_or(0, |path| path.current_mtu.into())
}

async fn send(from: &TestNode, to: u64) {
    for id in 1..=FRAMES {
        from.send_numbered(to, Lane::Bulk, id, 20_000).await;
        sleep(Duration::from_millis(20)).await;
    }
}

async fn receive(mut events: UnboundedReceiver<Event>) {
    let mut arrivals = Arrivals::default();
    while arrivals.count < FRAMES {
        arrivals.take(events.recv().await.unwrap());
    }
}

/// Goal: where long packets vanish, from the start or from a moment on, in one direction or both,
/// traffic goes on in both directions on the same connection: QUIC notices the black hole and falls
/// back to short packets. Method: let path MTU discovery reach the top, then let packets above a
/// limit vanish; send long frames both ways.
#[test]
fn sim_traffic_goes_on_through_an_mtu_black_hole() {
    explore("sim_traffic_goes_on_through_an_mtu_black_hole", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 5.0;
        // QUIC does not work below 1,200.
        let limit = sim.pick(1200..3000);
        let from_the_start = sim.pick(0..4) == 0;
        if from_the_start {
            link.mtu = limit;
        }
        sim.net.set_usual(link);
        let (mut one, mut two) = sim.pair().await;
        if !from_the_start {
            let top = || mtu(&one, 2).min(mtu(&two, 1)) > 6000;
            until("the path takes long packets", PATIENCE, top).await;
        }
        let way = sim.pick(0..3);
        let (forth, back) = (from_the_start || way != 0, from_the_start || way != 1);
        for (cut, from, to) in [(forth, &one, &two), (back, &two, &one)] {
            if cut {
                sim.net.change(from.addr, to.addr, |link| link.mtu = limit);
            }
        }
        let (seen_by_one, seen_by_two) = (one.take_events(), two.take_events());
        let (one, two) = (&one, &two);
        let traffic = async {
            tokio::join!(send(one, 2), send(two, 1), receive(seen_by_one), receive(seen_by_two))
        };
        within("all frames pass the black hole", PATIENCE, traffic).await;
        assert!(sim.net.count(Fate::TooLong) > 0);
        for (cut, from, to) in [(forth, one, 2), (back, two, 1)] {
            let now = mtu(from, to);
            assert!(!cut || now <= limit, "{now} bytes where {limit} pass");
            assert_eq!(from.counters().peers_disconnected.get(), 0);
        }
    });
}
