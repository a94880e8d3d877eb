//! The smallest plan that still breaks the same rule: what somebody has to read.
//!
//! A plan is made smaller one step at a time, and a step is kept if the run still breaks the rule of
//! the same name. Steps: leave out faults and clients (first all, then halves, down to single ones),
//! regions, nodes and replicas; fewer operations, keys, partitions and shards; shorter faults; a disk
//! and links without chance. Rounds of all steps are repeated until one changes nothing.
//!
//! Streams of random numbers survive what is taken out ([`crate::rng`]), as far as they can: a link
//! that carries fewer messages gives the others other delays. So a step that does not fail is tried
//! with a few other seeds before it is given up; the seed belongs to the plan.
//!
//! No clock: runs and their steps are counted and bounded, so the same plan shrinks to the same plan
//! on every machine.
//!
//! Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (ddmin), TSE
//! 28(2), 2002.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::ids::NodeId;

use crate::check::Violation;
use crate::plan::Plan;
use crate::schedule::is_sensible;
use crate::sim::Sim;
use crate::store::SyncMode;

/// Seeds tried besides the plan's own before a step is given up. Arbitrary: each costs a run.
const OTHER_SEEDS: u64 = 3;
/// Times are not shortened by less than this, microseconds: nobody reads the difference.
const TIME_GRAIN_US: u64 = 10_000;

/// How much a shrinking may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs.
    pub runs: u64,
    /// Steps of all runs together. A step takes some microseconds.
    pub steps: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // About ten seconds, and seldom reached.
        Limits { runs: 3_000, steps: 1_000_000 }
    }
}

/// A smaller plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// How it breaks the rule.
    pub violation: Violation,
    /// What it took.
    pub cost: Limits,
}

/// How large a plan is for somebody who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Operations of all clients.
    pub operations: u32,
    /// Faults.
    pub faults: usize,
}

impl Size {
    /// Of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Size {
        Size {
            nodes: plan.shape.nodes().len(),
            clients: plan.clients.len(),
            operations: plan.clients.iter().map(|client| client.operations).sum(),
            faults: plan.faults.len(),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Size { nodes, clients, operations, faults } = self;
        write!(f, "{nodes} nodes, {clients} clients, {operations} operations, {faults} faults")
    }
}

/// Makes a plan that breaks a rule smaller. `None` if it breaks none.
#[must_use]
pub fn shrink(plan: &Plan, limits: Limits) -> Option<Shrunk> {
    let report = Sim::new(plan.clone(), false).run();
    let violation = report.violation?;
    let mut shrinker = Shrinker {
        best: Shrunk {
            plan: plan.clone(),
            violation,
            cost: Limits { runs: 1, steps: report.steps },
        },
        limits,
    };
    loop {
        let before = shrinker.best.plan.clone();
        shrinker.round();
        if shrinker.is_spent() || shrinker.best.plan == before {
            return Some(shrinker.best);
        }
    }
}

struct Shrinker {
    best: Shrunk,
    limits: Limits,
}

impl Shrinker {
    fn round(&mut self) {
        self.drop_from(|plan| &mut plan.faults);
        self.drop_from(|plan| &mut plan.clients);
        self.fewer_operations();
        self.smaller_cluster();
        self.lessen(1, 1, |plan| plan.keys as u64, |plan, keys| plan.keys = keys as usize);
        self.shorter_faults();
        self.less_chance();
    }

    fn is_spent(&self) -> bool {
        self.best.cost.runs >= self.limits.runs || self.best.cost.steps >= self.limits.steps
    }

    /// Keeps a smaller plan if it breaks the same rule.
    fn accept(&mut self, smaller: Plan) -> bool {
        if smaller == self.best.plan || !is_sensible(&smaller) {
            return false;
        }
        let own = smaller.seed;
        let others = (0..OTHER_SEEDS).filter(|&seed| seed != own);
        for seed in std::iter::once(own).chain(others) {
            if self.is_spent() {
                return false;
            }
            let plan = Plan { seed, ..smaller.clone() };
            let report = Sim::new(plan.clone(), false).run();
            self.best.cost.runs += 1;
            self.best.cost.steps += report.steps;
            let rule = self.best.violation.property.name;
            if let Some(violation) = report.violation.filter(|v| v.property.name == rule) {
                (self.best.plan, self.best.violation) = (plan, violation);
                return true;
            }
        }
        false
    }

