//! How nodes took the damage to their files.

use std::collections::BTreeMap;

use super::damage::Kind;

/// How a node took its damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It did not start and named the damaged file.
    Refused,
    /// It did not start and named another file of the directory, which does not fit the damaged one.
    RefusedByOther,
    /// It serves without answering reads from its own store.
    Amnesia,
    /// It started, met the damage, and ended itself with the file's name.
    SteppedAside,
    /// It serves; what is damaged it refuses as a replica, and the others answer.
    Errors,
    /// Everything was right: the bytes are not used, or were restored from a copy.
    Unharmed,
}

/// What came of all rounds.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Kind, Outcome), usize>);

impl Tally {
    /// One more.
    pub(super) fn add(&mut self, kind: Kind, outcome: Outcome) {
        *self.0.entry((kind, outcome)).or_default() += 1;
    }

    /// How often it came to this.
    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.0.iter().filter(|((_, other), _)| *other == outcome).map(|(_, count)| count).sum()
    }

    /// A line for each kind of file.
    pub(super) fn print(&self) {
        eprintln!("damaged file   refused  by other  amnesia  stepped aside  errors  unharmed");
        for kind in Kind::ALL {
            let count = |outcome| self.0.get(&(kind, outcome)).copied().unwrap_or_default();
            let (refused, other) = (count(Outcome::Refused), count(Outcome::RefusedByOther));
            let (amnesia, aside) = (count(Outcome::Amnesia), count(Outcome::SteppedAside));
            let (errors, unharmed) = (count(Outcome::Errors), count(Outcome::Unharmed));
            eprintln!(
                "{kind:<14} {refused:>7} {other:>9} {amnesia:>8} {aside:>14} {errors:>7} {unharmed:>9}"
            );
        }
    }
}
