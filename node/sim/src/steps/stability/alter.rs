//! Traces with one step changed: the specification may not accept them.

use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;
use holm_protocol::version_vector::VersionVector;

use super::{Claim, Held, Step, Trace};
use crate::steps::Shown;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alteration {
    /// A claim has a write that is not safe on the disk of the node that claims.
    ClaimsTooMuch,
    /// A claim calls stable what its node does not durably know to be.
    KnowsTooMuch,
    /// A claim is noted that was never made.
    HeardTooMuch,
    /// A write is concluded to be stable in the commit that makes it durable.
    StableAtOnce,
    /// A context is cut down, or a tombstone removed, of which something is not known to be stable.
    ForgottenTooSoon,
    /// An entry of the log goes that is not known to be stable.
    TrimmedTooSoon,
    /// A start finds a write less than its disk had.
    FoundTooLittle,
    /// A started node serves though it lacks what the other knows to be stable.
    ServedTooSoon,
    /// A started node is answered before its run was met.
    AnsweredTooSoon,
    /// A replica that takes a partition whole does not take in something that has been seen.
    TakenTooLittle,
}

impl Alteration {
    /// All of them.
    pub const ALL: [Alteration; 10] = [
        Alteration::ClaimsTooMuch,
        Alteration::KnowsTooMuch,
        Alteration::HeardTooMuch,
        Alteration::StableAtOnce,
        Alteration::ForgottenTooSoon,
        Alteration::TrimmedTooSoon,
        Alteration::FoundTooLittle,
        Alteration::ServedTooSoon,
        Alteration::AnsweredTooSoon,
        Alteration::TakenTooLittle,
    ];

    /// The trace with one step changed, if it has a step that can be. The last such step is taken:
    /// all before it are then accepted.
    #[must_use]
    pub fn apply(self, trace: &Trace) -> Option<Trace> {
        let mut steps = trace.steps.clone();
        for at in (0..steps.len()).rev() {
            if let Some(changed) = self.changed(trace, at) {
                steps[at] = changed;
                return Some(Trace { runs: trace.runs.clone(), steps });
            }
        }
        None
    }

