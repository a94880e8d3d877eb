//! One run: a plan, played until its faults end, then healed, read everywhere and compared.
//!
//! 1. *Faults*: clients work while faults come and go. Answers and commits are checked as they
//!    happen, replicas with equal clocks at intervals.
//! 2. *Calm*: all faults end, dead nodes start, clients finish.
//! 3. *Convergence*: with nobody asking for anything, hints go home, and replicas come to hold and to know
//!    the same within a bounded time.
//! 4. *Reading*: every key can be read from every region at all its replicas.
//! 5. *Verdict*: replicas are equal, nothing acknowledged is lost, nothing overwritten is back.
//!
//! A node that lost its disk takes what the others have before step 4, on its own. One that cannot,
//! because another rule is broken, is not read from.

mod strike;

use std::panic::{AssertUnwindSafe, catch_unwind};

use holm_core::object::{Object, ObjectKind};
use holm_core::shard::event::Counters;
use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;
use holm_protocol::message::{Get, Request};

use crate::check::{Verdict, Violation, converged, ends, panics, quarantine};
use crate::client::{Client, Next};
use crate::cluster::{CallId, CallResult, Cluster, FaultTally, Happened, Setup};
use crate::history::{EventId, KeyId};
use crate::hostile::Hostile;
use crate::plan::{FaultKind, Mode, Plan};
use crate::referee::OutcomeTally;
use crate::steps::{Trace, stability};
use crate::trace::STEPS_KEPT;

/// Between two comparisons of replicas, simulated microseconds.
const CHECK_EVERY_US: u64 = 150_000;
/// Time for connections to come back, microseconds.
const SETTLE_US: u64 = 4_000_000;
/// Time for hints to go home, microseconds: the longest pause between two tries, three times.
const HINTS_MAX_US: u64 = 10_000_000;
/// Time in which replicas must become equal, microseconds, and how often that is looked at: claims,
/// questions and answers, a few times each where answers are short.
const CONVERGE_US: u64 = 20_000_000;
const LOOK_US: u64 = 200_000;
/// Rounds of reads after which all must have been answered: more than one for reads that fail because
/// writes are still on their way.
const ROUNDS_MAX: usize = 6;
/// Steps after which a run is stuck, and how many each operation of a client adds.
const STEPS_MAX: u64 = 3_000_000;
const STEPS_OF_OPERATION: u64 = 1_000;
/// Time that clients have after faults end, microseconds: an hour of load, and as much again.
const CALM_MAX_US: u64 = 2 * 3_600 * 1_000_000;
/// Alarm numbers of faults' ends, checks and clients start here; faults' beginnings at 0.
const FAULT_ENDS: u64 = 1 << 32;
const CHECKS: u64 = 2 << 32;
const CLIENTS: u64 = 3 << 32;
const CLIENT_TIMEOUTS: u64 = 4 << 32;
const FAULT_TURNS: u64 = 5 << 32;
/// Disks are copied that an older copy will replace.
const COPIES: u64 = 6 << 32;
const HOSTILE: u64 = 7 << 32;
/// Times that somebody tries a forged context in a run, about.
const FORGERIES: u64 = 4;
/// The referee's own client.
const READER: u64 = 1 << 20;

/// Whether a run shows anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Counts,
    /// Fewer than half of its calls were ok.
    HardlyWorked,
    /// It was to have faults, and none had an effect.
    Undisturbed,
}

/// How a run ended. In words: [`crate::report`].
#[derive(Debug, Clone)]
pub struct Report {
    /// What was to happen.
    pub plan: Plan,
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last steps, if a rule was broken or all were asked for.
    pub trace: Vec<String>,
    /// The hash over all steps.
    pub digest: u64,
    /// How many steps there were.
    pub steps: u64,
    /// How long it was, simulated microseconds.
    pub simulated_us: u64,
    /// When faults had ended and clients had done what they had to, simulated microseconds.
    pub worked_us: u64,
    /// How often each fault had an effect.
    pub faults: FaultTally,
    /// How calls ended.
    pub outcomes: OutcomeTally,
    /// What the shards counted.
    pub counters: Counters,
}

