//! Kills, stops and restarts: with `sync = always` an acknowledged write survives them all (P1).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_client::{Bucket, Level, Outcome, PutError};
use holm_protocol::admin::{AdminReply, AdminRequest, ReplicaState};
use holm_protocol::message::Request;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::harness::cluster::Cluster;
use crate::harness::raw::{code, get, put};
use crate::harness::{Dice, until, within};

/// Writers at the same time.
const WRITERS: u64 = 16;
/// How long a write may take before it is *unknown*.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What the client was told of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Acknowledged,
    MayHaveHappened,
    NothingHappened,
}

/// Writers that put every key once, and what they were told.
struct Load {
    told: Arc<Mutex<BTreeMap<String, Told>>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    fn start(bucket: &Bucket) -> Load {
        let told: Arc<Mutex<BTreeMap<String, Told>>> = Arc::default();
        let acknowledged: Arc<AtomicU64> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (told, acknowledged) = (told.clone(), acknowledged.clone());
            let (stop, bucket) = (stop.clone(), bucket.clone());
            writers.spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{writer}-{n}");
                    let outcome = write(&bucket, &key).await;
                    told.lock().unwrap().insert(key, outcome);
                    match outcome {
                        Told::Acknowledged => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        // Refused at once while nodes are down: no need to hurry.
                        _ => sleep(Duration::from_millis(10)).await,
                    }
                }
            });
        }
        Load { told, acknowledged, stop, writers }
    }

    /// Waits until so many more writes were acknowledged.
    async fn more(&self, count: u64) {
        let target = self.acknowledged.load(Ordering::Relaxed) + count;
        let reached = async || self.acknowledged.load(Ordering::Relaxed) >= target;
        until("writes are acknowledged", reached).await;
    }

    async fn finish(mut self) -> BTreeMap<String, Told> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = within("writers end", self.writers.join_next()).await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

fn value_of(key: &str) -> Bytes {
    format!("the value of {key}").into()
}

async fn write(bucket: &Bucket, key: &str) -> Told {
    let put = bucket.put(key.to_owned(), value_of(key)).level(Level::Quorum).timeout(PATIENCE);
    match within("a put", put.send()).await {
        Ok(_) => Told::Acknowledged,
        Err(error) if outcome(&error) == Outcome::NothingHappened => Told::NothingHappened,
        Err(_) => Told::MayHaveHappened,
    }
}

fn outcome(error: &PutError) -> Outcome {
    match error {
        PutError::Unknown { .. } => Outcome::MayHaveHappened,
        PutError::Refused { error, .. } => error.outcome(),
        _ => Outcome::NothingHappened,
    }
}

/// A key's values at `quorum`. A read that meets a node which was killed may have to be repeated.
async fn read(bucket: &Bucket, key: &str) -> Vec<Bytes> {
    loop {
        let get = bucket.get(key.to_owned()).level(Level::Quorum).timeout(PATIENCE);
        if let Ok(read) = get.send().await {
            return read.siblings().iter().map(|sibling| sibling.value.clone()).collect();
        }
    }
}

