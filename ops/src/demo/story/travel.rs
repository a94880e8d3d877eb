//! A write travels: seen in every other region after the one-way delay and a little more, and not
//! sooner, which shows that the distances are real.

use std::time::{Duration, Instant};

use holm_client::Level;
use serde_json::json;

use super::teller::Teller;
use super::{PATIENCE, Region, Stage};
use crate::demo::wait::until;
use crate::failure::Failure;

/// Writes that are timed. The middle one counts: the machine may be busy with something else.
const ROUNDS: usize = 5;
/// How much later than the one-way delay a write may be seen: the hop inside the region, two fsyncs
/// and the schedulers of a small machine that runs all nodes at once.
const SLACK: Duration = Duration::from_millis(100);
/// How often the other regions look. Adds this much to what is measured, at most.
const LOOK: Duration = Duration::from_millis(2);
/// Timers and rounding may let a packet go this much early.
const EARLY: Duration = Duration::from_millis(1);

/// Tells the chapter.
pub(super) async fn tell(teller: &mut Teller<'_>, stage: &Stage<'_>) -> Result<(), Failure> {
    let (writer, ..) = stage.cast();
    teller.chapter(
        "A write travels",
        &format!(
            "{} writes and has its answer from its own nodes; the others read theirs until they \
             see it.",
            writer.name
        ),
    )?;
    let others: Vec<&Region> = stage.regions.iter().skip(1).collect();
    let mut delays: Vec<Vec<Duration>> = vec![Vec::new(); others.len()];
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        let key = format!("travel-{round}");
        let (answer, seen) = send_and_watch(writer, &others, &key).await?;
        answers.push(answer);
        for (of_region, delay) in delays.iter_mut().zip(seen) {
            of_region.push(delay);
        }
    }
    let answer = median(&mut answers);
    teller.holds(
        &format!("{} had its answer without waiting for the others", writer.name),
        &format!("{:.1} ms at local_quorum, median of {ROUNDS}", ms(answer)),
        json!({ "region": writer.name, "median_ms": ms(answer) }),
    )?;
    for (region, mut delays) in others.into_iter().zip(delays) {
        let one_way = stage.one_way(writer, region).await;
        let seen = median(&mut delays);
        let fastest = delays.iter().min().copied().unwrap_or_default();
        teller.claim(
            &format!("{} saw it after the one-way delay and a little more", region.name),
            &format!("{:.1} ms, median of {ROUNDS}; one way is {:.1} ms", ms(seen), ms(one_way)),
            json!({ "region": region.name, "median_ms": ms(seen), "one_way_ms": ms(one_way) }),
            judge(one_way, fastest, seen),
        )?;
    }
    Ok(())
}

/// Writes a key and watches it arrive; returns how long the writer waited for its answer, and after
/// what time each of the others saw the value.
async fn send_and_watch(
    writer: &Region,
    others: &[&Region],
    key: &str,
) -> Result<(Duration, Vec<Duration>), Failure> {
    let began = Instant::now();
    let mut watches = tokio::task::JoinSet::new();
    for (at, region) in others.iter().enumerate() {
        let (region, key) = ((*region).clone(), key.to_owned());
        watches.spawn(async move {
            let seen = until(PATIENCE, LOOK, || async {
                let got = region.read_here(&key, Level::One).await?;
                if got.is_absent() { Err("still absent".to_owned()) } else { Ok(began.elapsed()) }
            });
            (at, seen.await)
        });
    }
    writer.bucket.put(key, "hello").level(Level::LocalQuorum).await?;
    let answer = began.elapsed();
    let mut seen = vec![Duration::MAX; others.len()];
    while let Some(watched) = watches.join_next().await {
        let (at, delay) = watched.map_err(|error| {
            Failure::failed(format!("a watching task broke: {error}"), "this is a bug in holm")
        })?;
        seen[at] = delay.map_err(|why| {
            Failure::failed(
                format!("{} does not see {key}: {why}", others[at].name),
                "see the nodes' logs",
            )
        })?;
    }
    Ok((answer, seen))
}

fn judge(one_way: Duration, fastest: Duration, seen: Duration) -> Result<(), String> {
    if fastest + EARLY < one_way {
        return Err(format!("one arrived after {:.1} ms, before it can have", ms(fastest)));
    }
    if seen > one_way + SLACK {
        let (seen, most) = (ms(seen), ms(one_way + SLACK));
        return Err(format!("it took {seen:.1} ms, expected {most:.1} ms at most"));
    }
    Ok(())
}

/// The middle one. Sorts.
fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: too fast is as wrong as too slow. Method: around both ends.
    #[test]
    fn delays_are_judged() {
        let ms = Duration::from_millis;
        assert!(judge(ms(40), ms(40), ms(45)).is_ok());
        assert!(judge(ms(40), ms(38), ms(45)).is_err());
        assert!(judge(ms(40), ms(40), ms(141)).is_err());
        assert_eq!(median(&mut [ms(9), ms(1), ms(5)]), ms(5));
    }
}
