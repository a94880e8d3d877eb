//! A node dies under load, without warning: what was acknowledged is still there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use holm_client::{Bucket, Dot, Level, NodeId, Outcome, Written};
use serde_json::json;
use tokio::task::JoinSet;

use super::teller::Teller;
use super::{PATIENCE, POLL, Region, Stage};
use crate::demo::wait::until;
use crate::failure::Failure;
use crate::text;

/// Writes in all. A few seconds of load at a quorum across oceans.
const WRITES: usize = 240;
/// Writers at a time.
const WRITERS: usize = 8;
/// Acknowledged writes after which the node is killed: a third are behind it, the rest ahead.
const KILL_AFTER: usize = WRITES / 3;

/// Writes looked for on the restarted node itself, of those whose receipts name it.
const LOOKED_AT: usize = 20;

/// An acknowledged write.
#[derive(Debug)]
struct Acknowledged {
    key: String,
    dot: Dot,
    /// The replicas of its receipt.
    holders: Vec<NodeId>,
    /// Whether the node was killed before it was acknowledged.
    after_kill: bool,
}

/// What came of the writes.
#[derive(Debug, Default)]
struct Load {
    /// Writes that were acknowledged.
    acknowledged: Vec<Acknowledged>,
    /// Writes that may or may not have happened.
    unknown: usize,
    /// Writes that did not happen.
    refused: usize,
}

/// Tells the chapter; returns the keys whose writes were acknowledged.
pub(super) async fn tell(
    teller: &mut Teller<'_>,
    stage: &Stage<'_>,
) -> Result<Vec<String>, Failure> {
    let (region, ..) = stage.cast();
    let victim = {
        let cluster = stage.cluster.lock().await;
        cluster.plan().nodes_in(&region.name).next().map(|node| node.id)
    };
    let Some(victim) = victim else {
        return Err(Failure::failed("the first region has no node", "this is a bug in holm"));
    };
    teller.chapter(
        "A node is killed",
        &format!(
            "{} writes {WRITES} keys at level quorum; meanwhile node {} of that region dies \
             (kill -9).",
            region.name, victim.0
        ),
    )?;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let is_killed = Arc::new(AtomicBool::new(false));
    let load = write_all(&region.bucket, &acknowledged, &is_killed);
    let kill = async {
        until(PATIENCE, POLL, || async {
            let count = acknowledged.load(Ordering::Relaxed);
            if count >= KILL_AFTER { Ok(()) } else { Err(format!("{count} acknowledged writes")) }
        })
        .await
        .map_err(|got| Failure::failed(format!("the load does not move: {got}"), "see the logs"))?;
        stage.cluster.lock().await.kill(victim).await?;
        is_killed.store(true, Ordering::Relaxed);
        Ok::<(), Failure>(())
    };
    let (load, killed) = tokio::join!(load, kill);
    killed?;
    report_load(teller, &load)?;
    teller.doing("starting the node again");
    stage.cluster.lock().await.start(victim).await?;
    // Before any read of these keys: a read would give the node back what it had lost.
    let promised = load.acknowledged.iter().filter(|write| write.holders.contains(&victim));
    let promised: Vec<&Acknowledged> = promised.take(LOOKED_AT).collect();
    let kept = kept(region, victim, &promised).await;
    teller.claim(
        &format!("node {} is back, and still holds by itself what it had acknowledged", victim.0),
        &text::count(promised.len(), "write"),
        json!({ "node": victim.0, "writes": promised.len() }),
        kept,
    )?;
    let keys: Vec<String> = load.acknowledged.into_iter().map(|write| write.key).collect();
    let missing = missing(&region.bucket, &keys).await;
    teller.claim(
        "a quorum knows every acknowledged write",
        &text::count(keys.len(), "key"),
        json!({ "keys": keys.len() }),
        if missing.is_empty() { Ok(()) } else { Err(format!("lost: {}", text::list(missing))) },
    )?;
    Ok(keys)
}

