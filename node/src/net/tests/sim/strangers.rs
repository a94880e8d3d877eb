//! Who is refused, on paths that may swallow the refusal.

use std::time::Duration;

use holm_client::error::{ConnectError, DialError};
use holm_client::{Client, RequestError};
use holm_protocol::frame::ALPN_CLIENT;
use holm_protocol::handshake::{self, Lane, PeerHello};
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::message::{Reply, kind};
use quinn::ConnectionError;
use tokio::time::sleep;

use super::super::super::close;
use super::super::support::{Foreign, TestNode, VALID, frame};
use super::explore;
use super::network::Link;
use super::world::{PATIENCE, Sim, know, until, within};

/// A hello of node 2 to node 1 with one thing wrong, and the number of the refusal.
fn wrong_hello(node: &TestNode, case: u64) -> (Vec<u8>, u16) {
    let change = |change: &dyn Fn(&mut PeerHello)| {
        let mut hello = node.local.hello(Lane::Requests, Default::default());
        (hello.node, hello.run) = (NodeId(2), Actor(22));
        change(&mut hello);
        frame(kind::HELLO, 8, &handshake::encode(&hello)).to_vec()
    };
    match case {
        0 => (change(&|hello| hello.cluster = "other".to_owned()), 3),
        1 => (change(&|hello| hello.fingerprint ^= 1), 5),
        2 => (change(&|hello| hello.node = NodeId(3)), 1),
        _ => {
            let mut version = change(&|_| {});
            version[14] = 9;
            (version, 2)
        }
    }
}

/// What a stranger learns: the number of an error frame, or of the close.
async fn learns(stranger: &Foreign, hello: &[u8]) -> Option<u16> {
    let (mut send, recv) = stranger.connection.open_bi().await.ok()?;
    send.write_all(hello).await.ok()?;
    let mut reader = super::super::super::lane::LaneReader::new(recv, 4096);
    let answer = reader.hello(tokio::time::Instant::now() + PATIENCE).await;
    if let Ok(frame) = answer {
        match Reply::decode(&frame) {
            Ok(Reply::Error(error)) => return Some(error.code()),
            other => panic!("welcomed: {other:?}"),
        }
    }
    match stranger.connection.closed().await {
        ConnectionError::ApplicationClosed(closed) => {
            Some(u64::from(closed.error_code).try_into().unwrap())
        }
        _ => None,
    }
}

/// Goal: a node with a valid certificate and a wrong hello is refused by the number of what is
/// wrong, also where packets get lost; it is never up. Method: a bad path, one thing wrong for each
/// seed. The number comes in an error frame or with the close; where a black-out swallows both, the
/// next attempt tells.
#[test]
fn sim_wrong_hellos_are_refused_by_number() {
    explore("sim_wrong_hellos_are_refused_by_number", 100, async |sim: &Sim| {
        let mut link = sim.bad_link();
        link.loss = sim.pick(0.0..0.25);
        sim.net.set_usual(link);
        let mut one = sim.node(1, 11);
        let (hello, code) = wrong_hello(&one, sim.pick(0..4));
        let mut learnt = None;
        for _ in 0..2 {
            let stranger = within("a connection", PATIENCE, sim.peer(&one, 2)).await;
            learnt = within("the refusal", PATIENCE, learns(&stranger, &hello)).await;
            if learnt.is_some() {
                break;
            }
        }
        assert_eq!(learnt, Some(code));
        until("counted", PATIENCE, || one.counters().refused_hello.get() >= 1).await;
        assert!(one.seen().is_empty(), "the handler saw none of it");
    });
}

/// Goal: a client of another cluster is told so, with both names, on a bad path too.
#[test]
fn sim_clients_of_another_cluster_are_told_so() {
    explore("sim_clients_of_another_cluster_are_told_so", 50, async |sim: &Sim| {
        sim.net.set_usual(sim.bad_link());
        let one = sim.node(1, 11);
        let refused = within("the refusal", PATIENCE, sim.client(&one, "other").connect()).await;
        let Err(ConnectError::Unreachable { tried }) = refused.map(drop::<Client>) else {
            panic!("connected, or failed otherwise");
        };
        let asked = "other".to_owned();
        let error = RequestError::WrongCluster { here: "test".to_owned(), asked };
        assert_eq!(tried, [(NodeId(1), DialError::Refused { error })]);
        assert_eq!(one.counters().refused_hello.get(), 1);
    });
}

/// Goal: nodes of two clusters that share a CA and, by mistake, addresses, never come up for each
/// other, however long they try on a bad path.
#[test]
fn sim_nodes_of_two_clusters_stay_apart() {
    explore("sim_nodes_of_two_clusters_stay_apart", 30, async |sim: &Sim| {
        sim.net.set_usual(sim.bad_link());
        let mut config = sim.config(2);
        config.cluster.id = "other".to_owned();
        let (mut one, mut two) = (sim.node(1, 11), sim.start(&config, 22));
        know(&one, &[2]);
        know(&two, &[1]);
        sleep(Duration::from_secs(60)).await;
        for node in [&mut one, &mut two] {
            assert!(node.counters().refused_hello.get() >= 3);
            assert!(node.counters().dials_failed.get() >= 3);
            assert_eq!(node.counters().peers_connected.get(), 0);
            assert!(node.seen().is_empty());
        }
    });
}

/// Goal: connections that say nothing are closed within the handshake timeout, also if their packets
/// get lost on the way, and leave nothing behind. Method: a client without a lane, one with half a
/// hello, a peer without a lane, one that vanishes in its TLS handshake.
#[test]
fn sim_silence_is_closed_in_time() {
    explore("sim_silence_is_closed_in_time", 50, async |sim: &Sim| {
        let link = sim.bad_link();
        sim.net.set_usual(link);
        let one = sim.node(1, 11);
        let tls = || sim.pki().tls(Some(&sim.pki().client(VALID)), ALPN_CLIENT);
        let laneless = sim.connect(&one, tls()).await;
        let half = sim.connect(&one, tls()).await;
        let mut lane = half.open().await;
        lane.write(b"\0").await;
        let peer = sim.peer(&one, 2).await;
        let net = sim.config(1).net;
        let limit = net.handshake_timeout + net.idle_timeout + Duration::from_secs(8);
        for silent in [&laneless, &half, &peer] {
            match within("closed", limit, silent.connection.closed()).await {
                ConnectionError::ApplicationClosed(closed) => {
                    assert_eq!(closed.error_code, close::SILENT);
                }
                // The one packet that says so was lost.
                ConnectionError::TimedOut | ConnectionError::Reset => {}
                other => panic!("{other}"),
            }
        }
        let vanishing = sim.endpoint();
        let gone = vanishing.local_addr().unwrap();
        sim.net.change(one.addr, gone, |link| *link = Link { cut: true, ..*link });
        let attempt = Foreign::connect_from(vanishing, &one, tls());
        let _ = tokio::time::timeout(Duration::from_secs(1), attempt).await;
        sim.net.unbind(gone);
        until("nothing is left", PATIENCE, || one.network.open_connections() == 0).await;
        assert_eq!(one.counters().refused_silent.get(), 3);
    });
}
