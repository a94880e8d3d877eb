//! `holm demo --check`: a story for newcomers in which every sentence is verified.
//!
//! Each chapter does something to the running cluster and states what must be seen ([`teller`]); the
//! first claim that does not hold ends the story. Nothing is believed because time has passed: what
//! is expected is waited for, with a deadline, and what was measured is printed.
//!
//! Every region has a client of its own. It does not hedge, and what it reads at `one` or
//! `local_quorum` must come from its own region, or the story fails: else a claim about one region
//! could be true of another.
//!
//! Replicas must become equal by themselves. So before the story claims that they are, it reads no
//! key: it compares what they say of all they hold ([`alike`]).

mod agreement;
mod alike;
mod crash;
mod load;
mod partition;
mod teller;
mod travel;

use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_client::{Bucket, Client, Context, Got, Level, Receipt};
use tokio::sync::Mutex;

use super::cluster::{CARTS, Cluster};
use super::setup;
use super::wait::until;
use crate::failure::Failure;
use crate::output::Output;
use alike::Fingerprint;
use teller::Teller;

/// How long one request may take. Far above the longest round trip, so that only a real fault ends
/// one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a condition may take to come true once nothing stands in its way: connections that
/// broke must be made again, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(20);
/// How soon all replicas hold the same when nothing keeps them apart any more.
const SOON: Duration = Duration::from_secs(2);
/// Fewest replicas in all with which one node can be lost and a quorum remains.
const REPLICAS_MIN: usize = 3;

/// One region, seen by a client that lives there.
#[derive(Clone)]
struct Region {
    name: String,
    client: Client,
    bucket: Bucket,
}

/// Where the story plays.
struct Stage<'a> {
    cluster: &'a Mutex<Cluster>,
    regions: Vec<Region>,
    /// Replicas of each key, in all regions together.
    replicas: usize,
    /// How long a killed node stays away under load.
    down_for: Duration,
}

/// Refuses a demo in which the story cannot be told.
///
/// # Errors
/// There are too few regions or nodes.
pub(super) fn check_size(regions: usize, nodes_per_region: u16) -> Result<(), Failure> {
    if regions >= 2 && regions * usize::from(nodes_per_region) >= REPLICAS_MIN {
        return Ok(());
    }
    Err(Failure::usage(
        "--check needs two regions, and three nodes in all",
        "leave out --regions and --nodes-per-region: the story takes less than a minute",
    ))
}

/// Tells the story.
///
/// # Errors
/// A claim does not hold, or something cannot be done that the story needs.
pub(super) async fn tell(
    output: &Output,
    cluster: &Mutex<Cluster>,
    down_for: Duration,
) -> Result<(), Failure> {
    let mut teller = Teller::new(output);
    let told = tell_to(&mut teller, cluster, down_for).await;
    teller.finish(&told)?;
    told
}

async fn tell_to(
    teller: &mut Teller<'_>,
    cluster: &Mutex<Cluster>,
    down_for: Duration,
) -> Result<(), Failure> {
    let stage = Stage::set(cluster, down_for).await?;
    let count = cluster.lock().await.plan().nodes.len();
    teller.line(&format!(
        "{count} nodes in {} regions, {} replicas of every key.",
        stage.regions.len(),
        stage.replicas,
    ))?;
    travel::tell(teller, &stage).await?;
    let mut deleted = partition::tell(teller, &stage).await?;
    deleted.extend(crash::tell(teller, &stage).await?);
    agreement::tell(teller, &stage, &deleted).await
}

