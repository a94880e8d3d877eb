//! The referee's rules, one property a file.
//!
//! A property is a statement about what clients were told or what replicas hold, with the
//! invariant of the design that it stands for and where the idea comes from. Checks are pure: they
//! are given facts and say whether they agree. [`crate::referee`] gathers the facts and calls them:
//! those about one answer when it arrives, those about one commit when it happens, the others at
//! intervals or at the end.
//!
//! Causality is kept as explicit sets of events, not as the version vectors under test: every
//! write is an event; a context *covers* the events whose dots it covers; a write *saw* what its
//! context covered. All rules are about these sets.

pub mod answers;
pub mod bounds;
pub mod converged;
pub mod deadline;
pub mod dots;
pub mod elements;
pub mod equal_clocks;
pub mod gone;
pub mod kept;
pub mod latest;
pub mod panics;
pub mod quorum_reads;
pub mod receipts;
pub mod replica;
pub mod values;

use std::fmt;

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Property {
    /// What reports call it.
    pub name: &'static str,
    /// The invariant of the design (`I1` to `I12`) or the promise (`P1` to `P18`) behind it.
    pub invariant: &'static str,
    /// What must hold.
    pub statement: &'static str,
    /// Where the idea comes from.
    pub source: &'static str,
}

/// Every rule, in the order of the table in the crate's README.
pub const PROPERTIES: [&Property; 20] = [
    &dots::UNIQUE,
    &dots::RETRY_ONCE,
    &values::GENUINE,
    &values::NOT_DONE,
    &answers::VISIBLE_OR_OVERWRITTEN,
    &answers::NOTHING_DOMINATED,
    &answers::CONTEXT_GENUINE,
    &receipts::LEVEL_MET,
    &quorum_reads::INTERSECTION,
    &deadline::IN_TIME,
    &replica::NOTHING_RETURNS,
    &replica::NOTHING_VANISHES,
    &replica::CLOCK_NAMES_ALL,
    &equal_clocks::EQUAL_STATES,
    &bounds::BOUNDED,
    &converged::SAME_EVERYWHERE,
    &kept::ACKNOWLEDGED_KEPT,
    &gone::OVERWRITTEN_GONE,
    &latest::LATEST_WINS,
    &panics::NEVER,
];

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: &'static Property,
    /// How: keys, dots, nodes.
    pub how: String,
}

impl Violation {
    /// A rule was broken like this.
    #[must_use]
    pub fn new(property: &'static Property, how: String) -> Violation {
        Violation { property, how }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Property { name, invariant, statement, .. } = self.property;
        write!(f, "{name} ({invariant}): {}\n  rule: {statement}", self.how)
    }
}

/// What a check says.
pub type Verdict = Result<(), Violation>;

#[cfg(test)]
mod tests {
    //! Hand-made histories for the checks' own tests.

    use bytes::Bytes;
    use holm_protocol::dot::Dot;
    use holm_protocol::ids::{Actor, BucketId, NodeId, Partition, RegionId};
    use holm_protocol::level::Level;
    use holm_protocol::version_vector::VersionVector;

    use super::PROPERTIES;
    use crate::history::{EventId, History, KeyId, Outcome};

    /// A history of one key.
    #[derive(Debug)]
    pub(crate) struct Told {
        pub(crate) history: History,
        pub(crate) key: KeyId,
    }

    impl Default for Told {
        fn default() -> Self {
            Told::of(false)
        }
    }

    impl Told {
        fn of(is_lww: bool) -> Told {
            let mut history = History::new();
            let name = (BucketId(1), Bytes::from_static(b"k"));
            let key = history.add_key(name, Partition::from_u32(0), is_lww);
            Told { history, key }
        }

        pub(crate) fn lww() -> Told {
            Told::of(true)
        }

        pub(crate) fn at(&self) -> (Level, u64) {
            (Level::One, self.history.len() as u64)
        }

        pub(crate) fn saw(&self, saw: &[(u64, u64)]) -> VersionVector {
            covers(saw)
        }

        pub(crate) fn put(&mut self, value: &'static str, saw: &[(u64, u64)]) -> EventId {
            let value = Some(Bytes::from_static(value.as_bytes()));
            self.history.begin(self.key, value, covers(saw), self.at())
        }

        pub(crate) fn delete(&mut self, saw: &[(u64, u64)]) -> EventId {
            self.history.begin(self.key, None, covers(saw), self.at())
        }

        pub(crate) fn acknowledge(&mut self, id: EventId, dot: Dot, durable: &[u64]) {
            assert_eq!(self.history.learn(id, dot), crate::history::Learned::Fits);
            let event = self.history.event_mut(id);
            event.outcome = Outcome::Acknowledged;
            event.acknowledged_us = Some(10);
            event.region = Some(RegionId(0));
            // Nobody named: the coordinator, node 1, has it.
            let nodes = if durable.is_empty() { &[1][..] } else { durable };
            event.durable = nodes.iter().map(|&node| NodeId(node)).collect();
        }
    }

    pub(crate) fn dot(actor: u64, counter: u64) -> Dot {
        Dot { actor: Actor(actor), counter }
    }

    pub(crate) fn covers(dots: &[(u64, u64)]) -> VersionVector {
        let mut vector = VersionVector::new();
        dots.iter().for_each(|&(actor, counter)| vector.insert(dot(actor, counter)));
        vector
    }

    /// Goal: the table in the README lists every property, by name and invariant.
    #[test]
    fn the_readme_lists_every_property() {
        let readme = include_str!("../README.md");
        for property in PROPERTIES {
            let row = format!("| {} | {} |", property.name, property.invariant);
            assert!(readme.contains(&row), "README.md lacks {row}");
        }
    }
}
