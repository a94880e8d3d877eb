//! Merges one read's answers to a verdict. Pure: answers come in; what to ask next, or the merged
//! object, goes out.
//!
//! The first replica is asked for its whole object, the others for digests. A digest that equals
//! that of an object in hand means the same state, so its replica's state is *included*; a replica
//! with another digest is asked for its object. A digest is of what is alive: as soon as two states
//! differ, one replica may know of a delete that another with equal values does not, and only whole
//! objects count. The read is answered when enough replicas are included. Answers are counted by node: a repeated one replaces, a stranger's is refused.
//!
//! Source: Dynamo (SOSP 2007) 5; digest reads as in Cassandra, but of causal state (context and
//! dots), so that equal digests mean equal states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holm_protocol::dot::Dot;
use holm_protocol::ids::NodeId;

use crate::object::{KindMismatch, Object, ObjectError};
use crate::quorum::{Quorum, Tally};

/// What one replica answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    digest: u64,
    /// Whether its whole object is part of the merge.
    whole: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Wait for more answers.
    Wait,
    /// Ask these for their whole objects: their digests differ from all in hand.
    AskWhole(Vec<NodeId>),
    /// Enough: the merged object can be answered.
    Answer,
    /// Too many have refused.
    Impossible,
}

/// Why an object cannot be part of the answer. Nothing was merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// It is of another kind.
    #[error(transparent)]
    Kind(#[from] KindMismatch),
    /// With it the merge would be more than anybody can read.
    #[error(transparent)]
    TooLarge(#[from] ObjectError),
}

/// What is known of one read.
#[derive(Debug, Clone)]
pub struct GetCoordinator {
    quorum: Arc<Quorum>,
    merged: Object,
    /// How many states are part of that.
    merges: usize,
    answers: BTreeMap<NodeId, Answer>,
    refused: BTreeSet<NodeId>,
    asked_whole: BTreeSet<NodeId>,
}

impl GetCoordinator {
    /// No answers yet; `empty` is the bucket's empty object.
    #[must_use]
    pub fn new(quorum: Arc<Quorum>, empty: Object) -> Self {
        GetCoordinator {
            quorum,
            merged: empty,
            merges: 0,
            answers: BTreeMap::new(),
            refused: BTreeSet::new(),
            asked_whole: BTreeSet::new(),
        }
    }

    /// A replica's whole object.
    ///
    /// # Errors
    /// The object is of another kind, or too large together with the others: it counts as a refusal.
    pub fn whole(&mut self, node: NodeId, object: Object) -> Result<(), MergeError> {
        let digest = object.digest();
        if let Err(error) = self.merge(object) {
            self.refused(node);
            return Err(error);
        }
        self.refused.remove(&node);
        self.answers.insert(node, Answer { digest, whole: true });
        Ok(())
    }

    /// A state that belongs into the answer and is no replica's answer: it counts for nobody.
    ///
    /// # Errors
    /// The object is of another kind, or too large together with the others: nothing is changed.
    pub fn merge(&mut self, object: Object) -> Result<(), MergeError> {
        if self.merged.has_room_for(&object) {
            self.merged.join(object)?;
            self.merges += 1;
            return Ok(());
        }
        let mut merged = self.merged.clone();
        merged.join(object)?;
        merged.check_limits()?;
        self.merged = merged;
        self.merges += 1;
        Ok(())
    }

    /// A replica's digest.
    pub fn digest(&mut self, node: NodeId, digest: u64) {
        // A whole object in hand says more than a digest that comes after it.
        if self.answers.get(&node).is_none_or(|answer| !answer.whole) {
            self.refused.remove(&node);
            self.answers.insert(node, Answer { digest, whole: false });
        }
    }

    /// A replica cannot answer.
    pub fn refused(&mut self, node: NodeId) {
        if self.answers.get(&node).is_none_or(|answer| !answer.whole) {
            self.answers.remove(&node);
            self.refused.insert(node);
        }
    }

    /// Marks replicas as asked for their whole objects from the start.
    pub fn ask_whole(&mut self, node: NodeId) {
        self.asked_whole.insert(node);
    }

    /// What is to be done next.
    #[must_use]
    pub fn step(&mut self) -> Next {
        let included = self.included();
        match self.quorum.tally(&included, &self.refused) {
            Tally::Met => return Next::Answer,
            Tally::Impossible => return Next::Impossible,
            Tally::Open => {}
        }
        let differ = |node: &NodeId| !included.contains(node) && !self.asked_whole.contains(node);
        // Without any whole object yet, digests say nothing: the object is on its way.
        if !self.answers.values().any(|answer| answer.whole) && self.waits_for_whole() {
            return Next::Wait;
        }
        let ask: Vec<NodeId> = self.answers.keys().copied().filter(differ).collect();
        if ask.is_empty() {
            return Next::Wait;
        }
        self.asked_whole.extend(&ask);
        Next::AskWhole(ask)
    }

    fn waits_for_whole(&self) -> bool {
        let silent = |node: &&NodeId| !self.refused.contains(node);
        self.asked_whole.iter().filter(silent).any(|node| !self.answers.contains_key(node))
    }

    /// Whether more than one state is part of the merge.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.merges > 1
    }

    /// Takes out of the merge the live dots for which `keep` is false.
    pub fn retain_dots(&mut self, keep: impl FnMut(Dot) -> bool) {
        self.merged.retain_dots(keep);
    }

    /// The replicas whose state is part of the merge.
    #[must_use]
    pub fn included(&self) -> BTreeSet<NodeId> {
        let whole = |answer: &&Answer| answer.whole;
        let digests: BTreeSet<u64> =
            self.answers.values().filter(whole).map(|answer| answer.digest).collect();
        let included = |(_, answer): &(&NodeId, &Answer)| {
            answer.whole || (digests.len() == 1 && digests.contains(&answer.digest))
        };
        self.answers.iter().filter(included).map(|(&node, _)| node).collect()
    }

    /// The merge of what was answered.
    #[must_use]
    pub fn merged(&self) -> &Object {
        &self.merged
    }

    /// The replicas that answered with less than the merge: they missed a write.
    #[must_use]
    pub fn stale(&self) -> Vec<NodeId> {
        let digest = self.merged.digest();
        let stale = |(_, answer): &(&NodeId, &Answer)| answer.digest != digest;
        self.answers.iter().filter(stale).map(|(&node, _)| node).collect()
    }

    /// Whether a node has neither answered nor refused.
    #[must_use]
    pub fn waits_for(&self, node: NodeId) -> bool {
        let whole_missing = self.asked_whole.contains(&node)
            && self.answers.get(&node).is_some_and(|answer| !answer.whole);
        !self.refused.contains(&node) && (!self.answers.contains_key(&node) || whole_missing)
    }

    /// The quorum that is asked.
    #[must_use]
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }
}

#[cfg(test)]
mod tests;
