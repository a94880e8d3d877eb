//! Traces with one step changed: no specification may accept them.

use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;

use super::{Shown, Step, Trace};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alteration {
    /// A write gets a dot that is one too high.
    WrongDot,
    /// An object loses a sibling when another is joined.
    LostSibling,
    /// An overwritten or deleted value is alive again when an object is joined.
    Returned,
    /// A receipt names a replica that the write never reached.
    ForgedVote,
}

impl Alteration {
    /// All of them.
    pub const ALL: [Alteration; 4] = [
        Alteration::WrongDot,
        Alteration::LostSibling,
        Alteration::Returned,
        Alteration::ForgedVote,
    ];

    /// The trace with one step changed, if it has a step that can be. The last such step is taken:
    /// all before it are then accepted.
    #[must_use]
    pub fn apply(self, trace: &Trace) -> Option<Trace> {
        let mut steps = trace.steps.clone();
        for at in (0..steps.len()).rev() {
            if self.change(trace, at, &mut steps[at]) {
                return Some(Trace { runs: trace.runs.clone(), steps });
            }
        }
        None
    }

    fn change(self, trace: &Trace, place: usize, step: &mut Step) -> bool {
        match (self, step) {
            (Alteration::WrongDot, Step::Write { at, after, .. }) => {
                let next = Dot::new(*at, after.context.get(*at) + 1);
                after.context.insert(next);
                after.live.iter_mut().filter(|dot| dot.actor == *at).for_each(|dot| {
                    if dot.counter + 1 == next.counter {
                        *dot = next;
                    }
                });
                true
            }
            (Alteration::LostSibling, Step::Join { after, .. }) => after.live.pop().is_some(),
            (Alteration::Returned, Step::Join { after, .. }) => revive(trace, place, after),
            (Alteration::ForgedVote, Step::Told { dot, by, .. }) => {
                let nodes = (1..=3).map(NodeId);
                let never = nodes.into_iter().find(|node| !has(trace, place, *node, *dot));
                never.is_some_and(|node| {
                    by.push(node);
                    true
                })
            }
            _ => false,
        }
    }
}

/// Adds a dot that the object covers and does not show.
fn revive(trace: &Trace, place: usize, object: &mut Shown) -> bool {
    let mut puts = trace.steps[..place].iter().rev().filter_map(|step| match step {
        Step::Write { at, delete: false, after, .. } => Some(Dot::new(*at, after.context.get(*at))),
        _ => None,
    });
    let is_gone = |dot: &Dot| object.context.covers(*dot) && !object.live.contains(dot);
    let gone = puts.find(is_gone);
    gone.is_some_and(|dot| {
        object.live.push(dot);
        true
    })
}

/// Whether a node has committed a write before this place.
fn has(trace: &Trace, place: usize, node: NodeId, dot: Dot) -> bool {
    trace.steps[..place].iter().any(|step| match step {
        Step::Commit { at, object } => {
            trace.runs.contains(&(node, *at)) && object.context.covers(dot)
        }
        _ => false,
    })
}
