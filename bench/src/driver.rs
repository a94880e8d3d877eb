//! The closed loop: tasks that each do one operation after the other.
//!
//! All tasks share one thread, so a slow answer never waits behind a lock, and the client's cost is
//! one core's at most. An operation counts if it ends within the window; its latency is from its
//! own start. A closed loop asks less while the target is slow: its percentiles describe what these
//! tasks saw, not what a stream of independent users would see.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cli::Workload;
use crate::failure::Failure;
use crate::keyspace::{Keyspace, Lane};
use crate::measured::{Measured, Recorder, Window};
use crate::target::Target;

/// Pause of a task after an error, so that refusals without a wait cannot take the whole thread.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);
/// How often loading tries a record, with [`PAUSE_BEFORE_RETRY`] in between: a node that just
/// started, or an overloaded one, gets a few seconds.
const LOAD_ATTEMPTS_MAX: u32 = 20;
/// Pause of the load before it tries a record again.
const PAUSE_BEFORE_RETRY: Duration = Duration::from_millis(200);
/// Operations in flight while records are loaded: enough for full batches.
const LOAD_CONCURRENCY: u64 = 256;
/// How long operations in flight at the end may take; what is still there then is abandoned.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What to drive a target with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// What every operation is.
    pub(crate) workload: Workload,
    /// Tasks; at most as many as there are records.
    pub(crate) concurrency: u64,
    /// How long to run before measuring.
    pub(crate) warmup: Duration,
    /// How long to measure.
    pub(crate) duration: Duration,
}

struct Shared {
    target: Target,
    space: Arc<Keyspace>,
    workload: Workload,
    recorder: Mutex<Recorder>,
    stop: AtomicBool,
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives a target and measures it, this process and the nodes with these process ids.
///
/// # Errors
/// There are fewer records than tasks.
pub(crate) async fn drive(
    target: &Target,
    space: &Arc<Keyspace>,
    plan: Plan,
    pids: &[u32],
) -> Result<Measured, Failure> {
    let Plan { workload, concurrency, warmup, duration } = plan;
    if concurrency > space.records() {
        return Err(Failure::Usage(format!(
            "--concurrency {concurrency} needs at least as many --records, not {}",
            space.records()
        )));
    }
    let shared = Arc::new(Shared {
        target: target.clone(),
        space: Arc::clone(space),
        workload,
        recorder: Mutex::new(Recorder::new()),
        stop: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    for lane in 0..concurrency {
        tasks.spawn(operate(Arc::clone(&shared), space.lane(lane, concurrency)));
    }
    tokio::time::sleep(warmup).await;
    shared.recorder().reset();
    let window = Window::open(pids);
    tokio::time::sleep(duration).await;
    let measured = window.close(&shared.recorder());
    shared.stop.store(true, Ordering::Relaxed);
    // What cannot end in time is aborted with the set.
    let _ =
        tokio::time::timeout(DRAIN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
    Ok(measured)
}

async fn operate(shared: Arc<Shared>, mut lane: Lane) {
    while !shared.stop.load(Ordering::Relaxed) {
        let index = lane.pick();
        let result = match shared.workload {
            Workload::Write => shared.target.write(&shared.space, index, &mut lane.random).await,
            Workload::Read => shared.target.read(&shared.space, index).await,
        };
        match result {
            Ok(latency) => shared.recorder().success(latency),
            Err(label) => {
                shared.recorder().error(label);
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// Writes every record once.
///
/// # Errors
/// [`Failure::Load`] if one cannot be written after several attempts.
pub(crate) async fn load(target: &Target, space: &Arc<Keyspace>) -> Result<(), Failure> {
    if matches!(target, Target::Null) {
        return Ok(());
    }
    let lanes = LOAD_CONCURRENCY.min(space.records());
    let mut tasks = JoinSet::new();
    for lane in 0..lanes {
        tasks.spawn(load_lane(target.clone(), Arc::clone(space), space.lane(lane, lanes)));
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(panic) => {
                return Err(Failure::Load { index: 0, why: panic.to_string() });
            }
        }
    }
    Ok(())
}

async fn load_lane(target: Target, space: Arc<Keyspace>, mut lane: Lane) -> Result<(), Failure> {
    for index in lane.all() {
        let mut attempts = 0;
        while let Err(label) = target.write(&space, index, &mut lane.random).await {
            attempts += 1;
            if attempts == LOAD_ATTEMPTS_MAX {
                return Err(Failure::Load { index, why: label.into_owned() });
            }
            tokio::time::sleep(PAUSE_BEFORE_RETRY).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(concurrency: u64) -> Plan {
        Plan {
            workload: Workload::Write,
            concurrency,
            warmup: Duration::ZERO,
            duration: Duration::from_millis(20),
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Goal: the loop turns, ends and counts. Method: the null target.
    #[test]
    fn null_target_is_driven() {
        let space = Arc::new(Keyspace::new(100, 100, 1));
        let measured = block_on(drive(&Target::Null, &space, plan(8), &[])).unwrap();
        assert!(measured.operations > 100 && measured.error_count == 0);
        assert!(measured.seconds >= 0.02 && measured.latency.is_some());
        assert_eq!(measured.cpu.nodes_s, None);
    }

    /// Goal: a task without a key of its own is a mistake of the caller, not a crash.
    #[test]
    fn every_task_needs_a_key() {
        let space = Arc::new(Keyspace::new(7, 100, 1));
        assert!(matches!(
            block_on(drive(&Target::Null, &space, plan(8), &[])),
            Err(Failure::Usage(_))
        ));
    }
}
