//! A disk that fails: fsyncs that return errors or take long, writes and reads that fail (P12).
//!
//! The faults are those of the system calls, put there by `strace` while the node runs. What must
//! hold: nothing is acknowledged after an fsync failed, and a later fsync that succeeds changes
//! nothing, because the kernel may have dropped what the failed one was to write; writes are refused
//! with a number; reads go on; a value that cannot be read is an error and not an absent value;
//! after a restart on a sound disk everything acknowledged is there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::BucketId;
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Put, Reply, Request};
use tokio::time::Instant;

use crate::harness::cluster::Cluster;
use crate::harness::holmd::Holmd;
use crate::harness::raw::{Lane, Witness, get, put};
use crate::harness::strace::Strace;
use crate::harness::until;

/// Acknowledged writes before the fault.
const BEFORE: usize = 40;
/// Tries during it, and after it.
const TRIES: usize = 20;

/// What a writer was told of its n-th key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Acknowledged,
    Unknown,
    Refused(StoreFault),
}

/// A writer of keys that are written once, and what it was told.
#[derive(Debug)]
struct Diary {
    bucket: BucketId,
    told: Vec<Told>,
}

fn key(n: usize) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

fn value(n: usize) -> Vec<u8> {
    format!("value {n};").repeat(20).into_bytes()
}

impl Diary {
    fn new(bucket: BucketId) -> Diary {
        Diary { bucket, told: Vec::new() }
    }

    /// Writes the next key.
    async fn write(&mut self, lane: &mut Lane, level: Level) -> Told {
        let n = self.told.len();
        let put = Put { level: Some(level), ..put(self.bucket, &key(n), &value(n)) };
        let told = match lane.call(&Request::Put(put)).await {
            Reply::Written(_) => Told::Acknowledged,
            Reply::Error(RequestError::WriteUnknown { .. }) => Told::Unknown,
            Reply::Error(RequestError::Store { fault }) => Told::Refused(fault),
            other => panic!("{other:?}"),
        };
        self.told.push(told);
        told
    }

    /// Writes keys that must be acknowledged.
    async fn fill(&mut self, lane: &mut Lane, count: usize, level: Level) {
        for _ in 0..count {
            assert_eq!(self.write(lane, level).await, Told::Acknowledged);
        }
    }

    /// Everything is as it was told.
    async fn check(&self, lane: &mut Lane, level: Level) {
        for (n, told) in self.told.iter().enumerate() {
            let read = Get { level: Some(level), ..get(self.bucket, &key(n)) };
            let found = lane.get(read).await;
            let values: Vec<&[u8]> = found.siblings.iter().map(|one| &one.value[..]).collect();
            let (whole, absent) = (values == [&value(n)[..]], values.is_empty());
            let fine = match told {
                Told::Acknowledged => whole,
                Told::Unknown => whole || absent,
                Told::Refused(_) => absent,
            };
            assert!(fine, "key {n}: {told:?}, read {values:?}");
        }
    }
}

