//! Links between nodes: up, down, again; and the development switch under them.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use holm_protocol::handshake::Lane;
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::limits::OBJECT_LEN_MAX;
use holm_protocol::message::kind::PEER_FIRST;

use super::super::devnet::LinkEffect;
use super::super::outbox::NotSent;
use super::support::{Event, Pki, TestNode, frame, roomy, start, until};

fn node(pki: &Pki, id: u64, run: u64) -> TestNode {
    start(pki, roomy(id, pki.dir.path()), run, true)
}

fn know(node: &TestNode, others: &[&TestNode]) {
    node.pool.set_peers(others.iter().map(|other| (other.local.node, other.addr)));
}

async fn received(node: &mut TestNode, count: usize) -> Vec<(Lane, u64, usize)> {
    let mut got = Vec::new();
    while got.len() < count {
        let Event::Peer(from, lane, frames) = node.event().await else { panic!("no frames") };
        assert_ne!(from, node.local.node);
        got.extend(frames.iter().map(|frame| (lane, frame.id, frame.body.len())));
    }
    got
}

/// Goal: two nodes that know each other have one connection, dialled by the smaller id, and frames go
/// both ways on both lanes, in order, also the longest. Method: as said.
#[tokio::test]
async fn frames_go_both_ways() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    know(&one, &[&two]);
    know(&two, &[&one]);
    let (seen_by_one, seen_by_two) = (one.up(2).await, two.up(1).await);
    assert_eq!((seen_by_one.run, seen_by_two.run), (Actor(22), Actor(11)));
    assert_eq!(seen_by_one.metadata.layout, 3);
    let same = frame(PEER_FIRST, 0, b"encoded once");
    let long = frame(PEER_FIRST, 1, &vec![1; OBJECT_LEN_MAX]);
    for (from, to) in [(&one, 2), (&two, 1)] {
        let link = from.pool.link(NodeId(to));
        assert_eq!(link.send(Lane::Requests, &same), Ok(()));
        assert_eq!(from.pool.send(NodeId(to), Lane::Bulk, &long), Ok(()));
        for id in 2..100 {
            link.append(Lane::Requests, |out| out.extend_from_slice(&frame(PEER_FIRST, id, b"x")))
                .unwrap();
        }
    }
    for node in [&mut one, &mut two] {
        let got = received(node, 100).await;
        let ids = |wanted| got.iter().filter(move |(lane, ..)| *lane == wanted);
        assert!(ids(Lane::Requests).map(|(_, id, _)| *id).eq([0].into_iter().chain(2..100)));
        assert_eq!(ids(Lane::Bulk).collect::<Vec<_>>(), [&(Lane::Bulk, 1, OBJECT_LEN_MAX)]);
        assert_eq!(node.counters().peers_connected.get(), 1);
    }
    assert_eq!((one.counters().dials.get(), two.counters().dials.get()), (1, 0));
    assert!(one.pool.rtt(NodeId(2)).is_some());
    assert!(one.pool.status()[0].connected);
}

/// Goal: it is enough that one side knows the other, also if that one should wait to be dialled.
#[tokio::test]
async fn the_larger_id_dials_if_it_must() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    know(&two, &[&one]);
    two.up(1).await;
    one.up(2).await;
    assert_eq!((one.counters().dials.get(), two.counters().dials.get()), (0, 1));
}

/// Goal: a node that stops is seen to be down, and a new run of it at the same address is reached
/// again. Method: stop and start node 2.
#[tokio::test]
async fn links_come_back() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    know(&one, &[&two]);
    one.up(2).await;
    two.up(1).await;
    let addr = two.addr;
    two.network.shutdown(Duration::from_secs(10)).await;
    one.down(2).await;
    assert_eq!(one.pool.send(NodeId(2), Lane::Requests, b""), Err(NotSent::NotConnected));
    assert_eq!(one.counters().peer_frames_unconnected.get(), 1);
    until("an attempt has failed", || one.counters().dials_failed.get() > 0).await;
    until("the address is free", || UdpSocket::bind(addr).is_ok()).await;
    let mut config = roomy(2, pki.dir.path());
    config.listen.quic = addr;
    let mut two = start(&pki, config, 23, true);
    assert_eq!(one.up(2).await.run, Actor(23));
    two.up(1).await;
}

/// Goal: a node that is no longer wanted is disconnected, and not reached for again.
#[tokio::test]
async fn unwanted_links_are_closed() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    know(&one, &[&two]);
    one.up(2).await;
    two.up(1).await;
    know(&one, &[]);
    one.down(2).await;
    two.down(1).await;
    assert!(one.pool.status().is_empty());
}