impl Report {
    /// Whether the run counts, or is as good as not run.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let OutcomeTally { acknowledged, reads, not_done, unknown, reads_failed, .. } =
            self.outcomes;
        if acknowledged + reads < not_done + unknown + reads_failed {
            Standing::HardlyWorked
        } else if self.plan.mode != Mode::Calm && self.faults.total() == 0 {
            Standing::Undisturbed
        } else {
            Standing::Counts
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Sim {
    plan: Plan,
    cluster: Cluster,
    clients: Vec<Client>,
    hostile: Hostile,
    busy_clients: usize,
    steps_max: u64,
    worked_us: u64,
    /// Calls of client timeouts, by alarm.
    timeouts: Vec<(usize, CallId)>,
    trace_all: bool,
    /// Who dies for good when faults end.
    dies: Option<NodeId>,
}

impl Sim {
    /// A run of a plan, at its beginning. With `trace_all` the report has every step.
    #[must_use]
    pub fn new(plan: Plan, trace_all: bool) -> Sim {
        let setup = Setup {
            shape: plan.shape.clone(),
            shard: plan.shard.clone(),
            strict: plan.strict,
            sync: plan.sync,
            timing: plan.timing.clone(),
            seed: plan.seed,
            tamper: plan.tamper,
            steps_max: if trace_all { usize::MAX } else { STEPS_KEPT },
        };
        let mut cluster = Cluster::new(setup);
        let mut clients = Vec::new();
        for (at, client) in plan.clients.iter().enumerate() {
            // Connections take a round trip to come up.
            cluster.alarm(1_000 * client.id, CLIENTS + at as u64);
            let from = (plan.seed, client.id);
            clients.push(Client::new(from, client.clone(), plan.keys, &mut cluster));
        }
        for (at, fault) in plan.faults.iter().enumerate() {
            cluster.alarm(fault.at_us, at as u64);
            if fault.kind == FaultKind::Restore {
                cluster.alarm(fault.copied_us(), COPIES + at as u64);
            }
        }
        cluster.alarm(CHECK_EVERY_US, CHECKS);
        let mut hostile = Hostile::new(plan.seed);
        cluster.alarm(hostile.next_us(0, plan.faults_until_us, FORGERIES), HOSTILE);
        let busy_clients = clients.len();
        let operations = plan.clients.iter().map(|client| u64::from(client.operations));
        let steps_max = STEPS_MAX + STEPS_OF_OPERATION * operations.sum::<u64>();
        Sim {
            plan,
            cluster,
            clients,
            hostile,
            busy_clients,
            steps_max,
            worked_us: 0,
            timeouts: Vec::new(),
            trace_all,
            dies: None,
        }
    }

    /// The same, but this node dies for good when the faults end, and is taken out of the layout when
    /// clients have done what they had to. Not if nobody else might have what it had.
    #[must_use]
    pub fn burying(self, node: NodeId) -> Sim {
        Sim { dies: Some(node), ..self }
    }

    /// Plays the plan of a seed.
    #[must_use]
    pub fn run_seed(seed: u64) -> Report {
        Sim::new(Plan::from_seed(seed), false).run()
    }

    /// Plays the plan.
    #[must_use]
    pub fn run(self) -> Report {
        self.run_and_tell(|| ())
    }

    /// Plays a plan with one key, and records what the protocol does to it.
    #[must_use]
    pub fn run_recorded(mut self) -> (Report, Option<Trace>) {
        let key = self.cluster.referee().history().keys().next().map(|(key, _)| key);
        if let Some(key) = key {
            self.cluster.record(key);
        }
        self.play_to_the_end(|| ());
        let trace = self.cluster.take_steps();
        (self.report(), trace)
    }

    /// Plays a plan with one key, and records how it is forgotten.
    #[must_use]
    pub fn run_forgetting(mut self) -> (Report, Option<stability::Trace>) {
        let key = self.cluster.referee().history().keys().next().map(|(key, _)| key);
        if let Some(key) = key {
            self.cluster.record_forgetting(key);
        }
        self.play_to_the_end(|| ());
        let trace = self.cluster.take_forgetting();
        (self.report(), trace)
    }

    fn play_to_the_end(&mut self, worked: impl FnOnce()) {
        // Nothing of the run is used afterwards but what it recorded.
        let played = catch_unwind(AssertUnwindSafe(|| self.play(worked)));
        if let Err(payload) = played {
            let violation = panics::violation(payload.as_ref());
            self.cluster.referee_mut().judge(Err(violation));
        }
    }

    /// Plays the plan, and tells when clients have done what they had to: what follows is the
    /// referee's.
    #[must_use]
    pub fn run_and_tell(mut self, worked: impl FnOnce()) -> Report {
        self.play_to_the_end(worked);
        self.report()
    }

    fn play(&mut self, worked: impl FnOnce()) {
        self.run_until(self.plan.faults_until_us);
        self.end_faults();
        // Clients finish what they have to do. Time is bounded too: comparisons go on for ever.
        let until_us = self.cluster.now_us() + CALM_MAX_US;
        while self.busy_clients > 0 && self.goes_on() && self.cluster.now_us() < until_us {
            self.step();
        }
        self.check_progress();
        self.worked_us = self.cluster.now_us();
        worked();
        if self.dies.is_some() {
            self.cluster.take_out_buried();
        }
        self.cluster.outwait_fast_clocks();
        self.run_until(self.cluster.now_us() + SETTLE_US);
        self.cluster.check_clocks();
        self.cluster.check_voids();
        self.let_hints_go_home();
        self.converge();
        self.read_all();
        // What was cut short proves nothing.
        self.check_progress();
        self.verdict();
    }

    /// Whether the run got here because it was done, and not because it was stuck.
    fn check_progress(&mut self) {
        let (steps, steps_max) = (self.cluster.trace().count(), self.steps_max);
        let progress = ends::Progress { steps, steps_max, busy: self.busy_clients };
        // A run that broke a rule before is not played to its end.
        if self.cluster.referee().violation().is_none() {
            self.cluster.referee_mut().judge(ends::check(progress));
        }
    }

    fn goes_on(&self) -> bool {
        self.cluster.referee().violation().is_none()
            && self.cluster.trace().count() < self.steps_max
            && self.cluster.next_us().is_some()
    }

    fn run_until(&mut self, until_us: u64) {
        while self.goes_on() && self.cluster.next_us().is_some_and(|at_us| at_us <= until_us) {
            self.step();
        }
    }

    fn step(&mut self) {
        match self.cluster.step() {
            Some(Happened::Alarm(number)) => self.alarm(number),
            Some(Happened::Answer(call, result)) => {
                self.hostile.on_answer(call, &result, &mut self.cluster);
                if let Some(at) = self.clients.iter().position(|client| client.waits_for(call)) {
                    let next = self.clients[at].on_answer(result, &mut self.cluster);
                    self.plan_client(at, next);
                }
            }
            Some(Happened::Nothing) | None => {}
        }
    }

    fn alarm(&mut self, number: u64) {
        let (kind, at) = (number & !(FAULT_ENDS - 1), (number & (FAULT_ENDS - 1)) as usize);
        match kind {
            0 => self.fault_begins(at),
            // What is left of faults when all are to end, ends then.
            FAULT_TURNS | FAULT_ENDS if self.cluster.now_us() >= self.plan.faults_until_us => {}
            FAULT_TURNS => strike::turn(&self.plan.faults[at], &mut self.cluster),
            FAULT_ENDS => strike::end(&self.plan.faults[at], &mut self.cluster),
            COPIES => self.cluster.copy_disk(self.plan.faults[at].node),
            CHECKS => {
                self.cluster.check_replicas();
                self.cluster.alarm(self.cluster.now_us() + CHECK_EVERY_US, CHECKS);
            }
            CLIENTS => {
                let next = self.clients[at].act(&mut self.cluster);
                self.plan_client(at, next);
            }
            HOSTILE => {
                self.hostile.act(&mut self.cluster);
                let (now_us, until_us) = (self.cluster.now_us(), self.plan.faults_until_us);
                let next_us = self.hostile.next_us(now_us, until_us, FORGERIES);
                if next_us < until_us {
                    self.cluster.alarm(next_us, HOSTILE);
                }
            }
            _ => {
                let (client, call) = self.timeouts[at];
                if self.clients[client].waits_for(call) {
                    let next = self.clients[client].give_up(call, &mut self.cluster);
                    self.plan_client(client, next);
                }
            }
        }
    }

    fn plan_client(&mut self, at: usize, next: Next) {
        match next {
            Next::ActAt(at_us) => self.cluster.alarm(at_us, CLIENTS + at as u64),
            Next::GiveUpAt(at_us, call) => {
                let number = CLIENT_TIMEOUTS + self.timeouts.len() as u64;
                self.timeouts.push((at, call));
                self.cluster.alarm(at_us, number);
            }
            Next::Done => self.busy_clients -= 1,
        }
    }

    fn fault_begins(&mut self, at: usize) {
        let fault = self.plan.faults[at];
        let now_us = self.cluster.now_us();
        self.cluster.alarm(now_us + fault.for_us / 2, FAULT_TURNS + at as u64);
        self.cluster.alarm(now_us + fault.for_us, FAULT_ENDS + at as u64);
        strike::begin(&fault, &mut self.cluster);
    }

    fn end_faults(&mut self) {
        let dies = self.dies.take();
        self.dies = dies.filter(|&node| self.cluster.bury(node));
        self.cluster.heal();
    }

    /// Waits until nobody keeps anything for anybody, or for too long.
    fn let_hints_go_home(&mut self) {
        let until_us = self.cluster.now_us() + HINTS_MAX_US;
        while !self.cluster.hints_left().is_empty() && self.cluster.now_us() < until_us {
            if !self.goes_on() {
                return;
            }
            self.run_until(self.cluster.now_us() + CHECK_EVERY_US);
        }
        if self.goes_on() {
            self.cluster.check_hints_left();
        }
    }

    /// Lets time pass until all replicas are equal, or for too long.
    fn converge(&mut self) {
        let keys: Vec<KeyId> =
            self.cluster.referee().history().keys().map(|(key, _)| key).collect();
        let until_us = self.cluster.now_us() + CONVERGE_US;
        let mut clocks = self.check_clocks_converged();
        let mut forgotten = self.cluster.check_all_forgotten();
        let mut folded = self.cluster.check_all_folded();
        while self.goes_on()
            && self.cluster.now_us() < until_us
            && (clocks.is_err()
                || !self.cluster.quarantined().is_empty()
                || forgotten.is_err()
                || folded.is_err()
                || !keys.iter().all(|&key| self.is_converged(key)))
        {
            self.run_until(self.cluster.now_us() + LOOK_US);
            clocks = self.check_clocks_converged();
            forgotten = self.cluster.check_all_forgotten();
            folded = self.cluster.check_all_folded();
        }
        if self.goes_on() {
            let left = quarantine::check_left(&self.cluster.quarantined());
            self.cluster.referee_mut().judge(left);
            for key in keys {
                let replicas = self.replicas_of(key);
                self.cluster.referee_mut().check_converged(key, &replicas);
            }
            self.cluster.referee_mut().judge(clocks);
            self.cluster.referee_mut().judge(forgotten);
            self.cluster.referee_mut().judge(folded);
        }
    }

    fn check_clocks_converged(&self) -> Verdict {
        let partitions = self.plan.shape.partitions();
        partitions.into_iter().try_for_each(|at| self.cluster.check_clocks_converged(at))
    }

    /// Reads every key from every region until all are answered, or for too long.
    fn read_all(&mut self) {
        let keys: Vec<KeyId> =
            self.cluster.referee().history().keys().map(|(key, _)| key).collect();
        let mut answered = Ok(());
        for _ in 0..ROUNDS_MAX {
            answered = Ok(());
            for &key in &keys {
                answered = answered.and(self.read_everywhere(key));
            }
            // Repairs travel after the answers.
            self.run_until(self.cluster.now_us() + 1_000_000);
            if answered.is_ok() {
                break;
            }
        }
        // A run that is cut short by something else is not answered either.
        if self.goes_on() {
            self.cluster.referee_mut().judge(answered);
        }
        self.cluster.check_replicas();
    }

    /// # Errors
    /// A read that was not answered with values.
    fn read_everywhere(&mut self, key: KeyId) -> Verdict {
        let facts = self.cluster.referee().history().key(key);
        let (bucket, name) = (facts.bucket, facts.name.clone());
        let replicas = self.cluster.whole_replicas(bucket, &name);
        // At least one remembers: wipes see to it. All that do, are asked.
        let level = Level::Count(replicas.len().clamp(1, 127) as u8);
        let mut answered = Ok(());
        for region in 0..self.plan.shape.regions.len() {
            let local = replicas.iter().find(|&&node| self.cluster.region_of(node) == region);
            let Some(&node) = local.or(replicas.first()) else { break };
            let get = Get { bucket, key: name.clone(), level: Some(level), timeout_ms: 2_000 };
            let asked_us = self.cluster.now_us();
            let who = (READER, self.cluster.region_of(node));
            let call = self.cluster.call(who, node, Request::Get(get), 0);
            let result = self.wait_for(call);
            let shown = String::from_utf8_lossy(&name);
            let verdict = ends::check_read(&shown, &node.to_string(), result.as_ref());
            if let Some(result) = result.filter(|_| verdict.is_ok()) {
                self.cluster.referee_mut().read_told(key, level, asked_us, &result);
            }
            answered = answered.and(verdict);
        }
        answered
    }

    fn wait_for(&mut self, call: CallId) -> Option<CallResult> {
        while self.goes_on() {
            match self.cluster.step() {
                Some(Happened::Answer(answered, result)) if answered == call => {
                    return Some(result);
                }
                Some(Happened::Alarm(number)) => self.alarm(number),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    fn replicas_of(&self, key: KeyId) -> Vec<(NodeId, Object)> {
        let facts = self.cluster.referee().history().key(key);
        let kind = if facts.is_lww { ObjectKind::Lww } else { ObjectKind::Siblings };
        let stored = |node: NodeId| {
            let object = self.cluster.stored(node, facts.bucket, &facts.name);
            (node, object.unwrap_or_else(|| Object::new(kind)))
        };
        self.cluster.whole_replicas(facts.bucket, &facts.name).into_iter().map(stored).collect()
    }

    fn is_converged(&self, key: KeyId) -> bool {
        self.replicas_of(key).windows(2).all(|pair| converged::is_same(&pair[0].1, &pair[1].1))
    }

    /// What nobody holds but nodes that lost their disks and have not taken part again since: it is
    /// there, and cannot be read.
    fn set_aside_unreadable(&mut self) {
        let events: Vec<EventId> =
            self.cluster.referee().history().events().map(|(id, _)| id).collect();
        for id in events {
            let event = self.cluster.referee().history().event(id);
            let key = self.cluster.referee().history().key(event.key);
            let Some(dot) = event.dot.filter(|_| event.is_owed()) else { continue };
            let holds = |node: &NodeId| {
                let object = self.cluster.stored(*node, key.bucket, &key.name);
                !self.cluster.is_whole(*node) && object.is_some_and(|o| o.context.covers(dot))
            };
            let holders: Vec<NodeId> =
                event.durable.difference(&event.lost).copied().filter(holds).collect();
            self.cluster.referee_mut().set_aside(id, &holders);
        }
    }

    fn verdict(&mut self) {
        self.set_aside_unreadable();
        let keys: Vec<KeyId> =
            self.cluster.referee().history().keys().map(|(key, _)| key).collect();
        for key in keys {
            let replicas = self.replicas_of(key);
            self.cluster.referee_mut().check_final(key, &replicas);
        }
        self.cluster.referee_mut().check_history();
    }

    fn report(self) -> Report {
        let trace = self.cluster.trace();
        let violation = self.cluster.referee().violation().map(|violation| Violation {
            how: trace.with_names(&violation.how),
            ..violation.clone()
        });
        let lines = violation.is_some() || self.trace_all;
        Report {
            trace: if lines { trace.lines().collect() } else { Vec::new() },
            digest: trace.digest(),
            steps: trace.count(),
            simulated_us: self.cluster.now_us(),
            worked_us: self.worked_us,
            faults: self.cluster.tally(),
            outcomes: self.cluster.referee().tally(),
            counters: self.cluster.counters(),
            violation,
            plan: self.plan,
        }
    }
}