    /// The step at this place as it is changed.
    fn changed(self, trace: &Trace, at: usize) -> Option<Step> {
        let before = |node: &NodeId| disk_before(trace, at, *node);
        match (self, &trace.steps[at]) {
            (Alteration::ClaimsTooMuch, Step::Tell(node, to, claim)) => {
                let disk = before(node);
                let new = written(trace, at).find(|dot| !disk.is_some_and(|it| has(it, *dot)))?;
                let mut claim = claim.clone();
                claim.seen.push(new);
                Some(Step::Tell(*node, *to, claim))
            }
            (Alteration::KnowsTooMuch, Step::Tell(node, to, claim)) => {
                let disk = before(node)?;
                let new = claim.seen.iter().find(|dot| !disk.know.covers(**dot))?;
                Some(Step::Tell(*node, *to, knowing(claim, *new)))
            }
            (Alteration::HeardTooMuch, Step::Hear(node, from, claim)) => {
                let told = |step: &Step| match step {
                    Step::Tell(by, to, told) if by == from && to == node => told.run == claim.run,
                    _ => false,
                };
                let is_told = |dot: Dot| {
                    trace.steps[..at].iter().filter(|step| told(step)).any(|step| match step {
                        Step::Tell(_, _, told) => told.know.covers(dot),
                        _ => false,
                    })
                };
                let new = claim.seen.iter().copied().find(|dot| !is_told(*dot))?;
                Some(Step::Hear(*node, *from, knowing(claim, new)))
            }
            (Alteration::StableAtOnce, Step::Commit(node, after, log, is_synced)) => {
                let disk = before(node);
                let is_new = |dot: &&Dot| {
                    !disk.is_some_and(|it| has(it, **dot)) && !after.know.covers(**dot)
                };
                let new = after.seen.iter().find(is_new)?;
                let mut after = after.clone();
                after.know.insert(*new);
                Some(Step::Commit(*node, after, log.clone(), *is_synced))
            }
            (Alteration::ForgottenTooSoon, Step::Commit(node, after, log, is_synced)) => {
                let live: VersionVector = after.object.live.iter().copied().collect();
                let mut entries = after.object.context.iter();
                let known = known_before(trace, at, *node);
                let is_known = |dot: &Dot| known.is_some_and(|know| know.covers(*dot));
                let is_open = entries.any(|dot| !is_known(&dot));
                let is_cut = live == after.object.context;
                let object = Shown { live: after.object.live.clone(), context: live };
                let after = Held { object, ..after.clone() };
                (is_open && !is_cut).then(|| Step::Commit(*node, after, log.clone(), *is_synced))
            }
            (Alteration::TrimmedTooSoon, Step::Commit(node, after, log, is_synced)) => {
                let known = known_before(trace, at, *node);
                let is_open = |dot: &Dot| !known.is_some_and(|know| know.covers(*dot));
                let entry = log.iter().position(is_open)?;
                let mut log = log.clone();
                log.remove(entry);
                Some(Step::Commit(*node, after.clone(), log, *is_synced))
            }
            (Alteration::FoundTooLittle, Step::Start(node, actor, found, log)) => {
                let mut found = found.clone();
                let lost = found.seen.pop()?;
                let log = log.iter().copied().filter(|dot| *dot != lost).collect();
                Some(Step::Start(*node, *actor, found, log))
            }
            (Alteration::ServedTooSoon, Step::Serve(node, from, op, position)) => {
                let found = trace.steps[..at].iter().rev().find_map(|step| match step {
                    Step::Start(it, _, found, _) if it == node => Some(found),
                    _ => None,
                })?;
                let lacked = written(trace, at).find(|dot| !has(found, *dot))?;
                let mut position = position.clone();
                position.know.insert(lacked);
                Some(Step::Serve(*node, *from, *op, position))
            }
            (Alteration::AnsweredTooSoon, Step::Meet(node, other, _)) => {
                let (past, future) = trace.steps.split_at(at);
                let asked = |op| {
                    let of_run = past.iter().rev().take_while(|it| !is_start(it, *other));
                    let mut asks = of_run.filter(|it| matches!(it, Step::Ask(..)));
                    asks.any(|it| matches!(it, Step::Ask(by, of, it, _) if (by, of, it) == (other, node, op)))
                };
                let is_met_again = past.contains(&trace.steps[at]);
                let answer = future.iter().find(|step| match step {
                    Step::Answer(by, to, op, _) => (by, to) == (node, other) && asked(op),
                    _ => false,
                })?;
                (!is_met_again).then(|| answer.clone())
            }
            (Alteration::TakenTooLittle, Step::Whole(node, from, page, after)) => {
                let mut after = after.clone();
                after.object.live.pop().or_else(|| after.seen.pop())?;
                Some(Step::Whole(*node, *from, page.clone(), after))
            }
            _ => None,
        }
    }
}

fn is_start(step: &Step, node: NodeId) -> bool {
    matches!(step, Step::Start(it, ..) if *it == node)
}

fn has(held: &Held, dot: Dot) -> bool {
    held.seen.contains(&dot)
}

fn knowing(claim: &Claim, dot: Dot) -> Claim {
    let mut claim = claim.clone();
    claim.know.insert(dot);
    claim
}

/// The writes before this place, the latest first.
fn written(trace: &Trace, at: usize) -> impl Iterator<Item = Dot> + '_ {
    trace.steps[..at].iter().rev().filter_map(|step| match step {
        Step::Write(_, actor, _, _, after) => {
            Some(Dot::new(*actor, after.object.context.get(*actor)))
        }
        _ => None,
    })
}

/// What a node's disk has before this place, at most: what was committed last.
fn disk_before(trace: &Trace, at: usize, node: NodeId) -> Option<&Held> {
    trace.steps[..at].iter().rev().find_map(|step| match step {
        Step::Commit(it, held, ..) | Step::Start(it, _, held, _) if *it == node => Some(held),
        _ => None,
    })
}

/// What a node knows to be stable before this place.
fn known_before(trace: &Trace, at: usize, node: NodeId) -> Option<&VersionVector> {
    disk_before(trace, at, node).map(|held| &held.know)
}
