//! The network breaks: both sides stay writable, nothing is lost, the difference is shown and
//! resolved; then a delete is a write like any other.

use std::time::{Duration, Instant};

use holm_client::{Got, Level};
use serde_json::json;

use super::teller::Teller;
use super::{PATIENCE, POLL, Region, SOON, Stage};
use crate::demo::wait::until;
use crate::failure::Failure;

const KEY: &str = "cart-of-alice";
const BEFORE: &str = "tea";
const HERE: &str = "tea, milk";
const THERE: &str = "tea, honey";
const MERGED: &str = "tea, milk, honey";
/// How long a read may try that cannot succeed.
const HOPELESS: Duration = Duration::from_secs(1);
/// Other keys that each side writes during the cut, half of them the same ones.
const OTHERS: usize = 40;

/// Tells the chapters; returns the keys that are deleted in the end.
pub(super) async fn tell(
    teller: &mut Teller<'_>,
    stage: &Stage<'_>,
) -> Result<Vec<String>, Failure> {
    cut(teller, stage).await?;
    heal(teller, stage).await?;
    resolve(teller, stage).await?;
    delete(teller, stage).await?;
    Ok(vec![KEY.to_owned()])
}

async fn cut(teller: &mut Teller<'_>, stage: &Stage<'_>) -> Result<(), Failure> {
    let (here, there, _) = stage.cast();
    teller.chapter(
        "A region is cut off",
        &format!(
            "Everybody has `{BEFORE}` in {KEY}. Then {} loses all other regions, and both sides \
             write.",
            here.name
        ),
    )?;
    here.bucket.put(KEY, BEFORE).level(Level::All).await?;
    stage.cluster.lock().await.cut(&here.name, None).await?;
    teller.claim(
        &format!("the cut is real: no node of {} reaches a quorum of all replicas", here.name),
        "",
        json!({ "region": here.name }),
        fail_at_quorum(here).await,
    )?;
    for (region, value) in [(here, HERE), (there, THERE)] {
        let began = Instant::now();
        let written = read_and_write(region, value).await;
        let took = (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
        teller.claim(
            &format!("{} reads `{BEFORE}` and writes `{value}` at local_quorum", region.name),
            &format!("{took:.1} ms for both"),
            json!({ "region": region.name, "ms": took }),
            written,
        )?;
    }
    for (at, region) in [here, there].into_iter().enumerate() {
        for number in at * OTHERS / 2..at * OTHERS / 2 + OTHERS {
            let put = region.bucket.put(format!("basket-{number:03}"), region.name.clone());
            put.level(Level::LocalQuorum).await?;
        }
    }
    for (region, value) in [(here, HERE), (there, THERE)] {
        let seen = region.expect(KEY, Level::LocalQuorum, &[value]).await;
        teller.claim(&format!("{} sees its own value only", region.name), "", json!(null), seen)?;
    }
    Ok(())
}

/// A quorum read that cannot succeed in this region. The client may go round the cut, to a node of
/// another region: that is no answer of this one.
async fn fail_at_quorum(region: &Region) -> Result<(), String> {
    let got = match region.bucket.get(KEY).level(Level::Quorum).timeout(HOPELESS).await {
        Err(_) => return Ok(()),
        Ok(got) => got,
    };
    let coordinator = got.receipt().coordinator;
    let view = region.client.view();
    match view.nodes.iter().find(|node| node.id == coordinator) {
        Some(node) if node.region != region.name => Ok(()),
        _ => Err(format!("{coordinator} did")),
    }
}

async fn read_and_write(region: &Region, value: &str) -> Result<(), String> {
    let got = until(PATIENCE, POLL, || region.expect(KEY, Level::LocalQuorum, &[BEFORE])).await?;
    region.write_here(KEY, value, got.context()).await
}

async fn heal(teller: &mut Teller<'_>, stage: &Stage<'_>) -> Result<(), Failure> {
    teller.chapter(
        "The cut heals",
        "Nobody reads or writes anything: the replicas find out by themselves what they lack.",
    )?;
    stage.cluster.lock().await.heal().await?;
    teller.doing("waiting until all replicas hold the same");
    let equal = stage.become_equal(PATIENCE).await;
    let equal = equal.and_then(|(found, took)| match took <= SOON {
        true => Ok((found.keys(), took)),
        false => Err(format!("it took {:.1} s", took.as_secs_f64())),
    });
    let (words, figures) = match &equal {
        Ok((keys, took)) => {
            let took = (took.as_secs_f64() * 100.0).round() / 100.0;
            (format!("{took:.2} s after the heal, {keys} keys"), json!({ "seconds": took }))
        }
        Err(_) => (String::new(), json!(null)),
    };
    let claim =
        format!("within {} s all {} replicas hold the same", SOON.as_secs(), stage.replicas);
    teller.claim(&claim, &words, figures, equal)?;
    let seen = stage.see_everywhere(KEY, &[HERE, THERE]).await;
    teller.claim(
        "one replica of each region shows two siblings, one from each side",
        "",
        json!({ "siblings": [HERE, THERE] }),
        seen,
    )
}

async fn resolve(teller: &mut Teller<'_>, stage: &Stage<'_>) -> Result<(), Failure> {
    let (.., writer) = stage.cast();
    teller.chapter(
        "The siblings are resolved",
        &format!("{} writes `{MERGED}` with the context of what it read.", writer.name),
    )?;
    let got = read(writer, Level::Quorum).await?;
    writer.bucket.put(KEY, MERGED).level(Level::Quorum).context(got.context()).await?;
    let seen = stage.see_everywhere(KEY, &[MERGED]).await;
    teller.claim("every region sees one value again", MERGED, json!({ "value": MERGED }), seen)
}

async fn delete(teller: &mut Teller<'_>, stage: &Stage<'_>) -> Result<(), Failure> {
    let (_, deleter, _) = stage.cast();
    teller.chapter(
        "A key is deleted",
        &format!("{} deletes {KEY} with the context of what it read.", deleter.name),
    )?;
    let got = read(deleter, Level::Quorum).await?;
    deleter.bucket.delete(KEY).context(got.context()).level(Level::Quorum).await?;
    let seen = stage.see_everywhere(KEY, &[]).await;
    teller.claim("it is gone in every region", "no replica brings it back", json!(null), seen)
}

/// Reads, again if the answer is not there at once: connections may still be on their way back.
async fn read(region: &Region, level: Level) -> Result<Got, Failure> {
    until(PATIENCE, POLL, async || region.bucket.get(KEY).level(level).await)
        .await
        .map_err(Failure::from)
}
