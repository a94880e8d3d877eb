//! Links that fall silent: for long, for a moment, one way, again and again.

use std::time::Duration;

use holm_protocol::handshake::Lane;
use holm_protocol::ids::NodeId;
use tokio::time::{Instant, sleep};

use super::super::support::{TestNode, frame};
use super::explore;
use super::world::{Arrivals, PATIENCE, Rising, Sim, are_up, body, settled, until, within};

/// Within which both ends of a cut link know it: the idle timeout, which starts again with the first
/// packet that is sent in vain. That is a keepalive, or a probe, which comes late on a slow path.
fn notice_within(sim: &Sim) -> Duration {
    let net = sim.config(1).net;
    2 * net.idle_timeout + net.keepalive
}

/// Within which a healed link is up: the dial under way may have to time out, then there is a pause,
/// and a dial on a bad path.
fn recover_within(sim: &Sim) -> Duration {
    let net = sim.config(1).net;
    net.handshake_timeout + net.reconnect_max + Duration::from_secs(15)
}

/// Sends a few frames each way and waits for them.
async fn exchange(one: &mut TestNode, two: &mut TestNode) {
    for node in [&mut *one, &mut *two] {
        node.forget();
    }
    for id in 1..=20 {
        one.send_numbered(2, Lane::Requests, id, 2000).await;
        two.send_numbered(1, Lane::Bulk, id, 2000).await;
    }
    for node in [one, two] {
        let mut arrivals = Arrivals::default();
        let all = async {
            while arrivals.count < 20 {
                arrivals.take(node.events.recv().await.unwrap());
            }
        };
        within("frames after the black-out", PATIENCE, all).await;
    }
}

/// Goal: a black-out longer than the idle timeout is noticed at both ends; both try again, not too
/// often; and soon after it ends there is one connection, and both lanes work. Method: cut both
/// directions for up to a minute, with and without traffic.
#[test]
fn sim_a_long_black_out_is_noticed_and_overcome() {
    explore("sim_a_long_black_out_is_noticed_and_overcome", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let (mut one, mut two) = sim.pair().await;
        sleep(sim.pick_ms(0..3000)).await;
        let dials = |node: &TestNode| node.counters().dials.get();
        let before = dials(&one) + dials(&two);
        sim.net.change_both(one.addr, two.addr, |link| link.cut = true);
        let start = Instant::now();
        if sim.flip() {
            let _ = one.pool.send(NodeId(2), Lane::Requests, &frame(200, 1, &body(1, 5000)));
            let _ = two.pool.send(NodeId(1), Lane::Bulk, &frame(200, 1, &body(1, 5000)));
        }
        until("noticed", notice_within(sim), || {
            !one.pool.is_up(NodeId(2)) && !two.pool.is_up(NodeId(1))
        })
        .await;
        let lasts = sim.pick_ms(15_000..60_000);
        sleep(lasts.saturating_sub(start.elapsed())).await;
        let tried = dials(&one) + dials(&two) - before;
        // In vain, each takes the handshake timeout.
        assert!(tried <= 2 * (2 + lasts.as_secs() / 10), "{tried} dials in {lasts:?}");
        assert!(tried >= 1);
        sim.net.change_both(one.addr, two.addr, |link| link.cut = false);
        until("up again", recover_within(sim), || are_up(&[&one, &two])).await;
        settled(&[&one, &two]).await;
        exchange(&mut one, &mut two).await;
    });
}

/// Goal: a black-out of less than a third of the idle timeout costs time, not frames. (Between that
/// and the timeout the connection may be lost: quinn holds acknowledgements back while what it sends
/// itself is blocked by congestion, and takes the black-out for a round trip time.)
/// Method: send numbered frames before, in and after it.
#[test]
fn sim_a_short_black_out_loses_nothing() {
    explore("sim_a_short_black_out_loses_nothing", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let (one, mut two) = sim.pair().await;
        let lasts = sim.pick_ms(100..3000);
        for id in 1..=90 {
            match id {
                30 => sim.net.change_both(one.addr, two.addr, |link| link.cut = true),
                60 => {
                    sleep(lasts).await;
                    sim.net.change_both(one.addr, two.addr, |link| link.cut = false);
                }
                _ => {}
            }
            one.send_numbered(2, Lane::Requests, id, sim.pick(0..3000)).await;
            sleep(sim.pick_ms(0..20)).await;
        }
        let mut arrivals = Arrivals::default();
        let all = async {
            while arrivals.count < 90 {
                arrivals.take(two.events.recv().await.unwrap());
            }
        };
        within("all frames", PATIENCE, all).await;
    });
}

