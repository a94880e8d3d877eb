//! Clocks that jump: they decide nothing but the order of last-writer-wins, and say so (P15).
//!
//! What is documented and checked here, for a node whose clock jumps by an hour:
//! - siblings: nothing changes. Every write through it is acknowledged, no dot is used twice;
//! - last-writer-wins, clock ahead: the other replicas refuse its writes, so that they do not win over
//!   everybody's until real time has caught up. They are refused with `ClockSkew`, or unknown where
//!   its own replica had taken the write already;
//! - clock back again: readings never go back, so its last-writer-wins writes stay refused until it is
//!   restarted, or real time has caught up; then it serves as before;
//! - last-writer-wins, clock behind: what others write is too far ahead of it. It refuses to be
//!   their replica (they have each other), and refuses to overwrite what it holds, with `ClockSkew`.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holm_client::{BucketKind, BucketPolicy};
use holm_protocol::dot::Dot;
use holm_protocol::error::RequestError;
use holm_protocol::ids::{BucketId, Partition};
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Reply, Request, Written};

use crate::harness::clock::FakeClock;
use crate::harness::cluster::Cluster;
use crate::harness::peer::partition_of;
use crate::harness::raw::{Conn, Lane, get, put};
use crate::harness::until;

const HOUR_S: i64 = 3_600;
/// The node whose clock jumps, counted from 0.
const VICTIM: usize = 2;
/// Writes after each jump.
const WRITES: usize = 20;

