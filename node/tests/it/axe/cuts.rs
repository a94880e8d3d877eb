//! Links that are cut, one way or both, that lose packets, swallow long ones, or are narrow.
//!
//! The links and not the processes: each node is a host of its own (`harness::netns`), packets are
//! dropped between hosts, and nobody is told. The clients reach every node all the while, also the
//! one that is cut off, and so see what it answers: it refuses within the deadline, as unknown until
//! the silence is noticed and as unavailable from then on, and reads at `one`. The others go on. Once
//! the link is whole, connections are back within the bound of one handshake, and reads bring together
//! what was written on both sides.

use std::time::Duration;

use holm_protocol::error::RequestError;
use holm_protocol::frame::ALPN_CLIENT;
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Reply, Request, Values};
use tokio::time::Instant;

use super::load::{Load, lock};
use super::rig::{Rig, Setup};
use crate::harness::cluster::ALL_ROLES;
use crate::harness::netns::{Hosts, Way};
use crate::harness::pki::VALID;
use crate::harness::raw::{Conn, Lane, get, kept_alive, put};
use crate::harness::{Dice, until};

/// Acknowledged writes while the link is bad.
const BETWEEN: u64 = 100;
/// Deadline of a call to a node that is cut off, and by how much its answer may be late: the hundred
/// milliseconds that are promised, and what a busy machine adds.
const TIMEOUT_MS: u32 = 500;
const LATE_MAX: Duration = Duration::from_millis(100 + 400);
/// A handshake that was under way when the link came back may have to time out first (3 seconds in
/// these tests), and the pause before the next is at most 200 ms; the rest is for a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(8);
/// Longer than a packet on the path, and so many packets.
const LARGE: usize = 500_000;
/// Packets above this are swallowed: QUIC's smallest path fits, what path discovery has found does not.
const LONG: u32 = 1_300;

/// What happens to the links of one node, or of one region, to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing gets through.
    Cut,
    /// It is heard and hears nothing.
    Deaf,
    /// It hears and is not heard.
    Mute,
    /// The last region is cut off.
    Region,
    /// Thirty packets of a hundred are lost.
    Loss,
    /// Long packets are lost.
    LongPackets,
    /// A megabyte a second.
    Narrow,
}

impl Harm {
    fn is_cut(self) -> bool {
        matches!(self, Harm::Cut | Harm::Deaf | Harm::Mute | Harm::Region)
    }
}

/// A rig whose nodes are hosts. The nodes end before their hosts go.
pub(crate) struct Net {
    pub(crate) rig: Rig,
    pub(crate) hosts: Hosts,
    regions: Vec<(usize, u8)>,
}

impl Net {
    /// So many nodes and replicas per region. `None`, with the reason on standard error, where there
    /// can be no such thing.
    pub(crate) async fn start(regions: &[(usize, u8)]) -> Option<Net> {
        let hosts = Hosts::make(regions.iter().map(|&(nodes, _)| nodes).sum())?;
        let setup = Setup {
            regions: regions.to_vec(),
            images: false,
            flags: vec![
                // Segments that travel as one packet would be dropped as one.
                "--net-gso=false",
                "--net-idle-timeout-ms=2000",
                "--net-keepalive-ms=300",
            ],
            repeat: "cargo xtask soak --only cut".to_owned(),
        };
        let flags = setup.flags.clone();
        let rig = Rig::start_with(setup, |place, id| hosts.node(place, id, &flags)).await;
        let rig = rig.unwrap_or_else(|why| panic!("{why}"));
        Some(Net { rig, hosts, regions: regions.to_vec() })
    }

    /// One round with this harm.
    pub(crate) async fn round(&mut self, seed: u64, harm: Harm) {
        let Net { rig, hosts, regions } = self;
        let strike = async |rig: &mut Rig, load: &Load, dice: &mut Dice| {
            strike(harm, (hosts, regions), rig, (load, dice)).await;
        };
        rig.round(seed, strike).await;
        assert_eq!((rig.tally.excused, rig.forgetful().len()), (0, 0), "{}", rig.tally);
    }
}

async fn strike(
    harm: Harm,
    (hosts, regions): (&Hosts, &[(usize, u8)]),
    rig: &mut Rig,
    (load, dice): (&Load, &mut Dice),
) {
    let count = rig.nodes.len();
    let victims: Vec<usize> = match harm {
        Harm::Region => (count - regions[regions.len() - 1].0..count).collect(),
        _ => vec![dice.below(count)],
    };
    let others: Vec<usize> = (0..count).filter(|at| !victims.contains(at)).collect();
    for &at in &victims {
        match harm {
            Harm::Cut | Harm::Region => hosts.cut(at, &others, Way::Both),
            Harm::Deaf => hosts.cut(at, &others, Way::In),
            Harm::Mute => hosts.cut(at, &others, Way::Out),
            Harm::Loss => hosts.lose(at, &others, 30),
            Harm::LongPackets => hosts.swallow_long(at, &others, LONG),
            Harm::Narrow => hosts.narrow(at, "8mbit"),
        }
    }
    let (_conn, mut lane) = lane(rig, victims[0]).await;
    if harm.is_cut() {
        refuses_in_time(rig, (victims[0], dice.roll()), &mut lane).await;
        if harm == Harm::Region {
            serves_its_region(rig, &format!("local-{}", dice.roll()), &mut lane).await;
        }
    } else {
        carries_large_values(rig, &mut lane).await;
    }
    load.more(BETWEEN).await;
    if harm != Harm::Narrow {
        assert!(hosts.dropped() > 0, "{harm:?} had no effect");
    }
    hosts.heal();
    let healed = Instant::now();
    rig.until_whole().await;
    let back = healed.elapsed();
    eprintln!("{harm:?} of {victims:?}: connections are back after {back:?}");
    assert!(back < BACK_WITHIN, "{harm:?}: connections are back only after {back:?}");
}