/// Goal: if only one direction is silent, both ends notice: one hears nothing, the other hears no
/// acknowledgement or is told by the end of probes. Once healed they are connected again.
/// Method: cut either direction; the other end may go on sending.
#[test]
fn sim_a_one_way_black_out_is_noticed_by_both() {
    explore("sim_a_one_way_black_out_is_noticed_by_both", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let (mut one, mut two) = sim.pair().await;
        sleep(sim.pick_ms(0..3000)).await;
        let (from, to) = if sim.flip() { (one.addr, two.addr) } else { (two.addr, one.addr) };
        sim.net.change(from, to, |link| link.cut = true);
        let (seen_by_one, seen_by_two) = (&mut false, &mut false);
        // Once one end gives up, the other hears nothing more, and its own timeout starts: with the first
        // packet it then sends, which may be a probe that has become rare.
        until("noticed by both", 2 * notice_within(sim), || {
            *seen_by_one |= !one.pool.is_up(NodeId(2));
            *seen_by_two |= !two.pool.is_up(NodeId(1));
            *seen_by_one && *seen_by_two
        })
        .await;
        sleep(sim.pick_ms(0..20_000)).await;
        assert!(!are_up(&[&one, &two]), "a connection needs both directions");
        sim.net.change(from, to, |link| link.cut = false);
        until("up again", recover_within(sim), || are_up(&[&one, &two])).await;
        settled(&[&one, &two]).await;
        exchange(&mut one, &mut two).await;
    });
}

/// Goal: on a link that is cut and healed again and again, in one direction or both, no frame comes
/// twice or out of order, also across reconnects, and frames are missing only between connections;
/// ups and downs alternate; and once it is healed for good the two are connected.
/// Method: numbered frames both ways all the time; cuts of up to 20 s.
#[test]
fn sim_a_flapping_link_repeats_nothing() {
    explore("sim_a_flapping_link_repeats_nothing", 30, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss /= 2.0;
        sim.net.set_usual(link);
        let (mut one, mut two) = sim.pair().await;
        let mut rising = [Rising::default(), Rising::default()];
        for node in &mut rising {
            node.up = true;
        }
        let end = Instant::now() + Duration::from_secs(120);
        let mut change_at = Instant::now();
        let mut id = 0;
        while Instant::now() < end {
            if Instant::now() >= change_at {
                let (forth, back) = (sim.pick(0..3) == 0, sim.pick(0..3) == 0);
                sim.net.change(one.addr, two.addr, |link| link.cut = forth);
                sim.net.change(two.addr, one.addr, |link| link.cut = back);
                change_at += sim.pick_ms(100..20_000);
            }
            id += 1;
            for (node, other) in [(&one, 2), (&two, 1)] {
                // Not connected, or full: the number is missing, but the connection changes too, or
                // the frame was never taken and the number is free.
                let bytes = frame(200, id, &body(id, 500));
                let _ = node.pool.send(NodeId(other), Lane::Requests, &bytes);
            }
            sleep(Duration::from_millis(50)).await;
            for (node, rising) in [&mut one, &mut two].into_iter().zip(&mut rising) {
                node.seen().into_iter().for_each(|event| rising.take(event));
            }
        }
        sim.net.change_both(one.addr, two.addr, |link| link.cut = false);
        // What is up may be a connection that the other end has given up.
        sleep(notice_within(sim)).await;
        until("up again", recover_within(sim), || are_up(&[&one, &two])).await;
        settled(&[&one, &two]).await;
        assert!(rising.iter().all(|rising| rising.count > 100));
        exchange(&mut one, &mut two).await;
    });
}