    /// Changes a copy of the plan, and keeps it if it breaks the same rule.
    fn change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut smaller = self.best.plan.clone();
        change(&mut smaller);
        self.accept(smaller)
    }

    /// Leaves out elements of a list: all, halves, quarters, single ones.
    fn drop_from<T>(&mut self, of: fn(&mut Plan) -> &mut Vec<T>) {
        let mut chunk = of(&mut self.best.plan).len();
        while chunk > 0 {
            let mut at = 0;
            while at < of(&mut self.best.plan).len() {
                let is_less = self.change(|plan| {
                    let list = of(plan);
                    list.drain(at..(at + chunk).min(list.len()));
                });
                at += if is_less { 0 } else { chunk };
            }
            chunk /= 2;
        }
    }

    /// Brings a number as near to its least value as the rule stays broken.
    fn lessen(
        &mut self,
        least: u64,
        grain: u64,
        get: impl Fn(&Plan) -> u64,
        set: impl Fn(&mut Plan, u64),
    ) {
        let mut step = get(&self.best.plan).saturating_sub(least);
        while step >= grain {
            let value = get(&self.best.plan);
            let lower = value.checked_sub(step).filter(|&lower| lower >= least);
            if !lower.is_some_and(|lower| self.change(|plan| set(plan, lower))) {
                step /= 2;
            }
        }
    }

    fn fewer_operations(&mut self) {
        for at in 0..self.best.plan.clients.len() {
            self.lessen(
                1,
                1,
                |plan| u64::from(plan.clients[at].operations),
                |plan, operations| plan.clients[at].operations = operations as u32,
            );
        }
    }

    fn smaller_cluster(&mut self) {
        for region in (0..self.best.plan.shape.regions.len()).rev() {
            self.change(|plan| leave_out_region(plan, region));
        }
        let nodes: Vec<NodeId> = self.best.plan.shape.nodes().into_keys().collect();
        for node in nodes.into_iter().rev() {
            self.change(|plan| leave_out_node(plan, node));
        }
        for region in 0..self.best.plan.shape.regions.len() {
            self.lessen(
                1,
                1,
                |plan| u64::from(plan.shape.regions[region].1),
                |plan, replicas| plan.shape.regions[region].1 = replicas as u8,
            );
        }
        self.lessen(0, 1, |p| u64::from(p.shape.bits), |p, bits| p.shape.bits = bits as u8);
        self.lessen(1, 1, |p| p.shape.shards as u64, |p, shards| p.shape.shards = shards as usize);
    }

    fn shorter_faults(&mut self) {
        for at in 0..self.best.plan.faults.len() {
            let set = |plan: &mut Plan, for_us| plan.faults[at].for_us = for_us;
            self.lessen(TIME_GRAIN_US, TIME_GRAIN_US, |plan| plan.faults[at].for_us, set);
        }
        let ends = self.best.plan.faults.iter().map(|fault| fault.at_us + fault.for_us).max();
        let set = |plan: &mut Plan, until_us| plan.faults_until_us = until_us;
        let least = ends.unwrap_or(TIME_GRAIN_US);
        self.lessen(least, TIME_GRAIN_US, |plan| plan.faults_until_us, set);
    }

    fn less_chance(&mut self) {
        self.change(|plan| plan.sync = SyncMode::Always);
        self.change(|plan| plan.timing.link_spread = 0);
        self.change(|plan| plan.timing.disk.jitter_us = 0);
        self.change(|plan| {
            plan.timing.delays.iter_mut().flatten().for_each(|delay| delay.jitter_us = 0);
        });
    }
}

/// The plan without a region. Its clients move to the first that is left.
fn leave_out_region(plan: &mut Plan, region: usize) {
    if plan.shape.regions.len() < 2 {
        return;
    }
    let nodes = plan.shape.nodes();
    let gone = nodes.iter().filter(|&(_, &at)| at == region).map(|(&id, _)| id).collect();
    renumber(plan, &gone);
    plan.shape.regions.remove(region);
    plan.timing.delays.remove(region);
    for row in &mut plan.timing.delays {
        row.remove(region);
    }
    for client in &mut plan.clients {
        client.region = match client.region {
            at if at == region => 0,
            at if at > region => at - 1,
            at => at,
        };
    }
}

/// The plan without a node, and with no more replicas than its region has nodes left.
fn leave_out_node(plan: &mut Plan, node: NodeId) {
    let nodes = plan.shape.nodes();
    let Some(&region) = nodes.get(&node) else { return };
    if plan.shape.regions[region].0 < 2 {
        return;
    }
    renumber(plan, &BTreeSet::from([node]));
    let (nodes, replicas) = &mut plan.shape.regions[region];
    *nodes -= 1;
    *replicas = (*replicas).min(u8::try_from(*nodes).unwrap_or(u8::MAX));
}

