//! The referee's rules, one property a file.
//!
//! A property is a statement about what clients were told or what replicas hold, with the
//! invariant of the design that it stands for and where the idea comes from. Checks are pure: they
//! are given facts and say whether they agree. [`crate::referee`] gathers the facts and calls them:
//! those about one answer when it arrives, those about one commit when it happens, the others at
//! intervals or at the end.
//!
//! Causality is kept as explicit sets of events, not as the version vectors under test: every
//! write is an event, and [`crate::history`] says what its writer *saw*. A context *covers* the
//! events whose dots its vector covers. Rules about causality compare the two.

pub mod answers;
pub mod bounds;
pub mod claims;
pub mod closed;
pub mod converged;
pub mod deadline;
pub mod dots;
pub mod durable;
pub mod elements;
pub mod ends;
pub mod equal_clocks;
pub mod forged;
pub mod gone;
pub mod hints;
pub mod kept;
pub mod latest;
pub mod logged;
pub mod names;
pub mod panics;
pub mod quarantine;
pub mod quorum_reads;
pub mod receipts;
pub mod replica;
pub mod same_run;
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
    /// The operator of the specifications that says the same, `module!Operator`. `None` where the
    /// rule is about the code and not about the protocol.
    pub tla: Option<&'static str>,
    /// The file that has the rule.
    pub file: &'static str,
}

/// Every rule, in the order of the table in the crate's README.
pub const PROPERTIES: [&Property; 47] = [
    &dots::UNIQUE,
    &dots::RETRY_ONCE,
    &values::GENUINE,
    &values::NOT_DONE,
    &answers::VISIBLE_OR_OVERWRITTEN,
    &answers::NOTHING_DOMINATED,
    &answers::CONTEXT_GENUINE,
    &answers::CONTEXT_CLOSED,
    &answers::WRITERS_CONTEXT,
    &names::CONTEXT_NAMES_WRITES,
    &forged::REFUSED,
    &receipts::LEVEL_MET,
    &durable::ON_DISK,
    &durable::OUTLIVES_CRASHES,
    &hints::HOME_FIRST,
    &hints::GO_HOME,
    &quarantine::STEPS_ASIDE,
    &quarantine::ASKS_FIRST,
    &quarantine::BEHIND_STEPS_ASIDE,
    &quarantine::COMES_BACK,
    &quorum_reads::INTERSECTION,
    &deadline::IN_TIME,
    &ends::ENDS,
    &ends::READABLE,
    &replica::NOTHING_RETURNS,
    &replica::NOTHING_VANISHES,
    &replica::CLOCK_NAMES_ALL,
    &logged::LOG_HAS_OBJECT,
    &logged::CLOCK_HONEST,
    &equal_clocks::EQUAL_STATES,
    &claims::DURABLE,
    &claims::STABLE_IS_SEEN,
    &replica::FORGOTTEN_IS_KNOWN,
    &equal_clocks::NOTHING_UNEXPLAINED,
    &closed::ONE_DECISION,
    &closed::NOTHING_HELD_IS_VOID,
    &closed::ALL_FOLDED,
    &bounds::BOUNDED,
    &converged::SAME_EVERYWHERE,
    &converged::SAME_CLOCKS,
    &converged::ALL_FORGOTTEN,
    &kept::ACKNOWLEDGED_KEPT,
    &gone::OVERWRITTEN_GONE,
    &latest::LATEST_WINS,
    &panics::NEVER,
    &same_run::SAME,
    &elements::ELEMENTS_KEPT,
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
mod tests;