async fn lane(rig: &Rig, at: usize) -> (Conn, Lane) {
    let me = rig.pki.client(ALL_ROLES, VALID);
    let node = &rig.nodes[at];
    let quic = kept_alive(rig.pki.quic(Some(&me), ALPN_CLIENT));
    let conn = Conn::open(node.quic, node.id, quic).await.unwrap();
    let lane = conn.client_lane().await;
    (conn, lane)
}

/// A node that is cut off answers no write at `quorum`, each within its deadline, and says so as soon
/// as the silence is noticed; at `one` it reads. `names` makes keys that no other round has.
async fn refuses_in_time(rig: &Rig, (at, names): (usize, u64), lane: &mut Lane) {
    let bucket = lock(&rig.world).siblings();
    let mut unknown = 0;
    until("the cut is noticed", async || {
        let put = put(bucket, format!("cut-{names}-{unknown}").as_bytes(), b"v");
        let put = Put { level: Some(Level::Quorum), timeout_ms: TIMEOUT_MS, ..put };
        let began = Instant::now();
        let reply = lane.call(&Request::Put(put)).await;
        let late = began.elapsed().saturating_sub(Duration::from_millis(TIMEOUT_MS.into()));
        assert!(late < LATE_MAX, "{late:?} after the deadline: {reply:?}");
        match reply {
            Reply::Error(RequestError::WriteUnknown { .. }) => unknown += 1,
            Reply::Error(RequestError::WriteUnavailable { .. }) => return true,
            other => panic!("a node that is cut off answers {other:?}"),
        }
        false
    })
    .await;
    let read = Get { level: Some(Level::One), ..get(bucket, b"any") };
    lane.get(read).await;
    let read = Get { level: Some(Level::Quorum), timeout_ms: TIMEOUT_MS, ..get(bucket, b"any") };
    let refused = lane.refusal(&Request::Get(read)).await;
    assert!(matches!(refused, RequestError::ReadUnavailable { .. }), "{refused}");
    eprintln!("{}: {unknown} writes unknown before the cut was noticed", rig.nodes[at].id);
}

/// A region that is cut off goes on within itself.
async fn serves_its_region(rig: &Rig, key: &str, lane: &mut Lane) {
    let bucket = lock(&rig.world).siblings();
    let local = Some(Level::LocalQuorum);
    lane.put(Put { level: local, ..put(bucket, key.as_bytes(), b"v") }).await;
    let read = lane.get(Get { level: local, ..get(bucket, key.as_bytes()) }).await;
    assert_eq!(read.siblings[0].value, "v");
}

/// A value of many packets reaches all replicas and comes back. A link that loses packets may lose its
/// connection too, and the write's outcome with it: then it is written again.
async fn carries_large_values(rig: &Rig, lane: &mut Lane) {
    let bucket = lock(&rig.world).siblings();
    let value = vec![7; LARGE];
    let began = Instant::now();
    let level = Some(Level::All);
    until("a large value reaches all replicas", async || {
        let seen = lane.call(&Request::Get(get(bucket, b"large"))).await;
        let Reply::Values(Values { context, .. }) = seen else { return false };
        let large = Put { level, context, ..put(bucket, b"large", &value) };
        matches!(lane.call(&Request::Put(large)).await, Reply::Written(_))
    })
    .await;
    until("it comes back", async || {
        let read = Get { level, ..get(bucket, b"large") };
        match lane.call(&Request::Get(read)).await {
            Reply::Values(found) => {
                assert_eq!(found.siblings[0].value, value);
                true
            }
            _ => false,
        }
    })
    .await;
    eprintln!("{LARGE} bytes to all and back in {:?}", began.elapsed());
}

/// Goal: a node whose link is cut, whichever way, refuses in time while the others serve, and is back
/// soon after; nothing acknowledged is lost, nothing refused appears. Method: a round for each way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_cut_off_by_its_link() {
    let Some(mut net) = Net::start(&[(3, 3)]).await else { return };
    for (seed, harm) in (1..).zip([Harm::Cut, Harm::Deaf, Harm::Mute]) {
        net.round(seed, harm).await;
    }
    net.rig.look_back().await;
}

/// Goal: a region that is cut off serves at `local_quorum`, the rest at `quorum`, and both come
/// together again. Method: three nodes and two; the two are cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_is_cut_off_by_its_link() {
    let Some(mut net) = Net::start(&[(3, 3), (2, 2)]).await else { return };
    net.round(1, Harm::Region).await;
    net.rig.look_back().await;
}

/// Goal: a link that loses a third of its packets, swallows long ones, or is narrow, makes everything
/// slower and nothing wrong; a value of hundreds of packets still gets through. Method: a round each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_links_are_only_slow() {
    let Some(mut net) = Net::start(&[(3, 3)]).await else { return };
    for (seed, harm) in (1..).zip([Harm::Loss, Harm::LongPackets, Harm::Narrow]) {
        net.round(seed, harm).await;
    }
    net.rig.look_back().await;
}