fn report_load(teller: &mut Teller<'_>, load: &Load) -> Result<(), Failure> {
    let after = load.acknowledged.iter().filter(|write| write.after_kill).count();
    let words = format!(
        "{} acknowledged, {after} of them after the kill; {} unknown, {} refused",
        load.acknowledged.len(),
        load.unknown,
        load.refused,
    );
    teller.claim(
        "writes go on without it",
        &words,
        json!({
            "acknowledged": load.acknowledged.len(),
            "after_kill": after,
            "unknown": load.unknown,
            "refused": load.refused,
        }),
        if after > 0 { Ok(()) } else { Err(words.clone()) },
    )
}

/// Writes all keys, some at a time, each once. The SDK repeats what is safe to repeat.
async fn write_all(
    bucket: &Bucket,
    acknowledged: &Arc<AtomicUsize>,
    is_killed: &Arc<AtomicBool>,
) -> Load {
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (bucket, next) = (bucket.clone(), Arc::clone(&next));
        let (acknowledged, is_killed) = (Arc::clone(acknowledged), Arc::clone(is_killed));
        writers.spawn(async move {
            let mut load = Load::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= WRITES {
                    return load;
                }
                let key = format!("order-{number:03}");
                match bucket.put(&key, value_of(&key)).level(Level::Quorum).await {
                    Ok(written) => {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        let after_kill = is_killed.load(Ordering::Relaxed);
                        load.acknowledged.push(Acknowledged::new(key, &written, after_kill));
                    }
                    Err(error) if error.outcome() == Outcome::MayHaveHappened => load.unknown += 1,
                    Err(_) => load.refused += 1,
                }
            }
        });
    }
    let mut all = Load::default();
    while let Some(written) = writers.join_next().await {
        // A writer that panicked would be missed in the number of acknowledged writes, and only
        // there: what it wrote is not claimed.
        if let Ok(written) = written {
            all.acknowledged.extend(written.acknowledged);
            all.unknown += written.unknown;
            all.refused += written.refused;
        }
    }
    all.acknowledged.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    all
}

impl Acknowledged {
    fn new(key: String, written: &Written, after_kill: bool) -> Acknowledged {
        let replicas = written.receipt().replicas.iter().filter(|entry| !entry.fallback);
        let holders = replicas.map(|entry| entry.node).collect();
        Acknowledged { key, dot: written.dot(), holders, after_kill }
    }
}

/// Whether a node's own state has the dots of these writes. Reads no key: nothing is repaired.
async fn kept(region: &Region, node: NodeId, writes: &[&Acknowledged]) -> Result<(), String> {
    if writes.is_empty() {
        return Err("no receipt names it; nothing can be said".to_owned());
    }
    for write in writes {
        let explain = async || {
            let asked = region.client.admin().explain(&region.bucket, write.key.clone()).await;
            let explanation = asked.map_err(|error| error.to_string())?;
            let member = explanation.members.into_iter().find(|member| member.node == node);
            let state = member.and_then(|member| member.state);
            // Silence passes: the others are still connecting to it.
            state.ok_or_else(|| format!("{node} does not say what it holds of {}", write.key))
        };
        let state = until(PATIENCE, POLL, explain).await?;
        if let Some(fault) = state.fault {
            return Err(format!("{}: {fault}", write.key));
        }
        if !state.siblings.iter().any(|(dot, ..)| *dot == write.dot) {
            return Err(format!("{node} has lost {}, written as {}", write.key, write.dot));
        }
    }
    Ok(())
}

fn value_of(key: &str) -> Bytes {
    Bytes::from(format!("value of {key}"))
}

/// The keys that a quorum does not know, or knows otherwise than they were written.
async fn missing(bucket: &Bucket, keys: &[String]) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let keys: Arc<[String]> = keys.into();
    let mut readers = JoinSet::new();
    for _ in 0..WRITERS {
        let (bucket, next, keys) = (bucket.clone(), Arc::clone(&next), Arc::clone(&keys));
        readers.spawn(async move {
            let mut missing = Vec::new();
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                let got =
                    until(PATIENCE, POLL, async || bucket.get(key).level(Level::Quorum).await);
                let is_there =
                    got.await.is_ok_and(|got| got.value().is_some_and(|v| *v == value_of(key)));
                if !is_there {
                    missing.push(key.clone());
                }
            }
            missing
        });
    }
    let mut missing = Vec::new();
    while let Some(found) = readers.join_next().await {
        missing.extend(found.unwrap_or_else(|error| vec![format!("a reader broke: {error}")]));
    }
    missing.sort_unstable();
    missing
}
