//! Frames between nodes on bad paths, and a peer that does not read them.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use holm_protocol::frame::put_frame;
use holm_protocol::handshake::{self, Lane, PeerHello};
use holm_protocol::ids::NodeId;
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::kind;
use quinn::{Connection, Endpoint, EndpointConfig, SendStream, TokioRuntime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep};

use super::super::super::devnet::LinkEffect;
use super::super::super::endpoint::server_config;
use super::super::super::lane::LaneReader;
use super::super::super::outbox::NotSent;
use super::super::super::tls::TlsMaterial;
use super::super::support::{Event, TestNode, frame, local};
use super::explore;
use super::world::{Arrivals, PATIENCE, Sim, know, settled, until, within};
use crate::config::Config;

/// Frames of each direction and lane.
const FRAMES: u64 = 40;

/// Sends numbered frames on one lane, at random moments.
async fn send_all(sim: &Sim, node: &TestNode, to: u64, lane: Lane) {
    for id in 1..=FRAMES {
        if sim.pick(0..4) == 0 {
            sleep(sim.pick_ms(0..200)).await;
        }
        let longest = if lane == Lane::Bulk && id % 10 == 0 { 100_000 } else { 3000 };
        node.send_numbered(to, lane, id, sim.pick(0..longest)).await;
    }
}

async fn receive_all(events: &mut UnboundedReceiver<Event>, count: u64) {
    let mut arrivals = Arrivals::default();
    while arrivals.count < count {
        arrivals.take(events.recv().await.unwrap());
    }
}

/// Goal: whatever the path does to packets (loses, doubles, holds back; a socket that is not ready),
/// each frame comes once, in its lane's order, intact, in both directions on both lanes, and the
/// connection stays. Method: a bad path, on some seeds with the development switch's delay on top;
/// bursts of frames of all lengths with bodies that follow from their numbers.
#[test]
fn sim_frames_come_once_in_order_and_intact() {
    explore("sim_frames_come_once_in_order_and_intact", 100, async |sim: &Sim| {
        let mut configs = [sim.config(1), sim.config(2)];
        for config in &mut configs {
            config.dev.enabled = sim.flip();
            config.net.gso = sim.flip();
            config.limits.peer_queue_bytes_max = 64 << 10;
        }
        let (mut one, mut two) = (sim.start(&configs[0], 11), sim.start(&configs[1], 22));
        if let Some(rules) = one.network.link_rules() {
            rules.set_one(two.addr, LinkEffect { delay: sim.pick_ms(0..100), cut: false });
        }
        know(&one, &[2]);
        know(&two, &[1]);
        settled(&[&one, &two]).await;
        sim.net.set_usual(sim.bad_link());
        sim.net.set_busy(sim.pick(0.0..0.05));
        let (mut seen_by_one, mut seen_by_two) = (one.take_events(), two.take_events());
        let work = async {
            tokio::join!(
                send_all(sim, &one, 2, Lane::Requests),
                send_all(sim, &one, 2, Lane::Bulk),
                send_all(sim, &two, 1, Lane::Requests),
                send_all(sim, &two, 1, Lane::Bulk),
                receive_all(&mut seen_by_one, 2 * FRAMES),
                receive_all(&mut seen_by_two, 2 * FRAMES),
            )
        };
        within("all frames", 4 * PATIENCE, work).await;
        sleep(Duration::from_secs(5)).await;
        assert!(seen_by_one.try_recv().is_err() && seen_by_two.try_recv().is_err());
    });
}

/// A node that is only its certificate and its listening endpoint.
fn raw_node(sim: &Sim, config: &Config) -> Endpoint {
    let tls = TlsMaterial::load(&config.tls, config.node.id).unwrap();
    let server = server_config(config, &tls).unwrap();
    let mut settings = EndpointConfig::default();
    settings.rng_seed(Some([sim.seed as u8; 32]));
    let (socket, runtime) = (sim.net.bind(config.listen.quic), Arc::new(TokioRuntime));
    Endpoint::new_with_abstract_socket(settings, Some(server), socket, runtime).unwrap()
}

/// Accepts a connection and welcomes its lanes, which are then held and not read.
async fn welcome(
    endpoint: &Endpoint,
    config: &Config,
) -> (Connection, Vec<(SendStream, LaneReader)>) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let (mut send, recv) = connection.accept_bi().await.unwrap();
        let mut reader = LaneReader::new(recv, FRAME_LEN_MAX);
        let hello = reader.hello(Instant::now() + PATIENCE).await.unwrap();
        let lane = handshake::decode::<PeerHello>(&hello.body).unwrap().lane;
        let answer = local(config, 22).hello(lane, Default::default());
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, kind::WELCOME, hello.id, |out| {
            out.extend_from_slice(&handshake::encode(&answer));
        });
        send.write_all(&bytes).await.unwrap();
        lanes.push((send, reader));
    }
    (connection, lanes)
}

/// Goal: a peer that lets itself be connected and then reads nothing costs its window and its queue,
/// no more; what is beyond is refused as full and counted; other peers do not feel it; and when it is
/// gone the memory is too. Method: node 2 is such a peer, node 3 a good one; send to both.
#[test]
fn sim_a_peer_that_never_reads_costs_no_more_than_its_queue() {
    explore("sim_a_peer_that_never_reads_costs_no_more_than_its_queue", 50, async |sim: &Sim| {
        let queue = sim.pick(32..128) << 10;
        let mut config = sim.config(1);
        config.limits.peer_queue_bytes_max = queue;
        let mut stuck = sim.config(2);
        stuck.net.client_window_bytes = 256 << 10;
        let mut link = sim.bad_link();
        link.loss /= 4.0;
        sim.net.set_usual(link);
        let endpoint = raw_node(sim, &stuck);
        let (one, mut three) = (sim.start(&config, 11), sim.node(3, 33));
        know(&one, &[2, 3]);
        let (connection, lanes) = within("a lane", PATIENCE, welcome(&endpoint, &stuck)).await;
        until("connected", PATIENCE, || one.pool.is_up(NodeId(2)) && one.pool.is_up(NodeId(3)))
            .await;
        let mut seen_by_three = three.take_events();
        let (mut taken, mut arrivals) = (0, Arrivals::default());
        for id in 1..=1000 {
            let message = frame(kind::PEER_FIRST, id, &[7; 1000]);
            match one.pool.send(NodeId(2), Lane::Requests, &message) {
                Ok(()) => taken += message.len(),
                Err(not_sent) => assert_eq!(not_sent, NotSent::Full),
            }
            one.send_numbered(3, Lane::Requests, id, 100).await;
            assert!(one.pool.queued_bytes() <= 2 * queue, "{} bytes", one.pool.queued_bytes());
            sleep(Duration::from_millis(5)).await;
        }
        assert!(one.counters().peer_frames_full.get() > 100);
        assert!(taken <= queue + (256 << 10) + 2000, "{taken} bytes for one who does not read");
        let rest = async {
            while arrivals.count < 1000 {
                match seen_by_three.recv().await.unwrap() {
                    Event::Up(..) => {}
                    event => arrivals.take(event),
                }
            }
        };
        within("node 3 has all", PATIENCE, rest).await;
        assert_eq!(one.counters().peers_disconnected.get(), 0);
        connection.close(0u32.into(), b"");
        drop((lanes, endpoint));
        until("the queue is given up", Duration::from_secs(20), || one.pool.queued_bytes() == 0)
            .await;
    });
}
