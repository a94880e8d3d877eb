//! Whether a plan from a file can be played: what a seed never does, a person may.

use std::collections::BTreeSet;

use holm_protocol::ids::NodeId;

use crate::plan::{ClientPlan, Fault, FaultKind, Plan, Shape};

/// No run is longer, simulated microseconds: a day.
const LONGEST_US: u64 = 86_400_000_000;
/// As many as a byte's index of a node in a layout of this size allows; more were never tried.
const NODES_MAX: usize = 64;
/// More partitions were never tried.
const BITS_MAX: u8 = 8;
/// More clients were never tried. The referee's own client has a higher number.
const CLIENTS_MAX: u64 = 10_000;

/// Why a plan cannot be played.
pub(super) struct Nonsense {
    /// The kind of line that is wrong.
    pub(super) kind: &'static str,
    /// Which of that kind, from 0.
    pub(super) at: usize,
    pub(super) what: String,
    pub(super) todo: String,
}

fn nonsense(kind: &'static str, at: usize, what: String, todo: impl Into<String>) -> Nonsense {
    Nonsense { kind, at, what, todo: todo.into() }
}

/// Checks what the program takes for granted.
pub(super) fn check(plan: &Plan) -> Result<(), Nonsense> {
    shape(&plan.shape)?;
    let regions = plan.shape.regions.len();
    let (kind, rows) = ("timing", &plan.timing.delays);
    if rows.len() != regions || rows.iter().any(|row| row.len() != regions) {
        let what = format!("delays are not {regions} rows of {regions}");
        return Err(nonsense(kind, 0, what, "give one for each pair of regions"));
    }
    let delays = rows.iter().flatten().chain([&plan.timing.disk]);
    if delays.clone().any(|d| d.base_us > LONGEST_US || d.jitter_us > LONGEST_US) {
        return Err(nonsense(kind, 0, "a delay is too long".to_owned(), "give less than a day"));
    }
    if plan.timing.link_spread > 1_000 {
        let what = format!("link_spread={}", plan.timing.link_spread);
        return Err(nonsense(kind, 0, what, "give a percentage up to 1000"));
    }
    if plan.timing.detect_us > LONGEST_US {
        return Err(nonsense(kind, 0, "detect_us is too long".to_owned(), "give less than a day"));
    }
    if plan.keys == 0 || plan.faults_until_us > LONGEST_US {
        let what = format!("keys={} faults_until_us={}", plan.keys, plan.faults_until_us);
        return Err(nonsense("plan", 0, what, "give at least one key and less than a day"));
    }
    let mut ids = BTreeSet::new();
    for (at, one) in plan.clients.iter().enumerate() {
        client(at, one, regions)?;
        if !ids.insert(one.id) {
            let what = format!("two clients have the id {}", one.id);
            return Err(nonsense("client", at, what, "give one of them another"));
        }
    }
    let nodes: Vec<NodeId> = plan.shape.nodes().into_keys().collect();
    plan.faults.iter().enumerate().try_for_each(|(at, one)| fault(at, one, &nodes))?;
    faults(plan)
}

/// What faults must leave: an end before the calm, and a replica of each partition that remembers.
fn faults(plan: &Plan) -> Result<(), Nonsense> {
    let until_us = plan.faults_until_us;
    let late = plan.faults.iter().position(|fault| fault.at_us + fault.for_us > until_us);
    if let Some(at) = late {
        let what = format!("it lasts beyond faults_until_us={until_us}");
        return Err(nonsense("fault", at, what, "shorten it, or let faults last longer"));
    }
    let one = plan.faults.iter().position(|f| f.kind.takes_two() && f.node == f.other);
    if let Some(at) = one {
        let what = format!("{:?} takes two nodes", plan.faults[at].kind);
        return Err(nonsense("fault", at, what, "give another node as other="));
    }
    let mut wipes = (0..plan.faults.len()).filter(|&at| plan.faults[at].kind == FaultKind::Wipe);
    let one_too_many = if plan.shape.replicas() < 2 { wipes.next() } else { wipes.nth(1) };
    if let Some(at) = one_too_many {
        let what = "no replica is left that remembers".to_owned();
        return Err(nonsense("fault", at, what, "leave out a wiped disk"));
    }
    Ok(())
}

fn shape(shape: &Shape) -> Result<(), Nonsense> {
    let Shape { regions, zones: _, bits, shards } = shape;
    let wrong = |what, todo: &str| Err(nonsense("shape", 0, what, todo));
    if regions.is_empty()
        || regions.iter().any(|&(nodes, copies)| copies == 0 || usize::from(copies) > nodes)
    {
        let what = "a region lacks nodes for its replicas".to_owned();
        return wrong(what, "give regions as nodes:replicas, 1 to `nodes` replicas each");
    }
    let nodes: usize = regions.iter().map(|&(nodes, _)| nodes.min(NODES_MAX + 1)).sum();
    if nodes > NODES_MAX {
        return wrong(format!("more than {NODES_MAX} nodes"), "take some out");
    }
    if *bits > BITS_MAX {
        let what = format!("2^{bits} partitions");
        return wrong(what, &format!("give at most {BITS_MAX} bits"));
    }
    if *shards == 0 || *shards > NODES_MAX {
        return wrong(format!("{shards} shards"), "give a few");
    }
    Ok(())
}

fn client(at: usize, client: &ClientPlan, regions: usize) -> Result<(), Nonsense> {
    let wrong = |what, todo: String| Err(nonsense("client", at, what, todo));
    if client.region >= regions {
        let what = format!("there is no region {}", client.region);
        return wrong(what, format!("give a number from 0 to {}", regions - 1));
    }
    if client.id == 0 || client.id > CLIENTS_MAX {
        let what = format!("client {}", client.id);
        return wrong(what, format!("give an id from 1 to {CLIENTS_MAX}"));
    }
    if client.think_us > LONGEST_US {
        return wrong("think_us is too long".to_owned(), "give less than a day".to_owned());
    }
    Ok(())
}

fn fault(at: usize, fault: &Fault, nodes: &[NodeId]) -> Result<(), Nonsense> {
    let wrong = |what, todo: &str| Err(nonsense("fault", at, what, todo));
    if let Some(node) = [fault.node, fault.other].into_iter().find(|node| !nodes.contains(node)) {
        let todo = format!("give one from n1 to n{}", nodes.len());
        return wrong(format!("there is no node {node}"), &todo);
    }
    if fault.at_us > LONGEST_US || fault.for_us > LONGEST_US {
        return wrong("at_us or for_us is too long".to_owned(), "give less than a day");
    }
    if !(1..=100).contains(&fault.strength) {
        return wrong(format!("strength={}", fault.strength), "give 1 to 100");
    }
    Ok(())
}
