//! Paths that swallow long packets and say nothing.

use std::cell::Cell;
use std::time::Duration;

use holm_protocol::handshake::Lane;
use holm_protocol::ids::NodeId;
use holm_protocol::message::kind::PEER_FIRST;
use tokio::time::sleep;

use super::super::support::{TestNode, frame};
use super::explore;
use super::network::Fate;
use super::world::{PATIENCE, Rising, Sim, body, until, within};

/// Frames that must come each way.
const FRAMES: u64 = 20;

fn mtu(node: &TestNode, other: u64) -> usize {
    node.pool.link(NodeId(other)).path().map_or(0, |path| path.current_mtu.into())
}

/// Sends long frames to each other until enough have come at both ends, on whatever connection.
async fn exchange(one: &mut TestNode, two: &mut TestNode) {
    let mut rising = [Rising::default(), Rising::default()];
    for (node, rising) in [&mut *one, &mut *two].into_iter().zip(&mut rising) {
        node.forget();
        rising.up = true;
    }
    let mut next = [1, 1];
    while rising.iter().any(|rising| rising.count < FRAMES) {
        for ((node, other), next) in [(&*one, 2), (&*two, 1)].into_iter().zip(&mut next) {
            let bytes = frame(PEER_FIRST, *next, &body(*next, 20_000));
            // What is not taken keeps its number.
            *next += u64::from(node.pool.send(NodeId(other), Lane::Bulk, &bytes).is_ok());
        }
        sleep(Duration::from_secs(1)).await;
        for (node, rising) in [&mut *one, &mut *two].into_iter().zip(&mut rising) {
            node.seen().into_iter().for_each(|event| rising.take(event));
        }
    }
}

/// Goal: where long packets vanish, from the start or from a moment on, in one direction or both,
/// traffic goes on in both directions, nearly always on the same connection: QUIC notices the black
/// hole and falls back to short packets. (It needs three bursts of losses for that. With
/// acknowledgements lost in the same hole, that can take longer than the idle timeout; a new
/// connection then starts with short packets.) Method: let path MTU discovery reach the top, then
/// let packets above a limit vanish; send long frames both ways.
#[test]
fn sim_traffic_goes_on_through_an_mtu_black_hole() {
    let lost = Cell::new(0);
    let seeds = explore("sim_traffic_goes_on_through_an_mtu_black_hole", 100, async |sim: &Sim| {
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
        within("frames pass the black hole", PATIENCE, exchange(&mut one, &mut two)).await;
        assert!(sim.net.count(Fate::TooLong) > 0);
        for (cut, from, to) in [(forth, &one, 2), (back, &two, 1)] {
            let now = mtu(from, to);
            assert!(!cut || now <= limit, "{now} bytes where {limit} pass");
        }
        let disconnected = |node: &TestNode| node.counters().peers_disconnected.get();
        lost.set(lost.get() + u64::from(disconnected(&one) + disconnected(&two) > 0));
    });
    assert!(lost.get() <= 1 + seeds / 10, "{} of {seeds} connections were lost", lost.get());
}
