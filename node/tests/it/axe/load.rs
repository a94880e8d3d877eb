//! The simulator's clients at work on real processes.
//!
//! One task plays all clients: each waits for its call or for its next turn, and all act on the one
//! [`RealWorld`] under a lock, so that the referee hears what happened in the order in which the
//! clients learn it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use holm_protocol::level::Level;
use holm_sim::client::{Client, Next};
use holm_sim::cluster::CallId;
use holm_sim::plan::{ClientPlan, Repeats, Workload};
use holm_sim::world::World;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::link::Answer;
use super::world::RealWorld;
use crate::harness::{until, within};

/// The world, shared by clients and faults.
pub(crate) type Shared = Arc<Mutex<RealWorld>>;

/// Clients of one round, three for each workload: concurrent writers on every kind of key.
const CLIENTS: usize = 3 * Workload::ALL.len();
/// Keys of each workload. Few enough that clients meet on them, enough that the referee, whose work
/// grows with the square of a key's writes, keeps up.
const KEYS: usize = 24;
/// The longest pause between two operations of a client, microseconds. Short: the disks and not the
/// clients should be what is waited for.
const THINK_US: u64 = 2_000;
/// Long enough for a busy machine, short enough that a stopped node is given up within a round.
const TIMEOUT_MS: u32 = 1_000;

/// Takes the world, not for long.
pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, RealWorld> {
    world.lock().expect("no client has panicked")
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    world: Shared,
    stop: watch::Sender<bool>,
    task: JoinHandle<mpsc::Receiver<Answer>>,
}

impl Load {
    /// Starts the clients of a round. Their ids start at `first_id`: a request id must not be used
    /// twice.
    pub(crate) fn start(
        world: &Shared,
        (seed, first_id, regions): (u64, u64, usize),
        answers: mpsc::Receiver<Answer>,
    ) -> Load {
        let mut held = lock(world);
        let client = |at: usize| {
            // Every second client asks at levels drawn anew each time.
            let strict = at.is_multiple_of(2).then_some((Level::Quorum, Level::Quorum));
            let plan = ClientPlan {
                id: first_id + at as u64,
                region: at % regions,
                workload: Workload::ALL[at % Workload::ALL.len()],
                operations: u32::MAX,
                think_us: THINK_US,
                levels: strict,
                timeout_ms: TIMEOUT_MS,
                repeats: Repeats::AtReplicas,
            };
            Client::new((seed, first_id + at as u64), plan, KEYS, &mut *held)
        };
        let clients: Vec<Client> = (0..CLIENTS).map(client).collect();
        drop(held);
        let (stop, stopped) = watch::channel(false);
        let play = Play { world: world.clone(), clients, turns: BTreeSet::new(), answers, stopped };
        Load { world: world.clone(), stop, task: tokio::spawn(play.run()) }
    }

    /// Waits until so many more writes were acknowledged, or a rule was broken.
    pub(crate) async fn more(&self, count: u64) {
        let acknowledged = || lock(&self.world).referee().tally().acknowledged;
        let target = acknowledged() + count;
        let reached = async || {
            assert!(!self.task.is_finished(), "the clients have stopped");
            acknowledged() >= target || lock(&self.world).referee().violation().is_some()
        };
        until("writes are acknowledged", reached).await;
    }

    /// Lets the clients finish what they wait for.
    pub(crate) async fn finish(self) -> mpsc::Receiver<Answer> {
        self.stop.send_replace(true);
        within("clients finish", self.task).await.expect("no client has panicked")
    }
}

/// A client's next turn: when, who, and the call to give up, if it is not to act.
type Turn = (u64, usize, Option<CallId>);

/// The task of a [`Load`].
struct Play {
    world: Shared,
    clients: Vec<Client>,
    turns: BTreeSet<Turn>,
    answers: mpsc::Receiver<Answer>,
    stopped: watch::Receiver<bool>,
}

impl Play {
    async fn run(mut self) -> mpsc::Receiver<Answer> {
        let now_us = lock(&self.world).now_us();
        self.turns = (0..self.clients.len()).map(|at| (now_us, at, None)).collect();
        loop {
            let is_stopping = *self.stopped.borrow();
            if is_stopping {
                // Whoever waits for no call is done.
                self.turns.retain(|(_, _, call)| call.is_some());
            }
            let Some(&turn) = self.turns.first() else { return self.answers };
            let at = lock(&self.world).instant(turn.0);
            tokio::select! {
                answer = self.answers.recv() => match answer {
                    Some(answer) => self.on_answer(answer),
                    // The test has failed and takes everything down.
                    None => return self.answers,
                },
                () = sleep_until(at.into()) => {
                    self.turns.remove(&turn);
                    self.on_turn(turn);
                }
                _ = self.stopped.changed(), if !is_stopping => {}
            }
        }
    }

    fn on_answer(&mut self, (call, result): Answer) {
        let Some(at) = self.clients.iter().position(|client| client.waits_for(call)) else {
            return;
        };
        self.turns.retain(|(_, _, waited)| *waited != Some(call));
        let mut world = lock(&self.world);
        let next = self.clients[at].on_answer(result, &mut *world);
        world.settle();
        drop(world);
        self.plan(at, next);
    }

    fn on_turn(&mut self, (_, at, call): Turn) {
        let mut world = lock(&self.world);
        let next = match call {
            Some(call) => self.clients[at].give_up(call, &mut *world),
            None => self.clients[at].act(&mut *world),
        };
        world.settle();
        drop(world);
        self.plan(at, next);
    }

    fn plan(&mut self, at: usize, next: Next) {
        match next {
            Next::ActAt(at_us) => self.turns.insert((at_us, at, None)),
            Next::GiveUpAt(at_us, call) => self.turns.insert((at_us, at, Some(call))),
            Next::Done => false,
        };
    }
}