/// Reads everything at `quorum` and compares it with what the writers were told.
async fn check(bucket: &Bucket, told: &BTreeMap<String, Told>) {
    let count = |what| told.values().filter(|&&told| told == what).count();
    let acknowledged = count(Told::Acknowledged);
    assert!(acknowledged > 200, "only {acknowledged} of {} writes were acknowledged", told.len());
    let mut reads = JoinSet::new();
    let mut wrong = Vec::new();
    for (key, &told) in told {
        let (bucket, key) = (bucket.clone(), key.clone());
        reads.spawn(async move {
            let values = within("a get", read(&bucket, &key)).await;
            let whole = values == [value_of(&key)];
            let fine = match told {
                Told::Acknowledged => whole,
                Told::MayHaveHappened => whole || values.is_empty(),
                Told::NothingHappened => values.is_empty(),
            };
            (!fine).then(|| format!("{key}: {told:?}, read {values:?}"))
        });
        if reads.len() >= 64 {
            wrong.extend(reads.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(read) = reads.join_next().await {
        wrong.extend(read.unwrap());
    }
    assert!(wrong.is_empty(), "{} of {} wrong: {wrong:#?}", wrong.len(), told.len());
}

/// Goal: no acknowledged write is lost and none is invented, whoever is killed. Method: writers
/// under way; one node killed and restarted, each in turn; all killed at once and restarted, several
/// times; then every key is read at `quorum`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kills() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await;
    let load = Load::start(&bucket);
    load.more(100).await;
    for victim in 0..3 {
        cluster.nodes[victim].kill();
        load.more(30).await;
        cluster.nodes[victim].start().await;
        cluster.until_whole().await;
        load.more(30).await;
    }
    for _ in 0..4 {
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        for node in &mut cluster.nodes {
            node.spawn();
        }
        cluster.until_whole().await;
        load.more(50).await;
    }
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    let told = load.finish().await;
    for node in &mut cluster.nodes {
        node.start().await;
    }
    cluster.until_whole().await;
    assert!(told.values().any(|&told| told != Told::Acknowledged), "no kill was noticed");
    check(&bucket, &told).await;
    for node in &cluster.nodes {
        assert_eq!(node.metric("holm_node_amnesia").await, 0.0, "a kill is no amnesia");
    }
}

/// Goal: a node that was away becomes whole by itself, with nobody reading (I6). Method: writers
/// under way, a kill, more writes, a start; then what each replica holds of every key and has seen of
/// its partition, as `explain` has it, which repairs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_catches_up_by_itself() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await;
    let load = Load::start(&bucket);
    load.more(200).await;
    cluster.nodes[2].kill();
    load.more(500).await;
    let told = load.finish().await;
    cluster.nodes[2].start().await;
    cluster.until_whole().await;
    let (_conn, mut lane) = cluster.lane(0).await;
    for key in told.keys() {
        let ask = AdminRequest::Explain { bucket: bucket.id(), key: Bytes::from(key.clone()) };
        let is_equal = async || {
            let AdminReply::Explain(explained) = lane.admin(ask.clone()).await else { panic!() };
            let replicas = explained.members.into_iter().filter(|member| member.replica);
            let states: Vec<_> = replicas.filter_map(|member| member.state).collect();
            let same = |one: &ReplicaState, other: &ReplicaState| {
                (one.digest, &one.clock) == (other.digest, &other.clock)
            };
            states.len() == 3 && states.windows(2).all(|pair| same(&pair[0], &pair[1]))
        };
        until("a node that was killed has what the others have", is_equal).await;
    }
    assert!(cluster.nodes[2].metric("holm_shard_gap_objects_joined_total").await > 0.0);
}

/// Goal: a stop of one node of three leaves no write behind whose outcome nobody knows, although its
/// writes wait for others. Method: writers under way, a stop, the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_answers_what_waits_for_others() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await;
    let load = Load::start(&bucket);
    load.more(300).await;
    let status = cluster.nodes[0].terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    load.more(100).await;
    let told = load.finish().await;
    let unknown = told.values().filter(|&&told| told == Told::MayHaveHappened).count();
    assert_eq!(unknown, 0, "of {} writes", told.len());
    check(&bucket, &told).await;
}

/// Goal: whoever still uses a connection to a run that was killed learns it at the first packet, not
/// after the idle timeout. Method: a node killed and back, a lane to the run before, one request.
#[tokio::test]
async fn a_node_that_is_back_resets_old_connections() {
    let mut cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (conn, mut lane) = cluster.lane(0).await;
    lane.put(put(bucket, b"k", b"v")).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start().await;
    let began = Instant::now();
    let mut request = bytes::BytesMut::new();
    Request::Get(get(bucket, b"k")).encode(9, &mut request);
    lane.write(&request).await;
    assert_eq!(conn.closed().await, None, "lost, not closed with a code");
    assert!(began.elapsed() < Duration::from_secs(1), "noticed after {:?}", began.elapsed());
}