/// The log that RocksDB appends to.
pub(crate) fn wal(node: &Holmd) -> PathBuf {
    let entries = fs::read_dir(node.file("data").join("db")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap()
}

/// No thread panicked.
fn assert_calm(node: &Holmd) {
    assert!(!node.log().contains("panic"), "{}", node.log());
}

/// Goal: after a failed fsync no write is acknowledged, also when fsyncs succeed again, until a
/// restart; reads go on. Method: a single node whose fsyncs fail with EIO: all of them, then only
/// those of the log, so that a commit under way meets it.
#[tokio::test]
async fn a_failed_fsync_is_final() {
    for log_only in [false, true] {
        let mut cluster = Cluster::start(1, &[]).await;
        let bucket = cluster.bucket("b", Default::default()).await.id();
        let (_conn, mut lane) = cluster.patient_lane(0).await;
        let witness = Witness::write(&mut lane, bucket).await;
        let mut diary = Diary::new(bucket);
        diary.fill(&mut lane, BEFORE, Level::One).await;
        let node = &cluster.nodes[0];
        let log = wal(node);
        let mut args =
            vec!["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
        if log_only {
            args.extend(["-P", log.to_str().unwrap()]);
        }
        let Some(strace) = Strace::attach(node, &args).await else { return };
        let first = diary.write(&mut lane, Level::One).await;
        assert_ne!(first, Told::Acknowledged, "after an fsync that failed");
        assert!(!log_only || first == Told::Unknown, "its record may be on the disk: {first:?}");
        for _ in 0..TRIES {
            let told = diary.write(&mut lane, Level::One).await;
            assert_eq!(told, Told::Refused(StoreFault::Io));
            witness.check(&mut lane).await;
        }
        assert!(strace.detach() > 0, "no fsync failed");
        // The disk is sound again. That proves nothing about what failed.
        for _ in 0..TRIES {
            let told = diary.write(&mut lane, Level::One).await;
            assert_eq!(told, Told::Refused(StoreFault::Io));
        }
        let (code, page) = node.get("/readyz").await;
        assert!(code == 503 && page.contains("the store failed"), "{code} {page}");
        assert_eq!(node.get("/livez").await.0, 200);
        witness.check(&mut lane).await;
        diary.check(&mut lane, Level::One).await;

        cluster.nodes[0].kill();
        cluster.nodes[0].start().await;
        cluster.nodes[0].until_ready().await;
        let (_conn, mut lane) = cluster.patient_lane(0).await;
        diary.check(&mut lane, Level::One).await;
        diary.fill(&mut lane, TRIES, Level::One).await;
        assert_calm(&cluster.nodes[0]);
    }
}

/// Goal: one node with such a disk steps aside and the others serve: at `quorum` every write through
/// them is acknowledged, without the node's vote, and it votes again after a restart. Method: three
/// nodes; writes through a sound one and through the other.
#[tokio::test]
async fn a_failed_fsync_leaves_the_others() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.patient_lane(0).await;
    let (_conn2, mut broken) = cluster.patient_lane(2).await;
    let mut diary = Diary::new(bucket);
    diary.fill(&mut lane, BEFORE, Level::All).await;
    let args = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
    let Some(strace) = Strace::attach(&cluster.nodes[2], &args).await else { return };
    for _ in 0..TRIES {
        let told = diary.write(&mut broken, Level::Quorum).await;
        assert_ne!(told, Told::Refused(StoreFault::Corrupt));
        assert_eq!(diary.write(&mut lane, Level::Quorum).await, Told::Acknowledged);
    }
    let (code, page) = cluster.nodes[2].get("/readyz").await;
    assert!(code == 503 && page.contains("the store failed"), "{code} {page}");
    assert!(strace.detach() > 0, "no fsync failed");
    let failed = cluster.nodes[2].id;
    for n in 0..TRIES {
        let put = Put { level: Some(Level::Quorum), ..put(bucket, b"voted", &value(n)) };
        let written = lane.put(put).await;
        let voted = written.receipt.replicas.iter().any(|entry| entry.node == failed);
        assert!(!voted, "{:?}", written.receipt);
        let seen = lane.get(get(bucket, b"voted")).await;
        let clear = holm_protocol::message::Put {
            context: seen.context,
            ..crate::harness::raw::put(bucket, b"voted", b"")
        };
        lane.put(clear).await;
    }
    diary.check(&mut lane, Level::Quorum).await;
    cluster.nodes[2].kill();
    cluster.nodes[2].start().await;
    cluster.until_whole().await;
    let (_conn, mut mended) = cluster.patient_lane(2).await;
    diary.check(&mut mended, Level::Quorum).await;
    diary.fill(&mut mended, TRIES, Level::All).await;
    cluster.nodes.iter().for_each(assert_calm);
}

/// Goal: a log that takes no more although the disk seems to have room (a quota, a file system out of
/// its own means) is a full disk: refused as `Full`, and taken again on a new log once that works;
/// nothing acknowledged is lost. Method: ENOSPC for every write to the current log.
#[tokio::test]
async fn a_log_without_room_is_left() {
    let mut cluster = Cluster::start(1, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.patient_lane(0).await;
    let witness = Witness::write(&mut lane, bucket).await;
    let mut diary = Diary::new(bucket);
    diary.fill(&mut lane, BEFORE, Level::One).await;
    let log = wal(&cluster.nodes[0]);
    let calls = "write,pwrite64,writev";
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=ENOSPC"));
    let args = ["-e", &trace, "-e", &inject, "-P", log.to_str().unwrap()];
    let Some(strace) = Strace::attach(&cluster.nodes[0], &args).await else { return };
    let told = diary.write(&mut lane, Level::One).await;
    assert!(matches!(told, Told::Refused(StoreFault::Full) | Told::Unknown), "{told:?}");
    until("writes are taken again", async || {
        witness.check(&mut lane).await;
        diary.write(&mut lane, Level::One).await == Told::Acknowledged
    })
    .await;
    assert!(strace.detach() > 0, "no write failed");
    diary.fill(&mut lane, TRIES, Level::One).await;
    diary.check(&mut lane, Level::One).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start().await;
    cluster.nodes[0].until_ready().await;
    let (_conn, mut lane) = cluster.patient_lane(0).await;
    diary.check(&mut lane, Level::One).await;
    witness.check(&mut lane).await;
    assert_calm(&cluster.nodes[0]);
}

/// Goal: a value that cannot be read is an error, not an absent value, or is had from another replica;
/// it is there again when the disk is. Method: one node, and three; everything in tables, nothing in
/// caches; EIO for every read of a table; reads at `one` through the node.
#[tokio::test]
async fn a_failed_read_is_no_absence() {
    for nodes in [1, 3] {
        let mut cluster = Cluster::start(nodes, &[]).await;
        let bucket = cluster.bucket("b", Default::default()).await.id();
        let (_conn, mut lane) = cluster.patient_lane(0).await;
        let mut diary = Diary::new(bucket);
        diary.fill(&mut lane, BEFORE, Level::All).await;
        // What is replayed from the log becomes tables.
        cluster.nodes[0].kill();
        cluster.nodes[0].start().await;
        cluster.until_whole().await;
        let (_conn, mut lane) = cluster.patient_lane(0).await;
        let args = ["-e", "trace=pread64", "-e", "inject=pread64:error=EIO"];
        let Some(strace) = Strace::attach(&cluster.nodes[0], &args).await else { return };
        let mut failed = 0;
        for n in 0..BEFORE {
            let read = Get { level: Some(Level::One), ..get(bucket, &key(n)) };
            match lane.call(&Request::Get(read)).await {
                Reply::Values(values) => assert_eq!(values.siblings[0].value, value(n), "key {n}"),
                Reply::Error(RequestError::ReadUnavailable { .. }) => failed += 1,
                Reply::Error(RequestError::Store { fault: StoreFault::Io }) => failed += 1,
                other => panic!("key {n}: {other:?}"),
            }
        }
        assert!(strace.detach() > 0, "no read failed");
        assert_eq!(failed > 0, nodes == 1, "{failed} of {BEFORE} reads failed with {nodes} nodes");
        diary.check(&mut lane, Level::One).await;
        diary.fill(&mut lane, TRIES, Level::All).await;
        cluster.nodes.iter().for_each(assert_calm);
    }
}

/// The median and the slowest of some writes at `quorum` through one node.
async fn latency(lane: &mut Lane, diary: &mut Diary) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let began = Instant::now();
        assert_eq!(diary.write(lane, Level::Quorum).await, Told::Acknowledged);
        times.push(began.elapsed());
    }
    times.sort();
    (times[TRIES / 2], times[TRIES - 1])
}

