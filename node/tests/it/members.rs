//! Membership among real processes: who dies is called down, who stops has left, who is back is known
//! as another start, who has a seed joins, and who is cut off disagrees.

use std::time::Duration;

use holm_client::{Client, NodeId};
use holm_protocol::admin::{AdminRequest, LinkRule, MemberState, PeerOpinion};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::cluster::Cluster;
use crate::harness::holmd::Holmd;
use crate::harness::{until, within};

/// Five times as fast as by default.
const FAST: &[&str] = &[
    "--membership-probe-interval-ms=300",
    "--membership-probe-timeout-ms=100",
    "--membership-suspicion-ms=900",
    "--dev-enabled=true",
];

/// From a death until everyone says so: some probes, the suspicion, and a busy machine.
const DOWN_WITHIN: Duration = Duration::from_secs(8);

/// From a node's stop until everyone says so: no probe is needed.
const LEFT_WITHIN: Duration = Duration::from_secs(2);

/// What a node thinks of another; `None` if it cannot be asked, or has not heard of it.
async fn asked(client: &Client, of: u64, by: u64) -> Option<PeerOpinion> {
    let status = within("what a node thinks", client.admin().members(NodeId(by))).await;
    status.ok()?.peers.into_iter().find(|opinion| opinion.node == NodeId(of))
}

async fn opinion(client: &Client, of: u64, by: u64) -> PeerOpinion {
    asked(client, of, by).await.unwrap()
}

/// Waits until all of these nodes think so of one. How long it took.
async fn until_all_think(client: &Client, by: &[u64], of: u64, state: MemberState) -> Duration {
    let began = Instant::now();
    until(&format!("{of} is {} for all", state.name()), async || {
        for &by in by {
            if asked(client, of, by).await.is_none_or(|opinion| opinion.state != state) {
                return false;
            }
        }
        true
    })
    .await;
    began.elapsed()
}

/// Goal: a killed node is called down within the bound by all others, and is alive under a new epoch once
/// it is back; one that is told to stop has left for all, at once, and nobody says worse later; what is
/// said of it is on the pages too. Method: node 3 of three.
#[tokio::test]
async fn the_dead_are_down_and_the_stopped_have_left() {
    let mut cluster = Cluster::start(3, FAST).await;
    let client = cluster.client().await;
    until_all_think(&client, &[1, 2], 3, MemberState::Alive).await;
    let first = opinion(&client, 3, 1).await;
    assert!(first.connected && first.rtt_us > 0 && first.epoch.boot > 0);
    assert_eq!(first.addr, Some(cluster.nodes[2].quic));
    cluster.nodes[2].kill();
    let took = until_all_think(&client, &[1, 2], 3, MemberState::Down).await;
    assert!(took < DOWN_WITHIN, "{took:?}");
    assert_eq!(cluster.nodes[0].metric(r#"holm_members{state="down"}"#).await, 1.0);
    cluster.nodes[2].start().await;
    until_all_think(&client, &[1, 2], 3, MemberState::Alive).await;
    let second = opinion(&client, 3, 1).await.epoch;
    assert_eq!(second.boot, first.epoch.boot + 1);
    until_all_think(&client, &[3], 1, MemberState::Alive).await;

    cluster.nodes[2].signal(Signal::TERM);
    let took = until_all_think(&client, &[1, 2], 3, MemberState::Left).await;
    assert!(took < LEFT_WITHIN, "{took:?}");
    until("it has stopped", async || cluster.nodes[2].ended().is_some()).await;
    // Long enough for a suspicion and what follows, had there been one.
    let node = &cluster.nodes[0];
    let changes = r#"holm_membership_changes_total{state="down"}"#;
    assert_eq!(node.metric(changes).await, 1.0, "it was down once, when it was killed");
    assert_eq!(opinion(&client, 3, 1).await.state, MemberState::Left);
    cluster.nodes[2].kill();
    cluster.nodes[2].start().await;
    until_all_think(&client, &[1, 2], 3, MemberState::Alive).await;
    assert_eq!(opinion(&client, 3, 2).await.epoch.boot, second.boot + 1);
}

/// Goal: a node with a new disk, whose count of starts begins again, is listened to at once, and
/// remembers what others knew. Method: wipe node 2 after its second start.
#[tokio::test]
async fn a_new_disk_counts_on() {
    let mut cluster = Cluster::start(2, FAST).await;
    let client = cluster.client().await;
    cluster.nodes[1].kill();
    cluster.nodes[1].start().await;
    until("the second start is known", async || opinion(&client, 2, 1).await.epoch.boot == 2).await;
    cluster.nodes[1].kill();
    cluster.wipe(1);
    cluster.nodes[1].start().await;
    until("the start after it is known", async || {
        let known = opinion(&client, 2, 1).await;
        known.epoch.boot == 3 && known.state == MemberState::Alive
    })
    .await;
    cluster.nodes[1].kill();
    cluster.nodes[1].start().await;
    until("it was remembered", async || opinion(&client, 2, 1).await.epoch.boot == 4).await;
}

/// Goal: a node that is in no layout and knows only a seed learns the layout, and is known to all, with
/// its address. Method: two nodes with a layout, a third with node 1 as its seed.
#[tokio::test]
async fn a_seed_is_enough_to_join() {
    let cluster = Cluster::start(2, FAST).await;
    let client = cluster.client().await;
    let dir = tempfile::tempdir().unwrap();
    let seed = format!("--cluster-seeds=1@{}", cluster.nodes[0].quic);
    let flags: Vec<&str> = FAST.iter().copied().chain([seed.as_str()]).collect();
    let mut joiner = Holmd::new(&cluster.pki, dir.path(), 3, &flags);
    joiner.start().await;
    until_all_think(&client, &[1, 2], 3, MemberState::Alive).await;
    assert_eq!(opinion(&client, 3, 2).await.addr, Some(joiner.quic));
    let (code, page) = joiner.get("/readyz").await;
    assert!(code == 503 && page.contains("not in the layout"), "{page}");
}

/// Goal: nodes that are cut off from each other disagree, and each says what it thinks; once healed they
/// agree again, and the clocks of one machine are equal. Method: node 3 of three is cut off at all
/// sockets for a while.
#[tokio::test]
async fn the_cut_off_disagree() {
    let cluster = Cluster::start(3, FAST).await;
    let client = cluster.client().await;
    until_all_think(&client, &[1, 2], 3, MemberState::Alive).await;
    let cut = async |cut: bool| {
        for (by, to) in [(1, vec![3]), (2, vec![3]), (3, vec![1, 2])] {
            let rule = |to| LinkRule { to: NodeId(to), delay_us: 0, cut };
            let links = AdminRequest::Links(to.into_iter().map(rule).collect());
            within("a cut", client.admin().request(Some(NodeId(by)), links)).await.unwrap();
        }
    };
    cut(true).await;
    until_all_think(&client, &[1, 2], 3, MemberState::Down).await;
    until_all_think(&client, &[3], 2, MemberState::Down).await;
    assert_eq!(opinion(&client, 2, 1).await.state, MemberState::Alive, "they disagree about 2");
    cut(false).await;
    until_all_think(&client, &[1, 2], 3, MemberState::Alive).await;
    until_all_think(&client, &[3], 2, MemberState::Alive).await;
    until_all_think(&client, &[3], 1, MemberState::Alive).await;
    let clock = opinion(&client, 2, 1).await.clock.expect("measured when they met");
    assert!(clock.offset_us.unsigned_abs() <= clock.error_us + 1_000, "{clock:?}");
}
