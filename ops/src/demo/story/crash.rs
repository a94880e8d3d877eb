//! A node dies under load, without warning, and comes back: what was acknowledged is still there, what
//! it missed comes by itself, and what was deleted meanwhile stays deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holm_client::{Bucket, Level, NodeId};
use serde_json::json;
use tokio::task::JoinSet;

use super::load::{self, Acknowledged, Load, Progress, value_of};
use super::teller::Teller;
use super::{PATIENCE, POLL, Region, Stage};
use crate::demo::wait::until;
use crate::failure::Failure;
use crate::text;

/// Acknowledged writes after which the node is killed.
const KILL_AFTER: usize = 80;
/// Writes looked for on the restarted node itself, of those whose receipts name it.
const LOOKED_AT: usize = 20;
/// Keys read in the end, of those that were written, and of those that were deleted.
const READ_MAX: usize = 1000;
/// Readers at a time.
const READERS: usize = 16;

/// Tells the chapter; returns the keys that were deleted.
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
            "{} writes keys at level quorum, and deletes some; meanwhile node {} of that region dies \
             (kill -9) and stays away for {} s.",
            region.name,
            victim.0,
            stage.down_for.as_secs(),
        ),
    )?;
    let progress = Arc::new(Progress::default());
    let (load, killed) = tokio::join!(load::write(&region.bucket, &progress), async {
        let killed = kill(stage, victim, &progress).await;
        progress.is_over.store(true, Ordering::Relaxed);
        killed
    });
    killed?;
    report_load(teller, &load)?;
    come_back(teller, stage, victim, &load).await?;
    let written: Vec<&str> = load.acknowledged.iter().map(|write| write.key.as_str()).collect();
    let written = some_of(&written);
    let missing = unlike(&region.bucket, &written, Level::Quorum, true).await;
    teller.claim(
        "a quorum knows every acknowledged write",
        &text::count(written.len(), "key"),
        json!({ "keys": written.len() }),
        if missing.is_empty() { Ok(()) } else { Err(format!("lost: {}", text::list(missing))) },
    )?;
    let deleted: Vec<&str> = load.deleted.iter().map(String::as_str).collect();
    let deleted = some_of(&deleted);
    let mut back = Vec::new();
    for region in &stage.regions {
        back.extend(unlike(&region.bucket, &deleted, Level::One, false).await);
    }
    teller.claim(
        "nothing that was deleted meanwhile came back, in any region",
        &text::count(deleted.len(), "key"),
        json!({ "keys": deleted.len() }),
        if back.is_empty() { Ok(()) } else { Err(format!("back: {}", text::list(back))) },
    )?;
    Ok(load.deleted)
}

/// Kills the node when the load moves, and leaves it away for a while.
async fn kill(stage: &Stage<'_>, victim: NodeId, progress: &Progress) -> Result<(), Failure> {
    let moves = async |least: usize| {
        until(PATIENCE, POLL, async || {
            let count = progress.acknowledged.load(Ordering::Relaxed);
            if count >= least { Ok(()) } else { Err(format!("{count} acknowledged writes")) }
        })
        .await
        .map_err(|got| Failure::failed(format!("the load does not move: {got}"), "see the logs"))
    };
    moves(KILL_AFTER).await?;
    stage.cluster.lock().await.kill(victim).await?;
    progress.is_killed.store(true, Ordering::Relaxed);
    // How long the node is away is what the story is about; nothing is inferred from it.
    tokio::time::sleep(stage.down_for).await;
    moves(2 * KILL_AFTER).await
}

/// Starts the node again, and waits until it has what it missed.
async fn come_back(
    teller: &mut Teller<'_>,
    stage: &Stage<'_>,
    victim: NodeId,
    load: &Load,
) -> Result<(), Failure> {
    let (region, ..) = stage.cast();
    teller.doing("starting the node again");
    stage.cluster.lock().await.start(victim).await?;
    let equal = stage.become_equal(PATIENCE + stage.down_for).await;
    let took = equal.as_ref().map_or(Duration::ZERO, |(_, took)| *took).as_secs_f64();
    let took = (took * 100.0).round() / 100.0;
    teller.claim(
        &format!("node {} is back and whole, and nobody has read a key", victim.0),
        &format!("all {} replicas hold the same {took:.2} s after it answered", stage.replicas),
        json!({ "node": victim.0, "seconds": took }),
        equal,
    )?;
    let promised = load.acknowledged.iter().filter(|write| write.holders.contains(&victim));
    let promised: Vec<&Acknowledged> = promised.take(LOOKED_AT).collect();
    let kept = kept(region, victim, &promised).await;
    teller.claim(
        &format!("node {} holds what it had acknowledged before", victim.0),
        &text::count(promised.len(), "write"),
        json!({ "node": victim.0, "writes": promised.len() }),
        kept,
    )
}

/// As many keys as are read, evenly spread.
fn some_of(keys: &[&str]) -> Vec<String> {
    let step = keys.len().div_ceil(READ_MAX).max(1);
    keys.iter().step_by(step).map(|key| (*key).to_owned()).collect()
}

fn report_load(teller: &mut Teller<'_>, load: &Load) -> Result<(), Failure> {
    let after = load.acknowledged.iter().filter(|write| write.after_kill).count();
    let words = format!(
        "{} kept and {} deleted, {after} of those kept after the kill; {} unknown, {} refused",
        load.acknowledged.len(),
        load.deleted.len(),
        load.unknown,
        load.refused,
    );
    teller.claim(
        "writes and deletes go on without it",
        &words,
        json!({
            "kept": load.acknowledged.len(),
            "deleted": load.deleted.len(),
            "after_kill": after,
            "unknown": load.unknown,
            "refused": load.refused,
        }),
        if after > 0 { Ok(()) } else { Err(words.clone()) },
    )
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

/// The keys that are not as they should be: as they were written, or gone.
async fn unlike(bucket: &Bucket, keys: &[String], level: Level, is_there: bool) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let keys: Arc<[String]> = keys.into();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (bucket, next, keys) = (bucket.clone(), Arc::clone(&next), Arc::clone(&keys));
        readers.spawn(async move {
            let mut unlike = Vec::new();
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                let got = until(PATIENCE, POLL, async || bucket.get(key).level(level).await);
                let is_right = got.await.is_ok_and(|got| match is_there {
                    true => got.value().is_some_and(|value| *value == value_of(key)),
                    false => got.is_absent(),
                });
                if !is_right {
                    unlike.push(key.clone());
                }
            }
            unlike
        });
    }
    let mut unlike = Vec::new();
    while let Some(found) = readers.join_next().await {
        unlike.extend(found.unwrap_or_else(|error| vec![format!("a reader broke: {error}")]));
    }
    unlike.sort_unstable();
    unlike
}
