//! The end: all replicas hold the same, and what was deleted has left every disk.

use serde_json::json;

use super::teller::Teller;
use super::{PATIENCE, POLL, Stage};
use crate::demo::wait::until;
use crate::failure::Failure;
use crate::text;

/// Deleted keys of which every replica is asked what it remembers.
const EXPLAINED: usize = 10;

/// Tells the chapter.
pub(super) async fn tell(
    teller: &mut Teller<'_>,
    stage: &Stage<'_>,
    deleted: &[String],
) -> Result<(), Failure> {
    teller.chapter(
        "All agree",
        "Each replica says what it holds, as one digest; deletes are forgotten when all have seen them.",
    )?;
    let forgotten = until(PATIENCE, POLL, async || {
        let (found, _) = stage.become_equal(PATIENCE).await?;
        match found.tombstones() {
            0 => Ok(found),
            left => Err(format!("{left} tombstones are left")),
        }
    });
    let forgotten = forgotten.await;
    let keys = forgotten.as_ref().map_or(0, |found| found.keys());
    teller.claim(
        &format!("all {} replicas hold the same, and no tombstone", stage.replicas),
        &format!("{keys} keys"),
        json!({ "replicas": stage.replicas, "keys": keys, "tombstones": 0 }),
        forgotten,
    )?;
    let mut explained = Ok(());
    for key in deleted.iter().take(EXPLAINED) {
        explained = explained.and(nothing_is_left(stage, key).await);
    }
    teller.claim(
        "no replica remembers anything of a deleted key",
        &text::count(deleted.len().min(EXPLAINED), "key"),
        json!({ "keys": deleted.len().min(EXPLAINED) }),
        explained,
    )
}

/// Whether no replica has values or a context of a key.
async fn nothing_is_left(stage: &Stage<'_>, key: &str) -> Result<(), String> {
    let (region, ..) = stage.cast();
    let explained = region.client.admin().explain(&region.bucket, key.to_owned()).await;
    let explained = explained.map_err(|error| error.to_string())?;
    for member in explained.members {
        let Some(state) = member.state else { continue };
        if !state.siblings.is_empty() || !state.context.is_empty() {
            return Err(format!("{} still has a row for {key}", member.node));
        }
    }
    Ok(())
}
