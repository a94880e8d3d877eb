//! More than the nodes take: what they refuse, and what it does to their memory.
//!
//! Many more tasks write than a node admits at a time. What it does not admit it must refuse at
//! once and by name (`16:Overloaded`), and its memory must stay where it was: every queue is
//! bounded. The client waits and tries again by itself until an operation's time is up, so the
//! refusals counted here are operations that found no place in all that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holm_client::Level;
use serde::Serialize;

use super::cluster::Cluster;
use crate::cli::{LocalArgs, Workload};
use crate::driver::{self, Plan};
use crate::failure::Failure;
use crate::keyspace::Keyspace;
use crate::measured::{Measured, round};
use crate::procfs;
use crate::worker::Worker;

/// How often memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// How long an operation may take: short, so that refusals are seen and not waited out.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long to overload before measuring: queues fill and memtables turn over.
const WARMUP: Duration = Duration::from_secs(2);
/// How refusals for overload are labelled.
const OVERLOADED: &str = "16:Overloaded";

/// What an overload did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Overload {
    /// Tasks that wrote.
    pub(crate) tasks: u32,
    /// Memory of the largest node before, bytes.
    pub(crate) before_bytes: u64,
    /// The most memory of any node during it, bytes.
    pub(crate) peak_bytes: u64,
    /// Memory in the last third as a multiple of that in the middle one, of the node that grew most.
    pub(crate) growth: f64,
    /// Operations that ended with the refusal `Overloaded` of a node.
    pub(crate) refusals: u64,
    /// What was done in spite of it.
    pub(crate) measured: Measured,
}

/// Overloads a cluster.
///
/// # Errors
/// The second client cannot connect.
pub(crate) async fn run(
    args: &LocalArgs,
    cluster: &Cluster,
    space: &Arc<Keyspace>,
) -> Result<Overload, Failure> {
    let target = cluster.eager_target(Level::Quorum, TIMEOUT).await?;
    let before_bytes = cluster.largest_resident_bytes();
    let plan = Plan {
        workload: Workload::Write,
        concurrency: u64::from(args.overload_tasks).min(space.records()),
        warmup: WARMUP,
        duration: Duration::from_secs(args.overload_duration),
    };
    let pids = cluster.pids();
    let watched = pids.clone();
    let sampler = Worker::start("memory", move |stop| sample(&watched, stop))
        .map_err(Failure::io("start a thread"))?;
    let measured = driver::drive(&target, space, plan, &pids).await?;
    let samples = sampler.stop().await.unwrap_or_default();
    let growth = samples.iter().map(|node| growth(node)).fold(0.0, f64::max);
    Ok(Overload {
        tasks: args.overload_tasks,
        before_bytes,
        peak_bytes: samples.iter().flatten().copied().max().unwrap_or(0),
        growth: round(growth, 3),
        refusals: measured.errors.get(OVERLOADED).copied().unwrap_or(0),
        measured,
    })
}

/// Memory of each process over time, bytes.
fn sample(pids: &[u32], stop: &AtomicBool) -> Vec<Vec<u64>> {
    let mut samples = vec![Vec::new(); pids.len()];
    while !stop.load(Ordering::Relaxed) {
        for (pid, samples) in pids.iter().zip(&mut samples) {
            samples.extend(procfs::resident_bytes(*pid));
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
    samples
}

/// Mean of the last third as a multiple of the mean of the middle one; 1 if there are too few
/// samples. The first third is warm-up: caches, memtables and the window of remembered requests
/// fill up to their limits.
fn growth(samples: &[u64]) -> f64 {
    let third = samples.len() / 3;
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    match third {
        0 => 1.0,
        third => mean(&samples[2 * third..]) / mean(&samples[third..2 * third]).max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: growth compares the last third with the middle one. Method: flat, growing, only warming
    /// up, too few.
    #[test]
    fn growth_leaves_out_the_warm_up() {
        assert_eq!(growth(&[100; 9]), 1.0);
        assert_eq!(growth(&[100, 100, 100, 150, 150, 150, 300, 300, 300]), 2.0);
        assert_eq!(growth(&[10, 50, 100, 100, 100, 100]), 1.0);
        assert_eq!(growth(&[1, 2]), 1.0);
    }

    /// Goal: memory is sampled until told to stop. Method: this process, stopped at once after the
    /// first round.
    #[test]
    fn memory_is_sampled() {
        let worker = Worker::start("memory", |stop| sample(&[std::process::id()], stop)).unwrap();
        std::thread::sleep(SAMPLE_EVERY / 2);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let samples = runtime.block_on(worker.stop()).unwrap();
        assert!(samples.len() == 1 && !samples[0].is_empty());
    }
}