/// Leaves out the faults of nodes that are about to go, and gives the others' their new numbers.
fn renumber(plan: &mut Plan, gone: &BTreeSet<NodeId>) {
    let left = plan.shape.nodes().into_keys().filter(|node| !gone.contains(node));
    let names: BTreeMap<NodeId, NodeId> = left.zip((1..).map(NodeId)).collect();
    plan.faults.retain_mut(|fault| {
        let Some(&node) = names.get(&fault.node) else { return false };
        fault.node = node;
        let other = names.get(&fault.other).copied();
        fault.other = other.unwrap_or(node);
        other.is_some() || !fault.kind.takes_two()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tamper::Tamper;

    fn failing(tamper: Tamper) -> Plan {
        let plans = (0..1_000).map(|seed| Plan { tamper: Some(tamper), ..Plan::from_seed(seed) });
        let breaks = |plan: &Plan| Sim::new(plan.clone(), false).run().violation.is_some();
        plans.into_iter().find(breaks).expect("a seed that finds the bug")
    }

    /// Bugs of different kinds: of messages, answers, requests, disks and starts.
    const BUGS: [Tamper; 8] = [
        Tamper::RepairOverwrites,
        Tamper::RelayForgesVotes,
        Tamper::ContextCoversUnseen,
        Tamper::TimeoutIsFailure,
        Tamper::RetryForgotten,
        Tamper::AcknowledgedBeforeSync,
        Tamper::BatchNotAtomic,
        Tamper::ActorReused,
    ];

    /// Goal: what is shrunk breaks the same rule, is no larger in any respect, and mostly much smaller.
    /// Method: several bugs, each at the first seed that finds it.
    #[test]
    fn shrunk_plans_fail_alike() {
        let (mut before, mut after) = (0, 0);
        for tamper in BUGS {
            let plan = failing(tamper);
            let rule = Sim::new(plan.clone(), false).run().violation.unwrap().property;
            let shrunk = shrink(&plan, Limits::default()).unwrap();
            let (large, small) = (Size::of(&plan), Size::of(&shrunk.plan));
            let again = Sim::new(shrunk.plan.clone(), false).run().violation;
            assert_eq!(again.as_ref(), Some(&shrunk.violation), "{tamper:?}");
            assert_eq!(shrunk.violation.property, rule, "{tamper:?}");
            let fits = small.nodes <= large.nodes
                && small.clients <= large.clients
                && small.operations <= large.operations
                && small.faults <= large.faults;
            assert!(fits, "{tamper:?}: {large} became {small}");
            println!("{tamper:?}: {large} became {small}, {} runs", shrunk.cost.runs);
            before += large.operations as usize + large.faults;
            after += small.operations as usize + small.faults;
        }
        assert!(after * 3 < before, "{before} operations and faults became {after}");
    }

    /// Goal: the same plan shrinks to the same plan, and never beyond its bounds.
    #[test]
    fn shrinking_is_decided_and_bounded() {
        let plan = failing(Tamper::RepairOverwrites);
        let limits = Limits { runs: 40, steps: 1_000_000 };
        let (one, two) = (shrink(&plan, limits), shrink(&plan, limits));
        assert_eq!(one, two);
        assert!(one.unwrap().cost.runs <= limits.runs);
        let steps = Limits { steps: 1, ..Limits::default() };
        assert_eq!(shrink(&plan, steps).unwrap().plan, plan);
    }

    /// Goal: a plan that breaks no rule is not shrunk to nothing.
    #[test]
    fn a_clean_plan_stays() {
        assert_eq!(shrink(&Plan::from_seed(1), Limits::default()), None);
    }

    /// Goal: faults follow their nodes when others go. Method: two regions, one node or region out.
    #[test]
    fn faults_follow_their_nodes() {
        let mut plan = Plan::with_mode(0, crate::plan::Mode::Calm);
        plan.shape.regions = vec![(2, 1), (2, 2)];
        let fault = |node, other| crate::plan::Fault {
            at_us: 0,
            for_us: 1,
            kind: crate::plan::FaultKind::Cut,
            node: NodeId(node),
            other: NodeId(other),
            strength: 1,
        };
        plan.faults = vec![fault(1, 4), fault(4, 1), fault(3, 2), fault(3, 4)];
        let struck = |plan: &Plan| -> Vec<(u64, u64)> {
            plan.faults.iter().map(|fault| (fault.node.0, fault.other.0)).collect()
        };
        let mut without_node = plan.clone();
        leave_out_node(&mut without_node, NodeId(2));
        assert_eq!(without_node.shape.regions, [(1, 1), (2, 2)]);
        assert_eq!(struck(&without_node), [(1, 3), (3, 1), (2, 3)]);
        plan.timing.delays = vec![vec![plan.timing.disk; 2]; 2];
        leave_out_region(&mut plan, 0);
        assert_eq!((plan.shape.regions.len(), plan.timing.delays.len()), (1, 1));
        assert_eq!(struck(&plan), [(1, 2)]);
    }
}
