//! A full disk: writes are refused clearly, reads go on, and service resumes by itself (P12).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::BucketId;
use holm_protocol::message::{Reply, Request};

use crate::harness::cluster::Cluster;
use crate::harness::raw::{Lane, Witness, get, put};
use crate::harness::{skip, until};

/// Filling a file system can hold up a small machine for seconds.
const PATIENT: &str = "--net-idle-timeout-ms=20000";

/// A small file system in memory, for as long as this lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None`, with the reason on standard error, where mounting is not allowed.
    fn mount(at: &Path, mebibytes: u32) -> Option<Tmpfs> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "holm-test"]).arg(at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Tmpfs(at.to_owned())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                skip(&format!("a small tmpfs is needed, which takes root: {}", why.trim()));
                None
            }
            Err(error) => {
                skip(&format!("mount cannot be run: {error}"));
                None
            }
        }
    }

    /// Leaves about so many bytes free. Takes a while, in which connections must be kept alive.
    async fn fill(&self, left: u64) {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        let ballast = vec![0xa5; free.saturating_sub(left) as usize];
        let file = self.0.join("ballast");
        tokio::task::spawn_blocking(move || fs::write(file, ballast)).await.unwrap().unwrap();
    }

    /// Frees it again.
    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the node that uses it may be killed a moment later.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until refused for want of space. What was acknowledged before, and how many.
async fn write_until_full(lane: &mut Lane, bucket: BucketId, from: u64) -> u64 {
    for n in from..from + 20_000 {
        let write = Request::Put(put(bucket, &n.to_be_bytes(), &vec![n as u8; 20_000]));
        match lane.call(&write).await {
            Reply::Written(_) => {}
            Reply::Error(RequestError::Store { fault: StoreFault::Full }) => return n,
            // The one that was in the commit that failed.
            Reply::Error(RequestError::WriteUnknown { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("the disk does not fill");
}

/// Goal: a node whose disk has less than the reserve refuses writes with `Store Full`, says so on
/// `/readyz`, reads, deletes nothing, and takes writes again once there is room; again and again.
/// Method: a ballast file beside the data.
#[tokio::test]
async fn writes_stop_at_the_reserve() {
    full_disk(&["--store-min-free-bytes=8388608", PATIENT], 1 << 20).await;
}

/// Goal: the same when there is no reserve and RocksDB itself meets the end of the disk. Method: as
/// above, without a reserve, down to the last block.
#[tokio::test]
async fn writes_stop_at_the_end_of_the_disk() {
    let flags = ["--store-min-free-bytes=0", "--store-write-buffer-bytes=1048576", PATIENT];
    full_disk(&flags, 200_000).await;
}

async fn full_disk(flags: &[&str], left: u64) {
    let mut cluster = Cluster::without_layout(1, flags).await;
    cluster.nodes[0].kill();
    let data = cluster.nodes[0].file("data");
    fs::remove_dir_all(&data).unwrap();
    let Some(disk) = Tmpfs::mount(&data, 64) else { return };
    cluster.nodes[0].start().await;
    let layout = crate::harness::cluster::layout([(1, cluster.nodes[0].quic)]);
    let client = cluster.client().await;
    client.admin().apply_layout(cluster.nodes[0].id, layout).await.unwrap();
    let bucket = cluster.bucket("b", Default::default()).await.id();
    let node = &cluster.nodes[0];
    let (_conn, mut lane) = cluster.lane(0).await;
    let witness = Witness::write(&mut lane, bucket).await;

    for round in 0..2 {
        let from = round * 100_000;
        disk.fill(left).await;
        let full = write_until_full(&mut lane, bucket, from).await;
        until("it says so", async || {
            let (code, page) = node.get("/readyz").await;
            code == 503 && page.contains("full")
        })
        .await;
        assert_eq!(node.metric("holm_store_full").await, 1.0);
        assert_eq!(node.get("/livez").await.0, 200);
        for _ in 0..20 {
            witness.check(&mut lane).await;
        }
        // What was refused is not there, what was acknowledged is.
        assert!(lane.get(get(bucket, &full.to_be_bytes())).await.siblings.is_empty());
        if full > from {
            let last = lane.get(get(bucket, &from.to_be_bytes())).await;
            assert_eq!(last.siblings[0].value, vec![from as u8; 20_000]);
        }
        disk.free();
        node.until_ready().await;
        until("writes are taken again", async || {
            let again = Request::Put(put(bucket, b"again", b"v"));
            matches!(lane.call(&again).await, Reply::Written(_))
        })
        .await;
        witness.check(&mut lane).await;
    }
    // Nothing of it is damage.
    let status = cluster.nodes[0].terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    cluster.nodes[0].start().await;
    cluster.nodes[0].until_ready().await;
    let (_conn, mut lane) = cluster.lane(0).await;
    witness.check(&mut lane).await;
}