impl<'a> Stage<'a> {
    async fn set(cluster: &'a Mutex<Cluster>, down_for: Duration) -> Result<Stage<'a>, Failure> {
        let (path, plan) = {
            let cluster = cluster.lock().await;
            (setup::cluster_path(cluster.home().dir()), cluster.plan().clone())
        };
        let mut regions = Vec::new();
        for name in &plan.regions {
            let builder = Client::builder().cluster_file(&path)?.region(name.as_str());
            let builder = builder.name(format!("story-{name}")).timeout(TIMEOUT).hedging(false);
            let client = builder.connect().await?;
            let bucket = client.bucket(CARTS).await?;
            regions.push(Region { name: name.clone(), client, bucket });
        }
        let replicas = plan.regions.len() * usize::from(plan.replication);
        Ok(Stage { cluster, regions, replicas, down_for })
    }

    /// The first region, the second, and the last (which is the second if there are only two).
    fn cast(&self) -> (&Region, &Region, &Region) {
        // `check_size` saw to it that there are two regions at least.
        let last = self.regions.len() - 1;
        (&self.regions[0], &self.regions[1], &self.regions[last])
    }

    /// Delay from one region to another.
    async fn one_way(&self, from: &Region, to: &Region) -> Duration {
        let us = self.cluster.lock().await.plan().one_way_us(&from.name, &to.name);
        Duration::from_micros(us)
    }

    /// Waits until a read at `one` in every region finds these values and no other; or says what a
    /// region saw last.
    async fn see_everywhere(&self, key: &str, values: &[&str]) -> Result<(), String> {
        for region in &self.regions {
            until(PATIENCE, POLL, async || region.expect(key, Level::One, values).await).await?;
        }
        Ok(())
    }

    /// Waits until all replicas say that they hold the same, and says how long that took. Nobody
    /// reads a key.
    async fn become_equal(&self, patience: Duration) -> Result<(Fingerprint, Duration), String> {
        let began = Instant::now();
        let node = {
            let cluster = self.cluster.lock().await;
            cluster.plan().nodes.last().map(|node| node.http)
        };
        let node = node.ok_or("there is no node")?;
        let found = until(patience, POLL, async || {
            let found = Fingerprint::ask(node).await?;
            found.check_equal()?;
            Ok::<_, String>(found)
        });
        Ok((found.await?, began.elapsed()))
    }
}

impl Region {
    /// Reads without leaving the region.
    async fn read_here(&self, key: &str, level: Level) -> Result<Got, String> {
        let got = self.bucket.get(key).level(level).await;
        let got = got.map_err(|error| format!("{}: {error}", self.name))?;
        self.check_here(got.receipt())?;
        Ok(got)
    }

    /// Writes after a read, without leaving the region.
    async fn write_here(&self, key: &str, value: &str, context: &Context) -> Result<(), String> {
        let put = self.bucket.put(key, value).level(Level::LocalQuorum).context(context);
        let written = put.await.map_err(|error| format!("{}: {error}", self.name))?;
        self.check_here(written.receipt())
    }

    /// Whether only nodes of this region stand behind an answer.
    fn check_here(&self, receipt: &Receipt) -> Result<(), String> {
        let is_here = |region| self.client.region_name(region).as_ref() == Some(&self.name);
        match receipt.replicas.iter().find(|entry| !is_here(entry.region)) {
            None => Ok(()),
            Some(entry) => {
                Err(format!("{}: {} answered, which is elsewhere", self.name, entry.node))
            }
        }
    }

    /// Reads without leaving the region and compares.
    async fn expect(&self, key: &str, level: Level, values: &[&str]) -> Result<Got, String> {
        let got = self.read_here(key, level).await?;
        self.compare(&got, values)?;
        Ok(got)
    }

    /// Whether a read found these values and no other, in whatever order.
    fn compare(&self, got: &Got, values: &[&str]) -> Result<(), String> {
        let mut found: Vec<&Bytes> = got.siblings().iter().map(|sibling| &sibling.value).collect();
        found.sort_unstable();
        let mut wanted: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        wanted.sort_unstable();
        if found.iter().map(|value| &value[..]).eq(wanted.iter().copied()) {
            return Ok(());
        }
        let found = found.iter().map(|value| String::from_utf8_lossy(value));
        let found = crate::text::list(found);
        Err(format!("{} sees {found}, expected {}", self.name, crate::text::list(values)))
    }
}
