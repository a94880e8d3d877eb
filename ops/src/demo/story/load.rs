//! The load under which a node dies: writers that put keys, and delete some of them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use holm_client::{Bucket, Dot, Level, NodeId, Outcome, Written};
use tokio::task::JoinSet;

/// Writers at a time.
const WRITERS: usize = 8;
/// One key in so many is deleted again by who wrote it.
const DELETED_ONE_IN: usize = 4;

/// An acknowledged write.
#[derive(Debug)]
pub(super) struct Acknowledged {
    pub(super) key: String,
    pub(super) dot: Dot,
    /// The replicas of its receipt.
    pub(super) holders: Vec<NodeId>,
    /// Whether the node was killed before it was acknowledged.
    pub(super) after_kill: bool,
}

/// What came of the writes.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Writes that were acknowledged.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Keys whose delete was acknowledged.
    pub(super) deleted: Vec<String>,
    /// Writes that may or may not have happened.
    pub(super) unknown: usize,
    /// Writes that did not happen.
    pub(super) refused: usize,
}

/// What writers tell while they write, and are told.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) acknowledged: AtomicUsize,
    pub(super) is_killed: AtomicBool,
    pub(super) is_over: AtomicBool,
    next: AtomicUsize,
}

/// Writes keys, some at a time, each once, until it is over. The SDK repeats what is safe to repeat.
pub(super) async fn write(bucket: &Bucket, progress: &Arc<Progress>) -> Load {
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (bucket, progress) = (bucket.clone(), Arc::clone(progress));
        writers.spawn(async move {
            let mut load = Load::default();
            while !progress.is_over.load(Ordering::Relaxed) {
                let number = progress.next.fetch_add(1, Ordering::Relaxed);
                load.write_one(&bucket, number, &progress).await;
            }
            load
        });
    }
    let mut all = Load::default();
    while let Some(written) = writers.join_next().await {
        // A writer that panicked would be missed in the number of acknowledged writes, and only
        // there: what it wrote is not claimed.
        if let Ok(written) = written {
            all.acknowledged.extend(written.acknowledged);
            all.deleted.extend(written.deleted);
            all.unknown += written.unknown;
            all.refused += written.refused;
        }
    }
    all.acknowledged.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    all.deleted.sort_unstable();
    all
}

impl Load {
    async fn write_one(&mut self, bucket: &Bucket, number: usize, progress: &Progress) {
        let key = format!("order-{number:06}");
        let written = match bucket.put(&key, value_of(&key)).level(Level::Quorum).await {
            Ok(written) => written,
            Err(error) if error.outcome() == Outcome::MayHaveHappened => {
                self.unknown += 1;
                return;
            }
            Err(_) => {
                self.refused += 1;
                return;
            }
        };
        progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        if !number.is_multiple_of(DELETED_ONE_IN) {
            let after_kill = progress.is_killed.load(Ordering::Relaxed);
            self.acknowledged.push(Acknowledged::new(key, &written, after_kill));
            return;
        }
        // What becomes of a key whose delete is not known is not claimed.
        let delete = bucket.delete(&key).context(written.context()).level(Level::Quorum);
        if delete.await.is_ok() {
            self.deleted.push(key);
        }
    }
}

impl Acknowledged {
    fn new(key: String, written: &Written, after_kill: bool) -> Acknowledged {
        let replicas = written.receipt().replicas.iter().filter(|entry| !entry.fallback);
        let holders = replicas.map(|entry| entry.node).collect();
        Acknowledged { key, dot: written.dot(), holders, after_kill }
    }
}

/// What is written to a key.
pub(super) fn value_of(key: &str) -> Bytes {
    Bytes::from(format!("value of {key}"))
}