/// Goal: nodes with different settings do not come together, and it is counted.
#[tokio::test]
async fn different_settings_keep_nodes_apart() {
    let pki = Pki::new();
    let mut one = node(&pki, 1, 11);
    let mut config = roomy(2, pki.dir.path());
    config.limits.max_clock_skew_ms += 1;
    let two = start(&pki, config, 22, true);
    know(&one, &[&two]);
    until("refused twice", || two.counters().refused_hello.get() >= 2).await;
    assert!(one.counters().dials_failed.get() >= 1);
    assert!(one.events.try_recv().is_err());
}

/// Goal: a node that claims an address under another id is not taken for it: the certificate decides.
#[tokio::test]
async fn the_dialled_node_must_be_the_one_meant() {
    let pki = Pki::new();
    let (mut one, two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    one.pool.set_peers([(NodeId(3), two.addr)]);
    until("failed", || one.counters().dials_failed.get() >= 2).await;
    assert_eq!(two.counters().peers_connected.get(), 0);
    assert!(one.events.try_recv().is_err());
}

/// Goal: garbage from a node ends its connection with the number, and it connects again.
#[tokio::test]
async fn garbage_between_nodes_ends_the_connection() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    know(&one, &[&two]);
    one.up(2).await;
    two.up(1).await;
    one.pool.send(NodeId(2), Lane::Requests, &[0xff; 100]).unwrap();
    two.down(1).await;
    one.down(2).await;
    assert_eq!(two.counters().lanes_malformed.get(), 1);
    one.up(2).await;
    two.up(1).await;
}

fn rule(node: &TestNode, to: SocketAddr, delay_ms: u64, cut: bool) {
    let effect = LinkEffect { delay: Duration::from_millis(delay_ms), cut };
    node.network.link_rules().unwrap().set([(to, effect)]);
}

/// Goal: delays add to the round trip; a cut ends the link at both ends; healing brings it back.
/// Method: delays of 40 ms one way, then cut, then none.
#[tokio::test]
async fn delays_and_cuts_are_felt() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    rule(&one, two.addr, 40, false);
    rule(&two, one.addr, 40, false);
    know(&one, &[&two]);
    one.up(2).await;
    two.up(1).await;
    assert!(one.pool.rtt(NodeId(2)).unwrap() >= Duration::from_millis(80));
    let start = Instant::now();
    one.pool.send(NodeId(2), Lane::Requests, &frame(PEER_FIRST, 9, b"x")).unwrap();
    assert_eq!(received(&mut two, 1).await, [(Lane::Requests, 9, 1)]);
    assert!(start.elapsed() >= Duration::from_millis(40));
    assert!(one.counters().dev_delayed.get() > 0);

    rule(&one, two.addr, 0, true);
    rule(&two, one.addr, 0, true);
    one.down(2).await;
    two.down(1).await;
    assert!(one.counters().dev_cut.get() > 0);

    one.network.link_rules().unwrap().set([]);
    two.network.link_rules().unwrap().set([]);
    one.up(2).await;
    two.up(1).await;
}

/// Goal: large transfers survive a delayed link: offloaded sends of many datagrams are delayed whole.
/// Method: an object of the largest size with 20 ms each way.
#[tokio::test]
async fn large_frames_pass_a_delayed_link() {
    let pki = Pki::new();
    let (mut one, mut two) = (node(&pki, 1, 11), node(&pki, 2, 22));
    rule(&one, two.addr, 20, false);
    rule(&two, one.addr, 20, false);
    know(&one, &[&two]);
    one.up(2).await;
    two.up(1).await;
    one.pool.send(NodeId(2), Lane::Bulk, &frame(PEER_FIRST, 1, &vec![1; OBJECT_LEN_MAX])).unwrap();
    assert_eq!(received(&mut two, 1).await, [(Lane::Bulk, 1, OBJECT_LEN_MAX)]);
}

/// Goal: what waits for a node is bounded. Method: cut the link, and send until refused.
#[tokio::test]
async fn queues_to_nodes_are_bounded() {
    let pki = Pki::new();
    let mut config = roomy(1, pki.dir.path());
    config.limits.peer_queue_bytes_max = 64 << 10;
    let mut one = start(&pki, config, 11, true);
    let mut two = node(&pki, 2, 22);
    know(&one, &[&two]);
    one.up(2).await;
    two.up(1).await;
    let message = frame(PEER_FIRST, 1, &[0; 10_000]);
    // Nothing is written meanwhile: this test does not give way to the network.
    let sent = (0..100).filter(|_| one.pool.send(NodeId(2), Lane::Requests, &message).is_ok());
    assert_eq!(sent.count(), 6);
    assert_eq!(one.counters().peer_frames_full.get(), 94);
    assert_eq!(one.pool.queued_bytes(), 6 * message.len());
    assert_eq!(received(&mut two, 6).await.len(), 6);
}
