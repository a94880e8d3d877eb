//! When which operation wants to be woken. Each has at most one wake-up, and says what for itself.

use std::collections::BTreeSet;

use crate::peer::OpId;
use crate::time::Mono;

/// The wake-ups of one shard, in order.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Mono, OpId)>,
}

impl Timers {
    /// Wakes an operation at this time. A late wake-up does no harm: whoever is woken compares with
    /// the time it is.
    pub(super) fn set(&mut self, at: Mono, op: OpId) {
        self.due.insert((at, op));
    }

    /// Takes a wake-up back.
    pub(super) fn clear(&mut self, at: Mono, op: OpId) {
        self.due.remove(&(at, op));
    }

    /// When the next wake-up is.
    #[must_use]
    pub(super) fn next(&self) -> Option<Mono> {
        self.due.first().map(|&(at, _)| at)
    }

    /// The next operation whose time has come.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<OpId> {
        match self.due.first() {
            Some(&(at, _)) if at <= now => self.due.pop_first().map(|(_, op)| op),
            _ => None,
        }
    }
}