/// Writers of both kinds of buckets, and what must still be there at the end.
struct Scene {
    cluster: Cluster,
    clock: FakeClock,
    siblings: BucketId,
    lww: BucketId,
    /// Keys of siblings that were acknowledged, each written once.
    acknowledged: Vec<Bytes>,
    /// A dot is one write's in its partition.
    dots: BTreeSet<(Partition, Dot)>,
    lanes: Vec<(Conn, Lane)>,
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Scene {
    async fn new() -> Option<Scene> {
        let mut cluster = Cluster::start(3, &[]).await;
        let clock = FakeClock::give(&mut cluster.nodes[VICTIM])?;
        cluster.nodes[VICTIM].kill();
        cluster.nodes[VICTIM].start().await;
        cluster.until_whole().await;
        let siblings = cluster.bucket("siblings", BucketPolicy::default()).await.id();
        let policy = BucketPolicy { kind: BucketKind::Lww, ..BucketPolicy::default() };
        let lww = cluster.bucket("lww", policy).await.id();
        let (acknowledged, dots, lanes) = (Vec::new(), BTreeSet::new(), Vec::new());
        let mut scene = Scene { cluster, clock, siblings, lww, acknowledged, dots, lanes };
        scene.connect().await;
        Some(scene)
    }

    async fn connect(&mut self) {
        self.lanes.clear();
        for node in 0..3 {
            self.lanes.push(self.cluster.patient_lane(node).await);
        }
    }

    async fn restart(&mut self) {
        self.cluster.nodes[VICTIM].kill();
        self.cluster.nodes[VICTIM].start().await;
        self.cluster.until_whole().await;
        self.connect().await;
    }

    /// How far the victim's readings are ahead, seconds, as a write through it tells.
    async fn ahead_s(&mut self) -> i64 {
        let written = self.write(VICTIM).await;
        (written.hlc.wall_ms() as i64 - now_ms()) / 1_000
    }

    /// Writes a key of siblings through a node. It must be acknowledged.
    async fn write(&mut self, through: usize) -> Written {
        let key = Bytes::from(format!("key-{}", self.acknowledged.len()));
        let put = Put { level: Some(Level::Quorum), ..put(self.siblings, &key, &key) };
        let written = self.lanes[through].1.put(put).await;
        self.note(partition_of(self.siblings, &key), written.dot);
        self.acknowledged.push(key);
        written
    }

    fn note(&mut self, partition: Partition, dot: Dot) {
        assert!(self.dots.insert((partition, dot)), "{dot:?} is used twice in {partition}");
    }

    /// Writes siblings through all nodes.
    async fn write_on(&mut self) {
        for n in 0..WRITES {
            self.write(n % 3).await;
        }
    }

    /// Writes a last-writer-wins key through a node: whether it was done, or its numbered refusal.
    async fn write_lww(&mut self, through: usize, key: &str) -> Result<Dot, RequestError> {
        let put = put(self.lww, key.as_bytes(), b"v");
        let put = Put { level: Some(Level::Quorum), timeout_ms: 1_000, ..put };
        match self.lanes[through].1.call(&Request::Put(put)).await {
            Reply::Written(written) => {
                self.note(partition_of(self.lww, key.as_bytes()), written.dot);
                Ok(written.dot)
            }
            Reply::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Everything acknowledged is there, through every node.
    async fn check(&mut self) {
        for (_, lane) in &mut self.lanes {
            for key in &self.acknowledged {
                let read = get(self.siblings, key);
                let read = Get { level: Some(Level::Quorum), ..read };
                let found = lane.get(read).await;
                assert!(found.siblings.len() == 1 && found.siblings[0].value == key, "{key:?}");
            }
        }
        let log = self.cluster.nodes[VICTIM].log();
        assert!(!log.contains("panic"), "{log}");
    }
}

/// What a last-writer-wins write may be told where clocks differ.
fn is_skew(told: &Result<Dot, RequestError>) -> bool {
    matches!(told, Err(RequestError::ClockSkew { .. } | RequestError::WriteUnknown { .. }))
}

/// Goal: a clock that jumps ahead an hour and back loses nothing, and is told by number where it
/// matters. Method: one of three nodes; writes of both kinds through it and the others.
#[tokio::test]
async fn a_jump_ahead_and_back() {
    let Some(mut scene) = Scene::new().await else { return };
    assert!(scene.ahead_s().await.abs() <= 2, "the clock is right");
    scene.write_lww(VICTIM, "before").await.expect("clocks agree");
    scene.clock.set(HOUR_S);
    until("the jump is seen", async || scene.ahead_s().await >= HOUR_S - 60).await;
    scene.write_on().await;
    let told = scene.write_lww(VICTIM, "ahead").await;
    assert!(is_skew(&told), "{told:?}");
    scene.write_lww(0, "beside").await.expect("the others' clocks agree");
    // Back. Readings stay ahead, and so do the refusals, until a restart.
    scene.clock.set(0);
    scene.write_on().await;
    assert!(scene.ahead_s().await >= HOUR_S - 60, "a reading went back");
    let told = scene.write_lww(VICTIM, "back").await;
    assert!(is_skew(&told), "{told:?}");
    scene.write_lww(0, "beside").await.expect("the others' clocks agree");
    scene.check().await;
    scene.restart().await;
    scene.write_lww(VICTIM, "again").await.expect("the clock is right again");
    scene.write_on().await;
    scene.check().await;
}

/// Goal: the same for a clock that jumps back an hour, under the run of the node and over a restart.
#[tokio::test]
async fn a_jump_back_and_ahead() {
    let Some(mut scene) = Scene::new().await else { return };
    scene.write_lww(0, "known").await.expect("clocks agree");
    scene.clock.set(-HOUR_S);
    scene.write_on().await;
    assert!(scene.ahead_s().await >= -60, "a reading went back");
    // After a restart the node remembers no reading but those in what it stores.
    scene.restart().await;
    until("the jump is seen", async || scene.ahead_s().await <= 60 - HOUR_S).await;
    scene.write_on().await;
    let told = scene.write_lww(VICTIM, "known").await;
    let told = told.expect_err("it would lose against what is there");
    assert!(matches!(told, RequestError::ClockSkew { .. }), "{told:?}");
    scene.write_lww(0, "beside").await.expect("the others are enough");
    scene.clock.set(0);
    until("service goes on", async || scene.write_lww(VICTIM, "known").await.is_ok()).await;
    scene.write_on().await;
    scene.check().await;
}
