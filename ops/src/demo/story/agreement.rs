//! The end: all replicas hold the same for every key of the story.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holm_client::{Bucket, Client, Level};
use serde_json::json;
use tokio::task::JoinSet;

use super::teller::Teller;
use super::{PATIENCE, POLL, Stage};
use crate::demo::wait::until;
use crate::explain::Agreement;
use crate::failure::Failure;
use crate::text;

/// Keys looked at, at a time.
const LOOKERS: usize = 16;
/// Keys named if they differ: the first few say enough.
const NAMED_MAX: usize = 5;

/// Tells the chapter.
pub(super) async fn tell(
    teller: &mut Teller<'_>,
    stage: &Stage<'_>,
    keys: &[String],
) -> Result<(), Failure> {
    teller.chapter(
        "All agree",
        "Every key is read once at level `all`; then each replica is asked what it holds.",
    )?;
    let (region, ..) = stage.cast();
    let next = Arc::new(AtomicUsize::new(0));
    let shared: Arc<[String]> = keys.into();
    let mut lookers = JoinSet::new();
    for _ in 0..LOOKERS {
        let (next, keys) = (Arc::clone(&next), Arc::clone(&shared));
        let (client, bucket, replicas) =
            (region.client.clone(), region.bucket.clone(), stage.replicas);
        lookers.spawn(async move {
            let mut differ = Vec::new();
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(why) = agree(&client, &bucket, key, replicas).await {
                    differ.push(format!("{key}: {why}"));
                }
            }
            differ
        });
    }
    let mut differ = Vec::new();
    while let Some(found) = lookers.join_next().await {
        differ.extend(found.unwrap_or_else(|error| vec![format!("a task broke: {error}")]));
    }
    let count = differ.len();
    differ.truncate(NAMED_MAX);
    teller.claim(
        &format!("all {} replicas hold the same", stage.replicas),
        &text::count(keys.len(), "key"),
        json!({ "replicas": stage.replicas, "keys": keys.len() }),
        if count == 0 { Ok(()) } else { Err(format!("{count} differ; {}", text::list(differ))) },
    )
}

/// Reads a key at `all`, which repairs, until every replica says that it holds the same.
async fn agree(client: &Client, bucket: &Bucket, key: &str, replicas: usize) -> Result<(), String> {
    until(PATIENCE, POLL, || async {
        let read = bucket.get(key).level(Level::All).await;
        read.map_err(|error| error.to_string())?;
        let explained = client.admin().explain(bucket, key).await;
        let agreement = Agreement::of(&explained.map_err(|error| error.to_string())?);
        if agreement.is_whole() && agreement.replicas == replicas {
            return Ok(());
        }
        Err(format!(
            "{} of {replicas} replicas answered, with {} states",
            agreement.answered, agreement.states
        ))
    })
    .await
}
