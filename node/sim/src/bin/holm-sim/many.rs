//! Many seeds: played by all cores, told in the order of seeds.
//!
//! Workers take seeds in turn and hand their reports over a channel; reports wait here until all
//! seeds before theirs are told. When enough runs count, what was played beyond is thrown away, so
//! `--seeds N` tells the same on every machine. With `--minutes` the time decides how many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use holm_sim::cluster::FaultTally;
use holm_sim::referee::OutcomeTally;
use holm_sim::sim::{Report, Sim, Standing};

use crate::Verdict;
use crate::args::Many;
use crate::figures::{memory, now, threads};
use crate::tell;

/// Reports that wait for each other; a worker that is ahead by more waits too.
const AHEAD_MAX: usize = 256;
/// Violations that are told in full and shrunk; of more, one line each is enough.
const TOLD_MAX: u64 = 3;
/// How often standard error says how far it is.
const PROGRESS: Duration = Duration::from_secs(60);

/// # Errors
/// A schedule could not be written.
pub(crate) fn run(task: &Many) -> Result<Verdict, String> {
    let began = now();
    let deadline = task.minutes.map(|minutes| began + Duration::from_secs_f64(minutes * 60.0));
    let (next, stop) = (AtomicU64::new(task.from), AtomicBool::new(false));
    let mut sum = Sum::default();
    let told = in_parallel(
        || {
            let is_over = stop.load(Ordering::Relaxed) || deadline.is_some_and(|at| now() >= at);
            let seed = next.load(Ordering::Relaxed);
            if is_over || seed == u64::MAX {
                return None;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            Some((seed, Sim::run_seed(seed)))
        },
        |reports| {
            let told = tell_in_order(task, began, reports, &mut sum);
            stop.store(true, Ordering::Relaxed);
            told
        },
    );
    told?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{}", sum.in_words(task.from, minutes));
    let lacks = task.count.is_some_and(|count| task.minutes.is_none() && sum.counted < count);
    if lacks || sum.counted == 0 {
        println!("too few runs counted");
    }
    let is_clean = sum.bad == 0 && !lacks && sum.counted > 0;
    Ok(if is_clean { Verdict::Clean } else { Verdict::Broken })
}

/// Has all cores do `work` until there is none, while this thread takes the results.
#[expect(clippy::disallowed_methods, reason = "each run has one thread; several runs at a time")]
pub(crate) fn in_parallel<T: Send, R>(
    work: impl Fn() -> Option<T> + Sync,
    take: impl FnOnce(Receiver<T>) -> R,
) -> R {
    let (send, receive) = sync_channel(AHEAD_MAX);
    let worker = |send: SyncSender<T>| {
        while let Some(done) = work() {
            // Nobody wants it any more.
            if send.send(done).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            let send = send.clone();
            scope.spawn(|| worker(send));
        }
        drop(send);
        take(receive)
    })
}

fn tell_in_order(
    task: &Many,
    began: Instant,
    reports: Receiver<(u64, Report)>,
    sum: &mut Sum,
) -> Result<(), String> {
    // Beyond this the seeds are at fault, not luck.
    let most = task.count.map_or(u64::MAX, |count| count.saturating_mul(2).saturating_add(100));
    let mut waiting = BTreeMap::new();
    let mut progress = began + PROGRESS;
    for (seed, report) in reports {
        waiting.insert(seed, report);
        while let Some(report) = waiting.remove(&(task.from + sum.played)) {
            sum.add(&report);
            if report.violation.is_some() {
                tell_violation(task, &report, sum.bad)?;
            }
            if task.count.is_some_and(|count| sum.counted >= count) || sum.played >= most {
                return Ok(());
            }
        }
        if now() >= progress {
            progress += PROGRESS;
            eprintln!("{} seeds, {} bad, {} s", sum.played, sum.bad, began.elapsed().as_secs());
        }
    }
    Ok(())
}

fn tell_violation(task: &Many, report: &Report, bad: u64) -> Result<(), String> {
    if bad <= TOLD_MAX {
        println!("{report}\n{}\n", tell::shrunk(&report.plan, &task.schedules)?);
    } else if let Some(violation) = &report.violation {
        println!("seed {} broke a rule: {}", report.plan.seed, violation.property.name);
    }
    Ok(())
}

/// All runs together.
#[derive(Debug, Default)]
struct Sum {
    played: u64,
    counted: u64,
    hardly_worked: u64,
    undisturbed: u64,
    bad: u64,
    steps: u64,
    simulated_us: u64,
    faults: FaultTally,
    outcomes: OutcomeTally,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.played += 1;
        match report.standing() {
            Standing::Counts => self.counted += 1,
            Standing::HardlyWorked => self.hardly_worked += 1,
            Standing::Undisturbed => self.undisturbed += 1,
        }
        self.bad += u64::from(report.violation.is_some());
        self.steps += report.steps;
        self.simulated_us += report.simulated_us;
        self.faults.add(&report.faults);
        let (sum, more) = (&mut self.outcomes, report.outcomes);
        sum.acknowledged += more.acknowledged;
        sum.not_done += more.not_done;
        sum.unknown += more.unknown;
        sum.reads += more.reads;
        sum.reads_failed += more.reads_failed;
    }

    fn in_words(&self, from: u64, minutes: f64) -> String {
        let Sum { played, counted, hardly_worked, undisturbed, bad, steps, outcomes, .. } = self;
        let OutcomeTally { acknowledged, unknown, not_done, reads, reads_failed, .. } = outcomes;
        let entries = self.faults.entries();
        let faults: Vec<String> =
            entries.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let range = match played {
            0 => "no seeds".to_owned(),
            _ => format!("seeds {from} to {}", from + played - 1),
        };
        format!(
            "writes: {acknowledged} acknowledged, {unknown} unknown, {not_done} not done; \
             reads: {reads} answered, {reads_failed} not\n\
             faults: {}\n\
             not counted: {hardly_worked} runs with under half of their calls ok, \
             {undisturbed} in which no fault had an effect\n\
             {range}: {counted} runs count, {bad} bad, {steps} steps\n\
             {:.0} seeds and {:.1} simulated hours a minute on {} threads, {} of memory at most",
            faults.join(", "),
            *played as f64 / minutes,
            self.simulated_us as f64 / 3.6e9 / minutes,
            threads(),
            memory(),
        )
    }
}