/// Goal: a kill at any moment of a start leaves a store that opens again with everything in it.
/// Method: starts killed after random short times; then one that is left alone.
#[tokio::test]
async fn a_start_may_be_killed() {
    let mut cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (conn, mut lane) = cluster.lane(0).await;
    for n in 0..200 {
        lane.put(put(bucket, format!("{n}").as_bytes(), &[b'v'; 500])).await;
    }
    drop((lane, conn));
    let node = &mut cluster.nodes[0];
    node.kill();
    let mut dice = Dice(7);
    for _ in 0..12 {
        node.spawn();
        sleep(Duration::from_millis(dice.below(150) as u64)).await;
        node.kill();
    }
    node.start().await;
    node.until_ready().await;
    let (_conn, mut lane) = cluster.lane(0).await;
    for n in 0..200 {
        let read = lane.get(get(bucket, format!("{n}").as_bytes())).await;
        assert_eq!(read.siblings.len(), 1, "key {n}");
    }
}

/// Goal: a first start may be killed too. Method: a node that never ran, killed after random short
/// times, then left alone: it is new and without amnesia.
#[tokio::test]
async fn a_first_start_may_be_killed() {
    let mut cluster = Cluster::without_layout(1, &[]).await;
    let mut dice = Dice(8);
    for _ in 0..8 {
        cluster.nodes[0].kill();
        cluster.wipe(0);
        cluster.nodes[0].spawn();
        sleep(Duration::from_millis(dice.below(60) as u64)).await;
        cluster.nodes[0].kill();
        cluster.nodes[0].start().await;
        assert_eq!(cluster.nodes[0].metric("holm_node_amnesia").await, 0.0);
    }
}

/// Goal: SIGTERM is a clean stop: requests under way are answered or told, the exit code is 0, the
/// next start is quick and finds everything, and one that stops twice stays stopped. Method: a stop
/// under load, a restart, the keys read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_is_a_clean_stop() {
    let mut cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await;
    let load = Load::start(&bucket);
    load.more(300).await;
    let began = Instant::now();
    let status = cluster.nodes[0].terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(began.elapsed() < Duration::from_secs(5), "stopping took {:?}", began.elapsed());
    let told = load.finish().await;
    let log = cluster.nodes[0].log();
    assert!(log.contains("node stopped"), "{log}");

    let began = Instant::now();
    cluster.nodes[0].start().await;
    cluster.until_whole().await;
    assert!(began.elapsed() < Duration::from_secs(5), "starting took {:?}", began.elapsed());
    check(&bucket, &told).await;
    let unknown = told.values().filter(|&&told| told == Told::MayHaveHappened).count();
    assert_eq!(unknown, 0, "writes that were let in are answered before the node stops");
    let status = cluster.nodes[0].terminate().await;
    assert_eq!(status.code(), Some(0), "idle: {status}");
}

/// Goal: a node that cannot start says why, changes nothing and ends with a failure. Method: its
/// directory in use by another process, then given to another node's id and to another cluster.
#[tokio::test]
async fn a_directory_belongs_to_one_node() {
    let mut cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (conn, mut lane) = cluster.lane(0).await;
    lane.put(put(bucket, b"k", b"v")).await;
    let run = |cluster: &Cluster, flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_holmd"));
        command.arg("--config").arg(cluster.nodes[0].file("holm.toml")).args(flags);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let elsewhere = ["--listen-quic=127.0.0.1:0", "--listen-http=127.0.0.1:0"];
    let (code_in_use, said) = run(&cluster, &elsewhere);
    assert!(code_in_use == Some(1) && said.contains("in use"), "{code_in_use:?}: {said}");
    assert_eq!(code(&lane.call(&Request::Get(get(bucket, b"k"))).await), 0);
    drop((lane, conn));
    cluster.nodes[0].kill();
    for (flag, told) in [("--node-id=2", "node"), ("--cluster-id=other", "cluster")] {
        let (code, said) = run(&cluster, &[elsewhere[0], elsewhere[1], flag]);
        assert!(code == Some(1) && said.contains(told), "{flag}: {code:?}: {said}");
    }
    cluster.nodes[0].start().await;
    cluster.nodes[0].until_ready().await;
    let (_conn, mut lane) = cluster.lane(0).await;
    assert_eq!(lane.get(get(bucket, b"k")).await.siblings.len(), 1);
}