/// Goal: an fsync that takes long costs time and nothing else: through the slow node writes take as
/// long as its fsyncs or as the others need, through the others they do not wait for it, all are
/// acknowledged. Method: 300 ms for every fsync of one node of three.
#[tokio::test]
async fn a_slow_fsync_is_only_slow() {
    const SLOW: Duration = Duration::from_millis(300);
    let cluster = Cluster::start(3, &[]).await;
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let (_conn, mut lane) = cluster.patient_lane(0).await;
    let (_conn2, mut slow) = cluster.patient_lane(2).await;
    let mut diary = Diary::new(bucket);
    diary.fill(&mut lane, BEFORE, Level::All).await;
    let usual = latency(&mut lane, &mut diary).await;
    let inject = format!("inject=fsync,fdatasync:delay_enter={}", SLOW.as_micros());
    let args = ["-e", "trace=fsync,fdatasync", "-e", &inject];
    let Some(strace) = Strace::attach(&cluster.nodes[2], &args).await else { return };
    let beside = latency(&mut lane, &mut diary).await;
    let through = latency(&mut slow, &mut diary).await;
    let began = Instant::now();
    let all = diary.write(&mut lane, Level::All).await;
    assert_eq!(all, Told::Acknowledged);
    let whole = began.elapsed();
    assert!(strace.detach() > 0, "no fsync was slow");
    eprintln!(
        "median and slowest write at quorum: {usual:?} before; {beside:?} beside the slow node; \
         {through:?} through it; at all {whole:?}"
    );
    assert!(beside.0 < SLOW, "the others wait for the slow one: {beside:?}");
    assert!(whole >= SLOW / 2, "the disk was not slow");
    let (_, page) = cluster.nodes[2].get("/readyz").await;
    assert_eq!(cluster.nodes[2].get("/readyz").await.0, 200, "{page}");
    diary.check(&mut slow, Level::Quorum).await;
    cluster.nodes.iter().for_each(assert_calm);
}
